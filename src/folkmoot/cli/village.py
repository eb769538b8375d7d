"""Device processes on this machine: started, joined into one moot, and taken down together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folkmoot.api.control import read_control_token
from folkmoot.cli.client import Api
from folkmoot.cli.console import counted
from folkmoot.errors import EngineError, NodeError

START_S = 120.0
GRACE_S = 8.0
NAMES = ("ash", "birch", "cedar", "elm", "fir", "hazel", "juniper", "linden", "maple", "oak", "pine", "rowan")


def name_of(index: int) -> str:
    """The name of the device at `index`, from 0."""
    turn, place = divmod(index, len(NAMES))
    return NAMES[place] + (f"-{turn + 1}" if turn else "")


@dataclass
class DeviceProcess:
    """One `folkmoot up`. `api` is its URL once it is ready."""

    name: str
    home: Path
    engine: str
    process: asyncio.subprocess.Process
    api: str = ""

    @property
    def log(self) -> Path:
        """Where its stderr goes."""
        return self.home.with_suffix(".log")

    def client(self) -> Api:
        """A client of its API that may do what its owner may."""
        return Api(self.api, read_control_token(self.home))

    async def ready(self) -> dict[str, Any]:
        """Wait until it serves. Raises `NodeError` with its last words when it ends before."""
        stdout = self.process.stdout
        assert stdout is not None  # it was started with a pipe
        while line := await stdout.readline():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "ready":
                    self.api = event["api"]
                    return event
        words = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        said = " ".join(words).removeprefix("folkmoot: ")
        raise NodeError(f"device {self.name} did not start: {said or 'it said nothing'}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to its whole group for what is left after a while."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


_SHARED = {"FOLKMOOT_NODE__SKILL__ENABLED": "false"}
"""Devices that share one machine: one that probes its model while another one answers would slow that one down."""


@dataclass
class Village:
    """Devices under one temporary folder, which do not probe themselves unless `environ` says so. `own` are variables of one
    alone, by its name, beside `environ`."""

    root: Path
    environ: dict[str, str]
    tell: Callable[[str], None]
    devices: list[DeviceProcess] = field(default_factory=list)
    own: dict[str, dict[str, str]] = field(default_factory=dict)

    async def start(self, engines: list[str]) -> None:
        """Start one device per engine SPEC and wait until all of them know all."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(START_S):
                await self._start(engines)
                await self.whole()
        except TimeoutError:
            raise NodeError(
                f"the devices did not find each other within {START_S:.0f} s; their logs say why"
            ) from None
        they_are = f"{counted(len(engines), 'device')} {'is' if len(engines) == 1 else 'are'}"
        self.tell(f"{they_are} one moot after {time.monotonic() - began:.1f} s")

    async def add(self, engine: str) -> DeviceProcess:
        """Start one more device, which the first one invites, and wait until all know all."""
        async with self.devices[0].client() as api:
            invitation = await api.invite(1, 600.0)
        taken = {device.name for device in self.devices}
        index = next(index for index in itertools.count() if name_of(index) not in taken)
        device = await self._spawn(index, engine, invitation)
        await device.ready()
        await self.whole()
        return device

    async def again(self, gone: DeviceProcess) -> DeviceProcess:
        """Start a device again that was killed, in its old home; it takes the place of the one that is gone."""
        device = await self._launch(gone.name, gone.engine, joins=False)
        self.devices[self.devices.index(gone)] = device
        await device.ready()
        return device

    async def whole(self) -> None:
        """Wait until all devices know all."""
        await self._all_know_all(sum(1 for device in self.devices if device.engine != "none"))

    async def stop(self) -> None:
        """Take every device down."""
        await asyncio.gather(*(device.stop() for device in self.devices))

    async def _start(self, engines: list[str]) -> None:
        founder = await self._spawn(0, engines[0], None)
        await founder.ready()
        if len(engines) == 1:
            return
        async with founder.client() as api:
            invitation = await api.invite(len(engines) - 1, 600.0)
        others = [
            await self._spawn(index, engine, invitation) for index, engine in enumerate(engines) if index
        ]
        await asyncio.gather(*(device.ready() for device in others))

    async def _spawn(self, index: int, engine: str, invitation: str | None) -> DeviceProcess:
        device = await self._launch(name_of(index), engine, joins=invitation is not None)
        self.devices.append(device)
        if invitation is not None:
            await _hand_over(invitation, device.process)
        return device

    async def _launch(self, name: str, engine: str, *, joins: bool) -> DeviceProcess:
        home = self.root / name
        self.tell(f"starting {name} with {engine}")
        command = [sys.executable, "-P", "-m", "folkmoot", "up", "--json", "--name", name, "--engine", engine]
        command += ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--with-parent", str(os.getpid())]
        if joins:
            command += ["--join", "-"]
        with home.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if joins else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**_SHARED, **self.environ, **self.own.get(name, {}), "FOLKMOOT_HOME": str(home)},
                start_new_session=True,
            )
        return DeviceProcess(name, home, engine, process)

    async def _all_know_all(self, models: int) -> None:
        for device in self.devices:
            async with device.client() as api:
                while not _is_whole(found := await api.moot(), len(self.devices), models):
                    if found["engine"] == "down":
                        raise EngineError(f"the engine of {device.name} is down: {found['engine_note']}")
                    await asyncio.sleep(0.1)


async def _hand_over(invitation: str, process: asyncio.subprocess.Process) -> None:
    """By stdin: what stands on a command line can be read by everybody on this machine."""
    stdin = process.stdin
    assert stdin is not None  # it was started with a pipe
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its log says why it has ended
        stdin.write(f"{invitation}\n".encode())
        await stdin.drain()
    stdin.close()


def _is_whole(found: dict[str, Any], devices: int, models: int) -> bool:
    """Whether a device is ready and knows all of them, and that so many have a model."""
    alive = [row for row in found["members"] if row["standing"] == "alive"]
    known = sum(1 for row in alive if row["model"])
    return len(alive) == devices and known == models and found["engine"] in ("ready", "none")


@contextlib.asynccontextmanager
async def village(environ: dict[str, str], tell: Callable[[str], None]) -> AsyncIterator[Village]:
    """Devices that are gone, with all that they wrote, when the block is left, however it is left."""
    with tempfile.TemporaryDirectory(prefix="folkmoot-", ignore_cleanup_errors=True) as root:
        devices = Village(Path(root), environ, tell)
        try:
            yield devices
        finally:
            await asyncio.shield(devices.stop())
