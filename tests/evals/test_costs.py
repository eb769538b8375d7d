"""What a run will cost is what is not made yet."""

from __future__ import annotations

import pytest

from folkmoot.errors import EngineError
from folkmoot.evals.arms import arms_of
from folkmoot.evals.costs import Judging, costs, judging_costs, reading, speed
from folkmoot.evals.draws import draw
from folkmoot.evals.judge import Baseline
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.tasks import Open, Task, load


async def test_each_arms_jobs_are_counted_beyond_the_shared_drafts(model, store, sums):
    arms, tasks = arms_of("single,single:1,self-consistency,majority,M1-k3,M2-k3,auto", 4), load(sums)
    await draw([Proxy("m", model, store)] * 2, tasks[0])  # 9 tokens each
    found = {cost.arm: (cost.jobs, cost.new_jobs) for cost in costs(arms, tasks, ["m"] * 4, store, 3.0)}
    assert found == {
        "shared drafts": (4, 4 * 3 - 2), "single": (1, 0), "single:1": (1, 0), "self-consistency": (4, 0),
        "majority": (4, 0), "M1-k3": (5, 3), "M2-k3": (9, 15), "auto": (5, 3),
    }  # fmt: skip
    assert costs(arms, tasks, ["m"] * 4, store, 3.0)[0].seconds == pytest.approx(10 * 9 / 3.0)


async def test_where_models_differ_a_devices_votes_are_its_own(store, sums):
    arms = arms_of("single,single:0,self-consistency,self-consistency:3@0,majority", 4)
    made = [cost.new_jobs for cost in costs(arms, load(sums), ["m", "n", "n", "n"], store, 3.0)]
    assert made == [4 * 3, 0, 3, 9, 9, 0]


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


async def test_a_verdict_is_priced_as_the_judge_is_asked(store, sums):
    """Three arms, ten instructions: two others in both orders, two of ten beside themselves; a mark each of MT-Bench."""
    alpaca = [Task(f"alpaca/{number}", "alpaca", "Why?", Open(), 1000) for number in range(10)]
    arms = arms_of("single,majority,auto", 4)

    def priced(tasks, baseline, share=0.2) -> Judging:
        return judging_costs(arms, tasks, ["m"] * 4, store, baseline, share, (100.0, 10.0))

    found = priced([*alpaca, *load(sums)], "single")
    assert (found.pairs, found.same, found.marks) == (2 * 2 * 10, 2, 0)
    assert found.tokens_out == 42 * 256
    # Two answers of 500 tokens, and what is asked around them.
    assert 1000 < found.tokens_in / 42 < 1600
    assert found.seconds == pytest.approx(found.tokens_in / 100 + found.tokens_out / 10)
    some = Baseline("gpt", {"alpaca/3": "It is.", "alpaca/4": "It was."})
    found = priced(alpaca, some, 1.0)
    assert (found.pairs, found.same, found.marks) == (3 * 2 * 2, 2, 0)
    marked = [Task("mtbench/1", "math", "Why?", Open(), 1000)]
    assert priced(marked, None) == priced(marked, None, 0.0)
    assert (priced(marked, None).marks, priced(marked, "single").pairs) == (3, 4)


async def test_reading_is_measured_without_what_was_cached(model):
    times = iter([10.0, 14.0])
    assert await reading(model, 4, lambda: next(times)) == 4 * 20 / 4.0
    assert {inference.sampling.max_tokens for inference in model.asked} == {1}
    assert len({inference.conversation[-1].content[:2] for inference in model.asked}) == 4
