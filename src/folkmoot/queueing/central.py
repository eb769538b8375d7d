"""One server for all beside the moot: the same work, the same capacity, and machines that fail.

The centre is one machine of n-fold speed, a round trip away. It makes the same K = (k+1)M + 1 jobs of a prompt, so
that both give the same answers and have the same load, one prompt after another, since a lone server gains nothing
by taking turns. Every machine is up and down by turns, for exponential times. What is on a machine when it fails is lost, and
who asks while it is down is refused: at the centre that is everybody, in the moot those whose own device it is. The
moot otherwise goes on with the answers of the others, once the failure is noticed. Times in seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from folkmoot.core.law import Law, Trace
from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, number, whole
from folkmoot.queueing.estimate import Interval, interval
from folkmoot.queueing.latency import Moments, alone
from folkmoot.queueing.moot import WARM_UP, Question, jobs_per_prompt, rho_most
from folkmoot.queueing.streams import (
    ARRIVALS,
    ORIGINS,
    POLICY,
    ROUTES,
    SERVICES,
    branch,
    keys,
    subset,
    uniform,
)


@dataclass(frozen=True, slots=True)
class Failures:
    """Mean times to failure and to repair of each machine, and how long its peers take to notice, seconds."""

    mttf_s: float = math.inf
    mttr_s: float = 0.0
    notice_s: float = 5.0

    @property
    def up(self) -> float:
        """[E] The share of time that a machine is up, MTTF/(MTTF + MTTR). Source: renewal theory."""
        return 1.0 if math.isinf(self.mttf_s) else self.mttf_s / (self.mttf_s + self.mttr_s)

    def nobody(self, machines: int) -> float:
        """[E] The share of time that no machine is up, (1 − up)^n: for the centre n = 1."""
        return (1.0 - self.up) ** machines


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What each replication saw, shape (replications,): mean latency of the answered, and shares of all that were asked."""

    latency: Floats
    answered: Floats
    refused: Floats

    def summary(self) -> Served:
        """The replications with their intervals."""
        return Served(interval(self.latency), interval(self.answered), interval(self.refused))


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the prompts: the latency of those that were answered, and shares of all that were asked."""

    latency: Interval
    answered: Interval
    refused: Interval


def centre_latency(question: Question, round_trip_s: float) -> float:
    """[E] Mean latency at a centre that does not fail: round trip + M/G/1 with K jobs of B/n a prompt, at n times the rate.

    Equal devices. The square of a prompt's service is that of K independent jobs, or of K times one where a trace
    gives all of them one row. Source: Pollaczek and Khinchine.
    """
    one = Moments.of(_law(question))
    jobs, n = jobs_per_prompt(question), question.devices
    spread = (one.square - one.mean**2) * (jobs**2 if isinstance(question.laws[0], Trace) else jobs)
    whole = Moments(jobs * one.mean / n, (spread + (jobs * one.mean) ** 2) / n**2)
    return number("round_trip_s", round_trip_s) + alone(n * _rate(question), whole)


def centre(question: Question, round_trip_s: float, failures: Failures = Failures()) -> Outcomes:
    """The centre, simulated: the prompts and the service times of `moot` with the same seed."""
    number("round_trip_s", round_trip_s)
    return _outcomes([_centre(question, round_trip_s, failures, key) for key in _keys(question, failures)])


def moot(question: Question, failures: Failures = Failures(), *, elsewhere: bool = False) -> Outcomes:
    """The moot, simulated. First come first served, any live peers, nobody stands in for one that fails.

    `elsewhere`: whose own device is down asks at another one that is up, any of them; only if none is, it is refused.
    """
    return _outcomes([_Moot(question, failures, key, elsewhere).run() for key in _keys(question, failures)])


def _keys(question: Question, failures: Failures) -> Any:
    _law(question)
    number("mttf_s", min(failures.mttf_s, 1e300), above=True)
    number("mttr_s", failures.mttr_s)
    number("notice_s", failures.notice_s)
    rho_most(question)  # checks the numbers
    number("horizon", question.horizon, above=True)
    whole("seed", question.seed, most=(1 << 64) - 1)
    return keys(question.seed, question.replications)


def _law(question: Question) -> Law:
    plain = Question(
        question.devices, question.layers, question.proposers, question.rates_hz, question.laws,
        horizon=question.horizon, replications=question.replications, seed=question.seed,
    )  # fmt: skip
    alike = len(set(question.laws)) == 1 and len(set(question.rates_hz)) == 1
    law = question.laws[0]
    if question != plain or not alike or (isinstance(law, Trace) and len(law.columns) > 1):
        raise TheoryError(
            "the centre is compared with equal devices on the complete graph, first come first served, without options"
        )
    return law


def _rate(question: Question) -> float:
    return question.rates_hz[0]


def _until(question: Question) -> float:
    return question.horizon / (_rate(question) * jobs_per_prompt(question))


@dataclass(slots=True)
class _Tally:
    """Prompts that came after the warm-up, and what became of them."""

    asked: int = 0
    refused: int = 0
    answered: int = 0
    latency_s: float = 0.0


def _outcomes(runs: list[_Tally]) -> Outcomes:
    asked = np.array([run.asked for run in runs], dtype=float)
    answered = np.array([run.answered for run in runs], dtype=float)
    refused, sums = np.array([run.refused for run in runs]), np.array([run.latency_s for run in runs])
    unknown = np.full(len(runs), math.nan)
    return Outcomes(
        np.divide(sums, answered, out=unknown.copy(), where=answered > 0),
        np.divide(answered, asked, out=unknown.copy(), where=asked > 0),
        np.divide(refused, asked, out=unknown.copy(), where=asked > 0),
    )


class _Draws:
    """The named random numbers of a run; those that the compiled simulator has, and the machines' lives."""

    def __init__(self, question: Question, failures: Failures, key: Any) -> None:
        self._key, self._law, self._failures = key, question.laws[0], failures
        self._total, self._devices = _rate(question) * question.devices, question.devices

    def _uniform(self, stream: int, prompt: int, stage: int, slot: int) -> float:
        return uniform(np.uint64(branch(self._key[stream], prompt, stage)), slot)

    def gap_s(self, prompt: int) -> float:
        return -math.log(1.0 - self._uniform(ARRIVALS, prompt, 0, 0)) / self._total

    def origin(self, prompt: int) -> int:
        return int(self._uniform(ORIGINS, prompt, 0, 0) * self._devices)

    def another(self, prompt: int, count: int) -> int:
        return int(self._uniform(ORIGINS, prompt, 0, 1) * count)

    def service_s(self, prompt: int, stage: int, slot: int) -> float:
        if isinstance(self._law, Trace):
            return self._law.quantile(self._uniform(SERVICES, prompt, 0, 0))
        return self._law.quantile(self._uniform(SERVICES, prompt, stage, slot))

    def peers(self, prompt: int, stage: int, among: list[int], size: int) -> list[int]:
        chosen = np.empty(max(1, size), np.int64)
        subset(np.uint64(branch(self._key[ROUTES], prompt, stage)), size, len(among), chosen)
        return [among[place] for place in chosen[:size]]

    def life_s(self, machine: int, turn: int) -> float:
        """How long a machine stays as it is; even turns are up."""
        mean = self._failures.mttr_s if turn % 2 else self._failures.mttf_s
        return math.inf if math.isinf(mean) else -mean * math.log1p(-self._uniform(POLICY, machine, 0, turn))


