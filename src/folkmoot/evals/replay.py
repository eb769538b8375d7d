"""Recorded jobs taken again by live devices, each in the time that it once took: latency and queues of the shipped path at any load.

Neither models nor tasks are needed. What is asked names a record, a job's seed names its layer and its place there; the answer
comes when the recorded one came, and says nothing. So only arms whose course hangs on no answer can be replayed: a device alone, and
the paper's M and k.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from folkmoot.core.mixture import seed_of
from folkmoot.errors import EvalError
from folkmoot.evals.draws import seed_for
from folkmoot.evals.jobs import Job
from folkmoot.evals.records import Record
from folkmoot.evals.store import Call, asked, key_of
from folkmoot.evals.tasks import Open, Task

TOKENS = 1_000
"""More than any recorded job wrote: none is cut off."""

_NAMED = re.compile(r"The recorded prompt <([^<>]+)> of <([^<>]+)>\.")
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "zu")


class Recorded:
    """The calls of recorded jobs, in place of a store."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = {record.key: record for record in records}
        self._like: dict[tuple[str, int, str], list[Job]] = {}
        for record in self._records.values():
            for job in record.jobs:
                if job.outcome == "ok":
                    self._like.setdefault((record.arm, job.layer, job.model), []).append(job)

    def find(self, body: Mapping[str, Any]) -> Call | None:
        """What the job took that this request is; None for one of no record.

        Raises `EvalError` where no record of the arm has a job of this model in this layer.
        """
        named = [_NAMED.search(str(turn["content"])) for turn in body["messages"]]
        found = next((each for each in named if each is not None), None)
        record = self._records.get((found[1], found[2])) if found is not None else None
        if record is None:
            return None
        job = self._job(record, str(body["model"]), body.get("seed"))
        # Its length in words is that of the recorded one; no two are the same.
        words = Random(key_of(body)).choices(_SYLLABLES, k=max(1, job.tokens_out))
        return Call(
            asked(body),
            " ".join(words),
            False,
            job.tokens_in,
            job.tokens_out,
            job.inference_s,
            job.first_token_s,
        )

    def _job(self, record: Record, model: str, seed: int | None) -> Job:
        """The job in the same place of the same layer. Where another model had that place, as peers of later layers are drawn anew, another one
        of this model there, or one of another prompt."""
        layers = sorted({job.layer for job in record.jobs})
        by_layer = {layer: [job for job in record.jobs if job.layer == layer] for layer in layers}
        at = {
            seed_of(seed_for(record.task), layer, place): (layer, place)
            for layer, jobs in by_layer.items()
            for place in range(len(jobs))
        }
        layer, place = at.get(-1 if seed is None else seed, (layers[-1], 0))
        here = by_layer[layer]
        for job in (here[place], *here):
            if job.model == model and job.outcome == "ok":
                return job
        like = self._like.get((record.arm, layer, model))
        if not like:
            raise EvalError(f"{record.arm}: no recorded job of layer {layer} is {model}'s")
        return Random(f"{record.task} {seed}").choice(like)

    def keep(self, call: Call) -> None:
        """Nothing is made here. Raises `EvalError`."""
        raise EvalError("a recorded job cannot be written anew")


def replayed(records: Iterable[Record]) -> list[Task]:
    """The tasks that these records are of, whose words name them."""
    return [
        Task(each.task, each.group, f"The recorded prompt <{each.task}> of <{each.arm}>.", Open(), TOKENS)
        for each in records
    ]


def shared(records: Sequence[Record], arms: Sequence[str], prompts: int | None) -> dict[str, list[Record]]:
    """The records of each arm, of the prompts that all arms answered; the first so many.

    Raises `EvalError` where there is none.
    """
    by_arm = {
        arm: {each.task: each for each in records if each.arm == arm and not each.error and each.jobs}
        for arm in arms
    }
    for arm, some in by_arm.items():
        if not some:
            there = ", ".join(sorted({each.arm for each in records}))
            raise EvalError(f"arm {arm} has no records to replay; there are {there}")
    first = next(iter(by_arm.values()))
    both = [task for task in first if all(task in some for some in by_arm.values())][:prompts]
    if not both:
        raise EvalError(f"no prompt has records in all of {', '.join(arms)}: replay them one by one")
    return {arm: [some[task] for task in both] for arm, some in by_arm.items()}
