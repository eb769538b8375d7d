"""One prompt between its acceptance and its end: what goes wrong at other devices, state by state."""

from __future__ import annotations

import pytest
from tests.core.world import Moot

from folkmoot.core.events import Plan, PromptAnswered, PromptFailed, Received, Send
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import Ask, Outcome, Undone
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
    place = failed_over = busy(moot)
    told = [e.message for e in moot.devices[DeviceId("req")].effects if isinstance(e, Send)]
    asks = [message for message in told if isinstance(message, Ask)]
    first = next(
        e.to for e in moot.devices[DeviceId("req")].effects if isinstance(e, Send) and e.message is asks[0]
    )
    for name in place:
        if name != first:
            moot.write(name)
    moot.kill(first)
    moot.work()
    told = answered(moot, prompt).provenance
    assert failed_over
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
