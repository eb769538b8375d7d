"""Which fault comes when and to whom: all of it is drawn from one seed before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

ALONE = ("kill", "stop", "corrupt", "freeze", "fill", "slow")
"""Faults of one device that has no other fault at that time."""
LASTING = {
    "kill": (0.2, 5.0),
    "stop": (0.2, 3.0),
    "corrupt": (0.2, 3.0),
    "freeze": (0.3, 12.0),
    "fill": (2.0, 8.0),
    "slow": (2.0, 8.0),
    "part": (1.0, 12.0),
    "garbage": (0.5, 3.0),
    "flood": (0.5, 3.0),
    "burst": (0.1, 0.2),
}
"""Seconds that a fault of each kind takes, from and to; a device that was killed is started again after them."""
PAUSE_S = 1.5
"""Mean time between the beginnings of two faults."""
SPARED = 0
"""The device that is never taken down: its memory is that of one process from the start to the end."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` begins at `at` and takes `seconds`; `devices` are numbers, of a partition those that are cut off."""

    at: float
    kind: str
    devices: tuple[int, ...]
    seconds: float


def faults(
    seed: int, devices: int, begin: float, end: float, kinds: Sequence[str], small_disk: int
) -> list[Fault]:
    """The faults between two moments, all of them over at the second one; every kind comes once before one comes twice.

    `small_disk` is the device whose disk may be filled.
    """
    rng = Random(f"chaos {seed}")
    found: list[Fault] = []
    busy_until = dict.fromkeys(range(devices), begin)
    parted_until, now = begin, begin
    hat: list[str] = []
    while (now := now + rng.expovariate(1.0 / PAUSE_S)) < end:
        if not hat:
            hat = rng.sample(list(kinds), len(kinds))
        kind = hat.pop()
        seconds = min(rng.uniform(*LASTING[kind]), end - now)
        if kind == "part":
            if now < parted_until:
                continue
            parted_until = now + seconds + 1.0
            away = rng.sample(range(devices), rng.randrange(1, devices // 2 + 1))
            found.append(Fault(now, kind, tuple(sorted(away)), seconds))
            continue
        victims = [small_disk] if kind == "fill" else list(range(devices))
        if kind in ALONE:
            down = kind in ("kill", "stop", "corrupt")
            victims = [v for v in victims if busy_until[v] <= now and not (down and v == SPARED)]
        if not victims:
            continue
        victim = rng.choice(victims)
        if kind in ALONE:
            busy_until[victim] = now + seconds + 3.0
        found.append(Fault(now, kind, (victim,), seconds))
    return found
