"""From records to tables: what each arm got right, what it cost, and how sure a difference is."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from folkmoot.errors import EvalError
from folkmoot.evals.arms import shape_of
from folkmoot.evals.jobs import busiest_s, worked
from folkmoot.evals.records import SETUP, Record, Setup, load, read_setup
from folkmoot.evals.standings import Judgment, Verdicts, judges_told, marks_told, verdicts, win_rates
from folkmoot.evals.standings import load as load_judgments
from folkmoot.evals.statistics import Interval, difference, holm, known, mcnemar, wilson
from folkmoot.evals.store import Speed

_ALONE = re.compile(r"single(:\d+)?|M0-k0")


@dataclass(frozen=True, slots=True)
class Run:
    """One run's folder."""

    folder: Path
    setup: Setup
    records: tuple[Record, ...]
    judgments: tuple[Judgment, ...] = ()

    def at(self, speeds: Mapping[str, Speed]) -> Run:
        """The same run by devices of these speeds, by model; as it is where its answers' times were measured or reckoned before."""
        if self.setup.pace or self.setup.speed:
            return self
        return replace(self, records=tuple(record.at(speeds) for record in self.records))


@dataclass(frozen=True, slots=True)
class Against:
    """An arm against another on the prompts that both answered: the difference in shares, and McNemar's two numbers.

    `chance` is McNemar's exact p, `corrected` the same after Holm over all arms of the table. `here` and `there` are the shares that are right
    of just these prompts, `here_s` and `there_s` their mean latencies, seconds; `missing` prompts the other one answered and this one did not, of which it got `missed` right.
    """

    other: str
    prompts: int
    by: Interval
    only_here: int
    only_there: int
    chance: float
    here: float
    there: float
    here_s: float
    there_s: float
    missing: int
    missed: int
    corrected: float = math.nan

    @property
    def worst(self) -> float:
        """The difference in shares if this arm were wrong in all prompts that it lacks."""
        return (self.by.value * self.prompts - self.missed) / (self.prompts + self.missing)


@dataclass(frozen=True, slots=True)
class Row:
    """One arm of a moot. `limit_s`: at a prompt each so many seconds, over all devices, the busiest one has no time left. `queue_size` is the time average of jobs waiting on a device, in a run at a rate. `latency_s` is the mean over its prompts, `jobs` and `tokens` (written) are too; `command` makes it again.

    `right` is of the `checked` prompts, those whose answers a program can check, and NaN where there is none. Of `by_set` it got the
    first of the second number right; `by_jobs` are its prompts by how many jobs they made.
    """

    arm: str
    prompts: int
    checked: int
    right: Interval
    jobs: float
    tokens: float
    latency_s: float
    failed: int
    by_set: dict[str, tuple[int, int]]
    by_jobs: dict[int, int]
    command: str
    limit_s: float = math.nan
    queue_size: float = math.nan
    against: Against | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """All arms of one moot. `best` is the single device that got the most right of the prompts that all such answered, with which the
    others are compared.

    `auto` is that mode against each of the other arms; `records` are those of each arm by their tasks. `verdicts` are those of judges on
    what no program can check. `speeds`, by model, are those by which what jobs took is reckoned.
    """

    setup: Setup
    sets: tuple[str, ...]
    rows: tuple[Row, ...]
    best: str
    auto: tuple[Against, ...]
    records: Mapping[str, Mapping[str, Record]] = field(repr=False)
    verdicts: Verdicts = Verdicts()
    speeds: Mapping[str, Speed] = field(default_factory=dict)


def find(folder: Path) -> list[Run]:
    """The run of a folder, or those of the folders in it. Raises `EvalError` where there is none."""
    if (folder / SETUP).exists():
        folders = [folder]
    elif folder.is_dir():
        folders = sorted(each.parent for each in folder.glob(f"*/{SETUP}"))
    else:
        raise EvalError(f"{folder} is no folder: name that of a run (`folkmoot eval run --out`)")
    if not folders:
        raise EvalError(f"{folder} holds no run: name the folder of one (`folkmoot eval run --out`)")
    return [Run(each, read_setup(each), tuple(load(each)), tuple(load_judgments(each))) for each in folders]


