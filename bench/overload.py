"""What becomes of a moot beyond its limit, on live devices and in simulation: goodput, latency, refusals.

    python bench/overload.py --quick --json
    python bench/overload.py --json              every row, by hand: about an hour
    python bench/overload.py --only cheats --json     a part of it: rows, auto, table or cheats

M = 2, k = 3, engines `timed:exp:0.2`, 6 devices, at 0.5, 0.9, 1.5 and 3 times the limit λ* = 1/(9α). Rows: first come
first served and later stage first without admission (mode fixed), and later stage first with a price per job (mode auto,
which may shrink M and k and refuse). `goodput_of_limit` is answers per second and device ÷ λ*, of the time after the
warm-up; it exceeds 1 where fewer jobs a prompt are made. `where` is live (processes, sockets, HTTP, an open loop) or
sim (the same core in virtual time, for as long, seeds of its own, `low` and `high` over them). p50 and p99 are of what was
let in and answered; `longest_first_wait_s` is the longest that any first layer's job waited, in all seeds. `auto` has mode
auto on live devices at 1 and 5 times the limit: `percent` is the utility as a share of the bound (the worth of the answers
that went in, refused and unanswered prompts 0), `p99_growth` its p99 at 5 over that at 1. `table` redoes the table of
ADMISSION.md: utility as a share of the bound, by load and number of devices. `cheats`: of ten devices one asks `times` as
much as the others, always (2, 3), and is deaf to prices; `points` are what the others' prompts earn, with shares and without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from folkmoot.core.law import Exponential
from folkmoot.core.price import PriceConfig
from folkmoot.queueing.estimate import interval
from folkmoot.queueing.moot import WARM_UP, Question
from folkmoot.queueing.streams import keys
from folkmoot.sim.load import Load, Setting
from folkmoot.sim.overload import bound, earned

ALPHA_S, LAYERS, PROPOSERS, DEVICES = 0.2, 2, 3, 6
LIMIT_HZ = 1.0 / (ALPHA_S * ((PROPOSERS + 1) * LAYERS + 1))
LOADS = (0.5, 0.9, 1.5, 3.0)
POLICIES = (("fcfs", "off"), ("lsf", "off"), ("lsf", "on"))
PRICED = Setting(price=PriceConfig(enabled=True), share=2.0)
SEED = 1_000
"""The defaults were picked on other seeds."""

Row = dict[str, Any]


def live(discipline: str, admission: str, load: float, seconds: float) -> Row:
    """One row on real devices of this machine."""
    shape = ["-M", str(LAYERS), "-k", str(PROPOSERS)] if admission == "off" else []
    command = [
        sys.executable, "-m", "folkmoot", "load", "--json", "--rate", str(load * LIMIT_HZ), "--seconds", str(seconds),
        "--start", str(DEVICES), "--engine", f"timed:exp:{ALPHA_S}", "--service", f"exp:{ALPHA_S}", "--drain", "0",
        "--discipline", discipline, "--admission", admission, *shape,
    ]  # fmt: skip
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = json.loads(said.stdout.splitlines()[-1])
    return {
        "where": "live", "discipline": discipline, "admission": admission, "load": load,
        "goodput_of_limit": found["goodput"] / LIMIT_HZ, "p50_s": found["latency"]["p50"],
        "p99_s": found["latency"]["p99"], "refused": found["refused"] / found["prompts"],
        "longest_first_wait_s": found["longest_first_wait_s"],
        "drift": found["drift"]["value"], "seconds": seconds, "percent": 100.0 * _utility(found, load),
    }  # fmt: skip


def _utility(found: Row, load: float) -> float:
    """What the answers of a live run are worth, by the most that any policy could earn."""
    prices = PriceConfig()
    points = sum(
        each["prompts"] * prices.worth(each["layers"], each["answers"] - 1) for each in found["went_in"]
    )
    question = Question(DEVICES, LAYERS, PROPOSERS, (load * LIMIT_HZ,), (Exponential(ALPHA_S),))
    return float(points / found["due"] / bound(question))


def simulated(discipline: str, admission: str, load: float, seconds: float, seeds: int) -> Row:
    """The same by the real core in virtual time."""
    question = Question(
        DEVICES, LAYERS, PROPOSERS, (load * LIMIT_HZ,), (Exponential(ALPHA_S),), discipline=discipline,
        best_of=5 if admission == "on" else 0,
    )  # fmt: skip
    setting = PRICED if admission == "on" else Setting()
    start = WARM_UP * seconds

    def one(key: Any) -> tuple[float, ...]:
        history = Load(question, key, seconds, setting).run()
        ended = sum(not each.code and start <= each.ended < seconds for each in history.prompts)
        found = earned(question, history, start, seconds)
        rate = ended / (seconds - start) / DEVICES
        return rate / LIMIT_HZ, found.p50_s, found.p99_s, found.refused, found.longest_first_wait_s

    from joblib import Parallel, delayed

    rows = np.array(Parallel(n_jobs=-1)(delayed(one)(key) for key in keys(SEED, seeds)))
    goodput = interval(rows[:, 0])
    p50, p99, refused, _ = (_mean(column) for column in rows[:, 1:].T)
    return {
        "where": "sim", "discipline": discipline, "admission": admission, "load": load,
        "goodput_of_limit": goodput.value, "low": goodput.low, "high": goodput.high,
        "p50_s": p50, "p99_s": p99, "refused": refused, "seconds": seconds, "longest_first_wait_s": float(rows[:, -1].max()),
    }  # fmt: skip


def utility(devices: int, load: float, horizon_s: float, seeds: int) -> Row:
    """A cell of ADMISSION.md's table: α = 1 s, load 1 the limit of (2, 3), utility ÷ bound."""
    question = Question(
        devices, 2, min(3, devices - 1), (load / 9,), (Exponential(1.0),), discipline="lsf", best_of=min(8, devices - 1),
    )  # fmt: skip

    def one(key: Any) -> tuple[float, ...]:
        history = Load(question, key, horizon_s, PRICED).run()
        found = earned(question, history, 0.3 * horizon_s, 0.95 * horizon_s)
        return 100.0 * found.of_bound, found.p99_s, 100.0 * found.refused, found.longest_first_wait_s

    from joblib import Parallel, delayed

    rows = np.array(Parallel(n_jobs=-1)(delayed(one)(key) for key in keys(SEED, seeds)))
    share = interval(rows[:, 0])
    return {
        "devices": devices, "load": load, "percent": share.value, "low": share.low, "high": share.high,
        "p99": float(rows[:, 1].mean()), "refused_percent": float(rows[:, 2].mean()), "seeds": seeds,
        "longest_first_wait_s": float(rows[:, 3].max()),
    }  # fmt: skip


