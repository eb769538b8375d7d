"""The streams of jobs between two real devices: order, cuts, back-pressure, cancelling, and asking again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from folkmoot.core.events import Event, Received, StreamLost
from folkmoot.core.ids import DeviceId, JobId, PromptId
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
from folkmoot.node import talk
from folkmoot.node.talk import Talk

PROMPT = PromptId("a" * 32)
JOB = JobId(PROMPT + ".1.1.0")
INFERENCE = Inference(PROMPT, (Turn("user", "why?"),))
ASK = Ask(JOB, PROMPT, 1, Stage.PROPOSE, INFERENCE)
USAGE = Usage(1, 0, 1, 0.1, 0.1)
BIG = "x" * 30_000


class Talker:
    """A device's talk over a real network, and what it heard."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.id: DeviceId = device.id
        self.events: list[Event] = []
        self.answers: Callable[[DeviceId, Message], None] = lambda sender, message: None
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.talk = Talk(device.network, self.take, self.spawn)
        device.serve = self.talk.serve

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks[task] = None
        return task

    def take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Received):
            self.answers(event.sender, event.message)

    def heard(self, *kinds: type[Message]) -> list[Message]:
        messages = [event.message for event in self.events if isinstance(event, Received)]
        return [message for message in messages if isinstance(message, kinds)] if kinds else messages

    @property
    def lost(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, StreamLost)]


@pytest.fixture
async def pair(lan: Any) -> AsyncIterator[tuple[Talker, Talker]]:
    """An asker and a peer. None of their tasks may fail: it would take the device down."""
    both = Talker(await lan.found()), Talker(await lan.member())
    yield both
    for each in both:
        await each.device.network.close()
    for task in [task for each in both for task in each.tasks]:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None


async def test_a_job_s_replies_come_in_order_up_to_the_end(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    replies = [
        Queued(JOB, 0),
        Began(JOB, 0.5),
        Piece(JOB, 0, "why "),
        Piece(JOB, 4, "not"),
        Answer(JOB, 7, 0.5, USAGE),
    ]
    peer.answers = lambda sender, message: [peer.talk.send(sender, reply) for reply in replies]
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: len(asker.events) == 5)
    assert asker.heard() == replies
    assert peer.heard() == [ASK]
    await lan.until(lambda: all(task.done() for task in (*asker.tasks, *peer.tasks)))
    assert asker.lost == []
    assert peer.heard() == [ASK]


async def test_a_cut_answer_is_lost_and_never_whole(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    peer.answers = lambda sender, message: peer.talk.send(sender, Piece(JOB, 0, "why "))
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: asker.heard(Piece))
    await peer.device.network.close()
    await lan.until(lambda: asker.lost)
    assert asker.lost == [StreamLost(peer.id, JOB)]
    assert asker.heard(Answer, Undone) == []