def tables(
    runs: Sequence[Run], difficulty: Path | None = None, speeds: Mapping[str, Speed] | None = None
) -> list[Table]:
    """One table for each moot; the sets that it was asked in several runs are pooled.

    `difficulty` is AlpacaEval's file of difficulties, without which there is no length-controlled win rate. `speeds`, by model, are of the
    devices in whose time is reckoned what has no times of its own (`Run.at`).
    """
    apart: dict[tuple[Any, ...], list[Run]] = {}
    for run in (run.at(speeds or {}) for run in runs):
        setup = run.setup
        apart.setdefault(
            (setup.models, setup.origin, setup.pace, setup.speed, setup.seed, setup.rate, setup.skip), []
        ).append(run)
    return [_table(some, difficulty, speeds or {}) for some in apart.values()]


def _table(runs: Sequence[Run], difficulty: Path | None, speeds: Mapping[str, Speed]) -> Table:
    setup = runs[0].setup
    _one_file_each(runs)
    reckoned = (
        {} if setup.pace or setup.speed else {name: speeds[name] for name in {*setup.models} & {*speeds}}
    )
    by_arm: dict[str, dict[str, Record]] = {}
    command: dict[str, list[str]] = {}
    for run in runs:
        for record in run.records:
            kept = by_arm.setdefault(record.arm, {}).setdefault(record.task, record)
            if kept.answer != record.answer:
                raise EvalError(
                    f"two runs in {run.folder.parent} asked {record.task} of {record.arm} and have different answers: report on them one by one"
                )
            made = command.setdefault(record.arm, [])
            again = (
                f"{run.setup.command} --arms {shlex.quote(record.arm)} --out {shlex.quote(run.folder.name)}"
            )
            if again not in made:
                made.append(again)
    by_arm = {arm: by_arm[arm] for arm in sorted(by_arm, key=_rank)}
    rows = [_row(arm, list(some.values()), setup, " && ".join(command[arm])) for arm, some in by_arm.items()]
    checked = {
        arm: {task: record for task, record in some.items() if record.right is not None}
        for arm, some in by_arm.items()
    }
    best = _best({arm: some for arm, some in checked.items() if some and _ALONE.fullmatch(arm)})
    compared = {
        arm: against(checked[arm], best, checked[best], setup.pace) for arm in checked if best and arm != best
    }
    named = corrected({arm: each for arm, each in compared.items() if each is not None})
    auto = checked.get("auto", {})
    mine = {arm: against(auto, arm, some, setup.pace) for arm, some in checked.items() if arm != "auto"}
    return Table(
        setup,
        tuple(dict.fromkeys(each for run in runs for each in run.setup.sets)),
        tuple(replace(row, against=named.get(row.arm)) for row in rows),
        best,
        tuple(corrected({arm: each for arm, each in mine.items() if each is not None}).values()),
        by_arm,
        verdicts({each.key: each for run in runs for each in run.judgments}.values(), difficulty),
        reckoned,
    )


def _one_file_each(runs: Sequence[Run]) -> None:
    """Raises `EvalError` where two runs that are pooled have different files of one name: their tasks are not the same."""
    seen: dict[str, str] = {}
    for run in runs:
        for name, content in zip(run.setup.sets, run.setup.digests, strict=False):
            if seen.setdefault(name, content) != content:
                raise EvalError(
                    f"{run.folder} and another run have different files called {name}: report on them one by one"
                )


