"""Latency: exact cases, the numbers of the inversion, and the mean field against its closed form."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.errors import TheoryError, UnstableQueue
from folkmoot.queueing.moot import Question, mean_service, rho, rho_most, simulate
from folkmoot.queueing.theory import known_error, theory

RING = tuple(((i - 1) % 6, (i + 1) % 6) for i in range(6))
STAR = ((1, 2, 3, 4), (0,), (0,), (0,), (0,))
LAWS: list[Law] = [
    Exponential(2.0),
    Fixed(2.0),
    Lognormal(2.0, 0.5),
    Lognormal(2.0, 1.5),
    Weibull(2.0, 0.8),
    Lognormal(2.0, 3.0),
    Lognormal(2.0, 10.0),
    Weibull(2.0, 0.3),
    Trace(("a",), ((1.0,), (2.0,), (6.0,))),
]


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("load", [0.0, 0.3, 0.7, 0.9])
def test_the_inversion_has_the_mean_of_pollaczek_and_khinchine(law: Law, load: float) -> None:
    moments = q.Moments.of(law)
    rate = load / moments.mean
    grid, error = q.sojourn(rate, law)
    heavy = isinstance(law, Lognormal) and law.cv > 1.5
    assert error < ({3.0: 4e-3, 10.0: 1e-1}[law.cv] if heavy else 1e-4), "a heavy tail is cut somewhere"
    width = 45.0 * (moments.mean + moments.square / moments.mean) / (1 - load)
    mean = float((1.0 - grid).sum() * width / len(grid))
    assert mean == pytest.approx(q.alone(rate, moments), rel=error * (1 + 1e-6) + 1e-12), "the error is told"
    assert grid[-1] == pytest.approx(1.0, abs=1e-3 if heavy else 1e-6)
    assert np.all(np.diff(grid) >= -1e-12)


@given(st.floats(0.05, 0.95), st.floats(0.1, 20.0))
@settings(max_examples=10, deadline=None)
def test_the_sojourn_in_a_markov_queue_is_exponential(load: float, service_s: float) -> None:
    rate, width = load / service_s, 60.0 * service_s / (1 - load)
    grid, _ = q.sojourn(rate, Exponential(service_s), width=width)
    at = np.arange(len(grid)) * width / len(grid)
    assert np.abs(grid - (1 - np.exp(-at * (1 - load) / service_s))).max() < 2e-3


@pytest.mark.parametrize(("layers", "proposers"), [(0, 0), (1, 3), (3, 2)])
@pytest.mark.parametrize("load", [0.2, 0.8])
def test_the_mean_field_meets_its_closed_form(layers: int, proposers: int, load: float) -> None:
    rate = load * q.limit_rate(2.0, layers, proposers)
    found = q.mean_field([rate] * 6, [Exponential(2.0)], layers, proposers)
    assert found.mean == pytest.approx(q.mean_field_exponential(rate, 2.0, layers, proposers), rel=2e-3)
    assert found.grid_error < 1e-3
    alike = q.mean_field([rate] * 6, [Exponential(2.0)] * 6, layers, proposers)
    assert alike.mean == pytest.approx(found.mean)


def test_alone_is_exact_for_any_law() -> None:
    for law in LAWS:
        moments = q.Moments.of(law)
        for load in (0.6, 0.9):
            rate = load / moments.mean
            found = q.mean_field([rate], [law], 0, 0)
            assert found.mean == pytest.approx(q.alone(rate, moments), rel=1e-12)
            assert found.grid_error == 0.0
    rates, laws = [0.1, 0.4, 0.2], [Lognormal(1.0, 10.0), Fixed(2.0), Exponential(3.0)]
    each = [q.alone(rate, q.Moments.of(law)) for rate, law in zip(rates, laws, strict=True)]
    expected = float(np.average(each, weights=rates))
    figure = theory(Question(3, 0, 0, tuple(rates), tuple(laws))).latency
    assert figure is not None
    assert (figure.value, figure.tag, figure.error) == (pytest.approx(expected), "E", (0.0, 0.0))


def test_refining_alone_is_exact_on_any_devices() -> None:
    rates, means = (0.1, 0.05, 0.02), (1.0, 2.0, 0.5)
    laws = tuple(map(Exponential, means))
    each = [q.refining_alone(rate, mean, 2, 0.5) for rate, mean in zip(rates, means, strict=True)]
    found = theory(Question(3, 2, 0, rates, laws, skip_aggregation=0.5)).latency
    assert found is not None
    assert (found.value, found.tag) == (pytest.approx(float(np.average(each, weights=rates)), rel=1e-12), "E")
    two = theory(Question(2, 1, 1, (0.2,), (Exponential(1.0),), skip_aggregation=1.0)).latency
    assert two is not None
    assert (two.value, two.tag) == (q.layer_of_two(0.2, 1.0), "E")


@pytest.mark.parametrize("count", [20, 5000])
def test_many_devices_that_differ_are_bounded_work(count: int) -> None:
    began = time.process_time()
    question = Question(
        count, 2, 7, tuple(0.01 + 1e-6 * device for device in range(count)), (Exponential(1.0),)
    )
    found = theory(question)
    assert time.process_time() - began < 20, "it took hours"
    assert (found.latency is None) == (count > 20)
    assert found.stable
    if count > 20:
        assert "too many for the mean field" in found.no_latency


def test_a_device_that_takes_no_time() -> None:
    nothing = theory(Question(4, 1, 3, (1.0,), (Fixed(0.0),)))
    assert nothing.latency is not None
    assert (nothing.latency.value, nothing.latency.tag, nothing.load) == (0.0, "E", 0.0)
    some = q.mean_field([0.1] * 4, [Fixed(0.0), *[Exponential(1.0)] * 3], 1, 3)
    three = q.harmonic(3) / (1 - 0.5)
    assert some.layer == pytest.approx(three, rel=1e-3), "the largest of three others"
    assert some.aggregation == pytest.approx(0.75 * 2.0)
    assert simulate(Question(4, 1, 3, (1.0,), (Fixed(0.0),), horizon=50, replications=2)).latency.value == 0.0


def test_unequal_devices_lie_between_their_extremes() -> None:
    rates = [0.02] * 6
    mixed = q.mean_field(rates, [Exponential(1.0), Exponential(3.0)] * 3, 1, 2)
    fast, slow = (q.mean_field(rates, [Exponential(mean)], 1, 2).mean for mean in (1.0, 3.0))
    assert fast < mixed.mean < slow


def test_the_largest_of_a_random_pair() -> None:
    """Three devices, k = 1: the layer of each origin is the larger of its own and one of two others'."""
    laws = [Fixed(1.0), Fixed(2.0), Fixed(4.0)]
    found = q.mean_field([1e-9] * 3, laws, 1, 1)
    assert found.layer == pytest.approx(((2 + 4) / 2 + (2 + 4) / 2 + 4) / 3, rel=1e-3)
    assert found.aggregation == pytest.approx(7 / 3, rel=1e-3)


