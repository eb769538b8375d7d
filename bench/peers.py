"""What it gains to look at the load before peers are asked, and what an old view costs: the table of docs/log.md.

    python bench/peers.py --quick --json    short runs, within 50 s
    python bench/peers.py                   20,000 services a device, 8 replications

Ten devices with a mean service of 1 and ten with 3, M = 2, k = 2: the verdict at multiples of the limit of uniform choice, and
quantiles of the latency at 0.9 of it. Then equal devices at a load of 0.9: mean latency of uniform choice, of the shortest of
all and of the best of four on views that are refreshed every 10 or 30 services, without and with one's own jobs counted.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from typing import Any

from folkmoot.core.law import Exponential
from folkmoot.queueing import Question, simulate

LIMIT = 1.0 / 21.0
"""Uniform choice's: the slow devices' 1 / (α K) with α = 3, K = 7."""
MULTIPLES = {3: (1.26, 1.30, 1.32, 1.34), 4: (1.58, 1.62, 1.66, 1.70), 8: (1.93, 1.97, 2.01, 2.05)}


def unequal(horizon: float, reps: int, seed: int) -> dict[str, Any]:
    """Verdicts by d and multiple of the limit, and (p50, p99) by d at 0.9 of it."""
    laws = (Exponential(1.0),) * 10 + (Exponential(3.0),) * 10
    asked = Question(20, 2, 2, (LIMIT,), laws, horizon=horizon, replications=reps, seed=seed)
    verdicts = {
        str(d): {
            str(m): simulate(replace(asked, best_of=d, rates_hz=(m * LIMIT,))).verdict for m in multiples
        }
        for d, multiples in MULTIPLES.items()
    }
    quantiles = {}
    for d in (0, 4, 8):
        p50, _, p99 = simulate(replace(asked, best_of=d, rates_hz=(0.9 * LIMIT,))).quantiles
        quantiles[str(d)] = (p50, p99)
    return {"verdicts": verdicts, "p50_p99": quantiles}


def herding(n: int, horizon: float, reps: int, seed: int) -> dict[str, Any]:
    """Mean latencies of equal devices at a load of 0.9."""
    asked = Question(n, 2, 2, (0.9 / 7,), (Exponential(1.0),), horizon=horizon, replications=reps, seed=seed)
    alone = replace(asked, count_own=False)
    policies = {
        "uniform": asked,
        "all_view_10": replace(alone, best_of=n - 1, view_s=10.0),
        "all_view_30": replace(alone, best_of=n - 1, view_s=30.0),
        "all_view_30_own": replace(asked, best_of=n - 1, view_s=30.0),
        "four_view_30": replace(alone, best_of=4, view_s=30.0),
        "four_view_30_own": replace(asked, best_of=4, view_s=30.0),
    }
    return {"n": n} | {name: simulate(policy).latency.value for name, policy in policies.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short runs, within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    horizon, reps = (8_000.0, 8) if args.quick else (20_000.0, 8)
    found = unequal(horizon, reps, args.seed)
    rows = [herding(n, horizon, reps, args.seed) for n in ((8, 20) if args.quick else (8, 12, 16, 20))]
    if args.json:
        machine = {"arch": platform.machine(), "python": platform.python_version()}
        print(json.dumps({"unequal": found, "herding": rows, "machine": machine, "seed": args.seed}))
        return
    for d, verdicts in found["verdicts"].items():
        print(f"best 2 of {d}: " + ", ".join(f"{m} × {verdict}" for m, verdict in verdicts.items()))
    for d, (p50, p99) in found["p50_p99"].items():
        print(
            f"at 0.9 of uniform's limit, {'uniform' if d == '0' else 'best 2 of ' + d}: {p50:.1f} / {p99:.1f}"
        )
    for row in rows:
        print("  ".join(f"{name}={value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
