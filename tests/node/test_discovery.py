"""Members of one moot find each other on the local network; others are not even looked at."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import iroh
import pytest

from folkmoot.core.ids import DeviceId
from folkmoot.node.admission import device_of
from folkmoot.node.discovery import Discovery, is_local_only, moot_hint, read_announcement

ONE, TWO, THREE = (iroh.SecretKey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3))
MOOT, OTHER = "ab" * 32, "cd" * 32


def name(key: iroh.SecretKey) -> DeviceId:
    return device_of(key.public().to_bytes())


def address(key: iroh.SecretKey, port: int, hosts: int = 1) -> str:
    places = [f"192.0.2.{host + 1}:{port}" for host in range(hosts)]
    return str(iroh.EndpointTicket.from_addr(iroh.EndpointAddr(key.public(), None, places)))


def discovery(
    key: iroh.SecretKey, moot: str, found: asyncio.Queue[tuple[DeviceId, str]], hosts: int = 1
) -> Discovery:
    return Discovery(
        name(key), moot, address(key, 4151, hosts), lambda *pair: found.put_nowait(pair), ["127.0.0.1"]
    )


async def test_members_find_each_other_and_follow_a_change() -> None:
    ones: asyncio.Queue[tuple[DeviceId, str]] = asyncio.Queue()
    twos: asyncio.Queue[tuple[DeviceId, str]] = asyncio.Queue()
    threes: asyncio.Queue[tuple[DeviceId, str]] = asyncio.Queue()
    one = discovery(ONE, MOOT, ones, hosts=20)
    all_of_them = [one, discovery(TWO, MOOT, twos), discovery(THREE, OTHER, threes)]
    await asyncio.gather(*(each.__aenter__() for each in all_of_them))
    try:
        assert await ones.get() == (name(TWO), address(TWO, 4151))
        assert await twos.get() == (name(ONE), address(ONE, 4151, 20))
        await one.announce(address(ONE, 4152))
        assert await twos.get() == (name(ONE), address(ONE, 4152))
        assert ones.empty()
        assert threes.empty()
    finally:
        await asyncio.gather(*(each.__aexit__(None, None, None) for each in all_of_them))


def test_what_is_announced_does_not_admit() -> None:
    info = discovery(ONE, MOOT, asyncio.Queue())._service()
    assert sorted(info.properties) == [b"address0", b"moot"]
    assert MOOT.encode() not in repr(info.properties).encode()
    assert info.properties[b"moot"] == moot_hint(MOOT).encode()
    assert read_announcement(info.properties, moot_hint(MOOT)) == (name(ONE), address(ONE, 4151))


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {b"moot": None},
        {b"moot": moot_hint(OTHER).encode(), b"address0": address(ONE, 1).encode()},
        {b"moot": moot_hint(MOOT).encode()},
        {b"moot": moot_hint(MOOT).encode(), b"address0": b"\xff\xfe"},
        {b"moot": moot_hint(MOOT).encode(), b"address0": b"endpoint" + b"a" * 700},
    ],
)
def test_malformed_announcements_are_ignored(properties: dict[bytes, bytes | None]) -> None:
    assert read_announcement(properties, moot_hint(MOOT)) is None


def test_loopback_is_not_announced_and_zeroconf_not_loaded() -> None:
    assert is_local_only("127.0.0.1")
    assert is_local_only("[::1]")
    assert not is_local_only("0.0.0.0")
    code = "import sys, folkmoot.node.discovery, folkmoot.node.network; print('zeroconf' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
