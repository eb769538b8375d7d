"""What is said of long work, by a clock that the test owns."""

from __future__ import annotations

import io

import pytest

from folkmoot.cli.progress import Progress, span


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream: io.StringIO, work: float | None = None) -> str:
    """Ten seconds of a ten-piece work, one a second, with a look at it every quarter."""
    now = 0.0
    bar = Progress("runs", 10, work, stream=stream, clock=lambda: now)
    for quarter in range(40):
        now = quarter / 4
        bar.tick()
        if quarter % 4 == 3:
            bar.step(0.0 if work is None else work / 10)
    return stream.getvalue()


@pytest.mark.parametrize("work", [None, 7e6])
def test_lines_every_few_seconds_where_there_is_no_terminal(work):
    assert said(io.StringIO(), work).splitlines() == ["2 of 10 runs, 8 s left", "6 of 10 runs, 4 s left"]


def test_a_bar_in_a_terminal():
    bars = said(Terminal()).split("\r")[1:]
    assert len(bars) == 16
    assert bars[0] == f"[{'#' * 5}{' ' * 19}] 2 of 10 runs, 8 s left\x1b[K"


def test_a_bar_makes_room_for_a_line(capsys):
    stream, times = Terminal(), iter((0.0, 3.0))
    bar = Progress("runs", 2, stream=stream, clock=lambda: next(times))
    bar.say("early")
    bar.tick()
    bar.say("late")
    assert stream.getvalue().endswith("0 of 2 runs\x1b[K\r\x1b[K")
    assert stream.getvalue().count("\r") == 2
    assert capsys.readouterr().out == "early\nlate\n"


def test_nothing_where_it_is_soon_over():
    stream = Terminal()
    times = iter((0.0, 0.5, 1.9))
    bar = Progress("runs", 2, stream=stream, clock=lambda: next(times))
    for _ in range(2):
        bar.step()
        bar.tick()
    assert stream.getvalue() == ""


def test_before_the_first_is_done_no_time_is_promised():
    stream = io.StringIO()
    times = iter((0.0, 3.0, 4.0))
    bar = Progress("runs", 2, stream=stream, clock=lambda: next(times))
    bar.tick()
    assert stream.getvalue() == ""
    bar.tick()
    assert stream.getvalue() == "0 of 2 runs\n"


def test_times_for_people():
    assert [span(each) for each in (0.2, 89, 90, 5399, 5400)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]
