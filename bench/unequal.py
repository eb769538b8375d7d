"""Ten fast devices and ten slow ones: what the best of d peers carries beyond what uniform choice can.

    python bench/unequal.py --quick --json      the simulation, and 30 s live at 1.8 times the limit of uniform choice
    python bench/unequal.py --json              live at 0.9 and 1.8 times, ten minutes each, by hand
    python bench/unequal.py --ratio 1.8 --seconds 600 --runs 8 --json      one ratio alone, as long as one likes

Engines `timed:exp:0.2` and `timed:exp:0.6` in turn, M = 2, k = 2, later stage first, no admission, best of 8 by expected
delay. All rates are in units of uniform choice's limit 1/(0.6 · 7) prompts per second and device. `lp_ratio` is the bound on
any choice of peers (linear programme). `sim_ratio` is the largest that is not unstable in the compiled simulator, to 0.01, on
views of `VIEW_S`; `sim_stable` the largest that is called stable; `sim_ratios` has both for each d. `live_ratio` is the largest that was asked of live
devices, of which they did not grow surely and answered what came but for 5 %. `p99_s` is that of live prompts at 0.9. A
live row's `drift` is the mean over devices of the growth of the number waiting, in jobs per mean service time, with its 95 %
interval over independent runs; `verdict` is that of `folkmoot simulate`, which asks the mean and each of the twenty
devices for an interval below an overload of 1 %, `verdict_of_mean` the mean alone, where no device grows surely. `uniform_drift` is what the fluid says of uniform choice at that rate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from folkmoot.core.law import Exponential
from folkmoot.queueing import Question, best_limit_closed, fluid, simulate
from folkmoot.queueing.estimate import interval, verdict
from folkmoot.queueing.overload import fluid_root

MEANS_S = (0.2, 0.6) * 10
LAYERS, PROPOSERS, BEST_OF, VIEW_S, SEED = 2, 2, 8, 0.25, 1
OTHERS = (2, 4)
"""Of how many peers the best is taken besides, in simulation only."""
JOBS = (PROPOSERS + 1) * LAYERS + 1
UNIFORM_HZ = 1.0 / (max(MEANS_S) * JOBS)
Row = dict[str, Any]


def simulated(horizon: float, best_of: int) -> Row:
    """The largest ratios that the compiled simulator does not call unstable, and calls stable."""
    asked = Question(
        len(MEANS_S), LAYERS, PROPOSERS, (1.0,), tuple(map(Exponential, MEANS_S)), horizon=horizon, replications=8,
        seed=SEED, discipline="lsf", best_of=best_of, view_s=VIEW_S,
    )  # fmt: skip
    said: dict[int, str] = {}

    def at(percent: int) -> str:
        if percent not in said:
            said[percent] = simulate(replace(asked, rates_hz=(percent / 100 * UNIFORM_HZ,))).verdict
        return said[percent]

    def largest(passes: tuple[str, ...]) -> float:
        low, high = 90, 220
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle) in passes else (low, middle)
        return low / 100

    return {
        "sim_ratio": largest(("stable", "undecided")),
        "sim_stable": largest(("stable",)),
        "best_of": best_of,
        "horizon": horizon,
    }


def live(ratio: float, seconds: float, runs: int) -> Row:
    """A ratio of real devices: independent runs, drifts in jobs per mean service time."""
    engines = [word for mean in MEANS_S for word in ("--engine", f"timed:exp:{mean}")]
    found = []
    for run in range(runs):
        command = [
            sys.executable, "-m", "folkmoot", "load", "--json", "--rate", str(ratio * UNIFORM_HZ), "--seconds", str(seconds),
            "--start", str(len(MEANS_S)), *engines, "--service", ",".join(f"exp:{mean}" for mean in MEANS_S),
            "-M", str(LAYERS), "-k", str(PROPOSERS), "--select", f"best-of:{BEST_OF}", "--admission", "off",
            "--drain", "0", "--seed", str(SEED + run),
        ]  # fmt: skip
        said = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        found.append(json.loads(said.stdout.splitlines()[-1]))
    drifts = np.array([one["drifts"] for one in found])
    scale = np.mean(MEANS_S) / np.array([[one["service_s"]] for one in found])
    slopes = drifts * scale
    mean = interval(slopes.mean(axis=1))
    uniform = fluid([ratio * UNIFORM_HZ] * len(MEANS_S), MEANS_S, LAYERS, PROPOSERS)
    overload = 1.0 / fluid_root(1.01 / JOBS, [1.0] * LAYERS, 1.0, PROPOSERS) - 1.0
    overloads = overload * np.mean(MEANS_S) / np.array(MEANS_S)
    return {
        "ratio": ratio, "seconds": seconds, "runs": runs,
        "goodput_of_offered": float(np.mean([one["goodput"] for one in found]) / (ratio * UNIFORM_HZ)),
        "drift": {"value": mean.value, "low": _known(mean.low), "high": _known(mean.high)},
        "verdict": verdict(slopes.mean(axis=1), overload, slopes, overloads),
        "verdict_of_mean": verdict(slopes.mean(axis=1), overload, slopes, np.full(len(MEANS_S), np.inf)),
        "uniform_drift": float(uniform.drift_hz.mean() * np.mean(MEANS_S)),
        "p50_s": float(np.median([one["latency"]["p50"] for one in found])),
        "p99_s": float(np.median([one["latency"]["p99"] for one in found])),
        "utilisation": [float(np.mean([one["utilisation"][kind::2] for one in found])) for kind in (0, 1)],
        "service_s": float(np.mean([one["service_s"] for one in found])),
    }  # fmt: skip


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="the simulation, and one live run of half a minute"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=150.0, help="of each live run")
    parser.add_argument("--runs", type=int, default=4, help="live runs of each ratio")
    parser.add_argument("--ratio", type=float, help="only this ratio, live, and the short simulation")
    asked = parser.parse_args()
    began = time.perf_counter()
    choices = list[Row]()
    short = asked.quick or asked.ratio is not None
    for best_of in (BEST_OF,) if short else (BEST_OF, *OTHERS):
        choices.append(simulated(5_000.0 if short else 100_000.0, best_of))
        _tell(asked.json, choices[-1])
    found: Row = {name: choices[0][name] for name in ("sim_ratio", "sim_stable")} | {"sim_ratios": choices}
    rows = []
    for ratio in (asked.ratio,) if asked.ratio is not None else (1.8,) if asked.quick else (0.9, 1.8):
        rows.append(live(ratio, 25.0, 1) if asked.quick else live(ratio, asked.seconds, asked.runs))
        _tell(asked.json, rows[-1])
    kept = [row["ratio"] for row in rows if row["verdict"] != "unstable" and row["goodput_of_offered"] > 0.95]
    found |= {
        "live_ratio": max(kept, default=None), "lp_ratio": best_limit_closed(MEANS_S, LAYERS, PROPOSERS) / UNIFORM_HZ,
        "p99_s": rows[0]["p99_s"] if rows[0]["ratio"] == 0.9 else None, "rows": rows,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": SEED,
        "wall_s": time.perf_counter() - began,
    }  # fmt: skip
    print(json.dumps(found) if asked.json else f"{found['wall_s']:.0f} s on {found['machine']}")


def _tell(as_json: bool, row: Row) -> None:
    print(json.dumps(row), file=sys.stderr if as_json else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
