"""From replications to intervals and verdicts. Every interval is over independent replications, never over prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

Floats = npt.NDArray[np.float64]
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


def verdict(drifts: Values, overload_drift: float, devices: Floats, overloads: Floats) -> str:
    """`stable`, `unstable` or `undecided`, from the slopes of the number waiting, one a replication.

    `drifts` are those of the mean over devices, shape (replications,), `devices` those of each, shape (replications, n);
    `overload_drift` and `overloads` (n,) are the fluid slopes of an overload by 1 %. Unstable where the lower 95 % bound
    of the mean lies above 0, or that of any device (`growing`). Stable where all upper 95 % bounds lie below the
    overload's: that each of them must is itself what guards against one that does not, so that no correction is
    needed. At ρ = 1 neither can be said.
    """
    slope = interval(drifts)
    if slope.low > 0.0 or growing(devices).any():
        return "unstable"
    calm = slope.high < overload_drift and np.all(_bounds(devices, 0.95)[1] < overloads)
    return "stable" if calm else "undecided"


def growing(devices: Floats) -> npt.NDArray[np.bool_]:
    """Whose number waiting grows, shape (n,), by slopes of shape (replications, n): the lower bound lies above 0.

    The bounds are Student's over the replications and 95 % sure of all devices together (Bonferroni). Nobody for one
    device, which is the mean, and nobody for one replication.
    """
    count = devices.shape[1]
    if count < 2:
        return np.zeros(count, np.bool_)
    return np.asarray(_bounds(devices, 1.0 - 0.05 / count)[0] > 0.0)


def _bounds(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Student's bounds of each column over its rows, infinite for one row."""
    runs = len(values)
    mean = values.mean(axis=0)
    if runs < 2:
        return np.full_like(mean, -math.inf), np.full_like(mean, math.inf)
    squares = np.zeros_like(mean)
    for row in values:  # row by row, as a million devices take much memory
        squares += (row - mean) ** 2
    half = student.ppf(0.5 + confidence / 2, runs - 1) * np.sqrt(squares / (runs - 1) / runs)
    return mean - half, mean + half


def slope(values: Values, width: float) -> float:
    """Least-squares slope of equally spaced values, two at least, over a span of `width`."""
    count = len(values)
    at = np.arange(count) - (count - 1) / 2
    step = width / (count - 1)
    return float(at @ np.asarray(values, dtype=float)) * 12.0 / (count * (count**2 - 1.0)) / step
