"""The closed forms of the theorem."""

from __future__ import annotations

import pytest

from folkmoot.core.load import jobs_per_prompt, judged_jobs, judged_stages, limit_rate, offered_load


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


def test_jobs_of_a_judge_add_up() -> None:
    """Three layers of three answers: all come to the first, half to the second, a quarter to the third."""
    reached, judged = judged_stages(3, 2, keep=2, early_stop=True, stops=(0.5, 0.5))
    assert (reached, judged) == (1.75, 1.75)
    assert judged_jobs(3, 2, keep=2, early_stop=True, stops=(0.5, 0.5)) == 3 * 1.75 + 1 + 1.75
    assert judged_stages(3, 2, early_stop=True, stops=(0.5, 0.5)) == (1.75, 1.5), "none after the last layer"
    assert judged_stages(3, 2, keep=2) == (3.0, 3.0)
    with pytest.raises(ValueError, match=">= 0"):
        judged_stages(1, -1)
