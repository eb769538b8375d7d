"""Queues of recorded prompts, held against closed forms, the compiled simulator and a run counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folkmoot.core.law import Fixed
from folkmoot.errors import EvalError
from folkmoot.evals.jobs import Job
from folkmoot.evals.queues import Work, again, queues, served, waiting, work_of
from folkmoot.evals.records import Record
from folkmoot.queueing.moot import Question, simulate


def record(*jobs: tuple[int, str, float], error: str = "") -> Record:
    made = tuple(
        Job(layer, "propose", device, "m", "ok", 1, 0, 1, seconds, 0.0) for layer, device, seconds in jobs
    )
    return Record("gsm8k/1", "gsm8k", "M1-k1", "ash", "", "", True, 0.0, made, (), error)


def test_work_is_what_each_device_did_in_each_layer() -> None:
    some = [
        record((1, "ash", 2.0), (1, "elm", 4.0), (2, "ash", 3.0)),
        record((1, "elm", 1.0)),
        record((1, "ash", 9.0), error="too_long"),
    ]
    work = work_of(some, 2)
    assert work.prompts == ([[(0, 2.0), (1, 4.0)], [(0, 3.0)]], [[(1, 1.0)]])
    assert work.limit_hz == 2 / 5.0
    with pytest.raises(EvalError, match="2 devices worked in a moot of 1"):
        work_of(some, 1)
    with pytest.raises(EvalError, match="no prompts"):
        queues(work_of([], 2), 1.0, prompts=10, runs=1)


def test_jobs_are_served_first_come_first_served_and_layers_wait_for_their_last() -> None:
    work = Work(2, ((((0, 2.0), (1, 4.0)), ((0, 3.0),)),))
    ended, log = served(work.prompts * 2, [0.0, 0.0], 2)
    # Both layers of device 0 are there before the first aggregation, which begins when device 1 is done.
    assert [time for line in log for time in line[5:]] == pytest.approx(
        [0, 2, 0, 4, 2, 4, 4, 8, 4, 7, 8, 11], abs=1e-6
    )
    assert ended == pytest.approx([7, 11], abs=1e-6)
    assert waiting(log, 0.0, 8.0) == pytest.approx((2 + 4) / 8, abs=1e-6)


def test_alone_it_is_the_queue_of_constant_services() -> None:
    work = Work(1, ((((0, 1.0),),),))
    seen = queues(work, 0.8, prompts=2_000, runs=10)
    assert seen.load == pytest.approx(0.8)
    assert seen.size.covers(0.8**2 / (2 * 0.2))  # M/D/1
    assert seen.latency.covers(1 + 0.8 / (2 * 0.2))
    assert seen.size.high - seen.size.low < 0.5
    assert seen.script.value > 1.1 * seen.size.value


def test_it_agrees_with_the_compiled_simulator_on_what_both_can_say() -> None:
    """Four devices, M = 1, k = 3, all services alike: ten prompts from empty queues, as the paper has them."""
    prompts = tuple((tuple((each, 1.0) for each in range(4)), ((origin, 1.0),)) for origin in range(4))
    seen = queues(Work(4, prompts), 2.0, prompts=10, runs=400)
    other = simulate(Question(4, 1, 3, (0.5,), (Fixed(1.0),), prompts=10, replications=400))
    assert seen.load == pytest.approx(2.5)
    for mine, theirs in (
        (seen.latency, other.latency), (seen.size, other.queue_size), (seen.script, other.queue_size_script)
    ):  # fmt: skip
        assert mine.low <= theirs.high
        assert theirs.low <= mine.high


def test_what_cannot_last_grows_linearly() -> None:
    seen = queues(Work(1, ((((0, 1.0),),),)), 1.5, prompts=1_000, runs=5)
    assert seen.growth.value == pytest.approx(1 - 1 / 1.5, rel=0.15)
    stays = queues(Work(1, ((((0, 1.0),),),)), 0.8, prompts=1_000, runs=5).growth
    assert -0.01 < stays.low < 0.0 < stays.high < 0.01
    assert seen.bend.low < 1.0 < seen.bend.high


def test_a_run_at_a_rate_is_reckoned_again_from_its_own_times() -> None:
    """Pace 0.5: the second prompt came after a second of the model's, when its device had two more to do."""
    some = [replace(record((1, "ash", 3.0)), at_s=at_s) for at_s in (0.5, 0.0)]
    told = again(some, 1, 0.5)
    assert (told.load, told.latency_s) == (pytest.approx(2 * 3.0), pytest.approx((3.0 + 5.0) / 2))
    assert told.size == pytest.approx(2.0 / 6.0)
