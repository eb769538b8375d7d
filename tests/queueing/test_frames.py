"""Results as a table."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from folkmoot.core.law import Exponential, Fixed, Lognormal, Trace, Weibull
from folkmoot.errors import ConfigError
from folkmoot.queueing import (
    MEAN_FIELD_ERROR,
    Question,
    Result,
    drift,
    fluid,
    mean_field,
    rows,
    simulate,
    to_pandas,
    to_polars,
)
from folkmoot.queueing.theory import WAITING_ERROR


def asked(load: float, **more) -> Question:
    return Question(4, 1, 1, (load / 3,), (Exponential(1.0),), horizon=300, replications=3, **more)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [simulate(asked(0.5)), simulate(asked(1.5))]


def test_a_row_has_what_was_asked_what_was_seen_and_the_theory(results):
    below, beyond = rows(results)
    assert (below["n"], below["layers"], below["reps"], below["service"]) == (4, 1, 3, "exp:1.0")
    assert below["latency_mean"] == results[0].latency.value
    assert below["queue_size_high"] == results[0].queue_size.high
    assert below["theory_latency"] == pytest.approx(
        mean_field([0.5 / 3] * 4, (Exponential(1.0),), 1, 1).mean, rel=1e-3
    )
    assert (below["theory_latency_tag"], below["theory_drift"]) == ("A", 0.0)
    assert below["theory_goodput"] == pytest.approx(0.5 / 3)
    assert beyond["theory_latency"] is None
    assert beyond["theory_drift"] == drift(0.5, [1.0], 1.0, 1)
    assert not any(isinstance(cell, list | dict) for cell in below.values())
    assert list(below) == list(beyond)


@pytest.mark.parametrize("policy", [{"discipline": "lsf"}, {"admit": 3}, {"best_of": 2}, {"prompts": 3}])
def test_no_theory_stands_beside_what_it_does_not_describe(policy):
    (row,) = rows([simulate(asked(0.5, **policy))])
    assert [row[name] for name in ("theory_latency", "theory_queue_size", "theory_drift")] == [None] * 3
    assert row["theory_rho"] == pytest.approx(0.5)


def test_each_device_s_fluid_stands_beside_unequal_rates():
    rates = (2.0, 0.1, 0.1, 0.1)
    (row,) = rows([simulate(Question(4, 1, 1, rates, (Exponential(1.0),), horizon=200, replications=2))])
    found = fluid(rates, 1.0, 1, 1)
    assert row["theory_drift"] == pytest.approx(found.drift_hz.mean())
    assert row["theory_goodput"] == pytest.approx(found.goodput_hz.mean())


def test_the_error_of_the_theory_stands_beside_it(results):
    (below,) = rows(results[:1])
    assert (below["theory_latency_error_low"], below["theory_latency_error_high"]) == MEAN_FIELD_ERROR[True]
    assert (below["theory_queue_size_error_low"], below["theory_queue_size_error_high"]) == WAITING_ERROR[
        True
    ]
    wide = replace(results[0].question, laws=(Weibull(1.0, 0.7),))
    (far,) = rows([simulate(wide)])
    for name in ("latency", "queue_size"):
        assert far[f"theory_{name}"] is not None
        assert (far[f"theory_{name}_tag"], far[f"theory_{name}_error_low"]) == ("A", None)


def test_devices_of_all_kinds():
    laws = (Fixed(1.0), Lognormal(1.0, 0.5), Weibull(1.0, 1.5), Exponential(1.0))
    one = Question(4, 1, 1, (0.1,), laws, horizon=100, replications=1)
    (row,) = rows([simulate(one)])
    assert row["service"] == "det:1.0,lognormal:1.0:0.5,weibull:1.0:1.5,exp:1.0"
    assert row["latency_mean_low"] is None, "one replication has no interval"
    traced = Question(
        2, 0, 0, (0.1,), (Trace(("a", "b"), ((1.0, 2.0), (3.0, 4.0))),), horizon=100, replications=1
    )
    (row,) = rows([simulate(traced)])
    assert row["service"] == "trace::a+b"


def test_frames(results):
    pandas, polars = to_pandas(results), to_polars(results)
    assert pandas["load"].tolist() == polars["load"].to_list() == pytest.approx([0.5, 1.5])
    assert list(pandas.columns) == polars.columns == list(rows(results)[0])
    assert polars["verdict"].to_list() == [result.verdict for result in results]


@pytest.mark.parametrize(("name", "frame"), [("pandas", to_pandas), ("polars", to_polars)])
def test_a_frame_without_its_library_is_a_typed_error(name, frame, results, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        frame(results)
