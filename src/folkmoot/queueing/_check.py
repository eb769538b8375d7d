"""What the closed forms of this room ask of their arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from folkmoot.errors import TheoryError, UnstableQueue

Floats = npt.NDArray[np.float64]
MOST = 1 << 53
"""Largest whole number that is taken where no other bound is named: beyond it a float skips some."""


def number(
    name: str, value: float, *, least: float = 0.0, most: float = math.inf, above: bool = False
) -> float:
    """`value`, if it is a finite number in its range. Raises `TheoryError`."""
    if not _finite(value) or value < least or value > most or (above and value == least):
        low = f"more than {least:g}" if above else f"{least:g} or more"
        high = "" if math.isinf(most) else f", at most {most:g}"
        raise TheoryError(f"{name} is {_plain(value)!r}; it must be {low}{high}")
    return float(value)


def whole(name: str, value: int, *, least: int = 0, most: int | None = None) -> int:
    """`value`, if it is a whole number in its range, at most `MOST` without `most`. Raises `TheoryError`."""
    known = _finite(value)
    if not known or value != int(value) or not least <= value <= (MOST if most is None else most):
        large = isinstance(value, int | float) and value > MOST
        high = "" if most is None and not large else f", at most {MOST if most is None else most}"
        raise TheoryError(f"{name} is {_plain(value)!r}; it must be a whole number, {least} or more{high}")
    return int(value)


def numbers(
    name: str, values: Sequence[float] | Floats | float, length: int, *, above: bool = False
) -> Floats:
    """A vector of `length`; a single number stands for all. Raises `TheoryError`."""
    vector = np.atleast_1d(array(name, values))
    if vector.shape == (1,):
        vector = np.repeat(vector, length)
    if vector.shape != (length,):
        raise TheoryError(f"{name} has {vector.size} values; give 1, or {length}, one a device")
    wrong = vector[~np.isfinite(vector) | (vector < 0) | ((vector == 0) & above)]
    if wrong.size:
        raise TheoryError(
            f"{name} holds {_plain(wrong[0])!r}; every value must be {'more than 0' if above else '0 or more'}"
        )
    return vector


def length(name: str, values: Sequence[object] | Floats) -> int:
    """How many values there are. Raises `TheoryError` where they are no sequence."""
    try:
        return len(values)
    except TypeError:
        raise TheoryError(f"{name} is {_plain(values)!r}; it must be a sequence") from None


def array(name: str, values: object) -> Floats:
    """Values as numbers, of any shape. Raises `TheoryError` for what is none."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise TheoryError(f"{name} must hold numbers only, in rows of one length") from None


def measurable(name: str, value: float) -> float:
    """A result that a float holds. Raises `TheoryError`."""
    if not math.isfinite(value):
        raise TheoryError(f"{name} is beyond all measure: the arguments' product is more than a float holds")
    return value


def _plain(value: object) -> object:
    """A number as people write it, where numpy's says its type."""
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except (OverflowError, TypeError):  # a whole number that no float holds, or no number
        return False


def stable(load: float) -> float:
    """A load below 1. Raises `UnstableQueue`."""
    if load >= 1.0:
        raise UnstableQueue(f"the load is {load:.4g}; a mean exists below 1 only: lower the rate, M or k")
    return load