def _best(alone: dict[str, dict[str, Record]]) -> str:
    """Who of the devices alone got the most right of what all of them were asked; one that was asked less than half is not compared."""
    most = max(map(len, alone.values()), default=0)
    able = {arm: some for arm, some in alone.items() if 2 * len(some) >= most}
    both = [task for task in next(iter(able.values()), {}) if all(task in some for some in able.values())]
    return max(able, key=lambda arm: sum(bool(able[arm][task].right) for task in both), default="")


def _rank(arm: str) -> tuple[int, str]:
    """Devices alone first, then votes, `auto` and what was taken from it, the paper's rows, the rest."""
    kinds = ("single", "self-consistency", "majority", "auto", "M")
    return next((place for place, kind in enumerate(kinds) if arm.startswith(kind)), len(kinds)), arm


def _row(arm: str, records: Sequence[Record], setup: Setup, command: str) -> Row:
    by_set: dict[str, tuple[int, int]] = {}
    for record in records:
        if record.right is not None:
            right, count = by_set.get(record.set, (0, 0))
            by_set[record.set] = (right + record.right, count + 1)
    checked = sum(count for _, count in by_set.values())
    answered = [record for record in records if not record.error]
    pace = setup.pace
    whole_s = max((record.at_s + record.wall_s for record in answered), default=0.0)
    waited_s = sum(job.queued_s for record in answered for job in record.jobs)
    return Row(
        arm,
        len(records),
        checked,
        wilson(sum(right for right, _ in by_set.values()), checked),
        _mean(len(record.jobs) for record in answered),
        _mean(sum(job.tokens_out for job in record.jobs) for record in answered),
        _mean(_latency_s(record, pace) for record in answered),
        len(records) - len(answered),
        by_set,
        dict(sorted(Counter(len(record.jobs) for record in answered).items())),
        command,
        _busiest_s(answered),
        waited_s / whole_s / len(setup.models) if setup.rate and whole_s else math.nan,
    )


def _latency_s(record: Record, pace: float) -> float:
    """In the model's seconds: measured where answers took their time, else reckoned from the jobs."""
    return record.wall_s / pace if pace and record.wall_s else record.latency_s


def _busiest_s(records: Sequence[Record]) -> float:
    """Seconds of the busiest device for a prompt, in the mean."""
    some = (worked(record.jobs, record.decisions) for record in records)
    most = busiest_s(job for prompt in some for step in prompt for job in step.items())
    return most / len(records) if records else math.nan


def _mean(values: Iterable[float]) -> float:
    some = list(values)
    return sum(some) / len(some) if some else math.nan


def against(
    here: Mapping[str, Record], other: str, there: Mapping[str, Record], pace: float = 0.0
) -> Against | None:
    """One arm's records against another's; None where no task is in both. With a `pace` latencies were measured at that."""
    both = sorted(task for task in here if task in there)
    if not both:
        return None
    pairs = {task: [(float(bool(here[task].right)), float(bool(there[task].right)))] for task in both}
    only_here = sum(bool(here[task].right) and not there[task].right for task in both)
    only_there = sum(bool(there[task].right) and not here[task].right for task in both)
    missing = [task for task in there if task not in here]
    return Against(
        other, len(both), difference(pairs), only_here, only_there, mcnemar(only_here, only_there),
        sum(bool(here[task].right) for task in both) / len(both), sum(bool(there[task].right) for task in both) / len(both),
        _mean(_latency_s(here[task], pace) for task in both), _mean(_latency_s(there[task], pace) for task in both),
        len(missing), sum(bool(there[task].right) for task in missing),
    )  # fmt: skip


def corrected(some: dict[str, Against]) -> dict[str, Against]:
    """The same comparisons with Holm's correction for there being so many."""
    chances = holm([each.chance for each in some.values()])
    return {
        name: replace(each, corrected=chance)
        for (name, each), chance in zip(some.items(), chances, strict=True)
    }


# ---- JSON (INTERFACE.md) -------------------------------------------------------------------------------


