"""The virtual world: the real protocol over a simulated network, in virtual time, from one seed.

Here stands the world itself; `sim.reference` puts a load on it (extra `[sim]`).
"""

from folkmoot.sim.links import LinkConfig as LinkConfig
from folkmoot.sim.world import World as World

__all__ = ["LinkConfig", "World"]
