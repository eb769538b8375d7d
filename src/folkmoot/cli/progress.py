"""How far a piece of work is, with the time left, on stderr and only where it takes a while."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

import click

SILENT_S = 2.0
"""Work that is done within so many seconds says nothing."""
TERMINAL_S, PLAIN_S = 0.5, 4.0
"""Seconds between two bars in a terminal; between two lines elsewhere."""
STILL_S = 30.0
"""Seconds between two lines where nothing was done in between."""
WIDTH = 24


class Progress:
    """A bar in a terminal that redraws itself, elsewhere a line now and then, while a `with` block runs.

    `count` pieces are to be done, which take `work` together in any unit (as long each if it is not given).
    """

    def __init__(
        self,
        noun: str,
        count: int,
        work: float | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._noun, self._count = noun, count
        self._each, self._work = (1.0, float(count)) if work is None else (0.0, work)
        self._done, self._worked, self._told = 0, 0.0, -1
        self._out, self._stream, self._clock = sys.stdout, sys.stderr if stream is None else stream, clock
        self._terminal = self._stream.isatty()
        self._began, self._said = clock(), -PLAIN_S
        self._ended, self._drawn = threading.Event(), threading.Lock()
        self._drawing = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        self._began = self._clock()
        self._drawing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._drawing.join()
        self._clear()

    def say(self, line: str) -> None:
        """A line of the work's own, which the bar makes room for, on what was stdout when the bar was made."""
        with self._drawn:
            self._clear()
            click.echo(line, self._out)

    def step(self, work: float = 0.0) -> None:
        """One more is done, which was so much of the work."""
        self._done += 1
        self._worked += work or self._each

    def tick(self) -> None:
        """Say how far it is, if it is time to."""
        with self._drawn:
            self._tell()

    def _tell(self) -> None:
        now = self._clock() - self._began
        if now < SILENT_S or now - self._said < (TERMINAL_S if self._terminal else PLAIN_S):
            return
        if not (self._done or self._terminal) and now < PLAIN_S:
            return  # with the first that is done there will be more to say
        if not self._terminal and self._done == self._told and now - self._said < STILL_S:
            return  # a line that says what the last one said
        self._told = self._done
        self._said = now
        left = f", {span(now / self._worked * (self._work - self._worked))} left" if self._worked else ""
        text = f"{self._done} of {self._count} {self._noun}{left}"
        if self._terminal:
            filled = round(WIDTH * min(1.0, self._worked / self._work)) if self._work else 0
            self._write(f"\r[{'#' * filled}{' ' * (WIDTH - filled)}] {text}\x1b[K")
        else:
            self._write(f"{text}\n")

    def _draw(self) -> None:
        while not self._ended.wait(TERMINAL_S):
            self.tick()

    def _clear(self) -> None:
        if self._terminal and self._said >= 0:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal ends nobody's simulation
            self._stream.write(text)
            self._stream.flush()


def span(seconds: float) -> str:
    """A time for people, in its largest fitting unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
