"""One authenticated connection to a peer, and the streams on it.

iroh's calls on one half of a stream exclude each other: `stop` waits for a pending `read`, `reset` for a
pending `write_all`. So both run in tasks of their own, which `cancel` ends first.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import iroh

from folkmoot.core.gossip import Sync
from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Message
from folkmoot.errors import LocalProtocolError, NodeError, RemoteProtocolError
from folkmoot.node.bugs import way_of
from folkmoot.node.config import LinkLimits
from folkmoot.node.rates import Bucket
from folkmoot.wire import END, END_BYTES, Framer, frame

READ_BYTES = 1 << 16
CONTROLS_HZ, CONTROLS_BURST = 1.0, 64.0
"""Messages about the membership that a peer may send: all it knows at once, then one now and then (guess)."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class PeerUnreachable(NodeError):
    """No connection to the peer: no address, no answer, or it refuses."""

    code = "peer_unreachable"


class StreamCut(NodeError):
    """A stream broke off before its end marker, or is no longer read by the other side."""

    code = "stream_cut"


class Close(IntEnum):
    """Why a connection or stream is closed, as the other side gets to see it."""

    BYE = 0
    DEAD = 1
    DUPLICATE = 2
    REPLACED = 3
    BANNED = 6
    STRANGER = 7
    RUBBISH = 8
    CANCELLED = 9


def close_code(connection: iroh.Connection) -> int | None:
    """The code with which the other side closed the connection; None where it is open or was lost."""
    # iroh tells it as text only: `N`, or `REASON (code N)` where the other side gave a reason.
    text = connection.close_reason() or ""
    match = re.fullmatch(r"closed by peer: (?:.*\(code (\d+)\)|(\d+))", text, re.DOTALL)
    return int(match[1] or match[2]) if match else None


def check_sender(message: Message, device: DeviceId) -> None:
    """Raises RemoteProtocolError where a message claims to come from somebody else than `device`."""
    if isinstance(message, Sync) and message.me.device != device:
        raise RemoteProtocolError("a message in another device's name")


@dataclass(slots=True)
class Traffic:
    """What this device has sent to peers: messages, and their encoded bytes with 60 B a datagram on top.

    `packets` and `packet_bytes` are QUIC's: handshakes, acknowledgements and keep-alives are in them.
    """

    messages: int = 0
    bytes: int = 0
    packets: int = 0
    packet_bytes: int = 0

    def sent(self, size: int, overhead: int = 0) -> None:
        """Count one message."""
        self.messages += 1
        self.bytes += size + overhead

    def carried(self, connection: iroh.Connection) -> None:
        """Count all packets of one connection."""
        stats = connection.stats()
        self.packets += stats.udp_tx_datagrams
        self.packet_bytes += stats.udp_tx_bytes


class Link:
    """A connection whose other side has proven to be `device`, a member.

    `dialled`: by this side. `instance` and `clock` are what the other side said in its hello, `root` and `may_invite` what its
    certificate says.
    """

    def __init__(
        self,
        connection: iroh.Connection,
        device: DeviceId,
        *,
        dialled: bool,
        instance: bytes,
        clock: int,
        root: str,
        may_invite: bool,
        limits: LinkLimits,
        on_rubbish: Callable[[Link, str], None],
        traffic: Traffic,
    ) -> None:
        now = asyncio.get_running_loop().time()
        self.connection = connection
        self.device = device
        self.dialled = dialled
        self.instance = instance
        self.clock = clock
        self.root = root
        self.may_invite = may_invite
        self.limits = limits
        self.traffic = traffic
        self.used_at = now
        self.streams: dict[Stream, None] = {}
        self.waiting_bytes = 0
        self.messages = Bucket(limits.messages_hz, 2 * limits.messages_hz, now)
        self.datagrams = Bucket(limits.datagrams_hz, 2 * limits.datagrams_hz, now)
        self.speaking = asyncio.Lock()
        self.controls = Bucket(CONTROLS_HZ, CONTROLS_BURST, now)
        self._lost = asyncio.Event()
        self._on_rubbish = on_rubbish

    async def open(self) -> Stream:
        """A new stream to the peer. Raises PeerUnreachable where the connection is lost."""
        try:
            return Stream(self, await self.connection.open_bi())
        except iroh.IrohError:
            raise PeerUnreachable(f"the connection to {self.device[:8]} is lost") from None

    def close(self, code: Close, reason: bytes = b"") -> None:
        """Close the connection, which ends all its streams on both sides."""
        self._lost.set()
        self.connection.close(int(code), reason)

    async def pause(self, wait_s: float) -> None:
        """Wait, but no longer than the connection is there."""
        try:
            async with asyncio.timeout(wait_s):
                await self._lost.wait()
        except TimeoutError:
            return

    def lost(self) -> None:
        """The connection is gone."""
        self._lost.set()

    def rubbish(self, what: str) -> None:
        """The peer broke the protocol; `what` holds nothing of what it sent."""
        self._on_rubbish(self, what)

    def touch(self) -> None:
        """The link was used just now."""
        self.used_at = asyncio.get_running_loop().time()


