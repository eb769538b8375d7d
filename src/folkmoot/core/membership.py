"""Who is in the moot and who lives: watcher rings, pooled silence, flooded deaths. No server.

Neighbours on the hash rings send each other heartbeats. Who misses one's heartbeats for S seconds asks its
other watchers; they pool when it was last heard, and after D seconds of silence towards all of them it is
held dead, which floods to everybody. Death is revocable: whoever is held dead and speaks is told so and
announces itself under a higher incarnation. What a device knows otherwise (who is suspect, how long the
queues are) rides on the heartbeats; neighbours whose lists differ for long compare them.

Source of the design and its figures: docs/explanation/membership.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from random import Random

from folkmoot.core.events import Announce, Disconnect, Effect, GossipTimer, MemberChanged, Send, SetTimer
from folkmoot.core.gossip import (
    DATAGRAM_BYTES,
    MAX_AGE_MS,
    MAX_DEBT,
    MAX_HOT,
    MAX_LOAD,
    MAX_ROWS,
    MAX_RUMOURS,
    RUMOUR_BYTES,
    STREAM_BYTES,
    Card,
    GossipMessage,
    Heard,
    Heartbeat,
    Hot,
    Member,
    News,
    Probe,
    Pulse,
    Rumour,
    Silence,
    Standing,
    Sync,
    SyncReply,
    checksum,
    hot_bytes,
    pack,
    row_bytes,
    rumour_of,
    tag_of,
    trimmed,
    well_formed,
)
from folkmoot.core.ids import DeviceId
from folkmoot.core.neighbours import Allowance, Case, Log, Watch
from folkmoot.core.rings import Rings
from folkmoot.core.roster import MAX_PULSE_LEAP, Roster, beats, hot_of
from folkmoot.core.seal import FORGED, Seals, Unsealed
from folkmoot.errors import ConfigError

TICK = GossipTimer("tick")
FLUSH = GossipTimer("flush")
JUDGE = GossipTimer("judge")


@dataclass(frozen=True, slots=True)
class MembershipConfig:
    """Times in seconds. "M" = the design's table of defaults, "measured" = docs/explanation/membership.md."""

    beat_s: float = 0.5  # T; M
    silence_s: float = 2.0  # S; M used 1.5 and found it too short for stalls of 1 s
    death_s: float = 4.5  # D; M used 3.7; measured: leaves 0.5 s for the verdict and the flood
    witnesses: int = 2  # H; measured: 3 of 4 watchers wait for a slow one; M saw no difference from 2 on
    rings: int = 3  # R; M used 4; measured: a quarter fewer packets for 0.05 s
    flush_s: float = 0.02  # G; M used 0.05; measured: saves 0.1 s of the flood for 0.1 packets/s
    transit_s: float = 0.15  # two tellings of one moment differ by less: several delays of 20 ms
    veto_s: float = 1.0  # who heard a device so lately does not believe in its death; guess
    dispute_s: float = 2.0  # how long a device may take to contradict a death told by comparison; guess
    heal_s: tuple[float, float] = (15.0, 25.0)  # M: one known-dead member is tried so often
    knock_s: tuple[float, float] = (0.5, 15.0)  # first and longest wait between tries when alone; guess
    sync_s: float = 1.0  # M: at most one comparison so often
    forget_s: float = 86_400.0  # a dead row is kept for a day, so that its address can be tried; guess
    max_dead: int = 1_024  # guess
    max_members: int = 8_192  # twice the largest moot that M simulated
    max_contacts: int = 256  # guess
    strangers: int = (
        1_024  # by one device's word so many come to life in a minute, and twice the living; guess
    )
    rumours_per_beat: int = 6  # with the next one: a full heartbeat stays below 1,200 bytes
    hot_bytes: int = 640  # a byte cap as M asks: at most 12 x 640 B/s

    def validate(self) -> None:
        """Raises ConfigError where the values contradict each other."""
        if not 0.0 < self.beat_s < self.silence_s:
            raise ConfigError(f"beat_s = {self.beat_s} must lie between 0 and silence_s = {self.silence_s}")
        if self.death_s < self.silence_s + 2 * self.beat_s:
            raise ConfigError(
                f"death_s = {self.death_s} leaves the watchers no time to ask each other: "
                f"give at least silence_s + 2 beat_s = {self.silence_s + 2 * self.beat_s}"
            )
        if self.rings < 1 or not 1 <= self.witnesses <= 2 * self.rings:
            raise ConfigError(f"witnesses = {self.witnesses} must lie in 1..{2 * self.rings} (two a ring)")
        if self.rumours_per_beat * RUMOUR_BYTES + self.hot_bytes > DATAGRAM_BYTES:
            raise ConfigError(
                f"rumours_per_beat = {self.rumours_per_beat} and hot_bytes = {self.hot_bytes} "
                f"do not fit into a datagram of {DATAGRAM_BYTES} bytes"
            )


