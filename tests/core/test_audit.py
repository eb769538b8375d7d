"""Hidden questions among the jobs, and cards that claim too much."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from tests.core.world import Moot

from folkmoot.core.audit import CERTAIN, MOST_ANSWERS, AuditConfig, Audits
from folkmoot.core.decoys import draw
from folkmoot.core.events import CardChanged, Plan, Send
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import (
    Answer,
    Ask,
    Inference,
    Outcome,
    Piece,
    Sampling,
    Stage,
    Turn,
    Undone,
    Usage,
)
from folkmoot.core.mixture import MixtureConfig
from folkmoot.core.peer import PeerConfig
from folkmoot.core.skill import SkillClass, Tally, passed
from folkmoot.errors import ConfigError

BOB, EVE = DeviceId("bob"), DeviceId("eve")
CLAIM = Card("bob", "m", 4096, 1.0, "at-bob", probes=7, right=(12, 8, 0, 0, 0, 0), total=(12, 8, 0, 0, 0, 0))
ALWAYS = AuditConfig(share=0.1, within_s=0.0)
LIKE = Ask("a.1.1.0", "a", 1, Stage.PROPOSE, Inference("a", (Turn("user", "why?"),), expected=4))


def audits(config: AuditConfig = ALWAYS, seed: int = 1) -> Audits:
    return Audits(config, Random(seed))


def put(it: Audits, card: Card = CLAIM, now: float = 0.0, like: Ask = LIKE) -> list[Ask]:
    """Send jobs until a question would follow; give what went out of it."""
    while it.due(now) is None:
        it.sent(like, BOB, now)
    return [e.message for e in it.ask(card, True, now) if isinstance(e.message, Ask)]


def answer(it: Audits, ask: Ask, text: str) -> None:
    it.on_message(BOB, Piece(ask.job, 0, text))
    it.on_message(BOB, Answer(ask.job, len(text), 0.0, Usage()))


def solved(question: str) -> str:
    """What an able device says: each sentence's answer, worked out by other means than `decoys`."""
    n = [int(each) for each in re.findall(r"\d+", question)]
    for sign, words in (("+", r" \+ | plus "), ("-", r" - | minus "), ("*", " times | multiplied by ")):
        if re.search(rf"\d(?:{words})\d", question):
            return str({"+": n[0] + n[-1], "-": n[0] - n[-1], "*": n[0] * n[-1]}[sign])
    rules = (
        ("packs", lambda: n[0] * n[1]), ("gives", lambda: n[0] - n[1] + n[2]), ("shelves", lambda: n[0] * n[1] - n[2]),
        ("evenly", lambda: n[0] // n[1]), ("lamp", lambda: n[2] - n[0] * (100 - n[1]) // 100), ("walks", lambda: 5 * n[0] + n[1]),
    )  # fmt: skip
    for word, rule in rules:
        if word in question:
            return str(rule())
    for pattern in (
        r"passed it on to (\w+)", r"took place on (\w+)", r"to be brought to (\w+)", r"it is (\w+)\. What is the password",
    ):  # fmt: skip
        if found := re.search(pattern, question):
            return found[1]
    who = re.search(r"What colour is (\w+)'s door", question)
    assert who, question
    found = re.search(rf"{who[1]}'s door is (\w+)", question)
    assert found
    return found[1]


@pytest.mark.parametrize("skill", [SkillClass.ARITHMETIC, SkillClass.EXTRACTION])
def test_each_question_has_the_answer_that_it_says(skill: SkillClass) -> None:
    rng, questions = Random(2), set()
    for _ in range(300):
        probe = draw(skill, rng)
        questions.add(probe.question)
        assert passed(probe, f"Step by step. The answer is {solved(probe.question)}."), probe
        assert not passed(probe, "The answer is 99999." if probe.how == "number" else f"{probe.lacks[0]}.")
    assert len(questions) > 200, "they are drawn anew"


def unsaid(inference: Inference) -> Inference:
    """All of it that is not each prompt's own."""
    return replace(inference, prompt="", conversation=(), sampling=replace(inference.sampling, seed=0))


def test_on_the_wire_it_is_a_job_like_any_other() -> None:
    moot = Moot(
        {"ann": "m", "bob": "m", "cid": "m"}, PeerConfig(audit=ALWAYS, mixture=MixtureConfig(fence=True))
    )
    for name in ("bob", "cid"):
        card = replace(moot.devices[DeviceId(name)].peer.membership.members[DeviceId(name)].card, **probed())
        moot.tell(name, CardChanged(card))
        member = moot.devices[DeviceId("ann")].peer.membership.members[DeviceId(name)]
        moot.devices[DeviceId("ann")].peer.membership._roster.put(replace(member, card=card))
    audit = moot.devices[DeviceId("ann")].peer.audits
    users, hidden = list[Ask](), list[Ask]()
    for _ in range(40):
        moot.ask("ann", Plan("fixed", 1, 1), sampling=Sampling(max_tokens=300))
        moot.work()
        sent = [
            e.message
            for e in moot.devices[DeviceId("ann")].effects
            if isinstance(e, Send) and isinstance(e.message, Ask)
        ]
        moot.devices[DeviceId("ann")].effects.clear()
        for each in sent:
            if each.stage is Stage.PROPOSE:
                (users if each.inference.conversation[-1].content == "why?" else hidden).append(each)
    assert 1 <= len(hidden) == audit.asked <= 12
    assert len(users) > 30
    known = users[0]
    for each in hidden:
        assert unsaid(each.inference) == unsaid(known.inference)
        assert (each.layer, each.stage, each.hops) == (known.layer, known.stage, known.hops)
        assert re.fullmatch(r"[0-9a-f]{32}\.1\.1\.0", each.job)
    assert sum(sum(row.total) for row in audit.record.rows()) == len(hidden), "all were answered"


def probed() -> dict[str, object]:
    return {"probes": CLAIM.probes, "right": CLAIM.right, "total": CLAIM.total}


def test_a_card_that_was_made_up_is_given_up_and_an_honest_one_is_not() -> None:
    it = audits()
    asked = 0
    while not it.disproved(BOB, CLAIM):
        (ask,) = put(it)
        answer(it, ask, "I do not know.")
        asked += 1
    assert 6 <= asked <= 12
    (skill,) = it.disproved(BOB, CLAIM)
    believed = it.believed(BOB, CLAIM)
    assert believed.right[:2] == (0, 0)
    assert believed.total[list(SkillClass).index(skill)] == it.seen(BOB, CLAIM, skill).total
    assert believed.total[2:] == (0, 0, 0, 0)
    assert f"{skill.value} 0 of " in it.doubt(BOB, CLAIM)
    assert it.believed(EVE, CLAIM) == CLAIM, "another one's is its own affair"
    assert it.believed(BOB, replace(CLAIM, model="another")) != believed, "another model begins anew"
    modest = replace(CLAIM, right=(1, 1, 0, 0, 0, 0))
    assert it.believed(BOB, modest) == modest, "who claims little has not lied"


def test_who_is_as_able_as_its_card_says_is_seldom_doubted() -> None:
    """Cards earned by a skill, then 60 answers by the same: looked at after each, few of a hundred are ever doubted."""
    rng, doubted = Random(3), 0
    for _ in range(100):
        skill = rng.uniform(0.1, 0.95)
        claim = Tally(sum(rng.random() < skill for _ in range(12)), 12)
        seen = Tally()
        for _ in range(60):
            seen = Tally(seen.right + (rng.random() < skill), seen.total + 1)
            if seen.known and claim.lower > seen.quantile(CERTAIN):
                doubted += 1
                break
    assert doubted <= 5


def test_one_at_a_time_and_none_for_who_is_busy_or_claims_nothing() -> None:
    it = audits()
    assert put(it, Card("bob", "m", 4096, 1.0, "")) == [], "nothing is claimed"
    short = replace(LIKE, inference=replace(LIKE.inference, sampling=Sampling(max_tokens=16)))
    assert put(it, like=short) == [], "nobody could work it out"
    while it.due(0.0) is None:
        it.sent(LIKE, BOB, 0.0)
    assert list(it.ask(CLAIM, False, 0.0)) == [], "no time is free"
    assert it.asked == 0
    (first,) = put(it)
    assert put(it, now=599.0) == []
    (second,) = put(it, now=601.0)
    answer(it, first, "late")
    it.on_message(EVE, Answer(second.job, 0, 0.0, Usage()))
    it.on_message(BOB, Undone(second.job, Outcome.FAILED, "engine_failed", ""))
    answer(it, second, "after its end")
    (third,) = put(it, now=602.0)
    it.on_message(BOB, Answer(third.job, 5, 0.0, Usage()))
    assert not it.record.rows(), "what did not come whole says nothing"


def test_its_moment_is_not_that_of_the_job_before_it() -> None:
    it = audits(AuditConfig(share=0.1, within_s=60.0))
    for _ in range(100):
        it.sent(LIKE, BOB, 0.0)
    assert it.due(0.0) is None
    assert it.due(60.0) == BOB


def test_old_answers_count_less_and_none_is_asked_where_it_is_off() -> None:
    it = audits()
    for _ in range(MOST_ANSWERS + 1):
        it.record.note(BOB, CLAIM, SkillClass.ARITHMETIC, False, MOST_ANSWERS)
    assert it.seen(BOB, CLAIM, SkillClass.ARITHMETIC).total == MOST_ANSWERS // 2 + 1
    off = audits(AuditConfig())
    for _ in range(100):
        off.sent(LIKE, BOB, 0.0)
    assert off.due(1e9) is None
    for wrong in ({"share": 0.2}, {"within_s": -1.0}, {"patience_s": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AuditConfig(**wrong)


def test_a_doubted_card_no_longer_leads() -> None:
    """Whoever chooses by skill sees what was seen, and the prompt's decisions say why."""
    moot = Moot({"ann": "m", "bob": "m"}, PeerConfig(audit=ALWAYS))
    ann = moot.devices[DeviceId("ann")].peer
    ann.membership._roster.put(
        replace(ann.membership.members[BOB], card=replace(ann.membership.members[BOB].card, **probed()))
    )
    for _ in range(12):
        card = ann.membership.members[BOB].card
        ann.audits.record.note(BOB, card, SkillClass.ARITHMETIC, False, MOST_ANSWERS)
    assert ann._choice._card(BOB).right == (0,) * 6
    prompt = moot.ask("ann", Plan("fixed", 1, 1))
    moot.work()
    end = moot.end_of(prompt)
    told = [each for each in end.provenance.decisions if "bob is not believed" in each.what]
    assert [each.why for each in told] == ["arithmetic 0 of 12 where its card has 12 of 12"]
