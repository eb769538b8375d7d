"""How far the [A] forms are from simulations: latency by the mean field, jobs waiting, the join buffer's parts of it.

    python bench/approximations.py --quick --json    a few dozen questions, within 50 s
    python bench/approximations.py                   loads 0.3, 0.6, 0.9, M = 1 to 3, k = 1 to 7, n to 100, some minutes

Each row is theory over simulation, less 1, with the half width of the simulation's 95 % interval as a share of its mean: at high
loads much of what is seen is the simulation's own noise. Equal devices on the complete graph. The bounds that
`folkmoot theory` and `plan` state are in `queueing/latency.py` and `queueing/theory.py`; a range here that leaves them is marked.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal
from folkmoot.queueing import Question, simulate
from folkmoot.queueing.latency import MEAN_FIELD_ERROR
from folkmoot.queueing.moot import jobs_per_prompt
from folkmoot.queueing.theory import WAITING_ERROR, theory

LAWS: dict[str, Law] = {
    "exponential": Exponential(1.0),
    "lognormal": Lognormal(1.0, 0.5),
    "fixed": Fixed(1.0),
}


def row(
    name: str, n: int, layers: int, proposers: int, load: float, horizon: float, seed: int
) -> dict[str, Any]:
    """One question: both errors, and the simulation's own."""
    asked = Question(n, layers, proposers, (1.0,), (LAWS[name],), horizon=horizon, replications=6, seed=seed)
    rate = load / jobs_per_prompt(asked)
    asked = Question(n, layers, proposers, (rate,), (LAWS[name],), horizon=horizon, replications=6, seed=seed)
    told, seen = theory(asked), simulate(asked)
    assert told.latency is not None
    assert told.waiting is not None
    return {
        "law": name, "n": n, "layers": layers, "proposers": proposers, "load": load,
        "latency": told.latency.value / seen.latency.value - 1,
        "waiting": told.waiting.value / seen.queue_size.value - 1,
        "noise": (seen.latency.high - seen.latency.value) / seen.latency.value,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few dozen questions, within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    loads = (0.3, 0.9) if args.quick else (0.3, 0.6, 0.9)
    sizes = (4, 20) if args.quick else (2, 4, 8, 20, 100)
    rows = []
    for name in LAWS:
        for n in sizes:
            for layers in (1, 3) if args.quick else (1, 2, 3):
                for proposers in sorted({1, 3, min(7, n - 1)} & set(range(n))):
                    for load in loads:
                        horizon = 8_000.0 if args.quick else 30_000.0 if load > 0.8 else 8_000.0
                        rows.append(row(name, n, layers, proposers, load, horizon, args.seed))
    ranges: dict[str, Any] = {}
    for name in LAWS:
        some = [each for each in rows if each["law"] == name]
        for what, bounds in (("latency", MEAN_FIELD_ERROR), ("waiting", WAITING_ERROR)):
            stated = bounds[name == "exponential"]
            low, high = (pick(each[what] for each in some) for pick in (min, max))
            noise = max(each["noise"] for each in some)
            ranges[f"{name} {what}"] = {"low": low, "high": high, "noise": noise, "stated": stated}
            mark = "" if stated[0] <= low and high <= stated[1] else "  beyond what is stated"
            print(
                f"{name}, {what}: {100 * low:+.0f} to {100 * high:+.0f} % (stated {100 * stated[0]:+.0f} to "
                f"{100 * stated[1]:+.0f}, the simulation's own up to {100 * noise:.0f}){mark}",
                file=sys.stderr if args.json else sys.stdout,
            )
    if args.json:
        machine = {"arch": platform.machine(), "python": platform.python_version()}
        print(json.dumps({"ranges": ranges, "rows": rows, "machine": machine, "seed": args.seed}))


if __name__ == "__main__":
    main()
