"""The rival: SWIM with Lifeguard's refinements, behind the same door as `core.membership.Membership`.

SWIM: Das, Gupta, Motivala, DSN 2002; Lifeguard: Dadgar, Phillips, Currey, arXiv 1707.00788. In it are the
probe of one random member a period (round robin over a shuffled list), indirect probes, suspicion before
death, piggy-backed rumours told a bounded number of times; Lifeguard's local health multiplier (with
nacks), suspicion times that shrink with independent confirmations, and the buddy system (a suspect is
told with the next probe). It lives in the virtual world only: the comparison is in
docs/explanation/membership.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log, log10
from random import Random

from folkmoot.core.events import Announce, Disconnect, Effect, GossipTimer, MemberChanged, Send, SetTimer
from folkmoot.core.gossip import (
    STREAM_BYTES,
    Card,
    GossipMessage,
    Heartbeat,
    Hot,
    Member,
    News,
    Pulse,
    Rumour,
    Standing,
    Sync,
    SyncReply,
    checksum,
    pack,
    row_bytes,
    rumour_of,
    trimmed,
)
from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Message
from folkmoot.core.roster import Roster, beats, hot_of
from folkmoot.sim.world import wire_size

TICK = GossipTimer("tick")


@dataclass(frozen=True, slots=True)
class Piggyback:
    """What rides on every message of SWIM."""

    rumours: tuple[Rumour, ...] = ()
    rows: tuple[Member, ...] = ()
    hot: tuple[Hot, ...] = ()


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? `origin` is whom to answer through us, if we ask for somebody else."""

    seq: int
    load: Piggyback


@dataclass(frozen=True, slots=True)
class Ack:
    """Yes, to the ping of that number."""

    seq: int
    load: Piggyback


@dataclass(frozen=True, slots=True)
class PingReq:
    """Ask `target` for me."""

    seq: int
    target: DeviceId
    load: Piggyback


@dataclass(frozen=True, slots=True)
class Nack:
    """I am here, but your target has not answered me (Lifeguard)."""

    seq: int


SWIM_DATAGRAMS = (Ping, Ack, PingReq, Nack)


def swim_size(message: Message) -> int:
    """Bytes of a SWIM message, put together from those of the shipped codec for the same records."""
    match message:
        case Ping() | Ack() | PingReq():
            load = message.load
            size = wire_size(Heartbeat(message.seq, 0, load.rumours, load.hot))
            if load.rows:
                size += wire_size(News((), load.rows)) - 3
            return size + (35 if isinstance(message, PingReq) else 0)
        case Nack():
            return 6
        case _:
            return wire_size(message)


@dataclass(frozen=True, slots=True)
class SwimConfig:
    """Seconds. Tuned in the virtual world to the packets and the detection time of the shipped detector."""

    period_s: float = 0.21
    ack_s: float = 0.4
    fail_s: float = 1.4
    indirect: int = 3
    suspicion_min_s: float = 2.5
    suspicion_factor: float = 1.5
    confirmations: int = 3
    health_max: int = 8
    tellings: float = 6.0
    rumours: int = 6
    row_budget: int = 500
    hot: int = 12
    sync_s: float = 30.0
    heal_s: tuple[float, float] = (15.0, 25.0)
    forget_s: float = 86_400.0


@dataclass(slots=True)
class _Probe:
    target: DeviceId
    asked: tuple[DeviceId, ...] = ()
    nacks: int = 0


@dataclass(slots=True)
class _Suspicion:
    since: float
    by: dict[DeviceId, None] = field(default_factory=dict)


