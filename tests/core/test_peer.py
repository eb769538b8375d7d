"""The door: what a whole peer takes in and hands on to its three machines."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from random import Random

import pytest
from tests.core.world import FOUR, Moot, answered, failed, fixed

from folkmoot.core.events import (
    Abort,
    Announce,
    CardChanged,
    EngineFailed,
    Event,
    Finished,
    Generate,
    Generated,
    JobProgress,
    Leaving,
    Notice,
    Plan,
    Prompt,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Received,
    Send,
    Stopping,
    Submitted,
    Warmed,
    Withdrawn,
)
from folkmoot.core.gossip import Card, Standing
from folkmoot.core.ids import DeviceId, JobId, PromptId, prompt_of
from folkmoot.core.messages import (
    Answer,
    Ask,
    Cancel,
    Inference,
    Outcome,
    Piece,
    Prepare,
    Sampling,
    Turn,
    Undone,
    Usage,
)
from folkmoot.core.mixture import jobs_of
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.core.price import PriceConfig
from folkmoot.errors import LocalProtocolError
from folkmoot.sim.engine import Engine, EngineConfig
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.world import Device as Body
from folkmoot.sim.world import World

ANN, BOB = DeviceId("ann"), DeviceId("bob")


def local(moot: Moot) -> PromptId:
    return moot.ask("ann", Plan(mode="local"))


def test_peers_find_each_other_answer_together_and_learn_of_a_death() -> None:
    """Three whole devices in the virtual world, from the first contact on."""
    ids = [DeviceId(name) for name in ("ann", "bob", "cid")]
    ends: list[PromptAnswered] = []

    def observe(body: Body, notice: Notice, now: float) -> None:
        if isinstance(notice, PromptAnswered):
            ends.append(notice)

    world = World(1, LinkConfig(), observe=observe)
    peers = {}
    for device in ids:
        peers[device] = Peer(
            device, Card(device, "m", 4096, 1.0, f"at {device}"), 1, PeerConfig(), Random(device)
        )
        engine = Engine(lambda rng: 0.5, EngineConfig(), Random(f"engine of {device}"))
        contacts = () if device == "ann" else ((ANN, "at ann"),)
        world.spawn(device, f"at {device}", peers[device], contacts, engine=engine)
    world.run(3.0)
    assert {m.device for m in peers[ids[2]].membership.live()} == {*ids[:2]}
    prompt = Prompt(PromptId("p"), (Turn("user", "?"),), Plan("fixed", 1, 2))
    world.feed(ANN, Submitted(prompt))
    world.run(5.0)
    [told] = ends
    assert len(told.provenance.jobs) == 4
    world.crash(ids[2])
    world.run(12.0)
    assert peers[ANN].membership.members[ids[2]].standing is Standing.DEAD
    world.feed(ANN, Submitted(Prompt(PromptId("q"), (Turn("user", "?"),), Plan("fixed", 1, 2))))
    world.run(15.0)
    assert ends[1].provenance.rounds[0].asked == ("ann", "bob")


# ---- the engine's reports ----------------------------------------------------------------------------


def test_reports_about_no_job_in_service_count_for_nothing() -> None:
    moot = Moot({"ann": "m"})
    local(moot)
    running = moot.devices[ANN].running
    for job in (JobId("none"), JobId("p.1.0.0")):
        for event in (Generated(job, "x"), Finished(job, Usage()), EngineFailed(job, "engine_failed", "?")):
            assert moot.tell("ann", event) == []
    assert moot.tell("ann", Warmed(PromptId("none"), 1, 1)) == []
    assert moot.devices[ANN].running == running
    assert running is not None
    assert moot.tell("ann", Generated(running[0], "")) == []


@pytest.mark.parametrize("whole", [True, False])
def test_an_engine_that_ends_in_the_instant_of_its_abort_frees_the_device(whole: bool) -> None:
    """Between `Abort` and its report the job may still write, end or fail; nobody hears of it."""
    peer = Peer(ANN, Card("ann", "m", 4096, 1.0, "x"), 1, PeerConfig(), Random(1))
    first, second = (Prompt(PromptId(name), (Turn("user", "?"),), Plan(mode="local")) for name in ("p", "q"))
    [job] = [e.job for e in peer.handle(Submitted(first), 0.0) if isinstance(e, Generate)]
    assert not [e for e in peer.handle(Submitted(second), 0.1) if isinstance(e, Generate)]
    effects = peer.handle(Withdrawn(first.id), 1.0)
    assert [e.job for e in effects if isinstance(e, Abort)] == [job]
    assert not [e for e in effects if isinstance(e, Generate)], "the engine is not free yet"
    assert peer.handle(Generated(job, "late words"), 1.1) == []
    end = Finished(job, Usage()) if whole else EngineFailed(job, "engine_failed", "it broke")
    effects = peer.handle(end, 1.2)
    assert [e.inference.prompt for e in effects if isinstance(e, Generate)] == [second.id]
    assert not [e for e in effects if isinstance(e, Announce) and getattr(e.notice, "prompt", "") == first.id]
    assert [e for e in peer.handle(EngineFailed(job, "cancelled", "aborted"), 1.3)] == []


# ---- going ---------------------------------------------------------------------------------------------


def job_for_ann(number: int, answers: tuple[str, ...] = ()) -> Ask:
    moot = Moot({"ann": "m", "bob": "m"}, seed=number)
    moot.lost = lambda sender, to, message: True
    moot.ask("bob", Plan("fixed", 1, 1))
    [ask] = [
        e.message for e in moot.devices[BOB].effects if isinstance(e, Send) and isinstance(e.message, Ask)
    ]
    return ask


def test_leaving_hands_back_what_waits_for_others_and_finishes_the_rest() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    asks = [job_for_ann(number) for number in (1, 2, 3)]
    for ask in asks:
        moot.tell("ann", Received(BOB, ask))
    own = local(moot)
    effects = moot.tell("ann", Leaving())
    back = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Undone)]
    assert [(m.job, m.code) for m in back] == [(ask.job, "leaving") for ask in asks[1:]]
    assert not [e for e in effects if isinstance(e, Abort)]
    [refused] = [e.message for e in moot.tell("ann", Received(BOB, job_for_ann(4))) if isinstance(e, Send)]
    assert isinstance(refused, Undone)
    assert refused.code == "leaving"
    moot.devices[ANN].effects.clear()
    moot.write("ann", "for bob")
    sent = [e.message for e in moot.devices[ANN].effects if isinstance(e, Send)]
    assert [m.job for m in sent if isinstance(m, Answer)] == [asks[0].job]
    moot.write("ann", "for itself")
    assert isinstance(moot.end_of(own), PromptAnswered)
    assert moot.devices[ANN].peer.idle


def test_leaving_prefills_nothing_more() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    inference = job_for_ann(1).inference
    moot.tell("ann", Received(BOB, Prepare(inference)))
    assert moot.devices[ANN].warming == inference
    moot.tell("ann", Leaving())
    assert moot.devices[ANN].warming is None
    moot.tell("ann", Received(BOB, Prepare(Inference(PromptId("q"), inference.conversation))))
    assert moot.devices[ANN].warming is None


def test_stopping_when_nothing_is_to_be_done_only_says_farewell() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    effects = moot.tell("ann", Stopping())
    assert effects
    assert all(isinstance(e, Send) and e.to == "bob" for e in effects)


def test_stopping_gives_up_the_job_in_service_once() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    ask = job_for_ann(1)
    moot.tell("ann", Received(BOB, ask))
    effects = moot.tell("ann", Stopping())
    undone = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Undone)]
    assert [(m.job, m.code) for m in undone] == [(ask.job, "leaving")]
    assert len([e for e in effects if isinstance(e, Abort)]) == 1
    assert moot.devices[ANN].peer.idle


def test_stopping_withdraws_own_prompts_everywhere() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    prompts = [moot.ask("ann", Plan("fixed", 1, 1)) for _ in range(3)]
    moot.tell("ann", Stopping())
    moot.deliver()
    for prompt in prompts:
        end = moot.end_of(prompt)
        assert isinstance(end, PromptFailed)
        assert end.code == "no_device"
    assert all(device.peer.idle and device.running is None for device in moot.devices.values())


# ---- others' deaths ------------------------------------------------------------------------------------


def test_a_dead_origin_s_jobs_make_room() -> None:
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"})
    running, waiting = job_for_ann(1), job_for_ann(2)
    for ask in (running, waiting):
        moot.tell("ann", Received(BOB, ask))
    own = local(moot)
    moot.kill("bob")
    assert moot.devices[ANN].peer.queue.waiting == 0
    now = moot.devices[ANN].running
    assert now is not None
    assert prompt_of(now[0]) == own
    moot.work()
    assert isinstance(moot.end_of(own), PromptAnswered)


def test_card_without_a_model_takes_no_jobs_until_it_has_one_again() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    moot.tell("ann", CardChanged(Card("ann", "", 0, 0.0, "x")))
    prompt = moot.ask("ann", Plan("fixed", 1, 1))
    moot.work()
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered)
    assert {job.device for job in end.provenance.jobs} == {"bob"}
    assert {job.stands_in_for for job in end.provenance.jobs} == {"ann"}


def test_pieces_for_nobody_are_nobody_s() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    for message in (Piece(JobId("none.1.1.0"), 0, "x"), Cancel(JobId("none.1.1.0"))):
        assert moot.tell("ann", Received(BOB, message)) == []


def test_prompts_of_one_device_are_bounded() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(max_prompts=2))
    ends = [moot.end_of(moot.ask("ann", Plan(mode="local"))) for _ in range(3)]
    assert ends[:2] == [None, None]
    assert isinstance(ends[2], PromptFailed)
    assert ends[2].code == "overloaded"
    moot.work()
    assert moot.devices[DeviceId("ann")].peer.idle


def test_same_id_twice_is_our_own_bug() -> None:
    moot = Moot({"ann": "m"})
    prompt = moot.ask("ann", Plan(mode="local"))
    with pytest.raises(LocalProtocolError, match="twice"):
        moot.tell("ann", Submitted(Prompt(prompt, (Turn("user", "x"),))))


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
    refused = moot.tell("ann", Received(BOB, job_for_ann(1)))
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
    assert peer.queue.meter.service_s == pytest.approx(1.0)
    seen = [n for n in moot.devices[DeviceId("ann")].notices if isinstance(n, JobProgress | PromptAccepted)]
    assert {"asked", "queued", "began", "writing", "ok"} <= {
        n.state for n in seen if isinstance(n, JobProgress)
    }
    assert peer.address_of(DeviceId("bob")) == "at-bob"


def test_stopping_hands_back_what_waits_for_others() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    asks = [job_for_ann(number) for number in (1, 2, 3)]
    for ask in asks:
        moot.tell("ann", Received(BOB, ask))
    effects = moot.tell("ann", Stopping())
    undone = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Undone)]
    assert sorted((m.job, m.code) for m in undone) == sorted((ask.job, "leaving") for ask in asks)
    assert moot.devices[ANN].peer.idle


def test_a_prompt_is_refused_where_so_many_jobs_wait_at_its_own_device() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(admit_waiting=1))
    first, second = moot.ask("ann", fixed(0)), moot.ask("ann", fixed(0))
    third = moot.ask("ann", fixed(0))
    end = moot.end_of(third)
    assert isinstance(end, PromptFailed)
    assert (end.code, "bound for new prompts is 1" in end.detail) == ("overloaded", True)
    moot.work()
    assert all(isinstance(moot.end_of(prompt), PromptAnswered) for prompt in (first, second))


PRICED = PeerConfig(price=PriceConfig(enabled=True, pressure=6.0))


def asked(moot: Moot, plan: Plan, **more: object) -> tuple[int, int] | PromptFailed:
    """(M, k) of a prompt that was let in, or why it was not."""
    prompt = moot.ask("ann", plan, **more)
    end = moot.end_of(prompt)
    if isinstance(end, PromptFailed):
        return end
    [accepted] = [
        n for n in moot.devices[ANN].notices if isinstance(n, PromptAccepted) and n.prompt == prompt
    ]
    return accepted.layers, accepted.proposers


def test_auto_asks_for_less_the_more_there_is_to_do_and_at_last_refuses() -> None:
    moot = Moot(FOUR, PeerConfig(price=replace(PRICED.price, returning=1.0)))
    found = [asked(moot, Plan()) for _ in range(12)]
    assert found[0] == (2, 3)
    let_in = [each for each in found if not isinstance(each, PromptFailed)]
    assert sorted(let_in, reverse=True) == let_in
    assert let_in[-1] == (0, 0)
    refused = found[len(let_in) :]
    assert refused
    for end in refused:
        assert isinstance(end, PromptFailed)
        assert end.code == "overloaded"
        assert "M = 0: the origin answers alone is worth 22 and costs" in end.detail
    moot.work()
    assert asked(moot, Plan()) != (0, 0)


def test_a_price_is_told_with_its_numbers() -> None:
    moot = Moot(FOUR, PRICED)
    prompt = moot.ask("ann", Plan())
    moot.work()
    [decision, *_] = answered(moot, prompt).provenance.decisions
    assert decision.what == "M = 2, k = 3"
    assert decision.why.startswith(
        "worth 41, price 0.0 (own 3 x 0.0, peers 2 x (0.0 + 0.0 + 0.0)); runner-up M = 1"
    )


def test_fixed_is_let_in_as_it_is_or_not_at_all() -> None:
    moot = Moot(FOUR, PRICED)
    found = [asked(moot, fixed(2, 3)) for _ in range(4)]
    let_in = [each for each in found if not isinstance(each, PromptFailed)]
    assert let_in == [(2, 3)] * len(let_in)
    assert 1 <= len(let_in) < 4
    assert asked(moot, Plan(mode="local")) == (0, 0)


def test_where_something_was_served_a_refusal_says_when_to_come_again() -> None:
    moot = Moot({"ann": "m"}, PRICED)
    asked(moot, Plan())
    moot.write("ann")
    ends = [asked(moot, Plan()) for _ in range(12)]
    end = ends[-1]
    assert isinstance(end, PromptFailed)
    assert end.retry_s > 0
    assert re.search(
        r"pressure \d+\.\d of 7\.5 on this device; retry in .* s \(0 before you, .* admitted/s\)", end.detail
    )


def test_a_deadline_that_cannot_be_kept_is_told() -> None:
    moot = Moot(FOUR, PRICED)
    for plan, expected in (
        (Plan(mode="local"), (0, 0)),
        (Plan(deadline_s=60.0), (2, 3)),
        (Plan(deadline_s=2.5), (0, 0)),
    ):
        assert asked(moot, plan) == expected
        moot.work()
        moot.pass_time(100.0)
    end = asked(moot, Plan(deadline_s=1.0))
    assert isinstance(end, PromptFailed)
    assert "the deadline of 1 s cannot be kept: M = 0" in end.detail
    assert (end.code, end.retry_s) == ("deadline", 0.0), (
        "idle devices could not keep it: nobody is told to come again"
    )
    asked(moot, Plan(mode="local"))
    busy = asked(moot, Plan(mode="local", deadline_s=2.5))
    assert isinstance(busy, PromptFailed)
    assert busy.code == "overloaded"
    assert busy.retry_s > 0.0
    moot.work()
    moot.pass_time(100.0)
    assert (
        "the deadline of 1 s cannot be kept"
        in asked(moot, Plan(deadline_s=1.0), sampling=Sampling(max_tokens=5)).detail
    )
    assert asked(moot, Plan(deadline_s=1.0), sampling=Sampling(max_tokens=1)) == (0, 0), (
        "a short answer is sooner there"
    )


def test_without_loopback_a_device_leaves_messages_to_itself_to_the_driver() -> None:
    ways: list[list[str]] = []
    for loopback in (True, False):
        peer = Peer(DeviceId("ann"), Card("ann", "m"), 1, PeerConfig(), Random(1))
        prompt = Prompt(PromptId("0" * 32), (Turn("user", "?"),), fixed(0))
        events, seen = deque[Event]([Submitted(prompt)]), list[str]()
        while events:
            for effect in peer.handle(events.popleft(), 0.0, loopback=loopback):
                match effect:
                    case Send(to=to, message=message):
                        assert (to == peer.me) is not loopback
                        events.append(Received(to, message))
                    case Generate(job=job):
                        seen.append(job)
                        events += [Generated(job, "x"), Finished(job, Usage())]
                    case Announce(notice=PromptAnswered(answer=answer)):
                        seen.append(answer)
        ways.append(seen)
    assert ways[0] == ways[1] == [f"{'0' * 32}.1.0.0", "x"]
