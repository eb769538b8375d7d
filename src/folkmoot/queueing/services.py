"""Service laws as numbers that a kernel can read; the same values to the bit as `core/law.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.errors import TheoryError
from folkmoot.queueing._jit import compiled

EXPONENTIAL, FIXED, LOGNORMAL, WEIBULL, TRACE = range(5)
_TINY = 2.0**-54


class Services(NamedTuple):
    """The laws that differ: `kind` (laws,), two parameters each (laws, 2), rows of the traces, `mean` (laws,), s.

    Each column of a trace is a law of its own. `which` (n,) is each device's law, empty where all have the same.
    """

    kind: npt.NDArray[np.int8]
    parameters: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    which: npt.NDArray[np.uint32]


def services(laws: Sequence[Law], devices: int) -> Services:
    """The laws of `devices` devices, one for all or one each. Raises `TheoryError`."""
    if len(laws) not in (1, devices):
        raise TheoryError(f"{len(laws)} service laws for {devices} devices; give 1, or one a device")
    traces = [law for law in laws if isinstance(law, Trace)]
    if any(trace != traces[0] for trace in traces):
        raise TheoryError("devices draw from two traces; give one trace with a column a device")
    rows = np.array(traces[0].rows if traces else ((0.0,),), dtype=np.float64)
    columns = rows.shape[1]
    places: dict[Law | int, int] = {}
    if len(laws) == 1:
        each = list(range(columns)) if traces else [laws[0]]
        places = {law: place for place, law in enumerate(each)}
        which = np.resize(np.arange(len(each), dtype=np.uint32), devices if len(each) > 1 else 0)
    else:
        named = [device % columns if isinstance(law, Trace) else law for device, law in enumerate(laws)]
        which = np.array([places.setdefault(law, len(places)) for law in named], np.uint32)
    table = [_numbers(law, rows) for law in places]
    kinds, first, second, means = zip(*table, strict=True)
    return Services(
        np.array(kinds, np.int8),
        np.column_stack([first, second]).astype(np.float64),
        rows,
        np.array(means, np.float64),
        which if len(places) > 1 else which[:0],
    )


def _numbers(law: Law | int, rows: npt.NDArray[np.float64]) -> tuple[int, float, float, float]:
    """Kind, two parameters and mean of a law, or of a column of the trace."""
    match law:
        case Exponential(mean):
            return EXPONENTIAL, mean, 0.0, mean
        case Fixed(mean):
            return FIXED, mean, 0.0, mean
        case Lognormal(mean, cv):
            return LOGNORMAL, mean, math.sqrt(math.log1p(cv**2)), mean
        case Weibull(mean, shape):
            return WEIBULL, mean / math.gamma(1 + 1 / shape), 1 / shape, mean
        case int(column):
            return TRACE, float(column), 0.0, math.fsum(rows[:, column]) / len(rows)
        case _:
            raise TheoryError("a trace is asked for by its columns")


@compiled()
def duration(kind: int, first: float, second: float, rows: npt.NDArray[np.float64], u: float) -> float:
    """The quantile of a device's law at `u`, seconds."""
    if kind == EXPONENTIAL:
        return -first * math.log(1.0 - u)
    if kind == FIXED:
        return first
    if kind == LOGNORMAL:
        return first * math.exp(second * _normal(max(u, _TINY)) - second**2 / 2)
    if kind == WEIBULL:
        return first * math.pow(-math.log1p(-u), second)
    return float(rows[min(int(u * rows.shape[0]), rows.shape[0] - 1), int(first)])


@compiled()
def _normal(p: float) -> float:
    """Quantile of the standard normal law: Wichura's AS 241 in the order of Python's `statistics.NormalDist`."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        num = (((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r
                   + 4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
                + 1.3314166789178437745e2) * r + 3.3871328727963666080e0) * q  # fmt: skip
        den = (((((((5.2264952788528545610e3 * r + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r
                   + 2.1213794301586595867e4) * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r
                + 4.2313330701600911252e1) * r + 1.0)  # fmt: skip
        return num / den
    r = p if q <= 0.0 else 1.0 - p
    r = math.sqrt(-math.log(r))
    if r <= 5.0:
        r = r - 1.6
        num = (((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r
                   + 1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
                + 4.63033784615654529590e0) * r + 1.42343711074968357734e0)  # fmt: skip
        den = (((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r
                   + 1.48103976427480074590e-1) * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r
                + 2.05319162663775882187e0) * r + 1.0)  # fmt: skip
    else:
        r = r - 5.0
        num = (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 1.24266094738807843860e-3) * r
                   + 2.65321895265761230930e-2) * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r
                + 5.46378491116411436990e0) * r + 6.65790464350110377720e0)  # fmt: skip
        den = (((((((2.04426310338993978564e-15 * r + 1.42151175831644588870e-7) * r + 1.84631831751005468180e-5) * r
                   + 7.86869131145613259100e-4) * r + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r
                + 5.99832206555887937690e-1) * r + 1.0)  # fmt: skip
    x = num / den
    return -x if q < 0.0 else x
