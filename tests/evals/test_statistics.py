"""Intervals and tests against published values, against scipy, and against what they promise."""

from __future__ import annotations

import math
from random import Random

import pytest
from scipy import stats

from folkmoot.evals.statistics import difference, holm, least_shown, mcnemar, power, wilson


@pytest.mark.parametrize(
    ("right", "count"), [(0, 10), (1, 29), (10, 10), (81, 263), (15, 148), (5, 7), (400, 800)]
)
def test_wilsons_interval_is_scipys(right: int, count: int):
    ours = wilson(right, count)
    theirs = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    assert ours.value == right / count
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilsons_interval_of_newcombes_table():
    """Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3: 81/263, 15/148, 0/20 and 1/29."""
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}  # fmt: skip
    for (right, count), bounds in published.items():
        found = wilson(right, count)
        assert (round(found.low, 4), round(found.high, 4)) == bounds


def test_of_nothing_nothing_is_known():
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)
    for right, count in ((2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="no share"):
            wilson(right, count)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (1, 0), (5, 0), (0, 6), (15, 4), (59, 6), (47, 5), (30, 30)]
)
def test_mcnemars_test_is_the_exact_binomial_one(first: int, second: int):
    both = first + second
    expected = stats.binomtest(first, both).pvalue if both else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_holms_correction():
    """Holm's own way: the smallest times m, the next times m - 1, and never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_the_difference_is_the_mean_and_its_interval_is_the_seeds():
    rng = Random(1)
    pairs = {f"t{each}": [(float(rng.random() < 0.6), float(rng.random() < 0.4))] for each in range(200)}
    found = difference(pairs, seed=3)
    assert found.value == pytest.approx(sum(a - b for ((a, b),) in pairs.values()) / 200)
    assert found.low < found.value < found.high
    assert found == difference(pairs, seed=3)
    assert difference(pairs, seed=3, resamples=99) != difference(pairs, seed=4, resamples=99)
    # For so many independent prompts it is nearly the normal interval.
    differences = [a - b for ((a, b),) in pairs.values()]
    error = stats.tstd(differences) / math.sqrt(200)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.2 * error)


def test_answers_to_one_prompt_are_no_more_evidence_than_one():
    """Each prompt's pair ten times over: the interval stays as wide as it was."""
    rng = Random(2)
    once = {f"t{each}": [(float(rng.random() < 0.6), 0.5)] for each in range(50)}
    often = {name: pairs * 10 for name, pairs in once.items()}
    one, ten = difference(once), difference(often)
    assert (one.value, one.low, one.high) == pytest.approx((ten.value, ten.low, ten.high))


def test_its_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = Random(5), 0
    for _ in range(200):
        pairs = {str(each): [(float(rng.random() < 0.55), float(rng.random() < 0.45))] for each in range(60)}
        found = difference(pairs, resamples=400)
        covered += found.low <= 0.1 <= found.high
    assert covered >= stats.binom.ppf(1e-4, 200, 0.93)


def test_the_same_answers_differ_by_nothing():
    found = difference({"a": [(1.0, 1.0)], "b": [(0.0, 0.0)], "c": []})
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no pair"):
        difference({"a": []})


@pytest.mark.parametrize(
    ("won", "lost", "prompts"), [(0.3, 0.1, 10), (0.2, 0.05, 60), (0.1, 0.1, 40), (0.0, 0.0, 20)]
)
def test_power_is_what_all_outcomes_come_to(won: float, lost: float, prompts: int):
    chances = [
        math.comb(prompts, a)
        * math.comb(prompts - a, b)
        * won**a
        * lost**b
        * (1 - won - lost) ** (prompts - a - b)
        for a in range(prompts + 1)
        for b in range(prompts + 1 - a)
        if mcnemar(a, b) <= 0.05
    ]
    assert power(won, lost, prompts) == pytest.approx(math.fsum(chances), abs=1e-9)


def test_power_of_many_prompts_is_known():
    assert power(0.06, 0.03, 1_500) > 0.9 > power(0.06, 0.03, 300) > 0.2
    with pytest.raises(ValueError, match="no shares"):
        power(0.9, 0.2, 10)


def test_the_least_difference_that_is_shown():
    least = least_shown(100, 0.05)
    assert power(0.05 + least, 0.05, 100) >= 0.8 > power(0.05 + least - 0.005, 0.05, 100)
    assert math.isnan(least_shown(5, 0.0))
    # Of ten the test shows six and more that all are won by one.
    assert stats.binom.sf(5, 10, least_shown(10, 0.0)) == pytest.approx(0.8, abs=0.005)
