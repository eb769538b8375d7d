"""Membership by itself: one machine at a time, fed by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from random import Random

import pytest

from folkmoot.core.events import Announce, Disconnect, Effect, GossipTimer, MemberChanged, Send, SetTimer
from folkmoot.core.gossip import (
    MAX_INCARNATION,
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
    rumour_of,
    tag_of,
)
from folkmoot.core.ids import DeviceId
from folkmoot.core.membership import Membership, MembershipConfig
from folkmoot.core.seal import FORGED
from folkmoot.errors import ConfigError

A, B, C, D, E = (DeviceId(name) for name in "abcde")


def card_of(device: str) -> Card:
    return Card(name=device, model="tiny", context_tokens=4096, skill=1.0, address=f"addr-{device}")


def row_of(
    device: DeviceId, incarnation: int = 1, standing: Standing = Standing.ALIVE, version: int = 0
) -> Member:
    card = replace(card_of(device), version=version)
    return Member(device, incarnation, standing, card, Pulse(1 << 20))


@dataclass
class Wax:
    """Seals that anybody could make, and nobody in these tests does: the device and a digest of the card."""

    device: DeviceId

    def seal(self, card: Card) -> bytes:
        return wax(self.device, card)

    def genuine(self, device: DeviceId, card: Card) -> bool:
        return card.seal == wax(device, card)


def wax(device: DeviceId, card: Card) -> bytes:
    return blake2b(f"{device} {replace(card, seal=b'')}".encode()).digest()


def sealed(
    device: DeviceId, version: int, incarnation: int = 0, standing: Standing = Standing.ALIVE, **card: object
) -> Member:
    """A device's row as it would tell it itself."""
    plain = replace(card_of(device), version=version, **card)
    genuine = replace(plain, seal=wax(device, plain))
    return Member(device, incarnation or version, standing, genuine, Pulse(1 << 20))


def machine(
    *others: DeviceId, me: DeviceId = A, incarnation: int = 1, config: MembershipConfig | None = None
) -> Membership:
    """A started machine that knows the others, at time 0."""
    it = Membership(me, card_of(me), incarnation, config or MembershipConfig(), Random(1))
    it.start([], 0.0)
    if others:
        it.on_message(others[0], SyncReply(tuple(row_of(other) for other in others)), 0.0)
    return it


def run(
    it: Membership, start: float, end: float, heard: tuple[DeviceId, ...] = ()
) -> list[tuple[float, Effect]]:
    """Ticks every 10 ms; those in `heard` send a heartbeat every 0.4 s."""
    effects: list[tuple[float, Effect]] = []
    steps = round((end - start) * 100)
    for step in range(steps):
        now = start + step / 100
        if step % 40 == 0:
            for device in heard:
                message = Heartbeat(it.members[device].incarnation, 0)
                effects += [(now, effect) for effect in it.on_message(device, message, now)]
        for kind in ("tick", "flush", "judge"):
            effects += [(now, effect) for effect in it.on_timer(GossipTimer(kind), now)]
    return effects


def sent(effects: list[Effect], to: DeviceId | None = None) -> list[GossipMessage]:
    return [e.message for e in effects if isinstance(e, Send) and to in (None, e.to)]


def standings(effects: list[tuple[float, Effect]]) -> list[tuple[DeviceId, Standing]]:
    return [
        (e.notice.member.device, e.notice.member.standing)
        for _, e in effects
        if isinstance(e, Announce) and isinstance(e.notice, MemberChanged)
    ]


def test_a_newcomer_compares_lists_with_its_contacts() -> None:
    it = Membership(A, card_of(A), 7, MembershipConfig(), Random(1))
    effects = it.start([(B, "there"), (A, "here")], 10.0)
    (sync,) = sent(effects, B)
    assert (sync.me.device, sync.me.incarnation, sync.claims) == (A, 7, (rumour_of(row_of(A, 7, version=7)),))
    assert it.address_of(B) == "there"
    assert [e for e in effects if isinstance(e, SetTimer)]


