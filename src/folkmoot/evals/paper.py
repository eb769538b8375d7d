"""The paper's two tables, redone: its seven rows with accuracy, latency and queues, for a load that can last and one that cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from folkmoot.evals.arms import shape_of
from folkmoot.evals.queues import LONG, LONG_RUNS, SHORT, SHORT_RUNS, Queues, Work, queues, work_of
from folkmoot.evals.records import Record
from folkmoot.evals.report import Table
from folkmoot.evals.statistics import Interval, wilson
from folkmoot.evals.store import Speed

BELOW, ABOVE = 0.7, 1.3
"""The load that can last is so much of the least limit of the rows, the other so much of the largest: the same prompts a second in all rows."""
INSIDE, OUTSIDE, FAR = 0.8, 1.25, 2.0
"""Shares of a row's own limit at which its queues must stay, must grow, and grow so that it is seen how."""
LEAST = 10
"""Prompts that all rows must have in common."""


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One (M, k) on the prompts that all rows have. `rest_s` is its mean latency with nothing else to do, seconds.

    `alpha_s` is the mean service of its jobs and `jobs` their mean number, so that `alpha_s * jobs / devices` seconds of work a prompt
    brings each device in the mean; `limit_hz` is where the busiest device's load is 1, prompts a second over all devices.
    `below` and `above` are long runs at one rate for all rows, `ten` the paper's ten prompts at the second; `inside` and `outside`
    and `far` are long runs at shares of the own limit.
    """

    layers: int
    proposers: int
    right: Interval
    prompts: int
    rest_s: float
    alpha_s: float
    jobs: float
    limit_hz: float
    below: Queues
    above: Queues
    ten: Queues
    inside: Queues
    outside: Queues
    far: Queues
    records: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """The rows of one moot, on the same `prompts` of the same sets. `speeds`, by model, as in `Table`."""

    models: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    speeds: Mapping[str, Speed] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether all devices have the same model: the paper's Table I, else its Table II."""
        return len({*self.models}) == 1


def paper(table: Table) -> PaperTable | None:
    """A moot's rows of the paper's tables; None where there are not enough."""
    kept = _shared(table)
    if not kept:
        return None
    devices = len(table.setup.models)
    works = {shape: work_of(list(records.values()), devices) for shape, records in kept.items()}
    limits = [work.limit_hz for work in works.values()]
    rates = BELOW * min(limits), ABOVE * max(limits)
    rows = tuple(_row(shape, records, works[shape], *rates) for shape, records in kept.items())
    return PaperTable(table.setup.models, rows, table.speeds)


def enough(table: Table) -> bool:
    """Whether two of the paper's rows or more share `LEAST` prompts."""
    return bool(_shared(table))


def _shared(table: Table) -> dict[tuple[int, int], Mapping[str, Record]]:
    """The rows by (M, k), each with the prompts that all of them have."""
    found: dict[tuple[int, int], Mapping[str, Record]] = {}
    if table.setup.rate:  # its prompts met each other: their times are not what a prompt takes
        return {}
    for arm, records in table.records.items():
        shape = shape_of(arm)
        if shape is not None:
            checked = {task: record for task, record in records.items() if record.right is not None}
            if all(record.error for record in checked.values()):
                continue  # nothing was answered: there is no work to be queued
            found.setdefault(shape, checked)
    # A row that was hardly begun does not take the prompts of the others away.
    most = max(map(len, found.values()), default=0)
    found = {shape: records for shape, records in found.items() if 2 * len(records) >= most}
    shared = set.intersection(*map(set, found.values())) if found else set()
    if len(found) < 2 or len(shared) < LEAST:
        return {}
    return {
        shape: {task: records[task] for task in sorted(shared)} for shape, records in sorted(found.items())
    }


def _row(
    shape: tuple[int, int], records: Mapping[str, Record], work: Work, below_hz: float, above_hz: float
) -> PaperRow:
    answered = [record for record in records.values() if not record.error]
    seconds = [sum(job.inference_s for job in record.jobs if job.outcome == "ok") for record in answered]
    jobs = sum(job.outcome == "ok" for record in answered for job in record.jobs)

    def at(rate_hz: float, prompts: int = LONG, runs: int = LONG_RUNS) -> Queues:
        return queues(work, rate_hz, prompts=prompts, runs=runs)

    return PaperRow(
        *shape,
        wilson(sum(bool(record.right) for record in records.values()), len(records)),
        len(records),
        sum(record.latency_s for record in answered) / len(answered) if answered else math.nan,
        sum(seconds) / jobs if jobs else math.nan,
        jobs / len(answered) if answered else math.nan,
        work.limit_hz,
        at(below_hz),
        at(above_hz),
        at(above_hz, SHORT, SHORT_RUNS),
        at(INSIDE * work.limit_hz),
        at(OUTSIDE * work.limit_hz),
        at(FAR * work.limit_hz),
        records,
    )


def as_rows(found: PaperTable) -> Sequence[dict[str, object]]:
    """ROWs of the interface: latency and queue at the load that can last; `ten` are the paper's ten prompts at one that cannot."""
    return [
        {
            "layers": row.layers, "proposers": row.proposers, "prompts": row.prompts, "accuracy": row.right.value,
            "accuracy_low": row.right.low, "accuracy_high": row.right.high, **_queued(row.below), "rest_s": row.rest_s,
            "limit_rate": row.limit_hz / len(found.models), "ten": _queued(row.ten), "models": list(found.models),
        }
        for row in found.rows
    ]  # fmt: skip


def _queued(seen: Queues) -> dict[str, float]:
    return {
        "load": seen.load, "latency_s": seen.latency.value, "latency_low": seen.latency.low, "latency_high": seen.latency.high,
        "queue_size": seen.size.value, "queue_size_low": seen.size.low, "queue_size_high": seen.size.high,
        "queue_size_script": seen.script.value,
    }  # fmt: skip
