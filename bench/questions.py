"""What questions of public sets are taken for, how alike strong models' answers are, and what the floor would do to them.

    python bench/questions.py --json

Reads ../shared/data (DATA.md says what it is); no model runs. `kinds`: what `core.extract.kind_of` says, by set: AlpacaEval's
instructions, GSM8K bare, BIG-Bench-Hard where it offers options. `similar`: the share of AlpacaEval's prompts on which the
answers of the paper's four models are as alike as `node.peer.committee.similar` asks. `floored`: of each of their answers, taken for an
aggregate of the other three, how many `core.floor` would replace, and why.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

from folkmoot.core.committee import CommitteeConfig
from folkmoot.core.extract import kind_of
from folkmoot.core.floor import Text, below
from folkmoot.core.medoid import medoid

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
MODELS = ("Meta-Llama-3-70B-Instruct", "Mixtral-8x22B-Instruct-v0.1", "Qwen1.5-72B-Chat", "dbrx-instruct")
"""The paper's."""


def rows(data: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a set."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="every tenth prompt for the answers")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with the sets")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        parser.error(f"{asked.data} is not there; name the folder of the sets with --data")
    began = time.perf_counter()
    prompts = [row["instruction"] for row in rows(asked.data, "alpaca_eval_prompts")]
    options = [row["input"] for row in rows(asked.data, "bbh") if "Options:\n(A)" in row["input"]]
    sets = {
        "alpaca_eval": prompts,
        "gsm8k": [row["question"] for row in rows(asked.data, "gsm8k")],
        "bbh_options": options,
    }
    kinds = {name: Counter(kind_of(each).value for each in some) for name, some in sets.items()}
    step = 10 if asked.quick else 1
    columns = [
        [row["output"] for row in rows(asked.data, f"alpaca_eval_outputs_{model}")] for model in MODELS
    ]
    answers = list(zip(prompts, *columns, strict=True))[::step]
    enough = CommitteeConfig().similar
    alike = [medoid(texts, [1.0] * len(texts)).agreement for _, *texts in answers]
    why: Counter[str] = Counter()
    for prompt, *texts in answers:
        for place, aggregate in enumerate(texts):
            others = [Text(text) for at, text in enumerate(texts) if at != place]
            found = below(kind_of(prompt), prompt, Text(aggregate), others)
            why.update([found[1]] if found is not None else [])
    told = {
        "kinds": kinds, "similar": sum(each >= enough for each in alike) / len(alike),
        "floored": why, "aggregates": len(answers) * len(MODELS), "wall_s": time.perf_counter() - began,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": None,
    }  # fmt: skip
    print(json.dumps(told) if asked.json else json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
