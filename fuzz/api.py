"""Bent requests against the API of a running device, without a socket between: every answer is one that its document knows.

The device is real: its core, its queue and its engine `timed:det:0`, keys set. No 500, no exception, no request that takes
longer than `SLOW_S`; nothing happens for a request without a key, and nothing is left of any when all are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
from starlette.types import ASGIApp, Message

from folkmoot.api import ApiConfig, Desk, create_app
from folkmoot.core.ids import DeviceId
from folkmoot.core.law import parse_law
from folkmoot.engine.timed import TimedEngine
from folkmoot.node.config import JournalConfig, NodeConfig
from folkmoot.node.daemon import Daemon, Ready
from folkmoot.node.journal import Journal, retention_s
from fuzz.drawn import Drawn, Requests

KEY, CONTROL = "a-key", "a-control-token"
KEYS = (
    (f"Bearer {KEY}",) * 6
    + (f"Bearer {CONTROL}",) * 2
    + ("", "Bearer wrong", "bearer  ", f"Basic {KEY}", "Bearer \x7f")
)
CONFIG = ApiConfig(keys=(KEY,))
SLOW_S = 30.0
STREAM_S = 0.02
"""A stream without an end is left after so long."""
AT_ONCE = 16
MORE_MB = 64.0
OPEN = ("/healthz", "/openapi.json")

NOBODY, USER, OWNER = range(3)
_who: ContextVar[int] = ContextVar("who", default=OWNER)
"""Who sends the request that is being answered; what a device does by itself it does in its owner's name."""


class Broken(Exception):
    """A promise was not kept; the message says which, and by which request."""


@dataclass
class Fuzzed:
    """What came of it."""

    requests: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    prompts: int = 0
    slowest_ms: float = 0.0
    slowest: str = ""
    rate: float = 0.0
    memory_mb: list[float] = field(default_factory=list)


class Watched(Daemon):
    """A device that knows whether who makes it do something may."""

    did = 0

    def ask(self, prompt: Any) -> Any:
        self._may("ask", USER)
        return super().ask(prompt)

    def watch(self) -> Any:
        self._may("watch", USER)
        return super().watch()

    # Real invitations and root keys are kept in files; what is in those is tested elsewhere.

    async def invite(self, uses: int, ttl_s: float, delegate: bool) -> str:
        self._may("invite", OWNER)
        return f"{uses} {ttl_s} {delegate}"

    async def rotate(self, grace_s: float) -> int:
        self._may("rotate", OWNER)
        return int(grace_s)

    async def ban(self, name: str) -> DeviceId:
        self._may("ban", OWNER)
        return await super().ban(name)

    def _may(self, what: str, least: int) -> None:
        if _who.get() < least:
            raise Broken(f"{what} by {('nobody', 'a user')[_who.get()]}")
        self.did += 1


async def run(count: int, seed: int) -> Fuzzed:
    """Send so many requests. Raises `Broken`."""
    with tempfile.TemporaryDirectory(prefix="folkmoot-fuzz-") as home:
        async with _device(Path(home)) as device, _desk(Path(home), device) as desk:
            app = create_app(device, CONFIG, CONTROL, desk)
            _, _, said = await call(
                app, Drawn("GET", "/openapi.json", b"", [(b"host", b"localhost")], b"", ""), None
            )
            return await _all(app, device, json.loads(said), count, seed)


@contextlib.asynccontextmanager
async def _device(home: Path) -> AsyncIterator[Watched]:
    device = Watched(home, "d0", TimedEngine(parse_law("det:0")), NodeConfig(grace_s=0.0, discovery="off"))
    up = asyncio.Event()

    async def ready(_: Ready) -> None:
        up.set()

    running = asyncio.create_task(device.run(join=None, ready=ready))
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield device
    finally:
        waiting.cancel()
        await device.stop()
        await running


@contextlib.asynccontextmanager
async def _desk(home: Path, device: Watched) -> AsyncIterator[Desk]:
    """Its journal, and who works it off: in nobody's name, as what is in it was let in."""
    kept = JournalConfig()
    with contextlib.closing(Desk(device, Journal(home, kept), CONFIG, retention_s(kept))) as desk:
        await desk.open()
        working = asyncio.create_task(desk.run())
        try:
            yield desk
        finally:
            working.cancel()
            await asyncio.wait([working])


