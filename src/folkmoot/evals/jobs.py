"""The jobs of a prompt, and how long they take together where each takes what it once took and nobody has anything else to do."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from folkmoot.core.messages import Stage
from folkmoot.core.mixture import ASKED_TOO
from folkmoot.evals.store import Speed


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a prompt. `inference_s` and `first_token_s` are what the model took when it wrote this text, seconds.

    `queued_s` is how long it waited at its device in this run, in the run's own seconds.
    """

    layer: int
    stage: str
    device: str
    model: str
    outcome: str
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    inference_s: float
    first_token_s: float
    queued_s: float = 0.0

    def at(self, speed: Speed | None) -> Job:
        """The same job as a device of this speed does it; as it was done where none is given."""
        if speed is None:
            return self
        first_token_s, inference_s = speed.takes_s(self.tokens_in, self.tokens_out)
        return replace(self, first_token_s=first_token_s, inference_s=inference_s)


_WORKED = ("ok", "late", "cancelled")
"""Outcomes of jobs that took a device's time."""


def steps(
    jobs: Sequence[Job], decisions: Iterable[tuple[str, str]], outcomes: Container[str] = ("ok",)
) -> list[dict[str, float]]:
    """Seconds of work by device, for each step of a prompt that begins when the one before it has ended, of jobs that ended so.

    Steps are layers, in the first one the waves of a committee, and behind a layer its judge. A device reads the question once in
    a layer; a judge reads its answers.
    """
    more = [what.removesuffix(ASKED_TOO).count(", ") + 1 for what, _ in decisions if what.endswith(ASKED_TOO)]
    found = []
    for layer in sorted({job.layer for job in jobs}):
        here, have_read = [job for job in jobs if job.layer == layer], set[str]()
        some = [job for job in here if job.stage != Stage.JUDGE]
        for wave in _waves(some, more if layer == 1 else []):
            took: dict[str, float] = {}
            for job in wave:
                if job.outcome in outcomes:
                    read_s = job.first_token_s if job.device in have_read else 0.0
                    took[job.device] = took.get(job.device, 0.0) + job.inference_s - read_s
                    have_read.add(job.device)
            if took:
                found.append(took)
        judged = [job for job in here if job.stage == Stage.JUDGE and job.outcome in outcomes]
        found += [{job.device: job.inference_s} for job in judged]
    return found


def worked(jobs: Sequence[Job], decisions: Iterable[tuple[str, str]]) -> list[dict[str, float]]:
    """The same steps with all that devices did, also what was stopped or came too late; a job that was stopped had no more time than the
    one that settled its vote, so they last no longer by it."""
    return steps(jobs, decisions, _WORKED)


def busiest_s(work: Iterable[tuple[Hashable, float]]) -> float:
    """Seconds of the device that has the most of this work, of which each part has its device."""
    took: dict[Hashable, float] = {}
    for device, seconds in work:
        took[device] = took.get(device, 0.0) + seconds
    return max(took.values(), default=0.0)


def latency_s(jobs: Sequence[Job], decisions: Iterable[tuple[str, str]]) -> float:
    """Seconds of the jobs that nothing else could be done beside, in the order in which a provenance tells them.

    A wave that was decided before all had answered took less.
    """
    return sum(max(step.values()) for step in steps(jobs, decisions))


def _waves(jobs: Sequence[Job], more: Sequence[int]) -> list[Sequence[Job]]:
    """The jobs that were asked for at first, and those of each time when so many more were."""
    ends = [len(jobs)]
    for count in reversed(more):
        ends.insert(0, max(0, ends[0] - count))
    return [jobs[start:end] for start, end in zip([0, *ends], ends, strict=False)]
