"""The kernel with departure events against the naive twin, and against the faster kernel where both hold."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from folkmoot.core.law import Exponential, Fixed
from folkmoot.errors import TheoryError
from folkmoot.queueing import calendar, fcfs
from folkmoot.queueing.moot import Question, _shape, measures, replication, simulate
from folkmoot.queueing.streams import keys

from .naive import World
from .test_fcfs import question, tied

CASES = 60


def policy(kind: str, seed: int) -> Question:
    rng, asked = Random(seed * 7 + 1), question(seed)
    most = asked.proposers + 1
    match kind:
        case "plain":
            return asked
        case "lsf":
            return replace(asked, discipline="lsf")
        case "quorum":
            return replace(asked, quorum=rng.randint(1, most))
        case "admission":
            return replace(asked, admit=rng.randint(1, 4))
        case "best":
            return replace(asked, **best(rng, asked))
        case _:
            if rng.random() < 0.5:
                asked = tied(asked, rng)
            whole = replace(asked, discipline=rng.choice(["fcfs", "lsf", "lsf"]), quorum=rng.randint(1, most))
            return replace(
                whole, admit=rng.choice([0, 2]), **(best(rng, asked) if rng.random() < 0.5 else {})
            )


def best(rng: Random, asked: Question) -> dict[str, Any]:
    """Fixed services meet refreshes at 0.5 and 1 at one time."""
    return {
        "best_of": max(1, asked.proposers + rng.choice([0, 1, 2, 7])),
        "view_s": rng.choice([0.0, 0.5, 1.0, 3.7]),
        "count_own": rng.random() < 0.7,
    }


@pytest.mark.parametrize("kind", ["plain", "lsf", "quorum", "admission", "best", "all"])
@pytest.mark.parametrize("seed", range(CASES))
def test_every_job_to_the_bit(kind: str, seed: int) -> None:
    asked = policy(kind, seed)
    key = keys(asked.seed, 1)[0]
    shape, _ = _shape(asked)
    world = World(asked, key, shape.until)
    naive = world.run()
    run = replication(asked, key, log=len(naive) + 1, events=True)
    assert run.counts.totals[3] == len(naive)
    assert run.counts.totals[5] == world.refused
    for line, job in zip(run.counts.log, naive, strict=False):
        assert tuple(line[:5]) == (job.prompt, job.stage, job.slot, job.device, job.asked)
        seen = np.array([job.start, job.end if job.end <= shape.until else np.nan])
        np.testing.assert_array_equal(line[5:], seen)


@pytest.mark.parametrize("seed", range(0, 2 * CASES, 4))
def test_both_kernels_say_the_same(seed: int) -> None:
    asked = replace(question(seed), skip_aggregation=0.0)
    key = keys(asked.seed, 1)[0]
    fast, slow = (replication(asked, key, events=events) for events in (False, True))
    np.testing.assert_array_equal(fast.counts.totals[[0, 1, 3, 4]], slow.counts.totals[[0, 1, 3, 4]])
    np.testing.assert_allclose(fast.counts.latency[:1], slow.counts.latency[:1], rtol=1e-9)
    if not asked.prompts:
        np.testing.assert_array_equal(fast.counts.checkpoints, slow.counts.checkpoints)
        ours, theirs = measures(asked, [fast]), measures(asked, [slow])
        np.testing.assert_allclose(ours.waiting, theirs.waiting, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours.utilisation, theirs.utilisation, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours.age, theirs.age, rtol=1e-9)


@pytest.mark.parametrize("kind", ["fast", "plain", "best", "all"])
@pytest.mark.parametrize("seed", range(5))
def test_slices_of_a_run_are_one_run(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = policy("plain" if kind == "fast" else kind, seed)
    asked = replace(asked, skip_aggregation=0.0, rates_hz=tuple(4 * rate for rate in asked.rates_hz))
    key, events = keys(asked.seed, 1)[0], kind != "fast"
    whole = replication(asked, key, log=1000, events=events)
    monkeypatch.setattr(fcfs, "SLICE", 7)
    monkeypatch.setattr(calendar, "SLICE", 7)
    sliced = replication(asked, key, log=1000, events=events)
    for ours, theirs in zip(whole.counts, sliced.counts, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_later_stage_first_keeps_the_goodput_that_first_come_first_served_loses() -> None:
    asked = Question(20, 2, 3, (2.0 / 9,), (Exponential(1.0),), horizon=4_000, replications=8)
    first, lsf = (simulate(replace(asked, discipline=discipline)) for discipline in ("fcfs", "lsf"))
    assert first.goodput_of_limit < 0.6
    assert lsf.goodput.low / lsf.limit_rate >= 0.95
    admitted = simulate(replace(asked, admit=10))
    assert admitted.goodput_of_limit > 0.9
    assert admitted.refused > 0.3


def test_a_quorum_with_cancelling_raises_the_limit_as_it_should() -> None:
    """[E] ρ = λα(qM + 1) for exponential service."""
    asked = Question(12, 2, 3, (0.8 / 5,), (Exponential(1.0),), quorum=2, horizon=4_000, replications=8)
    assert simulate(asked).utilisation == pytest.approx(0.8, rel=0.01)


def test_the_shortest_of_all_herds_on_old_views_and_the_best_of_four_does_not() -> None:
    asked = Question(16, 2, 2, (0.9 / 7,), (Exponential(1.0),), horizon=4_000, replications=4)
    herd = replace(asked, best_of=15, view_s=30.0, count_own=False)
    uniform, herding, own, four = (
        simulate(each).latency.value
        for each in (asked, herd, replace(herd, count_own=True), replace(herd, best_of=4))
    )
    assert four < uniform < own < herding


def test_a_choice_that_cannot_be_is_refused() -> None:
    asked = Question(4, 1, 2, (0.1,), (Exponential(1.0),))
    for wrong in ({"best_of": 1}, {"best_of": -1}, {"best_of": 3, "view_s": -1.0}, {"view_s": float("nan")}):
        with pytest.raises(TheoryError, match=next(reversed(wrong))):
            simulate(replace(asked, **wrong))


def test_the_best_of_all_are_taken_in_no_order_where_all_are_alike() -> None:
    """Idle devices promise the same delay, so each is as often asked as the others."""
    asked = Question(4, 1, 1, (0.2 / 3,), (Exponential(1.0),), best_of=3, horizon=30_000, replications=4)
    used = measures(asked, [replication(asked, key) for key in keys(1, 4)]).utilisation.mean(axis=0)
    np.testing.assert_allclose(used, 0.2, rtol=0.03)


def test_quantiles_beyond_all_bins_are_unknown() -> None:
    asked = Question(2, 0, 0, (1e-9,), (Exponential(1e8),), horizon=400, replications=2)
    assert np.isnan(simulate(asked).quantiles).all()
    at_once = replace(asked, laws=(Fixed(1e-12),), rates_hz=(1.0,))
    assert simulate(at_once).quantiles == (0.0, 0.0, 0.0)


def test_there_is_no_mean_age_of_a_run_that_ends_when_it_is_empty() -> None:
    assert np.isnan(simulate(Question(4, 0, 0, (1.0,), (Fixed(1.0),), prompts=4, replications=2)).age)
