"""One prompt between its acceptance and its end: what goes wrong at other devices, state by state."""

from __future__ import annotations

import pytest
from tests.core.world import Moot

from folkmoot.core.events import (
    Chill,
    Generate,
    JobProgress,
    Plan,
    PromptAnswered,
    PromptFailed,
    Received,
    Send,
    Warm,
)
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import Ask, Cancel, Outcome, Sampling, Undone
from folkmoot.core.mixture import jobs_of
from folkmoot.core.peer import PeerConfig
from folkmoot.core.queue import QueueConfig

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


def busy(moot: Moot) -> list[str]:
    return [name for name, device in moot.devices.items() if device.running is not None]


# ---- a device that does not do what it was asked -----------------------------------------------------


def test_device_that_knows_no_job_whenever_it_is_asked_is_given_up() -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"})
    bob = DeviceId("bob")
    moot.lost = lambda sender, to, message: to == "bob"
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    for _ in range(10):
        asks = [e for e in moot.devices[DeviceId("ann")].effects if isinstance(e, Send) and e.to == "bob"]
        assert isinstance(asks[0].message, Ask)
        job = asks[0].message.job
        moot.tell("ann", Received(bob, Undone(job, Outcome.FAILED, "unknown_job", "no such job")))
        moot.pass_time(2.0)
    moot.work()
    assert answered(moot, prompt).provenance.rounds[0].stood_in == {"bob": "cid"}


# ---- a requester's place -----------------------------------------------------------------------------


def test_the_next_layer_does_not_ask_a_dead_stand_in_for_the_requester() -> None:
    moot = Moot({"req": "", **FOUR, "eve": "m5"})
    prompt = moot.ask("req", fixed(2, 2))
    sends = [e for e in moot.devices[DeviceId("req")].effects if isinstance(e, Send)]
    first = next(e.to for e in sends if isinstance(e.message, Ask))
    for name in busy(moot):
        if name != first:
            moot.write(name)
    moot.kill(first)
    moot.work()
    told = answered(moot, prompt).provenance
    assert [job.outcome for job in told.jobs if job.device == first] == [Outcome.FAILED]
    assert [len({*row.asked}) for row in told.rounds] == [3, 3]
    assert len(jobs_of(told)) == 7
    later = [job for job in told.jobs if job.layer > 1 and job.stands_in_for is not None]
    assert len(later) == 2
    assert any(f"in place of {first}" in each.what for each in told.decisions)


def test_self_refinement_whose_only_device_is_gone_goes_on_elsewhere() -> None:
    moot = Moot({"req": "", "ann": "m", "bob": "m"})
    prompt = moot.ask("req", fixed(3, 0))
    [first] = busy(moot)
    moot.kill(first)
    moot.work()
    told = answered(moot, prompt).provenance
    other = "bob" if first == "ann" else "ann"
    assert [row.asked for row in told.rounds] == [(first,), (other,), (other,)]
    assert [job.device for job in jobs_of(told)] == [other] * 4


def test_layers_without_any_device_are_left_out() -> None:
    moot = Moot({"req": "", "ann": "m"})
    prompt = moot.ask("req", fixed(3, 0))
    moot.kill("ann")
    end = failed(moot, prompt)
    assert end.code == "no_device"
    assert end.provenance is not None
    assert len(end.provenance.jobs) == 1


# ---- load --------------------------------------------------------------------------------------------


def full(names: dict[str, str], *fuller: str) -> Moot:
    """A moot with queues of one place, full on some devices."""
    moot = Moot(names, PeerConfig(queue=QueueConfig(max_waiting=1)))
    for name in fuller:
        for _ in range(2):
            moot.ask(name, Plan(mode="local"))
    return moot


def test_a_fixed_plan_is_refused_rather_than_shrunk_by_load() -> None:
    moot = full(FOUR, "bob")
    prompt = moot.ask("ann", fixed(1, 3))
    end = failed(moot, prompt)
    assert end.code == "overloaded"
    assert "bob" in end.detail
    assert busy(moot) == ["bob"]


def test_a_full_device_is_stood_in_for_where_another_is_there() -> None:
    moot = full({**FOUR, "eve": "m5"}, "bob")
    prompt = moot.ask("ann", fixed(1, 3, select=("bob", "cid", "dot")))
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].stood_in == {"bob": "eve"}
    assert [job.outcome for job in told.jobs if job.device == "bob"] == [Outcome.REFUSED]