def test_a_graph_that_is_complete_changes_nothing() -> None:
    laws: list[Law] = [Exponential(1.0), Fixed(2.0), Exponential(1.0), Lognormal(1.5, 0.5)]
    rates = [0.03, 0.02, 0.05, 0.01]
    complete = [[j for j in range(4) if j != i] for i in range(4)]
    for proposers in range(4):
        plain = q.mean_field(rates, laws, 2, proposers, points=1 << 13)
        assert q.mean_field(rates, laws, 2, proposers, graph=complete, points=1 << 13).mean == pytest.approx(
            plain.mean, rel=1e-12
        )


def test_the_layers_of_a_star_at_rest() -> None:
    """Device 0 asks two of the three others, each of which can ask only it, however many it wants."""
    laws = [Fixed(4.0), Fixed(1.0), Fixed(2.0), Fixed(6.0)]
    found = q.mean_field([1e-9] * 4, laws, 1, 2, graph=[[1, 2, 3], [0], [0], [0]])
    assert found.layer == pytest.approx(((4 + 6 + 6) / 3 + 4 + 4 + 6) / 4, rel=1e-3)


def test_aggregations_that_are_skipped() -> None:
    found = q.mean_field([0.1] * 4, [Exponential(1.0)], 1, 3, skip_aggregation=0.25)
    assert found.mean == pytest.approx((q.harmonic(4) + 0.75) / (1 - 0.475), rel=2e-3)
    with pytest.raises(TheoryError, match="with 0 layers"):
        q.mean_field([0.1], [Exponential(1.0)], 0, 0, skip_aggregation=0.5)


