"""Votes: who wins, when it is settled, what it costs; and a prompt whose answers are voted on."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from tests.core.world import Moot, answered, failed

from folkmoot.core.committee import DOUBTED, Committee, CommitteeConfig, Count, Vote, count, jobs, settled
from folkmoot.core.events import Advanced, AnswerText, Finished, Generated, Headway, Plan, Withdrawn
from folkmoot.core.extract import Kind
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.medoid import medoid
from folkmoot.core.messages import Outcome, Sampling, Stage, Usage
from folkmoot.core.mixture import MixtureConfig, seed_of
from folkmoot.core.peer import PeerConfig
from folkmoot.core.price import PriceConfig
from folkmoot.errors import ConfigError

COUNTED = "How many legs have three cats?"
ALIKE = {"ann": "m", "bob": "m", "cid": "m", "dot": "m"}
VOTING = PeerConfig(committee=CommitteeConfig(enabled=True))
PAIRS = replace(VOTING, committee=CommitteeConfig(enabled=True, waves=(2, 1, 1)))
RUSHED = replace(VOTING, price=PriceConfig(enabled=True))
PRICED = replace(RUSHED, committee=CommitteeConfig(enabled=True, rush=0.0))
LETTERS = "What is the capital of France?\nOptions:\n(A) Lyon\n(B) Paris\n(C) Nice"


def votes(*values: str | None) -> list[Vote]:
    return [Vote(value) for value in values]


# ---- counting ------------------------------------------------------------------------------------------


def test_most_votes_win_and_the_first_of_equals() -> None:
    assert count(votes("3", "4", "4")) == Count("4", 1, 2, 3, 2.0)
    assert count(votes("3", "4")) == Count("3", 0, 1, 2, 1.0)
    assert count(votes(None, "4", None)) == Count("4", 1, 1, 1, 1.0)
    assert count(votes(None, None)) is None
    assert count([]) is None


def test_weight_outvotes_number_and_the_heaviest_speaks() -> None:
    found = count([Vote("3", 1.0), Vote("3", 1.0), Vote("4", 0.5), Vote("4", 2.0)])
    assert found == Count("4", 3, 2, 4, 2.5)


def test_two_of_which_one_is_doubted_do_not_settle_it() -> None:
    committee = Committee(Kind.NUMBER, (3, 1), 2)
    doubted = [Vote("7", 1.0), Vote("7", DOUBTED)]
    assert settled(committee, doubted) is None
    assert settled(committee, [*doubted, Vote("7", 1.0)]) is not None


def test_one_skilled_vote_agrees_with_nobody_and_two_unskilled_ones_are_too_light() -> None:
    committee = Committee(Kind.NUMBER, (3, 1), 2)
    skilled, other, third = Vote("7", skill=2.2), Vote("8", skill=0.4), Vote("8", skill=0.4)
    assert settled(committee, [skilled]) is None
    assert settled(committee, [skilled, other, third]) is None
    assert count([skilled, other, third]) == Count("7", 0, 1, 3, 2.2)
    assert settled(committee, [skilled, replace(other, value="7")]) is not None
    assert settled(committee, [Vote("7", skill=0.9), Vote("7", skill=0.8), Vote("8", skill=1.3)]) is not None
    assert settled(committee, [skilled, Vote("7", DOUBTED, 2.2)]) is None, "a heavy copy confirms nothing"


@pytest.mark.parametrize("agree", [2, 3])
def test_so_many_must_agree(agree: int) -> None:
    committee = Committee(Kind.NUMBER, (3, 1), agree)
    assert settled(committee, votes("1", "2", "3")) is None
    found = settled(committee, votes("1", "2", "1"))
    assert (found is not None) == (agree == 2)
    assert settled(committee, votes("1", "1", "1")) == Count("1", 0, 3, 3, 3.0)


def test_jobs_are_the_mean_over_drawn_prompts() -> None:
    """Formula against a count: prompts whose waves decide by chance."""
    rng, shares = Random(7), (0.7, 0.4)
    total = 0
    for _ in range(20_000):
        total += 2
        if rng.random() < shares[0]:
            total += 1 + (rng.random() < shares[1] / shares[0])
    assert jobs((2, 1, 1), shares) == pytest.approx(total / 20_000, rel=0.01)
    with pytest.raises(ValueError, match="need 2 shares"):
        jobs((2, 1, 1), (0.7,))


@pytest.mark.no_cover  # hundreds of prompts, traced, take three times as long
@pytest.mark.parametrize("waves", [(3, 1), (2, 1, 1), (2, 2), (4,)])
def test_jobs_of_real_prompts_are_what_the_formula_says(waves: tuple[int, ...]) -> None:
    """200 prompts whose members are right by chance; the shares that are still open after each wave are counted."""
    rng, config = Random(11), replace(VOTING, committee=CommitteeConfig(enabled=True, waves=waves))
    counts = []
    for number in range(200):
        moot = Moot(ALIKE, config, seed=number)
        prompt = moot.ask("ann", question=COUNTED)
        while moot.end_of(prompt) is None:
            name = rng.choice(asked(moot))
            moot.write(name, f"Answer: {12 if rng.random() < 0.5 else rng.randrange(100, 10**6)}")
        counts.append(len(answered(moot, prompt).provenance.jobs))
    ends = [sum(waves[: place + 1]) for place in range(len(waves))]
    shares = [sum(each > end for each in counts) / len(counts) for end in ends[:-1]]
    assert sum(counts) / len(counts) == pytest.approx(jobs(waves, shares))
    assert set(counts) == set(ends)


@pytest.mark.parametrize(
    "wrong",
    [
        {"waves": ()},
        {"waves": (1, 1)},
        {"waves": (3, 0)},
        {"agree": 1},
        {"able": 1.5},
        {"able": float("nan")},
        {"able_size": -1.0},
        {"leader": 0.5},
        {"leader": float("nan")},
    ],
)
def test_what_a_committee_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="committee"):
        CommitteeConfig(**wrong)  # type: ignore[arg-type]


# ---- a prompt ------------------------------------------------------------------------------------------


def asked(moot: Moot) -> list[str]:
    """Who has a job in service now."""
    return [str(name) for name, device in moot.devices.items() if device.running is not None]


def disagree(moot: Moot, prompt: PromptId) -> None:
    """Everybody who is asked says something else, 1, 2, …, until the prompt ends."""
    value = 0
    while moot.end_of(prompt) is None:
        for name in asked(moot):
            value += 1
            moot.write(name, f"Answer: {value}")


def test_two_that_agree_end_it_and_nobody_aggregates() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    first = asked(moot)
    assert len(first) == 3
    assert "ann" in first
    moot.write("ann", "4 + 4 + 4\nAnswer: 12")
    assert moot.end_of(prompt) is None
    other, last = (name for name in first if name != "ann")
    moot.write(other, "The answer is 12.")
    told = answered(moot, prompt)
    assert told.answer == "4 + 4 + 4\nAnswer: 12"
    assert [job.stage for job in told.provenance.jobs] == [Stage.PROPOSE] * 3
    assert {job.device: job.outcome for job in told.provenance.jobs} == {
        "ann": Outcome.OK, other: Outcome.OK, last: Outcome.CANCELLED
    }  # fmt: skip
    assert any("ann stands" in d.what and "2 of 2" in d.why for d in told.provenance.decisions)
    assert not asked(moot), "who still wrote was told to stop"


def test_those_asked_later_are_asked_only_while_the_others_disagree() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    first = asked(moot)
    for value, name in enumerate(first):
        moot.write(name, f"Answer: {value}")
    (fourth,) = asked(moot)
    assert fourth not in first
    moot.write(fourth, "Answer: 2")
    told = answered(moot, prompt)
    assert told.answer == "Answer: 2"
    assert len(told.provenance.jobs) == 4
    assert told.provenance.rounds[0].asked[-1] == fourth


@pytest.mark.parametrize("question", [LETTERS, "Is the sun a star? Answer yes or no."])
@pytest.mark.parametrize("config", [VOTING, PRICED])
def test_where_few_answers_are_possible_small_models_do_not_vote(config: PeerConfig, question: str) -> None:
    """The tests' size is the length of a model's name; 3 is enough. Numbers are voted on by all."""
    moot = Moot(ALIKE, config)
    prompt = moot.ask("ann", question=question)
    assert asked(moot) == ["ann"]
    moot.write("ann", "Answer: yes (B)")
    told = answered(moot, prompt)
    assert (len(told.provenance.jobs), told.provenance.layers) == (1, 0)
    assert any("no vote" in each.what for each in told.provenance.decisions)
    always = replace(config, committee=replace(config.committee, able=0.0))
    for models, other, wanted in (
        (dict.fromkeys(ALIKE, "mmm"), config, question), (ALIKE, always, question), (ALIKE, config, COUNTED)
    ):  # fmt: skip
        moot = Moot(models, other)
        moot.ask("ann", question=wanted)
        assert len(asked(moot)) == 3


@pytest.mark.parametrize("config", [VOTING, PRICED])
def test_without_a_vote_a_weak_origin_leaves_it_to_one_who_is_able(config: PeerConfig) -> None:
    moot = Moot({"ann": "m", "bob": "mm", "cid": "mm"}, config)
    prompt = moot.ask("ann", question=LETTERS, sampling=Sampling(seed=5))
    (able,) = asked(moot)
    assert able in ("bob", "cid")
    running = moot.devices[DeviceId(able)].running
    assert running is not None
    assert running[1].sampling.seed == seed_of(5, 1, 0), "its first draft, whatever else was settled"
    moot.write(able, "Answer: B")
    assert answered(moot, prompt).answer == "Answer: B"
    moot = Moot({"ann": "m", "bob": "mm", "cid": "m"}, config)
    prompt = moot.ask("ann", question=LETTERS)
    moot.write("bob", "Answer: C")
    assert answered(moot, prompt).answer == "Answer: C", "a leader answers once"


def test_only_letters_that_the_question_offers_are_votes() -> None:
    moot = Moot(dict.fromkeys(ALIKE, "mmm"), VOTING)
    prompt = moot.ask("ann", question=LETTERS)
    first = asked(moot)
    moot.write(first[0], "Answer: (D)")
    moot.write(first[1], "Answer: (D)")
    assert moot.end_of(prompt) is None
    moot.write(first[2], "I believe option B is right.")
    (fourth,) = asked(moot)
    moot.write(fourth, "The correct option is B.")
    assert answered(moot, prompt).answer == "I believe option B is right."


def test_a_copy_of_another_answer_confirms_nothing() -> None:
    """A liar that says once more what it has heard: the others are asked on."""
    screened = replace(VOTING, mixture=MixtureConfig(screen=True))
    moot = Moot(ALIKE, screened)
    prompt = moot.ask("ann", question=COUNTED)
    long = (
        "A cat has four legs as long as nobody has stepped on it, and three cats have three times as many legs as one of them. "
        * 2
    )
    first = asked(moot)
    for name in first[:2]:
        moot.write(name, f"{long}\nAnswer: 13")
    assert moot.end_of(prompt) is None
    moot.write(first[2], "3 * 4 = 12\nAnswer: 12")
    (fourth,) = asked(moot)
    moot.write(fourth, "Three cats have twelve legs.\nAnswer: 12")
    assert answered(moot, prompt).answer.endswith("Answer: 12")


def test_thinking_is_no_part_of_a_draft() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    first = asked(moot)
    moot.write(first[0], "<think>Or is it\nAnswer: 13?</think>\nAnswer: 12")
    moot.write(first[1], "<think>I do not know yet", whole=True)
    assert moot.end_of(prompt) is None
    moot.write(first[2], "Each has four.</think>Answer: 12")
    assert answered(moot, prompt).answer == "Answer: 12"


def test_where_all_differ_the_first_stands() -> None:
    moot = Moot(ALIKE, PAIRS)
    prompt = moot.ask("ann", question=COUNTED)
    disagree(moot, prompt)
    told = answered(moot, prompt)
    assert told.answer == "Answer: 1"
    assert len(told.provenance.jobs) == 4


def test_where_nothing_can_be_read_the_origin_aggregates() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    moot.work()
    told = answered(moot, prompt)
    assert [job.stage for job in told.provenance.jobs] == [Stage.PROPOSE] * 4 + [Stage.AGGREGATE]
    assert told.answer == "ann says so"


def test_a_lost_member_is_stood_in_for_or_done_without() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    gone = next(name for name in asked(moot) if name != "ann")
    moot.write("ann", "Answer: 12")
    moot.kill(gone)
    for name in asked(moot):
        if moot.end_of(prompt) is None:
            moot.write(name, "Answer: 12")
    assert answered(moot, prompt).answer == "Answer: 12"


def test_all_text_comes_at_once_and_is_the_answer() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED, stream=True)
    for name in asked(moot):
        if moot.end_of(prompt) is None:
            moot.write(name, "Answer: 12")
    pieces = [n.text for n in next(iter(moot.devices.values())).notices if isinstance(n, AnswerText)]
    assert pieces == [answered(moot, prompt).answer]


def test_taken_back_it_ends_everywhere() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    moot.tell("ann", Withdrawn(prompt))
    moot.deliver()
    assert failed(moot, prompt).code == "cancelled"
    assert not asked(moot)


@pytest.mark.parametrize(
    ("question", "plan", "sampling"),
    [
        ("Tell me about cats.", Plan(), Sampling()),
        (COUNTED, Plan(mode="fixed", layers=1, proposers=3), Sampling()),
        (COUNTED, Plan(quorum=2), Sampling()),
        (COUNTED, Plan(aggregator="strongest"), Sampling()),
        (COUNTED, Plan(select=("bob", "cid", "dot")), Sampling()),
        (COUNTED, Plan(), Sampling(stop=("legs",))),
    ],
)
def test_where_nobody_votes(question: str, plan: Plan, sampling: Sampling) -> None:
    """Open questions, and all that its user has settled: the paper's aggregation."""
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", plan, question=question, sampling=sampling)
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.jobs[-1].stage is Stage.AGGREGATE
    assert told.layers == 1