@pytest.mark.parametrize("plan", [Plan(), fixed(1, 3, quorum=3)])
def test_auto_and_a_quorum_do_without_the_full(plan: Plan) -> None:
    moot = full(FOUR, "bob")
    prompt = moot.ask("ann", plan)
    moot.work()
    assert "bob" not in answered(moot, prompt).provenance.rounds[0].answered


def test_a_quorum_that_load_puts_out_of_reach_is_refused() -> None:
    moot = full(FOUR, "bob", "cid")
    prompt = moot.ask("ann", fixed(1, 3, quorum=3))
    assert failed(moot, prompt).code == "overloaded"


# ---- who is drawn ------------------------------------------------------------------------------------


def test_a_layer_drawn_ahead_is_filled_up_with_those_who_came_since() -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": ""})
    prompt = moot.ask("ann", fixed(2, 2))
    member = moot.devices[DeviceId("ann")].peer.membership.members
    cid = member[DeviceId("cid")]
    member[DeviceId("cid")] = type(cid)(
        cid.device, 1, cid.standing, type(cid.card)("cid", "m", 4096, 1.0, "at-cid")
    )
    moot.devices[DeviceId("cid")].peer.queue.has_engine = True
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].asked == ("ann", "bob")
    assert sorted(told.rounds[1].asked) == ["ann", "bob", "cid"]


# ---- a device dies, whatever it was at -----------------------------------------------------------------

STATES = ("asked", "queued", "began", "writing", "answered")


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("state", STATES)
def test_a_peer_dies_in_each_state(state: str, layer: int) -> None:
    """Another stands in; only who had answered is not replaced, for its answer counts."""
    moot = Moot({**FOUR, "eve": "m"})
    ann = moot.devices[DeviceId("ann")]

    def make_way() -> None:
        """What comes before the question that bob is to be at when he dies."""
        if state == "asked":
            moot.lost = lambda sender, to, message: to == "bob"
        if state == "queued":
            moot.ask("bob", Plan(mode="local"))

    if layer == 1:
        make_way()
    prompt = moot.ask("ann", fixed(2, 2, select=("bob", "cid")))
    if layer == 2:
        moot.write("ann")
        moot.write("bob")
        make_way()
        moot.write("cid")
    if state in ("writing", "answered"):
        moot.write("bob", "half of it", whole=state == "answered")
    told_of_bob = [
        n.state for n in ann.notices if isinstance(n, JobProgress) and (n.device, n.layer) == ("bob", layer)
    ]
    assert told_of_bob[-1] == ("ok" if state == "answered" else state)
    moot.kill("bob")
    moot.work()
    told = answered(moot, prompt).provenance
    row = told.rounds[layer - 1]
    if state == "answered":
        assert row.stood_in == {}
        assert "bob" in row.answered
    else:
        assert list(row.stood_in) == ["bob"]
        assert row.stood_in["bob"] in ("dot", "eve")
        assert [j.outcome for j in told.jobs if (j.device, j.layer) == ("bob", layer)] == [Outcome.FAILED]
        assert any("stands in for bob" in each.what for each in told.decisions)
    assert len([j for j in jobs_of(told) if j.layer == layer]) == 3
    assert ("bob" in told.rounds[1].asked) == (layer == 2), "a peer that is gone is not asked again"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("written", ["", "It is"])
def test_an_aggregator_whose_engine_breaks(written: str, stream: bool) -> None:
    """Before its first words, and where nobody has seen them, another aggregates; else the answer is cut."""
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",), aggregator="fixed:dot"), stream=stream)
    moot.write("ann")
    moot.write("bob")
    moot.write("dot", written, whole=False)
    moot.break_engine("dot", "weights")
    moot.work()
    if written and stream:
        end = failed(moot, prompt)
        assert end.code == "answer_cut"
        assert end.provenance is not None
        assert end.provenance.jobs[-1].outcome is Outcome.FAILED
    else:
        told = answered(moot, prompt)
        assert told.answer == "ann says so"
        assert [(j.device, j.outcome, j.stands_in_for) for j in told.provenance.jobs[-2:]] == [
            ("dot", Outcome.FAILED, None),
            ("ann", Outcome.OK, "dot"),
        ]


