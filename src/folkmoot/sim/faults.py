"""Faults that come by themselves: devices that stall all the time, devices that freeze now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from folkmoot.core.ids import DeviceId
from folkmoot.sim.world import World


def stall_for_ever(world: World, device: DeviceId, rng: Random) -> None:
    """A slow device: stalls U(0, 1) s separated by gaps U(0, 1) s (MEMBERSHIP.md, Model)."""

    def stall() -> None:
        length = rng.random()
        if world.devices[device].alive:
            world.freeze(device, length)
        world.at(world.now + length + rng.random(), stall)

    world.at(world.now + rng.random(), stall)


def freeze_now_and_then(
    world: World,
    devices: Sequence[DeviceId],
    rng: Random,
    *,
    per_hour: float = 6.0,
    seconds: float = 3.0,
    noted: Callable[[DeviceId], None] = lambda device: None,
) -> None:
    """Freezes of one length, Poisson, `per_hour` a device (MEMBERSHIP.md, Model: 6, harsh); each is `noted`."""
    rate = per_hour * len(devices) / 3_600

    def freeze() -> None:
        device = devices[rng.randrange(len(devices))]
        if world.devices[device].alive:
            noted(device)
            world.freeze(device, seconds)
        world.at(world.now + rng.expovariate(rate), freeze)

    world.at(world.now + rng.expovariate(rate), freeze)
