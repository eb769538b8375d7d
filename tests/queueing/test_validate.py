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
    assert case.holds(Interval(0.95, 0.9, 1.1))


def test_collapse_and_its_cure() -> None:
    some = [case for case in cases(beyond=True) if case.name.startswith("M = 2, k = 3, load 2.0")]
    assert [outcome.verdict for outcome in validate(some, quick=True)] == ["ok"] * 3


@pytest.mark.parametrize(("ending", "factor"), [("goodput at most", 0.95), ("0.97 of it is done", 1.05)])
def test_a_limit_that_is_off_by_a_twentieth_is_found(ending: str, factor: float) -> None:
    some = [case for case in cases(beyond=True) if case.name.endswith(ending)]
    assert [outcome.verdict for outcome in validate(some)] == ["ok"] * 3
    wrong = [replace(case, theory=factor * case.theory) for case in some]
    assert [outcome.verdict for outcome in validate(wrong)] == ["mismatch"] * 3
