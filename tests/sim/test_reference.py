"""The real protocol under load: the same figures as the compiled simulator, and what only it can show."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from folkmoot.core.law import Exponential, Fixed
from folkmoot.errors import TheoryError
from folkmoot.queueing.moot import Question
from folkmoot.queueing.moot import simulate as compiled
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.load import History, Setting
from folkmoot.sim.reference import Run, Seen
from folkmoot.sim.reference import simulate as on_workers


def history(run: Run) -> History:
    assert run.history is not None
    return run.history


ALONE = Question(1, 0, 0, (0.7,), (Exponential(1.0),), horizon=3_000, replications=4)


def simulate(asked: Question, setting: Setting | None = None, workers: int = 1, keep: bool = False) -> Seen:
    return on_workers(asked, setting, workers=workers, keep=keep)


@pytest.mark.parametrize(
    "asked",
    [
        Question(4, 2, 2, (0.12,), (Exponential(1.0),), horizon=150, replications=2),
        Question(4, 1, 3, (0.5,), (Exponential(1.0),), horizon=150, replications=2, discipline="lsf", admit=3),
        Question(5, 2, 3, (0.12,), (Exponential(1.0),), horizon=150, replications=2, quorum=2),
        Question(4, 1, 2, (0.25,), (Exponential(40.0),), prompts=10, replications=3),
    ],
)  # fmt: skip
def test_it_counts_as_the_compiled_simulator_counts(asked: Question) -> None:
    ours, theirs = simulate(asked).result, compiled(asked)
    for name in ("latency", "queue_size", "drift", "goodput"):
        one, other = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(
            [one.value, one.low, one.high], [other.value, other.low, other.high], rtol=1e-9
        )
    for name in ("quantiles", "utilisation", "age", "unfinished", "refused", "inferences", "rho", "verdict"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), nan_ok=True), name
    for one, other in zip(ours.per_device, theirs.per_device, strict=True):
        assert one.queue_size == pytest.approx(other.queue_size)


def test_several_slots_are_several_servers() -> None:
    """[E] Mean sojourn of M/M/2 at ρ = λα/2: α/(1 − ρ²)."""
    seen = simulate(replace(ALONE, rates_hz=(1.2,), horizon=2_500), Setting(slots=2)).result
    assert seen.latency.covers(1 / (1 - 0.6**2))
    assert seen.utilisation == pytest.approx(1.2, rel=0.05)
    assert seen.rho == pytest.approx((0.6,))


def test_a_batching_engine_of_one_speed_shares_its_time() -> None:
    """[E] M/M/1 with processor sharing: α/(1 − ρ), as with one job at a time, for any service law."""
    seen = simulate(replace(ALONE, laws=(Fixed(1.0),), horizon=2_500), Setting(slots=64, speed=(1.0,)))
    assert seen.result.latency.covers(1 / (1 - 0.7))


def test_batching_moves_the_limit_to_the_full_batch_s_speed() -> None:
    """[E] α → α/φ(B): φ(2) = 1.5 carries a load of 1.3 that breaks one job at a time."""
    asked = Question(4, 1, 1, (1.3 / 3,), (Exponential(1.0),), horizon=400, replications=4)
    batching = simulate(asked, Setting(slots=2, speed=(1.0, 1.5))).result
    assert batching.goodput.value == pytest.approx(1.3 / 3, rel=0.1)
    assert max(batching.rho) == pytest.approx(1.3 / 1.5)
    plain = simulate(asked).result
    assert plain.drift.value > 5 * abs(batching.drift.value)
    assert plain.verdict == "unstable"


def test_messages_that_take_time_lengthen_each_layer_by_a_round_trip() -> None:
    links = LinkConfig(delay_s=0.25, jitter_s=0.0, loss=0.0)
    asked = Question(4, 2, 3, (1e-4,), (Fixed(1.0),), horizon=90, replications=1)
    seen = simulate(asked, Setting(links=links), workers=1, keep=True)
    took = sorted(p.ended - p.born for h in map(history, seen.runs) for p in h.prompts if not p.code)
    assert len(took) > 30
    assert took[len(took) // 2] == pytest.approx(3 * 1.0 + 2 * 0.5)


def test_devices_fail_and_the_moot_goes_on() -> None:
    """A prompt whose origin is down is lost; whatever a peer's death takes is asked of another device."""
    asked = Question(5, 1, 2, (0.1,), (Exponential(1.0),), horizon=300, replications=1)
    seen = simulate(asked, Setting(gossip=True, links=LinkConfig(), up_s=150.0, down_s=15.0))
    assert seen.failures > 5
    assert set(seen.ends) <= {"", "open", "origin_down", "origin_died"}
    assert seen.ends["origin_down"] > 0
    assert 0.5 < seen.availability < 1.0
    again = simulate(asked, Setting(gossip=True, links=LinkConfig(), up_s=150.0, down_s=15.0))
    assert (again.ends, again.result.latency) == (seen.ends, seen.result.latency)


