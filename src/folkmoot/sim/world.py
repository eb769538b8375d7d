"""The virtual world: a heap of events in virtual time, devices around it, one seed for everything.

It carries out effects as the live driver does and decides nothing of the protocol. A device dials the
address that it believes in: one that is out of date reaches nobody, while whoever was dialled answers over
the connection that came in, as over QUIC.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heappop, heappush
from random import Random
from typing import Protocol, assert_never

from folkmoot.core.events import (
    Abort,
    Announce,
    Chill,
    Disconnect,
    Effect,
    Event,
    Fired,
    Generate,
    LinkLost,
    Notice,
    Received,
    Send,
    SetTimer,
    Started,
    StreamLost,
    Timer,
    Warm,
)
from folkmoot.core.gossip import DATAGRAMS, Heartbeat, Sync, SyncReply
from folkmoot.core.ids import DeviceId, JobId
from folkmoot.core.messages import Message, Prepare
from folkmoot.sim.engine import Machine
from folkmoot.sim.links import LinkConfig, Links
from folkmoot.sim.trace import Trace
from folkmoot.wire import decode, encode

DATAGRAM_OVERHEAD = 60
"""Bytes of IP, UDP and QUIC around each datagram (MEMBERSHIP.md section 3)."""
PACKET = 1_200
BACKLOG = 4_096
"""What waits for a device that handles nothing; the oldest is lost beyond that, as in a socket's buffer."""


class Host(Protocol):
    """Whatever lives in the world: the peer, or a part of it."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The only door."""

    def address_of(self, device: DeviceId) -> str | None:
        """Where this host would dial a device."""


@dataclass(slots=True, eq=False)
class Device:
    """One life of a device: a restart makes another one."""

    id: DeviceId
    address: str
    host: Host
    engine: Machine | None = None
    alive: bool = True
    asleep_until: float = 0.0
    inbox: deque[Event] = field(default_factory=lambda: deque(maxlen=BACKLOG))
    overdue: list[Timer] = field(default_factory=list)
    links: dict[DeviceId, Device] = field(default_factory=dict)
    streams: dict[tuple[DeviceId, JobId], float] = field(default_factory=dict)


@dataclass(slots=True)
class Traffic:
    """What was sent, lost messages included. Bytes on the wire, overhead included."""

    packets: int = 0
    bytes: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)