def test_who_is_alone_answers_alone() -> None:
    moot = Moot({"ann": "m"}, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    moot.work()
    assert [job.stage for job in answered(moot, prompt).provenance.jobs] == [Stage.AGGREGATE]


@pytest.mark.parametrize("config", [VOTING, PRICED])
def test_where_all_differ_its_own_device_s_answer_stands_whoever_was_first(config: PeerConfig) -> None:
    moot = Moot(ALIKE, config)
    prompt = moot.ask("bob", question=COUNTED)
    for value, name in enumerate(sorted(asked(moot), key=lambda name: name == "bob")):
        moot.write(name, f"Answer: {value}")
    (fourth,) = asked(moot)
    moot.write(fourth, "Answer: 9")
    told = answered(moot, prompt)
    assert told.answer == "Answer: 2"
    assert told.provenance.proposers == 3


def test_at_the_price_of_a_layer_without_an_aggregation() -> None:
    moot = Moot(ALIKE, PRICED)
    prompt = moot.ask("ann", question=COUNTED)
    for name in asked(moot):
        if moot.end_of(prompt) is None:
            moot.write(name, "Answer: 12")
    told = answered(moot, prompt).provenance
    assert told.layers == 1
    assert "own 1 x" in told.decisions[0].why


# ---- open answers --------------------------------------------------------------------------------------

OPEN = "Tell me about cats."
CATS = "Cats are small hunters that sleep most of the day and see well at night."


def drafts(moot: Moot, *texts: str) -> None:
    """Everybody's first answer, in the order of the moot."""
    said = dict(zip(asked(moot), texts, strict=True))
    for name, text in said.items():
        moot.write(name, text)


@pytest.mark.parametrize("stream", [False, True])
def test_open_answers_that_are_alike_need_no_aggregation(stream: bool) -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=OPEN, stream=stream)
    said = (CATS, CATS.replace("small ", ""), CATS.replace("small", "little"), CATS + " They purr.")
    drafts(moot, *said)
    told = answered(moot, prompt)
    found = medoid(said, [1.0] * 4)
    assert told.answer == said[found.place]
    assert [job.stage for job in told.provenance.jobs] == [Stage.PROPOSE] * 4
    assert f"mean similarity {found.agreement:.2f}" in told.provenance.decisions[-1].why
    pieces = [n.text for n in next(iter(moot.devices.values())).notices if isinstance(n, AnswerText)]
    assert pieces == ([told.answer] if stream else [])


