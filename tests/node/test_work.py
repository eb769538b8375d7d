"""The engine's time: pieces, back-pressure, cancelling, prefill steps, and every fault told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from folkmoot.core.events import EngineFailed, Event, Finished, Generated, Warmed
from folkmoot.core.ids import JobId, PromptId
from folkmoot.core.law import parse_law
from folkmoot.core.messages import Inference, Sampling, Turn, Usage
from folkmoot.engine.protocol import Done, Engine, EngineInfo, Text, Warmth
from folkmoot.engine.timed import TimedEngine
from folkmoot.errors import EngineError, EngineUnreachable, PromptTooLong
from folkmoot.node.work import Work

JOB = JobId("a" * 32 + ".1.0.0")
PROMPT = PromptId("a" * 32)
INFERENCE = Inference(PROMPT, (Turn("user", "why?"),), sampling=Sampling(seed=1))
LONG_S = 1e6


class Dictated:
    """An engine that writes what it is given: text, a `Done`, an error to raise, None to stop in the middle."""

    def __init__(self, *script: str | Text | Done | Exception | None) -> None:
        self.script: asyncio.Queue[str | Text | Done | Exception | None] = asyncio.Queue()
        for each in script:
            self.script.put_nowait(each)
        self.taken = 0
        self.log: list[str] = []
        self.step = asyncio.Event()

    async def start(self) -> EngineInfo:
        return EngineInfo("dictated", 4096, 0.0)

    async def count(self, conversation: Sequence[Turn]) -> int:
        return len(conversation)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        self.log.append("begins")
        try:
            while True:
                match await self.script.get():
                    case str(text):
                        self.taken += 1
                        yield Text(text)
                    case Text() as piece:
                        yield piece
                    case Done() as done:
                        yield done
                        return
                    case None:
                        return
                    case error:
                        raise error
        finally:
            # An engine may need a moment to stop; whoever cancels it waits for that.
            await asyncio.sleep(0)
            self.log.append("is free")

    async def check(self) -> EngineInfo:
        return await self.start()

    async def prefill(self, inference: Inference) -> Warmth:
        self.log.append("warms")
        try:
            await self.step.wait()
        finally:
            self.log.append("is not warming")
        match await self.script.get():
            case Exception() as error:
                raise error
        return Warmth(64, 128)

    async def close(self) -> None:
        return


class Bench:
    """Work on an engine, with what it reported."""

    def __init__(self, engine: Engine | None, coalesce_s: float = 0.0) -> None:
        self.events: list[Event] = []
        self.news = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.work = Work(engine, self.spawn, coalesce_s)
        self.work.handle = self.take

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.news.set()

    async def until(self, *kinds: type[Event]) -> Event:
        """The first event of a kind; the test's time-out is the limit."""
        while not (found := [event for event in self.events if isinstance(event, kinds)]):
            self.news.clear()
            await self.news.wait()
        return found[0]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Generated)]


async def at_once() -> None:
    return


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    """No task of the device may be left, and none may fail: either would take the device down."""
    benches: list[Bench] = []

    def make(engine: Engine | None, **more: Any) -> Bench:
        benches.append(Bench(engine, **more))
        return benches[-1]

    yield make
    for each in benches:
        await asyncio.gather(*each.tasks)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until it is so; the test's time-out is the limit."""
    while not condition():  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0)


DONE = Done(Usage(3, 1, 4, 0.5, 0.1))


# ---- pieces -------------------------------------------------------------------------------------------


async def test_first_piece_at_once_then_gathered_and_the_rest_before_the_end(bench: Any) -> None:
    at = bench(Dictated("one ", "two ", "three ", "four", DONE), coalesce_s=LONG_S)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    end = await at.until(Finished)
    assert at.texts == ["one ", "two three four"]
    assert at.events[-1] is end
    assert end == Finished(JOB, DONE.usage, False)


async def test_every_piece_by_itself_where_nothing_is_gathered(bench: Any) -> None:
    at = bench(Dictated("one ", "two ", "three", Done(DONE.usage, truncated=True)))
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    assert (await at.until(Finished)).truncated
    assert at.texts == ["one ", "two ", "three"]


async def test_a_piece_waits_for_no_later_one(bench: Any) -> None:
    engine = Dictated("first")
    at = bench(engine, coalesce_s=LONG_S)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    await at.until(Generated)
    assert at.texts == ["first"]
    engine.script.put_nowait(DONE)
    await at.until(Finished)


