"""Theorem 1 on live devices: queues stay bounded below α((k+1)M+1)λ = 1 and grow beyond it, as fast as the fluid root says.

    python bench/theorem.py --quick --json      one shape below and beyond the limit, within 50 s
    python bench/theorem.py --json              three shapes, by hand: about 20 minutes on a quiet machine

Four devices with `timed:exp:0.2`, first come first served, no admission, (M, k) = (1, 1), (1, 3), (2, 2) at the loads 0.8 and
1.3; the shapes run side by side, each in a moot of its own. A row's `drift` is the growth of the number waiting per device over the second half, in jobs per service time, with its
95 % interval over independent runs; `theory` is the fluid root's, 0 below the limit. `excludes`: the interval leaves out the
opposite verdict, that is what the theory says at 1.3 for a row at 0.8, and 0 for one at 1.3. `utilisation` is the share of
its time that each device served, by its own count, the mean over runs; `utilisation_off` is that of all devices over
min(ρ, 1), less 1; `worst_off` the same of the device that is furthest off. With N services a device that one is off by
some 2.5 · √(2/N) by chance alone below the limit, so `within` counts the devices whose 95 % interval over runs meets 5 % around
min(ρ, 1). ρ is what was asked: α as the engine draws it; what the network and HTTP add to a job is no part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from folkmoot.queueing import drift, limit_rate
from folkmoot.queueing.estimate import interval

ALPHA_S, DEVICES, SEED = 0.2, 4, 1
SHAPES, LOADS = ((1, 1), (1, 3), (2, 2)), (0.8, 1.3)
Row = dict[str, Any]


def row(layers: int, proposers: int, load: float, seconds: float, runs: int) -> Row:
    """One shape at one load."""
    limit = limit_rate(ALPHA_S, layers, proposers)
    found = []
    for run in range(runs):
        command = [
            sys.executable, "-m", "folkmoot", "load", "--json", "--rate", str(load * limit), "--seconds", str(seconds),
            "--start", str(DEVICES), "--engine", f"timed:exp:{ALPHA_S}", "--service", f"exp:{ALPHA_S}",
            "-M", str(layers), "-k", str(proposers), "--discipline", "fcfs", "--admission", "off", "--drain", "0",
            "--seed", str(SEED + run),
        ]  # fmt: skip
        said = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        found.append(json.loads(said.stdout.splitlines()[-1]))
    seen = interval([one["drift"]["value"] * ALPHA_S / one["service_s"] for one in found])
    beyond = _theory(layers, proposers, LOADS[1])
    shares = np.array([one["utilisation"] for one in found]) / min(load, 1.0) - 1.0
    off = shares.mean(axis=0)
    known = [interval(shares[:, device]) for device in range(DEVICES)]
    return {
        "layers": layers, "proposers": proposers, "load": load, "seconds": seconds, "runs": runs,
        "drift": {"value": seen.value, "low": _known(seen.low), "high": _known(seen.high)},
        "theory": _theory(layers, proposers, load),
        "excludes": bool(seen.high < beyond if load < 1 else seen.low > 0.0),
        "utilisation": ((1.0 + off) * min(load, 1.0)).tolist(), "utilisation_off": float(off.mean()),
        "worst_off": float(off[np.abs(off).argmax()]), "within": sum(one.low <= 0.05 and one.high >= -0.05 for one in known),
        "service_s": float(np.mean([one["service_s"] for one in found])),
        "queue_size": float(np.mean([one["queue_size"] for one in found])),
        "simulated_queue_size": float(np.mean([one["simulated"]["queue_size"]["mean"] for one in found])),
    }  # fmt: skip


def _theory(layers: int, proposers: int, load: float) -> float:
    """Jobs per service time."""
    limit = limit_rate(ALPHA_S, layers, proposers)
    return drift(load * limit, [ALPHA_S] * layers, ALPHA_S, proposers) * ALPHA_S


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="(1, 1) only, two runs of 6 s at each load")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=150.0, help="of each run")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--load", type=float, choices=LOADS, help="one of the two loads alone")
    asked = parser.parse_args()
    began, rows = time.perf_counter(), list[Row]()
    seconds, runs = (5.0, 2) if asked.quick else (asked.seconds, asked.runs)
    for load in (asked.load,) if asked.load else LOADS:
        with ThreadPoolExecutor() as side_by_side:
            todo = [
                side_by_side.submit(row, *shape, load, seconds, runs)
                for shape in (SHAPES[:1] if asked.quick else SHAPES)
            ]
        for each in todo:
            rows.append(each.result())
            print(json.dumps(rows[-1]), file=sys.stderr if asked.json else sys.stdout, flush=True)
    found = {
        "rows": rows, "excluded": sum(each["excludes"] for each in rows), "alpha_s": ALPHA_S, "devices": DEVICES,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": SEED,
        "wall_s": time.perf_counter() - began,
    }  # fmt: skip
    print(json.dumps(found) if asked.json else f"{found['wall_s']:.0f} s on {found['machine']}")


if __name__ == "__main__":
    main()
