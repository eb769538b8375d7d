"""What prompts with a deadline get: how many are let in, how many of those keep it, and what their answers are worth.

    python bench/deadline.py --quick --json                 two deadlines, two loads, without and with a delay
    python bench/deadline.py --json                         the whole grid, some minutes
    python bench/deadline.py --json --caution 1.3 1.8 2.5   the same at other factors (`node.peer.price.caution`)

The real protocol in virtual time: eight devices in mode auto with prices, best of 8 on views of `VIEW_S`, later stage first,
exponential service of α = 1 s alone. `load` 1 is the limit of (2, 3). Worlds: `instant`; `delay 0.05` and `delay 0.2`, each message takes so
many seconds; `stages`, refinements take 1.5 and aggregations 2.5 times as long as proposals and answers alone; `batch`, four jobs at a time, which together
go 2.8 times as fast as one alone. A row counts the prompts after the warm-up that had their whole deadline before the end: `refused` of all, `missed` of
those let in, with its 95 % interval over prompts (Wilson), `worth` of those let in in points, 0 for one that missed, and
`points` the same of all that were asked.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from dataclasses import replace
from typing import Any

from folkmoot.core.law import Exponential
from folkmoot.core.price import PriceConfig
from folkmoot.queueing.moot import WARM_UP, Question
from folkmoot.queueing.streams import keys
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.load import Load, Setting

DEVICES, VIEW_S, SEED = 8, 0.5, 1
STAGES, SPEED = (1.0, 1.5, 2.5), (1.0, 1.8, 2.4, 2.8)
DEADLINES, LOADS = (3.0, 5.0, 8.0, 12.0, 20.0), (0.3, 0.8, 1.0, 2.0)
PRICED = Setting(share=2.0)
WORLDS = {
    "instant": PRICED,
    "delay 0.05": replace(PRICED, links=LinkConfig(delay_s=0.05, jitter_s=0.0, loss=0.0)),
    "delay 0.2": replace(PRICED, links=LinkConfig(delay_s=0.2, jitter_s=0.0, loss=0.0)),
    "stages": replace(PRICED, stages=STAGES),
    "batch": replace(PRICED, slots=len(SPEED), speed=SPEED),
}
Row = dict[str, Any]


def measured(world: str, caution: float, deadline_s: float, load: float, horizon_s: float, seeds: int) -> Row:
    """One row."""
    setting = WORLDS[world]
    config = PriceConfig(enabled=True, caution=caution)
    jobs_s = 4 * setting.stages[0] + 4 * setting.stages[1] + setting.stages[2] if setting.stages else 9.0
    question = Question(
        DEVICES, 2, 3, (load * setting.full_speed / jobs_s,), (Exponential(1.0),), discipline="lsf",
        best_of=DEVICES - 1, view_s=VIEW_S,
    )  # fmt: skip
    setting = replace(setting, price=config, deadline_s=deadline_s)
    asked = [
        each
        for key in keys(SEED, seeds)
        for each in Load(question, key, horizon_s, setting).run().prompts
        if WARM_UP * horizon_s <= each.born < horizon_s - deadline_s
    ]
    let_in = [each for each in asked if each.code != "overloaded"]
    missed = sum(each.code == "deadline" for each in let_in)
    points = math.fsum(
        config.worth(each.layers, each.answers - 1) for each in let_in if each.code != "deadline"
    )
    low, high = wilson(missed, len(let_in))
    return {
        "world": world, "caution": caution, "deadline": deadline_s, "load": load, "prompts": len(asked),
        "refused": 1.0 - len(let_in) / len(asked), "missed": missed / max(1, len(let_in)), "missed_low": low,
        "missed_high": high, "worth": points / max(1, len(let_in)), "points": points / len(asked),
    }  # fmt: skip


def wilson(seen: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson, "Probable inference", 1927."""
    if not of:
        return 0.0, 1.0
    z = 1.96
    share, square = seen / of, z * z / of
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / of + square / of / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--caution", type=float, nargs="+", default=[PriceConfig().caution])
    parser.add_argument("--world", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--deadline", type=float, nargs="+", default=DEADLINES)
    parser.add_argument("--load", type=float, nargs="+", default=LOADS)
    asked = parser.parse_args()
    if asked.quick:
        asked.world, asked.deadline, asked.load = ["instant", "delay 0.2"], [5.0, 12.0], [0.8, 2.0]
    began = time.perf_counter()
    rows = list[Row]()
    for world in asked.world:
        for caution in asked.caution:
            for deadline_s in asked.deadline:
                for load in asked.load:
                    horizon_s, seeds = (100.0, 1) if asked.quick else (200.0, 2)
                    rows.append(measured(world, caution, deadline_s, load, horizon_s, seeds))
                    _tell(asked.json, rows[-1])
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    found = {"rows": rows, "machine": machine, "seed": SEED, "wall_s": time.perf_counter() - began}
    print(json.dumps(found) if asked.json else f"{found['wall_s']:.0f} s on {machine}")


def _tell(as_json: bool, row: Row) -> None:
    shown = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
    print(shown, file=sys.stderr if as_json else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
