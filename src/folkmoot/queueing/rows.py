"""Results in other shapes: one document each, as `folkmoot simulate --json` prints it."""

from __future__ import annotations

import math
from typing import Any

from folkmoot.queueing.estimate import Interval
from folkmoot.queueing.simulate import Result


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
        "drift": _interval(found.drift),
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