def test_whoever_is_asked_answers_with_its_list_and_passes_the_newcomer_on() -> None:
    it = machine(B, C)
    it.on_timer(GossipTimer("flush"), 0.1)
    effects = it.on_message(D, Sync(row_of(D), (rumour_of(row_of(D)),)), 1.0)
    (reply,) = [m for m in sent(effects, D) if isinstance(m, SyncReply)]
    assert {row.device for row in reply.members} == {A, B, C}
    flooded = sent(it.on_timer(GossipTimer("flush"), 1.05))
    assert flooded.count(News((), (row_of(D),))) == 2
    assert [row.device for row in it.live()] == [B, C, D]


def test_the_order_of_precedence() -> None:
    it = machine(B)

    def tell(incarnation: int, standing: Standing) -> tuple[int, Standing]:
        it.on_message(C, News((), (row_of(B, incarnation, standing),)), 1.0)
        return it.members[B].incarnation, it.members[B].standing

    assert tell(1, Standing.SUSPECT) == (1, Standing.SUSPECT)
    assert tell(1, Standing.ALIVE) == (1, Standing.SUSPECT)
    assert tell(2, Standing.ALIVE) == (2, Standing.ALIVE)
    assert tell(1, Standing.LEFT) == (2, Standing.ALIVE)
    it.on_message(B, Sync(row_of(B, 3), ()), 20.0)
    assert it.members[B].incarnation == 3


def test_a_silent_pair_is_dead_after_d_and_disconnected() -> None:
    it = machine(B)
    effects = run(it, 0.0, 6.0)
    died = [now for now, e in effects if isinstance(e, Disconnect)]
    assert len(died) == 1
    assert 4.5 <= died[0] <= 4.9
    assert standings(effects) == [(B, Standing.SUSPECT), (B, Standing.DEAD)]
    assert it.live() == []
    assert it.address_of(B) == "addr-b"


def test_other_watchers_are_asked_and_one_that_hears_prevents_the_death() -> None:
    it = machine(B, C, D)
    effects = run(it, 0.0, 2.6, heard=(C, D))
    assert any(isinstance(m, Silence) and m.device == B for m in sent([e for _, e in effects], C))
    assert Probe() in sent([e for _, e in effects], B)
    now = 2.6
    while now < 12.0:
        it.on_message(C, Heard(B, 100), now)
        effects += run(it, now, now + 1.0, heard=(C, D))
        now += 1.0
    assert (B, Standing.DEAD) not in standings(effects)


def test_a_watcher_that_hears_answers_a_report() -> None:
    it = machine(B, C)
    it.on_timer(GossipTimer("tick"), 0.6)
    it.on_message(B, Heartbeat(1, 0), 0.7)
    assert sent(it.on_message(C, Silence(B, 2_000), 0.8), C) == [Heard(B, 100)]


def test_a_watcher_late_by_its_own_stall_reports_the_oldest_age_it_can_be() -> None:
    it = machine(B, C)
    it.on_timer(GossipTimer("tick"), 0.6)
    it.on_message(B, Heartbeat(1, 0), 2.6)
    assert sent(it.on_message(C, Silence(B, 4_000), 2.6), C) == []


def test_after_an_own_stall_nobody_is_declared_at_once() -> None:
    it = machine(B)
    run(it, 0.0, 1.0, heard=(B,))
    effects = it.on_timer(GossipTimer("tick"), 60.0)
    assert not [e for e in effects if isinstance(e, Disconnect)]
    assert (B, Standing.DEAD) not in standings(run(it, 60.0, 64.0))
    assert (B, Standing.DEAD) in standings(run(it, 64.0, 66.0))


def test_two_of_three_watchers_are_enough() -> None:
    it = machine(B, C, D)
    assert set(it._rings.neighbours(B)) == {A, C, D}
    effects = run(it, 0.0, 2.0, heard=(C, D))
    for beat in range(6):
        now = 2.0 + beat / 2
        it.on_message(C, Silence(B, int(now * 1_000)), now)
        effects += run(it, now, now + 0.5, heard=(C, D))
    assert (B, Standing.DEAD) in standings(effects)


