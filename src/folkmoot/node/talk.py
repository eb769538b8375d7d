"""The streams of jobs: what a peer is asked and how its answer comes back, one stream a job.

The asker opens the stream, sends `Ask` (and `Poll`, should it wonder) and reads until the end marker; the
peer writes its replies as they come. A stream that nobody reads stops the writer, and with it the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from folkmoot.core.events import Event, Received, StreamLost
from folkmoot.core.ids import DeviceId, JobId
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Message,
    Outcome,
    Piece,
    Poll,
    Queued,
    Undone,
)
from folkmoot.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.node.link import PeerUnreachable, Stream, StreamCut
from folkmoot.node.network import Network

BACKLOG = 64
"""Replies that may wait for one asker before its job's engine is held up (guess: a second of text)."""

BACKLOG_CHARACTERS = 65_536
"""The same in characters: an asker that asks again from the start without reading gets one answer more, not many."""

ABANDON_S = 8.0
"""A job whose asker has lost its connection is given up after this long; askers poll every 2 s (MixtureConfig)."""

STALL_S = 30.0
"""An asker that reads nothing of a full backlog for so long does not get to hold the engine (guess)."""

HANG_UP_S = 2.0
"""A peer that was told to cancel a job gets so long to say what it has cost (guess)."""

HAND_OVER_S = 5.0
"""An asker that has not hung up so long after the end is not waited for (guess)."""

log = logging.getLogger(__name__)


class _Outbox:
    """Messages on their way onto one stream, with a bound that their author can wait for.

    It is full at `BACKLOG` messages or `BACKLOG_CHARACTERS` of text. `begun`: one has been taken. `ends`: the job's last
    message is among them. `handed_over` is set when the stream is over.
    """

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._characters = 0
        self._changed = asyncio.Event()
        self.closed = False
        self.begun = False
        self.ends = False
        self.handed_over = asyncio.Event()

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._characters += _length(message)
        self.ends = self.ends or isinstance(message, Answer | Undone)
        self._changed.set()

    def close(self) -> None:
        self.closed = True
        self._changed.set()

    async def take(self) -> Message:
        while not self._messages:
            self._changed.clear()
            await self._changed.wait()
        return self._messages[0]

    def taken(self) -> None:
        self.begun = True
        self._characters -= _length(self._messages.popleft())
        self._changed.set()

    @property
    def full(self) -> bool:
        return len(self._messages) >= BACKLOG or self._characters >= BACKLOG_CHARACTERS

    async def room(self) -> None:
        while self.full and not self.closed:
            self._changed.clear()
            await self._changed.wait()


