"""Whose word a card is: its device seals it, so that it does not matter who passes it on.

The core knows of seals only that there are any; keys and signatures are the node's. Liveness needs none: that somebody else tells
of a device under a higher number is how deaths, suspicions and their refutations spread.
"""

from __future__ import annotations

from typing import Protocol

from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId

FORGED = 32
"""Cards with a wrong seal that are looked at in a minute by one device's word (guess): each costs a signature's check."""


class Seals(Protocol):
    """How this device seals its own card, and tells whether another one's is genuine. Both depend on nothing else."""

    def seal(self, card: Card) -> bytes:
        """The seal of this device's own card, over all of it but the seal."""

    def genuine(self, device: DeviceId, card: Card) -> bool:
        """Whether a card bears the seal of that device."""


class Unsealed:
    """Everybody's word is believed: for worlds in which nobody forges. Its seals are `size` empty bytes, so that sizes are real."""

    def __init__(self, size: int = 0) -> None:
        self._seal = bytes(size)

    def seal(self, card: Card) -> bytes:
        """The same for every card."""
        return self._seal

    def genuine(self, device: DeviceId, card: Card) -> bool:
        """Always."""
        return True