class Way(Enum):
    """How a claim came in, which decides how far it is believed."""

    OWN = "own"
    FLOOD = "flood"
    BEAT = "beat"
    COMPARED = "compared"


class Membership:
    """The protocol as a state machine: messages and timers in, effects out. Times are seconds."""

    def __init__(
        self,
        me: DeviceId,
        card: Card,
        incarnation: int,
        config: MembershipConfig,
        rng: Random,
        seals: Seals | None = None,
    ) -> None:
        config.validate()
        self.ignored = 0
        """Messages and claims that were out of bounds."""
        self.forged = 0
        """Cards that their devices have not sealed."""
        self._seals = seals or Unsealed()
        self._me = me
        self._config = config
        self._rng = rng
        self._roster = Roster(me, self._sealed(trimmed(card), incarnation), incarnation)
        self.members = self._roster.members
        """All rows, this device's own and the dead included. For reading."""
        self._rings = Rings(config.rings)
        self._rings.add(me)
        self._out: list[Effect] = []
        self._neighbours: tuple[DeviceId, ...] = ()
        self._stale = True
        self._watches: dict[DeviceId, Watch] = {}
        self._cases: dict[DeviceId, Case] = {}
        self._contacts: dict[DeviceId, str] = {}
        self._banned: dict[DeviceId, None] = {}
        self._died: dict[DeviceId, float] = {}
        self._disputes: dict[DeviceId, tuple[Member, float]] = {}
        self._eager: dict[DeviceId, tuple[bool, list[DeviceId]]] = {}
        self._rumours: Log[None] = Log(512)
        self._hot: Log[Hot] = Log(config.max_members)
        self._own_hot = 0
        self._tag = tag_of(me)
        self._vouched = Allowance()
        self._forgeries = Allowance()
        self._pulses = self.members[me].pulse.version
        self._heard_pulse: dict[DeviceId, float] = {}
        self._plain = Heartbeat(incarnation, self._roster.view)
        self._turn = 0
        self._started = False
        self._gone = False
        self._tick_due = 0.0
        self._tick_at = 0.0
        self._hold_until = 0.0
        self._ask_at = float("-inf")
        self._knock_at = 0.0
        self._knock_wait = config.knock_s[0]
        self._knocks = 0

    # ---- the door ----------------------------------------------------------------------------------

    def live(self) -> list[Member]:
        """Alive and suspect others, in order of arrival."""
        return self._roster.live()

    def address_of(self, device: DeviceId) -> str | None:
        """Where to dial a device; None if nobody has told."""
        row = self.members.get(device)
        if row is not None and row.card.address:
            return row.card.address
        return self._contacts.get(device)

    def start(self, contacts: Sequence[tuple[DeviceId, str]], now: float) -> list[Effect]:
        """Begin, or learn further contacts (remembered, invited, discovered)."""
        for device, address in contacts:
            known = device == self._me or device in self._banned
            if not known and len(self._contacts) < self._config.max_contacts:
                self._contacts[device] = address
        if not self._started:
            self._started = True
            self._tick_at = now
            self._tick_due = now + self._rng.random() * self._config.beat_s
            self._out.append(SetTimer(self._tick_due, TICK))
        self._knock_wait = self._config.knock_s[0]
        self._knock(now)
        return self._taken()

    def adopt(self, rows: Iterable[Member], now: float) -> list[Effect]:
        """Take over live rows that are known already; they are not passed on."""
        new = [row for row in rows if row.device not in self.members and row.standing <= Standing.SUSPECT]
        new = new[: max(0, self._config.max_members - len(self.members))]
        for row in new:
            self._roster.put(row)
        self._rings.add_all(row.device for row in new)
        self._stale = True
        self._out.extend(Announce(MemberChanged(row)) for row in new)
        return self._taken()

    def hear_pulse(self, device: DeviceId, pulse: Pulse, now: float) -> None:
        """Take in a member's load that the driver has learned by another way than heartbeats; an older one counts for nothing."""
        if pulse.version > self.members[device].pulse.version:
            self._heard_pulse[device] = now
        self._roster.put(replace(self.members[device], pulse=pulse))

    @property
    def devices(self) -> int:
        """How many are alive or under suspicion, this one among them."""
        return self._roster.live_count

    def pulse_age(self, device: DeviceId, now: float) -> float:
        """Seconds since a member's load was heard of, 0 where it came with its row."""
        return now - self._heard_pulse.get(device, now)

    def on_message(self, sender: DeviceId, message: GossipMessage, now: float) -> list[Effect]:
        """A message whose sender the transport has proven. Out of bounds means ignored, never raised."""
        if self._gone or sender == self._me:
            return []
        if not well_formed(message):
            self.ignored += 1
            return []
        watch = self._watches.get(sender)
        if watch is not None:
            self._hear(sender, watch, now)
        match message:
            case Heartbeat():
                self._on_heartbeat(sender, message, watch, now)
            case Silence():
                self._on_silence(sender, message, now)
            case Heard():
                self._on_heard(sender, message, now)
            case Probe():
                self._out.append(Send(sender, self._heartbeat()))
            case News():
                self._take_in(sender, message.rumours, message.members, Way.FLOOD, now)
            case Sync():
                self._on_sync(sender, message, now)
            case SyncReply():
                self._take_in(sender, (), message.members, Way.COMPARED, now)
                self._send_rows(
                    sender, [row for row in map(self.members.get, message.wants) if row is not None]
                )
        self._correct(sender, message, now)
        return self._taken()

    def on_timer(self, timer: GossipTimer, now: float) -> list[Effect]:
        """A timer that this object set; stale ones are harmless."""
        if self._gone or not self._started:
            return []
        if timer.kind == FLUSH.kind:
            self._flush(now)
        elif timer.kind == JUDGE.kind:
            self._refresh(now)
            self._judge_all(now)
        elif now >= self._tick_due:
            self._tick(now)
        return self._taken()

    def on_link_lost(self, device: DeviceId, now: float) -> list[Effect]:
        """A broken connection is a reason to ask, no verdict."""
        watch = self._watches.get(device)
        if watch is not None and not self._gone and now - watch.probed >= self._config.beat_s:
            watch.probed = now
            self._out.append(Send(device, Probe()))
        return self._taken()

    def ban(self, device: DeviceId, now: float) -> list[Effect]:
        """A device is out for good: it has left, whatever anybody says of it from now on."""
        self._banned[device] = None
        known = self.members.get(device)
        if known is not None and device != self._me and known.standing <= Standing.SUSPECT:
            self._apply(replace(known, standing=Standing.LEFT), None, Way.OWN, now)
        self._contacts.pop(device, None)
        return self._taken()

    def set_card(self, card: Card, now: float) -> list[Effect]:
        """This device's own card changed: told to everybody, under a higher incarnation."""
        mine = self.members[self._me]
        card = replace(trimmed(card), version=mine.card.version, seal=mine.card.seal)
        if card != mine.card and not self._gone and self._outbid(mine.incarnation, card):
            self._out.append(Announce(MemberChanged(self.members[self._me])))
            self._flood(self._me, None, True, now)
        return self._taken()

    def _sealed(self, card: Card, version: int) -> Card:
        card = replace(card, version=version, seal=b"")
        return replace(card, seal=self._seals.seal(card))

    def _outbid(self, claimed: int, card: Card | None = None) -> bool:
        """Raise the own incarnation above a claim, with another card where one is given; False where it cannot be raised."""
        fresh = self._sealed(card, claimed + 1) if card is not None else None
        return self._roster.outbid(claimed, fresh) is not None

    def set_pulse(self, pulse: Pulse, now: float) -> list[Effect]:
        """This device's own hot state: rides on the next heartbeats. The version is drawn here."""
        self._tell_pulse(pulse)
        return self._taken()

    def _outdo(self, hot: Hot) -> None:
        """Somebody tells a load of this device that it never told: its next word must have a higher number."""
        if self._pulses < hot.version <= self._pulses + MAX_PULSE_LEAP:
            self._pulses = hot.version
            self._tell_pulse(self.members[self._me].pulse)

    def _tell_pulse(self, pulse: Pulse) -> None:
        self._pulses += 1
        ours = Pulse(
            self._pulses,
            min(max(pulse.queue, 0), 2**31 - 1),
            min(max(pulse.busy, 0), 2**31 - 1),
            min(max(pulse.buffer, 0), 2**31 - 1),
            min(max(pulse.service_s, 0.0), 999_999.0),
            min(max(pulse.debt, 0.0), MAX_DEBT - 1.0),
            min(max(pulse.late, 0.0), MAX_LOAD - 1.0),
            min(max(pulse.excess, 0), max(pulse.queue, 0), 2**31 - 1),
            min(max(pulse.load, 0.0), MAX_LOAD - 1.0),
            tuple(min(max(each, 0.0), 999_999.0) for each in pulse.stages),
        )
        self._roster.put(replace(self.members[self._me], pulse=ours))
        self._hot.add(self._me, hot_of(self.members[self._me]), None)
        self._own_hot = self._hot.seq

    def leave(self, now: float) -> list[Effect]:
        """Go, and tell the neighbours so: LEFT, not DEAD. Nothing is answered afterwards."""
        if not self._gone:
            self._roster.put(replace(self.members[self._me], standing=Standing.LEFT))
            self._refresh(now)
            news = News((rumour_of(self.members[self._me]),))
            self._out.extend(Send(neighbour, news) for neighbour in self._neighbours)
            self._gone = True
        return self._taken()

    def _taken(self) -> list[Effect]:
        out, self._out = self._out, []
        return out

    # ---- heartbeats --------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._refresh(now)
        config = self._config
        spacing = config.beat_s / max(1, len(self._neighbours))
        gap, late = now - self._tick_at, now - self._tick_due
        if gap > 2 * spacing + 0.4:
            # We were stalled. What we have not heard since may be our own fault: no verdicts for a while.
            self._hold_until = now + config.beat_s
            if gap >= config.silence_s:
                for watch in self._watches.values():
                    watch.since = now
        for _ in range(min(len(self._neighbours), 1 + int(late / spacing))):
            self._turn = (self._turn + 1) % len(self._neighbours)
            self._beat(self._neighbours[self._turn], now)
        self._judge_all(now)
        if self._disputes:
            self._settle(now)
        if now >= self._knock_at:
            self._knock(now)
        self._forget(now)
        self._tick_at = now
        self._tick_due = now + spacing if late > spacing else self._tick_due + spacing
        self._out.append(SetTimer(self._tick_due, TICK))
        for device in self._cases:
            # With few neighbours ticks are far apart; a verdict does not wait for them.
            watch = self._watches[device]
            verdict = max(watch.pooled, watch.since) + config.death_s + 0.001  # above any rounding
            if now < verdict < self._tick_due:
                self._out.append(SetTimer(verdict, JUDGE))

    def _beat(self, neighbour: DeviceId, now: float) -> None:
        """Send one heartbeat, and see to whoever gets it."""
        watch, config = self._watches[neighbour], self._config
        rumours: tuple[Rumour, ...] = ()
        hot: tuple[Hot, ...] = ()
        if watch.rumour_cursor < self._rumours.seq:
            # Oldest first, since each must arrive; pulses newest first, since the next one replaces them.
            news = self._rumours.after(watch.rumour_cursor, neighbour, MAX_ROWS)[::-1]
            news = [each for each in news if each[1] != neighbour]
            told = news[: config.rumours_per_beat]
            rumours = tuple(
                rumour_of(self.members[device]) for _, device, _ in told if device in self.members
            )
            watch.rumour_cursor = told[-1][0] if len(told) < len(news) else self._rumours.seq
        if watch.hot_cursor < self._hot.seq:
            hot = self._fresh(watch, neighbour)
            watch.hot_cursor = self._hot.seq
        message = self._heartbeat()
        if rumours or hot:
            message = Heartbeat(message.incarnation, message.view, rumours, hot)
        self._out.append(Send(neighbour, message))
        if now - max(watch.heard, watch.since) >= config.silence_s and neighbour not in self._cases:
            self._cases[neighbour] = Case()
        if watch.differs is not None and now - watch.differs > 2 * config.beat_s + 1.0:
            watch.differs = now
            self._ask(neighbour, now)

    def _fresh(self, watch: Watch, neighbour: DeviceId) -> tuple[Hot, ...]:
        """The own pulse first, since nobody else has it yet, then the newest ones, as many as may ride."""
        room = self._config.hot_bytes
        hot: list[Hot] = []
        if self._own_hot > watch.hot_cursor:
            hot.append(hot_of(self.members[self._me]))
            room -= hot_bytes(hot[0])
        for _, device, item in self._hot.after(watch.hot_cursor, neighbour, MAX_HOT):
            if device != self._me:
                room -= hot_bytes(item)
                if room < 0:
                    break
                hot.append(item)
        return tuple(hot)

    def _heartbeat(self) -> Heartbeat:
        incarnation, view = self.members[self._me].incarnation, self._roster.view
        if self._plain.incarnation != incarnation or self._plain.view != view:
            self._plain = Heartbeat(incarnation, view)
        return self._plain

    def _on_heartbeat(self, sender: DeviceId, message: Heartbeat, watch: Watch | None, now: float) -> None:
        if message.rumours:
            self._take_in(sender, message.rumours, (), Way.BEAT, now)
        for hot in message.hot:
            if hot.tag == self._tag:
                self._outdo(hot)
                continue
            device, new = self._roster.beat(hot)
            if device is not None and new:
                self._heard_pulse[device] = now
                self._hot.add(device, hot, sender)
            elif device is not None:
                self._hot.told(device, sender)
        if watch is not None:
            if message.view == self._roster.view:
                watch.differs = None
            elif watch.differs is None:
                watch.differs = now

    def _hear(self, sender: DeviceId, watch: Watch, now: float) -> None:
        watch.heard = watch.pooled = now
        # With our tick overdue, this may have lain in the queue since the tick before.
        watch.floor = self._tick_at if now - self._tick_due > self._config.transit_s else now
        case = self._cases.pop(sender, None)
        if case is not None:
            self._out.extend(
                Send(reporter, Heard(sender, self._age_ms(watch, now))) for reporter in case.reports
            )

    def _correct(self, sender: DeviceId, message: GossipMessage, now: float) -> None:
        """Tell a sender that we hold dead, suspect or at another incarnation; ask whom we do not know."""
        row = self.members.get(sender)
        if row is None:
            self._ask(sender, now)
        elif isinstance(message, Heartbeat):
            if message.incarnation > row.incarnation:
                self._ask(sender, now)
            elif message.incarnation < row.incarnation or row.standing != Standing.ALIVE:
                self._out.append(Send(sender, News((rumour_of(row),))))
        elif row.standing > Standing.SUSPECT:
            self._out.append(Send(sender, News((rumour_of(row),))))

    # ---- silence, and the verdict ------------------------------------------------------------------

    def _age_ms(self, watch: Watch, now: float) -> int:
        return int(min(max(now - watch.floor, 0.0) * 1_000, MAX_AGE_MS))

    def _fold(self, watch: Watch, age_ms: int, now: float) -> None:
        """Pool somebody else's telling; one that differs by no more than the way here is the same moment."""
        if now - age_ms / 1_000 > watch.pooled + self._config.transit_s:
            watch.pooled = now - age_ms / 1_000

    def _on_silence(self, sender: DeviceId, message: Silence, now: float) -> None:
        if message.device == self._me:
            self._out.append(Send(sender, self._heartbeat()))
            return
        row = self.members.get(message.device)
        if row is not None and row.standing > Standing.SUSPECT:
            self._out.append(Send(sender, News((rumour_of(row),))))
        watch = self._watches.get(message.device)
        if watch is None:
            return
        self._fold(watch, message.age_ms, now)
        ours = self._age_ms(watch, now)
        if ours / 1_000 < min(self._config.silence_s, message.age_ms / 1_000 - self._config.transit_s):
            self._out.append(Send(sender, Heard(message.device, ours)))
        elif sender in self._rings.neighbours(message.device):
            self._cases.setdefault(message.device, Case()).reports[sender] = now

    def _on_heard(self, sender: DeviceId, message: Heard, now: float) -> None:
        watch, case = self._watches.get(message.device), self._cases.get(message.device)
        if watch is not None:
            self._fold(watch, message.age_ms, now)
        if case is not None:
            case.reports.pop(sender, None)
            case.contradicted = now

    def _judge_all(self, now: float) -> None:
        if self._cases and now >= self._hold_until:
            for device in list(self._cases):
                self._judge(device, now)

    def _judge(self, device: DeviceId, now: float) -> None:
        """Report a silence, suspect, declare dead; or close the case."""
        config, watch, case = self._config, self._watches[device], self._cases[device]
        watchers = self._rings.neighbours(device)
        silent = now - max(watch.heard, watch.since) >= config.silence_s
        recent = now - 3 * config.beat_s
        count = sum(1 for watcher in watchers if case.reports.get(watcher, recent) > recent) + silent
        if not count:
            del self._cases[device]
            return
        # Who comes out of a stall knows old tellings only: no verdict without having asked of late.
        asked = now <= case.report_at + config.beat_s
        if silent and now >= case.report_at:
            # While others hear it, the fault is between it and us: ask less often.
            heard_elsewhere = now - case.contradicted < config.silence_s
            case.report_at = now + config.beat_s * (4 if heard_elsewhere else 1)
            report = Silence(device, self._age_ms(watch, now))
            self._out.append(Send(device, Probe()))
            self._out.extend(Send(watcher, report) for watcher in watchers if watcher != self._me)
        age = now - max(watch.pooled, watch.since)
        quiet = now - case.contradicted
        if asked and (
            (age >= config.death_s and count >= min(config.witnesses, len(watchers)))
            or (age >= config.death_s + 3.0 and quiet >= 2.5)
        ):
            self._apply(replace(self.members[device], standing=Standing.DEAD), None, Way.OWN, now)
        elif age >= config.silence_s and count >= min(2, len(watchers)):
            row = self.members[device]
            if row.standing == Standing.ALIVE:
                self._apply(replace(row, standing=Standing.SUSPECT), None, Way.OWN, now)

    # ---- claims ------------------------------------------------------------------------------------

    def _take_in(
        self, sender: DeviceId, rumours: Iterable[Rumour], rows: Iterable[Member], way: Way, now: float
    ) -> None:
        for row in rows:
            self._apply(row, sender, way, now)
        for rumour in rumours:
            known = self.members.get(rumour.device)
            if rumour.device in self._banned and rumour.standing <= Standing.SUSPECT:
                continue
            if known is None or (rumour.standing <= Standing.SUSPECT and checksum(known.card) != rumour.card):
                # The row itself is missing here: a live one is worth asking for. One of the same number may bear a newer card.
                if rumour.standing <= Standing.SUSPECT and (
                    known is None
                    or rumour.incarnation == known.incarnation
                    or beats(rumour.incarnation, rumour.standing, known)
                ):
                    self._ask(sender, now)
                continue
            claim = replace(known, incarnation=rumour.incarnation, standing=Standing(rumour.standing))
            self._apply(claim, sender, way, now)

    def _apply(self, claim: Member, source: DeviceId | None, way: Way, now: float) -> None:
        """Believe a claim if it outdoes what is known, and pass it on."""
        device = claim.device
        if device == self._me:
            self._refute(claim, source, now)
            return
        known = self.members.get(device)
        if device in self._banned and claim.standing <= Standing.SUSPECT:
            return
        if known is None:
            if claim.standing > Standing.SUSPECT:
                return
            if len(self.members) >= self._config.max_members:
                self.ignored += 1
                return
        elif not beats(claim.incarnation, claim.standing, known):
            if source is not None and claim.incarnation == known.incarnation and device in self._eager:
                self._eager[device][1].append(source)
            self._renew(claim, known, source, now)
            return
        elif self._doubted(claim, known, way, now):
            return
        comes = claim.standing <= Standing.SUSPECT and (known is None or known.standing > Standing.SUSPECT)
        if comes and source != device and not self._vouches(source, now):
            self.ignored += 1
            return
        card = self._card(claim, known, source, now)
        if card is None:
            return
        if card is not claim.card:
            claim = replace(claim, card=card)
        self._write(claim, now)
        self._disputes.pop(device, None)
        # A suspicion and its refutation stay lazy, or each slow device would cost a flood.
        if (
            known is None
            or claim.standing > Standing.SUSPECT
            or known.standing > Standing.SUSPECT
            or claim.card != known.card
        ):
            self._flood(device, source, known is None or claim.card != known.card, now)
        else:
            self._rumours.add(device, None, source)

    def _card(self, claim: Member, known: Member | None, source: DeviceId | None, now: float) -> Card | None:
        """The card that a claim which is believed leaves in the list: its own one only where that is newer and genuine.

        The rest of the claim stands all the same; None where no card of the device is known.
        """
        held = known.card if known is not None else None
        if held is not None and (claim.card == held or claim.card.version < held.version):
            return held
        if source is not None and not self._forgeries.left(source, FORGED, now):
            self.ignored += 1
            return held
        if self._seals.genuine(claim.device, claim.card):
            return claim.card
        self.forged += 1
        if source is not None:
            self._forgeries.spend(source, FORGED, now)
        return held

    def _renew(self, claim: Member, known: Member, source: DeviceId | None, now: float) -> None:
        """A claim that says nothing new of a living device may still bring a newer card of it.

        Else a liar that is the first to tell a new number, with the card before, would keep the new card out.
        """
        newer = known.card.version < claim.card.version and claim.incarnation <= known.incarnation
        if not newer or max(claim.standing, known.standing) > Standing.SUSPECT:
            return
        card = self._card(claim, known, source, now)
        if card is not None and card != known.card:
            self._write(replace(known, card=card), now)
            self._flood(known.device, source, True, now)

    def _vouches(self, source: DeviceId | None, now: float) -> bool:
        """Whether one more device may come to life by another's word; whoever knows nobody else believes its contact everything.

        A liar's inventions are held dead after D, so this bounds how many there ever are.
        """
        if source is None:
            return True
        living = self._roster.live_count
        most = float("inf") if living <= 2 else float(self._config.strangers + 2 * living)
        return self._vouched.spend(source, most, now)

    def _doubted(self, claim: Member, known: Member, way: Way, now: float) -> bool:
        """Whether a death is first put to the device itself: it may contradict within `dispute_s`.

        So is one that two lists differ in (after a partition each half holds the other dead, and the
        first comparison must not kill the living), and one whose device we have just heard.
        """
        if claim.standing != Standing.DEAD or known.standing > Standing.SUSPECT or way is Way.OWN:
            return False
        watch = self._watches.get(claim.device)
        hears = watch is not None and now - watch.floor < self._config.veto_s
        if way is not Way.COMPARED and not hears:
            return False
        if claim.device not in self._disputes and len(self._disputes) < self._config.max_dead:
            self._disputes[claim.device] = (claim, now + self._config.dispute_s)
            self._out.append(Send(claim.device, News((rumour_of(claim),))))
        return True

    def _settle(self, now: float) -> None:
        """Deaths that nobody has contradicted in time are believed. All wait equally long: oldest first."""
        while self._disputes:
            device, (claim, deadline) = next(iter(self._disputes.items()))
            if now < deadline:
                return
            del self._disputes[device]
            watch, known = self._watches.get(device), self.members.get(device)
            hears = watch is not None and now - watch.heard < self._config.veto_s
            if known is not None and not hears and beats(claim.incarnation, claim.standing, known):
                self._apply(claim, None, Way.OWN, now)

    def _refute(self, claim: Member, source: DeviceId | None, now: float) -> None:
        """Somebody says something about this device: at most a reason to outbid it."""
        mine = self.members[self._me]
        # An earlier life's, whose number was lost: sealed anew, the card of this life outdoes it.
        rival = claim.card != mine.card and self._card(claim, mine, source, now) is claim.card
        if claim.standing == Standing.ALIVE and not rival and claim.incarnation <= mine.incarnation:
            return
        number = max(claim.incarnation, mine.incarnation) if rival else claim.incarnation
        if self._outbid(number, mine.card if rival else None):
            self._out.append(Announce(MemberChanged(self.members[self._me])))
            if claim.standing == Standing.SUSPECT and not rival:
                self._rumours.add(self._me, None, None)
            else:
                self._flood(self._me, None, claim.standing == Standing.ALIVE, now)
        if source is not None:
            self._out.append(Send(source, News(members=(self.members[self._me],))))

    def _write(self, row: Member, now: float) -> None:
        device, known = row.device, self.members.get(row.device)
        was = known is not None and known.standing <= Standing.SUSPECT
        lives = row.standing <= Standing.SUSPECT
        self._roster.put(row)
        if lives and not was:
            self._rings.add(device)
            self._died.pop(device, None)
            self._stale = True
        elif was and not lives:
            self._rings.remove(device)
            self._died[device] = now
            self._stale = True
        if known is None or row.standing != known.standing or row.card != known.card:
            self._out.append(Announce(MemberChanged(row)))
        if was and not lives:
            self._out.append(Disconnect(device))

    # ---- passing on --------------------------------------------------------------------------------

    def _flood(self, device: DeviceId, source: DeviceId | None, full: bool, now: float) -> None:
        if not self._eager:
            self._out.append(SetTimer(now + self._config.flush_s, FLUSH))
        waiting = self._eager.get(device)
        self._eager[device] = (
            full or (waiting is not None and waiting[0]),
            [] if source is None else [source],
        )

    def _flush(self, now: float) -> None:
        """All that is waiting, to all neighbours, each record once per link."""
        self._refresh(now)
        eager, self._eager = self._eager, {}
        for neighbour in self._neighbours:
            rows: list[Member] = []
            rumours: list[Rumour] = []
            for device, (full, sources) in eager.items():
                row = self.members.get(device)
                if row is None or device == neighbour or neighbour in sources:
                    continue
                if full and row.standing <= Standing.SUSPECT:
                    rows.append(row)
                else:
                    rumours.append(rumour_of(row))
            self._send_news(neighbour, rumours, rows)

    def _send_news(self, to: DeviceId, rumours: list[Rumour], rows: list[Member]) -> None:
        if len(rumours) * RUMOUR_BYTES + sum(map(row_bytes, rows)) <= DATAGRAM_BYTES:
            if rumours or rows:
                self._out.append(Send(to, News(tuple(rumours), tuple(rows))))
            return
        for some in pack(rumours, lambda _: RUMOUR_BYTES, DATAGRAM_BYTES):
            self._out.append(Send(to, News(some)))
        for few in pack(rows, row_bytes, DATAGRAM_BYTES):
            self._out.append(Send(to, News((), few)))

    # ---- comparing lists ---------------------------------------------------------------------------

    def _ask(self, device: DeviceId, now: float) -> None:
        """Compare lists with a device, at most once in `sync_s`; what is left out shows up again."""
        if now >= self._ask_at:
            self._ask_at = now + self._config.sync_s
            self._send_sync(device)

    def _send_sync(self, device: DeviceId) -> None:
        mine, first = self.members[self._me], ""
        names = sorted(self.members)
        for start in range(0, len(names), MAX_RUMOURS):
            page = names[start : start + MAX_RUMOURS]
            last = page[-1] if start + MAX_RUMOURS < len(names) else ""
            claims = tuple(rumour_of(self.members[name]) for name in page)
            self._out.append(Send(device, Sync(mine, claims, first, last)))
            first = last + "\0"

    def _on_sync(self, sender: DeviceId, message: Sync, now: float) -> None:
        if message.me.device == sender:
            self._apply(message.me, sender, Way.FLOOD, now)
        else:
            self.ignored += 1
        rows: list[Member] = []
        wants: list[DeviceId] = []
        claimed: dict[DeviceId, None] = {}
        for claim in message.claims:
            claimed[claim.device] = None
            known = self.members.get(claim.device)
            if known is None or claim.device == self._me:
                if claim.device == self._me:
                    self._take_in(sender, (claim,), (), Way.COMPARED, now)
                    rows.append(self.members[self._me])
                elif claim.standing <= Standing.SUSPECT:
                    wants.append(claim.device)
            elif beats(claim.incarnation, claim.standing, known):
                if checksum(known.card) == claim.card or claim.standing > Standing.SUSPECT:
                    self._take_in(sender, (claim,), (), Way.COMPARED, now)
                else:
                    wants.append(claim.device)
            elif beats(known.incarnation, known.standing, _row_of(claim, known.card)):
                rows.append(known)
            elif claim.standing <= Standing.SUSPECT and claim.card != checksum(known.card):
                # Of two cards under one number the newer one counts, and only the cards themselves tell which that is.
                rows.append(known)
                wants.append(claim.device)
        for device, row in self.members.items():
            if device not in claimed and row.standing <= Standing.SUSPECT and device >= message.first:
                if not message.last or device <= message.last:
                    rows.append(row)
        self._send_rows(sender, rows, tuple(wants[:MAX_ROWS]))

    def _send_rows(self, to: DeviceId, rows: list[Member], wants: tuple[DeviceId, ...] | None = None) -> None:
        """Rows in as many messages as they need; with `wants`, at least one."""
        groups = pack(rows, row_bytes, STREAM_BYTES) or ([()] if wants is not None else [])
        for at, group in enumerate(groups):
            self._out.append(Send(to, SyncReply(group, (wants or ()) if at == 0 else ())))

    # ---- coming, healing, forgetting ---------------------------------------------------------------

    def _knock(self, now: float) -> None:
        """Alone: try known addresses for ever, ever more slowly. Else try a lost one now and then."""
        strangers = [device for device in self._contacts if device not in self.members]
        lost = [device for device in self._died if self.members[device].standing == Standing.DEAD]
        known = strangers + lost
        if self._roster.live_count > 1:
            self._knock_wait = self._config.knock_s[0]
            self._knock_at = now + self._rng.uniform(*self._config.heal_s)
            if known:
                self._try(self._rng.choice(known))
            return
        known += [device for device in self._died if self.members[device].standing == Standing.LEFT]
        for _ in range(min(3, len(known))):
            self._try(known[self._knocks % len(known)])
            self._knocks += 1
        self._knock_at = now + self._knock_wait * self._rng.uniform(0.75, 1.25)
        self._knock_wait = min(2 * self._knock_wait, self._config.knock_s[1])

    def _try(self, device: DeviceId) -> None:
        if device in self.members:
            self._out.append(Send(device, self._heartbeat()))
        else:
            self._send_sync(device)

    def _forget(self, now: float) -> None:
        while self._died:
            device = next(iter(self._died))
            if len(self._died) <= self._config.max_dead and now - self._died[device] < self._config.forget_s:
                return
            del self._died[device]
            self._eager.pop(device, None)
            self._roster.forget(device)
            self._heard_pulse.pop(device, None)

    def _refresh(self, now: float) -> None:
        """Watch the neighbours of the day; a new one has all of D to make itself heard."""
        if not self._stale:
            return
        self._stale = False
        self._neighbours = self._rings.neighbours(self._me)
        old = self._watches
        self._watches = {
            device: old.get(device) or Watch(now, now, rumour_cursor=self._rumours.seq)
            for device in self._neighbours
        }
        for device in list(self._cases):
            if device not in self._watches:
                del self._cases[device]


def _row_of(claim: Rumour, card: Card) -> Member:
    return Member(claim.device, claim.incarnation, claim.standing, card)
