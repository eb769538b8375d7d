"""Intervals hold what they say they hold, and the warm-up's check finds a transient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from folkmoot import queueing as q
from folkmoot.core.law import Exponential
from folkmoot.queueing.estimate import growing, interval, mser5, slope, verdict
from folkmoot.queueing.moot import Question, measures, replication, replications, simulate
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


def test_one_diverging_device_is_not_hidden_by_a_mean() -> None:
    """Device 0 of 100 has ρ = 1.2; the others are at 0.5."""
    laws = (Exponential(2.4), *[Exponential(1.0)] * 99)
    asked = Question(100, 1, 3, (0.1,), laws, horizon=2000, replications=10)
    found = simulate(asked)
    assert (found.verdict, found.growing) == ("unstable", 1)
    assert found.per_device[0].rho == pytest.approx(1.2)
    short = measures(asked, list(replications(replace(asked, horizon=1000, replications=2))))
    calm = np.full(100, 0.005)
    assert verdict([0.0] * 10, 0.005, short.device_drift, calm) != "stable", "two runs cannot say of 100"


def test_stable_can_be_said_of_a_thousand_devices_and_seldom_the_contrary() -> None:
    asked = Question(1000, 1, 3, (0.1,), (Exponential(1.0),), horizon=400, replications=10)
    seen = [simulate(replace(asked, seed=seed)) for seed in range(6)]
    assert [one.growing for one in seen] == [0] * 6
    assert simulate(replace(asked, horizon=2000)).verdict == "stable"


def test_growing_devices_of_synthetic_slopes() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, 1.0, (10, 10_000))
    assert not growing(noise).any()
    assert (np.abs(noise.mean(axis=0)) / noise.std(axis=0, ddof=1) * 10**0.5 > 2.26).sum() > 100, (
        "uncorrected"
    )
    noise[:, 77] += 20.0
    assert np.flatnonzero(growing(noise)).tolist() == [77]
    assert not growing(noise[:1]).any()
    assert verdict(np.zeros(10), 0.01, np.zeros((10, 3)), np.array([0.01, 0.01, np.inf])) == "stable"
    assert verdict(np.zeros(10), 0.01, noise[:, :3], np.full(3, 0.01)) == "undecided"


def test_the_slope_is_that_of_least_squares() -> None:
    values = np.random.default_rng(2).normal(size=37).cumsum()
    at = np.linspace(0.0, 5.0, 37)
    assert slope(values, 5.0) == pytest.approx(float(np.polyfit(at, values, 1)[0]))
    assert slope(np.zeros(200), 1e-290) == 0.0


def test_mser_finds_a_transient() -> None:
    rng = np.random.default_rng(3)
    still = rng.normal(5.0, 1.0, 1000)
    assert mser5(still) <= 250
    assert 100 <= mser5(np.concatenate([np.full(100, 20.0), still])) <= 350
    assert mser5(np.linspace(9.0, 0.0, 100)) == 45, "no more than the first half"
    assert mser5([1.0] * 9) == 0
    assert mser5([]) == 0
    assert mser5([2.5] * 100) == 0