@pytest.mark.parametrize("contradicted", [False, True])
def test_after_stalls_it_asks_before_it_declares(contradicted: bool) -> None:
    """A chain of stalls, none of them longer than S, with a report of C's: D may still hear B."""
    it = machine(B, C, D)
    run(it, 0.0, 1.0, heard=(B, C, D))
    tick = GossipTimer("tick")
    effects: list[tuple[float, Effect]] = []
    now = 1.0
    for _ in range(6):
        now += 0.9
        it.on_message(C, Silence(B, int((now - 0.8) * 1_000)), now)
        effects += [(now, effect) for effect in it.on_timer(tick, now)]
    while not any(isinstance(m, Silence) for m in sent([e for _, e in effects], D)):
        now += 0.01
        effects += [(now, effect) for effect in it.on_timer(tick, now)]
    assert now > 6.5
    assert (B, Standing.DEAD) not in standings(effects)
    if contradicted:
        it.on_message(D, Heard(B, 100), now + 0.02)
    effects = run(it, now + 0.03, now + 0.5, heard=(C, D))
    assert ((B, Standing.DEAD) in standings(effects)) is not contradicted


@pytest.mark.parametrize("standing", [Standing.SUSPECT, Standing.DEAD, Standing.LEFT])
def test_it_refutes_what_is_said_against_it(standing: Standing) -> None:
    it = machine(B, C)
    effects = it.on_message(B, News((rumour_of(row_of(A, 5, standing, 1)),)), 1.0)
    assert it.members[A].incarnation == 6
    assert it.members[A].standing == Standing.ALIVE
    assert News((), (row_of(A, 6, version=1),)) in sent(effects, B)


def test_whoever_is_held_dead_and_speaks_is_told_so() -> None:
    it = machine(B, C)
    dead = rumour_of(row_of(C, 1, Standing.DEAD))
    it.on_message(B, News((dead,)), 1.0)
    assert sent(it.on_message(C, Heartbeat(1, 0), 9.0), C) == [News((dead,))]
    it.on_message(C, News((), (row_of(C, 2),)), 9.1)
    assert it.members[C].standing == Standing.ALIVE


def test_a_death_found_by_comparing_is_first_put_to_the_device() -> None:
    it = machine(B, C, D)
    run(it, 0.0, 1.0, heard=(B, C, D))
    effects = it.on_message(B, SyncReply((row_of(D, 1, Standing.DEAD),)), 1.0)
    assert News((rumour_of(row_of(D, 1, Standing.DEAD)),)) in sent(effects, D)
    assert it.members[D].standing == Standing.ALIVE
    run(it, 1.0, 4.0, heard=(B, C))
    assert it.members[D].standing == Standing.DEAD


def test_who_hears_a_device_does_not_believe_in_its_death() -> None:
    it = machine(B, C)
    run(it, 0.0, 1.0, heard=(B, C))
    it.on_message(B, News((rumour_of(row_of(C, 1, Standing.DEAD)),)), 1.0)
    effects = run(it, 1.0, 5.0, heard=(B, C))
    assert (C, Standing.DEAD) not in standings(effects)


def test_claims_out_of_bounds_are_ignored_and_counted() -> None:
    it = machine(B)
    long_name = Member(C, 1, Standing.ALIVE, Card(name="x" * 65))
    for message in (
        News((), (long_name,)),
        News((), (row_of(C, MAX_INCARNATION),)),
        News((), (Member(C, 1, Standing.ALIVE, Card(name="x", skill=float("nan"))),)),
        News((), (Member(C, 1, Standing.ALIVE, card_of(C), Pulse(queue=-1)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", right=(2,) * 6, total=(1,) * 6)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", right=(0,) * 5, total=(1,) * 5)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", right=(), total=(1,) * 6)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", right=(128,) * 6, total=(128,) * 6)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", version=2)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", version=-1)),)),
        News((), (Member(C, 1, Standing.ALIVE, Card("x", seal=bytes(65))),)),
        Heartbeat(-1, 0),
        Silence(B, -1),
        News((Rumour(B, 1, Standing.DEAD, -1),)),
    ):
        it.on_message(B, message, 1.0)
    assert it.ignored == 14
    assert C not in it.members


def test_nobody_pushes_an_incarnation_to_the_bound_by_one_lie() -> None:
    it = machine(B, C)
    it.on_message(B, News((), (row_of(C, MAX_INCARNATION - 1),)), 1.0)
    assert it.members[C].incarnation == 1
    it.on_message(B, News((), (row_of(A, MAX_INCARNATION - 1, Standing.DEAD),)), 1.0)
    assert it.members[A].incarnation == 1