def test_one_aggregator_for_all_bears_their_load() -> None:
    """[E] ρ_j = α_j(λM + Mλk + Σ_i λ_i a_ij)."""
    asked = Question(6, 1, 2, (0.06,), (Exponential(1.0),), horizon=1_500, replications=4)
    seen = simulate(asked, Setting(aggregator=2)).result
    assert seen.rho == pytest.approx([0.18 + 0.36 * (device == 2) for device in range(6)])
    assert seen.limit_rate == pytest.approx(0.06 / 0.54)
    for device in seen.per_device:
        assert device.utilisation == pytest.approx(device.rho, rel=0.1)


def test_ten_prompts_among_devices_that_fail_come_to_an_end() -> None:
    asked = Question(4, 1, 2, (0.2,), (Exponential(5.0),), prompts=10, replications=2)
    seen = simulate(asked, Setting(gossip=True, links=LinkConfig(), up_s=60.0, down_s=5.0))
    assert sum(seen.ends.values()) == 20
    assert "open" not in seen.ends


def test_best_of_d_works_on_what_heartbeats_tell() -> None:
    """One of six devices is ten times slower: whoever looks at the load leaves it alone."""
    laws = (*[Exponential(1.0)] * 5, Exponential(10.0))
    asked = Question(6, 1, 2, (0.04,), laws, horizon=60, replications=2)
    gossip = Setting(gossip=True, links=LinkConfig())

    def share(asked: Question) -> float:
        seen = simulate(asked, gossip, workers=1, keep=True)
        jobs = [job for run in seen.runs for job in history(run).jobs if job.slot]
        return sum(job.device == 5 for job in jobs) / len(jobs)

    assert share(asked) == pytest.approx(1 / 6, abs=0.06)
    assert share(replace(asked, best_of=4)) < 0.08


@pytest.mark.parametrize(
    ("asked", "setting", "why"),
    [
        (ALONE, Setting(slots=0), "slots is 0"),
        (ALONE, Setting(slots=1, speed=(1.0, 2.0)), "speed"),
        (ALONE, Setting(slots=2, speed=(1.0, math.nan)), "speed"),
        (ALONE, Setting(gossip=True, up_s=5.0), "both more than 0"),
        (ALONE, Setting(up_s=5.0, down_s=1.0), "need gossip"),
        (replace(ALONE, devices=2, graph=((1,), (0,))), Setting(gossip=True), "complete graph"),
        (replace(ALONE, layers=1, skip_aggregation=0.5), Setting(), "aggregates every prompt"),
        (replace(ALONE, best_of=1, count_own=False), Setting(), "counts a device's own jobs"),
        (replace(ALONE, rates_hz=(-1.0,)), Setting(), "rates_hz"),
        (replace(ALONE, discipline="lifo"), Setting(), "discipline"),
    ],
)
def test_what_cannot_be_simulated_is_refused(asked: Question, setting: Setting, why: str) -> None:
    with pytest.raises(TheoryError, match=why):
        simulate(asked, setting)


def test_the_number_of_workers_changes_nothing() -> None:
    asked = Question(3, 1, 1, (0.2,), (Exponential(1.0),), horizon=40, replications=3)
    one, two = (simulate(asked, Setting(slots=2), workers=workers) for workers in (1, 2))
    assert (one.result, one.ends, one.events) == (two.result, two.ends, two.events)