def cheat(times: int, load: float, share: float, horizon_s: float, seeds: int) -> Row:
    """What the nine honest devices of ten earn beside one that is not."""
    rates = (times * load / 9, *(load / 9,) * 9)
    question = Question(10, 2, 3, rates, (Exponential(1.0),), discipline="lsf", best_of=8)
    setting = replace(PRICED, cheats=(0,), share=share)

    def one(key: Any) -> tuple[float, float]:
        history = Load(question, key, horizon_s, setting).run()
        start, end = 0.25 * horizon_s, 0.9 * horizon_s
        found = earned(question, history, start, end, counted=lambda each: each.origin != 0)
        return found.points, found.longest_first_wait_s

    from joblib import Parallel, delayed

    rows = np.array(Parallel(n_jobs=-1)(delayed(one)(key) for key in keys(SEED, seeds)))
    points = interval(rows[:, 0])
    return {
        "times": times, "load": load, "share": share, "points": points.value, "low": points.low, "high": points.high,
        "longest_first_wait_s": float(rows[:, 1].max()), "seeds": seeds,
    }  # fmt: skip


def _rows(quick: bool) -> Iterator[Row]:
    live_s, sim_s, seeds = (5.0, 25.0, 3) if quick else (60.0, 60.0, 8)
    for discipline, admission in POLICIES:
        for load in LOADS:
            if not quick or load == LOADS[-1]:
                yield live(discipline, admission, load, live_s)
            yield simulated(discipline, admission, load, sim_s, seeds)


def _auto(quick: bool) -> Iterator[Row]:
    for load in (1.0, 5.0):
        yield live("lsf", "on", load, 5.0 if quick else 60.0)


def _table(quick: bool) -> Iterator[Row]:
    cells = [(10, load) for load in ((1.0, 5.0) if quick else (0.5, 1.0, 2.0, 5.0, 15.0))]
    cells += [] if quick else [(4, load) for load in (1.0, 3.0, 5.0, 15.0)] + [(100, 1.0), (100, 5.0)]
    for devices, load in cells:
        horizon_s = 100.0 if quick else 300.0 if devices == 100 else 1_500.0
        yield utility(devices, load, horizon_s, 2 if quick else 8)


def _cheats(quick: bool) -> Iterator[Row]:
    for load in (1.0, 2.0):
        for times in (10, 50):
            for share in (0.0, 2.0):
                yield cheat(times, load, share, 100.0 if quick else 300.0, 4)


PARTS = {"rows": _rows, "auto": _auto, "table": _table, "cheats": _cheats}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="three live rows at 3 times the limit, short runs, no cheats"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=list(PARTS), help="one part of it")
    asked = parser.parse_args()
    began = time.perf_counter()
    parts = [asked.only] if asked.only else [part for part in PARTS if not (asked.quick and part == "cheats")]
    found: Row = {part: [] for part in parts}
    for part in parts:
        for row in PARTS[part](asked.quick):
            found[part].append(row)
            _tell(asked.json, row)
    if "auto" in found:
        found["p99_growth"] = found["auto"][1]["p99_s"] / found["auto"][0]["p99_s"]
    found |= {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": SEED,
        "wall_s": time.perf_counter() - began,
    }  # fmt: skip
    print(json.dumps(found) if asked.json else f"{found['wall_s']:.0f} s on {found['machine']}")


def _mean(values: Any) -> float | None:
    """Of the runs in which there was anything."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _tell(as_json: bool, row: Row) -> None:
    shown = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
    print(shown, file=sys.stderr if as_json else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
