"""The report for people: Markdown, HTML and figures of the same tables."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, assert_never

from folkmoot.errors import EvalError
from folkmoot.evals.lines import pack
from folkmoot.evals.records import PACKED, Setup, write_setup
from folkmoot.evals.report import Against, Row, Run, Table
from folkmoot.evals.standings import JUDGMENTS_PACKED, Marks, Standing, Verdicts
from folkmoot.evals.statistics import Interval, wilson
from folkmoot.evals.store import Speed

REPORT, PAGE = "report.md", "report.html"
FIGURES = (("jobs", "jobs a prompt"), ("latency", "latency, s"))
"""Accuracy is drawn against these: a figure's name, and its axis."""

MARGIN = 0.03
"""What `auto` may be worse by at most, as a share of the prompts, to count as not worse: chosen before anything was measured."""


@dataclass(frozen=True, slots=True)
class Heading:
    """`level` 1 is the page's."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; its first row names the columns."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """What makes each arm again."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure's file, from the page's folder."""

    file: str
    text: str


Block = Heading | Words | Grid | Commands | Picture


def markdown(
    found: Sequence[Table], more: Sequence[Block] = (), figures: Sequence[Sequence[Picture]] = ()
) -> str:
    """The whole report as Markdown; `more` stands at its end."""
    return "\n\n".join(map(_markdown, [*_blocks(found, figures), *more])) + "\n"


def judged(found: Verdicts) -> str:
    """What judges said alone, as Markdown."""
    return "\n\n".join(map(_markdown, _judged(found))) + "\n"


def page(
    found: Sequence[Table], more: Sequence[Block] = (), figures: Sequence[Sequence[Picture]] = ()
) -> str:
    """The whole report as one HTML page."""
    body = "\n".join(map(_html, [*_blocks(found, figures), *more]))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Answers</title>\n<style>'
        "body{font:16px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
        "td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}</style>\n"
        f"{body}\n</html>\n"
    )


def write(
    runs: Sequence[Run],
    found: Sequence[Table],
    out: Path,
    more: Sequence[Block] = (),
    pictures: Sequence[Plot] = (),
) -> bool:
    """The pages, their figures, and the records, compressed, a folder for each run, which `find` takes again.

    Whether all figures were drawn that there are: without matplotlib none is. Raises `EvalError` where it cannot be written.
    """
    try:
        for run in runs:
            folder = out / run.folder.resolve().name
            pack(run.records, folder / PACKED)
            if run.judgments:
                pack(run.judgments, folder / JUDGMENTS_PACKED)
            write_setup(folder, run.setup)
        figures = [_drawn(plots(table, number), out) for number, table in enumerate(found, 1)]
        more = [*more, *_drawn(pictures, out)]
        (out / REPORT).write_text(markdown(found, more, figures), "utf-8")
        (out / PAGE).write_text(page(found, more, figures), "utf-8")
    except OSError as error:
        raise EvalError(
            f"{out} cannot be written: {error.strerror}; make room, or name another --out"
        ) from error
    return any(figures) or not any(plots(table, 1) for table in found)


# ---- what is told --------------------------------------------------------------------------------------


def _blocks(found: Sequence[Table], figures: Sequence[Sequence[Picture]]) -> Iterator[Block]:
    yield Heading(1, "Answers")
    for number, table in enumerate(found):
        yield from _section(table, figures[number] if figures else ())