def test_an_aggregation_that_nobody_can_do_ends_with_the_last_reason() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 3))
    for name in ("ann", "bob", "cid", "dot"):
        moot.write(name)
    for _ in range(3):
        [name] = busy(moot)
        moot.break_engine(name, "weights")
    end = failed(moot, prompt)
    assert end.code == "no_device"
    assert "it broke" in end.detail
    assert end.provenance is not None
    tried = [job.device for job in end.provenance.jobs if job.layer == 2]
    assert tried[0] == "ann"
    assert len({*tried}) == len(tried) == 3


def test_all_devices_gone_but_a_requester_ends_it() -> None:
    """The device in its place dies between the last answer and the aggregation that was to follow."""
    moot = Moot({"req": "", "ann": "m"})
    prompt = moot.ask("req", fixed(1, 0, aggregator="fixed:ann"))
    moot.write("ann", "half", whole=False)
    moot.kill("ann")
    end = failed(moot, prompt)
    assert end.code == "no_device"
    assert "no live device" in end.detail


# ---- options -------------------------------------------------------------------------------------------


def test_what_a_quorum_leaves_out_is_cancelled_and_recorded_late() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(2, 3, quorum=2))
    cancelled: list[DeviceId] = []

    def note(sender: DeviceId, to: DeviceId, message: object) -> bool:
        if isinstance(message, Cancel):
            cancelled.append(to)
        return False

    moot.lost = note
    moot.write("bob", "")
    moot.write("cid", "first")
    assert cancelled == [], "an empty answer makes no quorum"
    moot.write("ann", "second")
    assert cancelled == ["dot"]
    running = {name: moot.devices[DeviceId(name)].running for name in FOUR}
    assert all(each is not None and each[1].answers == ("first", "second") for each in running.values())
    moot.work()
    told = answered(moot, prompt).provenance
    assert [(j.device, j.outcome) for j in told.jobs if j.layer == 1 and j.outcome is Outcome.LATE] == [
        ("dot", Outcome.LATE)
    ]
    assert told.rounds[0].answered == ("cid", "ann")


@pytest.mark.parametrize("state", ["propose", "aggregate"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_deadline_also_cuts_what_is_being_shown(state: str, stream: bool) -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",), deadline_s=1.5), stream=stream)
    if state == "aggregate":
        moot.write("ann")
        moot.write("bob")
        moot.write("ann", "It", whole=False)
    moot.pass_time(1.6)
    assert failed(moot, prompt).code == "deadline"
    assert busy(moot) == []
    moot.pass_time(60.0)
    assert failed(moot, prompt).code == "deadline"


def test_jobs_of_one_model_are_drawn_with_seeds_of_their_own() -> None:
    """All jobs of a prompt, stand-ins included; at M = 0 the user's seed is the job's."""
    moot = Moot(dict.fromkeys(("ann", "bob", "cid", "dot", "eve"), "m"))
    moot.ask("ann", fixed(3, 3, select=("bob", "cid", "dot")), sampling=Sampling(seed=5, stop=("END",)))
    moot.break_engine("bob", "weights")
    moot.work()
    run = [e for device in moot.devices.values() for e in device.effects if isinstance(e, Generate)]
    assert len(run) == 14
    assert len({e.inference.sampling.seed for e in run}) == 14
    stops = {e.job.split(".", 1)[1]: e.inference.sampling.stop for e in run}
    assert {job for job, stop in stops.items() if stop} == {"4.0.0"}
    alone = Moot({"ann": "m"})
    alone.ask("ann", Plan(mode="local"), sampling=Sampling(seed=5))
    running = alone.devices[DeviceId("ann")].running
    assert running is not None
    assert running[1].sampling.seed == 5
    assert running[1].expected == 0


def test_a_job_never_waits_for_a_prefill_step() -> None:
    """The step is told to stop in the same breath in which the job is given to the engine."""
    moot = Moot(FOUR)
    moot.ask("ann", fixed(1, 3))
    moot.write("ann")
    ann = moot.devices[DeviceId("ann")]
    assert ann.warming is not None
    ann.effects.clear()
    moot.ask("ann", Plan(mode="local"))
    kinds = [type(e) for e in ann.effects if isinstance(e, Chill | Generate)]
    assert kinds == [Chill, Generate]
    assert ann.warming is None
    moot.write("bob")
    assert not [e for e in ann.effects if isinstance(e, Warm)], "no step beside a job"
    moot.write("ann")
    assert ann.warming is not None
    assert len(ann.warming.answers) == 2
