"""Loads: the closed forms against each other and against counting."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Lognormal
from folkmoot.core.load import judged_jobs
from folkmoot.errors import TheoryError

SMALL = st.integers(0, 4)
SECONDS = st.floats(0.01, 100.0)


@given(st.integers(5, 30), SMALL, SMALL, SECONDS, st.floats(0.001, 10.0))
def test_equal_devices_have_the_theorem_s_load(
    devices: int, layers: int, proposers: int, service_s: float, rate_hz: float
) -> None:
    expected = rate_hz * service_s * ((proposers + 1) * layers + 1)
    assert q.load(rate_hz, service_s, layers, proposers) == pytest.approx(expected)
    assert q.load(q.limit_rate(service_s, layers, proposers), service_s, layers, proposers) == pytest.approx(
        1.0
    )
    each = q.loads([rate_hz] * devices, service_s, layers, proposers)
    assert each == pytest.approx([expected] * devices)
    ring = [[(i + step) % devices for step in (-2, -1, 1, 2)] for i in range(devices)]
    assert q.loads([rate_hz] * devices, service_s, layers, proposers, graph=ring) == pytest.approx(each), (
        "regular"
    )


@given(st.lists(st.floats(0.0, 5.0), min_size=2, max_size=12), SMALL, st.data())
def test_no_job_is_lost_whoever_is_asked(rates: list[float], layers: int, data: st.DataObject) -> None:
    """Jobs per second over all devices are K prompts' worth, on the complete graph and with one aggregator."""
    count = len(rates)
    proposers = data.draw(st.integers(0, count - 1))
    jobs = sum(rates) * ((proposers + 1) * layers + 1)
    assert q.loads(rates, 1.0, layers, proposers).sum() == pytest.approx(jobs)
    one = [0.0] * (count - 1) + [1.0]
    fixed = q.loads(rates, 1.0, layers, proposers, aggregators=one)
    assert fixed.sum() == pytest.approx(jobs)
    assert fixed[-1] - q.loads(rates, 1.0, layers, proposers)[-1] == pytest.approx(sum(rates) - rates[-1])
    others = [[0.0] * origin + [0.25, 0.75] + [0.0] * (count - origin - 2) for origin in range(count - 1)]
    uneven = q.loads(rates, 1.0, layers, proposers, aggregators=[*others, one])
    assert uneven.sum() == pytest.approx(jobs)
    if layers:
        skipped = q.loads(rates, 1.0, layers, proposers, skip_aggregation=0.25)
        assert skipped.sum() == pytest.approx(jobs - 0.25 * sum(rates))


def test_loads_are_what_counting_gives() -> None:
    """Draw the peers of many prompts on an uneven graph and count each device's jobs."""
    rng, graph = Random(7), [[1, 2, 3], [0], [0, 3], [0, 2], [0, 1, 2, 3]]
    rates, layers, proposers, prompts = [1.0, 2.0, 0.5, 1.0, 0.25], 2, 2, 60_000
    counted = np.zeros(5)
    for origin in rng.choices(range(5), rates, k=prompts):
        counted[origin] += layers + 1
        for _ in range(layers):
            for peer in rng.sample(graph[origin], min(proposers, len(graph[origin]))):
                counted[peer] += 1
    expected = q.loads(rates, 1.0, layers, proposers, graph=graph)
    assert counted * sum(rates) / prompts == pytest.approx(expected, rel=0.03)


