"""The closed forms of the theorem."""

from __future__ import annotations

import pytest

from folkmoot.core.load import jobs_per_prompt, limit_rate, offered_load


@pytest.mark.parametrize(("layers", "proposers", "jobs"), [(0, 0, 1), (1, 3, 5), (2, 2, 7), (3, 2, 10)])
def test_load_of_the_theorem(layers: int, proposers: int, jobs: int) -> None:
    assert jobs_per_prompt(layers, proposers) == jobs
    rate = limit_rate(2.0, layers, proposers)
    assert offered_load(2.0, rate, layers, proposers) == pytest.approx(1.0)


def test_load_outside_its_range() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        jobs_per_prompt(-1, 0)
    with pytest.raises(ValueError, match="> 0"):
        limit_rate(0.0, 1, 1)