def test_pulses_ride_on_heartbeats_and_the_latest_wins() -> None:
    it, other = machine(B), machine(A, me=B)
    it.set_pulse(Pulse(queue=1), 0.1)
    it.set_pulse(Pulse(queue=2, service_s=1.5), 0.2)
    beats = [m for _, e in run(it, 0.2, 0.8) for m in sent([e], B)]
    for beat in beats:
        other.on_message(A, beat, 1.0)
    pulse = other.members[A].pulse
    assert (pulse.queue, pulse.service_s) == (2, 1.5)
    assert sum(bool(m.hot) for m in beats if isinstance(m, Heartbeat)) == 1


def test_a_new_card_is_told_under_a_higher_incarnation() -> None:
    it = machine(B)
    card = Card("a", "other", 1, 2.0, "elsewhere")
    it.set_card(card, 1.0)
    assert sent(it.on_timer(GossipTimer("flush"), 1.1), B) == [
        News((), (Member(A, 2, Standing.ALIVE, replace(card, version=2), Pulse(1 << 20)),))
    ]
    assert it.set_card(card, 2.0) == []


def test_own_probes_out_of_bounds_are_left_out() -> None:
    it = machine(B)
    fair = replace(card_of(A), probes=5, right=(1,) * 6, total=(2,) * 6)
    it.set_card(fair, 1.0)
    assert it.members[A].card == replace(fair, version=2)
    it.set_card(replace(fair, right=(3,) * 6), 2.0)
    assert it.members[A].card == replace(card_of(A), version=3)


def test_a_card_with_other_probes_is_another_card() -> None:
    one = replace(card_of(A), probes=5, right=(1,) * 6, total=(2,) * 6)
    others = [replace(one, probes=6), replace(one, right=(2,) * 6), replace(one, total=(3,) * 6), card_of(A)]
    others.append(replace(one, version=1))
    assert len({checksum(card) for card in (one, *others)}) == 6


def test_an_own_card_out_of_bounds_is_trimmed_not_invisible() -> None:
    it = Membership(A, Card("名" * 100, "m" * 900, -1, 1.0, "x" * 500), 1, MembershipConfig(), Random(1))
    other = machine(C, me=B)
    other.on_message(A, Sync(it.members[A], ()), 1.0)
    assert other.ignored == 0
    assert A in other.members


def test_leaving_is_told_as_left_not_dead() -> None:
    it, other = machine(B, C), machine(A, C, me=B)
    (farewell,) = sent(it.leave(1.0), B)
    effects = other.on_message(A, farewell, 1.1)
    assert other.members[A].standing == Standing.LEFT
    assert Disconnect(A) in effects
    assert it.on_message(B, Heartbeat(1, 0), 1.2) == it.on_timer(GossipTimer("tick"), 9.0) == []


def test_what_was_said_of_an_earlier_life_changes_nothing_when_it_is_said_again() -> None:
    """Whoever has heard it may say it again: nobody is killed, moved or renamed by an old truth."""
    it = machine(B, C, D)
    old = replace(card_of(B), address="where it was", name="as it was called")
    said: list[GossipMessage] = [
        News((), (Member(B, 1, Standing.ALIVE, old, Pulse(9)),)),
        News((Rumour(B, 1, Standing.SUSPECT, checksum(card_of(B))),)),
        News((Rumour(B, 2, Standing.DEAD, checksum(card_of(B))),)),
        News((Rumour(B, 2, Standing.LEFT, checksum(card_of(B))),)),
        SyncReply((Member(B, 2, Standing.ALIVE, old, Pulse(9)),)),
        Heartbeat(1, 0, (Rumour(B, 2, Standing.DEAD, 0),), (Hot(tag_of(B), 9, 99, 1, 0, 5_000),)),
        Silence(B, 60_000),
    ]
    now = row_of(B, 7)
    it.on_message(B, News((), (now,)), 1.0)
    for sender in (C, D):
        for message in said:
            it.on_message(sender, message, 1.1)
    run(it, 1.1, 4.0, heard=(B, C, D))
    assert it.members[B] == now


def test_a_banned_device_has_left_whatever_is_said_of_it_and_is_not_taken_in_again() -> None:
    it = machine(B, C)
    effects = it.ban(B, 1.0)
    assert Disconnect(B) in effects
    assert it.members[B].standing is Standing.LEFT
    assert News((rumour_of(it.members[B]),)) in sent(it.on_timer(GossipTimer("flush"), 1.1), C)
    it.ban(E, 1.0)
    it.start([(E, "there")], 1.0)
    assert it.address_of(E) is None
    for device in (B, E):
        for message in (
            News((), (row_of(device, 9),)),
            News((rumour_of(row_of(device, 9)),)),
            SyncReply((row_of(device, 9),)),
        ):
            it.on_message(C, message, 2.0)
    assert [row.device for row in it.live()] == [C]
    assert it.ban(B, 3.0) == []