async def _all(app: ASGIApp, device: Watched, document: dict[str, Any], count: int, seed: int) -> Fuzzed:
    requests, rng, process = Requests(document, seed, KEYS), Random(f"leaving {seed}"), psutil.Process()
    found, statuses = Fuzzed(count), Counter[str]()
    began = time.perf_counter()
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            if left % max(1, count // 20) == 0:
                found.memory_mb.append(round(process.memory_info().rss / 2**20, 1))
            drawn = requests.draw()
            leave_s = STREAM_S if drawn.path.endswith("/events") else 0.0 if rng.random() < 0.02 else None
            start = time.perf_counter()
            try:
                async with asyncio.timeout(SLOW_S):
                    status = await _one(app, drawn, document, leave_s)
            except Broken as why:
                raise Broken(f"{why}: {_shown(drawn)}") from why
            except TimeoutError:
                raise Broken(f"no end after {SLOW_S:.0f} s: {_shown(drawn)}") from None
            except Exception as bug:
                raise Broken(f"{bug!r}: {_shown(drawn)}") from bug
            took_ms = 1e3 * (time.perf_counter() - start)
            if took_ms > found.slowest_ms:
                found.slowest_ms, found.slowest = took_ms, _shown(drawn)[:200]
            statuses[str(status)] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    found.rate = count / (time.perf_counter() - began)
    found.statuses, found.prompts = dict(sorted(statuses.items())), device.did
    deadline = time.perf_counter() + SLOW_S
    while _held(device) and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    if held := _held(device):
        raise Broken(f"the device still holds {held}")
    found.memory_mb.append(round(process.memory_info().rss / 2**20, 1))
    if found.memory_mb[-1] - found.memory_mb[0] > MORE_MB:
        raise Broken(f"memory grew from {found.memory_mb[0]} to {found.memory_mb[-1]} MB")
    return found


def _held(device: Watched) -> dict[str, int]:
    status = device.status()
    held = {"queue": status.queue, "busy": status.busy, "buffer": status.buffer, "prompts": status.prompts}
    return {name: number for name, number in held.items() if number}


async def _one(app: ASGIApp, drawn: Drawn, document: dict[str, Any], leave_s: float | None) -> int:
    key = next((value.decode() for name, value in drawn.headers if name == b"authorization"), "")
    who = {KEY: USER, CONTROL: OWNER}.get(key.removeprefix("Bearer "), NOBODY)
    token = _who.set(who)
    try:
        status, kind, body = await call(app, drawn, leave_s)
    finally:
        _who.reset(token)
    if leave_s is not None and status == 0:
        return 0
    if status >= 500 and status not in (503, 504):
        raise Broken(f"status {status} {body[:300]!r}")
    if who == NOBODY and status < 400 and drawn.path not in OPEN:
        raise Broken(f"status {status} without a key")
    if kind == "application/json" and leave_s is None:
        said = json.loads(body) if body or drawn.method != "HEAD" else {}
        if status >= 400 and drawn.path != "/healthz" and drawn.method != "HEAD" and set(said) != {"error"}:
            raise Broken(f"status {status} without OpenAI's error object: {body[:300]!r}")
    operation = document["paths"].get(drawn.route, {}).get(drawn.method.lower())
    known = operation["responses"] if operation is not None else {}
    if known and str(status) not in known and not (status == 404 and "{" in drawn.route):
        raise Broken(f"the document does not know status {status} of {drawn.method} {drawn.route}")
    return status


async def call(app: ASGIApp, drawn: Drawn, leave_s: float | None) -> tuple[int, str, bytes]:
    """Status, content type and body of a request, by ASGI; the client goes away after `leave_s`."""
    status, kind, parts = 0, "", [drawn.body]
    got: list[bytes] = []

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        await asyncio.sleep(3_600.0 if leave_s is None else leave_s)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, kind
        if message["type"] == "http.response.start":
            status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"").decode().partition(";")[0]
        else:
            got.append(message.get("body", b""))

    path = drawn.path
    await app(
        {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": drawn.method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": drawn.query, "root_path": "",
            "headers": list(drawn.headers), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 4150),
        },
        receive,
        send,
    )  # fmt: skip
    return status, kind, b"".join(got)


def _shown(drawn: Drawn) -> str:
    return f"{drawn.method} {drawn.path!r}?{drawn.query!r} {drawn.headers} {drawn.body[:400]!r}"