def _centre(question: Question, round_trip_s: float, failures: Failures, key: Any) -> _Tally:
    """Prompt after prompt: it is answered if it ends before the failure that follows its arrival."""
    draws, seen, until = _Draws(question, failures, key), _Tally(), _until(question)
    now, prompt, turn, free = 0.0, 0, 0, 0.0
    changes = draws.life_s(0, 0)
    while (now := now + draws.gap_s(prompt)) <= until:
        while changes <= now:
            turn += 1
            free = max(free, changes) if turn % 2 else changes  # after a repair it begins with nothing to do
            changes += draws.life_s(0, turn)
        counted = now >= WARM_UP * until
        seen.asked += counted
        if turn % 2:
            seen.refused += counted
        else:
            jobs = [
                (stage, slot)
                for stage in range(1, question.layers + 1)
                for slot in range(question.proposers + 1)
            ]
            took = sum(draws.service_s(prompt, *job) for job in [*jobs, (question.layers + 1, 0)])
            free = max(now, free) + took / question.devices
            if free <= changes:
                seen.answered += counted
                seen.latency_s += counted * (free - now + round_trip_s)
        prompt += 1
    return seen


@dataclass(eq=False, slots=True)
class _Prompt:
    number: int
    origin: int
    born: float
    stage: int = 0
    missing: int = 0
    lost: bool = False


_Job = tuple[_Prompt, int, int]
"""Prompt, stage, slot."""


@dataclass(eq=False, slots=True)
class _Device:
    waiting: deque[_Job] = field(default_factory=deque)
    serving: _Job | None = None
    own: dict[int, _Prompt] = field(default_factory=dict)
    """The open prompts that were asked here."""
    up: bool = True
    turn: int = 0
    unnoticed: list[_Job] | None = None
    """What was lost with it, and what was sent to it since, until its peers know."""


_ARRIVES, _ENDS, _CHANGES, _NOTICED = range(4)