def test_alone_it_tries_known_addresses_for_ever_at_a_bounded_rate() -> None:
    it = Membership(A, card_of(A), 1, MembershipConfig(), Random(1))
    it.start([(B, "b"), (C, "c"), (D, "d"), (E, "e")], 0.0)
    tries = [(now, e.to) for now, e in run(it, 0.01, 600.0) if isinstance(e, Send)]
    assert {to for _, to in tries} == {B, C, D, E}
    assert 100 <= len(tries) <= 200
    assert any(now > 580 for now, _ in tries)


def test_the_long_dead_are_forgotten() -> None:
    it = machine(B, C, config=MembershipConfig(forget_s=30.0))
    run(it, 0.0, 20.0, heard=(C,))
    assert it.members[B].standing == Standing.DEAD
    run(it, 20.0, 40.0, heard=(C,))
    assert list(it.members) == [A, C]


def test_a_list_too_long_for_one_message_is_paged() -> None:
    others = tuple(DeviceId(f"{number:064x}") for number in range(2_000))
    it, empty = machine(), machine(me=B)
    for start in range(0, 2_000, 500):
        it.on_message(others[0], SyncReply(tuple(map(row_of, others[start : start + 500]))), 0.0)
    it._send_sync(B)
    syncs = [m for m in sent(it._taken()) if isinstance(m, Sync)]
    assert len(syncs) == 3
    replies = [m for s in syncs for m in sent(empty.on_message(A, s, 1.0), A) if isinstance(m, SyncReply)]
    assert sum(len(reply.wants) for reply in replies) == 2_000
    rows = [m for reply in replies for m in sent(it.on_message(B, reply, 1.1), B) if isinstance(m, SyncReply)]
    for message in rows:
        empty.on_message(A, message, 1.2)
    assert len(empty.live()) == 2_001


def test_a_refutation_whose_card_is_unknown_is_asked_for() -> None:
    it = machine(B, C)
    unknown = Rumour(D, 1, Standing.ALIVE, checksum(card_of(D)))
    assert any(isinstance(m, Sync) for m in sent(it.on_message(B, Heartbeat(1, 0, (unknown,)), 1.0), B))


