"""Copies of late jobs: their budget, what is late, and that the first answer counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.world import FOUR, Moot, answered, failed, fixed

from folkmoot.core.breaker import BreakerConfig
from folkmoot.core.events import AnswerText, Fired, LateTimer, Plan, Received, Send, SetTimer
from folkmoot.core.gossip import Pulse
from folkmoot.core.hedge import HedgeConfig, Hedges
from folkmoot.core.ids import DeviceId, job_id
from folkmoot.core.messages import Ask, Cancel, Outcome, Stage, Undone
from folkmoot.core.peer import PeerConfig
from folkmoot.core.price import PriceConfig, enough

ANN, BOB, CID, DOT = (DeviceId(name) for name in FOUR)
HEDGING = PeerConfig(hedge=HedgeConfig(share=0.05), breaker=BreakerConfig(failures=3))
WORD_S = HEDGING.hedge.first_word_s + 0.01


# ---- the budget ----------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=400), st.sampled_from((0.01, 0.05, 0.5)), st.booleans())
def test_copies_never_exceed_their_share(wanted: list[bool], share: float, silent: bool) -> None:
    hedges = Hedges(HedgeConfig(share=share))
    copies = 0
    for jobs, hedge in enumerate(wanted, start=1):
        hedges.asked()
        copies += hedge and hedges.take(silent=silent)
        assert copies <= 1.0 + share * jobs + 1e-9


def test_what_is_saved_up_is_bounded() -> None:
    hedges = Hedges(HedgeConfig(share=0.5, burst=2.0))
    for _ in range(100):
        hedges.asked()
    assert [hedges.take(silent=True) for _ in range(3)] == [True, True, False]


def test_half_of_what_is_saved_up_is_kept_for_the_silent() -> None:
    hedges = Hedges(HedgeConfig(share=0.5, burst=4.0))
    for _ in range(100):
        hedges.asked()
    assert [hedges.take(silent=False) for _ in range(3)] == [True, True, False]
    assert [hedges.take(silent=True) for _ in range(3)] == [True, True, False]


def test_the_wait_for_a_word_follows_what_the_peer_took_before() -> None:
    hedges = Hedges(HedgeConfig(share=0.05))
    assert hedges.patience_s(BOB, 0) == 1.0
    for _ in range(50):
        hedges.word(BOB, 0.3)
    steady = hedges.patience_s(BOB, 0)
    assert steady == 0.5
    for seconds in (0.1, 0.9) * 10:
        hedges.word(BOB, seconds)
    assert hedges.patience_s(BOB, 0) > 1.0
    assert hedges.patience_s(BOB, 400_000) == pytest.approx(hedges.patience_s(BOB, 0) + 4.0)
    hedges.forget(BOB)
    assert hedges.patience_s(BOB, 0) == 1.0


# ---- silence -------------------------------------------------------------------------------------------


def deaf(moot: Moot, *names: str) -> None:
    """Messages to and from these devices are lost."""
    moot.lost = lambda sender, to, message: sender in names or to in names


def asked_of(moot: Moot, layer: int = 1) -> list[str]:
    """Which peers ann has asked, in order."""
    sends = [e for e in moot.devices[ANN].effects if isinstance(e, Send) and isinstance(e.message, Ask)]
    return [send.to for send in sends if isinstance(send.message, Ask) and send.message.layer == layer]


def test_a_silent_peers_job_is_asked_of_another_and_its_answer_counts() -> None:
    moot = Moot(FOUR, HEDGING)
    deaf(moot, "bob")
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.pass_time(WORD_S)
    (stand_in,) = set(asked_of(moot)) - {"bob"}
    moot.lost = lambda sender, to, message: False
    moot.work()
    told = answered(moot, prompt).provenance
    late, copy = told.jobs[1:3]
    assert (late.device, late.outcome) == ("bob", Outcome.LATE)
    assert (copy.device, copy.outcome, copy.stands_in_for) == (stand_in, Outcome.OK, "bob")
    assert told.rounds[0].stood_in == {"bob": stand_in}
    assert told.rounds[0].answered == ("ann", stand_in)
    (decision,) = [d for d in told.decisions if "as well" in d.what]
    assert decision.what == f"{stand_in} is asked as well as bob in layer 1"
    assert "nothing was heard" in decision.why


def test_the_first_answer_counts_and_the_copy_is_cancelled() -> None:
    moot = Moot(FOUR, HEDGING)
    deaf(moot, "bob")
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.lost = lambda sender, to, message: sender == "bob"
    moot.pass_time(WORD_S)
    (stand_in,) = set(asked_of(moot)) - {"bob"}
    moot.lost = lambda sender, to, message: False
    moot.pass_time(1.5)  # the poll asks bob once more
    moot.write("bob", "bob says so")
    assert moot.devices[DeviceId(stand_in)].running is None, "the copy is cancelled"
    moot.work()
    told = answered(moot, prompt).provenance
    outcomes = {job.device: job.outcome for job in told.jobs if job.stage is Stage.PROPOSE}
    assert outcomes == {"ann": Outcome.OK, "bob": Outcome.OK, stand_in: Outcome.CANCELLED}
    assert told.rounds[0].answered == ("bob", "ann")
    assert told.rounds[0].stood_in == {}


def test_whoever_said_a_word_is_not_silent() -> None:
    moot = Moot(FOUR, HEDGING)
    moot.ask("ann", fixed(1, 1))
    moot.pass_time(30.0)  # nobody knows how long an inference takes: nobody is late
    assert len(asked_of(moot)) == 1


def test_two_silences_shut_a_peer_out_and_what_waits_for_its_word_goes_elsewhere() -> None:
    moot = Moot(FOUR | {"eve": "m5"}, HEDGING)
    deaf(moot, "bob")
    first = moot.ask("ann", fixed(1, 1, select=("bob",)))
    second = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.pass_time(WORD_S)
    late = moot.ask("ann", fixed(1, 4))
    for prompt in (first, second, late):
        moot.work()
        told = answered(moot, prompt).provenance
        assert {job.outcome for job in told.jobs if job.device != "bob"} == {Outcome.OK}
    told = answered(moot, late).provenance
    assert "bob" not in told.rounds[0].asked
    (decision,) = told.decisions
    assert decision.why.endswith("bob is not asked: 2 questions without a word")
    moot.lost = lambda sender, to, message: False
    moot.pass_time(HEDGING.breaker.open_s)
    tried = moot.ask("ann", fixed(1, 4))
    moot.work()
    assert "bob" in answered(moot, tried).provenance.rounds[0].answered


def test_a_copy_takes_the_place_of_a_job_that_is_lost() -> None:
    moot = Moot(FOUR, HEDGING)
    deaf(moot, "bob")
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.pass_time(WORD_S)
    count = len(asked_of(moot))
    moot.kill("bob")
    assert len(asked_of(moot)) == count, "no third device is asked"
    moot.work()
    told = answered(moot, prompt).provenance
    assert [job.outcome for job in told.jobs if job.device == "bob"] == [Outcome.FAILED]
    assert len(told.rounds[0].answered) == 2


def test_a_lost_copy_costs_nothing() -> None:
    moot = Moot(FOUR, HEDGING)
    deaf(moot, "bob")
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.lost = lambda sender, to, message: False
    moot.pass_time(WORD_S)
    (stand_in,) = set(asked_of(moot)) - {"bob"}
    moot.kill(stand_in)
    moot.pass_time(2.0)
    moot.work()
    assert answered(moot, prompt).provenance.rounds[0].answered == ("ann", "bob")


def test_of_two_aggregators_the_first_to_write_counts() -> None:
    moot = Moot({"ann": "m", "bob": "the strongest"}, HEDGING)
    deaf(moot, "bob")
    prompt = moot.ask("ann", fixed(0, 0, aggregator="strongest"), stream=True)
    moot.pass_time(WORD_S)
    moot.write("ann", "my own", whole=False)
    cancels = [e for e in moot.devices[ANN].effects if isinstance(e, Send) and isinstance(e.message, Cancel)]
    assert [cancel.to for cancel in cancels] == ["bob"]
    moot.work()
    end = answered(moot, prompt)
    shown = [n.text for n in moot.devices[ANN].notices if isinstance(n, AnswerText)]
    assert "".join(shown) == end.answer
    assert [job.outcome for job in end.provenance.jobs] == [Outcome.LATE, Outcome.OK]


# ---- lateness ------------------------------------------------------------------------------------------


def known(moot: Moot, service_s: float, **queues: int) -> None:
    """Everybody has told ann of a mean service time and a queue."""
    me = moot.devices[ANN].peer
    for number, name in enumerate(moot.devices):
        if name != ANN:
            pulse = Pulse(1_000 + number, queues.get(name, 0), 0, 0, service_s)
            me.membership.hear_pulse(name, pulse, moot.now)


def saved_up(moot: Moot) -> None:
    """ann may ask for as many copies as she ever may."""
    for _ in range(100):
        moot.devices[ANN].peer.hedges.asked()


def test_a_peer_is_late_by_its_own_estimate() -> None:
    moot = Moot(FOUR, HEDGING)
    known(moot, 10.0)
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    saved_up(moot)
    moot.pass_time(29.0)
    assert asked_of(moot) == ["bob"]
    moot.pass_time(1.5)
    assert len(asked_of(moot)) == 2
    moot.work()
    (decision,) = answered(moot, prompt).provenance.decisions
    assert decision.why.startswith("it has taken 30 s")


def test_a_queue_that_it_told_of_is_no_lateness() -> None:
    moot = Moot(FOUR, HEDGING)
    busy = moot.ask("bob", Plan(mode="local"))
    known(moot, 10.0)
    moot.ask("ann", fixed(1, 1, select=("bob",)))
    saved_up(moot)
    moot.pass_time(59.0)
    assert asked_of(moot) == ["bob"]
    moot.pass_time(2.0)
    assert len(asked_of(moot)) == 2
    assert moot.end_of(busy) is None


def test_nobody_stands_in_who_would_take_longer() -> None:
    moot = Moot(FOUR, HEDGING)
    known(moot, 10.0, cid=4, dot=4)
    moot.ask("ann", fixed(1, 1, select=("bob",)))
    saved_up(moot)
    moot.pass_time(31.0)
    assert asked_of(moot) == ["bob"]
    me = moot.devices[ANN].peer
    me.membership.hear_pulse(CID, Pulse(2_000, 0, 0, 0, 10.0), moot.now)
    moot.pass_time(10.0)
    assert asked_of(moot) == ["bob", "cid"]


def test_a_peer_that_says_a_job_takes_no_time_is_looked_at_again_but_not_without_end() -> None:
    """Found by mutated messages: its origin did nothing else any more."""
    moot = Moot(FOUR, HEDGING)
    known(moot, 1e-300)
    prompt = moot.ask("ann", fixed(1, 3))
    peer, job = moot.devices[ANN].peer, job_id(prompt, 1, 1)
    looks = [e.at for e in moot.devices[ANN].effects if isinstance(e, SetTimer) and e.timer == LateTimer(job)]
    now = looks[-1]
    assert now < 1e-9
    effects = peer.handle(Fired(LateTimer(job)), now)
    again = [e.at for e in effects if isinstance(e, SetTimer) and e.timer == LateTimer(job)]
    assert again == [now + HEDGING.hedge.word_s]


def test_an_empty_budget_asks_nobody() -> None:
    moot = Moot(FOUR | {"eve": "m5"}, HEDGING)
    deaf(moot, "bob", "cid")
    moot.ask("ann", fixed(1, 2, select=("bob", "cid")))
    moot.pass_time(WORD_S)
    assert len(asked_of(moot)) == 3, "one copy, not two"


# ---- what is not worth the wait ------------------------------------------------------------------------


def test_how_long_an_answer_is_worth_the_wait() -> None:
    prices = PriceConfig(enabled=True, haste=1.0)
    assert not enough(prices, 1, 2, [10.0])  # (1, 1) to (1, 2): 10.45 points
    assert enough(prices, 1, 2, [10.5])
    assert enough(prices, 1, 3, [0.1])  # (1, 3) is worth no more than (1, 2)
    assert not enough(prices, 1, 1, [1.0, 17.9])  # both together: 18 points
    assert enough(prices, 1, 1, [8.0, 18.1])
    assert not enough(replace(prices, haste=0.0), 1, 3, [1e9])


def test_a_layer_in_mode_auto_goes_on_without_what_takes_too_long() -> None:
    config = replace(HEDGING, price=PriceConfig(enabled=True, haste=1.0), hedge=HedgeConfig(share=1e-9))
    moot = Moot({"ann": "m1", "bob": "m2", "cid": "m3"}, config)
    moot.ask("ann", Plan(mode="local"))
    moot.work()  # ann knows what an inference takes here: 1 s
    known(moot, 1.0)
    prompt = moot.ask("ann")
    running = {name: device.running for name, device in moot.devices.items()}
    assert all(running.values())
    for name in ("ann", "bob"):
        moot.write(name, "soon")
    moot.pass_time(10.0)
    assert moot.devices[ANN].running is None, "10 points are worth 10 s"
    moot.pass_time(4.0)
    moot.write("ann", "the end")
    told = answered(moot, prompt).provenance
    assert [job.outcome for job in told.jobs if job.device == "cid"] == [Outcome.LATE]
    assert told.decisions[-1].what == "layer 1 goes on with 2 of 3 answers"
    assert moot.devices[CID].running is None, "cid's job is cancelled"


def test_as_many_as_were_asked_for_are_waited_for() -> None:
    config = replace(HEDGING, price=PriceConfig(enabled=True, haste=1.0))
    moot = Moot({"ann": "m1", "bob": "m2", "cid": "m3"}, config)
    known(moot, 1.0)
    moot.ask("ann", fixed(1, 2))
    for name in ("ann", "bob"):
        moot.write(name, "soon")
    moot.pass_time(100.0)
    assert moot.devices[ANN].running is None


# ---- max_wait_s ----------------------------------------------------------------------------------------


def waiting(max_wait_s: float = 5.0, **more: object) -> Moot:
    return Moot(FOUR, PeerConfig(max_wait_s=max_wait_s, **more))  # type: ignore[arg-type]


def test_a_first_job_that_has_waited_too_long_ends_its_prompt() -> None:
    moot = waiting()
    moot.ask("bob", Plan(mode="local"))
    prompt = moot.ask("ann", fixed(2, 2, select=("bob", "cid")))
    moot.pass_time(4.9)
    assert moot.end_of(prompt) is None
    moot.pass_time(0.2)
    end = failed(moot, prompt)
    assert end.code == "waited"
    assert "max_wait_s" in end.detail
    assert moot.devices[CID].running is None, "its other jobs are cancelled"
    assert moot.devices[BOB].running is not None, "bob's own is not"
    assert moot.devices[BOB].peer.queue.waiting == 0


def test_only_waiting_for_the_first_stage_is_bounded() -> None:
    moot = waiting()
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.pass_time(100.0)  # in service all the while
    moot.write("bob", "late")
    moot.ask("ann", Plan(mode="local"))  # behind ann's own job
    moot.write("ann", "late too")  # the aggregation waits behind that one now
    moot.pass_time(4.0)
    moot.work()
    assert answered(moot, prompt).answer


def test_a_peer_cannot_end_a_prompt_by_its_word() -> None:
    moot = Moot(FOUR, PeerConfig(max_wait_s=50.0))
    prompt = moot.ask("ann", fixed(1, 1, select=("bob",)))
    moot.tell("ann", Received(BOB, Undone(moot.running("bob"), Outcome.REFUSED, "waited", "for ages")))
    moot.deliver()
    moot.work()
    told = answered(moot, prompt).provenance
    assert len(told.rounds[0].answered) == 2


def test_the_door_is_shut_before_a_job_would_wait_too_long() -> None:
    moot = waiting(2.5)
    for _ in range(2):
        moot.ask("ann", Plan(mode="local"))
        moot.work()  # 1 s each
    first = [moot.ask("ann", Plan(mode="local")) for _ in range(3)]
    refused = moot.ask("ann", Plan(mode="local"))
    end = failed(moot, refused)
    assert end.code == "overloaded"
    assert "max_wait_s" in end.detail
    moot.work()
    assert all(answered(moot, prompt) for prompt in first)


def test_a_peer_refuses_first_jobs_only_where_they_would_wait_too_long() -> None:
    moot = waiting(2.5)
    moot.ask("bob", Plan(mode="local"))
    moot.work()
    for _ in range(3):
        moot.ask("bob", Plan(mode="local"))
    later = fixed(2, 1, select=("bob",))
    prompt = moot.ask("ann", later)
    moot.work()
    told = answered(moot, prompt).provenance
    by_bob = {job.layer: job for job in told.jobs if job.device == "bob"}
    assert by_bob[1].outcome is Outcome.REFUSED
    assert by_bob[1].error is not None
    assert "max_wait_s" in by_bob[1].error
    assert by_bob[2].outcome is Outcome.OK
