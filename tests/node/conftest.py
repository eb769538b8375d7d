"""Devices on loopback with everything real but the moot's member list, which is a dictionary."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Message
from folkmoot.node.config import NetworkConfig
from folkmoot.node.identity import Identity, Membership
from folkmoot.node.link import Stream
from folkmoot.node.network import Network

Serve = Callable[[DeviceId, Stream], Awaitable[None]]


async def echo(device: DeviceId, stream: Stream) -> None:
    async for message in stream:
        await stream.send(message)
    await stream.end()


class Device:
    """A network and what it reported. `serve` may be replaced at any time."""

    def __init__(self, identity: Identity, book: dict[DeviceId, str], config: NetworkConfig, **extra: Any):
        self.identity = identity
        self.id = identity.device
        self.book = book
        self.serve: Serve = echo
        self.heard: asyncio.Queue[tuple[DeviceId, Message]] = asyncio.Queue()
        self.lost: asyncio.Queue[DeviceId] = asyncio.Queue()
        self.network = Network(
            identity,
            config,
            address_of=lambda device: book.get(device),
            on_datagram=lambda device, message: self.heard.put_nowait((device, message)),
            on_stream=lambda device, stream: self.serve(device, stream),
            on_link_lost=self.lost.put_nowait,
            **extra,
        )

    async def start(self) -> None:
        self.book[self.id] = await self.network.start()


class Neighbourhood:
    """Makes devices; the first founds the moot, `member`s hold its certificate from the start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.book: dict[DeviceId, str] = {}
        self.devices: list[Device] = []
        self.founder: Device | None = None
        self._numbers = itertools.count()

    def identity(self) -> Identity:
        return Identity.open(self.folder / f"home{next(self._numbers)}")

    async def device(self, identity: Identity | None = None, **config: Any) -> Device:
        extra = {key: config.pop(key) for key in ("memory", "now", "contacts") if key in config}
        device = Device(identity or self.identity(), self.book, NetworkConfig(**config), **extra)
        self.devices.append(device)
        await device.start()
        return device

    def enrol(self, identity: Identity, *, may_invite: bool = False) -> Identity:
        """Make it a member without a network."""
        assert self.founder is not None
        founder = self.founder.identity
        assert founder.membership is not None
        certificate = founder.certify(identity.device, may_invite=may_invite, now=1.0)
        identity.adopt(Membership(founder.membership.moot, founder.membership.name, certificate))
        return identity

    async def found(self, **config: Any) -> Device:
        identity = self.identity()
        identity.found("the moot", time.time())
        self.founder = await self.device(identity, **config)
        return self.founder

    async def member(self, **config: Any) -> Device:
        may_invite = config.pop("may_invite", False)
        return await self.device(self.enrol(self.identity(), may_invite=may_invite), **config)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what comes about by itself; the test's time-out is the limit."""
        loop = asyncio.get_running_loop()
        while not condition():
            turn = loop.create_future()
            loop.call_later(0.01, turn.set_result, None)
            await turn

    async def close(self) -> None:
        for device in self.devices:
            await device.network.close()


@pytest.fixture
async def lan(tmp_path: Path) -> AsyncIterator[Neighbourhood]:
    """Closing must leave nothing behind: no task, no open connection."""
    before = asyncio.all_tasks()
    neighbourhood = Neighbourhood(tmp_path)
    yield neighbourhood
    await neighbourhood.close()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, left
