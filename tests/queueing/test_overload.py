"""Beyond the limit: the fluid root and what follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot import queueing as q
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


def test_a_free_aggregation_is_legal_where_there_are_layers() -> None:
    assert q.fluid_root(1.0, [1.0], 0.0, 1) == pytest.approx(0.5)
    with pytest.raises(TheoryError, match="aggregate_s"):
        q.fluid_root(1.0, [], 0.0, 1)
    with pytest.raises(TheoryError, match="rate_hz is 0"):
        q.fluid_root(0, [1.0], 1.0, 1)