async def test_the_timed_engine_s_text_arrives_whole(bench: Any) -> None:
    engine = TimedEngine(parse_law("det:0.2"))
    at = bench(engine, coalesce_s=0.05)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    usage = (await at.until(Finished)).usage
    words = [piece async for piece in engine.generate(INFERENCE)]
    assert "".join(at.texts) == "".join(piece.text for piece in words if isinstance(piece, Text))
    assert usage.tokens_out == len("".join(at.texts).split())


async def test_text_that_is_no_utf8_is_mended(bench: Any) -> None:
    """A server that tears an emoji in two sends halves that cannot be encoded."""
    at = bench(Dictated("so \ud83d", "\udca1 it is", DONE))
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    await at.until(Finished)
    assert "".join(at.texts).encode().decode() == "so \ufffd\ufffd it is"


# ---- back-pressure ------------------------------------------------------------------------------------


async def test_an_asker_that_does_not_read_holds_the_engine(bench: Any) -> None:
    engine = Dictated(*["x"] * 10, DONE)
    at = bench(engine)
    gate = asyncio.Semaphore(3)

    async def room() -> None:
        await gate.acquire()

    at.work.generate(JOB, INFERENCE, room)
    await until(lambda: gate.locked() and engine.taken == 4)
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.taken == 4
    for _ in range(10):
        gate.release()
    await at.until(Finished)
    assert engine.taken == 10


# ---- cancelling ---------------------------------------------------------------------------------------


async def test_abort_before_the_first_step_still_reports(bench: Any) -> None:
    engine = Dictated()
    at = bench(engine)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    at.work.abort(JOB)
    assert (await at.until(EngineFailed)).code == "cancelled"
    assert engine.log == []
    assert at.texts == []


async def test_abort_reports_when_the_engine_is_free_again(bench: Any) -> None:
    engine = Dictated("word")
    at = bench(engine)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    await at.until(Generated)
    free: list[bool] = []
    at.work.handle = lambda event: (free.append("is free" in engine.log), at.take(event))
    at.work.abort(JOB)
    assert await at.until(EngineFailed) == EngineFailed(JOB, "cancelled", "the job was cancelled")
    assert free == [True]


@pytest.mark.parametrize("end", ["abort", "break"])
async def test_a_job_that_ends_without_an_answer_tells_what_it_cost(bench: Any, end: str) -> None:
    engine = Dictated(Text("", Usage(20, 5, 0, 0.5, 0.5)), Text("word", Usage(40, 5, 1, 1.0, 0.9)))
    at = bench(engine)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    assert await at.until(Generated) == Generated(JOB, "word", Usage(40, 5, 1, 1.0, 0.9))
    if end == "abort":
        at.work.abort(JOB)
    else:
        engine.script.put_nowait(EngineError("it broke"))
    failed = await at.until(EngineFailed)
    assert isinstance(failed, EngineFailed)
    assert failed.usage == Usage(40, 5, 1, 1.0, 0.9)
    assert at.texts == ["word"], "an engine that reads has nothing to say yet"


async def test_abort_frees_a_job_whose_asker_does_not_read(bench: Any) -> None:
    engine = Dictated("word", "more", DONE)
    at = bench(engine)
    at.work.generate(JOB, INFERENCE, lambda: asyncio.Event().wait())
    await at.until(Generated)
    at.work.abort(JOB)
    await at.until(EngineFailed)
    assert engine.log == ["begins", "is free"]
    assert not [event for event in at.events if isinstance(event, Finished)]


async def test_abort_of_an_unknown_job_is_harmless(bench: Any) -> None:
    bench(Dictated()).work.abort(JOB)


# ---- faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (EngineError("it broke"), "engine_failed"),
        (EngineUnreachable("nobody is there"), "engine_unreachable"),
        (PromptTooLong("5 of 4 tokens"), "too_long"),
        (None, "engine_failed"),
    ],
)
async def test_a_failing_engine_has_a_code_and_no_end(bench: Any, last: Exception | None, code: str) -> None:
    at = bench(Dictated("half an ", last), coalesce_s=0.0)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    failed = await at.until(EngineFailed, Finished)
    assert isinstance(failed, EngineFailed)
    assert failed.code == code
    assert failed.detail == (str(last) if last else "the engine stopped in the middle of an answer")