@pytest.mark.parametrize(
    ("asked", "exponential"),
    [
        (Question(6, 2, 2, (0.1,), (Exponential(1.0),), graph=RING), True),
        (Question(6, 2, 2, (0.1,), (Fixed(1.0),), graph=RING), False),
        (Question(5, 1, 2, (0.12,), (Lognormal(1.0, 0.5),), graph=STAR), False),
        (Question(4, 1, 3, (0.15,), (Exponential(1.0),), skip_aggregation=1.0), True),
    ],
)
def test_the_error_is_the_stated_one(asked: Question, exponential: bool) -> None:
    found = simulate(replace(asked, horizon=4000, replications=6)).latency
    field = theory(asked).latency
    assert field is not None
    assert field.error == q.MEAN_FIELD_ERROR[exponential]
    low, high = field.error
    assert found.low * (1 + low) <= field.value <= found.high * (1 + high)


def test_where_the_error_is_not_known() -> None:
    """Peers that are all asked at once, with little else to do, have sojourns that are alike: far from independent ones."""
    usual = Question(8, 1, 7, (0.1,), (Fixed(1.0),))
    everybody = tuple(tuple(peer for peer in range(8) if peer != device) for device in range(8))
    ring = tuple(((device - 1) % 30, (device + 1) % 30) for device in range(30))
    assert known_error(usual) == q.MEAN_FIELD_ERROR[False]
    for asked, exponential in (
        (replace(usual, skip_aggregation=0.5), True),
        (replace(usual, skip_aggregation=0.5, devices=30), False),
        (replace(usual, graph=everybody), False),
        (replace(usual, graph=everybody, proposers=3, skip_aggregation=0.5), False),
        (replace(usual, graph=ring, devices=30), False),
    ):
        assert known_error(asked) is None
        wanted = q.MEAN_FIELD_ERROR[True] if exponential else None
        assert known_error(replace(asked, laws=(Exponential(1.0),))) == wanted
    locked = replace(usual, rates_hz=(0.05,), skip_aggregation=1.0, horizon=4000, replications=4)
    field = theory(locked).latency
    assert field is not None
    assert field.value > 1.3 * simulate(locked).latency.high


def test_what_a_quorum_leaves_unknown() -> None:
    asked = Question(6, 2, 3, (0.1,), (Exponential(1.0),), quorum=2)
    assert rho(asked) == pytest.approx([0.5] * 6)
    assert rho(replace(asked, skip_aggregation=0.5)) == pytest.approx([0.45] * 6)
    assert rho(replace(asked, quorum=4)) == pytest.approx([0.9] * 6)
    for other in (
        replace(asked, laws=(Lognormal(1.0, 0.5),)),
        replace(asked, laws=(Exponential(1.0), Exponential(2.0)) * 3, rates_hz=(0.05,)),
        replace(asked, graph=RING, proposers=2),
        replace(asked, rates_hz=(0.1,) * 5 + (0.2,), proposers=1, quorum=1),
    ):
        assert np.isnan(rho(other)).all()
        assert np.isfinite(rho_most(other)).all()
        assert theory(other).latency is None
        seen = simulate(replace(other, horizon=2000, replications=2))
        assert math.isnan(seen.limit_rate)
        assert all(
            one.utilisation < 1.05 * most for one, most in zip(seen.per_device, seen.rho_most, strict=True)
        )


