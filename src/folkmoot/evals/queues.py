"""What queues the recorded prompts make: their jobs at the times that they took, served first come first served.

Prompts come at random (Poisson) and are drawn from the records with replacement. A job's place and time are those of its record, so
that stages and models differ as they did; nothing fails, nobody is refused. Needs extra [eval] or [sim].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from random import Random
from statistics import fmean
from typing import NamedTuple

import numpy as np

from folkmoot.errors import EvalError
from folkmoot.evals.jobs import busiest_s, worked
from folkmoot.evals.records import Record
from folkmoot.queueing.estimate import Interval, interval
from folkmoot.queueing.published import script_queue

WARM_UP = 0.2
"""Share of a long run that is not counted."""
LONG, LONG_RUNS = 2_000, 10
SHORT, SHORT_RUNS = 10, 200
"""Prompts of a run and how many runs: long ones for a load that can last, the paper's ten for one that cannot."""

Steps = Sequence[Sequence[tuple[int, float]]]
"""A prompt's steps; each job's device and its seconds of service."""
Line = tuple[float, float, float, float, float, float, float]
"""A job as `queueing.fcfs.FIELDS` names it."""


@dataclass(frozen=True, slots=True)
class Work:
    """An arm's prompts as work for so many devices."""

    devices: int
    prompts: tuple[Steps, ...]

    @property
    def limit_hz(self) -> float:
        """Prompts a second, of all devices together, at which the busiest one has no time left."""
        most = busiest_s(job for prompt in self.prompts for step in prompt for job in step)
        return len(self.prompts) / most if most else math.inf


@dataclass(frozen=True, slots=True)
class Queues:
    """Means of several runs with their 95 % intervals: `rate_hz` prompts a second over all devices, `load` its share of the limit.

    `size` is the time average of jobs waiting on a device, `script` what the paper's published script would print for the same jobs.
    While prompts come, `growth` is how much longer the queues are in the last quarter than in the second one, as a share of the jobs that
    came between them: about 0 where they stay, 1 - 1/load where all devices are overloaded alike. `bend` is how many times as much they grow from the third to the last as from the first to the second: 1 where they grow linearly, more where faster.
    """

    rate_hz: float
    load: float
    latency: Interval
    size: Interval
    script: Interval
    growth: Interval
    bend: Interval


class Reckoned(NamedTuple):
    """Of one run: the busiest device's load while prompts came, the mean latency, seconds, the queues as in `Queues`."""

    load: float
    latency_s: float
    size: float
    script: float


def work_of(records: Sequence[Record], devices: int) -> Work:
    """The jobs of these records. Raises `EvalError` where more devices worked than there are."""
    names = sorted({job.device for record in records for job in record.jobs})
    if len(names) > devices:
        raise EvalError(f"{len(names)} devices worked in a moot of {devices}")
    number = {name: place for place, name in enumerate(names)}
    found = []
    for record in records:
        told = [] if record.error else worked(record.jobs, record.decisions)
        found.append([[(number[name], seconds) for name, seconds in step.items()] for step in told])
    return Work(devices, tuple(each for each in found if each))


def queues(work: Work, rate_hz: float, *, prompts: int, runs: int, seed: int = 0) -> Queues:
    """So many runs of so many prompts at a rate over all devices. The same seed gives the same. Raises `EvalError`.

    More prompts than the paper's ten are a run that lasts: its beginning is not counted, and it ends with the last arrival. Else a run
    starts and ends with empty queues.
    """
    if not work.prompts or rate_hz <= 0:
        raise EvalError("there are no prompts to be queued")
    lasting = prompts > SHORT
    seen = []
    for run in range(runs):
        random = Random(f"{seed} {run}")
        drawn = random.choices(work.prompts, k=prompts)
        born = list(accumulate(random.expovariate(rate_hz) for _ in range(prompts)))
        ended, log = served(drawn, born, work.devices)
        begin = born[int(WARM_UP * prompts)] if lasting else 0.0
        end = born[-1] if lasting else max(line[6] for line in log)
        took = fmean(ended[each] - born[each] for each in range(prompts) if born[each] >= begin)
        quarter = born[-1] / 4
        first, second, third, last = (
            waiting(log, place * quarter, (place + 1) * quarter) for place in range(4)
        )
        seen.append((
            took, waiting(log, begin, end) / work.devices, script_queue(np.array(log), work.devices),
            _over(last - second, len(log) / 2), _over(last - third, second - first),
        ))  # fmt: skip
    return Queues(rate_hz, rate_hz / work.limit_hz, *map(interval, zip(*seen, strict=True)))


def _over(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def again(records: Sequence[Record], devices: int, pace: float) -> Reckoned:
    """What a run at a rate (`Setup.rate`) should have measured: the same prompts at the same times, by reckoning."""
    some = sorted(
        (each for each in records if not each.error and worked(each.jobs, each.decisions)),
        key=lambda each: each.at_s,
    )
    if not some:
        return Reckoned(math.nan, math.nan, math.nan, math.nan)
    work, born = work_of(some, devices), [each.at_s / pace for each in some]
    ended, log = served(work.prompts, born, devices)
    latency_s = fmean(end - begin for end, begin in zip(ended, born, strict=True))
    load = len(some) / born[-1] / work.limit_hz if born[-1] else math.nan
    return Reckoned(
        load, latency_s, waiting(log, 0.0, max(ended)) / devices, script_queue(np.array(log), devices)
    )


def served(prompts: Sequence[Steps], born: Sequence[float], devices: int) -> tuple[list[float], list[Line]]:
    """When each prompt ends that comes at such a time, seconds, and all jobs: first come first served on each device."""
    ended, free, log = [0.0] * len(prompts), [0.0] * devices, list[Line]()
    # Steps are begun in the order of their times, so a device's jobs are asked for in theirs.
    coming = [(time, prompt, 0) for prompt, time in enumerate(born)]
    while coming:
        time, prompt, place = heappop(coming)
        over = time
        for slot, (device, seconds) in enumerate(prompts[prompt][place]):
            start = max(time, free[device])
            free[device] = start + seconds
            over = max(over, free[device])
            log.append((prompt, place + 1, slot, device, time, start, free[device]))
        if place + 1 < len(prompts[prompt]):
            heappush(coming, (over, prompt, place + 1))
        else:
            ended[prompt] = over
    return ended, log


def waiting(log: Sequence[Line], begin: float, end: float) -> float:
    """The time average of jobs that wait, of all devices together, between two times."""
    area = sum(max(0.0, min(line[5], end) - max(line[4], begin)) for line in log)
    return area / (end - begin) if end > begin else math.nan
