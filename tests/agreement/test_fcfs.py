"""The compiled simulator against its naive twin: every job's start and end, to the bit."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.errors import TheoryError
from folkmoot.queueing import fcfs, memory
from folkmoot.queueing.moot import Question, _shape, replication
from folkmoot.queueing.streams import keys

from .naive import World

CASES = 120


def law(rng: Random) -> Law:
    match rng.randrange(5):
        case 0:
            return Fixed(rng.choice([0.0, 0.5, 1.0, 2.0]))
        case 1:
            return Lognormal(1.0, rng.choice([0.5, 2.0]))
        case 2:
            return Weibull(1.0, 0.7)
        case 3:
            return Trace(("a", "b"), tuple((rng.randrange(4) / 2, rng.random()) for _ in range(7)))
        case _:
            return Exponential(rng.choice([0.5, 1.0]))


def question(seed: int) -> Question:
    """Any of them: ties by fixed times, k = n − 1, k = 0, M = 0, unequal devices, graphs, overload."""
    rng = Random(seed)
    n = rng.randint(1, 7)
    layers = rng.choice([0, 1, 2, 3])
    proposers = rng.choice([0, n - 1, rng.randint(0, n - 1)])
    trace = law(rng)
    one = trace if isinstance(trace, Trace) else None
    laws = [law(rng) for _ in range(rng.choice([1, n]))]
    laws = [each if not isinstance(each, Trace) else one or Exponential(1.0) for each in laws]
    graph = None
    if n > 2 and rng.random() < 0.3:
        graph = [[(i + 1) % n, *([(i + 2) % n] if rng.random() < 0.5 else [])] for i in range(n)]
    load = rng.choice([0.3, 0.9, 1.7])
    rate = load / ((proposers + 1) * layers + 1)
    rates = (rate,) if rng.random() < 0.6 else tuple(rate * rng.choice([0.5, 1.0, 2.0]) for _ in range(n))
    skip = rng.choice([0.0, 0.0, 0.3, 1.0]) if layers else 0.0
    prompts = rng.choice([0, 0, 30])
    return Question(n, layers, proposers, rates, tuple(laws), graph, skip, 60.0, prompts, 1, seed)


def tied(asked: Question, rng: Random) -> Question:
    """With fixed services, some of no length, so that much happens at one time."""
    return replace(asked, laws=tuple(Fixed(rng.choice([0.0, 0.0, 0.5, 1.0])) for _ in asked.laws))


@pytest.mark.parametrize("seed", range(CASES))
def test_every_job_to_the_bit(seed: int) -> None:
    asked = replace(question(seed), skip_aggregation=0.0)
    if seed % 3 == 0:
        asked = tied(asked, Random(seed))
    key = keys(asked.seed, 1)[0]
    shape, _ = _shape(asked)
    naive = World(asked, key, shape.until).run()
    run = replication(asked, key, log=len(naive) + 1)
    assert run.counts.totals[3] == len(naive)
    log = run.counts.log[: len(naive)]
    for place, job in enumerate(naive):
        known = (job.prompt, job.stage, job.slot, job.device, job.asked)
        assert tuple(log[place, :5]) == known
        if job.start == job.start:  # begun before the end of time
            assert (log[place, 5], log[place, 6]) == (job.start, job.end)
        else:
            assert log[place, 5] > shape.until


@pytest.mark.parametrize("seed", range(0, CASES, 10))
def test_what_is_counted_is_what_the_log_says(seed: int) -> None:
    asked = replace(question(seed), prompts=0, skip_aggregation=0.0)
    key = keys(asked.seed, 1)[0]
    shape, _ = _shape(asked)
    run = replication(asked, key, log=20_000)
    log = run.counts.log[: run.counts.totals[3]]
    asks, start, end = log[:, 4], log[:, 5], log[:, 6]
    for device in range(asked.devices):
        here = log[:, 3] == device
        waited = np.clip(np.minimum(start, shape.until) - np.maximum(asks, shape.warm), 0, None)[here].sum()
        served = np.clip(np.minimum(end, shape.until) - np.maximum(start, shape.warm), 0, None)[here].sum()
        assert run.counts.waiting[device] == pytest.approx(waited)
        assert run.counts.busy[device] == pytest.approx(served)
    at = np.linspace(shape.warm, shape.until, 401)[:-1]
    waiting = np.cumsum(run.counts.checkpoints[:400])
    expected = [(asks <= moment).sum() - (start <= moment).sum() for moment in at]
    assert np.abs(waiting - expected).max() <= 1, "a checkpoint on a start or an arrival may see either side"


def test_what_needs_more_memory_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Question(2, 1, 1, (10.0,), (Exponential(1.0),), horizon=1e9)
    for left, asked in ((100_000, growing), (100_000, replace(growing, discipline="lsf")), (1000, growing)):
        monkeypatch.setattr(memory, "available", lambda left=left: left)
        with pytest.raises(TheoryError, match="shorten the horizon"):
            replication(asked, keys(1, 1)[0])


def test_more_than_can_be_numbered_is_refused() -> None:
    with pytest.raises(TheoryError, match="shorten the horizon"):
        fcfs.more(1 << fcfs.SLOT_BITS)