class Stream:
    """Messages to and from one peer, in order, with back-pressure. One reader and any number of senders."""

    def __init__(self, link: Link, stream: iroh.BiStream) -> None:
        self.device = link.device
        self._link = link
        self._receiver = stream.recv()
        self._sender = stream.send()
        self._framer = Framer()
        self._items: deque[Message] = deque()
        self._received_bytes = 0
        self._running: dict[asyncio.Task[object], None] = {}
        self._sending = asyncio.Lock()
        self._sent_all = False
        self._read_all = False
        self._closed = asyncio.Event()
        link.streams[self] = None
        link.touch()

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other side does not read.

        Raises StreamCut where nobody reads any more, LocalProtocolError for a message out of bounds.
        """
        data = frame(message)
        async with self._sending:
            await self._write(data)
        self._link.traffic.sent(len(data))

    async def end(self) -> None:
        """Mark the end: only now is what was sent whole. Raises StreamCut."""
        async with self._sending:
            await self._write(END_BYTES)
            await self._guard(self._sender.finish())
            self._sent_all = True
        self._settle()

    async def _write(self, data: bytes) -> None:
        if self._sent_all:
            raise LocalProtocolError("the stream was ended; nothing can be sent on it")
        await self._guard(self._sender.write_all(data))

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Message:
        """The next message. Raises StreamCut where the stream breaks off before its end marker."""
        while not self._items:
            if self._framer.ended:
                raise StopAsyncIteration
            await self._fill()
        return self._items.popleft()

    async def cancel(self) -> None:
        """Neither read nor send any more: the other side learns it at once. Harmless when repeated."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._items.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        try:
            if not self._read_all:
                await self._receiver.stop(int(Close.CANCELLED))
            # A reset would also take back what was sent as a whole but is still on its way.
            if not self._sent_all:
                await self._sender.reset(int(Close.CANCELLED))
        except iroh.IrohError:
            log.debug("the stream to %s was over already", self.device[:8])
        self._release()

    async def cancelled(self) -> None:
        """Returns when the other side has cancelled the stream, or it was cancelled here or lost.

        A stream that ends as it should never gets there: race this with the work and cancel it.
        """
        try:
            code = await self._guard(self._sender.stopped())
        except StreamCut:
            return
        if not code:
            # All is sent and confirmed: there is nothing left that could be stopped.
            await self._closed.wait()

    async def _fill(self) -> None:
        data = await self._guard(self._receiver.read(READ_BYTES))
        if not data:
            self._release()
            raise StreamCut(f"the stream from {self.device[:8]} ended without its end marker")
        link = self._link
        link.touch()
        self._received_bytes += len(data)
        before = self._framer.waiting_bytes
        try:
            items = self._framer.feed(data)
            messages = [item for item in items if item is not END]
            for message in messages:
                check_sender(message, self.device)
            link.waiting_bytes += self._framer.waiting_bytes - before
            if link.waiting_bytes > link.limits.waiting_bytes:
                raise RemoteProtocolError("too many incomplete messages")
            if self._received_bytes > link.limits.stream_bytes:
                raise RemoteProtocolError("a stream without an end")
        except RemoteProtocolError as error:
            self._release()
            link.rubbish(str(error))
            raise StreamCut(f"{self.device[:8]} broke the protocol") from None
        self._items.extend(messages)
        if self._framer.ended:
            self._read_all = True
            self._settle()
        wait_s = link.messages.take(len(items), asyncio.get_running_loop().time())
        if wait_s:
            # Not reading is what slows the other side down.
            await self._guard(link.pause(wait_s))

    async def _guard(self, work: Awaitable[T]) -> T:
        """Run a call into iroh so that `cancel` can end it. Raises StreamCut for whatever ends it early."""
        task = asyncio.ensure_future(work)
        self._running[task] = None
        try:
            if self._closed.is_set():
                task.cancel()
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._running.pop(task, None)
        if task.cancelled():
            raise StreamCut(f"the stream to {self.device[:8]} was cancelled")
        try:
            return task.result()
        except iroh.IrohError:
            self._release()
            raise StreamCut(f"the stream to {self.device[:8]} was cut") from None

    def _settle(self) -> None:
        if self._sent_all and self._read_all:
            self._release()

    def _release(self) -> None:
        """The link need not count this stream any more."""
        if self._link.streams.pop(self, self) is None:
            self._link.waiting_bytes -= self._framer.waiting_bytes
            self._link.touch()


async def serve(link: Link, handle: Callable[[Stream], Awaitable[None]], on_lost: Callable[[], None]) -> None:
    """Handle the streams that the peer opens, a bounded number at a time, until the connection is lost.

    Handlers learn of the loss by their streams, and may finish what they do; then this returns.
    """
    room = asyncio.Semaphore(link.limits.streams)
    running: dict[asyncio.Task[None], None] = {}

    async def run(stream: Stream) -> None:
        try:
            await handle(stream)
        except StreamCut:
            pass
        finally:
            await stream.cancel()

    def done(task: asyncio.Task[None]) -> None:
        running.pop(task, None)
        room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a stream from %s was dropped by a fault of ours: %s", link.device[:8], way_of(error))

    try:
        while True:
            await room.acquire()
            task = asyncio.ensure_future(run(Stream(link, await link.connection.accept_bi())))
            running[task] = None
            task.add_done_callback(done)
    except iroh.IrohError:
        link.lost()
        on_lost()
        if running:
            await asyncio.wait(running)
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def read_datagrams(link: Link, take: Callable[[bytes], None]) -> None:
    """Pass on what the peer sends as datagrams, as fast as it may, until the connection is lost."""
    clock = asyncio.get_running_loop().time
    try:
        while True:
            data = await link.connection.read_datagram()
            if link.datagrams.allow(clock()):
                link.touch()
                take(data)
    except iroh.IrohError:
        return
