"""The real protocol under load: the same figures as the compiled simulator, and what only it can show."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Fixed
from folkmoot.core.load import judged_jobs
from folkmoot.errors import TheoryError
from folkmoot.queueing.moot import Question
from folkmoot.queueing.moot import simulate as compiled
from folkmoot.queueing.stability import Judge
from folkmoot.queueing.streams import branch
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.load import History, Setting, weighted
from folkmoot.sim.reference import JOB_BYTES, Run, Seen, offered, replications
from folkmoot.sim.reference import simulate as on_workers


def history(run: Run) -> History:
    assert run.history is not None
    return run.history


ALONE = Question(1, 0, 0, (0.7,), (Exponential(1.0),), horizon=3_000, replications=4)
PAIR = Question(2, 1, 1, (0.1,), (Exponential(1.0),))


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


def test_a_batching_engine_of_one_speed_shares_its_time() -> None:
    """[E] M/M/1 with processor sharing: α/(1 − ρ), as with one job at a time, for any service law."""
    seen = simulate(replace(ALONE, laws=(Fixed(1.0),), horizon=2_500), Setting(slots=64, speed=(1.0,)))
    assert seen.result.latency.covers(1 / (1 - 0.7))


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


def test_loads_are_those_of_what_is_set() -> None:
    """[E] ρ_j = α_j(λM + Mλk + Σ_i λ_i a_ij), and the same with each stage's own time and chance."""
    asked = Question(6, 1, 2, (0.06,), (Exponential(1.0),))
    assert offered(asked, Setting(aggregator=2)) == pytest.approx(
        [0.18 + 0.36 * (device == 2) for device in range(6)]
    )
    assert offered(asked, Setting(slots=2)) == pytest.approx([0.06 * 4 / 2] * 6)
    grown = Setting(stages=(1.0, 3.0), slots=2, speed=(1.0, 1.5))
    assert offered(asked, grown) == pytest.approx([0.06 * (3 + 3) / 1.5] * 6)
    stopped = Setting(stages=(1.0, 2.0, 4.0), stops=(0.25, 0.75), aggregator=0)
    per_layer = 0.06 * 3 * (1.0 + 0.75 * 2.0)
    assert offered(replace(asked, layers=2), stopped) == pytest.approx(
        [per_layer + 0.06 * 6 * 4.0, *[per_layer] * 5]
    )
    assert offered(replace(asked, layers=0, proposers=0), Setting(stages=(2.0,))) == pytest.approx([0.12] * 6)


def test_what_a_quorum_saves_is_known_of_equal_jobs_only() -> None:
    asked = Question(4, 1, 2, (0.1,), (Exponential(1.0),), quorum=2, horizon=5, replications=2)
    assert simulate(asked).result.rho == pytest.approx([0.3] * 4)
    seen = simulate(asked, Setting(stages=(1.0, 2.0))).result
    assert np.isnan([*seen.rho, seen.limit_rate]).all()
    assert seen.rho_most == pytest.approx([0.5] * 4)


def test_a_judge_makes_the_jobs_that_are_reckoned() -> None:
    """It gives no verdict here, so that all layers run; a compiled simulator has none, and a chance to stop is not drawn."""
    asked = Question(4, 2, 2, (0.1,), (Fixed(1.0),), prompts=7, replications=1)
    for judge in (Judge(keep=2), Judge(early_stop=True), Judge(2, early_stop=True)):
        seen = simulate(replace(asked, judge=judge), keep=True)
        jobs = judged_jobs(2, 2, judge.keep, judge.early_stop)
        assert len(history(seen.runs[0]).jobs) == 7 * jobs
        assert seen.result.rho == pytest.approx([0.1 * jobs] * 4)
    with pytest.raises(TheoryError, match="compiled simulator has no judge"):
        compiled(replace(asked, judge=Judge(keep=2)))
    with pytest.raises(TheoryError, match="gives no verdict"):
        simulate(replace(asked, judge=Judge(early_stop=True, stop=0.5)))


def test_each_stage_takes_its_own_time_and_prompts_end_where_they_stop() -> None:
    """What is set changes nothing else: prompts come as before, to the same devices, at the same times."""
    asked = Question(4, 3, 1, (0.05,), (Fixed(1.0),), horizon=100, replications=1)
    seen = history(
        simulate(asked, Setting(stages=(1.0, 2.0, 3.0, 5.0), stops=(0.5, 0.0, 0.5)), keep=True).runs[0]
    )
    plain = history(simulate(asked, keep=True).runs[0])
    born = [[(prompt.born, prompt.origin) for prompt in one.prompts] for one in (seen, plain)]
    assert born[0][: len(born[1])] == born[1]
    assert {prompt.layers for prompt in seen.prompts} == {1, 3}
    for job in seen.jobs:
        if not math.isnan(job.end):
            last = job.stage > seen.prompts[job.prompt].layers
            assert job.end - job.start == pytest.approx(5.0 if last else job.stage)
    for prompt in seen.prompts:
        if not prompt.code:
            stages = [job.stage for job in seen.jobs if job.prompt == prompt.number]
            assert stages == [stage for stage in range(1, prompt.layers + 1) for _ in range(2)] + [
                prompt.layers + 1
            ]


def test_prompts_that_stop_early_leave_time_for_more() -> None:
    """The horizon is in services of a device, at the load that is offered: fewer jobs a prompt are more prompts."""
    asked = Question(4, 3, 1, (0.05,), (Fixed(1.0),), horizon=300, replications=4)
    seen = simulate(asked, Setting(stops=(1.0, 0.0, 0.0)))
    assert seen.result.question == asked
    assert seen.result.utilisation == pytest.approx(0.05 * 3, rel=0.15)
    assert seen.result.inferences / 4 / 4 == pytest.approx(300, rel=0.15)


