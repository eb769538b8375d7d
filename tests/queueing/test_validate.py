"""When a statement holds, and that those beyond the limit are asked as they should be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folkmoot.queueing.estimate import Interval
from folkmoot.queueing.validate import Case, cases, validate


def test_names_are_unique_and_tags_known() -> None:
    stated = cases(beyond=True)
    assert len({case.name for case in stated}) == len(stated)
    assert {case.tag for case in cases()} == {"E"}
    assert len([case for case in stated if case.tag == "C"]) == 3 * 4 * 3 * 3 + 2 + 4 + 3


@pytest.mark.parametrize(
    ("bound", "tolerance", "holds"),
    [(0, 0.0, False), (0, 0.2, True), (-1, 0.0, True), (1, 0.0, False)],
)
def test_when_a_statement_holds(bound: int, tolerance: float, holds: bool) -> None:
    case = replace(cases()[0], theory=1.0, bound=bound, tolerance=tolerance)
    assert isinstance(case, Case)
    assert case.holds(Interval(0.85, 0.8, 0.9)) is holds
    assert case.holds(Interval(0.95, 0.9, 1.1)) is (bound < 1 or tolerance > 0.0)


def test_a_floor_must_surely_be_kept_and_an_equality_be_narrow() -> None:
    floor = replace(cases()[0], theory=1.0, bound=1)
    assert not floor.holds(Interval(1.01, 0.99, 1.03))
    assert floor.holds(Interval(1.02, 1.001, 1.04))
    equal = replace(floor, bound=0)
    assert equal.shown(Interval(1.0, 0.96, 1.04))
    assert not equal.shown(Interval(1.0, 0.9, 1.1))
    assert replace(equal, tolerance=0.05).shown(Interval(1.0, 0.9, 1.1))


@pytest.mark.parametrize("name", ["refused, as", "M/G/1, Exponential, load 0.8: waiting"])
def test_the_widest_cases_find_a_formula_that_is_a_twentieth_off(name: str) -> None:
    """At the confidence that they have among all others."""
    every = cases()
    for case in [case for case in every if case.name.startswith(name)]:
        copies = [case] + [replace(case, theory=factor * case.theory) for factor in (0.95, 1.05)]
        confidence = 1.0 - 0.01 / len(every)
        (first,) = validate(copies[:1])
        values = first.simulation
        half = (values.high - values.value) * _ratio(confidence, case.question.replications)
        assert half < 0.05 * case.theory, case.name
        assert case.holds(values)
        assert not any(copy.holds(values) for copy in copies[1:])


def _ratio(confidence: float, runs: int) -> float:
    """Student's half width at a confidence over that of a single case."""
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, runs - 1) / t.ppf(0.995, runs - 1))


def test_collapse_and_its_cure() -> None:
    some = [case for case in cases(beyond=True) if case.name.startswith("M = 2, k = 3, load 2.0")]
    assert [outcome.verdict for outcome in validate(some, quick=True)] == ["ok"] * 3


@pytest.mark.parametrize(("ending", "factor"), [("goodput at most", 0.95), ("0.97 of it is done", 1.05)])
def test_a_limit_that_is_off_by_a_twentieth_is_found(ending: str, factor: float) -> None:
    some = [case for case in cases(beyond=True) if case.name.endswith(ending)]
    assert [outcome.verdict for outcome in validate(some)] == ["ok"] * 3
    wrong = [replace(case, theory=factor * case.theory) for case in some]
    assert [outcome.verdict for outcome in validate(wrong)] == ["mismatch"] * 3
