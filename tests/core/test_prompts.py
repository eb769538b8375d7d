"""A prompt's life, case by case, on real peers. Messages arrive at once; engines speak when told to."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from tests.core.world import Moot

from folkmoot.core.choice import Choice
from folkmoot.core.events import (
    AnswerText,
    CardChanged,
    Generate,
    JobProgress,
    Leaving,
    Plan,
    Prompt,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Received,
    Send,
    Stopping,
    StreamLost,
    Submitted,
    Warmed,
    Withdrawn,
)
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId, JobId, PromptId, job_id, prompt_of
from folkmoot.core.load import jobs_per_prompt, limit_rate, offered_load
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Inference,
    Outcome,
    Piece,
    Poll,
    Prepare,
    Queued,
    Sampling,
    Stage,
    Turn,
    Undone,
    Usage,
)
from folkmoot.core.mixture import MixtureConfig, jobs_of
from folkmoot.core.peer import PeerConfig
from folkmoot.core.queue import QueueConfig
from folkmoot.errors import LocalProtocolError

FOUR = {"ann": "m1", "bob": "m2", "cid": "m3", "dot": "m4"}


def fixed(layers: int, proposers: int | None = None, **more: object) -> Plan:
    return Plan(mode="fixed", layers=layers, proposers=proposers, **more)  # type: ignore[arg-type]


def answered(moot: Moot, prompt: PromptId) -> PromptAnswered:
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered), end
    return end


def failed(moot: Moot, prompt: PromptId) -> PromptFailed:
    end = moot.end_of(prompt)
    assert isinstance(end, PromptFailed), end
    return end


@pytest.mark.parametrize("layers", range(4))
@pytest.mark.parametrize("proposers", range(4))
def test_exactly_so_many_jobs(layers: int, proposers: int) -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(layers, proposers if layers else 0))
    moot.work()
    told = answered(moot, prompt).provenance
    assert len(told.jobs) == jobs_per_prompt(layers, proposers if layers else 0)
    assert jobs_of(told) == list(told.jobs)
    assert [len(each.asked) for each in told.rounds] == [proposers + 1] * layers
    assert told.jobs[-1].stage is Stage.AGGREGATE
    assert told.jobs[-1].device == "ann"


def test_usage_is_the_final_jobs_and_every_job_has_its_own() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 3))
    moot.work()
    told = answered(moot, prompt)
    assert (told.usage.tokens_in, told.usage.tokens_cached, told.usage.tokens_out) == (10, 2, 5)
    assert [job.tokens_out for job in told.provenance.jobs] == [5] * 5


def test_auto_is_one_layer_of_three_or_nobody() -> None:
    moot = Moot({**FOUR, "eve": "m5"})
    prompt = moot.ask("ann")
    moot.work()
    told = answered(moot, prompt).provenance
    assert (told.layers, told.proposers, len(told.jobs)) == (1, 3, 5)
    alone = Moot({"ann": "m"})
    prompt = alone.ask("ann")
    alone.work()
    assert len(answered(alone, prompt).provenance.jobs) == 1
    assert "no layers" in answered(alone, prompt).provenance.decisions[0].what


def test_answers_reach_the_next_layer_in_order_of_arrival() -> None:
    moot = Moot(FOUR)
    moot.ask("ann", fixed(1, 3))
    for name in ("cid", "ann", "dot", "bob"):
        moot.write(name, f"from {name}")
    running = moot.devices[DeviceId("ann")].running
    assert running is not None
    assert running[1].answers == ("from cid", "from ann", "from dot", "from bob")
    assert running[1].expected == 4


def test_original_mixture_of_agents() -> None:
    moot = Moot({**FOUR, "eve": "m5"})
    plan = fixed(3, 2, select=("bob", "cid"), aggregator="fixed:dot")
    prompt = moot.ask("ann", plan)
    moot.work()
    told = answered(moot, prompt).provenance
    assert len(told.jobs) == 10
    assert [each.asked for each in told.rounds] == [("ann", "bob", "cid")] * 3
    assert [job.layer for job in told.jobs] == [1] * 3 + [2] * 3 + [3] * 3 + [4]
    stages = [Stage.PROPOSE] * 3 + [Stage.REFINE] * 6 + [Stage.AGGREGATE]
    assert [job.stage for job in told.jobs] == stages
    assert told.jobs[-1].device == "dot"


def test_fewer_peers_than_k_is_no_error_and_is_told() -> None:
    moot = Moot({"ann": "m", "bob": "m", "req": ""})
    prompt = moot.ask("ann", fixed(1, 5))
    moot.work()
    told = answered(moot, prompt).provenance
    assert [each.asked for each in told.rounds] == [("ann", "bob")]
    assert any("1 of 5 peers" in each.what for each in told.decisions)


def test_requester_has_another_device_in_its_place() -> None:
    moot = Moot({"req": "", **FOUR})
    prompt = moot.ask("req", fixed(2, 2))
    moot.work()
    told = answered(moot, prompt).provenance
    place = told.jobs[0].device
    assert told.origin == "req"
    assert "req" not in {job.device for job in told.jobs}
    assert {job.device for job in told.jobs if job.stands_in_for == "req"} == {place}
    assert [job.stands_in_for for job in told.jobs].count("req") == 3
    assert len(told.jobs) == 7


def test_requester_without_anybody_or_in_private() -> None:
    moot = Moot({"req": "", "too": ""})
    assert failed(moot, moot.ask("req")).code == "no_device"
    moot = Moot({"req": "", "ann": "m"})
    assert failed(moot, moot.ask("req", Plan(mode="local"))).code == "no_device"


@pytest.mark.parametrize(
    ("plan", "code", "says"),
    [
        (fixed(17, 1), "invalid", "layers is 17"),
        (fixed(1, 65), "invalid", "proposers is 65"),
        (fixed(0, 2), "invalid", "leave it out"),
        (fixed(1, 2, quorum=4), "invalid", "quorum is 4"),
        (fixed(1, 2, quorum=-1), "invalid", "quorum is -1"),
        (fixed(1, 2, deadline_s=0.01), "invalid", "0.05"),
        (fixed(1, 2, aggregator="boss"), "invalid", "fixed:NAME"),
        (Plan(mode="magic"), "invalid", "auto, fixed, local"),
        (fixed(1, 3, select=("bob",)), "invalid", "names 1 peers"),
        (fixed(1, select=("bob", "bob")), "invalid", "each once"),
        (fixed(1, select=("ann",)), "invalid", "the origin answers"),
        (fixed(1, select=("zed",)), "unknown_model", "ann, bob, cid, dot"),
        (fixed(1, 1, aggregator="fixed:zed"), "unknown_model", "zed"),
    ],
)
def test_impossible_plans(plan: Plan, code: str, says: str) -> None:
    moot = Moot(FOUR)
    end = failed(moot, moot.ask("ann", plan))
    assert end.code == code
    assert says in end.detail
    assert moot.devices[DeviceId("ann")].peer.idle


def test_k_defaults_to_three_or_all_there_are() -> None:
    for names, k in ((FOUR, 3), ({"ann": "m", "bob": "m"}, 1)):
        moot = Moot(names)
        prompt = moot.ask("ann", fixed(1))
        moot.work()
        assert answered(moot, prompt).provenance.proposers == k


def test_two_devices_of_one_name() -> None:
    moot = Moot({"aaaaaa11": "m", "bbbbbb22": "m", "cccccc33": "m"})
    for name in ("bbbbbb22", "cccccc33"):
        card = Card("twin", "m", 4096, 1.0, "x")
        for other in moot.devices:
            members = moot.devices[other].peer.membership.members
            members[DeviceId(name)] = type(members[DeviceId(name)])(
                DeviceId(name), 1, members[DeviceId(name)].standing, card
            )
    end = failed(moot, moot.ask("aaaaaa11", fixed(1, select=("twin",))))
    assert end.code == "invalid"
    assert "twin~bbbbbb" in end.detail
    assert "twin~cccccc" in end.detail
    prompt = moot.ask("aaaaaa11", fixed(1, select=("twin~cccccc",), aggregator="fixed:bbbbbb22"))
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].asked == ("aaaaaa11", "twin~cccccc")
    assert told.jobs[-1].device == "twin~bbbbbb"


def test_quorum_goes_on_without_the_late() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 3, quorum=2))
    moot.write("bob")
    moot.write("ann")
    assert moot.devices[DeviceId("cid")].running is None
    moot.write("ann")
    told = answered(moot, prompt).provenance
    assert Counter(job.outcome for job in told.jobs) == {Outcome.OK: 3, Outcome.LATE: 2}


def test_deadline_ends_it_everywhere() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 3, deadline_s=1.5))
    moot.pass_time(1.0)
    assert moot.end_of(prompt) is None
    moot.pass_time(1.0)
    end = failed(moot, prompt)
    assert end.code == "deadline"
    assert end.provenance is not None
    assert {job.outcome for job in end.provenance.jobs} == {Outcome.CANCELLED}
    assert all(device.peer.idle for device in moot.devices.values())


def test_withdrawn_is_cancelled_everywhere_and_silent_afterwards() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(2, 3))
    job = moot.devices[DeviceId("bob")].running
    moot.tell("ann", Withdrawn(prompt))
    moot.deliver()
    assert failed(moot, prompt).code == "cancelled"
    assert all(device.running is None and device.peer.idle for device in moot.devices.values())
    assert job is not None
    late = (Piece(job[0], 0, "x"), Answer(job[0], 1, 0.0, Usage()), Queued(job[0], 0))
    for message in late:
        assert moot.tell("ann", Received(DeviceId("bob"), message)) == []
    assert moot.tell("ann", Withdrawn(prompt)) == []


def test_strongest_aggregates() -> None:
    moot = Moot({"ann": "m", "bob": "much-bigger", "cid": "mm"})
    prompt = moot.ask("ann", fixed(1, 2, aggregator="strongest"))
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.jobs[-1].device == "bob"
    assert any("bob aggregates" in each.what for each in told.decisions)
    prompt = moot.ask("bob", fixed(1, 2, aggregator="strongest"))
    moot.work()
    assert answered(moot, prompt).provenance.jobs[-1].device == "bob"


def test_private_and_hops_stay_here() -> None:
    moot = Moot(FOUR)
    for plan, hops in ((Plan(mode="local"), 0), (fixed(1, 3), 1)):
        prompt = moot.ask("ann", plan, hops=hops)
        moot.work()
        told = answered(moot, prompt).provenance
        assert [job.device for job in told.jobs] == ["ann"]
        assert bool(hops) == any("recursion" in each.why for each in told.decisions)


def test_dead_peer_is_stood_in_for() -> None:
    moot = Moot({**FOUR, "eve": "m5"})
    prompt = moot.ask("ann", fixed(1, 3))
    asked = [n for n in ("bob", "cid", "dot", "eve") if moot.devices[DeviceId(n)].running]
    spare = next(n for n in ("bob", "cid", "dot", "eve") if n not in asked)
    moot.write(asked[0], "half of", whole=False)
    moot.kill(asked[0])
    assert moot.devices[DeviceId(spare)].running is not None
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].stood_in == {asked[0]: spare}
    assert Counter(job.outcome for job in told.jobs) == {Outcome.OK: 5, Outcome.FAILED: 1}
    assert [job.stands_in_for for job in told.jobs if job.device == spare] == [asked[0]]
    assert f"{asked[0]} says so" not in answered(moot, prompt).answer


def test_dead_peers_without_a_stand_in_leave_fewer_answers() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(2, 3))
    for name in ("bob", "cid"):
        moot.kill(name)
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].answered == ("ann", "dot")
    assert told.rounds[1].asked == ("ann", "dot")


def test_peer_drawn_ahead_that_died_is_drawn_again() -> None:
    moot = Moot({f"d{i}": "m" for i in range(7)}, seed=3)
    prompt = moot.ask("d0", fixed(2, 2))
    for name in [n for n in moot.devices if n != "d0" and moot.devices[n].running is None][:2]:
        moot.kill(name)
    moot.work()
    assert len(answered(moot, prompt).provenance.rounds[1].asked) == 3


def test_aggregator_that_dies_before_and_after_its_first_words() -> None:
    for stream in (False, True):
        moot = Moot(FOUR)
        prompt = moot.ask("ann", fixed(1, 1, select=("bob",), aggregator="fixed:dot"), stream=stream)
        moot.write("ann")
        moot.write("bob")
        moot.write("dot", "It is", whole=False)
        moot.kill("dot")
        moot.work()
        if stream:
            assert failed(moot, prompt).code == "answer_cut"
        else:
            told = answered(moot, prompt)
            assert told.answer == "ann says so"
            assert told.provenance.jobs[-1].stands_in_for == "dot"


def test_aggregator_already_dead_is_replaced_by_name() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",), aggregator="fixed:dot"))
    moot.kill("dot")
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.jobs[-1].device == "ann"
    assert told.jobs[-1].stands_in_for == "dot"
    assert any("in place of dot" in each.what for each in told.decisions)


def test_nobody_left_to_aggregate() -> None:
    moot = Moot({"req": "", "ann": "m", "bob": "m"})
    prompt = moot.ask("req", fixed(1, 1))
    moot.kill("ann")
    moot.kill("bob")
    assert failed(moot, prompt).code == "no_device"


def test_streamed_text_is_announced_piece_by_piece() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 1), stream=True)
    for name in [n for n in moot.devices if moot.devices[n].running]:
        moot.write(name)
    for word in ("one ", "two ", "three"):
        moot.write("ann", word, whole=False)
    moot.write("ann", "")
    texts = [n.text for n in moot.devices[DeviceId("ann")].notices if isinstance(n, AnswerText)]
    assert texts == ["one ", "two ", "three"]
    assert answered(moot, prompt).answer == "one two three"


def test_empty_answers_are_left_out() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 3))
    for name, text in (("ann", ""), ("bob", "  \n"), ("cid", "yes"), ("dot", "")):
        moot.write(name, text)
    running = moot.devices[DeviceId("ann")].running
    assert running is not None
    assert running[1].answers == ("yes",)
    moot.work()
    assert answered(moot, prompt).provenance.rounds[0].answered == ("cid",)


def test_layer_without_any_answer_is_left_out() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    prompt = moot.ask("ann", fixed(1, 1))
    moot.write("ann", "")
    moot.write("bob", "")
    moot.work()
    told = answered(moot, prompt).provenance
    assert any("left out" in each.what for each in told.decisions)


def test_engine_that_breaks_once_is_tried_again_then_given_up() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.break_engine("bob")
    assert moot.devices[DeviceId("bob")].running is not None
    moot.break_engine("bob")
    moot.work()
    told = answered(moot, prompt).provenance
    assert [j.outcome for j in told.jobs if j.device == "bob"] == [Outcome.FAILED]
    assert len([j for j in told.jobs if j.outcome is Outcome.OK]) == 3


def test_engine_that_broke_in_mid_answer_is_not_repeated_there() -> None:
    moot = Moot(FOUR)
    moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.write("bob", "half", whole=False)
    moot.break_engine("bob")
    assert moot.devices[DeviceId("bob")].running is None


def test_too_long_for_the_origin_ends_it_and_for_a_peer_does_not() -> None:
    for name in ("ann", "bob"):
        moot = Moot(FOUR)
        prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
        moot.break_engine(name, "too_long")
        moot.work()
        end = moot.end_of(prompt)
        if name == "ann":
            assert isinstance(end, PromptFailed)
            assert end.code == "too_long"
        else:
            told = answered(moot, prompt).provenance
            assert [j.outcome for j in told.jobs if j.device == "bob"] == [Outcome.REFUSED]


def test_stand_ins_are_bounded() -> None:
    moot = Moot({f"d{i}": "m" for i in range(9)})
    prompt = moot.ask("d0", fixed(1, 1))
    for _ in range(20):
        busy = [n for n, d in moot.devices.items() if d.running is not None and n != "d0"]
        if not busy:
            break
        moot.break_engine(busy[0])
    moot.work()
    assert len([j for j in answered(moot, prompt).provenance.jobs if j.outcome is Outcome.FAILED]) == 3


def test_full_queue_refuses() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_waiting=1)))
    ends = [moot.end_of(moot.ask("ann", Plan(mode="local"))) for _ in range(3)]
    assert ends[:2] == [None, None]
    assert isinstance(ends[2], PromptFailed)
    assert ends[2].code == "overloaded"
    assert "the bound is 1" in ends[2].detail


def test_prompts_of_one_device_are_bounded() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(max_prompts=2))
    ends = [moot.end_of(moot.ask("ann", Plan(mode="local"))) for _ in range(3)]
    assert ends[:2] == [None, None]
    assert isinstance(ends[2], PromptFailed)
    assert ends[2].code == "overloaded"
    moot.work()
    assert moot.devices[DeviceId("ann")].peer.idle


def test_first_come_first_served() -> None:
    moot = Moot({"ann": "m"})
    prompts = [moot.ask("ann", Plan(mode="local")) for _ in range(5)]
    moot.work()
    started = [prompt_of(e.job) for e in moot.devices[DeviceId("ann")].effects if isinstance(e, Generate)]
    assert started == prompts


def test_same_id_twice_is_our_own_bug() -> None:
    moot = Moot({"ann": "m"})
    prompt = moot.ask("ann", Plan(mode="local"))
    with pytest.raises(LocalProtocolError, match="twice"):
        moot.tell("ann", Submitted(Prompt(prompt, (Turn("user", "x"),))))


def test_seeds_differ_per_job_and_follow_the_prompts_seed() -> None:
    def seeds(seed: int | None, world: int) -> list[int | None]:
        moot = Moot(FOUR, seed=world)
        moot.ask("ann", fixed(2, 3), sampling=Sampling(seed=seed, stop=("END",)))
        moot.work()
        inferences = [
            e.inference for d in moot.devices.values() for e in d.effects if isinstance(e, Generate)
        ]
        assert [i.sampling.stop for i in inferences].count(("END",)) == 1
        return sorted(i.sampling.seed or 0 for i in inferences)

    assert len({*seeds(7, 1)}) == 9
    assert seeds(7, 1) == seeds(7, 2)
    assert seeds(None, 1) != seeds(None, 2)


# ---- messages that go astray -------------------------------------------------------------------------


def test_lost_question_is_asked_again() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    once = iter([True])
    moot.lost = lambda s, t, m: isinstance(m, Ask) and next(once, False)
    prompt = moot.ask("ann", fixed(1, 1))
    assert moot.devices[DeviceId("bob")].running is None
    moot.pass_time(3.0)
    moot.work()
    assert len(jobs_of(answered(moot, prompt).provenance)) == 3


def test_lost_pieces_and_ends_are_asked_for_again() -> None:
    for kind in (Piece, Answer, Queued, Began):
        moot = Moot({"ann": "m", "bob": "m"})
        drop = [2]

        def lost(sender: str, to: str, message: object, kind: type = kind, drop: list[int] = drop) -> bool:
            drop[0] -= isinstance(message, kind)
            return isinstance(message, kind) and drop[0] >= 0

        moot.lost = lost
        prompt = moot.ask("ann", fixed(1, 1))
        moot.write("bob", "a b ", whole=False)
        moot.write("bob", "c d")
        moot.work()
        for _ in range(4):
            moot.pass_time(3.0)
            moot.work()
        running = [
            e.inference.answers for e in moot.devices[DeviceId("ann")].effects if isinstance(e, Generate)
        ]
        assert "a b c d" in running[-1], kind
        assert answered(moot, prompt)


def test_silent_peer_is_given_up() -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"})
    moot.lost = lambda s, t, m: s == "bob" or t == "bob"
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    for _ in range(12):
        moot.pass_time(2.0)
        moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].stood_in == {"bob": "cid"}
    assert any("nothing was heard" in (job.error or "") for job in told.jobs)


def test_streams_that_break_for_ever_are_given_up() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    prompt = moot.ask("ann", fixed(1, 1))
    job = moot.devices[DeviceId("bob")].running
    assert job is not None
    assert moot.tell("ann", StreamLost(DeviceId("zed"), job[0])) == []
    moot.lost = lambda s, t, m: s == "bob" or t == "bob"
    for _ in range(5):
        moot.tell("ann", StreamLost(DeviceId("bob"), job[0]))
    moot.work()
    assert any("could not be opened" in (j.error or "") for j in answered(moot, prompt).provenance.jobs)


def test_doubled_and_reordered_messages_change_nothing() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    moot.ask("ann", fixed(1, 1))
    bob, (job, _) = DeviceId("bob"), moot.devices[DeviceId("bob")].running  # type: ignore[misc]
    tell = lambda m: moot.tell("ann", Received(bob, m))  # noqa: E731
    assert tell(Piece(job, 5, "later")) == []
    tell(Piece(job, 0, "hello"))
    assert tell(Piece(job, 0, "hello")) == []
    tell(Piece(job, 3, "lo wor"))
    assert tell(Piece(job, 9, "")) == []
    asked = tell(Answer(job, 11, 0.0, Usage()))
    assert Send(bob, Poll(job, 9)) in asked
    tell(Piece(job, 9, "ld"))
    tell(Answer(job, 11, 0.0, Usage()))
    assert tell(Answer(job, 11, 0.0, Usage())) == []
    moot.write("ann", "x")
    running = moot.devices[DeviceId("ann")].running
    assert running is not None
    assert "hello world" in running[1].answers


def test_shorter_than_its_own_text_is_a_lie() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    prompt = moot.ask("ann", fixed(1, 1))
    job = moot.devices[DeviceId("bob")].running
    assert job is not None
    moot.tell("ann", Received(DeviceId("bob"), Piece(job[0], 0, "hello")))
    moot.tell("ann", Received(DeviceId("bob"), Answer(job[0], 2, 0.0, Usage())))
    moot.work()
    assert Outcome.FAILED in {j.outcome for j in answered(moot, prompt).provenance.jobs}


def test_endless_answer_is_cut_off() -> None:
    moot = Moot({"ann": "m", "bob": "m"}, PeerConfig(mixture=MixtureConfig(max_characters=20)))
    prompt = moot.ask("ann", fixed(1, 1))
    moot.write("bob", "x" * 21, whole=False)
    assert moot.devices[DeviceId("bob")].running is None
    moot.work()
    assert Outcome.FAILED in {j.outcome for j in answered(moot, prompt).provenance.jobs}


def test_nobody_answers_for_another() -> None:
    moot = Moot(FOUR)
    moot.ask("ann", fixed(1, 1, select=("bob",)))
    job = moot.devices[DeviceId("bob")].running
    assert job is not None
    for message in (Piece(job[0], 0, "lies"), Answer(job[0], 0, 0.0, Usage())):
        assert moot.tell("ann", Received(DeviceId("cid"), message)) == []
    moot.tell("bob", Received(DeviceId("cid"), Cancel(job[0])))
    assert moot.devices[DeviceId("bob")].running == job
    [reply] = moot.tell("bob", Received(DeviceId("cid"), Poll(job[0], 0)))
    assert isinstance(reply, Send)
    assert isinstance(reply.message, Undone)


# ---- a device's queue --------------------------------------------------------------------------------


def job_of(number: int, answers: tuple[str, ...] = ()) -> Ask:
    prompt = PromptId(f"{number:032x}")
    stage = Stage.REFINE if answers else Stage.PROPOSE
    return Ask(job_id(prompt, 1, 1), prompt, 1, stage, Inference(prompt, (Turn("user", "x"),), answers, 2))


def test_cancel_may_overtake_its_question() -> None:
    moot = Moot({"ann": "m"})
    zed, ask = DeviceId("zed"), job_of(1)
    moot.tell("ann", Received(zed, Cancel(ask.job)))
    assert moot.tell("ann", Received(zed, ask)) == []
    assert moot.devices[DeviceId("ann")].peer.idle


def test_remembered_cancellations_are_bounded() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(cancelled_kept=2)))
    zed = DeviceId("zed")
    for number in range(3):
        moot.tell("ann", Received(zed, Cancel(job_of(number).job)))
    assert moot.tell("ann", Received(zed, job_of(0))) != []
    assert moot.tell("ann", Received(zed, job_of(2))) == []


def test_waiting_job_is_cancelled_and_polled() -> None:
    moot = Moot({"ann": "m"})
    zed = DeviceId("zed")
    for number in (1, 2, 3):
        moot.tell("ann", Received(zed, job_of(number)))
    third = job_of(3).job
    queued = Queued(third, 2)
    assert [e.message for e in moot.tell("ann", Received(zed, Poll(third, 0)))] == [queued]  # type: ignore[union-attr]
    assert [e.message for e in moot.tell("ann", Received(zed, job_of(3)))][:1] == [queued]  # type: ignore[union-attr]
    moot.tell("ann", Received(zed, Cancel(job_of(2).job)))
    assert moot.devices[DeviceId("ann")].peer.queue.waiting == 1
    with pytest.raises(KeyError):
        moot.devices[DeviceId("ann")].peer.queue.origin_of(JobId("none"))


def test_finished_text_is_kept_for_a_while() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(keep_jobs=2, keep_s=5.0)))
    zed = DeviceId("zed")
    for number in (1, 2, 3):
        moot.tell("ann", Received(zed, job_of(number)))
        moot.write("ann", f"text {number}")

    def kinds(number: int) -> list[type]:
        effects = moot.tell("ann", Received(zed, Poll(job_of(number).job, 0)))
        return [type(e.message) for e in effects if isinstance(e, Send)]

    assert kinds(1) == [Undone]
    assert kinds(3) == [Began, Piece, Answer]
    moot.tell("ann", Received(zed, Cancel(job_of(3).job)))
    moot.pass_time(6.0)
    assert kinds(3) == [Undone]


def test_prefill_yields_to_jobs_and_goes_on_afterwards() -> None:
    moot = Moot({"ann": "m"})
    zed, ann = DeviceId("zed"), moot.devices[DeviceId("ann")]
    inference = job_of(1).inference
    moot.tell("ann", Received(zed, Prepare(inference)))
    assert ann.warming == inference
    moot.tell("ann", Received(zed, job_of(2)))
    assert ann.running is not None
    assert ann.warming is None
    moot.write("ann")
    assert ann.warming == inference
    more = type(inference)(inference.prompt, inference.conversation, ("one",), 2)
    moot.tell("ann", Received(zed, Prepare(more)))
    ann.warming = None
    moot.tell("ann", Warmed(inference.prompt, 9, 9))
    assert ann.warming == more
    ann.warming = None
    moot.tell("ann", Warmed(inference.prompt, 20, 20))
    assert ann.warming is None
    moot.tell("ann", Received(zed, Prepare(inference)))
    moot.tell("ann", Received(DeviceId("yon"), Prepare(more)))
    assert ann.warming is None
    assert moot.tell("ann", Warmed(PromptId("other"), 1, 1)) == []


def test_prefill_ends_with_its_prompt_its_job_or_its_asker() -> None:
    moot = Moot({"ann": "m", "zed": "m"})
    ann = moot.devices[DeviceId("ann")]
    ask = job_of(1, ("one",))
    moot.tell("ann", Received(DeviceId("zed"), Prepare(ask.inference)))
    moot.tell("ann", Received(DeviceId("zed"), ask))
    moot.write("ann")
    assert ann.warming is None
    moot.tell("ann", Received(DeviceId("zed"), Prepare(job_of(2).inference)))
    assert ann.warming is not None
    moot.kill("zed")
    assert ann.warming is None


def test_prefill_of_a_prompt_without_news_gives_way() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(keep_s=5.0)))
    ann = moot.devices[DeviceId("ann")]
    one, two = (job_of(number).inference for number in (1, 2))
    moot.tell("ann", Received(DeviceId("zed"), Prepare(one)))
    moot.pass_time(4.0)
    moot.tell("ann", Received(DeviceId("yon"), Prepare(two)))
    assert ann.warming == one
    moot.pass_time(2.0)
    moot.tell("ann", Received(DeviceId("yon"), Prepare(two)))
    assert ann.warming == two


def test_a_layer_s_last_answer_is_prefilled_while_it_is_written() -> None:
    moot = Moot(FOUR)
    ann = moot.devices[DeviceId("ann")]
    moot.ask("ann", fixed(1, 3))
    moot.write("bob", "bob says" + " so" * 100, whole=False)
    assert ann.warming is None
    for name in ("ann", "cid"):
        moot.write(name, f"from {name}")

    def next_step() -> tuple[str, ...] | None:
        assert ann.warming is not None
        done, ann.warming = ann.warming, None
        moot.tell("ann", Warmed(done.prompt, 9, 9))
        return None if ann.warming is None else ann.warming.answers

    moot.write("dot", "x" * 200, whole=False)
    assert next_step() == ("from ann", "from cid")
    assert next_step() is None, "bob's answer or dot's may end first"
    moot.write("bob", "")
    moot.write("dot", "y" * 100, whole=False)
    assert ann.warming is not None
    assert next_step() == (*("from ann", "from cid"), "bob says" + " so" * 100, "x" * 200 + "y" * 100)
    moot.write("dot", "z" * 159, whole=False)
    assert next_step() is None, "too little to be worth a step"
    moot.write("dot", "z", whole=False)
    assert ann.warming is not None
    moot.write("dot")
    assert ann.running is not None
    assert ann.running[1].answers[3] == "x" * 200 + "y" * 100 + "z" * 160 + "because"


def test_who_prepares_what() -> None:
    moot = Moot(FOUR)
    sent: list[tuple[str, str, int]] = []

    def note(sender: str, to: str, message: object) -> bool:
        if isinstance(message, Prepare):
            sent.append((sender, to, len(message.inference.answers)))
        return False

    moot.lost = note
    prompt = moot.ask("ann", fixed(2, 2, select=("bob", "cid"), aggregator="fixed:bob"))
    moot.work()
    assert answered(moot, prompt)
    assert {(s, t) for s, t, _ in sent} <= {("ann", "bob"), ("ann", "cid")}
    assert {n for _, _, n in sent} >= {0, 1, 2}


def test_jobs_of_an_origin_that_is_gone_are_dropped() -> None:
    moot = Moot(FOUR)
    moot.ask("bob", fixed(1, 3))
    moot.ask("bob", fixed(1, 3))
    moot.kill("bob")
    assert all(device.running is None and device.peer.idle for device in moot.devices.values())


def test_shutting_down_hands_back_and_takes_nothing() -> None:
    moot = Moot(FOUR)
    first = moot.ask("ann", fixed(1, 1, select=("bob",)))
    second = moot.ask("cid", fixed(1, 1, select=("bob",)))
    moot.tell("bob", Leaving())
    moot.deliver()
    assert failed(moot, moot.ask("bob")).code == "no_device"
    moot.work()
    assert len(jobs_of(answered(moot, first).provenance)) == 3
    told = answered(moot, second).provenance
    assert Outcome.REFUSED in {job.outcome for job in told.jobs}
    assert moot.devices[DeviceId("bob")].peer.idle
    third = moot.ask("dot", fixed(1, 1, select=("bob",)))
    moot.work()
    assert answered(moot, third)


def test_stopping_ends_what_is_left() -> None:
    moot = Moot(FOUR)
    own = moot.ask("bob", fixed(1, 1, select=("ann",)))
    other = moot.ask("cid", fixed(1, 1, select=("bob",)))
    moot.write("bob")
    moot.tell("bob", Stopping())
    moot.deliver()
    assert failed(moot, own).code == "no_device"
    moot.work()
    assert answered(moot, other)


def test_engine_that_comes_up_later() -> None:
    moot = Moot({"ann": "", "bob": "m"})
    assert failed(moot, moot.ask("ann", Plan(mode="local"))).code == "no_device"
    refused = moot.tell("ann", Received(DeviceId("zed"), job_of(1)))
    assert isinstance(refused[0], Send)
    assert isinstance(refused[0].message, Undone)
    moot.tell("ann", CardChanged(Card("ann", "m", 4096, 1.0, "x")))
    prompt = moot.ask("ann", Plan(mode="local"))
    moot.work()
    assert answered(moot, prompt)


def test_load_is_told_and_prompts_can_be_read() -> None:
    moot = Moot(FOUR)
    peer = moot.devices[DeviceId("ann")].peer
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.write("bob")
    assert tuple(peer.prompts) == (prompt,)
    assert peer.buffer == 1
    assert peer.membership.members[DeviceId("ann")].pulse.busy == 1
    moot.work()
    assert peer.queue.service_s == pytest.approx(1.0)
    seen = [n for n in moot.devices[DeviceId("ann")].notices if isinstance(n, JobProgress | PromptAccepted)]
    assert {"asked", "queued", "began", "writing", "ok"} <= {
        n.state for n in seen if isinstance(n, JobProgress)
    }
    assert peer.address_of(DeviceId("bob")) == "at-bob"


def test_unknown_device_has_a_row_all_the_same() -> None:
    moot = Moot(FOUR)
    choice = Choice(DeviceId("ann"), moot.devices[DeviceId("ann")].peer.membership)
    assert choice.row(DeviceId("zed-of-nowhere")).name == "zed-of-n"
    assert not choice.serves(DeviceId("zed"))
    assert choice.find("bob") == "bob"
    assert choice.others((), Random(1))


@pytest.mark.parametrize(("layers", "proposers", "jobs"), [(0, 0, 1), (1, 3, 5), (2, 2, 7), (3, 2, 10)])
def test_load_of_the_theorem(layers: int, proposers: int, jobs: int) -> None:
    assert jobs_per_prompt(layers, proposers) == jobs
    rate = limit_rate(2.0, layers, proposers)
    assert offered_load(2.0, rate, layers, proposers) == pytest.approx(1.0)


def test_load_outside_its_range() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        jobs_per_prompt(-1, 0)
    with pytest.raises(ValueError, match="> 0"):
        limit_rate(0.0, 1, 1)
