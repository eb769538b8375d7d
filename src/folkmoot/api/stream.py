"""Server-sent events, and the end of a request whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any

from starlette.types import Receive, Send

EVENT_STREAM = "text/event-stream"
BEAT = b": the moot is at work\n\n"


class EventWriter:
    """Writes SSE to one client, with a comment as keep-alive after `beat_s` seconds of silence.

    The headers go out with the first event or beat; until then the caller may still answer otherwise.
    Use as a context manager: leaving it ends the beats, `finish` ends the response.
    """

    def __init__(self, send: Send, beat_s: float) -> None:
        self._send = send
        self._beat_s = beat_s
        self._lock = asyncio.Lock()
        self._wrote = False
        self._beats: asyncio.Task[None] | None = None
        self.started = False

    async def __aenter__(self) -> EventWriter:
        self._beats = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.wait([self._beats])

    async def event(self, data: bytes, name: str = "") -> None:
        """Send one event; `data` must hold no line break (JSON does not)."""
        head = f"event: {name}\n".encode() if name else b""
        await self._write(head + b"data: " + data + b"\n\n")

    async def open(self) -> None:
        """Send the headers now."""
        async with self._lock:
            await self._start()

    async def finish(self) -> None:
        """End the response."""
        async with self._lock:
            await self._start()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_s)
            if not self._wrote:
                await self._write(BEAT)
            self._wrote = False

    async def _write(self, chunk: bytes) -> None:
        async with self._lock:
            await self._start()
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._wrote = True

    async def _start(self) -> None:
        if self.started:
            return
        self.started = True
        headers = {"content-type": f"{EVENT_STREAM}; charset=utf-8", "cache-control": "no-cache"}
        await self._send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`; when the client goes away first, cancel it and wait until it has let go."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
