"""The device's queue, driven through the door of one real peer."""

from __future__ import annotations

from random import Random

import pytest
from tests.core.world import FOUR, Moot, answered, fixed

from folkmoot.core.events import (
    Abort,
    EngineFailed,
    Event,
    Finished,
    Generate,
    Plan,
    PromptFailed,
    Received,
    Send,
    ServiceLimited,
    Warmed,
)
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId, JobId, PromptId, job_id, prompt_of
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Inference,
    Message,
    Outcome,
    Piece,
    Poll,
    Prepare,
    Queued,
    Stage,
    Turn,
    Undone,
    Usage,
)
from folkmoot.core.meter import MeterConfig
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.core.queue import Queue, QueueConfig
from folkmoot.errors import ConfigError

ZED, YON = DeviceId("zed"), DeviceId("yon")


def ask_of(number: int, answers: tuple[str, ...] = (), hops: int = 0) -> Ask:
    prompt = PromptId(f"{number:032x}")
    stage = Stage.REFINE if answers else Stage.PROPOSE
    inference = Inference(prompt, (Turn("user", "x"),), answers, 2)
    return Ask(job_id(prompt, 1, 1), prompt, 1, stage, inference, hops)


def replies(moot: Moot, sender: DeviceId, message: Message) -> list[Message]:
    return [e.message for e in moot.tell("ann", Received(sender, message)) if isinstance(e, Send)]


@pytest.mark.parametrize("waiting", [False, True])
def test_second_copy_of_a_cancelled_question_starts_nothing(waiting: bool) -> None:
    moot = Moot({"ann": "m"})
    if waiting:
        moot.tell("ann", Received(ZED, ask_of(7)))
    moot.tell("ann", Received(ZED, ask_of(1)))
    moot.tell("ann", Received(ZED, Cancel(ask_of(1).job)))
    [told] = replies(moot, ZED, ask_of(1))
    assert isinstance(told, Undone)
    assert (told.job, told.outcome) == (ask_of(1).job, Outcome.CANCELLED)
    if waiting:
        moot.write("ann")
    assert moot.devices[DeviceId("ann")].peer.idle


def test_nobody_cancels_in_advance_for_another() -> None:
    moot = Moot({"ann": "m"})
    moot.tell("ann", Received(YON, Cancel(ask_of(1).job)))
    moot.tell("ann", Received(ZED, ask_of(1)))
    assert moot.devices[DeviceId("ann")].running is not None


def test_a_job_that_has_crossed_a_moot_is_refused() -> None:
    moot = Moot({"ann": "m"})
    [refused] = replies(moot, ZED, ask_of(1, hops=1))
    assert isinstance(refused, Undone)
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "recursion")
    assert moot.devices[DeviceId("ann")].peer.idle


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


def test_full_queue_refuses() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_waiting=1)))
    ends = [moot.end_of(moot.ask("ann", Plan(mode="local"))) for _ in range(3)]
    assert ends[:2] == [None, None]
    assert isinstance(ends[2], PromptFailed)
    assert ends[2].code == "overloaded"
    assert "the bound is 1" in ends[2].detail


def refusals(moot: Moot, sender: DeviceId, *asks: Ask) -> list[str]:
    told = [message for ask in asks for message in replies(moot, sender, ask)]
    return [message.detail for message in told if isinstance(message, Undone)]


def test_one_device_s_jobs_take_half_of_another_s_queue_at_most() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_waiting=4)))
    [refused] = refusals(moot, ZED, *(ask_of(number) for number in range(4)))
    assert "bound is 2" in refused
    assert "from the device that asks" in refused
    assert refusals(moot, YON, ask_of(10)) == []
    [full] = refusals(moot, YON, ask_of(12))
    assert "bound is 3" in full
    assert "from other devices" in full
    assert moot.end_of(moot.ask("ann", Plan(mode="local"))) is None, (
        "a place is left for this device's own users"
    )


def test_waiting_texts_are_bounded_together_and_one_by_itself_is_not() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_characters=100)))
    long = ("y" * 60,)
    assert refusals(moot, ZED, ask_of(0), ask_of(1, ("y" * 200,))) == [], (
        "a single one may be as long as it is"
    )
    [refused] = refusals(moot, YON, ask_of(2, long))
    assert "100 characters" in refused
    moot.write("ann")
    assert refusals(moot, YON, ask_of(3, long)) == []
    assert refusals(moot, ZED, ask_of(4)) == []
    assert len(refusals(moot, YON, ask_of(5))) == 1, "half of them may be one device's"


