"""The virtual world: the real protocol over a simulated network, in virtual time, from one seed."""

from folkmoot.sim.links import LinkConfig as LinkConfig
from folkmoot.sim.world import World as World

__all__ = ["LinkConfig", "World"]