def _section(table: Table, figures: Iterable[Picture]) -> Iterator[Block]:
    setup, best, rows = table.setup, table.best, table.rows
    yield Heading(2, f"{len(setup.models)} × {setup.models[0]}" if setup.same else ", ".join(setup.models))
    whose = (
        f"device {setup.origin}'s" if setup.origin is not None else f"drawn for each one: {_origins(table)}"
    )
    left = f" behind the first {setup.skip}, which are left out" if setup.skip else ""
    right = (
        f"Right: with its 95 % Wilson interval. Against {best or 'nothing'}, the single device that got the most right of the prompts that "
        "all such were asked (any that was asked less than half of them is left out of that): "
        "paired difference in points with its 95 % bootstrap interval (prompts drawn again), and McNemar's exact p after Holm's "
        "correction. "
    )
    yield Words(
        f"Tasks: {', '.join(table.sets)}, {_asked(table)} in the order of seed {setup.seed}{left}; whose prompts they are is "
        f"{whose}. {right if any(row.checked for row in rows) else ''}{_latency_says(setup, table.speeds)} "
        "At most one each: the work of a prompt for the device that has the most of it; prompts that come more often than that fill its queue."
    )
    head = (
        "arm",
        "prompts",
        "right",
        "jobs a prompt",
        "tokens a prompt",
        "latency",
        "at most one each",
        f"against {best}",
        "won, lost",
        "p",
    )
    yield Grid((head, *((row.arm, _prompts(row), _share(row.right), _told(row.jobs, "{:.2f}"), _told(row.tokens, "{:.0f}"),
                         _told(row.latency_s, "{:.1f} s"), _told(row.limit_s, "{:.1f} s"), *_words(row.against)) for row in rows)))  # fmt: skip
    failed = [f"{row.arm} {row.failed}" for row in rows if row.failed]
    if failed:
        yield Words("Without an answer (counted as wrong, or by a judge as lost): " + ", ".join(failed))
    for row in rows:
        if len(row.by_jobs) > 1:
            counts = ", ".join(f"{jobs}: {prompts}" for jobs, prompts in row.by_jobs.items())
            yield Words(f"Prompts of {row.arm} by their jobs: {counts}")
    yield from figures
    sets = list(dict.fromkeys(name for row in rows for name in row.by_set))
    if len(sets) > 1:
        yield Heading(3, "By set")
        shares = [
            (row.arm, *(_share(wilson(*row.by_set[name])) if name in row.by_set else "" for name in sets))
            for row in rows
        ]
        yield Grid((("arm", *sets), *shares))
    if table.auto:
        yield Heading(3, "auto against each")
        yield Words(
            f"On the prompts that both answered. Not worse: whether the interval's lower end lies above −{100 * MARGIN:g} points. Left out: prompts that the other one "
            "answered and auto did not (where calls come from the store alone, one was not there), of which the other got so many right, and the difference if auto "
            "were wrong in all of them. Arms of one moot share their drafts, so that they differ by what is made of these, and their intervals are those of a difference."
        )
        compared = [
            (
                each.other, str(each.prompts), f"{100 * each.here:.1f} %, {100 * each.there:.1f} %", *_words(each),
                f"{each.here_s:.1f} s, {each.there_s:.1f} s: {each.here_s / each.there_s:.2f}" if each.there_s else "",
                "yes" if each.by.low > -MARGIN else "no",
                f"{each.missing}, {each.missed} right: {100 * each.worst:+.1f}" if each.missing else "none",
            )
            for each in table.auto
        ]  # fmt: skip
        yield Grid((
            ("against", "prompts", "right: auto, the other", "difference", "won, lost", "p", "latency: auto, the other", "not worse", "left out"), *compared,
        ))  # fmt: skip
    yield from _judged(table.verdicts)
    yield Heading(3, "Made again by")
    yield Commands(tuple((row.arm, row.command) for row in rows))


def _origins(table: Table) -> str:
    """How many prompts each device asked, of those of any arm."""
    asked = {task: record.origin for some in table.records.values() for task, record in some.items()}
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(asked.values()).items()))


def _asked(table: Table) -> str:
    """How many of each set there are."""
    names = {task: record.set for some in table.records.values() for task, record in some.items()}
    return "the first " + ", ".join(
        f"{count} of {name}" for name, count in sorted(Counter(names.values()).items())
    )


def _judged(found: Verdicts) -> Iterator[Block]:
    for each in found.judges:
        yield Heading(3, f"Judged by {each.judge}")
        words = each.evidence
        if each.shown:
            lean = (
                "" if each.leaning is None else f": {100 * each.leaning:+.0f} points towards the first place"
            )
            words += (
                f" Of {each.shown} times that the same answer stood on both sides it chose the first place {each.first} times, the second "
                f"{each.second}, neither {each.tied}, and could not be read {each.unparsable}{lean}."
            )
        yield Words(words)
        yield from _standings([one for one in found.standings if one.judge == each.judge])
        yield from _marks([one for one in found.marks if one.judge == each.judge])


def _standings(some: Sequence[Standing]) -> Iterator[Block]:
    if not some:
        return
    head = (
        "arm", "set", "against", "pairs", "win rate", "length-controlled", "won, lost, tied", "flipped", "not read", "too long",
        "no answer",
    )  # fmt: skip
    rows = [
        (
            each.arm, each.set, each.against, str(each.pairs), _share(each.rate),
            "" if each.controlled is None else f"{each.controlled:.1f} %", f"{each.won}, {each.lost}, {each.tied}",
            *map(str, (each.flipped, each.unparsable, each.too_long, each.unanswered)),
        )
        for each in some
    ]  # fmt: skip
    yield Grid((head, *rows))
    why = list(dict.fromkeys(each.uncontrolled for each in some if each.uncontrolled))
    yield Words(
        "Win rate: each pair is judged in both orders and counts their mean, a tie half; its 95 % bootstrap interval is over prompts. A tie "
        "is flipped where the judge took the same place in both orders. A pair of which a verdict could not be read, or that was too long "
        "for the judge, counts nowhere; an answer that is missing loses."
        + "".join(f" No length-controlled win rate: {each}." for each in why)
    )


def _marks(some: Sequence[Marks]) -> Iterator[Block]:
    if some:
        rows = [
            (each.arm, each.set, each.name, str(each.count), _mark(each.mean), str(each.unread)) for each in some
        ]  # fmt: skip
        yield Grid((("arm", "set", "mark of", "marks", "mean", "not read"), *rows))


def _mark(of: Interval) -> str:
    return "" if math.isnan(of.value) else f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})"