def test_aggregators_of_each_origin() -> None:
    """Origin 0 sends half of its aggregations to device 1, origin 1 all of its to device 2, origin 2 keeps its own."""
    table = [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    found = q.loads([1.0, 2.0, 4.0], [1.0, 1.0, 0.5], 1, 1, aggregators=table)
    assert found == pytest.approx([1 + 3 + 0.5, 2 + 2.5 + 0.5, (4 + 1.5 + 2 + 4) / 2])


def test_a_hub_loses_the_region() -> None:
    star = [[1, 2, 3, 4], [0], [0], [0], [0]]
    each = q.loads([1.0] * 5, 1.0, 1, 2, graph=star)
    assert each[0] == pytest.approx(2 + 4)
    assert each[1:] == pytest.approx([2 + 0.5] * 4)


def test_stages_that_differ_and_prompts_that_stop() -> None:
    """Counted by hand: all jobs of the first layer, half of the second, a tenth of the third, each with its own time."""
    stages, stops = [1.0, 5.0, 20.0], [0.5, 0.4, 0.1]
    assert q.stage_load(1.0, stages, 3.0, 1, stops) == pytest.approx(2 * (1.0 + 0.5 * 5.0 + 0.1 * 20.0) + 3.0)
    assert q.stage_load(1.0, np.array(stages), 3.0, 1, np.array(stops)) == pytest.approx(14.0)
    assert q.stage_load(1.0, [1.0, 5.0], 1.0, 1, [0.5, 0.5]) == pytest.approx(8.0)
    assert q.stage_load(1.0, [], 1.0, 0) == 1.0


def test_what_changes_the_jobs_of_a_prompt() -> None:
    assert q.early_stopping_jobs([0.5, 0.5], 3) == pytest.approx(4 * 1.5 + 1)
    assert q.early_stopping_jobs([0.0, 0.0, 1.0], 1) == 7
    assert q.skipping_jobs(1, 3, 1.0) == 4
    assert q.stage_load(0.1, [1.0, 2.0], 3.0, 3) == pytest.approx(0.1 * (4 * 3 + 3))
    assert q.stage_load(0.1, [2.0] * 3, 2.0, 2) == pytest.approx(q.load(0.1, 2.0, 3, 2))
    assert q.quorum_load(0.1, 1.0, 2, 3, 4) == pytest.approx(q.load(0.1, 1.0, 2, 3))
    assert q.quorum_load(0.1, 1.0, 2, 3, 2) == pytest.approx(0.5)
    assert q.batched_service(3.0, 4, 6.0) == 1.5


def test_judges_are_jobs_of_their_origins() -> None:
    """With prompts at device 0 alone: it judges both layers of them; of an early stop half of the second layer is spared."""
    both = q.judged_loads([1.0, 0.0, 0.0], 1.0, 2, 1, q.Judge(keep=1))
    assert both == pytest.approx([2 + 2 + 1, 1, 1])
    stops = q.judged_loads([1.0, 0.0, 0.0], 1.0, 2, 1, q.Judge(early_stop=True, stop=0.5))
    assert stops == pytest.approx([1.5 + 1 + 1, 0.75, 0.75])
    equal = q.judged_loads([0.1] * 4, 2.0, 3, 2, q.Judge(2, True, 0.5), skip_aggregation=0.5)
    assert equal == pytest.approx([0.2 * (judged_jobs(3, 2, 2, True, (0.5, 0.5)) - 0.5)] * 4)
    # A leaf of a star has one peer, so that two answers of its layer are all there are; the hub has two, and a judge.
    star = q.judged_loads([1.0] * 3, 1.0, 1, 2, q.Judge(keep=2), graph=[[1, 2], [0], [0]])
    assert star == pytest.approx([1 + 2 + 1 + 1, 1 + 1 + 1, 1 + 1 + 1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: q.judged_loads([1.0] * 4, 1.0, 1, 2, q.Judge(keep=4)),
            "keep is 4, but a layer has 3 answers",
        ),
        (lambda: q.judged_loads([1.0] * 4, 1.0, 1, 2, q.Judge(keep=3)), "nothing to say"),
        (lambda: q.judged_loads([1.0] * 4, 1.0, 1, 2, q.Judge(early_stop=True)), "nothing to say"),
        (lambda: q.judged_loads([1.0] * 4, 1.0, 2, 0, q.Judge(early_stop=True)), "nothing to say"),
        (lambda: q.judged_loads([1.0] * 4, 1.0, 0, 0, q.Judge(keep=1)), "nothing to say"),
        (lambda: q.judged_loads([1.0] * 4, 1.0, 2, 2, q.Judge(2, stop=0.5)), "belongs to early_stop"),
        (lambda: q.judged_loads([1.0] * 4, 1.0, 2, 2, q.Judge(2, True, 1.5)), "at most 1"),
        (lambda: q.load(-1.0, 1.0, 1, 1), "rate_hz is -1.0; it must be 0 or more"),
        (lambda: q.load(math.nan, 1.0, 1, 1), "rate_hz is nan"),
        (lambda: q.load(1.0, 0.0, 1, 1), "service_s is 0.0; it must be more than 0"),
        (lambda: q.load(1.0, 1.0, -1, 1), "layers is -1"),
        (lambda: q.load(1.0, 1.0, 1.5, 1), "layers is 1.5"),
        (lambda: q.loads([1.0] * 3, 1.0, 1, 3), "proposers is 3, but 3 devices have 2 peers"),
        (lambda: q.loads([1.0] * 3, [1.0] * 2, 1, 1), "services_s has 2 values; give 1, or 3"),
        (lambda: q.loads([1.0, math.inf], 1.0, 1, 1), "rates_hz holds"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, graph=[[1], []]), "device 1 may ask nobody"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, graph=[[0], [0]]), "device 0 must name other devices"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, graph=[[1]]), "the graph has 1 devices"),
        (lambda: q.loads([1.0] * 2, 1.0, 0, 0, graph=[[1]]), "the graph has 1 devices"),
        (lambda: q.loads([1.0] * 2, 1.0, 0, 0, graph=[[0], [5]]), "device 0 must name other devices"),
        (lambda: q.loads([], 1.0, 1, 1), "devices is 0"),
        (lambda: q.load(1.0, 1.0, 10**400, 1), "layers is 1000"),
        (lambda: q.load(10**400, 1.0, 1, 1), "rate_hz is 1000"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, aggregators=[0.5, 0.1]), "sum to 0.6"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, aggregators=[[1.0, 0.0], [0.5, 0.0]]), "sum to 0.5"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, aggregators=[1.5, -0.5]), "each 0 or more"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, aggregators=[1.0]), "must be 2 shares, or 2 rows"),
        (lambda: q.loads([1.0] * 2, 1.0, 0, 0, skip_aggregation=0.5), "with 0 layers it must be 0"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, skip_aggregation=1.5), "at most 1"),
        (lambda: q.early_stopping_jobs([0.5], 1), "sum to 0.5"),
        (
            lambda: q.quorum_load(1.0, 1.0, 1, 2, 4),
            "quorum is 4; it must be a whole number, 1 or more, at most 3",
        ),
        (lambda: q.batched_service(1.0, 0, 1.0), "batch is 0"),
        (lambda: q.load("a", 1.0, 1, 1), "rate_hz is 'a'"),
        (lambda: q.loads([1.0] * 2, ["x", 1.0], 1, 1), "services_s must hold numbers only"),
        (
            lambda: q.loads([1.0] * 2, 1.0, 1, 1, weights=[[0.0], [1.0, 0.0]]),
            "weights must hold numbers only",
        ),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, weights=[["a", 1], [1, 0]]), "weights must hold numbers only"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, aggregators="no"), "aggregators must hold numbers only"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, graph=[["a"], [0]]), "by whole numbers from 0"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, graph=[[1.0], [0]]), "by whole numbers from 0"),
        (lambda: q.loads([1.0] * 2, 1.0, 1, 1, graph=3), "by whole numbers from 0"),
        (lambda: q.loads([1.0], 1.0, 1, 1), "1 device has no peers"),
        (lambda: q.load(0.1, 1.0, "a", 1), "layers is 'a'; it must be a whole number"),
        (lambda: q.loads(0.1, 1.0, 1, 1), "rates_hz is 0.1; it must be a sequence"),
        (lambda: q.stage_load(1.0, 1.0, 1.0, 1), "stage_services_s is 1.0; it must be a sequence"),
        (lambda: q.early_stopping_jobs(1.0, 1), "stops is 1.0; it must be a sequence"),
        (lambda: q.best_limit(1.0, 1, 1), "services_s is 1.0; it must be a sequence"),
        (lambda: q.best_limit([1e308, 1e-308], 1, 1), "tell apart"),
        (lambda: q.limit_rate(1e-320, 1, 1), "the limit is beyond all measure"),
        (lambda: q.quorum_load(1e308, 1e308, 1, 1, 1), "the load is beyond all measure"),
        (lambda: q.simulate(q.Question("a", 1, 1, (0.1,), (Exponential(1.0),))), "devices is 'a'"),
        (lambda: q.simulate(q.Question(2, 1, 1, 0.1, (Exponential(1.0),))), "rates_hz is 0.1"),
        (lambda: q.simulate(q.Question(2, 1, 1, (0.1,), ("exp:1",))), "exp:1"),
        (lambda: q.simulate(q.Question(2, 1, 1, (0.1,), (Lognormal(1.0, -1.0),))), "no mean"),
        (lambda: q.sojourn(0.1, None), "None"),
        (lambda: q.sojourn(0.1, Exponential(1.0), points=10**15), "points is 1000"),
        (lambda: q.load(1e308, 1e308, 1, 1), "the load is beyond all measure"),
        (lambda: q.loads([1e308] * 2, 1e308, 1, 1), "the load is beyond all measure"),
        (lambda: q.stage_load(1e308, [1e308], 1.0, 1), "the load is beyond all measure"),
        (lambda: q.stage_load(1.0, [1.0], 1.0, 1, [0.5, 0.5]), "stops has 2 chances for 1 layers"),
    ],
)
def test_what_does_not_hold_is_refused(call: object, says: str) -> None:
    with pytest.raises(TheoryError, match=says):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (lambda: q.loads(np.array([1.0, math.nan]), 1.0, 1, 1), "rates_hz holds nan; every"),
        (lambda: q.load(np.float64(-1.5), 1.0, 1, 1), "rate_hz is -1.5; it"),
        (lambda: q.load(1.0, 1.0, np.float64(math.nan), 1), "layers is nan; it must be a whole"),
        (lambda: q.load(1.0, 1.0, np.int64(-1), 1), "layers is -1; it must be a whole"),
        (lambda: q.load(1.0, 1.0, math.inf, 1), "layers is inf; it must be a whole"),
    ],
)
def test_errors_name_plain_numbers(asked, says) -> None:
    with pytest.raises(TheoryError, match=says):
        asked()


def test_weights_that_are_equal_are_uniform_choice() -> None:
    rates, equal = [0.1, 0.2, 0.3, 0.1], (1.0 - np.eye(4)) * 2 / 3
    uniform = q.loads(rates, [1.0, 2.0, 1.0, 3.0], 3, 2, aggregators=[1.0, 0.0, 0.0, 0.0])
    weighed = q.loads(rates, [1.0, 2.0, 1.0, 3.0], 3, 2, weights=equal, aggregators=[1.0, 0.0, 0.0, 0.0])
    assert weighed == pytest.approx(uniform)
    with pytest.raises(TheoryError, match="origin 0 sum to 2; k = 1"):
        q.loads(rates, 1.0, 1, 1, weights=equal)
