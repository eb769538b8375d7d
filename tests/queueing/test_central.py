"""The centre and the moot under failures: against closed forms, the compiled simulator and each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from folkmoot.core.law import Exponential, Fixed, Lognormal, Trace
from folkmoot.errors import TheoryError, UnstableQueue
from folkmoot.queueing.central import Failures, centre, centre_latency, moot
from folkmoot.queueing.moot import Question, simulate

ASKED = Question(4, 1, 2, (0.7 / 4,), (Exponential(1.0),), horizon=1200, replications=6)
OFTEN = Failures(100.0, 20.0, 2.0)


@pytest.mark.parametrize("law", [Exponential(1.0), Fixed(1.0), Trace(("a",), ((0.5,), (1.5,)))], ids=str)
@pytest.mark.parametrize(("layers", "proposers"), [(0, 0), (2, 2)])
def test_the_centre_is_one_queue(law, layers: int, proposers: int) -> None:
    rate = 0.6 / ((proposers + 1) * layers + 1)
    asked = replace(ASKED, layers=layers, proposers=proposers, rates_hz=(rate,), laws=(law,), horizon=2000)
    seen = centre(asked, 3.0).summary()
    half = 2 * (seen.latency.high - seen.latency.value)
    assert abs(seen.latency.value - centre_latency(asked, 3.0)) < half
    assert (seen.answered.value, seen.refused.value) == (1.0, 0.0)


def test_the_moot_without_failures_is_the_simulated_one() -> None:
    """The same random numbers: the same prompts but for those on the way at the end, which this one waits for."""
    assert moot(ASKED).summary().latency.value == pytest.approx(simulate(ASKED).latency.value, rel=0.02)
    never = Failures()
    assert (never.up, never.nobody(3)) == (1.0, 0.0)
    assert moot(ASKED, Failures(1e12, 1.0)).summary() == moot(ASKED).summary()


def test_who_is_refused() -> None:
    assert OFTEN.up == pytest.approx(100 / 120)
    assert OFTEN.nobody(1) == pytest.approx(1 / 6)
    assert OFTEN.nobody(4) == pytest.approx(6**-4)
    asked = replace(ASKED, horizon=2000)
    runs = moot(asked, OFTEN), moot(asked, OFTEN, elsewhere=True), centre(asked, 0.0, OFTEN)
    own, other, one = (run.summary() for run in runs)
    for seen, expected in ((own, 1 / 6), (other, 6**-4), (one, 1 / 6)):
        half = 2 * (seen.refused.high - seen.refused.value)
        assert abs(seen.refused.value - expected) < half
        assert seen.answered.value < 1 - seen.refused.value
    assert own.answered.high < other.answered.low


def test_what_a_failure_takes() -> None:
    """A prompt of 10 s alone on its device is answered if no failure comes within: up · exp(−10/MTTF)."""
    asked = Question(3, 0, 0, (0.002,), (Fixed(10.0),), horizon=400, replications=6)
    failures = Failures(20.0, 5.0)
    expected = 0.8 * math.exp(-0.5)
    for run in (moot(asked, failures), centre(replace(asked, devices=1), 0.0, failures)):
        seen = run.summary()
        assert abs(seen.answered.value - expected) < 2 * (seen.answered.high - seen.answered.value)
        assert seen.latency.value == pytest.approx(10.0, rel=0.05)


def test_a_late_notice_costs_time() -> None:
    quick, late = (moot(ASKED, replace(OFTEN, notice_s=notice)).summary() for notice in (0.0, 60.0))
    assert late.latency.low > quick.latency.high


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: centre(replace(ASKED, quorum=1), 0.0), "without options"),
        (lambda: moot(replace(ASKED, laws=(Fixed(1.0),) * 3 + (Fixed(2.0),))), "equal devices"),
        (lambda: centre(ASKED, -1.0), "round_trip_s is -1.0"),
        (lambda: moot(ASKED, Failures(0.0)), "mttf_s is 0.0"),
        (lambda: moot(ASKED, Failures(1.0, math.nan)), "mttr_s is nan"),
        (lambda: moot(replace(ASKED, proposers=4)), "4 devices have 3 peers"),
    ],
)
def test_what_is_not_compared(call, says: str) -> None:
    with pytest.raises(TheoryError, match=says):
        call()
    with pytest.raises(UnstableQueue):
        centre_latency(replace(ASKED, laws=(Lognormal(2.0, 0.5),)), 1.0)