def test_open_answers_that_differ_are_aggregated() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=OPEN)
    drafts(moot, CATS, "Dogs bark.", "Nobody knows.", "They are felines; most are kept as pets.")
    assert moot.end_of(prompt) is None
    moot.work()
    assert answered(moot, prompt).provenance.jobs[-1].stage is Stage.AGGREGATE


def test_drafts_that_are_material_end_early_and_those_that_may_be_the_answer_do_not() -> None:
    short = replace(VOTING, mixture=MixtureConfig(draft_tokens=40))

    def limits(question: str, plan: Plan | None = None) -> set[int]:
        moot = Moot(ALIKE, short)
        prompt = moot.ask("ann", plan, question=question, sampling=Sampling(max_tokens=100))
        found = {d.running[1].sampling.max_tokens for d in moot.devices.values() if d.running is not None}
        moot.work_until("ann", 2) if plan is None and question is OPEN else moot.work()
        if question is OPEN and plan is None:
            final = moot.devices["ann"].running  # type: ignore[index]
            assert final is not None
            assert final[1].sampling.max_tokens == 100
            moot.work()
        answered(moot, prompt)
        return found

    assert limits(OPEN) == {40}
    assert limits(COUNTED) == {100}
    assert limits(OPEN, Plan(mode="fixed", layers=1, proposers=3)) == {100}
    assert limits(OPEN, Plan(mode="local")) == {100}


