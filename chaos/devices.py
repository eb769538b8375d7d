"""Real `folkmoot up` processes that are killed, frozen, restarted and looked at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from chaos.history import History
from chaos.wires import Wires

KEY = "a-key-of-this-run-alone"
MAX_WAITING = 24
MAX_PROMPTS = 64
SLOTS = 1
START_S = 60.0
STOP_S = 20.0
SETTINGS = {
    "FOLKMOOT_API__KEYS": KEY,
    "FOLKMOOT_NODE__DISCOVERY": "off",
    "FOLKMOOT_NODE__PEER__MAX_PROMPTS": str(MAX_PROMPTS),
    "FOLKMOOT_NODE__PEER__QUEUE__MAX_WAITING": str(MAX_WAITING),
}
"""Bounds that are small enough to be reached. The key is needed since the devices listen on more than loopback."""


class DeviceLost(Exception):
    """A device did not start or did not stop."""


class Device:
    """One device's home and, while it runs, its process; `life` counts its starts."""

    def __init__(self, number: int, home: Path, engine: str, wires: Wires, history: History) -> None:
        self.number = number
        self.home = home
        self.life = 0
        self._engine = engine
        self._wires = wires
        self._history = history
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"http://{wires.api(number)}"
        self.turn = asyncio.Lock()
        """Held by whoever takes it down and brings it up again."""

    @property
    def log(self) -> Path:
        """Where the stderr of all its lives goes."""
        return self.home.with_suffix(".log")

    def client(self, timeout_s: float = 10.0) -> httpx.AsyncClient:
        """Its owner's client."""
        token = (self.home / "control.token").read_text("ascii").strip()
        headers = {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=timeout_s)

    async def start(self, invitation: str | None = None) -> None:
        """Start it and wait until it serves. Raises DeviceLost."""
        self.life += 1
        command = [
            *self._wires.command(self.number), sys.executable, "-P", "-m", self._wires.module, "up", "--json",
            "--name", f"d{self.number}", "--engine", self._engine, "--listen", self._wires.listen(self.number),
            "--api", self._wires.api(self.number), "--with-parent", str(os.getpid()),
        ]  # fmt: skip
        if invitation is not None:
            command += ["--join", invitation]
        self._history.note("start", device=self.number, life=self.life)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **SETTINGS, "FOLKMOOT_HOME": str(self.home)},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        told = json.loads(line) if line else {}
        if told.get("event") != "ready":
            words = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise DeviceLost(f"d{self.number} did not start: {' '.join(words)}")
        self._wires.met(self.number, told["device"])
        self._history.note("up", device=self.number, life=self.life)

    @property
    def returncode(self) -> int | None:
        """None while its process is there."""
        return self._process.returncode if self._process is not None else -1

    def signal(self, sent: signal.Signals) -> None:
        """To all of its processes."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, sent)

    async def kill(self) -> None:
        """At once, whatever it is doing."""
        self._history.note("down", device=self.number, how="killed")
        self.signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> None:
        """As its user stops it: what is under way may end. Raises DeviceLost where it does not go."""
        self._history.note("down", device=self.number, how="stopped")
        self.signal(signal.SIGTERM)
        await self._gone()
        self._history.note("exit", device=self.number, code=self.returncode)

    async def _gone(self) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            raise DeviceLost(f"d{self.number} did not stop within {STOP_S:.0f} s") from None

    async def end(self) -> None:
        """At the end of all: nothing is left of it."""
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    def resident(self) -> int:
        """Bytes of memory that its process holds; 0 where there is none."""
        assert self._process is not None
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    async def look(self, client: httpx.AsyncClient) -> dict[str, Any] | None:
        """Note what it says of itself; None where it says nothing."""
        life = self.life
        try:
            found = (await client.get("/v1/moot", headers={"connection": "close"})).json()
            alive = sum(1 for row in found["members"] if row["standing"] == "alive")
        except (httpx.TransportError, ValueError, KeyError):
            return None
        seen = {
            "device": self.number, "life": life, "queue": found["queue"], "busy": found["busy"],
            "buffer": found["buffer"], "prompts": found["prompts"], "alive": alive, "rss": self.resident(),
        }  # fmt: skip
        self._history.note("look", **seen)
        return seen