def test_a_device_s_own_users_may_fill_its_queue() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_waiting=4)))
    ends = [moot.end_of(moot.ask("ann", Plan(mode="local"))) for _ in range(5)]
    assert ends == [None] * 5


def test_a_finished_job_s_question_is_not_kept_and_nobody_drives_out_another_s_answers() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(keep_jobs=3)))
    asks = [(YON, ask_of(0, ("y" * 1_000,)))] + [(ZED, ask_of(number)) for number in range(1, 6)]
    for who, ask in asks:
        moot.tell("ann", Received(who, ask))
        moot.write("ann")
    queue = moot.devices[DeviceId("ann")].peer.queue
    assert [job.ask.inference.answers for job in queue._jobs.values()] == [()] * 3
    assert isinstance(replies(moot, YON, Poll(asks[0][1].job, 0))[-1], Answer)
    assert [type(replies(moot, ZED, Poll(ask.job, 0))[-1]) for _, ask in asks[1:]] == [Undone] * 3 + [
        Answer
    ] * 2


def test_a_device_s_own_prompts_are_prefilled_before_others() -> None:
    moot = Moot({"ann": "m"})
    ann, theirs, mine = DeviceId("ann"), ask_of(1, ("one",)).inference, ask_of(2, ("one",)).inference
    moot.tell("ann", Received(ZED, Prepare(theirs)))
    assert moot.devices[ann].warming == theirs
    moot.tell("ann", Received(ann, Prepare(mine)))
    assert moot.devices[ann].warming == mine
    moot.tell("ann", Received(YON, Prepare(theirs)))
    assert moot.devices[ann].warming == mine


def test_an_engine_s_own_words_are_for_its_owner_only() -> None:
    moot = Moot({"ann": "m", "bob": "m"})
    prompt = moot.ask("ann", fixed(1, 1))
    for name in ("ann", "bob"):
        moot.break_engine(name, "weights")
    moot.work()
    errors = {job.device: job.error for job in answered(moot, prompt).provenance.jobs if job.layer == 1}
    assert errors == {"ann": "weights: it broke", "bob": "weights: its engine failed"}


def test_a_second_copy_of_a_refused_question_is_refused_too() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_waiting=2)))
    asks = [ask_of(number) for number in range(3)]
    first = refusals(moot, ZED, *asks)
    moot.write("ann")
    assert moot.devices[DeviceId("ann")].peer.queue.waiting == 0
    assert refusals(moot, ZED, asks[2]) == first


def test_a_cancelled_job_that_waits_takes_its_layer_s_prefill_along() -> None:
    moot = Moot({"ann": "m"})
    own, other = ask_of(1, ("one", "two")), ask_of(2)
    moot.tell("ann", Received(ZED, Prepare(own.inference)))
    moot.tell("ann", Received(YON, other))
    moot.tell("ann", Received(ZED, own))
    moot.tell("ann", Received(ZED, Cancel(own.job)))
    moot.write("ann")
    assert moot.devices[DeviceId("ann")].warming is None


@pytest.mark.parametrize("others", [False, True])
def test_whom_a_device_serves_no_more_is_refused_and_what_waits_of_its_is_handed_back(others: bool) -> None:
    moot = Moot(FOUR)
    for number, asker in ((1, ZED), (2, ZED), (3, YON)):
        moot.tell("ann", Received(asker, ask_of(number)))
    own = moot.ask("ann", Plan(mode="local"))
    limit = ServiceLimited(others, () if others else (ZED,), "over_budget", "spent")
    handed = [e for e in moot.tell("ann", limit) if isinstance(e, Send)]
    told = {(e.to, e.message.job) for e in handed if isinstance(e.message, Undone)}
    assert told == {(ZED, ask_of(2).job)} | ({(YON, ask_of(3).job)} if others else set())
    assert all(isinstance(e.message, Undone) and e.message.code == "over_budget" for e in handed)
    for asker, refused in ((ZED, True), (YON, others)):
        (said, *_) = [e.message for e in moot.tell("ann", Received(asker, ask_of(9))) if isinstance(e, Send)]
        assert isinstance(said, Undone if refused else Queued)
    assert ann_serves(moot) == ask_of(1).job, "what is in service is finished"
    moot.work()
    assert answered(moot, own).answer


def ann_serves(moot: Moot) -> JobId:
    running = moot.devices[DeviceId("ann")].running
    assert running is not None
    return running[0]


