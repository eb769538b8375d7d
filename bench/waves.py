"""How a vote may be asked: three and then a fourth, all at once, one after another; from drafts that are stored.

    python bench/waves.py --calls results/calls.jsonl.xz --set ../shared/data/gsm8k.jsonl.gz --json

Of each task of which four drafts of one model are stored, in every order of the four: the share that is right, the jobs that are
begun, the time (by tokens, READ and WRITE a second) over that of the same votes one after another on one device and over that
of all four, and the tokens written in whole drafts, where what is still being written when two agree is stopped.
`--kind letter` takes only tasks whose answers are letters. `straggler` c: with four at once, the fourth is given up c times as late as the third where those three differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from folkmoot.core.committee import Committee, Vote, count, settled
from folkmoot.core.extract import extract, kind_of
from folkmoot.evals.draws import asked_at
from folkmoot.evals.store import Speed, Store
from folkmoot.evals.tasks import Task, load

PLACES = 4
WAVES = ((1,), (2, 1, 1), (2, 2), (3,), (3, 1), (4,))
STRAGGLERS = (1.1, 1.3, 1.5)


class Draft(NamedTuple):
    """What a draft says, whether that is right, and the seconds of its reading and writing."""

    value: str | None
    right: bool
    reading_s: float
    writing_s: float

    @property
    def whole_s(self) -> float:
        return self.reading_s + self.writing_s


class Outcome(NamedTuple):
    """Of one prompt: right or not, jobs begun, seconds until it was answered, seconds that devices worked."""

    right: bool
    jobs: int
    latency_s: float
    work_s: float


def voted(task: Task, drafts: Sequence[Draft], waves: Sequence[int], straggler: float = 0.0) -> Outcome:
    """Ask wave after wave; stop where two agree."""
    committee = Committee(kind_of(task.question), tuple(waves), 2)
    begun, now, work = 0, 0.0, 0.0
    there: list[int] = []
    for wave in waves:
        ends = sorted((now + drafts[place].whole_s, place) for place in range(begun, begun + wave))
        begun += wave
        for end, place in ends:
            late = straggler * ends[2][0] if straggler and place == ends[-1][1] else 0.0
            if late and end > late:
                found = count([Vote(drafts[at].value) for at in sorted(there)])
                best = sorted(there)[found.best] if found else 0
                return Outcome(
                    drafts[best].right, begun, late, work + sum(min(late, each) - now for each, _ in ends)
                )
            there.append(place)
            order = sorted(there)
            found = settled(committee, [Vote(drafts[at].value) for at in order])
            if found is not None:
                spent = work + sum(min(end, each) - now for each, _ in ends)
                return Outcome(drafts[order[found.best]].right, begun, end, spent)
        work += sum(end - now for end, _ in ends)
        now = ends[-1][0]
    found = count([Vote(drafts[at].value) for at in range(begun)])
    return Outcome(drafts[found.best if found else 0].right, begun, now, work)


def drafts_of(store: Store, task: Task, model: str, speed: Speed) -> list[Draft] | None:
    """The task's drafts in the order of their places, if all are stored."""
    found = []
    for place in range(PLACES):
        call = store.find(asked_at(model, task, place))
        if call is None:
            return None
        call = call.at(speed)
        value = extract(kind_of(task.question), call.text, call.truncated, task.question)
        found.append(
            Draft(value, task.right(call.text), call.first_token_s, call.inference_s - call.first_token_s)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=Path, default=root / "results" / "calls.jsonl.xz")
    parser.add_argument("--set", type=Path, default=root.parent / "shared" / "data" / "gsm8k.jsonl.gz")
    parser.add_argument(
        "--kind", help="only tasks whose answers are compared so: number, letter, yes or no, a few words"
    )
    parser.add_argument("--model", default="Qwen2.5-Coder-1.5B-Instruct")
    parser.add_argument("--speed", type=float, nargs=2, default=(40.0, 14.0), metavar=("READ", "WRITE"))
    asked = parser.parse_args()
    for file in (asked.calls, asked.set):
        if not file.is_file():
            parser.error(f"{file} is not there; name the stored calls with --calls, their tasks with --set")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "calls.sqlite")
        store.read(asked.calls)
        tasks = [task for task in load(asked.set) if asked.kind in (None, kind_of(task.question).value)]
        known = [(task, drafts_of(store, task, asked.model, Speed(*asked.speed))) for task in tasks]
        store.close()
    whole = [(task, drafts) for task, drafts in known if drafts is not None]
    if not whole:
        parser.error(f"{asked.calls} holds no four drafts by {asked.model} of any task in {asked.set}")
    mean_s = sum(each.whole_s for _, drafts in whole for each in drafts) / (PLACES * len(whole))
    rows = []
    for waves, straggler in [*((waves, 0.0) for waves in WAVES), *(((PLACES,), each) for each in STRAGGLERS)]:
        found, same_s, all_s = list[Outcome](), 0.0, 0.0
        for task, drafts in whole:
            for order in permutations(drafts):
                found.append(voted(task, order, waves, straggler))
                serial = [order[0].whole_s, *(each.writing_s for each in order[1:])]
                same_s += sum(serial[: found[-1].jobs])
                all_s += sum(serial)
        took_s = sum(each.latency_s for each in found)
        rows.append(
            {
                "waves": list(waves), "straggler": straggler, "right": sum(each.right for each in found) / len(found),
                "jobs": sum(each.jobs for each in found) / len(found), "of_same_votes": took_s / same_s,
                "of_four_votes": took_s / all_s, "written": sum(each.work_s for each in found) / len(found) / mean_s,
            }
        )  # fmt: skip
        if not asked.json:
            print(json.dumps(rows[-1]))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    print(
        json.dumps({"tasks": len(whole), "rows": rows, "machine": machine, "seed": 0})
        if asked.json
        else f"{len(whole)} tasks"
    )


if __name__ == "__main__":
    main()
