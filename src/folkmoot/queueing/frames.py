"""Results in other shapes: one document each, as `folkmoot simulate --json` prints it, or one row each of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.errors import ConfigError
from folkmoot.queueing.estimate import Interval
from folkmoot.queueing.moot import Question, Result
from folkmoot.queueing.theory import theory

if TYPE_CHECKING:
    import pandas
    import polars

Cell = str | bool | int | float | None
Row = dict[str, Cell]

_ELSEWHERE = ("devices", "replications", "best_of", "view_s")
"""Of a question's fields those that a document has under another name: n, reps, select, view_age_s."""
_POINTS = 1 << 15


def document(found: Result) -> dict[str, Any]:
    """A result with the names that its JSON has; what was not measured is None. Units as in `Result`."""
    asked = found.question
    p50, p90, p99 = found.quantiles
    known: dict[str, Any] = _plain({
        "n": asked.devices, "layers": asked.layers, "proposers": asked.proposers, "load": max(found.rho),
        "rate": asked.rates_hz[0], "discipline": asked.discipline,
        "select": f"best-of:{asked.best_of}" if asked.best_of else "uniform", "view_age_s": asked.view_s,
        "mode": "paper" if asked.prompts else "steady", "verdict": found.verdict,
        "theory": {"rho": list(found.rho), "rho_most": list(found.rho_most), "limit_rate": found.limit_rate},
        "drift": _interval(found.drift), "growing": found.growing,
        "latency": {
            "mean": found.latency.value, "mean_low": found.latency.low, "mean_high": found.latency.high,
            "p50": p50, "p90": p90, "p99": p99,
        },
        "queue_size": _mean(found.queue_size), "queue_size_script": _mean(found.queue_size_script),
        "utilisation": found.utilisation, "goodput": found.goodput.value, "goodput_of_limit": found.goodput_of_limit,
        "age": found.age, "unfinished": found.unfinished, "refused": found.refused,
        "per_device": [
            {"rho": one.rho, "utilisation": one.utilisation, "queue_size": one.queue_size, "drift": one.drift}
            for one in found.per_device
        ],
        "inferences": found.inferences, "seed": asked.seed, "reps": asked.replications,
        "wall_s": found.wall_s, "inferences_per_s": found.inferences / found.kernel_s if found.kernel_s else None,
    })  # fmt: skip
    return known


def rows(results: Iterable[Result]) -> list[Row]:
    """One flat row a result: what was asked, the fields of its `document`, and the theory beside them.

    Names within names are joined by `_` (`latency_mean_low`, `drift_value`); of numbers per device the largest is
    kept under `theory_`, the rest is left out. None is what was not measured, or what no closed form is known for.
    """
    return [_row(each) for each in results]


def to_pandas(results: Iterable[Result]) -> pandas.DataFrame:
    """The rows as a pandas frame. Raises `ConfigError` where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise ConfigError("pandas is not installed; run: pip install pandas") from None
    return pandas.DataFrame(rows(results))


def to_polars(results: Iterable[Result]) -> polars.DataFrame:
    """The rows as a polars frame. Raises `ConfigError` where polars is not installed."""
    try:
        import polars
    except ImportError:
        raise ConfigError("polars is not installed; run: pip install polars") from None
    return polars.DataFrame(rows(results), infer_schema_length=None)


def beside(question: Question) -> Row:
    """The closed forms that hold for a question, with the names that they have in a row.

    `theory_latency` (s) and `theory_queue_size` (jobs waiting per device, M/G/1 at its load), each with its tag and the
    range of error that was seen for questions like this one (None: not known here), `theory_drift` (jobs per service time
    and device) and `theory_goodput` (prompts per second and device), both the fluid's beyond the limit ([C]; [E] for M = 0). Steady
    state, first come first served, peers drawn uniformly: else all are None.
    """
    known = theory(question, _POINTS)
    found: Row = {}
    for name, figure in (("latency", known.latency), ("queue_size", known.waiting)):
        low, high = (figure.error if figure else None) or (None, None)
        found |= {
            f"theory_{name}": figure.value if figure else None, f"theory_{name}_tag": figure.tag if figure else None,
            f"theory_{name}_error_low": low, f"theory_{name}_error_high": high,
        }  # fmt: skip
    found |= {"theory_drift": None, "theory_goodput": None}
    if known.overload:
        found |= {"theory_drift": known.overload.drift, "theory_goodput": known.overload.goodput}
    elif known.latency:
        found |= {
            "theory_drift": 0.0,
            "theory_goodput": math.fsum(question.rates_hz) / len(question.rates_hz),
        }
    return found


def _row(found: Result) -> Row:
    asked, known = found.question, document(found)
    given = {each.name: getattr(asked, each.name) for each in fields(asked) if each.name not in _ELSEWHERE}
    out: Row = {name: value for name, value in given.items() if isinstance(value, str | bool | int | float)}
    out["service"] = ",".join(map(_dist, asked.laws))
    out["topology"] = "complete" if asked.graph is None else "graph"
    _flatten(known, "", out)
    return out | beside(asked)


def _flatten(known: dict[str, Any], prefix: str, out: Row) -> None:
    for name, value in known.items():
        match value:
            case dict():
                _flatten(value, f"{prefix}{name}_", out)
            case list() if prefix:
                out[prefix + name] = max((each for each in value if each is not None), default=None)
            case list():
                pass
            case _:
                out[prefix + name] = value


def _dist(law: Law) -> str:
    """A law as the command line writes it; of a trace its columns, as the file is not known here."""
    match law:
        case Exponential(mean):
            return f"exp:{mean!r}"
        case Fixed(mean):
            return f"det:{mean!r}"
        case Lognormal(mean, cv):
            return f"lognormal:{mean!r}:{cv!r}"
        case Weibull(mean, shape):
            return f"weibull:{mean!r}:{shape!r}"
        case Trace(columns):
            return f"trace::{'+'.join(columns)}"


def _mean(found: Interval) -> dict[str, float]:
    return {"mean": found.value, "low": found.low, "high": found.high}


def _interval(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _plain(value: Any) -> Any:
    """JSON knows no NaN."""
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