@pytest.mark.parametrize(("similar", "aggregations"), [(0.0, 0), (1.0, 1)])
def test_always_or_never(similar: float, aggregations: int) -> None:
    moot = Moot(ALIKE, replace(VOTING, committee=CommitteeConfig(enabled=True, similar=similar)))
    prompt = moot.ask("ann", question=OPEN)
    drafts(moot, *[CATS] * 4) if aggregations else drafts(
        moot, CATS, "Dogs bark.", CATS + " They purr.", "No."
    )
    moot.work()
    told = answered(moot, prompt)
    assert sum(job.stage is Stage.AGGREGATE for job in told.provenance.jobs) == aggregations


# ---- one far more skilled than the others --------------------------------------------------------------


@pytest.mark.parametrize("config", [VOTING, PRICED])
def test_a_clear_leader_answers_alone(config: PeerConfig) -> None:
    """The tests' skill is the length of a model's name."""
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, config)
    prompt = moot.ask("ann", question=OPEN)
    assert asked(moot) == ["bob"]
    moot.work()
    told = answered(moot, prompt)
    assert told.answer == "bob says so"
    assert [job.device for job in told.provenance.jobs] == ["bob"]
    assert any("bob answers alone" in d.what and "skill 4" in d.why for d in told.provenance.decisions)


