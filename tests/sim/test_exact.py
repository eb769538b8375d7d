"""That the cases of the real protocol find a formula that is a twentieth off, and name each statement once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folkmoot.queueing.validate import cases as compiled
from folkmoot.queueing.validate import validate
from folkmoot.sim.exact import cases


def test_names_are_unique_and_tags_known() -> None:
    stated = [*compiled(beyond=True), *cases(beyond=True)]
    assert len({case.name for case in stated}) == len(stated)
    assert {case.tag for case in cases()} == {"E"}
    assert {case.tag for case in cases(beyond=True)[len(cases()) :]} == {"C"}


def test_early_stops_collapse_as_computed() -> None:
    """Shorter than by hand, so only within a seventh: two layers for all would be 0.095, one for all 0.268."""
    name = "half of the prompts stop after the first of 2 layers, load 2: goodput"
    (case,) = [case for case in cases(beyond=True) if case.name == name]
    assert case.theory == pytest.approx(0.1644, abs=1e-4)
    short = replace(case, question=replace(case.question, horizon=250, replications=2))
    (found,) = validate([short], workers=1)
    assert found.simulation.value == pytest.approx(case.theory, rel=0.15)


@pytest.mark.parametrize(
    "name", ["stages of 1, 1.5 and 2.5 s", "the load of the others", "batches of 4, load 1.5"]
)
def test_what_is_a_twentieth_off_is_found_quickly(name: str) -> None:
    (case,) = [case for case in cases() if name in case.name]
    some = [replace(case, theory=factor * case.theory) for factor in (1.0, 0.95, 1.05)]
    found = [outcome.verdict for outcome in validate(some, quick=True, workers=1)]
    assert found == ["ok", "mismatch", "mismatch"]