def as_json(
    found: Sequence[Table],
    rows: Sequence[Sequence[Mapping[str, object]]] | None = None,
    claims: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """What `eval report --json` prints. What was not measured is null, or an empty list.

    `rows` are those of the paper's tables with their queues (`evals.paper`), one for each of `found`; a moot without has rows without.
    """
    redone = [()] * len(found) if rows is None else rows
    return {
        "tables": {
            kind: [
                row
                for table, there in zip(found, redone, strict=True)
                if table.setup.same is same
                for row in there or _paper(table)
            ]
            for kind, same in (("same", True), ("diverse", False))
        },
        "claims": list(claims),
        "auto": _auto(found),
        "win_rate": [
            {**row, "models": list(table.setup.models)}
            for table in found
            for row in win_rates(table.verdicts)
        ],
        "moots": [_moot(table) for table in found],
    }


def _paper(table: Table) -> list[dict[str, Any]]:
    rows = []
    for row in table.rows:
        shape = shape_of(row.arm)
        twice = row.arm == "single" and any(each.arm == "M0-k0" for each in table.rows)
        if shape is None or twice:
            continue
        rows.append({
            "layers": shape[0], "proposers": shape[1], "prompts": row.checked,
            "accuracy": known(row.right.value), "accuracy_low": row.right.low, "accuracy_high": row.right.high,
            "latency_s": known(row.latency_s),
            "queue_size": None, "queue_size_script": None, "models": list(table.setup.models),
        })  # fmt: skip
    # A device alone is a row beside others only.
    return sorted(rows, key=lambda row: (row["layers"], row["proposers"])) if len(rows) > 1 else []


def _auto(found: Sequence[Table]) -> dict[str, Any] | None:
    """`auto` less the best single device: of a diverse moot where there is one, as that is where it could do harm; of several that with the most prompts."""
    rows = [
        (table, row) for table in found for row in table.rows if row.arm == "auto" and row.against is not None
    ]
    for table, row in sorted(rows, key=lambda each: (each[0].setup.same, -each[1].prompts)):
        if row.against is not None:
            by = row.against.by
            return {
                "difference": by.value, "low": by.low, "high": by.high, "prompts": row.against.prompts,
                "jobs_mean": row.jobs, "against": row.against.other, "models": list(table.setup.models),
            }  # fmt: skip
    return None


def _moot(table: Table) -> dict[str, Any]:
    return {
        "models": list(table.setup.models), "sets": list(table.sets), "origin": table.setup.origin, "pace": table.setup.pace, "rate": table.setup.rate,
        "best_single": table.best,
        "arms": [
            {
                "arm": row.arm, "prompts": row.prompts, "checked": row.checked, "accuracy": known(row.right.value),
                "accuracy_low": row.right.low,
                "accuracy_high": row.right.high, "jobs_mean": known(row.jobs), "tokens_mean": known(row.tokens),
                "latency_s": known(row.latency_s), "limit_s": known(row.limit_s), "queue_size": known(row.queue_size), "failed": row.failed,
                "by_jobs": {str(jobs): prompts for jobs, prompts in row.by_jobs.items()},
                "by_set": {name: {"right": right, "prompts": count} for name, (right, count) in row.by_set.items()},
                "against_best": None if row.against is None else _compared(row.against), "command": row.command,
            }
            for row in table.rows
        ],
        "auto_against": [_compared(each) for each in table.auto],
        "marks": marks_told(table.verdicts), "judges": judges_told(table.verdicts),
    }  # fmt: skip


def _compared(each: Against) -> dict[str, Any]:
    return {
        "arm": each.other, "prompts": each.prompts, "difference": each.by.value, "low": each.by.low, "high": each.by.high,
        "only_here": each.only_here, "only_there": each.only_there, "p": each.chance, "p_holm": each.corrected,
        "accuracy": each.here, "accuracy_other": each.there, "latency_s": known(each.here_s), "latency_other_s": known(each.there_s), "missing": each.missing, "missing_right": each.missed, "worst_case": each.worst,
    }  # fmt: skip
