"""The reference simulator: a question put to the real protocol, answered as the compiled simulator answers.

Slower by three orders of magnitude, so for small moots and short times; what the compiled one lacks is a `Setting`.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from folkmoot.queueing import memory
from folkmoot.queueing.fcfs import BINS_PER_OCTAVE, CHECKPOINTS, FIELDS, OCTAVES, Counts, bin_of
from folkmoot.queueing.moot import (
    WARM_UP,
    Question,
    Replication,
    Result,
    check,
    end_s,
    jobs_per_prompt,
    rho_most,
    service_means,
    summary,
    weighed,
)
from folkmoot.queueing.stability import loads, stage_flow
from folkmoot.queueing.streams import keys
from folkmoot.sim.load import History, Job, Key, Load, Setting

Floats = npt.NDArray[np.float64]
JOB_BYTES = 600
"""What a run keeps of each job, its prompt's part among it (measured: 500 to 700)."""
REFUSED = ("overloaded", "origin_down")
"""How a prompt ends that was never let in."""


@dataclass(frozen=True, slots=True)
class Run:
    """One replication: as the compiled simulator counts, and what else there was to see. `history` where it was kept.

    `ends` counts prompts by their end: "" answered, `open` not ended, else an error's code.
    """

    replication: Replication
    ends: dict[str, int]
    failures: int
    events: int
    history: History | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the real protocol did in all replications. In `result` loads and limit are those of all slots together,
    `utilisation` the mean number of jobs in service. `availability` is the share of ended prompts that were answered.
    """

    result: Result
    setting: Setting
    ends: dict[str, int]
    availability: float
    failures: int
    events: int
    runs: tuple[Run, ...]


def simulate(
    question: Question, setting: Setting | None = None, *, workers: int | None = None, keep: bool = False
) -> Seen:
    """Run all replications of a question and sum them up. Raises `TheoryError` for what cannot be simulated.

    Prompts, peers and service times are those of `queueing.moot` for the same question; `keep` keeps histories.
    """
    began = time.perf_counter()
    runs = list(replications(question, setting, workers, keep=keep))
    seen = summed(question, setting or Setting(), runs)
    return replace(seen, result=replace(seen.result, wall_s=time.perf_counter() - began))


def replications(
    question: Question, setting: Setting | None = None, workers: int | None = None, *, keep: bool = False
) -> Iterator[Run]:
    """The runs of a question in their order, on all cores or so many, or on the joblib backend that is active."""
    from joblib import Parallel, delayed

    check(question)
    (setting or Setting()).check(question)
    jobs = question.horizon * question.devices
    question = lasting(question, setting)
    if question.prompts:
        jobs = question.prompts * jobs_per_prompt(question)
    memory.check(int(JOB_BYTES * jobs) * min(question.replications, workers or os.cpu_count() or 1))
    # Processes: unlike the kernels this is Python through and through.
    run = Parallel(n_jobs=workers or -1, prefer="processes", return_as="generator")
    yield from run(
        delayed(_run)(question, setting, key, keep) for key in keys(question.seed, question.replications)
    )


def _run(question: Question, setting: Setting | None, key: Key, keep: bool) -> Run:
    history = Load(question, key, end_s(question), setting).run()
    ends = Counter(prompt.code for prompt in history.prompts)
    counted = Replication(counts(question, history), history.wall_s, 0)
    return Run(counted, dict(ends), history.failures, history.events, history if keep else None)


def summed(question: Question, setting: Setting, runs: Sequence[Run]) -> Seen:
    """Replications as means with intervals."""
    longer = lasting(question, setting)
    alone = summary(
        longer, [run.replication for run in runs], setting.stages, setting.stops, setting.full_speed
    )
    ends: Counter[str] = Counter()
    for run in runs:
        ends.update(run.ends)
    over = sum(ends.values()) - ends["open"]
    most = tuple(map(float, offered(question, setting)))
    rho = most
    if question.layers and question.quorum not in (
        0,
        question.proposers + 1,
    ):  # what it saves is known for some
        known = alone.rho if setting.plain else (math.nan,) * question.devices
        rho = tuple(each / setting.full_speed for each in known)
    # The limit is where the busiest device's load would be 1.
    rate = sum(_rates(question)) / question.devices
    limit = rate / max(rho) if max(rho) else math.inf
    if weighed(question):
        limit = math.nan
    return Seen(
        replace(
            alone,
            question=question,
            rho=rho,
            per_device=tuple(replace(one, rho=each) for one, each in zip(alone.per_device, rho, strict=True)),
            rho_most=most,
            limit_rate=limit,
            goodput_of_limit=alone.goodput.value / limit,
        ),
        setting,
        dict(ends),
        ends[""] / over if over else math.nan,
        sum(run.failures for run in runs),
        sum(run.events for run in runs),
        tuple(runs),
    )


def lasting(question: Question, setting: Setting | None) -> Question:
    """The question with the horizon that lasts as long as its jobs do where prompts stop early: so many services a device."""
    if not setting or not setting.stops or question.prompts:
        return question
    most = jobs_per_prompt(question)
    layers = sum(stage_flow(question.layers, setting.stops)[0])
    return replace(question, horizon=question.horizon * most / ((most - 1) * layers / question.layers + 1))


def offered(question: Question, setting: Setting) -> Floats:
    """[E] The load of each device if no job is cancelled, shape (n,); 1 is all that its slots can do. Source: jobs counted."""
    if setting.plain:
        return rho_most(question) / setting.full_speed
    n, layers, stages = question.devices, question.layers, setting.stages or (1.0,) * (question.layers + 1)
    rates, means = _rates(question), service_means(question)
    own = None if setting.aggregator is None else [float(each == setting.aggregator) for each in range(n)]
    found = stages[layers] * loads(rates, means, 0, 0, aggregators=own)
    if layers:
        one = loads(
            rates, means, 1, question.proposers, graph=question.graph, weights=setting.weights or None,
            skip_aggregation=1.0,
        )  # fmt: skip
        reached, _ = stage_flow(layers, setting.stops)
        found += one * sum(time * chance for time, chance in zip(stages, reached, strict=False))
    return found / setting.full_speed


def _rates(question: Question) -> tuple[float, ...]:
    return question.rates_hz * (question.devices if len(question.rates_hz) == 1 else 1)


def counts(question: Question, history: History) -> Counts:
    """A history as the compiled simulator counts: integrals over the time after the warm-up, in seconds."""
    until = end_s(question)
    warm = 0.0 if question.prompts else WARM_UP * until
    n, jobs = question.devices, history.jobs
    device = np.array([job.device for job in jobs], np.int64)
    asked, left, start, end = (np.array(each, float) for each in (
        [job.asked for job in jobs], [_left(job) for job in jobs],
        [math.inf if math.isnan(job.start) else job.start for job in jobs],
        [math.inf if math.isnan(job.end) else job.end for job in jobs],
    ))  # fmt: skip
    middle, quarter = (warm + until) / 2, (until - warm) / 4
    late = np.zeros((n, 2))
    checkpoints = np.zeros(CHECKPOINTS + 1, np.int64)
    if not question.prompts:
        late[:, 0] = _area(n, device, asked, left, middle, middle + quarter)
        late[:, 1] = _area(n, device, asked, left, middle + quarter, until)
        scale = CHECKPOINTS / (until - warm)
        first = np.maximum(0, np.ceil((asked - warm) * scale)).astype(np.int64)
        last = np.ceil((np.minimum(left, until + 1.0 / scale) - warm) * scale)
        last = np.minimum(CHECKPOINTS, last).astype(np.int64)
        waits = (left > asked) & (first < last)
        np.add.at(checkpoints, first[waits], 1)
        np.add.at(checkpoints, last[waits], -1)
    latency, histogram = np.zeros(2), np.zeros(OCTAVES * BINS_PER_OCTAVE, np.int64)
    totals = np.zeros(6, np.int64)
    totals[0], totals[3] = len(history.prompts), len(jobs)
    totals[5] = sum(prompt.code in REFUSED for prompt in history.prompts)
    answered = sorted((p for p in history.prompts if not p.code), key=lambda prompt: prompt.ended)
    totals[1] = len(answered)
    for prompt in answered:
        if prompt.ended >= warm:
            took = prompt.ended - prompt.born
            totals[4] += 1
            latency[0] += took
            histogram[bin_of(took)] += 1
    finite = end[np.isfinite(end)]
    latency[1] = finite.max() if finite.size else 0.0
    return Counts(
        waiting=_area(n, device, asked, left, warm, until),
        busy=_area(n, device, start, end, warm, until),
        late=late,
        checkpoints=checkpoints,
        latency=latency,
        histogram=histogram,
        age=_ages(question, history, warm, until),
        totals=totals,
        log=np.zeros((0, len(FIELDS))),
    )


def _left(job: Job) -> float:
    """When a job stopped to wait."""
    if not math.isnan(job.start):
        return job.start
    return math.inf if math.isnan(job.cut) else job.cut


def _area(
    n: int, device: npt.NDArray[np.int64], since: Floats, to: Floats, low: float, high: float
) -> Floats:
    """Seconds of the spans within [low, high], summed by device."""
    with np.errstate(invalid="ignore"):
        within = np.minimum(to, high) - np.maximum(since, low)
    within = np.where(np.isfinite(within), np.maximum(within, 0.0), 0.0)
    return np.bincount(device, weights=within, minlength=n).astype(float)


def _ages(question: Question, history: History, warm: float, until: float) -> Floats:
    """The area under the age of each device's newest answer."""
    ages, seen, newest = (np.zeros(question.devices) for _ in range(3))
    ends = sorted((prompt.ended, prompt.origin, prompt.born) for prompt in history.prompts if not prompt.code)
    for ended, origin, born in [*ends, *((until, device, 0.0) for device in range(question.devices))]:
        since, now = max(seen[origin], warm), min(ended, until)
        if since < now < math.inf:
            ages[origin] += ((now - newest[origin]) ** 2 - (since - newest[origin]) ** 2) / 2
        seen[origin], newest[origin] = max(seen[origin], now), max(newest[origin], born)
    return ages