@pytest.mark.parametrize("config", [VOTING, PRICED])
@pytest.mark.parametrize("asker", ["ann", "bob"])
@pytest.mark.parametrize(
    ("values", "right"), [((7, 7), 7), ((6, 7, 7), 7), ((5, 6, 7, 7), 7), ((4, 5, 6, 7), 4)]
)
def test_where_answers_can_be_compared_it_is_asked_until_two_of_its_answers_agree(
    config: PeerConfig, asker: str, values: tuple[int, ...], right: int
) -> None:
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, config)
    prompt = moot.ask(asker, question=COUNTED)
    for value in values:
        assert moot.end_of(prompt) is None
        assert asked(moot) == ["bob"]
        moot.write("bob", f"Answer: {value}")
    told = answered(moot, prompt)
    assert told.answer == f"Answer: {right}"
    assert [job.device for job in told.provenance.jobs] == ["bob"] * len(values)
    assert "bob answers alone, up to 4 times" in [d.what for d in told.provenance.decisions]


def test_a_busy_leader_answers_once_and_a_busier_one_not_at_all() -> None:
    """By the prices: with more and more to do it answers several times, then once, then the origin does."""
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, PRICED)
    said = []
    for _ in range(40):
        prompt = moot.ask("ann", question=COUNTED)
        mixture = moot.devices["ann"].peer._mixtures.get(prompt)  # type: ignore[index]
        if mixture is None:
            break
        said.append(mixture.plan.decisions[0].what)
    assert list(dict.fromkeys(said)) == [
        "bob answers alone, up to 4 times", "bob answers alone", "ann answers alone"
    ]  # fmt: skip


def test_a_leader_who_is_lost_leaves_it_to_the_origin() -> None:
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, VOTING)
    prompt = moot.ask("ann", question=OPEN)
    moot.kill("bob")
    moot.work()
    assert answered(moot, prompt).answer == "ann says so"


