"""Beyond the limit: the fluid root and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Fixed
from folkmoot.errors import TheoryError

LAYERS, PEERS, LOADS = st.integers(1, 4), st.integers(0, 6), st.floats(1.01, 5.0)


@given(LAYERS, PEERS, LOADS, st.floats(0.1, 50.0))
def test_equal_stages(layers: int, proposers: int, load: float, service_s: float) -> None:
    rate = load * q.limit_rate(service_s, layers, proposers)
    stages = [service_s] * layers
    x = q.fluid_root(rate, stages, service_s, proposers)
    assert 0.0 < x < 1.0
    assert q.drift(rate, stages, service_s, proposers) == pytest.approx((1 / x - 1) / service_s, rel=1e-9)
    assert q.goodput(rate, stages, service_s, proposers) == pytest.approx(rate * x ** (layers + 1))
    assert q.goodput(rate, stages, service_s, proposers) < q.limit_rate(service_s, layers, proposers), (
        "collapse"
    )
    naive = (load - 1) / service_s
    assert q.drift(rate, stages, service_s, proposers) < naive


@given(LOADS, st.floats(0.1, 50.0))
def test_without_layers_the_naive_drift_is_right(load: float, service_s: float) -> None:
    rate = load / service_s
    assert q.drift(rate, [], service_s, 0) == pytest.approx((load - 1) / service_s)
    assert q.goodput(rate, [], service_s, 0) == pytest.approx(1 / service_s)


@given(LAYERS, PEERS, st.floats(0.01, 1.0))
def test_below_the_limit_nothing_grows(layers: int, proposers: int, load: float) -> None:
    rate = load * q.limit_rate(1.0, layers, proposers) * (1 - 1e-12)
    assert q.fluid_root(rate, [1.0] * layers, 1.0, proposers) == 1.0
    assert q.drift(rate, [1.0] * layers, 1.0, proposers) == 0.0
    assert q.goodput(rate, [1.0] * layers, 1.0, proposers) == pytest.approx(rate)


@given(LAYERS, PEERS, st.floats(0.1, 5.0), st.floats(0.1, 50.0))
def test_devices_that_are_alike_have_the_fluid_root(
    layers: int, proposers: int, load: float, service_s: float
) -> None:
    n, rate = proposers + 3, load * q.limit_rate(service_s, layers, proposers)
    everybody = [[peer for peer in range(n) if peer != device] for device in range(n)]
    stages = [service_s] * layers
    for graph in (None, everybody):
        found = q.fluid([rate] * n, service_s, layers, proposers, graph=graph)
        assert found.served == pytest.approx(q.fluid_root(rate, stages, service_s, proposers), rel=1e-9)
        drift = q.drift(rate, stages, service_s, proposers)
        assert found.drift_hz == pytest.approx(drift, rel=1e-6, abs=1e-9 * rate)
        assert found.goodput_hz == pytest.approx(q.goodput(rate, stages, service_s, proposers), rel=1e-9)


@given(st.lists(st.floats(0.1, 10.0), min_size=4, max_size=8), LAYERS, st.floats(0.01, 3.0), st.floats(0, 1))
def test_a_complete_graph_by_name_or_by_its_edges(
    services: list[float], layers: int, rate: float, skip: float
) -> None:
    n = len(services)
    everybody = [[peer for peer in range(n) if peer != device] for device in range(n)]
    named, drawn = (
        q.fluid([rate] * n, services, layers, 2, graph=graph, skip_aggregation=skip)
        for graph in (None, everybody)
    )
    assert named.served == pytest.approx(drawn.served, rel=1e-9)
    assert named.goodput_hz == pytest.approx(drawn.goodput_hz, rel=1e-9)


def test_two_devices_that_wait_for_the_slow_one() -> None:
    """λ = 1/2 each, M = k = 1, α = 1/2 and 3: at the slow one 1 + x/2 jobs arrive a second, and x = 1/(3 (1 + x/2))."""
    found = q.fluid([0.5, 0.5], [0.5, 3.0], 1, 1)
    slow = 15**0.5 / 3 - 1
    assert found.served == pytest.approx([1.0, slow])
    assert found.drift_hz == pytest.approx([0.0, 1 + slow / 2 - 1 / 3])
    assert found.goodput_hz == pytest.approx([slow / 2, slow**2 / 2])


def test_the_fluid_refuses_what_is_no_moot() -> None:
    for arguments in (([1.0], [1.0], 1, 1), ([-1.0, 1.0], [1.0], 1, 1), ([1.0] * 2, [1.0] * 3, 1, 1)):
        with pytest.raises(TheoryError):
            q.fluid(*arguments)
    with pytest.raises(TheoryError, match="device 1 may ask nobody"):
        q.fluid([1.0] * 2, 1.0, 1, 1, graph=[[1], []])


STAR = ((1, 2, 3, 4, 5), (0,), (0,), (0,), (0,), (0,))
UNEVEN: list[tuple[q.Question, str]] = [
    (q.Question(20, 1, 3, (0.15,), (Exponential(4.0), *(Exponential(1.0),) * 19)), "one slow device"),
    (q.Question(20, 2, 2, (0.08,), (Exponential(1.0),) * 10 + (Exponential(3.0),) * 10), "half are slow"),
    (q.Question(10, 2, 2, tuple(0.05 + 0.04 * i for i in range(10)), (Fixed(1.0),)), "rates"),
    (q.Question(6, 2, 1, (0.2,), (Exponential(1.0),), STAR), "a star"),
    (q.Question(6, 1, 2, (0.6,), (Exponential(1.0),), STAR, 0.6), "a star, and aggregations that are skipped"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "name"), UNEVEN, ids=[name for _, name in UNEVEN])
def test_the_fluid_of_devices_that_differ_is_what_is_simulated(asked: q.Question, name: str) -> None:
    seen = q.simulate(replace(asked, replications=4))
    assert max(seen.rho) > 1.3
    services = [each.mean for each in asked.laws] * (asked.devices if len(asked.laws) == 1 else 1)
    found = q.fluid(
        asked.rates_hz * (asked.devices if len(asked.rates_hz) == 1 else 1), services, asked.layers, asked.proposers,
        graph=asked.graph, skip_aggregation=asked.skip_aggregation,
    )  # fmt: skip
    mean_s = sum(services) / len(services)
    assert seen.drift.value == pytest.approx(found.drift_hz.mean() * mean_s, rel=0.05)
    assert seen.goodput.value == pytest.approx(found.goodput_hz.mean(), rel=0.02)
    for one, drift in zip(seen.per_device, found.drift_hz, strict=True):
        assert one.drift == pytest.approx(drift * mean_s, rel=0.15, abs=0.03)


def test_what_no_float_holds_is_refused() -> None:
    for call in (
        lambda: q.fluid_root(1e308, [1e308], 1.0, 2),
        lambda: q.drift(1e308, [1e308], 1.0, 2),
        lambda: q.goodput(1e308, [1e308], 1.0, 2),
        lambda: q.fluid([1e308] * 4, [1e308] * 4, 2, 2),
    ):
        with pytest.raises(TheoryError, match="beyond all measure"):
            call()


@given(LAYERS, PEERS, LOADS, st.floats(0.0, 1.0))
def test_prompts_that_stop_early(layers: int, proposers: int, load: float, stop: float) -> None:
    stops = [stop, *([0.0] * (layers - 1))]
    stops[-1] += 1.0 - stop
    stages = [1.0] * layers, 1.0, proposers
    rate = load / q.stage_load(1.0, *stages, stops)
    assert rate * q.early_stopping_jobs(stops, proposers) == pytest.approx(load)
    x = q.fluid_root(rate, *stages, stops)
    assert q.drift(rate, *stages, stops) == pytest.approx(1 / x - 1, rel=1e-6)
    assert q.goodput(rate, *stages, stops) < rate
    if stop == 0.0:
        assert x == pytest.approx(q.fluid_root(rate, *stages))
    if stop == 1.0:
        assert x == pytest.approx(q.fluid_root(rate, [1.0], 1.0, proposers))


def test_stages_that_differ_and_prompts_that_stop() -> None:
    """At x = 1/2: 2λ(1/2 + 0.5 · 5/4 + 0.1 · 20/8) + 3λ(0.5/4 + 0.4/8 + 0.1/16) = 1."""
    stages, stops = ([1.0, 5.0, 20.0], 3.0, 1), [0.5, 0.4, 0.1]
    last = 0.5 / 4 + 0.4 / 8 + 0.1 / 16
    rate = 1.0 / (2 * (0.5 + 0.5 * 1.25 + 0.1 * 2.5) + 3.0 * last)
    assert q.fluid_root(rate, *stages, stops) == pytest.approx(0.5)
    assert q.goodput(rate, *stages, stops) == pytest.approx(rate * last)
    arriving = 2 * (1.0 + 0.5 * 0.5 + 0.1 * 0.25) + 0.5 * 0.5 + 0.4 * 0.25 + 0.1 * 0.125
    assert q.drift(rate, *stages, stops) == pytest.approx(rate * arriving * 0.5)
    assert q.fluid_root(rate, [1.0, 5.0, 20.0][:], 3.0, 1, tuple(stops)) == pytest.approx(0.5)


@pytest.mark.parametrize("load", [1.5, 1e3, 1e15, 1e200])
def test_far_beyond_the_limit(load: float) -> None:
    """Without layers a device does all that it can, however much comes; with one x falls as the root of the load."""
    assert q.goodput(load, [], 1.0, 0) == pytest.approx(1.0)
    assert q.drift(load, [], 1.0, 0) == pytest.approx(load - 1.0)
    assert 0.0 < q.fluid_root(load, [1.0], 1.0, 1) <= 1.0
    if load > 1e10:
        assert q.fluid_root(load, [0.0], 1.0, 0) == pytest.approx(load**-0.5)


def test_a_free_aggregation_is_legal_where_there_are_layers() -> None:
    assert q.fluid_root(1.0, [1.0], 0.0, 1) == pytest.approx(0.5)
    with pytest.raises(TheoryError, match="aggregate_s"):
        q.fluid_root(1.0, [], 0.0, 1)
    with pytest.raises(TheoryError, match="rate_hz is 0"):
        q.fluid_root(0, [1.0], 1.0, 1)
