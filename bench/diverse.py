"""What a weight for other models (`node.peer.diverse`) gains in models and costs in seconds.

    python bench/diverse.py --quick --json      short runs of three weights
    python bench/diverse.py --json              all of them, some minutes

The real protocol in virtual time: twelve devices of three models, eight of a, two of b, two of c, each with as many users; M = 1,
k = 3, best of 8 on views of `VIEW_S`, later stage first, no admission, exponential service. α = 1 s is the mean time of an
inference; with `speeds` "rare slow" b and c take twice that, with "rare fast" half of it. `load` 1 is what all devices together can do.
A row has, over the prompts after the warm-up, the mean number of distinct models among a layer's k + 1 answers, the share of prompts with
two and with three of them, mean latency with its 95 % interval over independent runs, the 99th percentile, and `slower`,
the mean latency beside that of weight 0 on the same random numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from typing import Any

import numpy as np

from folkmoot.core.law import Exponential
from folkmoot.queueing.estimate import interval
from folkmoot.queueing.moot import WARM_UP, Question
from folkmoot.queueing.streams import keys
from folkmoot.sim.load import Load, Setting

MODELS = tuple("aaaabcaaaabc")
SPEEDS = {"equal": (1.0, 1.0), "rare slow": (1.0, 2.0), "rare fast": (1.0, 0.5)}
"""Mean seconds of an inference on a, and on b and c."""
LAYERS, PROPOSERS, BEST_OF, VIEW_S, SEED = 1, 3, 8, 0.5, 1
JOBS = (PROPOSERS + 1) * LAYERS + 1
LOADS, WEIGHTS = (0.3, 0.8), (0.0, 0.25, 1.0, 10.0)
Row = dict[str, Any]


def measured(speeds: str, load: float, weight: float, horizon_s: float, seeds: int) -> Row:
    """One row."""
    common, rare = SPEEDS[speeds]
    means = [common if model == "a" else rare for model in MODELS]
    rate_hz = load * sum(1.0 / mean for mean in means) / len(means) / JOBS
    question = Question(
        len(MODELS), LAYERS, PROPOSERS, (rate_hz,), tuple(map(Exponential, means)), discipline="lsf", best_of=BEST_OF,
        view_s=VIEW_S,
    )  # fmt: skip
    setting = Setting(models=MODELS, diverse=weight)

    def one(key: Any) -> tuple[float, ...]:
        history = Load(question, key, horizon_s, setting).run()
        models = defaultdict[int, set[str]](set)
        for job in history.jobs:
            if job.stage == LAYERS:
                models[job.prompt].add(MODELS[job.device])
        done = [each for each in history.prompts if not each.code and each.born >= WARM_UP * horizon_s]
        counts = np.array([len(models[each.number]) for each in done])
        took = np.array([each.ended - each.born for each in done])
        return (
            float(counts.mean()), float((counts >= 2).mean()), float((counts >= 3).mean()), float(took.mean()),
            float(np.quantile(took, 0.99)), len(done),
        )  # fmt: skip

    rows = np.array([one(key) for key in keys(SEED, seeds)])
    mean_s = interval(rows[:, 3])
    return {
        "speeds": speeds, "load": load, "diverse": weight, "models": float(rows[:, 0].mean()),
        "two": float(rows[:, 1].mean()), "three": float(rows[:, 2].mean()), "mean_s": mean_s.value,
        "mean_low": mean_s.low, "mean_high": mean_s.high, "p99_s": float(rows[:, 4].mean()), "prompts": int(rows[:, 5].sum()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short runs, three weights")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    began = time.perf_counter()
    rows = list[Row]()
    horizon_s, seeds = (80.0, 2) if asked.quick else (300.0, 4)
    for speeds in SPEEDS:
        for load in LOADS:
            for weight in WEIGHTS[:3] if asked.quick else WEIGHTS:
                row = measured(speeds, load, weight, horizon_s, seeds)
                rest = next((each["mean_s"] for each in rows if _same(each, row)), row["mean_s"])
                rows.append(row | {"slower": row["mean_s"] / rest})
                _tell(asked.json, rows[-1])
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    found = {"rows": rows, "machine": machine, "seed": SEED, "wall_s": time.perf_counter() - began}
    print(json.dumps(found) if asked.json else f"{found['wall_s']:.0f} s on {machine}")


def _same(one: Row, other: Row) -> bool:
    """Whether a row is that of weight 0 for another."""
    return not one["diverse"] and (one["speeds"], one["load"]) == (other["speeds"], other["load"])


def _tell(as_json: bool, row: Row) -> None:
    shown = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
    print(shown, file=sys.stderr if as_json else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