def speeds_told(speeds: Mapping[str, Speed]) -> str:
    """The devices' speeds by model, in words."""
    return ", ".join(
        f"{model} reads {speed.read_hz:g} and writes {speed.written_hz:g}"
        for model, speed in sorted(speeds.items())
    )


def _latency_says(setup: Setup, speeds: Mapping[str, Speed]) -> str:
    took = "the model took for them"
    if speeds:
        took = f"devices take for them of which one with {speeds_told(speeds)} tokens a second"
    if setup.speed:
        took = f"a device takes for them that reads {setup.speed[0]:g} and writes {setup.speed[1]:g} tokens a second"
    if setup.pace:
        return f"Latency: measured, with stored answers that came in {setup.pace:g} of the times that {took}; in units of these."
    return (
        f"Latency: the longest way through each prompt's jobs at the times that {took}: layers, waves of a vote and the jobs of one "
        "device come after one another. A vote that is settled before all have answered takes less (`--pace` measures it)."
        + (
            ""
            if speeds or setup.speed
            else " What a model took while it wrote several answers at a time is not what a device of its own takes (`--speed`)."
        )
    )


def _prompts(row: Row) -> str:
    return (
        str(row.prompts) if row.checked == row.prompts else f"{row.prompts}, {row.checked} of them checkable"
    )


def _share(of: Interval) -> str:
    if math.isnan(of.value):
        return ""
    return f"{100 * of.value:.1f} % ({100 * of.low:.1f} to {100 * of.high:.1f})"


def _told(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _words(against: Against | None) -> tuple[str, str, str]:
    if against is None:
        return "", "", ""
    by = against.by
    words = f"{100 * by.value:+.1f} ({100 * by.low:+.1f} to {100 * by.high:+.1f})"
    return words, f"{against.only_here}, {against.only_there}", f"{against.corrected:.3g}"


# ---- Markdown and HTML ---------------------------------------------------------------------------------


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Words(text):
            return text
        case Grid(cells):
            return "\n".join(map(_line, (cells[0], ("---",) * len(cells[0]), *cells[1:])))
        case Commands(rows):
            return "\n".join(f"- {arm}: `{command}`" for arm, command in rows)
        case Picture(file, text):
            return f"![{text}]({file})"
        case _:
            assert_never(block)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Words(text):
            return f"<p>{escape(text)}</p>"
        case Grid(cells):
            top = "".join(f"<th>{escape(each)}</th>" for each in cells[0])
            body = "\n".join(
                "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in cells[1:]
            )
            return f"<table>\n<tr>{top}</tr>\n{body}\n</table>"
        case Commands(rows):
            items = "\n".join(
                f"<li>{escape(arm)}: <code>{escape(command)}</code></li>" for arm, command in rows
            )
            return f"<ul>\n{items}\n</ul>"
        case Picture(file, text):
            return f'<img src="{escape(file)}" alt="{escape(text)}">'
        case _:
            assert_never(block)


# ---- figures -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure: its file's name and its words, what its axes say, and who draws on them (matplotlib's own)."""

    name: str
    text: str
    axes: tuple[str, str]
    draw: Callable[[Any], None]
    logarithmic: bool = False


def plots(table: Table, number: int) -> list[Plot]:
    """Accuracy against what it costs; nothing where no answer was checked."""
    if not any(row.checked for row in table.rows):
        return []
    return [
        Plot(
            f"{number}-{name}", f"Answers that are right against {axis}", (axis, "right, % (95 % Wilson interval)"),
            partial(_shares, table.rows, name),
        )
        for name, axis in FIGURES
    ]  # fmt: skip


def _shares(rows: Sequence[Row], name: str, axes: Any) -> None:
    for number, row in enumerate(rows):
        along = row.jobs if name == "jobs" else row.latency_s
        share = row.right
        if math.isnan(along) or math.isnan(share.value):
            continue
        reach = [[100 * (share.value - share.low)], [100 * (share.high - share.value)]]
        mark = "osD^v"[number // 10 % 5]
        axes.errorbar([along], [100 * share.value], yerr=reach, fmt=mark, capsize=3, label=row.arm)


def _drawn(some: Sequence[Plot], out: Path) -> list[Picture]:
    """The figures in a folder; none where matplotlib is missing. The same rows are the same files."""
    if not some:
        return []
    try:
        library, drawing = importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_svg")
    except ImportError:
        return []
    pictures = []
    for plot in some:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        figure = drawing.Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        plot.draw(axes)
        axes.set(xlabel=plot.axes[0], ylabel=plot.axes[1], xlim=(0, None))
        axes.set(**({"yscale": "log"} if plot.logarithmic else {"ylim": (0, None)}))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        file = f"figures/{plot.name}.svg"
        with library.rc_context({"svg.hashsalt": "folkmoot", "svg.fonttype": "none"}):
            figure.savefig(out / file, format="svg", metadata={"Date": None})
        pictures.append(Picture(file, plot.text))
    return pictures
