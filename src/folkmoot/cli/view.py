"""What is going on with a prompt: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

CHARACTERS_PER_TOKEN = 4.0
"""English text, roughly; the true counts come with the answer."""

MEASURABLE_S = 0.2
"""A shorter span gives no rate worth showing."""

_STYLES = {"ok": "green", "writing": "cyan", "began": "cyan", "failed": "red", "refused": "red"}


@dataclass
class Row:
    """One job as the view knows it; `wrote_s`, its first word, and `ended_s` are None until that has happened."""

    what: Json
    asked_s: float
    wrote_s: float | None = None
    ended_s: float | None = None

    def seconds(self, now: float) -> float:
        """How long the job has been under way, queue included."""
        return self._end(now) - self.asked_s

    def rate(self, now: float) -> float:
        """Tokens per second of writing, reading left out, estimated from the characters."""
        if self.wrote_s is None or (span := self._end(now) - self.wrote_s) < MEASURABLE_S:
            return 0.0
        return float(self.what["characters"] / CHARACTERS_PER_TOKEN / span)

    def _end(self, now: float) -> float:
        return now if self.ended_s is None else self.ended_s


class Progress:
    """Collects the API's progress events; `clock` is a monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.rows: dict[str, Row] = {}
        self.answer = ""

    def moved(self, what: Json) -> str:
        """Take in an event; gives the line that tells of it, empty where the state is the old one."""
        if what["type"] == "accepted":
            return f"asked with M={what['layers']} k={what['proposers']}"
        now = self._clock()
        row = self.rows.setdefault(what["job"], Row(what, now))
        news = row.what is what or row.what["state"] != what["state"]
        row.what = what
        if what["state"] == "writing":
            row.wrote_s = now if row.wrote_s is None else row.wrote_s
        elif what["state"] not in ("asked", "queued", "began"):
            row.ended_s = now
        return self._line(row, now) if news else ""

    def summary(self) -> str:
        """One line: how many jobs are done, and who is at work."""
        at_work = [escape(row.what["name"]) for row in self.rows.values() if row.ended_s is None]
        done = len(self.rows) - len(at_work)
        return f"{done} of {len(self.rows)} jobs done, waiting for {', '.join(at_work) or 'the next layer'}"

    def render(self) -> Group:
        """The table of jobs, and the end of the answer so far."""
        now = self._clock()
        table = Table(box=None, pad_edge=False)
        for title, justify in (
            ("layer", "right"), ("stage", "left"), ("device", "left"), ("model", "left"),
            ("state", "left"), ("≈ tokens/s", "right"), ("s", "right"),
        ):  # fmt: skip
            table.add_column(title, justify=justify)  # type: ignore[arg-type] # the literals above are its values
        for row in self.rows.values():
            what = row.what
            state = (
                f"{what['ahead']} before it" if what["state"] == "queued" and what["ahead"] else what["state"]
            )
            table.add_row(
                "" if what["stage"] == "aggregate" else str(what["layer"]),
                what["stage"],
                escape(what["name"]),
                escape(what["model"]),
                Text(state, style=_STYLES.get(what["state"], "dim")),
                f"{rate:.0f}" if (rate := row.rate(now)) else "",
                f"{row.seconds(now):.1f}",
            )
        tail = self.answer[-400:].replace("\n", " ")
        return Group(table, Text(f"\n{tail}")) if tail else Group(table)

    def _line(self, row: Row, now: float) -> str:
        what = row.what
        stage = what["stage"]
        # The aggregation comes after the last layer and is none itself.
        place = stage if stage == "aggregate" else f"layer {what['layer']} {stage}"
        line = f"{place} {what['name']} ({what['model']}): {what['state']}"
        if what["state"] == "queued":
            line += f", {what['ahead']} before it"
        if row.ended_s is not None:
            rate = row.rate(now)
            line += f" after {row.seconds(now):.1f} s" + (f", about {rate:.0f} tokens/s" if rate else "")
        return line
