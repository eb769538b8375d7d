"""The device's queue against ten lines: first come first served, one at a time, and every word told again."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.world import Moot

from folkmoot.core.events import Received, Send, Warmed
from folkmoot.core.ids import DeviceId, PromptId, job_id
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
)
from folkmoot.core.peer import PeerConfig
from folkmoot.core.queue import QueueConfig

ANN = DeviceId("ann")
ORIGINS = (DeviceId("yon"), DeviceId("zed"))
BOUND = 5


Key = tuple[DeviceId, int]


@dataclass
class Line:
    """The model: who stands in the line. `texts` holds what each job that was let in has written.

    A job is known by who asked and its number: two who give one name to their jobs do not meet.
    """

    waiting: list[Key] = field(default_factory=list)
    current: Key | None = None
    tries: int = 0
    texts: dict[Key, str] = field(default_factory=dict)
    over: dict[Key, type[Answer | Undone]] = field(default_factory=dict)
    declined: dict[Key, Outcome] = field(default_factory=dict)

    def next(self) -> None:
        if self.current is None and self.waiting:
            self.current, self.tries = self.waiting.pop(0), 0

    def leave(self, key: Key) -> None:
        del self.texts[key]
        if key == self.current:
            self.current = None
        else:
            self.waiting.remove(key)
        self.next()

    @property
    def full(self) -> dict[DeviceId, bool]:
        """For whom there is no room: others than ANN may take three quarters, each of them half."""
        here = {who: sum(1 for owner, _ in self.waiting if owner == who) for who in ORIGINS}
        return {who: len(self.waiting) >= BOUND * 3 // 4 or here[who] >= BOUND // 2 for who in ORIGINS}


def prompt_id(number: int) -> PromptId:
    return PromptId(f"{number:032x}")


def ask_of(number: int) -> Ask:
    prompt = prompt_id(number)
    answers = ("one",) if number % 2 else ()
    inference = Inference(prompt, (Turn("user", "x"),), answers, 2)
    return Ask(job_id(prompt, 1, 1), prompt, 1, Stage.REFINE if answers else Stage.PROPOSE, inference)


NUMBERS = st.integers(0, 9)
WHO = st.sampled_from(ORIGINS)


class FirstComeFirstServed(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.moot = Moot({"ann": "m"}, PeerConfig(queue=QueueConfig(max_waiting=BOUND)))
        self.line = Line()
        self.device = self.moot.devices[ANN]

    def replies(self, sender: DeviceId, message: Message) -> list[Message]:
        """What is said to the sender in answer. Other origins may hear of their own jobs meanwhile."""
        effects = self.moot.tell(ANN, Received(sender, message))
        job = ask_of(0).job if isinstance(message, Prepare) else message.job  # type: ignore[union-attr]
        sent = [e for e in effects if isinstance(e, Send) and getattr(e.message, "job", None) == job]
        assert all(e.to == sender for e in sent), f"{sent} is nobody else's business"
        return [e.message for e in sent]

    @rule(number=NUMBERS, who=WHO)
    def ask(self, number: int, who: DeviceId) -> None:
        line, ask, key = self.line, ask_of(number), (who, number)
        told = self.replies(who, ask)
        if key in line.declined:
            [again] = told
            assert isinstance(again, Undone)
            assert again.outcome is line.declined[key]
        elif key in line.texts:
            self.check_standing(number, who, 0, told)
        elif line.full[who]:
            [refused] = told
            assert isinstance(refused, Undone)
            assert (refused.outcome, refused.code) == (Outcome.REFUSED, "overloaded")
            line.declined[key] = Outcome.REFUSED
        else:
            assert told[0] == Queued(ask.job, len(line.waiting) + (line.current is not None))
            line.texts[key] = ""
            line.waiting.append(key)
            line.next()

    @rule(number=NUMBERS, who=WHO)
    def cancel(self, number: int, who: DeviceId) -> None:
        line, key = self.line, (who, number)
        waits = key in line.waiting
        told = self.replies(who, Cancel(ask_of(number).job))
        assert [type(m) for m in told] == ([Undone] if waits else [])
        if key in line.over:
            return  # what is done stays, for an origin that asks again
        line.declined[key] = Outcome.CANCELLED
        if key in line.texts:
            line.leave(key)

    @rule(number=NUMBERS, who=WHO, have=st.integers(0, 30))
    def poll(self, number: int, who: DeviceId, have: int) -> None:
        have = min(have, len(self.line.texts.get((who, number), "")))
        self.check_standing(number, who, have, self.replies(who, Poll(ask_of(number).job, have)))

    def check_standing(self, number: int, who: DeviceId, have: int, told: list[Message]) -> None:
        line, job, key = self.line, ask_of(number).job, (who, number)
        if key not in line.texts:
            assert [(type(m), m.code) for m in told if isinstance(m, Undone)] == [(Undone, "unknown_job")]
            assert len(told) == 1
        elif key in line.waiting:
            place = line.waiting.index(key) + (line.current is not None)
            assert told == [Queued(job, place)]
        else:
            rest = line.texts[key][have:]
            assert isinstance(told[0], Began)
            pieces = [(m.offset, m.text) for m in told if isinstance(m, Piece)]
            assert pieces == ([(have, rest)] if rest else [])
            ends = [m for m in told if isinstance(m, Answer | Undone)]
            assert [type(m) for m in ends] == ([line.over[key]] if key in line.over else [])
            for end in ends:
                assert not isinstance(end, Answer) or end.length == len(line.texts[key])

    @precondition(lambda self: self.line.current is not None)
    @rule(text=st.text(max_size=5), whole=st.booleans())
    def write(self, text: str, whole: bool) -> None:
        line = self.line
        assert line.current is not None
        line.texts[line.current] += text
        self.moot.write(ANN, text, whole)
        if whole:
            line.over[line.current] = Answer
            line.current = None
            line.next()

    @precondition(lambda self: self.line.current is not None)
    @rule(code=st.sampled_from(("engine_failed", "engine_unreachable", "too_long", "weights")))
    def break_engine(self, code: str) -> None:
        line = self.line
        assert line.current is not None
        self.moot.break_engine(ANN, code)
        line.tries += 1
        again = code.startswith("engine") and not line.texts[line.current] and line.tries < 2
        if not again:
            line.over[line.current] = Undone
            line.current = None
            line.next()

    @rule(number=NUMBERS, who=WHO)
    def prepare(self, number: int, who: DeviceId) -> None:
        self.moot.tell(ANN, Received(who, Prepare(ask_of(number).inference)))

    @precondition(lambda self: self.device.warming is not None)
    @rule(evaluated=st.integers(0, 9))
    def warmed(self, evaluated: int) -> None:
        assert self.device.warming is not None
        prompt, self.device.warming = self.device.warming.prompt, None
        self.moot.tell(ANN, Warmed(prompt, evaluated, 9))

    @invariant()
    def stands_as_the_model_says(self) -> None:
        running = self.device.running and self.device.running[0]
        assert running == (None if self.line.current is None else ask_of(self.line.current[1]).job)
        assert self.device.peer.queue.waiting == len(self.line.waiting)
        assert self.device.peer.queue.busy == (self.line.current is not None)
        assert self.device.warming is None or running is None

    def teardown(self) -> None:
        """What is in the line is served in its order, and prefill ends by itself."""
        while self.line.current is not None:
            self.write("end", whole=True)
            self.stands_as_the_model_says()
        steps = 0
        while self.device.warming is not None:
            self.warmed(9)
            steps += 1
        assert steps <= 2, "one for what was under way, one for what came meanwhile"
        assert self.device.peer.idle


TestFirstComeFirstServed = FirstComeFirstServed.TestCase
TestFirstComeFirstServed.settings = settings(
    deadline=None, suppress_health_check=list(HealthCheck), max_examples=150, stateful_step_count=40
)