def test_a_leader_who_is_lost_while_it_votes_does_not_lose_the_prompt() -> None:
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    moot.write("bob", "Answer: 12")
    moot.kill("bob")
    while moot.end_of(prompt) is None:
        for name in asked(moot):
            moot.write(name, "Answer: 12")
    assert answered(moot, prompt).answer == "Answer: 12"


def test_two_as_skilled_as_each_other_are_asked_in_turn_and_the_weak_are_not() -> None:
    moot = Moot({"ann": "mmmm", "bob": "mmmm", "cid": "m", "dot": "m"}, PRICED)
    prompt = moot.ask("ann", question=COUNTED)
    disagree(moot, prompt)
    jobs_of = [job.device for job in answered(moot, prompt).provenance.jobs]
    assert sorted(jobs_of) == ["ann", "ann", "bob", "bob"]
    assert answered(moot, prompt).answer == "Answer: 1"


@pytest.mark.parametrize("config", [VOTING, PRICED])
def test_a_weak_origin_lets_the_able_vote(config: PeerConfig) -> None:
    """It is asked nothing itself, and its own answer does not stand where they differ."""
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "mmmm"}, config)
    prompt = moot.ask("ann", question=COUNTED)
    disagree(moot, prompt)
    told = answered(moot, prompt).provenance
    assert sorted(job.device for job in told.jobs) == ["bob", "bob", "cid", "cid"]
    assert [job.stands_in_for for job in told.jobs] == [None] * 4


def test_at_rest_all_are_asked_at_once_and_at_a_price_in_waves() -> None:
    moot = Moot(dict.fromkeys("abcdef", "m"), RUSHED)
    prompt = moot.ask("a", question=COUNTED)
    first = asked(moot)
    assert len(first) == 4
    moot.write(first[2], "Answer: 12")
    moot.write(first[3], "Answer: 12")
    told = answered(moot, prompt)
    assert told.answer == "Answer: 12"
    assert len(told.provenance.jobs) == 4
    busy = Moot(dict.fromkeys("abcdef", "m"), RUSHED)
    for _ in range(3):
        busy.ask("b", question=OPEN)
    later = busy.ask("b", question=COUNTED)
    while busy.end_of(later) is None:
        for name in asked(busy):
            busy.write(name, f"Answer: {ord(name[0])}")
    found = answered(busy, later).provenance
    assert any("is asked as well" in each.what for each in found.decisions), found.decisions


@pytest.mark.parametrize("rush", [float("nan")])
def test_rush_is_a_number(rush: float) -> None:
    with pytest.raises(ConfigError, match=r"committee\.rush"):
        CommitteeConfig(rush=rush)


def test_like_devices_are_asked_though_weaker_ones_would_be_sooner() -> None:
    """Who is able is settled first, then who has the least to do."""
    weak = {f"w{number}": "m" for number in range(9)}
    moot = Moot({"ann": "mmmm", "bob": "mmmm", "cid": "mmmm", "dot": "mmmm", **weak}, PRICED)
    moot.ask("ann", question=COUNTED)
    assert set(asked(moot)) < {"ann", "bob", "cid", "dot"}


@pytest.mark.parametrize("models", [{"ann": "m", "bob": "mmmm"}, {"ann": "mm", "bob": "mmmm", "cid": "m"}])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("question", [COUNTED, OPEN])
def test_where_the_leader_is_lost_the_origin_itself_answers(
    models: dict[str, str], after: int, question: str
) -> None:
    moot = Moot(models, VOTING)
    prompt = moot.ask("ann", question=question)
    if after and question is COUNTED:
        moot.write("bob", "Answer: 7")
    moot.kill("bob")
    while moot.end_of(prompt) is None:
        assert asked(moot) == ["ann"]
        moot.write("ann", "Answer: 12")
    told = answered(moot, prompt)
    assert told.answer in ("Answer: 12", "Answer: 7")
    assert "ann" in {job.device for job in told.provenance.jobs}


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_leader_refuses_the_origin_itself_answers(stream: bool) -> None:
    moot = Moot({"ann": "m", "bob": "mmmm"}, VOTING)
    prompt = moot.ask("ann", question=COUNTED, stream=stream)
    while moot.end_of(prompt) is None:
        for name in asked(moot):
            moot.break_engine(name, "overloaded") if name == "bob" else moot.write(name, "Answer: 12")
    assert answered(moot, prompt).answer == "Answer: 12"