class Talk:
    """All job streams of this device. `handle` takes what they bring; `spawn` runs a task of the driver's."""

    def __init__(
        self,
        network: Network,
        handle: Callable[[Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        stall_s: float = STALL_S,
    ) -> None:
        self._stall_s = stall_s
        self._network = network
        self._handle = handle
        self._spawn = spawn
        self._asking: dict[JobId, tuple[asyncio.Task[None], _Outbox]] = {}
        self._replying: dict[tuple[DeviceId, JobId], _Outbox] = {}
        self._served: dict[_Outbox, None] = {}
        self._letters: dict[asyncio.Task[None], None] = {}

    def send(self, to: DeviceId, message: Message) -> None:
        """Put a job's message onto its stream, opening one where the asker has none."""
        match message:
            case Ask(job=job) | Poll(job=job):
                if job in self._asking:
                    self._asking[job][1].put(message)
                    return
                outbox = _Outbox()
                outbox.put(message)
                self._asking[job] = (self._spawn(self._ask(to, job, outbox)), outbox)
            case Cancel(job=job):
                if job not in self._asking:
                    self.post(to, message)
                    return
                task, outbox = self._asking[job]
                if not outbox.begun:
                    task.cancel()
                    self._forget(job, outbox)
                    return
                outbox.put(message)
                # The peer ends the stream with what the job has cost; one that does not loses it.
                task.get_loop().call_later(HANG_UP_S, task.cancel)
            case Queued(job=job) | Began(job=job) | Piece(job=job) | Answer(job=job) | Undone(job=job):
                # Without a stream the asker is not listening now; it will ask again if it wants to know.
                if (to, job) in self._replying:
                    self._replying[to, job].put(message)
            case _:
                self.post(to, message)

    def post(self, to: DeviceId, message: Message) -> None:
        """Send one message on a stream of its own, without an answer; it may be lost."""
        task = self._spawn(self._post(to, message))
        self._letters[task] = None
        task.add_done_callback(lambda done: self._letters.pop(done, None))

    async def room(self, to: DeviceId, job: JobId) -> None:
        """Wait until the asker of a job has read enough of what was written for it, or has lost it by not reading."""
        outbox = self._replying.get((to, job))
        if outbox is None:
            return
        try:
            async with asyncio.timeout(self._stall_s):
                await outbox.room()
        except TimeoutError:
            log.warning("%s does not read what it asked for; its job is given up", to[:8])
            outbox.close()
            self._handle(Received(to, Cancel(job)))

    async def flush(self, wait_s: float) -> None:
        """Give letters, and replies that end their job, a moment to reach their askers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                for outbox in [outbox for outbox in self._served if outbox.ends]:
                    await outbox.handed_over.wait()
                if self._letters:
                    await asyncio.wait(list(self._letters))

    async def _post(self, to: DeviceId, message: Message) -> None:
        try:
            stream = await self._network.open(to)
        except PeerUnreachable:
            return
        try:
            await stream.send(message)
            await stream.end()
            async for _ in stream:
                break
        except (StreamCut, LocalProtocolError, RemoteProtocolError):
            return
        finally:
            await stream.cancel()

    # ---- asking ------------------------------------------------------------------------------------

    async def _ask(self, to: DeviceId, job: JobId, outbox: _Outbox) -> None:
        lost = True
        failure: Event | None = None
        try:
            stream = await self._network.open(to)
            writer: asyncio.Task[None] | None = None
            try:
                await stream.send(await outbox.take())
                outbox.taken()
                writer = self._spawn(_write(stream, outbox))
                async for message in stream:
                    self._handle(Received(to, message))
                    if isinstance(message, Answer | Undone):
                        lost = False
            finally:
                if writer is not None:
                    writer.cancel()
                await stream.cancel()
        except LocalProtocolError as error:
            failure = Received(to, Undone(job, Outcome.REFUSED, "too_long", str(error)))
        except (PeerUnreachable, StreamCut, RemoteProtocolError):
            failure = StreamLost(to, job) if lost else None
        else:
            failure = StreamLost(to, job) if lost else None
        finally:
            self._forget(job, outbox)
        if failure is not None:
            self._handle(failure)

    def _forget(self, job: JobId, outbox: _Outbox) -> None:
        entry = self._asking.get(job)
        if entry is not None and entry[1] is outbox:
            del self._asking[job]

    # ---- replying ----------------------------------------------------------------------------------

    async def serve(self, sender: DeviceId, stream: Stream) -> None:
        """A stream that a peer has opened: a job, or one message by itself."""
        try:
            first = await anext(stream)
        except (StopAsyncIteration, StreamCut):
            return
        if not isinstance(first, Ask | Poll):
            self._handle(Received(sender, first))
            return
        key = (sender, first.job)
        old = self._replying.get(key)
        if old is not None:
            old.close()
        outbox = self._replying[key] = _Outbox()
        self._served[outbox] = None
        self._handle(Received(sender, first))
        reader = self._spawn(self._read(sender, stream, outbox))
        whole = asyncio.ensure_future(_reply(stream, outbox, first.job))
        gone = asyncio.ensure_future(stream.cancelled())
        try:
            await asyncio.wait([whole, gone], return_when=asyncio.FIRST_COMPLETED)
            if not (whole.done() and whole.result()):
                self._spawn(self._abandon(sender, first.job, outbox))
            else:
                # The asker hangs up when it has all. A connection that is closed before takes the rest along.
                self._release(key, outbox)
                await asyncio.wait([reader], timeout=HAND_OVER_S)
        finally:
            for task in (reader, whole, gone):
                task.cancel()
            outbox.close()
            outbox.handed_over.set()
            del self._served[outbox]
            self._release(key, outbox)

    def _release(self, key: tuple[DeviceId, JobId], outbox: _Outbox) -> None:
        if self._replying.get(key) is outbox:
            del self._replying[key]

    async def _abandon(self, sender: DeviceId, job: JobId, outbox: _Outbox) -> None:
        """The asker has stopped a job's stream, or the connection is lost: then it may ask again on a new one."""
        if sender not in self._network.linked():
            await asyncio.sleep(ABANDON_S)
        if self._replying.get((sender, job), outbox) is outbox:
            self._handle(Received(sender, Cancel(job)))

    async def _read(self, sender: DeviceId, stream: Stream, outbox: _Outbox) -> None:
        """What else the asker says on the job's stream; who does not read need not ask for more."""
        try:
            async for message in stream:
                if not (isinstance(message, Ask | Poll) and outbox.full):
                    self._handle(Received(sender, message))
        except (StreamCut, RemoteProtocolError):
            return


def _length(message: Message) -> int:
    return len(message.text) if isinstance(message, Piece) else 0


async def _write(stream: Stream, outbox: _Outbox) -> None:
    try:
        while True:
            await stream.send(await outbox.take())
            outbox.taken()
    except StreamCut:
        return


async def _reply(stream: Stream, outbox: _Outbox, job: JobId) -> bool:
    """Write replies up to the one that ends the job, then the end marker; whether the job came to its end."""
    try:
        while True:
            message = await outbox.take()
            try:
                await stream.send(message)
            except LocalProtocolError as error:
                log.error("a reply cannot be sent: %s", error)
                await stream.send(
                    Undone(job, Outcome.FAILED, error.code, f"its peer could not send it: {error}")
                )
                await stream.end()
                return False
            outbox.taken()
            if isinstance(message, Answer | Undone):
                await stream.end()
                return True
    except StreamCut:
        return False