@pytest.mark.parametrize(
    "config",
    [
        MembershipConfig(beat_s=0.0),
        MembershipConfig(silence_s=4.0),
        MembershipConfig(witnesses=9),
        MembershipConfig(hot_bytes=2_000),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config: MembershipConfig) -> None:
    with pytest.raises(ConfigError):
        config.validate()


# ---- cards that their devices have sealed --------------------------------------------------------------


def wary(*rows: Member, me: DeviceId = A, incarnation: int = 1) -> Membership:
    """A machine that believes sealed cards alone, and knows these rows."""
    it = Membership(me, card_of(me), incarnation, MembershipConfig(), Random(1), Wax(me))
    it.start([], 0.0)
    if rows:
        it.on_message(rows[0].device, SyncReply(rows), 0.0)
    return it


def forge(row: Member, incarnation: int, **card: object) -> Member:
    """The row under another number, its card changed by somebody who cannot seal it."""
    return replace(row, incarnation=incarnation, card=replace(row.card, **card))


def test_a_card_counts_only_where_its_device_has_sealed_it() -> None:
    bob, cid = sealed(B, 1), sealed(C, 1)
    it = wary(bob, cid)
    assert it.members[B] == bob
    for number, lie in enumerate(
        (
            forge(bob, 0, skill=9.0),
            forge(bob, 0, skill=9.0, version=2),
            forge(bob, 0, seal=b"", version=2),
            replace(bob, card=replace(sealed(C, 2).card, name=B)),
            replace(bob, card=sealed(C, 2).card),
        )
    ):
        rest = sealed(D, number + 1)
        it.on_message(C, News((), (replace(lie, incarnation=2 + number), rest)), 1.0)
        assert it.members[B] == replace(bob, incarnation=2 + number), "what it says of liveness stands"
        assert it.members[D].incarnation == rest.incarnation, "the rest of the message goes on"
        assert it.forged == number + 1
    stranger = replace(sealed(E, 1), card=sealed(C, 1).card)
    it.on_message(C, News((), (stranger,)), 1.0)
    assert E not in it.members
    it.on_message(E, Sync(forge(sealed(E, 1), 1, skill=9.0), ()), 1.0)
    assert E not in it.members, "not even where it tells of itself"


def test_an_old_card_never_stands_in_for_a_newer_one() -> None:
    """Not under any number, and not where the liar is the first to tell that number."""
    old, new, newest = sealed(B, 1, skill=9.0), sealed(B, 5), sealed(B, 6, name="b6")
    it = wary(new, sealed(C, 1))
    it.on_message(C, News((), (replace(old, incarnation=6),)), 1.0)
    assert it.members[B] == replace(new, incarnation=6)
    assert it.forged == 0, "it is genuine, and only old"
    it.on_message(B, News((), (newest,)), 1.1)
    assert it.members[B].card == newest.card, "the new card comes through under a number that is known"
    told = sent(it.on_timer(GossipTimer("flush"), 1.2), C)
    assert [row.card for message in told for row in message.members] == [newest.card]
    it.on_message(C, News((), (replace(new, incarnation=6),)), 1.3)
    assert it.members[B].card == newest.card
    assert it.on_message(C, News((rumour_of(replace(old, incarnation=6)),)), 2.5)[0].message.me.device == A, (
        "one number and two cards: lists are compared"
    )


def test_two_lists_that_differ_in_a_card_alone_agree_when_they_are_compared() -> None:
    old, new = replace(sealed(B, 1, skill=9.0), incarnation=6), sealed(B, 6)
    for mine, theirs in ((old, new), (new, old)):
        it, other = wary(sealed(C, 1), mine), wary(sealed(A, 1), theirs, me=C)
        mail = [(other, A, Sync(it.members[A], tuple(map(rumour_of, it.members.values()))))]
        while mail:
            to, sender, message = mail.pop(0)
            back = it if to is other else other
            for effect in to.on_message(sender, message, 1.0):
                if isinstance(effect, Send) and effect.to == sender:
                    mail.append((back, A if back is other else C, effect.message))
        assert it.members[B] == other.members[B] == new


def test_the_own_card_is_sealed_anew_only_where_it_changes_or_an_earlier_life_has_told_a_newer_one() -> None:
    it = wary(sealed(B, 1), incarnation=3)
    mine = it.members[A]
    assert mine.card == sealed(A, 3).card
    it.on_message(B, News((replace(rumour_of(mine), standing=Standing.SUSPECT),)), 1.0)
    assert it.members[A] == replace(mine, incarnation=4), "a refuted suspicion travels without the card"
    it.on_message(B, News((), (forge(mine, 4, skill=9.0), forge(mine, 4, version=4))), 1.0)
    assert it.members[A].incarnation == 4, "what nobody believes needs no answer"
    it.on_message(B, News((), (sealed(A, 9, skill=9.0),)), 1.0)
    assert it.members[A].card == sealed(A, 10).card
    it.set_card(card_of(A), 2.0)
    assert it.members[A].incarnation == 10
    it.set_card(replace(card_of(A), closed=True), 2.0)
    assert it.members[A].card == sealed(A, 11, closed=True).card


def test_forgeries_cost_a_bounded_number_of_checks() -> None:
    checks = list[DeviceId]()

    class Counted(Wax):
        def genuine(self, device: DeviceId, card: Card) -> bool:
            checks.append(device)
            return super().genuine(device, card)

    it = Membership(A, card_of(A), 1, MembershipConfig(), Random(1), Counted(A))
    it.on_message(B, SyncReply((sealed(B, 1), sealed(C, 1))), 0.0)
    for number in range(2, 200):
        it.on_message(C, News((), (forge(sealed(B, 1), number, version=number),)), 1.0)
    assert len(checks) == 2 + FORGED
    it.on_message(B, News((), (sealed(B, 200, name="b200"),)), 1.0)
    assert it.members[B].card.name == "b200", "others are believed"
    it.on_message(C, News((), (sealed(B, 201, name="b201"),)), 61.5)
    assert it.members[B].card.name == "b201", "and C again a minute later"