def test_without_chance_nobody_confirms_itself() -> None:
    """At temperature 0 a second answer of the same device is the same answer."""
    still = Sampling(temperature=0.0)
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, VOTING)
    prompt = moot.ask("ann", question=COUNTED, sampling=still)
    moot.write("bob", "Answer: 12")
    assert len(answered(moot, prompt).provenance.jobs) == 1
    two = Moot({"ann": "m", "bob": "m"}, VOTING)
    prompt = two.ask("ann", question=COUNTED, sampling=still)
    for name in asked(two):
        two.write(name, f"Answer: {name}")
    two.work()
    assert {job.device for job in answered(two, prompt).provenance.jobs if job.layer == 1} == {"ann", "bob"}


def test_an_answer_that_was_cut_off_gives_way_to_a_whole_one_that_says_the_same() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    first = asked(moot)
    job = moot.running("ann")
    moot.tell("ann", Generated(job, "Answer: 12\nLet me now explain why, since"))
    moot.devices["ann"].running = None  # type: ignore[index]
    moot.tell("ann", Finished(job, Usage(10, 2, 5, 1.0, 0.1), truncated=True))
    moot.deliver()
    moot.write(next(name for name in first if name != "ann"), "3 * 4\nAnswer: 12")
    assert answered(moot, prompt).answer == "3 * 4\nAnswer: 12"
    assert not answered(moot, prompt).truncated


def test_one_that_can_be_read_of_four_does_not_stand() -> None:
    moot = Moot(ALIKE, VOTING)
    prompt = moot.ask("ann", question=COUNTED)
    first = asked(moot)
    moot.write(first[0], "Answer: 12")
    for name in first[1:]:
        moot.write(name, "Nobody knows, for cats come and go.")
    moot.work()
    assert answered(moot, prompt).provenance.jobs[-1].stage is Stage.AGGREGATE


def test_a_leader_s_votes_go_on_after_a_restart() -> None:
    """What it had said counts, what it was asked is asked of it again, and the weak are not asked."""
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m", "dot": "m"}, VOTING)
    first = moot.ask("ann", question=COUNTED, keep=True)
    moot.write("bob", "Answer: 12")
    moot.write("bob", "Answer: 13")
    kept = [n.headway for n in moot.devices["ann"].notices if isinstance(n, Advanced)]  # type: ignore[index]
    headway = Headway(
        kept[-1].layers, kept[-1].proposers, 1,
        tuple(p for each in kept for p in each.proposals),
        tuple(a for each in kept for a in each.asked),
    )  # fmt: skip
    moot.tell("ann", Withdrawn(first))
    moot.deliver()
    again = moot.ask("ann", question=COUNTED, headway=headway)
    assert asked(moot) == ["bob"]
    moot.write("bob", "Answer: 13")
    told = answered(moot, again)
    assert told.answer == "Answer: 13"
    assert {job.device for job in told.provenance.jobs} == {"bob"}
    assert not asked(moot)


def test_a_busy_origin_may_ask_an_idle_leader() -> None:
    """The bound on waiting is that of who will answer."""
    config = replace(PRICED, max_wait_s=5.0)
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "m"}, config)
    for _ in range(3):
        moot.ask("ann", Plan(mode="local"))
        moot.write("ann")
    for _ in range(12):
        moot.ask("ann", Plan(mode="local"))
    prompt = moot.ask("ann", question=OPEN)
    assert moot.end_of(prompt) is None
    assert "bob" in asked(moot)


def test_who_tells_no_skill_is_compared_with_nobody() -> None:
    moot = Moot({"ann": "m", "bob": "mmmm", "cid": "mmmm"}, VOTING)
    rows = moot.devices["ann"].peer.membership.members  # type: ignore[index]
    rows["cid"] = replace(rows["cid"], card=replace(rows["cid"].card, skill=0.0))  # type: ignore[index]
    prompt = moot.ask("ann", question="Tell me about cats.")
    moot.work()
    assert len(answered(moot, prompt).provenance.jobs) == 4
