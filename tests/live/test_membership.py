"""Five real devices without engines: what happens to one is known to all the others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest

from folkmoot.cli.village import DeviceProcess, Village, village
from folkmoot.errors import FolkmootError

pytestmark = [pytest.mark.live, pytest.mark.timeout(170)]


@pytest.fixture
async def five() -> AsyncIterator[Village]:
    async with village(dict(os.environ), lambda line: None) as devices:
        await devices.start(["none"] * 5)
        yield devices


async def standings(device: DeviceProcess) -> dict[str, str]:
    async with device.client() as api:
        return {row["name"]: row["standing"] for row in (await api.moot())["members"]}


async def until_all_hold(watchers: list[DeviceProcess], names: list[str], standing: str) -> None:
    """Wait for it; the test's time-out is the limit."""
    for watcher in watchers:
        while {(found := await standings(watcher)).get(name) for name in names} != {standing}:
            assert found, "a device knows itself at least"
            await asyncio.sleep(0.05)


async def test_a_frozen_device_is_dead_to_all_and_comes_back(five: Village) -> None:
    *others, victim = five.devices
    victim.process.send_signal(signal.SIGSTOP)
    await until_all_hold(others, [victim.name], "dead")
    victim.process.send_signal(signal.SIGCONT)
    await until_all_hold(others, [victim.name], "alive")
    await until_all_hold([victim], [device.name for device in five.devices], "alive")


async def test_a_killed_founder_is_dead_to_all_and_found_again_at_another_port(five: Village) -> None:
    founder, *others = five.devices
    founder.process.kill()
    await founder.process.wait()
    with pytest.raises(FolkmootError):
        await standings(founder)
    await until_all_hold(others, [founder.name], "dead")
    memory = founder.home / "memory.json"
    memory.write_text(json.dumps({**json.loads(memory.read_text()), "port": 0}))
    again = await five._spawn(0, "none", None)
    ready = await again.ready()
    assert "invitation" not in ready
    names = [device.name for device in others]
    await until_all_hold(others, [founder.name], "alive")
    await until_all_hold([again], names, "alive")
    for watcher in others:
        async with watcher.client() as api:
            rows = {row["name"]: row for row in (await api.moot())["members"]}
        assert rows[founder.name]["address"] == ready["address"]
