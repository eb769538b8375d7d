"""What a run will cost is what is not made yet."""

from __future__ import annotations

import pytest

from folkmoot.errors import EngineError
from folkmoot.evals.arms import arms_of
from folkmoot.evals.costs import costs, speed
from folkmoot.evals.draws import draw
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.tasks import load


async def test_each_arms_jobs_are_counted_beyond_the_shared_drafts(model, store, sums):
    arms, tasks = arms_of("single,single:1,self-consistency,majority,M1-k3,M2-k3,auto", 4), load(sums)
    await draw([Proxy("m", model, store)] * 2, tasks[0])  # 9 tokens each
    found = {cost.arm: (cost.jobs, cost.new_jobs) for cost in costs(arms, tasks, ["m"] * 4, store, 3.0)}
    assert found == {
        "shared drafts": (4, 4 * 3 - 2), "single": (1, 0), "single:1": (1, 3), "self-consistency": (4, 0),
        "majority": (4, 0), "M1-k3": (5, 3), "M2-k3": (9, 15), "auto": (5, 3),
    }  # fmt: skip
    assert costs(arms, tasks, ["m"] * 4, store, 3.0)[0].seconds == pytest.approx(10 * 9 / 3.0)


async def test_without_any_stored_answer_a_part_of_its_limit_is_taken(store, sums):
    (drafts, _) = costs(arms_of("single", 1), load(sums), ["m"], store, 10.0)
    assert drafts.seconds == pytest.approx(3 * 128 / 10.0)


async def test_the_speed_is_that_of_all_that_are_written_together(model):
    times = iter([10.0, 14.0])
    assert await speed(model, 4, lambda: next(times)) == 4 * 9 / 4.0
    assert len({inference.sampling.seed for inference in model.asked}) == 4


async def test_a_model_that_fails_has_no_speed(model):
    model.fail = EngineError("it broke")
    with pytest.raises(EngineError, match="it broke"):
        await speed(model, 1, lambda: 0.0)