class _Moot:
    """Devices with a queue each, one event after another."""

    def __init__(self, question: Question, failures: Failures, key: Any, elsewhere: bool) -> None:
        self._elsewhere = elsewhere
        self._question, self._failures, self._draws = question, failures, _Draws(question, failures, key)
        self._until, self._seen = _until(question), _Tally()
        self._devices = [_Device() for _ in range(question.devices)]
        self._heap: list[tuple[float, int, int, int, Any]] = []
        self._pushed = 0
        self._coming = True

    def run(self) -> _Tally:
        """All prompts that come until the horizon, to the end of each."""
        self._push(self._draws.gap_s(0), _ARRIVES, 0)
        for place in range(len(self._devices)):
            self._push(self._draws.life_s(place, 0), _CHANGES, place)
        while self._coming or any(device.own for device in self._devices):
            now, _, kind, place, known = heapq.heappop(self._heap)
            if kind == _ARRIVES:
                self._arrives(place, now)
            elif kind == _ENDS:
                self._ends(place, known, now)
            elif kind == _CHANGES:
                self._changes(place, now)
            else:
                self._noticed(place, known, now)
        return self._seen

    def _push(self, time: float, kind: int, place: int, known: Any = None) -> None:
        if time < math.inf:
            heapq.heappush(self._heap, (time, self._pushed, kind, place, known))
            self._pushed += 1

    def _arrives(self, prompt: int, now: float) -> None:
        if now > self._until:
            self._coming = False
            return
        self._push(now + self._draws.gap_s(prompt + 1), _ARRIVES, prompt + 1)
        origin, counted = self._draws.origin(prompt), now >= WARM_UP * self._until
        self._seen.asked += counted
        if self._elsewhere and not self._devices[origin].up:
            up = [place for place, device in enumerate(self._devices) if device.up]
            origin = up[self._draws.another(prompt, len(up))] if up else origin
        if not self._devices[origin].up:
            self._seen.refused += counted
            return
        self._devices[origin].own[prompt] = _Prompt(prompt, origin, now)
        self._ask(self._devices[origin].own[prompt], now)

    def _ask(self, prompt: _Prompt, now: float) -> None:
        prompt.stage += 1
        asked = [prompt.origin]
        if prompt.stage <= self._question.layers:
            seen = [
                place for place, device in enumerate(self._devices)
                if place != prompt.origin and (device.up or device.unnoticed is not None)
            ]  # fmt: skip
            size = min(self._question.proposers, len(seen))
            asked += self._draws.peers(prompt.number, prompt.stage, seen, size)
        prompt.missing = len(asked)
        for slot, place in enumerate(asked):
            device, job = self._devices[place], (prompt, prompt.stage, slot)
            if device.up:
                device.waiting.append(job)
                self._serve(place, now)
            elif device.unnoticed is not None:
                device.unnoticed.append(job)

    def _ends(self, place: int, job: _Job, now: float) -> None:
        device = self._devices[place]
        if device.serving is job:  # else it was lost with its machine
            device.serving = None
            self._one_less(job, now)
            self._serve(place, now)

    def _serve(self, place: int, now: float) -> None:
        device = self._devices[place]
        while device.serving is None and device.waiting:
            job = device.waiting.popleft()
            if not job[0].lost:
                device.serving = job
                self._push(now + self._draws.service_s(job[0].number, *job[1:]), _ENDS, place, job)

    def _one_less(self, job: _Job, now: float) -> None:
        """A job has ended, or is known to be lost: its layer waits for one less."""
        prompt = job[0]
        prompt.missing -= 1
        if prompt.lost or prompt.missing:
            return
        if prompt.stage <= self._question.layers:
            self._ask(prompt, now)
            return
        del self._devices[prompt.origin].own[prompt.number]
        if prompt.born >= WARM_UP * self._until:
            self._seen.answered += 1
            self._seen.latency_s += now - prompt.born

    def _changes(self, place: int, now: float) -> None:
        device = self._devices[place]
        device.turn += 1
        device.up = not device.up
        self._push(now + self._draws.life_s(place, device.turn), _CHANGES, place)
        if device.up:
            device.unnoticed = None  # whoever asks now is served; what was lost is noticed in its time
            return
        lost = [*([device.serving] if device.serving else []), *device.waiting]
        device.serving = None
        device.waiting.clear()
        device.unnoticed = [job for job in lost if job[0].origin != place]
        self._push(now + self._failures.notice_s, _NOTICED, place, device.unnoticed)
        for prompt in device.own.values():
            prompt.lost = True
        device.own.clear()

    def _noticed(self, place: int, lost: list[_Job], now: float) -> None:
        for job in lost:
            self._one_less(job, now)
        if self._devices[place].unnoticed is lost:
            self._devices[place].unnoticed = None