def test_other_exact_cases() -> None:
    assert q.refining_alone(0.1, 1.0, 2) == pytest.approx(3.0 / 0.7)
    assert q.refining_alone(0.1, 1.0, 2, 0.5) == pytest.approx(2.5 / 0.75)
    with pytest.raises(TheoryError, match="skip_aggregation"):
        q.refining_alone(0.1, 1.0, 0, 0.5)
    assert q.refining_alone(0.1, 1.0, 0) == pytest.approx(q.alone(0.1, q.Moments(1.0, 2.0)))
    assert q.layer_of_two(1e-12, 2.0) == pytest.approx(3.0), "an empty queue: the larger of two exponentials"
    assert q.answer_age(0.5, 1.0) == pytest.approx(1 + 2 + 0.5)
    assert q.join_buffer(0.1, 1.0, 1, 0) == 0.0
    assert q.join_buffer(0.05, 1.0, 1, 3) == pytest.approx(0.05 * 4 * (1 / 2 + 1 / 3 + 1 / 4) / 0.75)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_moments_follow_the_law(law: Law) -> None:
    moments = q.Moments.of(law)
    assert moments.mean == pytest.approx(law.mean, rel=2e-3)
    match law:
        case Lognormal(mean, cv):
            variance = (mean * cv) ** 2
        case Weibull(mean, shape):
            scale = mean / math.gamma(1 + 1 / shape)
            variance = scale**2 * math.gamma(1 + 2 / shape) - mean**2
        case _:
            variance = {0: 4.0, 1: 0.0, 8: 14 / 3}[LAWS.index(law)]
    assert moments.square - moments.mean**2 == pytest.approx(variance, rel=0.03, abs=1e-9)


def test_beyond_the_limit_there_is_no_mean() -> None:
    for call in (
        lambda: q.mean_field([1.0] * 4, [Exponential(1.0)], 1, 3),
        lambda: q.mean_field_exponential(1.0, 1.0, 0, 0),
        lambda: q.refining_alone(1.0, 1.0, 1),
        lambda: q.layer_of_two(0.5, 1.0),
        lambda: q.answer_age(2.0, 1.0),
        lambda: q.join_buffer(1.0, 1.0, 1, 1),
        lambda: q.alone(1.0, q.Moments(1.0, 1.0)),
    ):
        with pytest.raises(UnstableQueue, match="lower the rate, M or k"):
            call()
    with pytest.raises(TheoryError, match="2 service laws for 3 devices"):
        q.mean_field([0.01] * 3, [Fixed(1.0)] * 2, 1, 1)


@pytest.mark.parametrize(
    "law", [Lognormal(1.0, 1e200), Weibull(1.0, 1e-5), Exponential(1e308), Trace(("a",), ()), Trace((), ())]
)
def test_a_law_without_moments_is_refused(law: Law) -> None:
    for call in (
        lambda: q.Moments.of(law),
        lambda: q.sojourn(0.1, law),
        lambda: simulate(Question(2, 1, 1, (1.0,), (law,), horizon=10, replications=1)),
    ):
        with pytest.raises(TheoryError):
            call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: q.mean_field([0.0], [Fixed(1.0)], 0, 0), "all 0"),
        (lambda: q.mean_field([], [Fixed(1.0)], 0, 0), "devices is 0"),
        (lambda: q.sojourn(0.1, Fixed(1.0), points=0), "points is 0"),
        (lambda: q.Moments(-1.0, 1.0), "mean is -1.0"),
        (lambda: q.Moments(1.0, math.nan), "square is nan"),
        (lambda: q.Moments(2.0, 1.0), "square is 1.0"),
        (lambda: simulate(Question(2, 0, 0, (1.0,), ())), "0 service laws"),
        (lambda: simulate(Question(2, 0, 0, (1.0,), (Fixed(1.0),), prompts=-1)), "prompts is -1"),
        (lambda: simulate(Question(2, 0, 0, (1.0,), (Fixed(1.0),), seed=-1)), "seed is -1"),
        (lambda: simulate(Question(2, 0, 0, (1.0,), (Fixed(1.0),), horizon=1e-300)), "horizon in seconds"),
    ],
)
def test_what_cannot_be_asked_is_a_typed_error(call, says: str) -> None:
    with pytest.raises(TheoryError, match=says):
        call()


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"proposers": 31, "devices": 32, "rates_hz": (0.9 / 33,)}, False),
        ({"proposers": 8, "rates_hz": (0.01,)}, False),
        ({"layers": 4, "rates_hz": (0.01,)}, False),
        ({"rates_hz": (0.92 / 3,)}, False),
        ({"laws": (Lognormal(1.0, 0.5),)}, True),
        ({"laws": (Lognormal(1.0, 1.5),)}, False),
        ({"laws": (Weibull(1.0, 2.0),)}, False),
        ({"laws": (Fixed(1.0), *[Exponential(1.0)] * 19)}, False),
        ({"rates_hz": (0.1, *[0.05] * 19)}, False),
        ({"laws": (Trace(("a", "b"), ((1.0, 1.2), (2.0, 2.2))),)}, True),
        ({"laws": (Trace(("a", "b"), ((1.0, 12.0), (2.0, 22.0))),), "rates_hz": (0.01,)}, False),
    ],
)
def test_an_error_is_stated_only_where_it_was_seen(change, known: bool) -> None:
    asked = replace(Question(20, 1, 1, (0.1,), (Fixed(1.0),)), **change)
    found = theory(asked).latency
    assert found is not None
    assert (found.tag, found.error is not None) == ("A", known)


