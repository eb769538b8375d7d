"""AlpacaEval 2.0's win rates of twelve models, ours beside those that the leaderboard prints.

    pip install -c constraints.txt -e '.[judge]'
    python bench/winrate.py --json

Reads the preferences of the published judge from ../shared/data (DATA.md says what they are). `win_rate` must be the published one to
0.01 points; `worst_controlled` is of all models, `within_2` how many lie within two points. The difficulties are a stand-in for the
file that the package would download, and the package's model without gamed baselines is fitted.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
import warnings
from pathlib import Path

from folkmoot.evals.winrate import load, win_rate

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the same: it takes half a minute")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with AlpacaEval's files")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        parser.error(f"{asked.data} is not there; name the folder with AlpacaEval's files with --data")
    warnings.simplefilter("ignore")  # the package's own
    began = time.perf_counter()
    with (asked.data / "alpaca_eval_preferences_published.csv").open(newline="") as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    rows = []
    for model, judged in load(asked.data / "alpaca_eval_preferences.csv.gz").items():
        ours = win_rate(model, judged, asked.data / "alpaca_eval_instruction_difficulty.csv")
        theirs = published[model]
        rows.append(
            {
                "model": model, "ours": ours.win_rate, "published": float(theirs["win_rate"]),
                "ours_lc": ours.controlled, "published_lc": float(theirs["length_controlled_winrate"]),
            }
        )  # fmt: skip
        if not asked.json:
            print(json.dumps(rows[-1]), flush=True)
    off = [abs(row["ours_lc"] - row["published_lc"]) for row in rows]
    found = {
        "win_rate": rows, "worst_plain": max(abs(row["ours"] - row["published"]) for row in rows),
        "worst_controlled": max(off), "within_2": sum(each <= 2.0 for each in off), "models": len(rows),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": None,
        "wall_s": time.perf_counter() - began,
    }  # fmt: skip
    print(
        json.dumps(found)
        if asked.json
        else f"worst {found['worst_plain']:.5f} and {found['worst_controlled']:.2f} points"
    )


if __name__ == "__main__":
    main()
