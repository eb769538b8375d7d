"""The paper's tables, row by row, and its central server, by the compiled simulator.

    python bench/paper.py --quick --json    few runs a row, within 50 s
    python bench/paper.py                   by hand

Table I: four equal devices, one prompt a second over all, ten prompts from an empty start, drained; the mean service
is the one number that is fitted (to the row M = 0). Table II: four models, and the services of a prompt are the four
lengths in one row of the trace, capped at the 1,000 tokens of the paper's script, with means as those of the whole
answers, times one factor that is fitted to the row M = 0.
Of the paper's Table II only two pairs of latency and queue are at hand, without their rows, and the latency of its row
M = 0 is not: `--table2-m0` sets it, and until then that of Table I stands in. As a contrast one device is `slow` times
slower and three are equal, fitted to the same row: `dependence` shows how far the other rows hang on that choice.
Both queue columns are shown: the true time average, and what the paper's published script prints.

Central: one machine of n-fold speed that makes the same jobs, a round trip away, against the moot, at the rate at
which Table I would be stable (one prompt a device each 819 s), without failures and with (`queueing/central.py`).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from folkmoot.core.law import Law, Lognormal, Trace, parse_law
from folkmoot.engine.timed import read_table
from folkmoot.errors import ConfigError
from folkmoot.queueing.central import Failures, Outcomes, centre, centre_latency, moot
from folkmoot.queueing.moot import Question, rho, simulate
from folkmoot.queueing.theory import theory

LENGTHS = Path(__file__).parents[2] / "shared/data/alpaca_eval_lengths.csv"
MODELS = ("Meta-Llama-3-70B-Instruct", "Qwen1.5-72B-Chat", "Mixtral-8x22B-Instruct-v0.1", "dbrx-instruct")
MOST_TOKENS = 1000.0
PUBLISHED_1 = {  # (M, k): seconds, the published script's queue
    (0, 0): (94, 0.6), (1, 1): (330, 2.04), (1, 2): (485, 3.28), (2, 1): (603, 2.32),
    (2, 2): (790, 4.80), (1, 3): (579, 3.74), (2, 3): (1074, 5.78),
}  # fmt: skip
PUBLISHED_2 = [
    {"latency_s": 1358.0, "queue_size_script": 1.83},
    {"latency_s": 807.0, "queue_size_script": 2.36},
]
"""All of Table II that is at hand; which rows these are is not."""
SLOW = 3.0
Laws = Callable[[float], tuple[Law, ...]]
"""The devices' services with a factor."""


def rows(laws: tuple[Law, ...], runs: int, seed: int) -> list[dict[str, Any]]:
    """All (M, k) of the paper with these services."""
    found = []
    for layers, proposers in PUBLISHED_1:
        seen = simulate(_asked(laws, layers, proposers, runs, seed))
        found.append(
            {
                "layers": layers, "proposers": proposers, "load": max(seen.rho),
                "latency_s": seen.latency.value, "latency_low": seen.latency.low, "latency_high": seen.latency.high,
                "queue_size": seen.queue_size.value, "queue_size_script": seen.queue_size_script.value,
            }
        )  # fmt: skip
    return found


def fitted(laws: Laws, latency_s: float, runs: int, seed: int) -> float:
    """The factor with which M = 0 takes so long. Latency is nearly linear in it, as the devices hardly ever rest."""
    factor = 45.0
    for _ in range(3):
        factor *= latency_s / simulate(_asked(laws(factor), 0, 0, 2 * runs, seed)).latency.value
    return factor


def _asked(laws: tuple[Law, ...], layers: int, proposers: int, runs: int, seed: int) -> Question:
    return Question(4, layers, proposers, (0.25,), laws, prompts=10, replications=runs, seed=seed)


def lengths(path: Path) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Capped lengths of the four models' answers, tokens, a row a prompt; and the means of the uncapped ones. Raises `ConfigError`."""
    columns = "+".join(f"{model}__tokens_cl100k" for model in MODELS)
    trace = parse_law(f"trace:{path}:{columns}", read_table)
    assert isinstance(trace, Trace)
    return tuple(tuple(min(each, MOST_TOKENS) for each in row) for row in trace.rows), means(trace.rows)


