"""What votes say of their voters: right on the whole whenever a vote ends, nothing among the weak, little by a clique."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_committee import COUNTED, VOTING
from tests.core.test_skill import asked, told
from tests.core.world import Moot

from folkmoot.core.agreement import MOST_SHARE, MOST_VOTES, Agreements, Ballot, better_than_chance, likely
from folkmoot.core.committee import CommitteeConfig
from folkmoot.core.extract import Kind
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.skill import SkillClass, Tally, tally
from folkmoot.errors import ConfigError

SHARE = CommitteeConfig().agreement
NAMES = tuple(DeviceId(name) for name in ("ann", "bob", "cid", "dot", "eve"))
SUMS = SkillClass.ARITHMETIC


def card(right: int, total: int = 12) -> Card:
    return Card("", "m", probes=7, right=(right,) * 6, total=(total,) * 6)


def known(it: Agreements, device: DeviceId, its: Card) -> Tally:
    return tally(it.added(device, its), SUMS)


def drawn(rng: Random, skill: float) -> str:
    return "right" if rng.random() < skill else f"wrong {rng.randrange(19)}"


def vote(it: Agreements, rng: Random, cards: dict[DeviceId, Card], skills: dict[DeviceId, float]) -> None:
    """One prompt's committee as it is shipped: three of them in any order, a fourth where these differ, until two agree.

    A skill of -1: it says the same as others of that skill, and that is wrong.
    """
    seats = rng.sample(list(cards), 4)
    said = list[str]()
    for device in seats:
        skill = skills[device]
        said.append("the lie" if skill < 0.0 else drawn(rng, skill))
        if said[-1] in said[:-1]:
            break
    values = [*said, *(None for _ in seats[len(said) :])]
    it.note([Ballot(d, cards[d], value) for d, value in zip(seats, values, strict=True)], Kind.NUMBER)


def until_two_agree(
    skill: float, answers: int, said: tuple[str, ...] = ()
) -> Iterator[tuple[float, tuple[str, ...]]]:
    """All courses that a vote of four can take, with their probabilities; answer 0 is the right one."""
    if said[-1:] and (said[-1] in said[:-1] or len(said) == 4):
        yield 1.0, said
        return
    for value in range(answers):
        share = skill if value == 0 else (1.0 - skill) / (answers - 1)
        for rest, course in until_two_agree(skill, answers, (*said, str(value))):
            yield share * rest, course


@pytest.mark.parametrize("kind", [Kind.LETTER, Kind.YES_NO])
@pytest.mark.parametrize("skill", [0.45, 0.6, 0.85])
def test_the_sum_is_the_voters_skill_though_the_vote_ends_as_soon_as_two_agree(
    kind: Kind, skill: float
) -> None:
    right = votes = counted = counted_votes = 0.0
    for share, course in until_two_agree(skill, 4 if kind is Kind.LETTER else 2):
        found = likely(course, skill, kind)
        right, votes = right + share * sum(found), votes + share * len(found)
        if len(set(course)) < len(course):
            counted, counted_votes = counted + 2 * share, counted_votes + share * len(course)
    assert right / votes == pytest.approx(skill)
    assert counted / counted_votes > skill + 0.01, (
        "who agrees is not always right: counting heads finds too many"
    )


def test_two_parties_of_the_same_size_tell_nothing() -> None:
    assert likely(["a", "a", "b", "b", "c"], 0.7, Kind.NUMBER) == []
    assert likely(["a"], 0.7, Kind.NUMBER) == likely([], 0.7, Kind.NUMBER) == []
    first, *_, last = likely(["a", "a", "a", "b", "b"], 0.7, Kind.NUMBER)
    assert first > 0.9 > 0.1 > last
    assert sum(likely(["a", "b", "c", "d"], 0.7, Kind.NUMBER)) < 1.0, "perhaps none of them is right"


@pytest.mark.parametrize(("probes", "truth"), [(6, 0.85), (10, 0.45)])
def test_alike_members_come_nearer_to_how_able_they_are(probes: int, truth: float) -> None:
    it, rng = Agreements(SHARE), Random(5)
    cards = dict.fromkeys(NAMES, card(probes))
    before = tally(card(probes), SUMS).mean
    for _ in range(150):
        vote(it, rng, cards, dict.fromkeys(NAMES, truth))
    for name in NAMES:
        after = known(it, name, cards[name]).mean
        assert abs(after - truth) < abs(before - truth)
        assert min(before, truth) - 0.02 < after < max(before, truth) + 0.02


def test_who_is_always_outvoted_sinks_and_the_others_do_not() -> None:
    it, rng = Agreements(SHARE), Random(6)
    cards = dict.fromkeys(NAMES, card(10))
    skills = dict.fromkeys(NAMES, 0.85) | {NAMES[4]: 0.0}
    for _ in range(150):
        vote(it, rng, cards, skills)
    *others, outvoted = (known(it, name, cards[name]).mean for name in NAMES)
    assert outvoted < 0.6 < tally(card(10), SUMS).mean - 0.1 < min(others)


@pytest.mark.parametrize(
    ("weak", "kind"), [(card(1), Kind.NUMBER), (card(4), Kind.LETTER), (card(8), Kind.YES_NO)]
)
def test_among_weak_members_nothing_is_added(weak: Card, kind: Kind) -> None:
    """Nor where only two are better than chance for certain, however able these are."""
    for cards in ([weak] * 5, [card(12), card(12), weak, weak, Card("", "m")], [Card("", "m")] * 5):
        it = Agreements(SHARE)
        assert not better_than_chance(tally(weak, SUMS), kind)
        for _ in range(50):
            it.note([Ballot(d, c, "same") for d, c in zip(NAMES, cards, strict=True)], kind)
        assert it.record.rows() == ()


def test_two_of_five_who_lie_together_sink_nobody_and_gain_nothing() -> None:
    it, rng = Agreements(SHARE), Random(7)
    cards = dict.fromkeys(NAMES[:3], card(10)) | dict.fromkeys(NAMES[3:], card(12))
    skills = dict.fromkeys(NAMES[:3], 0.8) | dict.fromkeys(NAMES[3:], -1.0)
    for _ in range(600):
        vote(it, rng, cards, skills)
    *honest, one, other = (known(it, name, cards[name]) for name in NAMES)
    assert all(each.mean > tally(card(10), SUMS).mean - 0.1 for each in honest)
    assert max(one.mean, other.mean) < tally(card(12), SUMS).mean - 0.05
    assert max(one.lower, other.lower) < min(each.upper for each in honest), "they lead nobody"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=5, max_size=5), max_size=80))
def test_whatever_the_others_say_probes_count_twice_as_much(said: list[list[str | None]]) -> None:
    it = Agreements(1.0)
    for values in said:
        it.note([Ballot(d, card(10), value) for d, value in zip(NAMES, values, strict=True)], Kind.NUMBER)
    for name in NAMES:
        found = known(it, name, card(10))
        assert 10 <= found.right <= found.total <= 12 + MOST_SHARE * 12
        assert it.record.seen(name, card(10), SUMS)[1] <= MOST_VOTES + 1


def test_one_vote_is_a_part_of_a_probe_and_a_device_has_one_a_prompt() -> None:
    it = Agreements(0.25)
    ballots = [Ballot(d, card(10), "7") for d in NAMES[:3]]
    for _ in range(3):
        it.note([*ballots, replace(ballots[0], value="8")], Kind.NUMBER)
    assert it.added(NAMES[0], card(10)) == card(10)
    it.note(ballots, Kind.NUMBER)
    assert known(it, NAMES[0], card(10)) == Tally(11, 13)
    assert it.added(NAMES[0], Card("", "m")) == Card("", "m"), "there are no probes to add it to"
    assert it.added(NAMES[0], replace(card(10), model="n")).total == (12,) * 6
    off = Agreements(0.0)
    off.note(ballots, Kind.NUMBER)
    assert off.record.rows() == ()
    with pytest.raises(ConfigError, match="agreement"):
        CommitteeConfig(agreement=1.5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_committee_of_a_prompt_tells_its_origin_and_nobody_else(share: float) -> None:
    moot = Moot(
        dict.fromkeys(("ann", "bob", "cid", "dot"), "m"),
        replace(VOTING, committee=CommitteeConfig(enabled=True, agreement=share)),
    )
    told(moot, ann=(8, 12), bob=(8, 12), cid=(8, 12), dot=(8, 12))
    for _ in range(12):
        moot.ask("ann", question=COUNTED)
        first, *rest = asked(moot)
        moot.write(first, "11" if first == "bob" else "12")
        for name in rest:
            if moot.devices[DeviceId(name)].running is not None:
                moot.write(name, "11" if name == "bob" else "12")
        moot.work()
    ann = moot.devices[DeviceId("ann")].peer
    bob, cid = (tally(ann._choice._card(DeviceId(name)), SUMS) for name in ("bob", "cid"))
    if share:
        assert bob.mean < 0.6 < cid.mean
    else:
        assert bob == cid == Tally(8, 12)
    assert ann.membership.members[DeviceId("bob")].card.total == (12,) * 6, (
        "cards stay what their devices say"
    )
    assert all(
        not device.peer.agreements.record.rows() for name, device in moot.devices.items() if name != "ann"
    )