async def test_who_cannot_be_reached_is_lost(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, _ = pair
    nobody = DeviceId("0" * 64)
    asker.talk.send(nobody, ASK)
    asker.talk.post(nobody, Cancel(JOB))
    await lan.until(lambda: asker.lost)
    assert asker.lost == [StreamLost(nobody, JOB)]


async def test_a_lost_job_is_asked_after_on_a_new_stream(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair

    def answers(sender: DeviceId, message: Message) -> None:
        match message:
            case Ask():
                peer.talk.send(sender, Piece(JOB, 0, "why "))
            case Poll(have=have):
                peer.talk.send(sender, Piece(JOB, have, "not"))
                peer.talk.send(sender, Answer(JOB, 7, 0.0, USAGE))

    peer.answers = answers
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: asker.heard(Piece))
    asker.device.network.disconnect(peer.id)
    await lan.until(lambda: asker.lost)
    asker.talk.send(peer.id, Poll(JOB, 4))
    await lan.until(lambda: asker.heard(Answer))
    assert [piece.offset for piece in asker.heard(Piece)] == [0, 4]
    # Whoever comes back keeps the job: no `Cancel` was made of the lost stream.
    assert peer.heard() == [ASK, Poll(JOB, 4)]


async def test_a_poll_goes_on_the_job_s_own_stream(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: peer.heard(Ask))
    asker.talk.send(peer.id, Poll(JOB, 0))
    await lan.until(lambda: peer.heard(Poll))
    peer.talk.send(asker.id, Undone(JOB, Outcome.FAILED, "unknown_job", "no such job here"))
    await lan.until(lambda: asker.heard(Undone))
    assert asker.lost == []


async def test_cancel_reaches_the_peer(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: peer.heard(Ask))
    asker.talk.send(peer.id, Cancel(JOB))
    await lan.until(lambda: peer.heard(Cancel))
    assert asker.lost == []


async def test_cancel_of_a_job_without_a_stream_goes_as_a_letter(
    lan: Any, pair: tuple[Talker, Talker]
) -> None:
    asker, peer = pair
    asker.talk.send(peer.id, Cancel(JOB))
    asker.talk.post(peer.id, Prepare(INFERENCE))
    await asker.talk.flush(10)
    await lan.until(lambda: len(peer.events) == 2)
    assert peer.heard(Cancel) == [Cancel(JOB)]
    assert peer.heard(Prepare) == [Prepare(INFERENCE)]


async def test_cancel_in_the_same_breath_asks_nobody(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    asker.talk.send(peer.id, ASK)
    asker.talk.send(peer.id, Cancel(JOB))
    asker.talk.send(peer.id, dataclasses.replace(ASK, job=JobId(PROMPT + ".1.1.1")))
    await lan.until(lambda: peer.heard(Ask))
    assert [ask.job for ask in peer.heard(Ask)] == [PROMPT + ".1.1.1"]


async def test_a_cancelled_job_still_tells_what_it_cost(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    cost = Undone(JOB, Outcome.CANCELLED, "cancelled", "", 0.0, USAGE)
    peer.answers = lambda sender, message: peer.talk.send(
        sender, cost if isinstance(message, Cancel) else Began(JOB, 0.0)
    )
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: asker.heard(Began))
    asker.talk.send(peer.id, Cancel(JOB))
    await lan.until(lambda: asker.heard(Undone))
    assert asker.heard(Undone) == [cost]
    await lan.until(lambda: not asker.talk._asking and not peer.talk._replying)
    assert asker.lost == []


async def test_a_peer_that_does_not_end_a_cancelled_job_is_hung_up_on(
    lan: Any, pair: tuple[Talker, Talker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "HANG_UP_S", 0.0)
    asker, peer = pair
    peer.answers = lambda sender, message: peer.talk.send(sender, Began(JOB, 0.0))
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: asker.heard(Began))
    asker.talk.send(peer.id, Cancel(JOB))
    await lan.until(lambda: not asker.talk._asking)
    await lan.until(lambda: peer.heard(Cancel))


async def test_an_asker_that_is_gone_for_good_is_given_up(
    lan: Any, pair: tuple[Talker, Talker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "ABANDON_S", 0.0)
    asker, peer = pair
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: peer.heard(Ask))
    await asker.device.network.close()
    await lan.until(lambda: peer.heard(Cancel))


async def test_an_asker_that_does_not_read_holds_the_writer(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    written = 0

    async def write() -> None:
        nonlocal written
        for number in range(300):
            peer.talk.send(asker.id, Piece(JOB, number * len(BIG), BIG))
            written += 1
            await peer.talk.room(asker.id, JOB)
        peer.talk.send(asker.id, Answer(JOB, 300 * len(BIG), 0.0, USAGE))

    def answers(sender: DeviceId, message: Message) -> None:
        if isinstance(message, Ask):
            peer.spawn(write())

    peer.answers = answers
    stream = await asker.device.network.open(peer.id)
    await stream.send(ASK)
    held = peer.talk._replying
    await lan.until(lambda: held and held[asker.id, JOB].full)
    # Something else goes to and fro meanwhile: it is this job alone that is held up.
    asker.talk.send(peer.id, Cancel(JobId(PROMPT + ".9.9.9")))
    await lan.until(lambda: peer.heard(Cancel))
    assert written < 2 * talk.BACKLOG
    got = [message async for message in stream]
    assert len(got) == 301
    assert written == 300


@pytest.mark.parametrize("again", [ASK, Poll(JOB, 0)])
async def test_asking_again_without_reading_piles_nothing_up(
    lan: Any, pair: tuple[Talker, Talker], again: Message
) -> None:
    asker, peer = pair
    peer.answers = lambda sender, message: peer.talk.send(sender, Piece(JOB, 0, BIG))
    stream = await asker.device.network.open(peer.id)
    for _ in range(300):
        await stream.send(again if peer.heard() else ASK)
    await stream.send(Cancel(JOB))
    await lan.until(lambda: peer.heard(Cancel))
    assert len(peer.talk._replying[asker.id, JOB]._messages) <= talk.BACKLOG_CHARACTERS // len(BIG) + 2
    await stream.cancel()


async def test_cancel_wakes_a_writer_that_is_held(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    stream = await asker.device.network.open(peer.id)
    await stream.send(ASK)
    await lan.until(lambda: peer.heard(Ask))
    for number in range(300):
        peer.talk.send(asker.id, Piece(JOB, number * len(BIG), BIG))
    waiting = asyncio.create_task(peer.talk.room(asker.id, JOB))
    await lan.until(lambda: len(peer.talk._replying[asker.id, JOB]._messages) < 300)
    assert not waiting.done()
    await stream.cancel()
    await waiting
    await lan.until(lambda: peer.heard(Cancel))


async def test_a_question_too_large_is_refused_here(lan: Any, pair: tuple[Talker, Talker]) -> None:
    asker, peer = pair
    large = dataclasses.replace(INFERENCE, conversation=(Turn("user", "x" * 2_000_000),))
    asker.talk.send(peer.id, dataclasses.replace(ASK, inference=large))
    await lan.until(lambda: asker.heard(Undone))
    (undone,) = asker.heard(Undone)
    assert (undone.outcome, undone.code) == (Outcome.REFUSED, "too_long")
    assert peer.events == []


@pytest.mark.parametrize("text", ["x" * 2_000_000, "half a \ud83d"])
async def test_a_reply_that_cannot_be_sent_ends_its_job_only(
    lan: Any, pair: tuple[Talker, Talker], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    asker, peer = pair
    peer.answers = lambda sender, message: (
        peer.talk.send(sender, Piece(JOB, 0, text)) if isinstance(message, Ask) else None
    )
    asker.talk.send(peer.id, ASK)
    await lan.until(lambda: asker.heard(Undone))
    (undone,) = asker.heard(Undone)
    assert (undone.outcome, undone.code) == (Outcome.FAILED, "local_protocol")
    assert "Piece" in caplog.text
    # Nobody waits for the rest.
    await lan.until(lambda: peer.heard(Cancel))


async def test_an_asker_that_reads_nothing_loses_its_job(lan: Any, pair: tuple[Talker, Talker]) -> None:
    _, peer = pair
    peer.talk = Talk(peer.device.network, peer.take, peer.spawn, stall_s=0.05)
    peer.device.serve = peer.talk.serve
    asker = pair[0].device
    stream = await asker.network.open(peer.id)
    await stream.send(ASK)
    await lan.until(lambda: peer.heard(Ask))
    offset = 0
    for _ in range(talk.BACKLOG * 4):
        peer.talk.send(asker.id, Piece(JOB, offset, BIG))
        offset += len(BIG)
    for _ in range(50):
        await stream.send(Poll(JOB, 0))
    await stream.send(Prepare(INFERENCE))
    await lan.until(lambda: peer.heard(Prepare))
    assert peer.heard(Poll) == []  # who does not read need not ask for more
    assert peer.heard(Cancel) == []
    await peer.talk.room(asker.id, JOB)
    assert peer.heard(Cancel) == [Cancel(JOB)]
    await stream.cancel()
