"""Skill by probes: the distribution, who leads, what a vote weighs, what an answer to a probe is, what agreement shows."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from tests.core.world import Moot, answered

from folkmoot.core.committee import CommitteeConfig
from folkmoot.core.events import Plan
from folkmoot.core.extract import Kind
from folkmoot.core.gossip import CLASSES as CARD_CLASSES
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.peer import PeerConfig
from folkmoot.core.price import PriceConfig
from folkmoot.core.skill import (
    CLASSES,
    HEAVIEST,
    LIGHTEST,
    SURE,
    How,
    Probe,
    SkillClass,
    Tally,
    compared,
    leads,
    log_odds,
    passed,
    tally,
    weights,
)

COUNTED = "How many legs have three cats?"
VOTING = PeerConfig(committee=CommitteeConfig(enabled=True))
PRICED = replace(VOTING, price=PriceConfig(enabled=True))


def probed(name: str, right: int, total: int = 12, *, skill: float = 1.0, probes: int = 7) -> Card:
    """A card whose classes all have the same figures."""
    return Card(name, "m", 4096, skill, name, 1, False, probes, (right,) * 6, (total,) * 6)


# ---- the distribution ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "total"), [(0, 0), (0, 6), (3, 8), (8, 8), (50, 127)])
def test_bounds_are_quantiles_of_the_posterior(right: int, total: int) -> None:
    """Against draws of another sampler."""
    rng = Random(11)
    drawn = sorted(rng.betavariate(1 + right, 1 + total - right) for _ in range(20_000))
    known = Tally(right, total)
    assert known.lower == pytest.approx(drawn[round((1 - SURE) * len(drawn))], abs=0.02)
    assert known.upper == pytest.approx(drawn[round(SURE * len(drawn))], abs=0.02)
    assert known.mean == pytest.approx(sum(drawn) / len(drawn), abs=0.01)


def test_closed_forms_of_the_bounds() -> None:
    assert Tally(0, 0).lower == pytest.approx(1 - SURE, abs=1e-8)  # uniform
    assert Tally(9, 9).lower == pytest.approx((1 - SURE) ** 0.1, abs=1e-8)  # Beta(10, 1): x^10
    assert Tally(0, 9).upper == pytest.approx(1 - (1 - SURE) ** 0.1, abs=1e-8)


def test_who_leads_does_so_for_certain() -> None:
    assert leads(Tally(12, 12), Tally(8, 12))
    assert not leads(Tally(12, 12), Tally(9, 12))
    assert not leads(Tally(8, 12), Tally(12, 12))
    assert not leads(Tally(12, 12), Tally())


@pytest.mark.parametrize("count", [6, 8, 12, 24])
def test_equals_seldom_seem_unequal(count: int) -> None:
    def chance(right: int, skill: float) -> float:
        return math.comb(count, right) * skill**right * (1 - skill) ** (count - right)

    tallies = [Tally(right, count) for right in range(count + 1)]
    pairs = [(a, b) for a in tallies for b in tallies if leads(a, b) or leads(b, a)]
    for skill in (0.05, 0.2, 0.5, 0.8, 0.95):
        assert sum(chance(a.right, skill) * chance(b.right, skill) for a, b in pairs) < 0.08


# ---- cards ---------------------------------------------------------------------------------------------


def test_every_kind_has_a_class_and_a_card_a_place_for_each() -> None:
    assert set(CLASSES) == set(Kind)
    assert set(CLASSES.values()) == set(SkillClass)
    assert len(SkillClass) == CARD_CLASSES
    card = replace(probed("a", 0), right=(0, 1, 2, 3, 4, 5), total=(9,) * 6)
    assert [tally(card, each).right for each in SkillClass] == [0, 1, 2, 3, 4, 5]
    assert tally(Card("a"), SkillClass.CODE) == Tally()


def test_what_is_compared() -> None:
    one = probed("a", 5)
    assert compared(one, probed("b", 1), SkillClass.CODE)
    assert not compared(one, probed("b", 1, probes=8), SkillClass.CODE), "other questions"
    assert not compared(one, probed("b", 1, 4), SkillClass.CODE), "too few"
    assert not compared(one, Card("b", "m"), SkillClass.CODE)


# ---- what a vote weighs --------------------------------------------------------------------------------


def test_weights_are_log_odds_over_chance_with_mean_one() -> None:
    found = weights([0.9, 0.6, 0.6], Kind.YES_NO)
    assert sum(found) == pytest.approx(3.0)
    assert found[0] / found[1] == pytest.approx(math.log(9) / math.log(1.5))
    assert weights([0.4, 0.4], Kind.NUMBER) == pytest.approx((1.0, 1.0))
    assert log_odds(0.3, Kind.LETTER) == pytest.approx(math.log(0.3 * 3 / 0.7))
    assert log_odds(0.01, Kind.YES_NO) == LIGHTEST
    assert log_odds(1 - 1e-9, Kind.NUMBER) == HEAVIEST
    assert weights([], Kind.NUMBER) == ()


def test_so_weighted_votes_are_right_more_often_than_plain_ones() -> None:
    """Voters of unlike skill that err independently, each to one of three wrong letters."""
    rng, skills = Random(5), [0.85, 0.45, 0.4, 0.4]
    weighed = weights(skills, Kind.LETTER)
    right = {"plain": 0.0, "weighed": 0.0}
    for _ in range(4_000):
        said = ["A" if rng.random() < skill else rng.choice("BCD") for skill in skills]
        for name, votes in (("plain", (1.0,) * 4), ("weighed", weighed)):
            sums = {letter: 0.0 for letter in "ABCD"}
            for letter, weight in zip(said, votes, strict=True):
                sums[letter] += weight
            best = [letter for letter in sums if sums[letter] == max(sums.values())]
            right[name] += ("A" in best) / len(best)
    assert right["weighed"] > right["plain"] + 300


# ---- probes --------------------------------------------------------------------------------------------


def probe(how: How, *answers: str, lacks: tuple[str, ...] = ()) -> Probe:
    return Probe("x", SkillClass.OPEN, "?", answers, how, lacks)


@pytest.mark.parametrize(
    ("asked", "answer", "right"),
    [
        (probe(How.NUMBER, "12"), "3 * 4 = 12\nAnswer: 12.0", True),
        (probe(How.NUMBER, "12"), "Answer: 13", False),
        (probe(How.LETTER, "B"), "B) because", True),
        (probe(How.JSON, '{"a":1}'), 'Here:\n```json\n{ "a": 1 }\n```', True),
        (probe(How.HOLDS, "Lena"), "It was Lena, of course.", True),
        (probe(How.HOLDS, "Lena"), "Helena did it.", False),
        (probe(How.HOLDS, "xs[-1]"), "Write `xs[-1]`.", True),
        (probe(How.HOLDS, "Lena", lacks=("Omar",)), "Omar gave it to lena.", False),
        (probe(How.HOLDS, "Lena", "Lee"), "lee", True),
        (probe(How.EXACTLY, "DONE"), ' "DONE"\n', True),
        (probe(How.EXACTLY, "DONE"), "DONE!", False),
        (probe(How.EXACTLY, "DONE"), "done", False),
    ],
)
def test_what_is_right(asked: Probe, answer: str, right: bool) -> None:
    assert passed(asked, answer) is right


# ---- prompts -------------------------------------------------------------------------------------------


def told(moot: Moot, **rights: tuple[int, int]) -> None:
    """Give devices' cards, as every device sees them, the same figures in each class."""
    for device in moot.devices.values():
        rows = device.peer.membership.members
        for name, (right, total) in rights.items():
            row = rows[DeviceId(name)]
            card = replace(row.card, probes=7, right=(right,) * 6, total=(total,) * 6)
            rows[DeviceId(name)] = replace(row, card=card)