def test_memory_is_asked_for_the_jobs_that_are_done() -> None:
    """Nobody needs more of it because prompts stop early: the run is longer, its jobs as many."""
    asked = Question(2, 8, 1, (0.01,), (Fixed(1.0),), horizon=4e6, replications=1)
    with patch("folkmoot.queueing.memory.check") as check:
        check.side_effect = MemoryError
        with pytest.raises(MemoryError):
            next(replications(asked, Setting(stops=(1.0, *(0.0,) * 7)), 1))
    assert check.call_args.args[0] == pytest.approx(JOB_BYTES * 8e6)


@pytest.mark.parametrize(
    ("setting", "layers", "times"),
    [
        (Setting(slots=16), 0, 16.0),
        (Setting(slots=2, speed=(1.0, 1.5)), 0, 1.5),
        (Setting(stages=(1.0, 3.0)), 1, None),
        (Setting(stops=(0.5, 0.5)), 2, None),
    ],
)
def test_the_verdict_measures_by_an_overload_of_one_per_cent(
    setting: Setting, layers: int, times: float | None
) -> None:
    """Of what the device can do, with the stages and stops that there are."""
    asked = Question(2, layers, min(layers, 1), (0.1,), (Fixed(1.0),), horizon=60, replications=2)
    with patch("folkmoot.queueing.moot.verdict", return_value="stable") as verdict:
        simulate(asked, setting)
    found = verdict.call_args.args[1]
    if times is not None:
        assert found == pytest.approx(0.01 * times)
        return
    each = (
        setting.stages[:-1] or (1.0,) * layers,
        setting.stages[-1] if setting.stages else 1.0,
        1,
        setting.stops,
    )
    assert found == pytest.approx(q.drift(1.01 / q.stage_load(1.0, *each), *each))
    assert verdict.call_args.args[3] == pytest.approx([found, found])


def test_no_limit_is_named_for_the_best_of_devices_that_differ() -> None:
    laws = (Fixed(1.0), Fixed(1.0), Fixed(3.0), Fixed(3.0))
    asked = Question(4, 1, 1, (0.05,), laws, horizon=40, replications=2, best_of=2)
    seen = simulate(asked).result
    assert math.isnan(seen.limit_rate)
    assert math.isnan(seen.goodput_of_limit)
    assert not math.isnan(simulate(replace(asked, best_of=0)).result.limit_rate)


def test_peers_are_drawn_with_their_weights() -> None:
    """Distinct ones, each with its chance: 4,000 draws within 4.5 standard deviations; who must be asked always is."""
    chances = np.array([0.1, 1.0, 0.0, 0.65, 0.9, 0.35])
    drawn = [weighted(np.uint64(branch(np.uint64(7), prompt, 1)), chances, 3) for prompt in range(4_000)]
    assert all(len(set(places)) == 3 for places in drawn)
    shares = np.bincount([place for places in drawn for place in places], minlength=6) / len(drawn)
    assert np.all(np.abs(shares - chances) <= 4.5 * np.sqrt(chances * (1 - chances) / len(drawn)))
    assert len({tuple(places) for places in drawn if places[0] == 1}) > 3


def test_an_origin_asks_whom_its_weights_name() -> None:
    ring = tuple(tuple(float(peer == (origin + 1) % 4) for peer in range(4)) for origin in range(4))
    asked = Question(4, 2, 1, (0.1,), (Exponential(1.0),), horizon=60, replications=1)
    seen = history(simulate(asked, Setting(weights=ring), keep=True).runs[0])
    some = [(job.device, seen.prompts[job.prompt].origin) for job in seen.jobs if job.slot]
    assert len(some) > 30
    assert all(device == (origin + 1) % 4 for device, origin in some)


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
        (PAIR, Setting(stages=(1.0,)), "1 factors; with M = 1 it has 2"),
        (PAIR, Setting(stages=(1.0, math.nan)), "stages has nan"),
        (PAIR, Setting(stops=(0.5, 0.5)), "2 chances; with M = 1 it has 1"),
        (PAIR, Setting(stops=(0.5,)), "stops sum to 0.5"),
        (PAIR, Setting(stops=(math.nan,)), "stops holds nan"),
        (ALONE, Setting(stops=(1.0,)), "with M = 0 it has 0"),
        (PAIR, Setting(weights=((0.0, 1.0),)), r"shape \(1, 2\)"),
        (PAIR, Setting(weights=((0.0, 1.0), (0.0, 1.0))), "0 on the diagonal"),
        (PAIR, Setting(weights=((0.0, 1.0), (math.nan, 0.0))), "chances from 0 to 1"),
        (PAIR, Setting(weights=((0.0, 1.0), (0.5, 0.0))), "origin 1 sum to 0.5; k = 1"),
        (PAIR, Setting(weights=((0.0, 1.0), (1.0, 0.0)), gossip=True), "without gossip"),
        (replace(PAIR, best_of=1), Setting(weights=((0.0, 1.0), (1.0, 0.0))), "without best of d"),
        (replace(PAIR, graph=((1,), (0,))), Setting(weights=((0.0, 1.0), (1.0, 0.0))), "give one of them"),
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


@pytest.mark.parametrize("changes", [{"horizon": 1e12}, {"prompts": 10**12}])
def test_what_would_not_fit_into_memory_is_refused_before_it_begins(changes):
    asked = replace(Question(4, 1, 2, (0.1,), (Exponential(1.0),), replications=1), **changes)
    with pytest.raises(TheoryError, match="more memory would be needed"):
        next(replications(asked))
