"""What choosing the draft that the others are most like is worth, by TF-IDF and by embeddings of a small model.

    python bench/medoid.py --json                          stored drafts of GSM8K and BIG-Bench-Hard, TF-IDF alone
    python bench/medoid.py --embed smollm2 --json          the `/embedding` of a packaged model (mean over its tokens) beside it

Of each task of which four drafts of one model are stored: the share that is right of one draft (all four in the mean), of the medoid by
TF-IDF (`core.medoid`), of the medoid by each embedding, and of the vote of all four; and the same on the half of
the tasks whose drafts are more alike. The choosers see the words alone, as with open answers; that there is a right
answer at all is what lets it be counted. `medoid_less_draft` has its paired 95 % bootstrap interval. A static embedding from a hub cannot be tried
where no hub can be reached.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from operator import mul
from pathlib import Path
from typing import Any

from folkmoot.core.committee import Vote, count
from folkmoot.core.extract import extract, kind_of
from folkmoot.core.medoid import medoid
from folkmoot.evals.draws import asked_at
from folkmoot.evals.statistics import difference
from folkmoot.evals.store import Call, Store
from folkmoot.evals.tasks import Task, load

PLACES = 4
SETS = ("gsm8k", "bbh")
QUICK = 40
"""Tasks of a set with --quick."""

Chooser = Callable[[Sequence[str]], tuple[int, float]]
"""From texts to the place of one and how alike all are."""
_SERVERS: list[object] = []
"""What is forgotten would be shut down."""


def by_words(texts: Sequence[str]) -> tuple[int, float]:
    """The moot's own."""
    found = medoid(texts, [1.0] * len(texts))
    return found.place, found.agreement


def by_vectors(embed: Callable[[str], Sequence[float]]) -> Chooser:
    """The medoid by the cosine of embeddings."""

    def choose(texts: Sequence[str]) -> tuple[int, float]:
        vectors = [_unit(embed(text or " ")) for text in texts]
        sums = [
            sum(sum(map(mul, one, other)) for j, other in enumerate(vectors) if i != j)
            for i, one in enumerate(vectors)
        ]
        return max(range(len(texts)), key=lambda i: (round(sums[i], 9), -i)), sum(sums) / len(texts) / (
            len(texts) - 1
        )

    return choose


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector) or 1.0
    return [each / length for each in vector]


def server_of(model: str) -> Callable[[str], list[float]]:
    """A model's `/embedding`, the mean over its tokens; the server ends with this process."""
    from xllamacpp.xllamacpp import CommonParams, Server, llama_pooling_type

    from folkmoot.engine.config import default_models_folder
    from folkmoot.engine.weights import find

    settings = CommonParams()
    settings.model.path = str(find(model, default_models_folder()).path)
    settings.port = 0
    settings.embedding, settings.pooling_type = True, llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 1024
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 2
    settings.verbosity = -1
    settings.warmup = False
    server = Server(settings)
    address = server.listening_address
    _SERVERS.append(server)

    def embed(text: str) -> list[float]:
        body = json.dumps({"content": text[:2_000]}).encode()
        asked = urllib.request.Request(f"{address}/embedding", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=120) as response:
            told = json.load(response)
        found = told[0]["embedding"] if isinstance(told, list) else told["embedding"]
        return found[0] if isinstance(found[0], list) else found

    return embed


def drafts_of(store: Store, task: Task, model: str) -> list[Call] | None:
    """The task's drafts in the order of their places, if all are stored."""
    found = [store.find(asked_at(model, task, place)) for place in range(PLACES)]
    return None if None in found else [each for each in found if each is not None]


def figures(whole: Sequence[tuple[Task, list[Call]]], choosers: dict[str, Chooser]) -> dict[str, Any]:
    """Shares that are right by chooser, over all tasks and over the half whose drafts are more alike to it."""
    rights = [[task.right(call.text) for call in calls] for task, calls in whole]
    votes = []
    for task, calls in whole:
        kind = kind_of(task.question)
        found = count([Vote(extract(kind, call.text, call.truncated, task.question)) for call in calls])
        votes.append(found.best if found else 0)
    told: dict[str, Any] = {
        "tasks": len(whole), "draft": statistics.fmean(statistics.fmean(each) for each in rights),
        "vote": statistics.fmean(right[vote] for right, vote in zip(rights, votes, strict=True)),
        "any": statistics.fmean(any(each) for each in rights), "choosers": {},
    }  # fmt: skip
    for name, choose in choosers.items():
        chosen = [choose([call.text for call in calls]) for _, calls in whole]
        middle = statistics.median(agreement for _, agreement in chosen)
        pairs = {
            task.name: [(float(right[place]), statistics.fmean(right))]
            for (task, _), right, (place, _) in zip(whole, rights, chosen, strict=True)
        }
        alike = [
            task.name for (task, _), (_, agreement) in zip(whole, chosen, strict=True) if agreement >= middle
        ]
        gain = difference(pairs)
        told["choosers"][name] = {
            "medoid": statistics.fmean(each[0][0] for each in pairs.values()),
            "medoid_less_draft": [gain.value, gain.low, gain.high], "median_similarity": middle,
            "alike": {
                "medoid": statistics.fmean(pairs[each][0][0] for each in alike),
                "draft": statistics.fmean(pairs[each][0][1] for each in alike),
            },
        }  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} tasks of each set")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=Path, default=root / "results" / "calls.jsonl.xz")
    parser.add_argument(
        "--data", type=Path, default=root.parent / "shared" / "data", help="the folder with the sets"
    )
    parser.add_argument("--model", default="Qwen2.5-Coder-1.5B-Instruct", help="whose drafts")
    parser.add_argument(
        "--embed", action="append", default=[], metavar="NAME", help="a packaged model that embeds"
    )
    asked = parser.parse_args()
    if not asked.calls.is_file() or not asked.data.is_dir():
        parser.error("name the stored calls with --calls and the folder of the sets with --data")
    began = time.perf_counter()
    choosers = {"tf-idf": by_words} | {name: by_vectors(server_of(name)) for name in asked.embed}
    sets = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "calls.sqlite")
        store.read(asked.calls)
        for name in SETS:
            drafts = [
                (task, drafts_of(store, task, asked.model)) for task in load(asked.data / f"{name}.jsonl.gz")
            ]
            whole = [(task, calls) for task, calls in drafts if calls is not None]
            if whole:
                sets[name] = figures(whole[: QUICK if asked.quick else None], choosers)
        store.close()
    if not sets:
        parser.error(f"{asked.calls} holds no four drafts by {asked.model} of any task")
    told = {
        "sets": sets, "model": asked.model, "wall_s": time.perf_counter() - began,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": 0,
    }  # fmt: skip
    print(json.dumps(told) if asked.json else json.dumps(told, indent=1))
    sys.stdout.flush()
    os._exit(0)  # the server's threads do not end by themselves


if __name__ == "__main__":
    main()