def asked(moot: Moot) -> list[str]:
    """Who has a job in service now."""
    return [str(name) for name, device in moot.devices.items() if device.running is not None]


@pytest.mark.parametrize("config", [VOTING, PRICED])
@pytest.mark.parametrize("question", [COUNTED, "Tell me about cats."])
def test_whom_its_probes_prove_the_leader_answers_alone(config: PeerConfig, question: str) -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"}, config)
    told(moot, ann=(3, 12), bob=(12, 12), cid=(3, 12))
    prompt = moot.ask("ann", question=question)
    assert asked(moot) == ["bob"]
    moot.work()
    assert any("12 of 12 probes" in d.why for d in answered(moot, prompt).provenance.decisions)


def test_a_large_model_that_does_no_better_is_no_leader() -> None:
    """The tests' size is the length of a model's name."""
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, VOTING)
    told(moot, ann=(8, 12), bob=(8, 12), cid=(8, 12))
    moot.ask("ann", question=COUNTED)
    assert asked(moot) == ["ann", "bob", "cid"]


@pytest.mark.parametrize(("right", "voters"), [(8, 3), (4, 1)])
def test_where_few_answers_are_possible_those_vote_whose_probes_show_them_able(
    right: int, voters: int
) -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"}, VOTING)
    told(moot, ann=(right, 12), bob=(right, 12), cid=(right, 12))
    moot.ask("ann", question="Which is a fruit?\n(A) apple\n(B) stone\n(C) chair")
    assert len(asked(moot)) == voters


