"""The published script's queue: its twin in plain words, its closed form, and the paper's Table I."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from folkmoot.core.law import Exponential, Fixed, Lognormal
from folkmoot.errors import UnstableQueue
from folkmoot.queueing import Moments, mg1_wait, script_queue, script_queue_alone
from folkmoot.queueing.moot import Question, replication, simulate
from folkmoot.queueing.streams import keys

ROWS = {  # M, k: the seconds and the script's queue that SCIENCE states for the paper's setting
    (0, 0): (94, 1.05), (1, 1): (353, 1.91), (1, 2): (456, 2.94), (2, 1): (611, 2.25),
    (2, 2): (820, 3.76), (1, 3): (553, 4.16), (2, 3): (1015, 5.66),
}  # fmt: skip


def told(log: np.ndarray, devices: int) -> float:
    """As the script goes: the pending stage that was asked first is placed, and looked at, then the next."""
    stages: dict[tuple[int, int], list[np.ndarray]] = {}
    for job in log:
        stages.setdefault((int(job[0]), int(job[1])), []).append(job)
    pending = {prompt: 1 for prompt, _ in stages}
    area = final = 0.0
    while pending:
        prompt = min(pending, key=lambda each: stages[each, pending[each]][0][4])
        jobs = stages[prompt, pending.pop(prompt)]
        for _, _, _, device, _, start, end in jobs:
            met = [stages[each] for each in pending.items()]
            met = [other for other in met if other[0][4] <= end and device in {each[3] for each in other}]
            area += len(met) * (end - start)
        following = int(jobs[0][1]) + 1
        if (prompt, following) in stages:
            pending[prompt] = following
        else:
            final = jobs[0][6]
    return area / final / devices


@pytest.mark.parametrize(("layers", "proposers"), [(0, 0), (1, 0), (1, 2), (3, 1), (2, 4)])
def test_as_the_script_goes(layers: int, proposers: int) -> None:
    for rate in (0.02, 0.2, 2.0):
        asked = Question(5, layers, proposers, (rate,), (Lognormal(1.0, 0.5),), prompts=40)
        log = replication(asked, keys(3, 1)[0], 40 * ((proposers + 1) * layers + 1)).counts.log
        assert script_queue(log, 5) == pytest.approx(told(log, 5), rel=1e-12, abs=1e-15)


def test_the_empty_log() -> None:
    assert math.isnan(script_queue(np.empty((0, 7)), 3))


def test_closed_form_of_one_queue() -> None:
    for load, factor in ((0.5, 1.5), (0.8, 1.2)):
        waiting = load * mg1_wait(load, Moments.of(Exponential(1.0)))
        assert script_queue_alone(load, Moments.of(Exponential(1.0))) == pytest.approx(factor * waiting)
    with pytest.raises(UnstableQueue):
        script_queue_alone(1.0, Moments.of(Fixed(1.0)))


@pytest.mark.parametrize("row", ROWS)
def test_table_one_from_one_number(row: tuple[int, int]) -> None:
    asked = Question(4, *row, (0.25,), (Lognormal(45.4, 0.5),), prompts=10, replications=300)
    found = simulate(asked)
    latency, queue = ROWS[row]
    assert found.latency.value == pytest.approx(latency, rel=0.1)
    assert found.queue_size_script.value == pytest.approx(queue, rel=0.1)
    assert found.queue_size.value < found.queue_size_script.value


def test_where_it_means_nothing() -> None:
    asked = Question(4, 1, 2, (0.1,), (Exponential(1.0),), prompts=10, replications=2)
    assert math.isfinite(simulate(asked).queue_size_script.value)
    for other in (
        replace(asked, prompts=0, horizon=50),
        replace(asked, discipline="lsf"),
        replace(asked, quorum=2),
        replace(asked, skip_aggregation=0.5),
    ):
        assert math.isnan(simulate(other).queue_size_script.value)
