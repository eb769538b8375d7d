"""The bound on peer choice: the linear programme, its closed form, and what its weights do."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot import queueing as q
from folkmoot.errors import TheoryError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.2, 8.0), min_size=2, max_size=9), st.integers(1, 3), st.data())
def test_both_ways_agree_and_the_weights_reach_the_bound(
    services: list[float], layers: int, data: st.DataObject
) -> None:
    count = len(services)
    proposers = data.draw(st.integers(0, count - 1))
    limit, weights = q.best_limit(services, layers, proposers)
    assert limit == pytest.approx(q.best_limit_closed(services, layers, proposers), rel=1e-6)
    assert weights.sum(axis=1) == pytest.approx([proposers] * count, abs=1e-6)
    assert np.all((weights >= 0) & (weights <= 1))
    assert np.all(np.diag(weights) == 0)
    loads = np.array(services) * limit * (layers + 1 + layers * weights.sum(axis=0))
    assert loads.max() <= 1 + 1e-6
    assert q.loads([limit] * count, services, layers, proposers, weights=weights) == pytest.approx(loads)
    uniform = min(q.limit_rate(service, layers, proposers) for service in services)
    jobs = (proposers + 1) * layers + 1
    mean = float(np.mean(1 / np.array(services))) / jobs
    assert uniform * (1 - 1e-9) <= limit <= mean * (1 + 1e-9)


def test_half_slow_devices_as_measured() -> None:
    """SCIENCE: ten devices of 1 s and ten of 3 s, M = 2, k = 2: weights of the programme reach about twice uniform's."""
    limit = q.best_limit_closed([1.0] * 10 + [3.0] * 10, 2, 2)
    assert limit / q.limit_rate(3.0, 2, 2) == pytest.approx(2.0, abs=0.02)


def test_no_dense_matrix_is_made() -> None:
    tracemalloc.start()
    services = [1.0, 2.0, 5.0] * 20
    limit, weights = q.best_limit(services, 1, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert limit == pytest.approx(q.best_limit_closed(services, 1, 2), rel=1e-6)
    assert weights.shape == (60, 60)
    assert peak < 60**4 * 8 / 10, "less than a tenth of the programme's dense matrix"


def test_bad_arguments() -> None:
    with pytest.raises(TheoryError, match="proposers is 3"):
        q.best_limit_closed([1.0] * 3, 1, 3)
    with pytest.raises(TheoryError, match="services_s holds"):
        q.best_limit([1.0, 0.0], 1, 1)
