"""Intervals hold what they say they hold, and the warm-up's check finds a transient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from folkmoot import queueing as q
from folkmoot.core.law import Exponential
from folkmoot.queueing.estimate import interval, mser5
from folkmoot.queueing.simulate import Question, replication, simulate
from folkmoot.queueing.streams import keys

SEEDS = 60


def test_the_interval_over_replications_covers_and_the_one_over_prompts_does_not() -> None:
    """More seeds and cases: bench/coverage.py. 50 of 60 or fewer have a chance of less than 1 in 1,000 if it covers 95 %."""
    asked = Question(1, 0, 0, (0.8,), (Exponential(1.0),), horizon=2000)
    exact = q.alone(0.8, q.Moments.of(Exponential(1.0)))
    covered = naive = 0
    for seed in range(SEEDS):
        covered += simulate(replace(asked, seed=seed), workers=1).latency.covers(exact)
        log = replication(asked, keys(seed, 1)[0], 3000).counts.log
        log = log[log[:, 6] > 0][400:]
        naive += interval(log[:, 6] - log[:, 4]).covers(exact)
    assert covered > 50
    assert naive < covered / 2


def test_mser_finds_a_transient() -> None:
    rng = np.random.default_rng(3)
    still = rng.normal(5.0, 1.0, 1000)
    assert mser5(still) <= 250
    assert 100 <= mser5(np.concatenate([np.full(100, 20.0), still])) <= 350
    assert mser5(np.linspace(9.0, 0.0, 100)) == 45, "no more than the first half"
    assert mser5([1.0] * 9) == 0
    assert mser5([]) == 0
    assert mser5([2.5] * 100) == 0
