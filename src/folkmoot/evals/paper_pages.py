"""The paper's tables and claims as parts of the report for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from folkmoot.evals.claims import Claim
from folkmoot.evals.pages import Block, Grid, Heading, Plot, Words, speeds_told
from folkmoot.evals.paper import ABOVE, BELOW, PaperRow, PaperTable
from folkmoot.evals.queues import LONG, LONG_RUNS, SHORT, SHORT_RUNS, again, queues, work_of
from folkmoot.evals.report import Table
from folkmoot.queueing.estimate import Interval

CURVE = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.2)
"""Loads of the figure, as shares of a row's own limit."""
CURVE_RUNS = 3


def blocks(tables: Sequence[PaperTable], claims: Sequence[Claim]) -> Iterator[Block]:
    """A section for each table and one for the claims; nothing without tables."""
    if not tables:
        return
    yield Heading(2, "The paper's tables, redone")
    yield Words(
        "Accuracy, with its 95 % Wilson interval, is that of the prompts that all rows of a table have. Latencies and queues are those of the recorded jobs, "
        f"which come at random and are served first come first served. The load that lasts is {BELOW} of the least limit of the rows, the same prompts a "
        f"second in all of them ({LONG_RUNS} runs of {LONG:,} prompts, the first fifth not counted); the overload is {ABOVE} times the largest limit, "
        f"{SHORT} prompts from empty queues as in the paper ({SHORT_RUNS} runs). Queue: jobs waiting on a device, the time average; script: what the paper's "
        "published script prints for the same jobs. Latency alone: with nothing else to do."
    )
    for number, table in enumerate(tables):
        yield from _table(table, number)
    yield Heading(3, "The paper's claims")
    yield Grid((("claim", "verdict", "why"), *((each.claim, each.verdict, each.why) for each in claims)))


def live(found: Sequence[Table]) -> Iterator[Block]:
    """What real devices did with prompts that came at random, beside what the simulation says of the very same prompts and times."""
    some = [
        table for table in found if table.setup.rate and any(row.failed < row.prompts for row in table.rows)
    ]
    if not some:
        return
    yield Heading(2, "The recorded jobs on live devices")
    yield Words(
        "Prompts came at random to real devices, whose answers came from the store and took their time. Measured: mean latency and the time average of jobs "
        "waiting on a device, from the provenances; reckoned: the simulation of the same prompts at the same times; in the model's seconds."
    )
    for table in some:
        setup, names = table.setup, ", ".join(dict.fromkeys(table.setup.models))
        yield Words(
            f"{len(setup.models)} devices with {names}; a prompt each {1 / setup.rate:.1f} s; pace {setup.pace:g}."
        )
        rows = []
        for row in table.rows:
            if not any(each.wall_s for each in table.records[row.arm].values()):
                continue  # it was counted from drafts, or nothing was answered
            told = again(list(table.records[row.arm].values()), len(setup.models), setup.pace)
            rows.append((
                row.arm, str(row.prompts), f"{told.load:.2f}", f"{row.latency_s:.2f} s", f"{told.latency_s:.2f} s",
                f"{row.queue_size:.3f}", f"{told.size:.3f}", f"{told.script:.3f}",
            ))  # fmt: skip
        head = (
            "arm",
            "prompts",
            "load",
            "latency",
            "reckoned",
            "queue",
            "reckoned",
            "script's queue, reckoned",
        )
        yield Grid((head, *rows))


def _table(table: PaperTable, number: int) -> Iterator[Block]:
    models = f"{len(table.models)} × {table.models[0]}" if table.same else ", ".join(table.models)
    yield Heading(3, f"Table {'I' if table.same else 'II'}: {models}")
    low, high = table.rows[0].below.rate_hz, table.rows[0].ten.rate_hz
    yield Words(
        f"{table.rows[0].prompts} prompts. A prompt each {1 / low:.1f} s over all devices, and each {1 / high:.1f} s."
        + (f" A device with {speeds_told(table.speeds)} tokens a second." if table.speeds else "")
    )
    head = (
        "M", "k", "right", "jobs", "latency alone", "limit: a prompt each", "load", "latency", "queue", "script",
        "load", "latency of ten", "queue", "script",
    )  # fmt: skip
    yield Grid((head, *map(_cells, table.rows)))


def _cells(row: PaperRow) -> tuple[str, ...]:
    share = row.right
    return (
        str(row.layers), str(row.proposers), f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})",
        f"{row.jobs:.2f}", f"{row.rest_s:.1f} s", f"{1 / row.limit_hz:.1f} s", f"{row.below.load:.2f}", f"{_mean(row.below.latency)} s",
        _mean(row.below.size), _mean(row.below.script), f"{row.ten.load:.1f}", f"{_mean(row.ten.latency)} s", _mean(row.ten.size),
        _mean(row.ten.script),
    )  # fmt: skip


def _mean(of: Interval) -> str:
    return f"{of.value:.2f} ± {of.high - of.value:.2f}"


def curves(tables: Sequence[PaperTable]) -> list[Plot]:
    """Latency against load, a figure for each table."""
    return [
        Plot(
            f"load-{number}", f"Latency against load, table {'I' if table.same else 'II'}",
            ("load of the busiest device", "mean latency, s (95 % interval)"), partial(_curve, table), logarithmic=True,
        )
        for number, table in enumerate(tables, 1)
    ]  # fmt: skip


def _curve(table: PaperTable, axes: Any) -> None:
    for row in table.rows:
        work = work_of(list(row.records.values()), len(table.models))
        seen = [queues(work, load * work.limit_hz, prompts=LONG, runs=CURVE_RUNS) for load in CURVE]
        means = [each.latency for each in seen]
        reach = [[each.value - each.low for each in means], [each.high - each.value for each in means]]
        name = f"M={row.layers} k={row.proposers}"
        axes.errorbar(CURVE, [each.value for each in means], yerr=reach, marker="o", capsize=3, label=name)
    axes.axvline(1.0, linestyle=":", color="grey")