class _Call:
    """A heap entry that is no device's event."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act


class _Arrival:
    """A message on its way; a link is open once it is there."""

    __slots__ = ("event", "source")

    def __init__(self, source: Device, event: Received) -> None:
        self.source = source
        self.event = event


class _Engine:
    """Something the engine reports."""

    __slots__ = ("event", "run")

    def __init__(self, run: int, event: Event) -> None:
        self.run = run
        self.event = event


_Item = _Call | _Arrival | _Engine | Fired | LinkLost | StreamLost | Started
_NOBODY = Device(DeviceId(""), "", None)  # type: ignore[arg-type]  # owner of calls, handles nothing
Rank = Callable[[Device, Event], int]
Observer = Callable[[Device, Notice, float], None]
Checker = Callable[[Device, Event, list[Effect], float], None]


class World:
    """Runs devices. Same arguments and calls, same history.

    `observe` gets every announcement, `check` every event with its effects after they were made.
    `codec`: each message goes through bytes and must come out equal. `datagrams` may be lost, all else travels on streams.
    `rank` orders what happens at one time: what an engine reports and what arrives on a stream, smaller first, all
    else is 0; equal ranks keep their order. With it devices may leave messages to themselves to the world.
    """

    def __init__(
        self,
        seed: int,
        links: LinkConfig,
        *,
        trace: Trace | None = None,
        observe: Observer | None = None,
        check: Checker | None = None,
        size_of: Callable[[Message], int] | None = None,
        codec: bool = False,
        datagrams: tuple[type, ...] = DATAGRAMS,
        rank: Rank | None = None,
    ) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.links = Links(links, Random(self.rng.getrandbits(64)))
        self.devices: dict[DeviceId, Device] = {}
        """The latest life of each device, the dead included."""
        self.traffic = Traffic()
        self.events = 0
        self._by_address: dict[str, Device] = {}
        self._heap: list[tuple[float, int, int, Device, _Item]] = []
        self._sequence = 0
        self._trace = trace
        self._observe = observe
        self._check = check
        self._size_of = size_of
        self._codec = codec
        self._datagrams = datagrams
        self._rank = rank

    # ---- devices and faults ------------------------------------------------------------------------

    def spawn(
        self,
        device: DeviceId,
        address: str,
        host: Host,
        contacts: tuple[tuple[DeviceId, str], ...] = (),
        *,
        engine: Machine | None = None,
        at: float | None = None,
    ) -> Device:
        """A device comes up; whatever bore its id before must be down."""
        old = self.devices.get(device)
        assert old is None or not old.alive, f"{device} is up already"
        body = Device(device, address, host, engine)
        self.devices[device] = body
        self._by_address[address] = body
        self._push(self.now if at is None else at, body, Started(contacts))
        return body

    def crash(self, device: DeviceId) -> None:
        """The process is killed: it says nothing, and what was under way to it is lost."""
        body = self.devices[device]
        body.alive = False
        body.inbox.clear()
        body.overdue.clear()
        if self._by_address.get(body.address) is body:
            del self._by_address[body.address]
        if self.links.config.loss_seen_s is not None:
            self.at(self.now + self.links.config.loss_seen_s, lambda: self._lose_all(body))

    def freeze(self, device: DeviceId, seconds: float) -> None:
        """The device handles nothing for so long; then first what came in, in order, then its timers."""
        body = self.devices[device]
        body.asleep_until = max(body.asleep_until, self.now + seconds)
        self.at(body.asleep_until, lambda: self._wake(body))

    def at(self, time: float, act: Callable[[], None], rank: int = 0) -> None:
        """Do something at a moment: part of the scenario, of no device."""
        self._push(time, _NOBODY, _Call(act), rank)

    def feed(self, device: DeviceId, event: Event) -> None:
        """Give a device an event now, or when it handles events again."""
        body = self.devices[device]
        if body.asleep_until > self.now:
            body.inbox.append(event)
        elif body.alive:
            self._handle(body, event)

    def carry_out(self, device: DeviceId, effects: list[Effect]) -> None:
        """Effects that a part of a host gave outside `handle` (experiments)."""
        self._carry_out(self.devices[device], effects)

    # ---- the loop ----------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Handle all that is due up to a moment, in seconds."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, _, body, item = heappop(heap)
            if isinstance(item, _Call):
                item.act()
            elif not body.alive:
                continue
            elif isinstance(item, Fired):
                if body.asleep_until > self.now:
                    body.overdue.append(item.timer)
                else:
                    self._handle(body, item)
            else:
                self._arrive(body, item)
        self.now = until

    def _arrive(self, body: Device, item: _Arrival | _Engine | LinkLost | StreamLost | Started) -> None:
        if isinstance(item, _Arrival):
            event: Event = item.event
            body.links[item.source.id] = item.source
        elif isinstance(item, _Engine):
            assert body.engine is not None, "an event of an engine that is not there"
            if not body.engine.current(item.run, item.event):
                return
            event = item.event
        else:
            event = item
        if body.asleep_until > self.now:
            body.inbox.append(event)
        else:
            self._handle(body, event)
        if isinstance(item, _Engine) and body.engine is not None:
            self._engine_does(body, body.engine.settle())

    def _wake(self, body: Device) -> None:
        if body.asleep_until > self.now or not body.alive:
            return
        waiting, body.inbox = body.inbox, deque(maxlen=BACKLOG)
        timers, body.overdue = body.overdue, []
        for event in waiting:
            self._handle(body, event)
        for timer in timers:
            self._handle(body, Fired(timer))

    def _handle(self, body: Device, event: Event) -> None:
        self.events += 1
        effects = body.host.handle(event, self.now)
        if self._trace is not None:
            self._trace.note(self.now, body.id, event)
            for effect in effects:
                self._trace.note(self.now, body.id, effect)
        if self._check is not None:
            self._check(body, event, effects, self.now)
        if effects:
            self._carry_out(body, effects)

    def _carry_out(self, body: Device, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(body, effect.to, effect.message)
                case SetTimer():
                    self._push(max(effect.at, self.now), body, Fired(effect.timer))
                case Announce():
                    if self._observe is not None:
                        self._observe(body, effect.notice, self.now)
                case Disconnect():
                    self._disconnect(body, effect.device)
                case Generate():
                    self._engine_does(body, _engine_of(body).generate(effect))
                case Abort():
                    self._engine_does(body, _engine_of(body).abort(effect))
                case Warm():
                    self._engine_does(body, _engine_of(body).warm(effect))
                case Chill():
                    self._engine_does(body, _engine_of(body).chill(effect))
                case _:
                    assert_never(effect)

    def _engine_does(self, body: Device, reports: list[tuple[float, int, Event]]) -> None:
        for delay, run, event in reports:
            self._push(self.now + delay, body, _Engine(run, event), self._ranked(body, event))

    def _push(self, time: float, body: Device, item: _Item, rank: int = 0) -> None:
        self._sequence += 1
        heappush(self._heap, (time, rank, self._sequence, body, item))

    def _ranked(self, body: Device, event: Event) -> int:
        return 0 if self._rank is None else self._rank(body, event)

    # ---- the network -------------------------------------------------------------------------------

    def _send(self, body: Device, to: DeviceId, message: Message) -> None:
        assert to != body.id or self._rank, f"{to} sends itself {type(message).__name__}"
        if self._size_of is not None:
            self._count(message)
        if self._codec:
            copy = decode(encode(message))
            assert copy == message, f"{message} came out as {copy}"
            message = copy
        wait = 0.0
        target = body.links.get(to)
        if target is None:
            address = body.host.address_of(to)
            target = self._by_address.get(address) if address is not None else None
            if target is None or target.id != to or not self._both_ways(body.id, to):
                self._unreachable(body, to, message)
                return
            body.links[to] = target
            wait = self.links.delay() + self.links.delay()
            self.traffic.packets += self.links.config.dial_packets
            self.traffic.bytes += self.links.config.dial_bytes
        links = self.links
        if isinstance(message, self._datagrams):
            if links.reaches(body.id, to):
                for delay in links.datagram():
                    self._push(self.now + wait + delay, target, _Arrival(body, Received(body.id, message)))
        elif isinstance(message, Sync | SyncReply):
            if self._both_ways(body.id, to):
                self._push(
                    self.now + wait + links.delay(), target, _Arrival(body, Received(body.id, message))
                )
        else:
            self._send_on_stream(body, target, message, wait)

    def _send_on_stream(self, body: Device, target: Device, message: Message, wait: float) -> None:
        """A job's messages: in order, and all of them, or the stream is lost at both ends."""
        links = self.links
        if links.config.torture:
            for delay in links.datagram() if links.reaches(body.id, target.id) else ():
                self._push(self.now + wait + delay, target, _Arrival(body, Received(body.id, message)))
            return
        job = _job_of(message)
        if not target.alive:
            # Nobody is there to say so: noticed when the link is given up.
            if job is not None:
                body.streams[target.id, job] = self.now
            return
        if not self._both_ways(body.id, target.id) or links.breaks():
            if job is not None:
                late = links.patience()
                self._push(self.now + late, body, StreamLost(target.id, job))
                self._push(self.now + late + links.delay(), target, StreamLost(body.id, job))
                body.streams.pop((target.id, job), None)
            return
        arrival = self.now + wait + links.delay()
        if job is not None:
            # Of what arrives at one time the earlier sent comes first, by the heap's order.
            arrival = max(arrival, body.streams.get((target.id, job), 0.0))
            body.streams[target.id, job] = arrival
        event = Received(body.id, message)
        self._push(arrival, target, _Arrival(body, event), self._ranked(target, event))

    def _both_ways(self, one: DeviceId, other: DeviceId) -> bool:
        return self.links.reaches(one, other) and self.links.reaches(other, one)

    def _unreachable(self, body: Device, to: DeviceId, message: Message) -> None:
        """Dialling fails after its time-out; only a job's loss is worth an event."""
        job = None if isinstance(message, (*self._datagrams, Sync, SyncReply)) else _job_of(message)
        if job is not None:
            self._push(self.now + self.links.config.dial_timeout_s, body, StreamLost(to, job))

    def _disconnect(self, body: Device, device: DeviceId) -> None:
        other = body.links.pop(device, None)
        self._end_streams(body, device)
        if other is not None and other.alive and self.links.reaches(body.id, device):
            self.at(self.now + self.links.delay(), lambda: self._lose(other, body))

    def _lose(self, body: Device, other: Device) -> None:
        """A device sees that a connection is gone."""
        if body.links.get(other.id) is other and body.alive:
            del body.links[other.id]
            self._end_streams(body, other.id)
            self._arrive(body, LinkLost(other.id))

    def _lose_all(self, dead: Device) -> None:
        for other in list(dead.links.values()):
            self._lose(other, dead)

    def _end_streams(self, body: Device, device: DeviceId) -> None:
        for to, job in list(body.streams):
            if to == device:
                del body.streams[to, job]
                self._push(self.now, body, StreamLost(device, job))

    def _count(self, message: Message) -> None:
        assert self._size_of is not None
        size = self._size_of(message)
        packets = 1 + (size - 1) // PACKET
        traffic, kind = self.traffic, type(message).__name__
        traffic.packets += packets
        traffic.bytes += size + packets * DATAGRAM_OVERHEAD
        traffic.by_kind[kind] = traffic.by_kind.get(kind, 0) + packets


def _engine_of(body: Device) -> Machine:
    assert body.engine is not None, f"{body.id} has no engine"
    return body.engine


def _job_of(message: Message) -> JobId | None:
    """The job whose stream a message travels on; prefill hints have none and may be lost."""
    if isinstance(message, Prepare):
        return None
    job: JobId | None = getattr(message, "job", None)
    return job


@lru_cache(maxsize=1 << 14)
def _small_size(message: Message) -> int:
    return len(encode(message))


def wire_size(message: Message) -> int:
    """Encoded bytes of a message; heartbeats repeat themselves, so their sizes are remembered."""
    if isinstance(message, Heartbeat) and not message.hot and not message.rumours:
        return _small_size(message)
    return len(encode(message))
