"""The overlay: hash rings over the live devices. Neighbours on them keep watch over each other.

Each device stands once on each ring, ordered by hash(ring number, device); its neighbours are the
predecessor and the successor on each. So being neighbours is mutual, a death is repaired by those next
to it, and the whole is an expander: few hops from anybody to anybody (MEMBERSHIP.md section 1.1).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from functools import lru_cache

from folkmoot.core.gossip import stamp
from folkmoot.core.ids import DeviceId

_RING_SALT = -1_000
"""Keeps ring places apart from the stamps of incarnations, which are never negative."""


@lru_cache(maxsize=1 << 15)
def _places(device: DeviceId, count: int) -> tuple[tuple[int, DeviceId], ...]:
    return tuple((stamp(device, _RING_SALT - ring), device) for ring in range(count))


class Rings:
    """`count` rings; adding, removing and looking up cost O(count · log n) comparisons."""

    def __init__(self, count: int) -> None:
        self._rings: list[list[tuple[int, DeviceId]]] = [[] for _ in range(count)]

    def __len__(self) -> int:
        return len(self._rings[0])

    def add(self, device: DeviceId) -> None:
        """Put a device on every ring. It must not stand there yet."""
        for ring, place in zip(self._rings, _places(device, len(self._rings)), strict=True):
            insort(ring, place)

    def add_all(self, devices: Iterable[DeviceId]) -> None:
        """Put many devices on every ring at once; none may stand there yet."""
        many = [_places(device, len(self._rings)) for device in devices]
        for number, ring in enumerate(self._rings):
            ring.extend([places[number] for places in many])
            ring.sort()

    def remove(self, device: DeviceId) -> None:
        """Take a device off every ring. It must stand there."""
        for ring, place in zip(self._rings, _places(device, len(self._rings)), strict=True):
            del ring[bisect_left(ring, place)]

    def neighbours(self, device: DeviceId) -> tuple[DeviceId, ...]:
        """Predecessor and successor on each ring, each once, in ring order; without the device itself.

        The device need not stand on the rings: these are then its neighbours to be.
        """
        found: dict[DeviceId, None] = {}
        for ring, place in zip(self._rings, _places(device, len(self._rings)), strict=True):
            if ring:
                at = bisect_left(ring, place)
                found[ring[at - 1][1]] = None
                after = at + 1 if at < len(ring) and ring[at] == place else at
                found[ring[after % len(ring)][1]] = None
        found.pop(device, None)
        return tuple(found)