@pytest.mark.parametrize(
    "policy", [{"discipline": "lsf"}, {"admit": 3}, {"best_of": 4}, {"prompts": 3}, {"quorum": 1}]
)
def test_a_policy_has_no_latency_and_surely_no_exact_one(policy) -> None:
    for proposers in (0, 2):
        asked = Question(4, 1, proposers, (0.1,), (Exponential(1.0),))
        if proposers or not {"quorum", "best_of"} & policy.keys():  # these change nothing for k = 0
            assert theory(replace(asked, **policy)).latency is None


def test_bounded_is_exact_only_where_nobody_asks() -> None:
    for layers, proposers, rate, tag in (
        (0, 0, 0.5, "E"),
        (2, 0, 0.1, "E"),
        (1, 2, 0.1, "C"),
        (1, 2, 0.5, "E"),
    ):
        found = theory(Question(4, layers, proposers, (rate,), (Fixed(1.0),)))
        assert found.stable_tag == tag


def test_the_mean_service_is_that_of_the_devices_there_are() -> None:
    trace = Trace(("a", "b", "c"), ((1.0, 2.0, 60.0), (3.0, 4.0, 70.0)))
    assert mean_service(Question(2, 0, 0, (0.1,), (trace,))) == pytest.approx(2.5)
    assert mean_service(Question(4, 0, 0, (0.1,), (trace,))) == pytest.approx((2 + 3 + 65 + 2) / 4)
    assert mean_service(Question(2, 0, 0, (0.1,), (Fixed(1.0), trace))) == pytest.approx(2.0)


def test_several_slots_are_erlang_s() -> None:
    """One slot is M/M/1, two are α/(1 − ρ²), and the sum of the docstring for five."""
    assert q.several_slots_alone(0.35, 2.0, 1) == pytest.approx(q.alone(0.35, q.Moments(2.0, 8.0)))
    assert q.several_slots_alone(0.7, 2.0, 2) == pytest.approx(2.0 / (1.0 - 0.7**2))
    load, slots = 4.0, 5
    below = math.fsum(load**i / math.factorial(i) for i in range(slots))
    waits = 1.0 / (1.0 + (1.0 - load / slots) * math.factorial(slots) / load**slots * below)
    assert q.several_slots_alone(8.0, 0.5, slots) == pytest.approx(0.5 + waits * 0.5 / (slots - load))
    assert q.several_slots_alone(0.0, 0.5, 3) == 0.5
    with pytest.raises(UnstableQueue):
        q.several_slots_alone(2.0, 1.0, 2)
    with pytest.raises(TheoryError, match="slots is 0"):
        q.several_slots_alone(2.0, 1.0, 0)
