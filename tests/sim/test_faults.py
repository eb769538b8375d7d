"""Slow, dead and frozen devices under load, by the real protocol in virtual time; `bench/faults.py` has the live ones."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from folkmoot.core.breaker import BreakerConfig
from folkmoot.core.hedge import HedgeConfig
from folkmoot.core.law import Exponential
from folkmoot.core.price import PriceConfig
from folkmoot.errors import TheoryError
from folkmoot.queueing.moot import Question
from folkmoot.queueing.streams import keys
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.load import Asked, History, Load, Setting

ALPHA_S = 0.2
PATIENT = Setting(price=PriceConfig(enabled=True), share=2.0, gossip=True, links=LinkConfig())
IMPATIENT = replace(
    PATIENT,
    price=PriceConfig(enabled=True, haste=0.5),
    hedge=HedgeConfig(share=0.05),
    breaker=BreakerConfig(failures=3),
)
SEEDS = 6
FREEZES = tuple((5, start, 8.0) for start in (40.0, 70.0, 100.0, 130.0))
UNTIL_S = 150.0


def question(devices: int, load: float = 0.25, **changes: object) -> Question:
    """Load 1 is the limit of (2, 3)."""
    asked = Question(
        devices, 2, 3, (load / 9 / ALPHA_S,), (Exponential(ALPHA_S),), horizon=UNTIL_S, replications=1,
        discipline="lsf", best_of=min(8, devices - 1),
    )  # fmt: skip
    return replace(asked, **changes)


def runs(asked: Question, setting: Setting) -> list[History]:
    return [Load(asked, key, UNTIL_S, setting).run() for key in keys(11, SEEDS)]


def mean_s(histories: list[History], *, frozen: bool = False) -> float:
    """Mean latency of the first five devices' prompts, once all is known; with `frozen` those of the first 8 s of a freeze."""

    def counts(asked: Asked) -> bool:
        late = any(start <= asked.born < start + 8.0 for _, start, _ in FREEZES) if frozen else True
        return asked.origin < 5 and asked.born > 20.0 and not asked.code and late

    took = [each.ended - each.born for history in histories for each in history.prompts if counts(each)]
    return float(np.mean(took))


def copies(histories: list[History]) -> float:
    """Copies of late jobs as a share of all others."""
    made = sum(each.copies for history in histories for each in history.prompts)
    return made / (sum(len(history.jobs) for history in histories) - made)


@cache
def rest_s() -> float:
    """What the healthy five take by themselves."""
    return mean_s(runs(question(5), IMPATIENT))


@pytest.mark.xdist_group("healthy")  # one run of the healthy five for both
def test_a_frozen_device_costs_hardly_anything_even_before_its_death_is_known() -> None:
    found = runs(question(6), replace(IMPATIENT, frozen=FREEZES))
    assert mean_s(found) <= 1.1 * rest_s()
    assert mean_s(found, frozen=True) <= 1.2 * rest_s()  # 130 prompts
    assert copies(found) <= 0.055  # 5 %, and one for each device
    patient = runs(question(6), replace(PATIENT, frozen=FREEZES))
    assert mean_s(patient, frozen=True) > 1.3 * rest_s()


@pytest.mark.xdist_group("healthy")
def test_a_device_ten_times_slower_costs_hardly_anything() -> None:
    laws = (Exponential(ALPHA_S),) * 5 + (Exponential(10 * ALPHA_S),)
    asked = question(6, laws=laws, rates_hz=(*[0.25 / 9 / ALPHA_S] * 5, 1e-9))
    found = runs(asked, IMPATIENT)
    assert mean_s(found) <= 1.1 * rest_s()
    assert copies(found) <= 0.055


def test_devices_that_die_lose_no_prompt_of_the_others() -> None:
    dying = replace(IMPATIENT, up_s=20.0, down_s=5.0)
    found = runs(question(6), dying)
    ends = Counter(each.code for history in found for each in history.prompts)
    assert sum(history.failures for history in found) > 50
    assert set(ends) <= {"", "open", "origin_died", "origin_down"}, ends
    late = [
        each
        for history in found
        for each in history.prompts
        if each.code == "open" and each.born < UNTIL_S - 30.0
    ]
    assert not late


def test_a_first_job_never_waits_longer_than_the_bound() -> None:
    """Far beyond the limit and without a price: the door and the timer hold it all the same."""
    asked = question(4, load=5.0, discipline="fcfs", best_of=0, laws=(Exponential(ALPHA_S),))
    found = Load(asked, keys(3, 1)[0], 60.0, Setting(max_wait_s=1.0)).run()
    waits = [job.start - job.asked for job in found.jobs if job.stage == 1 and not math.isnan(job.start)]
    assert max(waits) <= 1.0 + 1e-9
    ends = Counter(each.code for each in found.prompts)
    assert ends["overloaded"] > 10 * ends["waited"] > 0, "the door refuses nearly all of them"
    assert ends[""] > 0
    unbounded = Load(asked, keys(3, 1)[0], 60.0, Setting()).run()
    longest = max(
        job.start - job.asked for job in unbounded.jobs if job.stage == 1 and not math.isnan(job.start)
    )
    assert longest > 5.0


def test_the_same_seed_makes_the_same_copies() -> None:
    setting = replace(IMPATIENT, frozen=FREEZES)
    first, second = (Load(question(6), keys(11, 1)[0], 60.0, setting).run() for _ in range(2))
    assert first.prompts == second.prompts
    assert any(each.copies for each in first.prompts)


@pytest.mark.parametrize("frozen", [((6, 1.0, 1.0),), ((0, -1.0, 1.0),), ((0, 1.0, 0.0),)])
def test_freezes_that_cannot_be_are_refused(frozen: tuple[tuple[int, float, float], ...]) -> None:
    with pytest.raises(TheoryError):
        replace(IMPATIENT, frozen=frozen).check(question(6))
    with pytest.raises(TheoryError):
        replace(Setting(), frozen=FREEZES).check(question(6))
