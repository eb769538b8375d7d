"""From replications to intervals and verdicts. Every interval is over independent replications, never over prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

Values = Sequence[float] | npt.NDArray[np.float64] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over replications with its two-sided bounds; NaN where there is only one replication, or none."""

    value: float
    low: float
    high: float

    def covers(self, value: float) -> bool:
        """Whether the interval holds a value."""
        return self.low <= value <= self.high


def interval(values: Values, confidence: float = 0.95) -> Interval:
    """The mean of independent replications and Student's interval. Needs two finite values for bounds."""
    found = np.array([value for value in values if math.isfinite(value)])
    if not found.size:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(found.mean())
    if found.size < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(
        student.ppf(0.5 + confidence / 2, found.size - 1) * found.std(ddof=1) / math.sqrt(found.size)
    )
    return Interval(mean, mean - half, mean + half)


def mser5(values: Values) -> int:
    """How many of the first values of a run to leave out, by MSER-5: a check on the warm-up, never a choice of it.

    Of the means of each five values, the cut d that makes Σ_{i > d} (y_i − mean)²/(n − d)² least, in the first half.
    0 for fewer than ten values. Source: White, "An effective truncation heuristic", 1997; Spratt, 1998.
    """
    batches = np.asarray(values, dtype=float)
    batches = batches[: batches.size // 5 * 5].reshape(-1, 5).mean(axis=1)
    if batches.size < 2:
        return 0
    batches = batches - batches.mean()  # so that no digits are lost below
    left = np.arange(batches.size, 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    spread = (squares - sums**2 / left) / left.astype(float) ** 2
    return 5 * int(np.argmin(spread[: batches.size // 2]))


def verdict(drifts: Values, overload_drift: float) -> str:
    """`stable`, `unstable` or `undecided`, from the slopes of the number waiting per device, one a replication.

    Unstable where the lower 95 % bound lies above 0, stable where the upper one lies below the fluid slope of an
    overload by 1 % (`overload_drift`). At ρ = 1 neither can be said.
    """
    slope = interval(drifts)
    if slope.low > 0.0:
        return "unstable"
    return "stable" if slope.high < overload_drift else "undecided"


def slope(values: Values, width: float) -> float:
    """Least-squares slope of equally spaced values over a span of `width`."""
    at = np.linspace(0.0, width, len(values))
    return float(np.polyfit(at, np.asarray(values, dtype=float), 1)[0])
