"""What a moot under load earns: the worth of its answers beside the best that any policy could do.

Each prompt is asked in mode auto of devices with prices (`core.price`), and the real protocol does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from folkmoot.core.price import PAPER, PriceConfig, Worth
from folkmoot.queueing.choice import best_utility
from folkmoot.queueing.moot import Question, service_means
from folkmoot.sim.load import Asked, History


@dataclass(frozen=True, slots=True)
class Earned:
    """Of the prompts that were asked in a time: the mean worth in points of the answers that went into them, refused and
    unanswered ones 0, and its share of the bound; goodput in answers per second and device; seconds until half and 99 % of
    the answers; the share refused; and the longest that a first layer's job of theirs has waited, in seconds, whatever became of it.
    """

    prompts: int
    points: float
    of_bound: float
    goodput_hz: float
    p50_s: float
    p99_s: float
    refused: float
    longest_first_wait_s: float


def earned(
    question: Question,
    history: History,
    start_s: float,
    end_s: float,
    *,
    worths: Sequence[Worth] = PAPER,
    factor: float = 1.0,
    counted: Callable[[Asked], bool] = lambda asked: True,
) -> Earned:
    """What came of the prompts of [start_s, end_s) for which `counted` holds, where `factor` times the question's came."""
    prices = PriceConfig(worths=tuple(worths))
    asked = [each for each in history.prompts if start_s <= each.born < end_s and counted(each)]
    done = [each for each in asked if not each.code]
    took = np.array([each.ended - each.born for each in done] or [math.nan])
    mean = math.fsum(prices.worth(each.layers, each.answers - 1) for each in done) / max(1, len(asked))
    refused = sum(each.code == "overloaded" for each in asked) / max(1, len(asked))
    p50, p99 = np.quantile(took, [0.5, 0.99])
    hz = len(done) / (end_s - start_s) / question.devices
    return Earned(
        len(asked), mean, mean / bound(question, worths, factor), hz, float(p50), float(p99), refused,
        _longest_first_wait(history, {each.number for each in asked}, end_s),
    )  # fmt: skip


def _longest_first_wait(history: History, prompts: set[int], end_s: float) -> float:
    """Seconds that a first layer's job of these prompts waited at most for its service or its end; 0 for none."""
    waits = [
        min(end for end in (job.start, job.cut, end_s) if not math.isnan(end)) - job.asked
        for job in history.jobs
        if job.stage == 1 and job.prompt in prompts
    ]
    return max(waits, default=0.0)


def bound(question: Question, worths: Sequence[Worth] = PAPER, factor: float = 1.0) -> float:
    """[E] The points that no policy can exceed (`queueing.choice.best_utility`)."""
    n = question.devices
    rates = [factor * rate for rate in question.rates_hz] * (n if len(question.rates_hz) == 1 else 1)
    return best_utility(service_means(question), rates, worths)