def test_an_answer_alone_counts_as_a_first_layer_s_job() -> None:
    """It is the prompt's last job, and reads no more than a proposal does."""
    moot = Moot(FOUR)
    prompt = moot.ask("ann", fixed(0))
    moot.work()
    assert [job.stage for job in answered(moot, prompt).provenance.jobs] == [Stage.AGGREGATE]
    assert [bool(each) for each in ann_s_stages(moot)] == [True, False, False]
    moot.ask("ann", fixed(1, 1))
    moot.work()
    assert [bool(each) for each in ann_s_stages(moot)] == [True, False, True]


def ann_s_stages(moot: Moot) -> tuple[float, ...]:
    return moot.devices[DeviceId("ann")].peer.queue.meter.each_stage_s


def test_first_come_first_served() -> None:
    moot = Moot({"ann": "m"})
    prompts = [moot.ask("ann", Plan(mode="local")) for _ in range(5)]
    moot.work()
    started = [prompt_of(e.job) for e in moot.devices[DeviceId("ann")].effects if isinstance(e, Generate)]
    assert started == prompts


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


def test_cancel_may_overtake_its_question() -> None:
    moot = Moot({"ann": "m"})
    zed, ask = DeviceId("zed"), ask_of(1)
    moot.tell("ann", Received(zed, Cancel(ask.job)))
    [told] = replies(moot, zed, ask)
    assert isinstance(told, Undone)
    assert told.outcome is Outcome.CANCELLED
    assert moot.devices[DeviceId("ann")].peer.idle


def test_remembered_cancellations_are_bounded() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(declined_kept=2)))
    zed = DeviceId("zed")
    for number in range(3):
        moot.tell("ann", Received(zed, Cancel(ask_of(number).job)))
    assert isinstance(replies(moot, zed, ask_of(0))[0], Queued)
    assert isinstance(replies(moot, zed, ask_of(2))[0], Undone)


def test_waiting_job_is_cancelled_and_polled() -> None:
    moot = Moot({"ann": "m"})
    zed = DeviceId("zed")
    for number in (1, 2, 3):
        moot.tell("ann", Received(zed, ask_of(number)))
    third = ask_of(3).job
    queued = Queued(third, 2)
    assert [e.message for e in moot.tell("ann", Received(zed, Poll(third, 0)))] == [queued]  # type: ignore[union-attr]
    assert [e.message for e in moot.tell("ann", Received(zed, ask_of(3)))][:1] == [queued]  # type: ignore[union-attr]
    moot.tell("ann", Received(zed, Cancel(ask_of(2).job)))
    assert moot.devices[DeviceId("ann")].peer.queue.waiting == 1
    with pytest.raises(KeyError):
        moot.devices[DeviceId("ann")].peer.queue.origin_of(JobId("none"))


def test_finished_text_is_kept_for_a_while() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(keep_jobs=2, keep_s=5.0)))
    zed = DeviceId("zed")
    for number in (1, 2, 3):
        moot.tell("ann", Received(zed, ask_of(number)))
        moot.write("ann", f"text {number}")

    def kinds(number: int) -> list[type]:
        effects = moot.tell("ann", Received(zed, Poll(ask_of(number).job, 0)))
        return [type(e.message) for e in effects if isinstance(e, Send)]

    assert kinds(1) == [Undone]
    assert kinds(3) == [Began, Piece, Answer]
    moot.tell("ann", Received(zed, Cancel(ask_of(3).job)))
    moot.pass_time(6.0)
    assert kinds(3) == [Undone]


def test_prefill_yields_to_jobs_and_goes_on_afterwards() -> None:
    moot = Moot({"ann": "m"})
    zed, ann = DeviceId("zed"), moot.devices[DeviceId("ann")]
    inference = ask_of(1).inference
    moot.tell("ann", Received(zed, Prepare(inference)))
    assert ann.warming == inference
    moot.tell("ann", Received(zed, ask_of(2)))
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
    ask = ask_of(1, ("one",))
    moot.tell("ann", Received(DeviceId("zed"), Prepare(ask.inference)))
    moot.tell("ann", Received(DeviceId("zed"), ask))
    moot.write("ann")
    assert ann.warming is None
    moot.tell("ann", Received(DeviceId("zed"), Prepare(ask_of(2).inference)))
    assert ann.warming is not None
    moot.kill("zed")
    assert ann.warming is None


def test_prefill_of_a_prompt_without_news_gives_way() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(keep_s=5.0)))
    ann = moot.devices[DeviceId("ann")]
    one, two = (ask_of(number).inference for number in (1, 2))
    moot.tell("ann", Received(DeviceId("zed"), Prepare(one)))
    moot.pass_time(4.0)
    moot.tell("ann", Received(DeviceId("yon"), Prepare(two)))
    assert ann.warming == one
    moot.pass_time(2.0)
    moot.tell("ann", Received(DeviceId("yon"), Prepare(two)))
    assert ann.warming == two


