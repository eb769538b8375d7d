"""Intervals and tests for paired answers: plain, seeded, from the standard library alone.

Sources: Wilson, JASA 22 (1927) 209; Efron & Tibshirani, An Introduction to the Bootstrap (1993), 13.3; McNemar,
Psychometrika 12 (1947) 153, in its exact form; Holm, Scandinavian Journal of Statistics 6 (1979) 65.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

LEVEL = 0.95
RESAMPLES = 10_000
_NEVER = 1e-12
"""Of a chance below this nothing is seen in a sum of a thousand."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and where the true value lies with the chosen confidence."""

    value: float
    low: float
    high: float


def known(value: float) -> float | None:
    """A figure as JSON has it: null where it was not measured."""
    return None if math.isnan(value) else value


def wilson(right: int, count: int, level: float = LEVEL) -> Interval:
    """A share and its Wilson score interval; of nothing it is 0 to 1. Raises ValueError unless 0 <= right <= count."""
    if not 0 <= right <= count:
        raise ValueError(f"{right} of {count} is no share")
    if count == 0:
        return Interval(math.nan, 0.0, 1.0)
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    share = right / count
    middle = share + z2 / (2 * count)
    reach = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    whole = 1 + z2 / count
    low = 0.0 if right == 0 else (middle - reach) / whole
    return Interval(share, low, 1.0 if right == count else (middle + reach) / whole)


def difference(
    pairs: Mapping[str, Sequence[tuple[float, float]]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Mean of the first less the second of each pair, with its percentile bootstrap interval.

    `pairs` holds those of each prompt: prompts are drawn again as wholes, as answers to the same prompt hang together.
    The same seed gives the same interval. Raises ValueError where there is no pair.
    """
    clusters = [(sum(a - b for a, b in each), len(each)) for each in pairs.values() if each]
    if not clusters:
        raise ValueError("no pair: nothing can be compared")
    rng, means = Random(seed), list[float]()
    for _ in range(resamples):
        drawn = rng.choices(clusters, k=len(clusters))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    value = sum(total for total, _ in clusters) / sum(count for _, count in clusters)
    return Interval(value, _quantile(means, (1 - level) / 2), _quantile(means, (1 + level) / 2))


def _quantile(rising: Sequence[float], share: float) -> float:
    """Between two values in proportion, as numpy does by default."""
    place = share * (len(rising) - 1)
    below = math.floor(place)
    above = min(below + 1, len(rising) - 1)
    return rising[below] + (place - below) * (rising[above] - rising[below])


def mcnemar(first: int, second: int) -> float:
    """Two-sided exact p that `first` prompts are right only here and `second` only there, by chance alone."""
    few, many = sorted((first, second))
    both = few + many
    tail: int = sum(math.comb(both, each) for each in range(few + 1))
    return min(1.0, float(2 * tail / 2**both))


def power(won: float, lost: float, prompts: int, level: float = 1 - LEVEL) -> float:
    """How often so many prompts show by McNemar's test that two arms differ, where one alone is right in a share `won`, the other in `lost`.

    Raises ValueError where these are no shares.
    """
    apart = won + lost
    if min(won, lost) < 0 or apart > 1:
        raise ValueError(f"{won} and {lost} are no shares of prompts")
    found = 0.0
    for differ in range(1, prompts + 1):
        chance = _binomial(prompts, differ, apart)
        if chance > _NEVER:
            few = -1  # so many at most on one side are shown
            while few + 1 <= differ // 2 and mcnemar(few + 1, differ - few - 1) <= level:
                few += 1
            shown = [each for each in range(differ + 1) if min(each, differ - each) <= few]
            found += chance * sum(_binomial(differ, each, won / apart) for each in shown)
    return found


def least_shown(prompts: int, lost: float, *, enough: float = 0.8) -> float:
    """The least difference, as a share, that so many prompts show in `enough` of all tries where one arm alone is right in a share `lost`
    and the other in so much more; nan where none is shown. Within 0.001."""
    low, high = 0.0, 1.0 - 2 * lost
    if high <= 0 or power(lost + high, lost, prompts) < enough:
        return math.nan
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (low, middle) if power(lost + middle, lost, prompts) >= enough else (middle, high)
    return high


def _binomial(count: int, some: int, share: float) -> float:
    """The chance of `some` of `count`, each with the chance `share`; by logarithms, as the numbers are too large from some 1,000 on."""
    if share in (0.0, 1.0):
        return float(some == share * count)
    ways = math.lgamma(count + 1) - math.lgamma(some + 1) - math.lgamma(count - some + 1)
    return math.exp(ways + some * math.log(share) + (count - some) * math.log1p(-share))


def holm(chances: Sequence[float]) -> list[float]:
    """Each p corrected for there being so many, in their order: at most the chosen level of all families then errs."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    found, most = [0.0] * len(chances), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, chances[place] * (len(chances) - rank)))
        found[place] = most
    return found