def means(table: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """Of each column."""
    return tuple(sum(column) / len(table) for column in zip(*table, strict=True))


def scaled(tokens: tuple[tuple[float, ...], ...], weights: tuple[float, ...]) -> Laws:
    """Services that move together as the lengths do, of means that are as the weights and 1 on average."""
    total = sum(weights) / len(weights)
    shares = [weight / total / mean for weight, mean in zip(weights, means(tokens), strict=True)]

    def laws(factor: float) -> tuple[Law, ...]:
        table = tuple(
            tuple(factor * share * each for share, each in zip(shares, row, strict=True)) for row in tokens
        )
        return (Trace(MODELS, table),)

    return laws


def table_1(runs: int, seed: int) -> dict[str, Any]:
    """One number fitted, seven latencies and two queue columns predicted."""
    mean_s = fitted(lambda factor: (Lognormal(factor, 0.5),), PUBLISHED_1[0, 0][0], runs, seed)
    found = rows((Lognormal(mean_s, 0.5),), runs, seed)
    for row in found:
        latency, queue = PUBLISHED_1[row["layers"], row["proposers"]]
        row |= {"published_latency_s": latency, "published_queue_size": queue}
    return {"mean_s": mean_s, "rows": found}


def table_2(
    path: Path, m0_s: float, slower: tuple[float, ...], runs: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means as the lengths of answers, and one slow device instead, each fitted to M = 0."""
    tokens, mean_tokens = lengths(path)
    slows = {f"{slow:g}": (slow, 1.0, 1.0, 1.0) for slow in slower}
    made: dict[str, dict[str, Any]] = {}
    for name, weights in {"lengths": mean_tokens, **slows}.items():
        laws = scaled(tokens, weights)
        factor = fitted(laws, m0_s, runs, seed)
        trace = laws(factor)[0]
        assert isinstance(trace, Trace)
        made[name] = {"means_s": means(trace.rows), "rows": rows((trace,), runs, seed)}
    by_length = made.pop("lengths") | {"m0_s": m0_s, "published": PUBLISHED_2}
    dependence = [
        {
            "slow": float(name), "layers": row["layers"], "proposers": row["proposers"],
            "latency_ratio": row["latency_s"] / other["latency_s"],
            "queue_ratio": row["queue_size_script"] / other["queue_size_script"],
        }
        for name, one in made.items() for row, other in zip(one["rows"], by_length["rows"], strict=True)
    ]  # fmt: skip
    return by_length, made[f"{SLOW:g}"] | {"slow": SLOW, "m0_s": m0_s, "dependence": dependence}


def central(horizon: float, runs: int, round_trip_s: float, failures: Failures, seed: int) -> dict[str, Any]:
    """The moot beside the central server, without failures and with."""
    found = []
    for layers, proposers in ((0, 0), (1, 3), (2, 2), (2, 3)):
        law = (Lognormal(45.5, 0.5),)
        asked = Question(4, layers, proposers, (1 / 819,), law, horizon=horizon, replications=runs, seed=seed)
        one = replace(asked, layers=0, proposers=0)
        field = theory(asked).latency
        found.append(
            {
                "layers": layers, "proposers": proposers, "load": float(max(rho(asked))),
                "moot": _served(moot(asked)) | {"theory_s": field and field.value, "tag": field and field.tag},
                "centre": _served(centre(asked, round_trip_s))
                | {"theory_s": centre_latency(asked, round_trip_s), "tag": "E"},
                "centre_one_job": {"theory_s": centre_latency(one, round_trip_s), "tag": "E"},
                "failing": {
                    "moot": _served(moot(asked, failures)),
                    "moot_elsewhere": _served(moot(asked, failures, elsewhere=True)),
                    "centre": _served(centre(asked, round_trip_s, failures)),
                },
            }
        )  # fmt: skip
    return {
        "round_trip_s": round_trip_s, "failures": asdict(failures), "up": failures.up,
        "nobody_answered": {"moot": failures.nobody(4), "centre": failures.nobody(1)}, "rows": found,
    }  # fmt: skip


def _served(outcomes: Outcomes) -> dict[str, Any]:
    seen = outcomes.summary()
    return {
        "latency_s": seen.latency.value, "low": seen.latency.low, "high": seen.latency.high,
        "answered": seen.answered.value, "answered_low": seen.answered.low, "answered_high": seen.answered.high,
        "refused": seen.refused.value,
    }  # fmt: skip


def told(found: dict[str, Any]) -> list[str]:
    """The tables for people."""
    lines = [f"Table I, mean service {found['table1']['mean_s']:.4g} s (paper's figures in brackets)"]
    for row in found["table1"]["rows"]:
        lines.append(
            f"  M={row['layers']} k={row['proposers']}  load {row['load']:5.1f}  {row['latency_s']:6.0f} s "
            f"({row['published_latency_s']:4})  waiting {row['queue_size']:.2f}, "
            f"script {row['queue_size_script']:.2f} ({row['published_queue_size']:.2f})"
        )
    for name, title in (
        ("table2_lengths", "means as lengths"),
        ("table2_one_slow", f"one of four {SLOW:g} times slower"),
    ):
        if (table := found[name]) is None:
            continue
        lines.append(
            f"Table II, {title}: services {', '.join(f'{mean:.1f}' for mean in table['means_s'])} s, "
            f"fitted to {table['m0_s']:g} s at M=0"
        )
        for row in table["rows"]:
            lines.append(
                f"  M={row['layers']} k={row['proposers']}  load {row['load']:5.1f}  {row['latency_s']:6.0f} s  "
                f"waiting {row['queue_size']:.2f}, script {row['queue_size_script']:.2f}"
            )
    if one := found["table2_one_slow"]:
        lines.append("Table II, one slow device over means as lengths: latency, script's queue")
        for each in one["dependence"]:
            lines.append(
                f"  {each['slow']:g} times slower  M={each['layers']} k={each['proposers']}  "
                f"{each['latency_ratio']:.2f}  {each['queue_ratio']:.2f}"
            )
    both = found["central"]
    lines.append(
        f"Central server, {both['round_trip_s']:g} s away; machines up {100 * both['up']:.1f} % of the time, nobody answered "
        f"for {100 * both['nobody_answered']['centre']:.2g} % of it, in the moot {100 * both['nobody_answered']['moot']:.2g} %"
    )
    for row in both["rows"]:
        failing = row["failing"]
        lines.append(
            f"  M={row['layers']} k={row['proposers']}  load {row['load']:.2f}  "
            f"moot {row['moot']['latency_s']:.1f} s, centre {row['centre']['latency_s']:.1f} s "
            f"([E] {row['centre']['theory_s']:.1f}; one job {row['centre_one_job']['theory_s']:.1f}); failing: answered moot "
            f"{100 * failing['moot']['answered']:.1f} %, at any device {100 * failing['moot_elsewhere']['answered']:.1f} %, "
            f"centre {100 * failing['centre']['answered']:.1f} %, "
            f"in {failing['moot']['latency_s']:.1f}, {failing['moot_elsewhere']['latency_s']:.1f} and {failing['centre']['latency_s']:.1f} s"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs, within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--lengths", type=Path, default=LENGTHS, help="CSV of answer lengths (Table II)")
    parser.add_argument("--table2-m0", type=float, default=94.0, help="seconds of Table II's row M = 0")
    parser.add_argument("--round-trip", type=float, default=1.0, help="seconds to the centre and back")
    parser.add_argument(
        "--mttf", type=float, default=14400.0, help="mean time to failure of a machine, seconds"
    )
    parser.add_argument("--mttr", type=float, default=1200.0, help="mean time to its repair, seconds")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    runs, horizon, repeats = (400, 250.0, 8) if args.quick else (2_500, 4000.0, 20)
    slower = (1.0, SLOW) if args.quick else (1.0, 2.0, SLOW, 4.0, 6.0)
    found: dict[str, Any] = {
        "table1": table_1(runs, args.seed),
        "table2_lengths": None,
        "table2_one_slow": None,
    }
    try:
        found["table2_lengths"], found["table2_one_slow"] = table_2(
            args.lengths, args.table2_m0, slower, runs, args.seed
        )
    except ConfigError as error:
        print(f"Table II is left out: {error}", file=sys.stderr)
    found["central"] = central(horizon, repeats, args.round_trip, Failures(args.mttf, args.mttr), args.seed)
    for line in told(found):
        print(line, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        machine = {"arch": platform.machine(), "python": platform.python_version()}
        print(json.dumps(found | {"machine": machine, "seed": args.seed}))


if __name__ == "__main__":
    main()