# ---- later stage first, several slots ------------------------------------------------------------------


def of_layer(number: int, layer: int) -> Ask:
    prompt = PromptId(f"{number:032x}")
    inference = Inference(prompt, (Turn("user", "x"),), (), 2)
    return Ask(job_id(prompt, layer, 1), prompt, layer, Stage.PROPOSE, inference)


def begun(moot: Moot, event: Event) -> list[JobId]:
    return [e.job for e in moot.tell("ann", event) if isinstance(e, Generate)]


def test_later_stage_first_serves_the_latest_layer_and_in_it_the_first_come() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(discipline="lsf")))
    asks = [of_layer(number, layer) for number, layer in enumerate((1, 1, 3, 2, 3, 1))]
    places = [replies(moot, ZED, ask)[0] for ask in asks]
    assert [place.ahead for place in places if isinstance(place, Queued)] == [0, 1, 1, 2, 2, 5]
    served = []
    while (running := moot.devices[DeviceId("ann")].running) is not None:
        served.append(running[0])
        moot.write("ann", "x")
    assert served == [asks[place].job for place in (0, 2, 4, 3, 1, 5)]


def test_what_is_beyond_a_device_s_share_waits_behind_all_else() -> None:
    """Of a burst of two the third and fourth are ZED's excess, however late their layer."""
    meter = MeterConfig(share=1.0, burst=2.0)
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(discipline="lsf", meter=meter)))
    asks = [of_layer(number, layer) for number, layer in enumerate((1, 1, 3, 4))]
    for ask in asks:
        moot.tell("ann", Received(ZED, ask))
    queue = moot.devices[DeviceId("ann")].peer.queue
    assert (queue.waiting, queue.excess, queue.meter.debt(0.0)) == (3, 2, 2.0)
    moot.tell("ann", Received(YON, of_layer(9, 1)))
    own = moot.ask("ann", Plan(mode="local"))
    served = []
    while (running := moot.devices[DeviceId("ann")].running) is not None:
        served.append(running[0])
        moot.write("ann", "x")
    assert served[:2] == [asks[0].job, asks[1].job]
    assert {prompt_of(served[2]), prompt_of(served[3])} == {own, of_layer(9, 1).prompt}
    assert served[4:] == [asks[3].job, asks[2].job]
    assert queue.excess == 0


def test_beyond_their_shares_devices_take_turns_and_each_has_its_latest_layer_first() -> None:
    meter = MeterConfig(share=1.0, burst=1.0)
    queue = Queue(DeviceId("ann"), QueueConfig(discipline="lsf", meter=meter), has_engine=True)
    zed, yon = (
        [of_layer(number, 1 + number // 4) for number in range(6)],
        [of_layer(9 + n, 1) for n in range(3)],
    )
    for ask in zed:
        queue.on_ask(ZED, ask, 0.0)
    for ask in yon:
        queue.on_ask(YON, ask, 0.0)
    said = [queue.on_poll(YON, Poll(ask.job, 0))[0].message.ahead for ask in yon]  # type: ignore[union-attr]
    assert (queue.excess, said) == (7, [1, 3, 5])
    queue.on_cancel(ZED, Cancel(zed[1].job), 0.0)
    served = []
    for _ in range(8):
        ((_, running),) = queue._serving.values()
        served.append(running)
        queue.on_finished(Finished(running, Usage()), 0.0)
    assert served == [each.job for each in (zed[0], yon[0], yon[1], zed[4], yon[2], zed[5], zed[2], zed[3])]
    assert (queue.excess, queue.waiting, queue.busy) == (0, 0, 0)


def test_a_share_is_of_work_and_not_of_jobs() -> None:
    """Of two jobs at once, and a quarter of the time: one job of eight times the mean uses the share up for a while."""
    ann = DeviceId("ann")
    queue = Queue(ann, QueueConfig(meter=MeterConfig(share=1.0, burst=2.0, slack=0.0)), has_engine=True)
    queue.devices = 4

    def serve(number: int, seconds: float, now: float) -> None:
        queue.on_ask(ZED, ask_of(number), now)
        queue.on_finished(Finished(ask_of(number).job, Usage(inference_s=seconds)), now + seconds)

    for number in range(20):
        serve(number, 1.0, 10.0 * number)
    serve(20, 8.0, 200.0)
    queue.on_ask(YON, ask_of(21), 208.0)
    queue.on_ask(ZED, ask_of(22), 208.0)
    queue.on_ask(YON, ask_of(23), 208.0)
    assert queue.excess == 1
    queue.on_finished(Finished(ask_of(21).job, Usage(inference_s=1.0)), 209.0)
    busy_s = queue.meter.busy_s
    # It was served for 5 s, and its engine says nothing of that.
    queue.on_cancel(YON, Cancel(ask_of(23).job), 214.0)
    queue.on_engine_failed(EngineFailed(ask_of(23).job, "cancelled", ""), 214.0)
    assert queue.meter.busy_s == busy_s + 5.0
    for number in range(31, 33):
        queue.on_ask(YON, ask_of(number), 214.0)
    assert queue.excess == 2
    for number in range(31, 33):
        queue.on_cancel(YON, Cancel(ask_of(number).job), 214.0)
    queue.on_cancel(ZED, Cancel(ask_of(22).job), 215.0)
    queue.on_engine_failed(EngineFailed(ask_of(22).job, "cancelled", ""), 215.0)
    for number in range(24, 30):  # what was never served costs nothing
        queue.on_ask(ZED, ask_of(number), 300.0)
        queue.on_cancel(ZED, Cancel(ask_of(number).job), 300.0)
    queue.on_ask(ZED, ask_of(30), 300.0)
    assert queue.excess == 0


def test_a_cancelled_excess_leaves_no_trace() -> None:
    meter = MeterConfig(share=1.0, burst=1.0)
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(meter=meter)))
    for number in range(3):
        moot.tell("ann", Received(ZED, ask_of(number)))
    queue = moot.devices[DeviceId("ann")].peer.queue
    assert (queue.excess, queue.meter.debt(0.0)) == (2, 1.0)
    moot.tell("ann", Received(ZED, Cancel(ask_of(2).job)))
    assert (queue.excess, queue.meter.debt(0.0)) == (1, 1.0)