def test_who_was_not_probed_is_compared_by_size() -> None:
    moot = Moot({"ann": "mmmm", "bob": "mmmm", "cid": "m"}, PRICED)
    told(moot, ann=(6, 12), bob=(6, 12))
    moot.ask("ann", question=COUNTED)
    assert asked(moot) == ["ann", "bob"]
    moot = Moot({"ann": "mmmm", "bob": "mmmm", "cid": "mmmm"}, PRICED)
    told(moot, bob=(6, 12), cid=(12, 12))
    moot.ask("ann", question=COUNTED)
    assert asked(moot) == ["ann", "cid"], "bob is led by cid, and nobody knows of ann"


def test_two_unskilled_votes_need_a_third_and_do_not_outweigh_a_skilled_one() -> None:
    """Of four that are alike one was right a little more often."""
    moot = Moot({"ann": "m", "bob": "m", "cid": "m", "dot": "m"}, VOTING)
    told(moot, ann=(10, 12), bob=(6, 12), cid=(6, 12), dot=(6, 12))
    prompt = moot.ask("ann", question="Is 21 a prime number? Answer yes or no.")
    first = asked(moot)
    assert len(first) == 3
    for name in first:
        moot.write(name, "No." if name == "ann" else "Yes.")
    (fourth,) = asked(moot)
    moot.write(fourth, "Yes.")
    assert answered(moot, prompt).answer == "No."


def test_where_it_is_confirmed_by_one_nobody_else_is_asked() -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": "m", "dot": "m"}, VOTING)
    told(moot, ann=(10, 12), bob=(6, 12), cid=(6, 12), dot=(6, 12))
    prompt = moot.ask("ann", question="Is 21 a prime number? Answer yes or no.")
    other = next(name for name in asked(moot) if name != "ann")
    moot.write("ann", "No.")
    moot.write(other, "No.")
    assert answered(moot, prompt).answer == "No."


def test_of_open_answers_that_are_alike_the_skilled_one_s_stands() -> None:
    said = {
        "ann": "Cats sleep by day.",
        "bob": "Cats sleep all day.",
        "cid": "Cats sleep in the day.",
        "dot": "Cats sleep.",
    }
    always = replace(VOTING, committee=CommitteeConfig(enabled=True, similar=0.0))
    answers = list[str]()
    for skilled in ("none", "dot"):
        moot = Moot({name: "m" for name in said}, always)
        told(moot, **{name: (10 if name == skilled else 6, 12) for name in said})
        prompt = moot.ask("ann", question="Tell me about cats.")
        for name, text in said.items():
            moot.write(name, text)
        answers.append(answered(moot, prompt).answer)
    assert answers[0] != answers[1] == said["dot"]


def test_the_strongest_is_so_at_this_kind_of_question() -> None:
    moot = Moot({"ann": "m", "bob": "mm", "cid": "mmmm"}, PeerConfig())
    told(moot, ann=(3, 12), bob=(9, 12), cid=(6, 12))
    prompt = moot.ask(
        "ann", Plan(mode="fixed", layers=1, proposers=2, aggregator="strongest"), question=COUNTED
    )
    moot.work()
    last = answered(moot, prompt).provenance.jobs[-1]
    assert last.device == "bob"
