"""How often the intervals that `simulate` prints hold the exact value, over hundreds of seeds.

    python bench/coverage.py --quick --json    100 seeds, within 50 s
    python bench/coverage.py                   400 seeds, by hand

Every seed is one `folkmoot simulate` with its defaults: ten replications, the first fifth not counted, 20,000
services a device. `covered` is the share of seeds whose 95 % interval of the mean latency holds the closed form,
with its own 95 % interval (Clopper and Pearson). `naive` is the share for the interval that takes the prompts of one
replication for independent. `mser5` says how much of a replication MSER-5 would leave out, as a check on the fifth: the
share in the median and at most, and in how many replications it is no more than the fifth.

`verdicts` is how often the verdict is which word, at loads where the truth is known: stable below 1, and neither at 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import beta

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Fixed
from folkmoot.queueing.estimate import interval, mser5
from folkmoot.queueing.moot import WARM_UP, Question, replication, simulate
from folkmoot.queueing.streams import keys

ONE = Exponential(1.0)
CASES = {
    "M/M/1, load 0.5": (Question(1, 0, 0, (0.5,), (ONE,)), q.alone(0.5, q.Moments.of(ONE))),
    "M/M/1, load 0.8": (Question(1, 0, 0, (0.8,), (ONE,)), q.alone(0.8, q.Moments.of(ONE))),
    "M/M/1, load 0.9": (Question(1, 0, 0, (0.9,), (ONE,)), q.alone(0.9, q.Moments.of(ONE))),
    "M/D/1, load 0.8": (Question(1, 0, 0, (0.8,), (Fixed(1.0),)), q.alone(0.8, q.Moments.of(Fixed(1.0)))),
    "k = 0, M = 2, three devices, load 0.7": (
        Question(3, 2, 0, (0.7 / 3,), (ONE,)),
        q.refining_alone(0.7 / 3, 1.0, 2),
    ),
}
LOADS = (0.5, 0.8, 0.95, 1.0)
SHAPES = {
    "one queue": (1, 0, 0),
    "M = 2, k = 2, four devices": (4, 2, 2),
    "M = 1, k = 3, twenty devices": (20, 1, 3),
}


def latencies(question: Question) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of the prompts of one replication, in the order in which they came; those that did not end are left out."""
    jobs = int(1.5 * question.horizon * question.devices) + 1000
    log = replication(question, keys(question.seed, 1)[0], jobs).counts.log
    log = log[log[:, 6] > 0]
    last = log[log[:, 1] == question.layers + 1]
    first = log[(log[:, 1] == 1) & (log[:, 2] == 0)]
    ended = last[np.argsort(last[:, 0])]
    born = first[np.argsort(first[:, 0])][:, 4][ended[:, 0].astype(int)]
    return np.asarray(ended[:, 6] - born)


def row(name: str, seeds: int, horizon: float) -> dict[str, Any]:
    """One case over so many seeds."""
    question, exact = CASES[name]
    covered = naive = 0
    cuts = []
    for seed in range(1, seeds + 1):
        asked = replace(question, horizon=horizon, seed=seed)
        covered += simulate(asked).latency.covers(exact)
        seen = latencies(asked)
        naive += interval(seen[int(WARM_UP * len(seen)) :]).covers(exact)
        cuts.append(mser5(seen) / len(seen))
    return {
        "case": name, "exact": exact, "seeds": seeds, "horizon": horizon, "covered": covered / seeds,
        "low": float(beta.ppf(0.025, covered, seeds - covered + 1)),
        "high": float(beta.ppf(0.975, covered + 1, seeds - covered)) if covered < seeds else 1.0,
        "naive": naive / seeds,
        "mser5": {
            "median": float(np.median(cuts)), "most": max(cuts),
            "within_warm_up": sum(cut <= WARM_UP for cut in cuts) / seeds,
        },
    }  # fmt: skip


def verdicts(name: str, load: float, seeds: int, horizon: float) -> dict[str, Any]:
    """The share of seeds that each word has, for one shape at one load."""
    devices, layers, proposers = SHAPES[name]
    rate = load / ((proposers + 1) * layers + 1)
    asked = Question(devices, layers, proposers, (rate,), (ONE,), horizon=horizon)
    said = Counter(simulate(replace(asked, seed=seed)).verdict for seed in range(1, seeds + 1))
    shares = {word: said[word] / seeds for word in ("stable", "undecided", "unstable")}
    return {"shape": name, "load": load, "seeds": seeds, "horizon": horizon} | shares


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="100 seeds, within 50 s")
    parser.add_argument("--seeds", type=int, default=0, help="seeds a case (400, quick 100)")
    parser.add_argument("--horizon", type=float, default=20_000.0, help="services a device")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    found = []
    for name in CASES:
        found.append(row(name, args.seeds or (100 if args.quick else 400), args.horizon))
        one = found[-1]
        print(
            f"{name}: covered {100 * one['covered']:.1f} % ({100 * one['low']:.1f} to {100 * one['high']:.1f}), taken for "
            f"independent {100 * one['naive']:.0f} %; MSER-5 leaves out {100 * one['mser5']['median']:.1f} % in the median, "
            f"no more than a fifth in {100 * one['mser5']['within_warm_up']:.0f} %",
            file=sys.stderr if args.json else sys.stdout,
        )
    verdict_rows = []
    for name in SHAPES:
        for load in LOADS:
            seeds = args.seeds or (10 if args.quick else 200)
            verdict_rows.append(verdicts(name, load, seeds, args.horizon))
            one = verdict_rows[-1]
            print(
                f"{name}, load {load}: stable {one['stable']:.1%}, undecided {one['undecided']:.1%}, unstable {one['unstable']:.1%}",
                file=sys.stderr if args.json else sys.stdout,
            )
    if args.json:
        machine = {"arch": platform.machine(), "python": platform.python_version()}
        print(json.dumps({"rows": found, "verdicts": verdict_rows, "machine": machine, "seed": 1}))


if __name__ == "__main__":
    main()