def test_a_repeated_job_keeps_its_place_at_the_head_of_its_line() -> None:
    moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(discipline="lsf")))
    for number, layer in enumerate((2, 2, 3)):
        moot.tell("ann", Received(ZED, of_layer(number, layer)))
    moot.break_engine("ann", "engine_failed")  # of the first one, before it wrote a word: it goes back
    moot.write("ann", "x")
    running = moot.devices[DeviceId("ann")].running
    assert running is not None
    assert running[0] == of_layer(0, 2).job


def test_slots_are_filled_and_freed_one_by_one() -> None:
    peer = Peer(DeviceId("ann"), Card("ann", "m"), 1, PeerConfig(queue=QueueConfig(slots=2)), Random(1))

    def jobs(event: Event) -> list[JobId]:
        return [e.job for e in peer.handle(event, 0.0) if isinstance(e, Generate)]

    first, second, third = (ask_of(number).job for number in range(3))
    assert [jobs(Received(ZED, ask_of(number))) for number in range(3)] == [[first], [second], []]
    assert (peer.queue.busy, peer.queue.waiting) == (2, 1)
    assert jobs(Finished(second, Usage())) == [third]
    assert jobs(Finished(first, Usage())) == []
    [abort] = [e for e in peer.handle(Received(ZED, Cancel(third)), 0.0) if isinstance(e, Abort)]
    assert abort.job == third
    assert peer.queue.busy == 1
    peer.handle(EngineFailed(third, "cancelled", "aborted"), 0.0)
    assert peer.idle


def test_of_two_jobs_with_one_name_the_second_waits_for_the_first() -> None:
    """The engine knows jobs by their ids; whoever gives another's gains nothing by it."""
    peer = Peer(DeviceId("ann"), Card("ann", "m"), 1, PeerConfig(queue=QueueConfig(slots=2)), Random(1))
    for origin in (ZED, YON):
        peer.handle(Received(origin, ask_of(1)), 0.0)
    assert (peer.queue.busy, peer.queue.waiting) == (1, 1)
    effects = peer.handle(Finished(ask_of(1).job, Usage()), 0.0)
    assert [e.job for e in effects if isinstance(e, Generate)] == [ask_of(1).job]
    assert peer.queue.origin_of(ask_of(1).job) == YON


@pytest.mark.parametrize("wrong", [QueueConfig(discipline="lifo"), QueueConfig(slots=0)])
def test_a_queue_of_another_kind_is_refused(wrong: QueueConfig) -> None:
    with pytest.raises(ConfigError, match="discipline is 'lifo'|slots is 0"):
        Moot({"ann": "m"}, PeerConfig(queue=wrong))
