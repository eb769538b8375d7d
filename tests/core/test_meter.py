"""What a device measures of itself."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Stage, Usage
from folkmoot.core.meter import Decayed, Meter, MeterConfig, drained, stage_s

ANN, BOB = DeviceId("ann"), DeviceId("bob")


def served(meter: Meter, *seconds: float, now: float = 0.0) -> Meter:
    for each in seconds:
        meter.served(Stage.PROPOSE, Usage(inference_s=each), now)
    return meter


def test_the_first_jobs_count_alike_then_the_latest_most() -> None:
    meter = served(Meter(MeterConfig(gain=0.25)), 1.0, 2.0, 3.0, 2.0)
    assert meter.service_s == 2.0
    assert served(meter, 6.0).service_s == 3.0


def test_one_outlier_is_cut_and_a_second_in_a_row_believed() -> None:
    cut = served(Meter(MeterConfig()), *[1.0] * 100, 500.0).service_s
    assert cut == pytest.approx(1.0 + 0.05 * 7.0)
    assert served(served(Meter(MeterConfig()), *[1.0] * 100), 500.0, 500.0).service_s > 20.0


@pytest.mark.parametrize(("share", "times"), [(0.05, 20.0), (0.05, 60.0), (0.02, 60.0)])
def test_long_jobs_that_come_again_belong_to_the_mean(share: float, times: float) -> None:
    rng = Random(1)
    meter, means, took = Meter(MeterConfig()), 0.0, 0.0
    for number in range(40_000):
        seconds = rng.expovariate(1.0 / times if rng.random() < share else 1.0)
        served(meter, seconds)
        if number >= 200:
            means, took = means + meter.service_s, took + seconds
    assert means / took == pytest.approx(1.0, abs=0.06)


def test_what_was_cut_of_one_hiccup_is_not_made_up_for_by_a_small_one() -> None:
    meter = served(Meter(MeterConfig()), *[1.0] * 200, 500.0, *[1.0] * 150, 9.0)
    assert meter.service_s < 1.5


def test_a_change_is_followed_and_the_mean_is_not_biased() -> None:
    """Exponential services: the mean over many is right within the 1 % that cutting costs at most."""
    rng = Random(1)
    meter, means = Meter(MeterConfig()), []
    for _ in range(40_000):
        served(meter, rng.expovariate(1.0))
        means.append(meter.service_s)
    assert sum(means[100:]) / len(means[100:]) == pytest.approx(1.0, abs=0.02)
    served(meter, *[5.0] * 60)
    assert meter.service_s == pytest.approx(5.0, rel=0.06)


def test_debt_is_the_queue_of_a_slower_device() -> None:
    meter = served(Meter(MeterConfig(slack=0.05)), 2.0)
    for _ in range(3):
        meter.joined(Stage.PROPOSE, 1, 0.0)
    assert meter.debt(0.0) == 3.0
    assert meter.debt(2.0) == pytest.approx(3.0 - 0.95)
    meter.gone(2.0)
    assert meter.debt(2.0) == pytest.approx(2.0 - 0.95)
    assert meter.debt(100.0) == 0.0
    assert Meter(MeterConfig()).debt(5.0) == 0.0


def test_debt_drains_by_all_slots_and_an_excess_makes_none() -> None:
    meter = served(Meter(MeterConfig(slack=0.0), slots=3), 1.0)
    for _ in range(6):
        meter.joined(Stage.PROPOSE, 1, 0.0)
    meter.joined(Stage.REFINE, 2, 0.0, excess=True)
    assert meter.debt(1.0) == 3.0


@given(st.floats(0.05, 0.9), st.integers(1, 4))
def test_loads_are_what_comes(rho: float, slots: int) -> None:
    """Jobs at an even pace, every second one of a later layer."""
    meter = served(Meter(MeterConfig(), slots=slots), 2.0)
    gap = 2.0 / slots / rho
    now = 0.0
    for number in range(int(1_000 / gap)):
        now = number * gap
        meter.joined((Stage.PROPOSE, Stage.REFINE)[number % 2], 1 + number % 2, now)
    assert meter.load(now) == pytest.approx(rho, rel=0.01 + gap / 100.0)
    assert meter.late_load(now) == pytest.approx(rho / 2, rel=0.02 + gap / 50.0)


def test_stages_have_means_of_their_own() -> None:
    """A later stage reads more: its work counts for what it costs, also where the mix of stages changes."""
    meter = Meter(MeterConfig())
    for number in range(200):
        meter.joined(Stage.PROPOSE, 1, 4.0 * number)
        meter.served(Stage.PROPOSE, Usage(100, 60, 40, 1.0, 0.2), 4.0 * number)
    assert meter.load(800.0) == pytest.approx(0.25, abs=0.03)
    for number in range(200):
        meter.joined(Stage.AGGREGATE, 2, 800.0 + 4.0 * number)
        meter.served(Stage.AGGREGATE, Usage(900, 500, 80, 3.0, 1.0), 800.0 + 4.0 * number)
    propose, aggregate = meter.stages(1_600.0)
    assert (propose.stage, propose.jobs, propose.service_s) == (Stage.PROPOSE, 200, pytest.approx(1.0))
    assert (aggregate.tokens_in, aggregate.tokens_cached, aggregate.tokens_out) == (900.0, 500.0, 80.0)
    assert (propose.tokens_in, propose.tokens_cached, propose.tokens_out) == (100.0, 60.0, 40.0)
    assert aggregate.service_s == pytest.approx(3.0)
    assert meter.each_stage_s == (propose.service_s, 0.0, aggregate.service_s)
    assert [stage_s(meter.each_stage_s, stage) for stage in (Stage.PROPOSE, Stage.REFINE)] == [
        propose.service_s,
        0.0,
    ]
    assert stage_s((), Stage.REFINE) == 0.0
    assert aggregate.rate_hz == pytest.approx(0.25, rel=0.05)
    assert propose.rate_hz < 0.01
    assert meter.load(1_600.0) == pytest.approx(0.75, rel=0.05)
    assert meter.late_load(1_600.0) == pytest.approx(0.75, rel=0.05)


def test_what_may_write_less_takes_as_long_to_read_and_less_to_write() -> None:
    meter = Meter(MeterConfig())
    for number in range(100):
        meter.served(Stage.PROPOSE, Usage(100, 60, 40, 1.0, 0.2), float(number))
        meter.served(Stage.REFINE, Usage(100, 60, 40, 1.0), float(number))
    assert meter.stages_within_s(10) == pytest.approx((0.2 + 0.8 / 4, 1.0, 0.0)), (
        "when REFINE's first word came is not known"
    )
    for most in (40, 1_024):
        assert meter.stages_within_s(most) == pytest.approx(meter.each_stage_s)
    assert Meter(MeterConfig()).stages_within_s(1) == (0.0, 0.0, 0.0)


def test_what_was_cut_is_not_forgotten() -> None:
    """Exponential services of 2.5 s, none served for longer than 2: those that end by themselves are 0.9 s long."""
    own, others, without = (Meter(MeterConfig(gain=0.01)) for _ in range(3))
    rng = Random(1)
    for _ in range(2_000):
        took = rng.expovariate(1 / 2.5)
        for meter in (own, others, without):
            if took <= 2.0:
                meter.served(Stage.AGGREGATE, Usage(inference_s=took), 0.0)
            elif meter is not without:
                meter.cut(Stage.AGGREGATE, 2.0, own=meter is own)
    found = [stage_s(meter.each_stage_s, Stage.AGGREGATE) for meter in (own, others, without)]
    assert found[0] == pytest.approx(2.5, rel=0.2)
    assert found[1] == pytest.approx(1.3, rel=0.2)
    assert found[2] == pytest.approx(0.9, rel=0.2)


def test_nobody_makes_a_stage_seem_slow_by_taking_jobs_back() -> None:
    meter = served(Meter(MeterConfig()), 2.0)
    for _ in range(1_000):
        meter.cut(Stage.PROPOSE, 1.9, own=False)
    assert meter.each_stage_s == (2.0, 0.0, 0.0)


def test_a_stage_without_jobs_counts_as_the_mean_of_all() -> None:
    meter = served(Meter(MeterConfig()), 2.0)
    meter.joined(Stage.REFINE, 2, 0.0)
    assert meter.late_load(0.0) == pytest.approx(1.0 / 50.0)


def test_nothing_is_known_before_the_first_job() -> None:
    meter = Meter(MeterConfig())
    meter.joined(Stage.PROPOSE, 1, 3.0)
    assert (meter.load(4.0), meter.late_load(4.0), meter.debt(9.0)) == (0.0, 0.0, 1.0)
    assert Decayed().rate(1.0, 0.0) == 0.0


def test_a_device_may_ask_for_its_share_and_a_burst() -> None:
    meter = served(Meter(MeterConfig(share=2.0, burst=3.0, slack=0.0)), 1.0)
    assert [meter.take(ANN, 4, 0, 0.0) for _ in range(4)] == [1.0, 1.0, 1.0, None]
    assert meter.take(BOB, 4, 0, 0.0) == 1.0
    assert meter.take(ANN, 4, 0, 2.0) == 1.0  # half of the device's time is its
    assert meter.take(ANN, 4, 0, 2.0) is None


def test_who_has_paid_back_leaves_no_trace() -> None:
    meter = served(Meter(MeterConfig(share=2.0, burst=3.0, slack=0.0)), 1.0)
    for number in range(1_000):
        meter.take(DeviceId(f"d{number}"), 4, 0, float(number))
    assert len(meter._shares) <= 256
    assert meter.take(DeviceId("d999"), 4, 0, 999.0) == 1.0


def test_a_share_pays_for_what_a_job_took() -> None:
    meter = served(Meter(MeterConfig(share=2.0, burst=3.0, slack=0.0)), 1.0)
    assert meter.take(ANN, 4, 0, 0.0) == 1.0
    meter.settle(ANN, 4.0, 4, 0.0)
    assert meter.take(ANN, 4, 0, 5.9) is None  # half of the device's time gives 5 s back in 10
    assert meter.take(ANN, 4, 0, 6.0) == 1.0
    meter.settle(ANN, -1.0, 4, 6.0)
    assert [meter.take(ANN, 4, 0, 6.0) for _ in range(2)] == [1.0, None]


def test_before_a_first_job_was_served_those_that_wait_count() -> None:
    """And a first one that happens to be short condemns nobody for long: shares are kept in seconds."""
    meter = Meter(MeterConfig(share=2.0, burst=3.0, slack=0.0))
    assert [meter.take(ANN, 4, waiting, 0.0) for waiting in range(4)] == [0.0, 0.0, 0.0, None]
    served(meter, 0.001)
    meter.settle(ANN, 1.0, 4, 1.0)
    assert meter.take(ANN, 4, 0, 1.0) is None
    assert meter.take(ANN, 4, 0, 3.0) == 0.001


def test_without_a_share_there_is_no_limit() -> None:
    meter = Meter(MeterConfig())
    assert all(meter.take(ANN, 4, 0, 0.0) == 0.0 for _ in range(1_000))


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_a_debt_never_falls_below_nothing(debt: float, seconds: float, drain: float) -> None:
    assert 0.0 <= drained(debt, seconds, drain) <= debt