class Swim:
    """One device's detector. Times are seconds."""

    def __init__(self, me: DeviceId, card: Card, incarnation: int, config: SwimConfig, rng: Random) -> None:
        self._me = me
        self._config = config
        self._rng = rng
        self._roster = Roster(me, trimmed(card), incarnation)
        self.members = self._roster.members
        self._contacts: dict[DeviceId, str] = {}
        self._out: list[Effect] = []
        self._order: list[DeviceId] = []
        self._turn = 0
        self._seq = 0
        self._probes: dict[int, _Probe] = {}
        self._relays: dict[int, tuple[DeviceId, int]] = {}
        self._suspicions: dict[DeviceId, _Suspicion] = {}
        self._gossip: dict[DeviceId, tuple[int, bool]] = {}
        self._hot: dict[DeviceId, tuple[int, Hot]] = {}
        self._died: dict[DeviceId, float] = {}
        self._health = 0
        self._pulses = self.members[me].pulse.version
        self._started = False
        self._gone = False
        self._due = 0.0
        self._sync_at = 0.0
        self._heal_at = 0.0
        self._ask_at = float("-inf")

    # ---- the door ----------------------------------------------------------------------------------

    def address_of(self, device: DeviceId) -> str | None:
        """Where to dial a device."""
        row = self.members.get(device)
        return row.card.address if row is not None else self._contacts.get(device)

    def start(self, contacts: Sequence[tuple[DeviceId, str]], now: float) -> list[Effect]:
        """Begin, or learn further contacts."""
        self._contacts.update((device, address) for device, address in contacts if device != self._me)
        if not self._started:
            self._started = True
            self._due = now + self._rng.random() * self._config.period_s
            self._sync_at = now + self._rng.random() * self._config.sync_s
            self._heal_at = now + self._rng.uniform(*self._config.heal_s)
            self._out.append(SetTimer(self._due, TICK))
        for device in list(self._contacts)[:3]:
            if device not in self.members:
                self._send_sync(device)
        return self._taken()

    def adopt(self, rows: Iterable[Member], now: float) -> list[Effect]:
        """Rows that are known already; they are not passed on."""
        for row in rows:
            if row.device not in self.members:
                self._write(row, now)
        return self._taken()

    def on_message(
        self, sender: DeviceId, message: GossipMessage | Ping | Ack | PingReq | Nack, now: float
    ) -> list[Effect]:
        """A message came."""
        if self._gone:
            return []
        match message:
            case Ping(seq, load):
                self._take_in(sender, load, now)
                self._out.append(Send(sender, Ack(seq, self._load(sender))))  # type: ignore[arg-type]  # sim only
            case Ack(seq, load):
                self._take_in(sender, load, now)
                self._acknowledged(seq)
            case PingReq(seq, target, load):
                self._take_in(sender, load, now)
                self._relay(sender, seq, target, now)
            case Nack(seq):
                probe = self._probes.get(seq)
                if probe is not None:
                    probe.nacks += 1
            case Sync():
                self._on_sync(sender, message, now)
            case SyncReply():
                for told in message.members:
                    self._apply(told, sender, now)
            case _:
                pass
        row = self.members.get(sender)
        if row is None and now >= self._ask_at:
            self._ask_at = now + 1.0
            self._send_sync(sender)
        elif (
            row is not None and row.standing > Standing.SUSPECT and isinstance(message, Ping | Ack | PingReq)
        ):
            # It speaks though it is held dead: tell it so.
            self._ping(sender, now)
        return self._taken()

    def on_timer(self, timer: GossipTimer, now: float) -> list[Effect]:
        """A timer came due."""
        if self._gone:
            return []
        if timer.kind == "tick" and now >= self._due:
            self._tick(now)
        elif timer.kind == "ack":
            self._ask_others(int(timer.about), now)
        elif timer.kind == "fail":
            self._fail(int(timer.about), now)
        elif timer.kind == "relay":
            relay = self._relays.pop(int(timer.about), None)
            if relay is not None:
                self._out.append(Send(relay[0], Nack(relay[1])))  # type: ignore[arg-type]  # sim only
        return self._taken()

    def on_link_lost(self, device: DeviceId, now: float) -> list[Effect]:
        """SWIM has no use for it."""
        return []

    def set_card(self, card: Card, now: float) -> list[Effect]:
        """The own card changed."""
        self._roster.outbid(self.members[self._me].incarnation, trimmed(card))
        self._gossip[self._me] = (0, True)
        return self._taken()

    def set_pulse(self, pulse: Pulse, now: float) -> list[Effect]:
        """The own hot state."""
        self._pulses += 1
        self._roster.put(replace(self.members[self._me], pulse=replace(pulse, version=self._pulses)))
        self._hot.pop(self._me, None)
        self._hot[self._me] = (0, hot_of(self.members[self._me]))
        return self._taken()

    def leave(self, now: float) -> list[Effect]:
        """Go."""
        self._roster.put(replace(self.members[self._me], standing=Standing.LEFT))
        self._gossip[self._me] = (0, False)
        for device in self._others(self._config.indirect, self._me):
            self._ping(device, now)
        self._gone = True
        return self._taken()

    def _taken(self) -> list[Effect]:
        out, self._out = self._out, []
        return out

    # ---- probing -----------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        config = self._config
        target = self._next()
        if target is not None:
            self._seq += 1
            self._probes[self._seq] = _Probe(target)
            self._ping(target, now, self._seq)
            scale = 1 + self._health
            self._out.append(SetTimer(now + config.ack_s * scale, GossipTimer("ack", str(self._seq))))
            self._out.append(SetTimer(now + config.fail_s * scale, GossipTimer("fail", str(self._seq))))
        for device in list(self._suspicions):
            suspicion = self._suspicions[device]
            if now - suspicion.since >= self._patience(suspicion):
                self._apply(replace(self.members[device], standing=Standing.DEAD), None, now)
        if now >= self._sync_at:
            self._sync_at = now + config.sync_s
            for device in self._others(1, self._me):
                self._send_sync(device)
        if now >= self._heal_at:
            self._heal_at = now + self._rng.uniform(*config.heal_s)
            if self._died:
                self._ping(self._rng.choice(list(self._died)), now)
        # Lifeguard: an unhealthy device also probes less often.
        self._due = max(self._due, now) + config.period_s * (1 + self._health)
        self._out.append(SetTimer(self._due, TICK))

    def _next(self) -> DeviceId | None:
        while self._order:
            if self._turn >= len(self._order):
                self._turn = 0
                self._rng.shuffle(self._order)
            device = self._order[self._turn]
            self._turn += 1
            if self.members[device].standing <= Standing.SUSPECT:
                return device
            self._turn -= 1
            del self._order[self._turn]
        return None

    def _ping(self, target: DeviceId, now: float, seq: int = 0) -> None:
        self._out.append(Send(target, Ping(seq, self._load(target))))  # type: ignore[arg-type]  # sim only

    def _acknowledged(self, seq: int) -> None:
        if self._probes.pop(seq, None) is not None:
            self._health = max(0, self._health - 1)
        relay = self._relays.pop(seq, None)
        if relay is not None:
            self._out.append(Send(relay[0], Ack(relay[1], self._load(relay[0]))))  # type: ignore[arg-type]  # sim

    def _ask_others(self, seq: int, now: float) -> None:
        probe = self._probes.get(seq)
        if probe is not None:
            probe.asked = tuple(self._others(self._config.indirect, probe.target))
            for device in probe.asked:
                request = PingReq(seq, probe.target, self._load(device))
                self._out.append(Send(device, request))  # type: ignore[arg-type]  # sim only

    def _relay(self, sender: DeviceId, seq: int, target: DeviceId, now: float) -> None:
        if target == self._me or target not in self.members:
            return
        self._seq += 1
        self._relays[self._seq] = (sender, seq)
        self._ping(target, now, self._seq)
        self._out.append(SetTimer(now + self._config.ack_s, GossipTimer("relay", str(self._seq))))

    def _fail(self, seq: int, now: float) -> None:
        probe = self._probes.pop(seq, None)
        if probe is None:
            return
        missed = len(probe.asked) - probe.nacks
        self._health = min(self._config.health_max, self._health + (missed if probe.asked else 1))
        row = self.members.get(probe.target)
        if row is not None and row.standing <= Standing.SUSPECT:
            self._apply(replace(row, standing=Standing.SUSPECT), self._me, now)

    def _patience(self, suspicion: _Suspicion) -> float:
        """Lifeguard section IV-B: shrinks with the logarithm of independent confirmations."""
        config = self._config
        longest = config.suspicion_min_s * config.suspicion_factor
        share = log(len(suspicion.by)) / log(config.confirmations + 1) if suspicion.by else 0.0
        return max(config.suspicion_min_s, longest - (longest - config.suspicion_min_s) * share)

    def _others(self, count: int, but: DeviceId) -> list[DeviceId]:
        pool = [d for d in self._rng.sample(self._order, min(len(self._order), count + 3)) if d != but]
        return [d for d in pool if self.members[d].standing == Standing.ALIVE][:count]

    # ---- rumours -----------------------------------------------------------------------------------

    def _load(self, to: DeviceId) -> Piggyback:
        config = self._config
        most = ceil(config.tellings * log10(len(self.members) + 1) + 1)
        rumours: list[Rumour] = []
        rows: list[Member] = []
        buddy = self.members.get(to)
        if buddy is not None and buddy.standing != Standing.ALIVE:
            rumours.append(rumour_of(buddy))  # the buddy system
        room = config.row_budget
        if self._gossip:
            for device in sorted(self._gossip, key=lambda d: self._gossip[d][0])[: config.rumours]:
                count, full = self._gossip[device]
                told = self.members[device]
                if full and row_bytes(told) > room:
                    continue
                if full:
                    room -= row_bytes(told)
                    rows.append(told)
                else:
                    rumours.append(rumour_of(told))
                if count + 1 >= most:
                    del self._gossip[device]
                else:
                    self._gossip[device] = (count + 1, full)
        hot: list[Hot] = []
        if self._hot:
            for device in list(self._hot)[: -config.hot - 1 : -1]:
                times, item = self._hot[device]
                hot.append(item)
                if times + 1 >= most:
                    del self._hot[device]
                else:
                    self._hot[device] = (times + 1, item)
        return Piggyback(tuple(rumours), tuple(rows), tuple(hot))

    def _take_in(self, sender: DeviceId, load: Piggyback, now: float) -> None:
        for row in load.rows:
            self._apply(row, sender, now)
        for rumour in load.rumours:
            known = self.members.get(rumour.device)
            if known is not None and (
                rumour.standing > Standing.SUSPECT or checksum(known.card) == rumour.card
            ):
                claim = replace(known, incarnation=rumour.incarnation, standing=Standing(rumour.standing))
                self._apply(claim, sender, now)
        for hot in load.hot:
            device, new = self._roster.beat(hot)
            if device is not None and new:
                self._hot.pop(device, None)
                self._hot[device] = (0, hot)

    def _apply(self, claim: Member, source: DeviceId | None, now: float) -> None:
        device = claim.device
        if device == self._me:
            if claim.standing != Standing.ALIVE and self._roster.outbid(claim.incarnation) is not None:
                self._health = min(self._config.health_max, self._health + 1)
                self._gossip[self._me] = (0, False)
            return
        known = self.members.get(device)
        if (
            known is not None
            and claim.standing == known.standing == Standing.SUSPECT
            and claim.incarnation == known.incarnation
        ):
            # An independent confirmation; the first few are passed on (Lifeguard).
            suspicion = self._suspicions.get(device)
            if (
                suspicion is not None
                and source is not None
                and len(suspicion.by) <= self._config.confirmations
            ):
                if source not in suspicion.by:
                    suspicion.by[source] = None
                    self._gossip[device] = (0, False)
            return
        if known is None:
            if claim.standing > Standing.SUSPECT:
                return
        elif not beats(claim.incarnation, claim.standing, known):
            return
        full = known is None or known.card != claim.card
        self._write(claim, now)
        self._gossip[device] = (0, full)
        if claim.standing == Standing.SUSPECT:
            self._suspicions[device] = _Suspicion(now, {source: None} if source is not None else {})
        else:
            self._suspicions.pop(device, None)

    def _write(self, row: Member, now: float) -> None:
        device, known = row.device, self.members.get(row.device)
        was = known is not None and known.standing <= Standing.SUSPECT
        lives = row.standing <= Standing.SUSPECT
        self._roster.put(row)
        if lives and not was:
            self._died.pop(device, None)
            if device not in self._order:
                self._order.insert(self._rng.randrange(len(self._order) + 1), device)
        elif was and not lives:
            self._died[device] = now
            self._out.append(Disconnect(device))
        if known is None or row.standing != known.standing or row.card != known.card:
            self._out.append(Announce(MemberChanged(row)))

    # ---- comparing lists: as memberlist does, but by digest ----------------------------------------

    def _send_sync(self, device: DeviceId) -> None:
        claims = tuple(rumour_of(row) for row in self.members.values())
        self._out.append(Send(device, Sync(self.members[self._me], claims)))

    def _on_sync(self, sender: DeviceId, message: Sync, now: float) -> None:
        self._apply(message.me, sender, now)
        claimed = {claim.device: claim for claim in message.claims}
        rows = [
            row
            for device, row in self.members.items()
            if device not in claimed or beats(row.incarnation, row.standing, _claimed(claimed[device], row))
        ]
        for group in pack(rows, row_bytes, STREAM_BYTES):
            self._out.append(Send(sender, SyncReply(group)))
        for claim in message.claims:
            known = self.members.get(claim.device)
            if known is not None and checksum(known.card) == claim.card:
                self._apply(_claimed(claim, known), sender, now)


def _claimed(claim: Rumour, known: Member) -> Member:
    return replace(known, incarnation=claim.incarnation, standing=Standing(claim.standing))
