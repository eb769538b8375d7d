"""What a device keeps about each neighbour that it watches, and what it has still to tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from folkmoot.core.ids import DeviceId

T = TypeVar("T")


@dataclass(slots=True)
class Watch:
    """A neighbour that this device watches. All times are this device's clock.

    `heard` is when a message of it was handled, `floor` the earliest moment at which that message may have
    arrived: they differ after a stall of ours. Judged is by the later one, reported the earlier one:
    a slow watcher must not make a dead device look younger to all (MEMBERSHIP.md section 6).
    """

    since: float
    pooled: float
    heard: float = float("-inf")
    floor: float = float("-inf")
    probed: float = float("-inf")
    differs: float | None = None
    rumour_cursor: int = 0
    hot_cursor: int = 0


@dataclass(slots=True)
class Case:
    """A watched device that somebody does not hear: who reported it when, when that was contradicted."""

    reports: dict[DeviceId, float] = field(default_factory=dict)
    contradicted: float = float("-inf")
    report_at: float = float("-inf")


class Allowance:
    """How much each device may do in a minute, which begins with the first of it."""

    def __init__(self) -> None:
        self._left: dict[DeviceId, tuple[float, float]] = {}

    def left(self, device: DeviceId, most: float, now: float) -> bool:
        """Whether a device that may do `most` in a minute may do one thing more."""
        left, until = self._left.get(device, (most, now))
        return now >= until or left >= 1.0

    def spend(self, device: DeviceId, most: float, now: float) -> bool:
        """A device does one thing; whether it still might. `most` counts at the beginning of its minute."""
        left, until = self._left.get(device, (most, now))
        if now >= until:
            left, until = most, now + 60.0
            for old in [each for each, (_, end) in self._left.items() if now >= end]:
                del self._left[old]
        self._left[device] = (left - 1.0, until)
        return left >= 1.0


class Log(Generic[T]):
    """What changed about which device, latest last; what is newer than a neighbour's cursor is news to it."""

    def __init__(self, limit: int) -> None:
        self.seq = 0
        self._limit = limit
        self._entries: dict[DeviceId, tuple[int, T, list[DeviceId]]] = {}

    def add(self, device: DeviceId, item: T, source: DeviceId | None) -> None:
        """Note a change that `source` told us (None: our own finding)."""
        self.seq += 1
        self._entries.pop(device, None)
        self._entries[device] = (self.seq, item, [] if source is None else [source])
        if len(self._entries) > self._limit:
            del self._entries[next(iter(self._entries))]

    def told(self, device: DeviceId, source: DeviceId) -> None:
        """`source` knows the latest change of the device as well."""
        entry = self._entries.get(device)
        if entry is not None:
            entry[2].append(source)

    def after(self, cursor: int, reader: DeviceId, limit: int) -> list[tuple[int, DeviceId, T]]:
        """(sequence, device, item) of changes after the cursor that the reader did not tell us, latest first.

        What others tell of the reader itself is among them: it can contradict only what it hears.
        """
        found: list[tuple[int, DeviceId, T]] = []
        for device in reversed(self._entries):
            seq, item, sources = self._entries[device]
            if seq <= cursor or len(found) == limit:
                break
            if reader not in sources:
                found.append((seq, device, item))
        return found
