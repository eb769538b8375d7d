"""The virtual engine: text comes in pieces after times that a law draws; it can die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from folkmoot.core.events import (
    Abort,
    Chill,
    EngineFailed,
    Event,
    Finished,
    Generate,
    Generated,
    Warm,
    Warmed,
)
from folkmoot.core.ids import JobId, PromptId
from folkmoot.core.messages import Usage

ServiceTime = Callable[[Random], float]
"""Draws the seconds that one inference takes."""

ANYWAY = -1
"""The run of an event that counts whatever came in between: the end of a step that was stopped."""


Reports = list[tuple[float, int, Event]]
"""What an engine will say: after how many seconds, in which run, what."""


class Machine(Protocol):
    """What the world asks of a virtual engine."""

    def generate(self, effect: Generate) -> Reports:
        """Begin a job."""

    def abort(self, effect: Abort) -> Reports:
        """Stop a job."""

    def warm(self, effect: Warm) -> Reports:
        """One prefill step."""

    def chill(self, effect: Chill) -> Reports:
        """Stop the step."""

    def current(self, run: int, event: Event) -> bool:
        """Whether an event of this run still counts; ends free the engine."""

    def settle(self) -> Reports:
        """What else changes after an event of the engine was handled."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`pieces` of text an inference, seconds of a prefill step and of an abort, probability of a failure."""

    pieces: int = 4
    warm_step_s: float = 0.02
    warm_steps: int = 3
    abort_s: float = 0.01
    failure: float = 0.0


class Engine:
    """One inference or prefill step at a time. It answers with (delay, event) pairs; stale ones are dropped.

    Asserts the driver's duties of core/events.py: never two jobs at once, no job beside a prefill step.
    """

    def __init__(self, service: ServiceTime, config: EngineConfig, rng: Random) -> None:
        self._service = service
        self._config = config
        self._rng = rng
        self._run = 0
        self._job: JobId | None = None
        self._warming: PromptId | None = None
        self._evaluated: dict[PromptId, int] = {}
        self.served = 0

    @property
    def busy(self) -> bool:
        """Whether a job is in service."""
        return self._job is not None

    def generate(self, effect: Generate) -> Reports:
        """Begin a job: its pieces, then its end."""
        assert self._job is None, f"{effect.job} began while {self._job} was in service"
        assert self._warming is None, f"{effect.job} began during a prefill step"
        self._run += 1
        self._job = effect.job
        self.served += 1
        total, events = self._service(self._rng), Reports()
        count = self._config.pieces
        words = [f"{effect.job}/{number} " for number in range(count)]
        fails = self._rng.random() < self._config.failure
        for number, word in enumerate(words[: self._rng.randrange(count + 1) if fails else count]):
            events.append((total * (number + 1) / (count + 1), self._run, Generated(effect.job, word)))
        end: Event = (
            EngineFailed(effect.job, "engine_failed", "the virtual engine died")
            if fails
            else Finished(effect.job, Usage(10, 0, count, total, total / (count + 1)))
        )
        events.append((total, self._run, end))
        return events

    def abort(self, effect: Abort) -> Reports:
        """Stop the job in service; the engine is free once this is reported."""
        if self._job != effect.job:
            return []
        self._run += 1
        return [(self._config.abort_s, self._run, EngineFailed(effect.job, "cancelled", "aborted"))]

    def warm(self, effect: Warm) -> Reports:
        """One prefill step."""
        assert self._job is None, f"a prefill step began while {self._job} was in service"
        assert self._warming is None, "two prefill steps at once"
        prompt = effect.inference.prompt
        self._run += 1
        self._warming = prompt
        return [(self._config.warm_step_s, self._run, self._warmed(prompt, 1))]

    def chill(self, effect: Chill) -> Reports:
        """Stop the step; reported at once."""
        if self._warming != effect.prompt:
            return []
        self._run += 1
        self._warming = None
        return [(0.0, ANYWAY, self._warmed(effect.prompt, 0))]

    def current(self, run: int, event: Event) -> bool:
        """Whether an event of this run still counts; ends free the engine."""
        if run == ANYWAY:
            return True
        if run != self._run:
            return False
        if isinstance(event, Finished | EngineFailed):
            self._job = None
        elif isinstance(event, Warmed):
            self._warming = None
            self._evaluated[event.prompt] = event.evaluated
            if len(self._evaluated) > 64:
                del self._evaluated[next(iter(self._evaluated))]
        return True

    def settle(self) -> Reports:
        """Nothing: one job at a time disturbs no other."""
        return []

    def _warmed(self, prompt: PromptId, steps: int) -> Warmed:
        total = self._config.warm_steps * 10
        return Warmed(prompt, min(self._evaluated.get(prompt, 0) + 10 * steps, total), total)