async def test_a_bug_in_an_engine_fails_its_job_and_nothing_else(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    at = bench(Dictated(KeyError("usage"), "fine", DONE))
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    failed = await at.until(EngineFailed)
    assert failed.code == "engine_failed"
    assert "KeyError" in failed.detail
    assert "KeyError" in caplog.text
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    await at.until(Finished)


async def test_an_engine_s_last_words_are_cut_to_what_can_be_sent(bench: Any) -> None:
    at = bench(Dictated(EngineError("so it ended: " + "trace " * 1000)))
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    detail = (await at.until(EngineFailed)).detail
    assert detail.startswith("so it ended: trace")
    assert len(detail) <= 1_000


async def test_without_an_engine_a_job_fails(bench: Any) -> None:
    at = bench(None)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    assert (await at.until(EngineFailed)).code == "no_engine"
    at.work.warm(INFERENCE)
    assert await at.until(Warmed) == Warmed(PROMPT, 0, 0)


# ---- prefill ------------------------------------------------------------------------------------------


async def test_a_step_reports_its_warmth(bench: Any) -> None:
    engine = Dictated("")
    engine.step.set()
    at = bench(engine)
    at.work.warm(INFERENCE)
    assert await at.until(Warmed) == Warmed(PROMPT, 64, 128)


@pytest.mark.parametrize("error", [EngineError("it broke"), KeyError("usage")])
async def test_a_step_that_fails_ends_the_warming_in_silence(bench: Any, error: Exception) -> None:
    engine = Dictated(error)
    engine.step.set()
    at = bench(engine)
    at.work.warm(INFERENCE)
    assert await at.until(Warmed) == Warmed(PROMPT, 0, 0)


async def test_chill_stops_a_step_at_once_and_leaves_it_to_be_done(bench: Any) -> None:
    engine = Dictated()
    at = bench(engine)
    at.work.warm(INFERENCE)
    await until(lambda: engine.log == ["warms"])
    at.work.chill(PromptId("b" * 32))
    at.work.chill(PROMPT)
    warmed = await at.until(Warmed)
    assert warmed.evaluated < warmed.total
    assert engine.log == ["warms", "is not warming"]


async def test_chill_before_the_first_step_still_reports(bench: Any) -> None:
    at = bench(Dictated())
    at.work.warm(INFERENCE)
    at.work.chill(PROMPT)
    await at.until(Warmed)


async def test_a_job_after_chill_begins_when_the_step_is_over(bench: Any) -> None:
    engine = Dictated("word", DONE)
    at = bench(engine)
    at.work.warm(INFERENCE)
    await until(lambda: engine.log == ["warms"])
    at.work.chill(PROMPT)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    await at.until(Finished)
    assert engine.log == ["warms", "is not warming", "begins", "is free"]
    assert [type(event) for event in at.events] == [Warmed, Generated, Finished]


async def test_the_device_s_end_ends_its_job(bench: Any) -> None:
    """`Work` runs in tasks of the device; ending those ends the engine's work as well."""
    engine = Dictated("word")
    at = bench(engine)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    await at.until(Generated)
    (task,) = at.tasks
    at.tasks.clear()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await until(lambda: "is free" in engine.log)


# ---- probes --------------------------------------------------------------------------------------------


async def test_a_probe_is_answered_to_this_device_alone(bench: Any) -> None:
    at = bench(Dictated("so ", "it is", Done(DONE.usage, truncated=True)))
    assert await at.work.probe(INFERENCE) == ("so it is", True)
    assert not at.events


async def test_a_job_waits_until_the_probe_it_stops_has_let_go_of_the_engine(bench: Any) -> None:
    engine = Dictated("half")
    at = bench(engine)
    probing = asyncio.create_task(at.work.probe(INFERENCE))
    await until(lambda: engine.taken)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    engine.script.put_nowait(DONE)
    await at.until(Finished)
    assert await probing is None
    assert engine.log == ["begins", "is free", "begins", "is free"]


async def test_a_prefill_step_stops_a_probe_too(bench: Any) -> None:
    engine = Dictated("half")
    at = bench(engine)
    probing = asyncio.create_task(at.work.probe(INFERENCE))
    await until(lambda: engine.taken)
    at.work.warm(INFERENCE)
    engine.step.set()
    engine.script.put_nowait("warm")
    await at.until(Warmed)
    assert await probing is None
    assert engine.log == ["begins", "is free", "warms", "is not warming"]


async def test_no_probe_while_the_engine_is_in_use(bench: Any) -> None:
    engine = Dictated()
    at = bench(engine)
    at.work.generate(JOB, INFERENCE, lambda: at_once())
    assert await at.work.probe(INFERENCE) is None
    engine.script.put_nowait(DONE)
    await at.until(Finished)
    assert await bench(None).work.probe(INFERENCE) is None


async def test_an_engine_s_fault_at_a_probe_is_told(bench: Any) -> None:
    at = bench(Dictated(EngineUnreachable("gone"), None, ZeroDivisionError("a bug")))
    with pytest.raises(EngineUnreachable):
        await at.work.probe(INFERENCE)
    with pytest.raises(EngineError, match="in the middle"):
        await at.work.probe(INFERENCE)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        await at.work.probe(INFERENCE)
