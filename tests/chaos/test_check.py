"""The checker finds each promise that was not kept, in histories that are made up."""

from __future__ import annotations

from typing import Any

import pytest
from chaos.check import as_json, judge
from chaos.devices import MAX_WAITING
from chaos.history import Entry

MB = 1 << 20


def at(moment: float, what: str, **told: Any) -> Entry:
    return {"at": moment, "what": what, **told}


def look(moment: float, device: int, rss: float = 60.0, **more: int) -> Entry:
    seen = {"queue": 0, "busy": 0, "buffer": 0, "prompts": 0, "alive": 2, **more}
    return at(moment, "look", device=device, life=1, rss=int(rss * MB), **seen)


def answered(moment: float, n: int, device: int = 0, name: str = "", **more: Any) -> Entry:
    seen = {
        "end": "answered",
        "status": 200,
        "id": name or f"p{n}",
        "whole": True,
        "jobs": 3,
        "ends": 1,
        "after": 0,
        "done": 1,
    }
    return at(moment, "seen", n=n, device=device, **{**seen, **more})


def failed(moment: float, n: int, code: str, device: int = 0) -> Entry:
    return at(moment, "seen", n=n, device=device, end="error", status=429, code=code, ends=1, after=0, done=0)


def history(*middle: Entry, quiet: list[Entry] | None = None, **last: Any) -> list[Entry]:
    """Two devices, a baseline, what is given, and rest."""
    start = [at(float(device), "up", device=device, life=1) for device in (0, 1)]
    baseline = [
        at(5.0, "phase", name="baseline"),
        look(5.1, 0),
        look(5.2, 1),
        at(6.0, "phase", name="faults"),
    ]
    again = [at(80.0, "phase", name="again"), sent(80.1, 91), sent(80.1, 92, device=1), answered(81.0, 91)]
    again.append(answered(81.0, 92, device=1, **last))
    rest = [look(91.0, 0), look(91.0, 1)] if quiet is None else quiet
    return [*start, *baseline, *middle, *again, at(90.0, "phase", name="quiet"), *rest]


def sent(moment: float, n: int, device: int = 0) -> Entry:
    return at(moment, "sent", n=n, device=device, way="whole", stream=False, own={})


def kept(moment: float, n: int, end: str = "answered", digest: str | None = "d") -> Entry:
    return at(moment, "kept", n=n, end=end, digest=digest, code=None)


BACKGROUND = [
    sent(9.0, 1),
    at(9.1, "accepted", n=1, device=0, id="r1"),
    answered(20.0, 1, name="r1", digest="d"),
]


def test_a_good_history_holds_every_promise() -> None:
    told = judge(
        history(
            at(10.0, "fault", kind="kill", devices=[1], seconds=2.0),
            sent(9.0, 1),
            sent(9.0, 2, device=1),
            sent(11.0, 3, device=1),
            sent(12.0, 4),
            sent(12.0, 5),
            at(10.0, "down", device=1, how="killed"),
            at(10.0, "seen", n=2, device=1, end="broken", status=0, why="ReadError"),
            at(11.0, "seen", n=3, device=1, end="refused"),
            at(13.0, "up", device=1, life=2),
            answered(14.0, 1),
            failed(15.0, 4, "overloaded"),
            at(15.0, "seen", n=5, device=0, end="left"),
            at(25.0, "down", device=0, how="stopped"),
            sent(25.1, 7),
            at(25.2, "seen", n=7, device=0, end="broken", status=0, why="ReadError"),
            at(27.0, "up", device=0, life=1),
            at(12.0, "told", device=0, life=1, kind="accepted", id="p1"),
            at(14.0, "told", device=0, life=1, kind="answered", id="p1"),
            look(20.0, 0, queue=MAX_WAITING, rss=80.0),
            sent(9.0, 6, device=1),
            at(9.1, "accepted", n=6, device=1, id="r6"),
            answered(20.0, 6, device=1, name="r6", digest="d"),
            kept(30.0, 6),
        )
    )
    assert told.wrong == []
    assert as_json(told) == {
        "prompts": 9, "answered": 4, "typed_errors": 1, "lost": 0, "answered_twice": 0, "leaked_jobs": 0,
        "faults": {"kill": 1}, "left": 1, "cut_by_kill": 3, "background": 1, "codes": {"overloaded": 1}, "queue_max": MAX_WAITING,
        "memory": 1.0, "wrong": [],
    }  # fmt: skip


BROKEN: dict[str, tuple[list[Entry], str]] = {
    "no end": ([sent(9.0, 1)], "0 ends"),
    "two ends": ([sent(9.0, 1), answered(10.0, 1), answered(11.0, 1)], "2 ends"),
    "hung": ([sent(9.0, 1), at(99.0, "seen", n=1, device=0, end="hung")], "saw no end"),
    "answered twice in one stream": ([sent(9.0, 1), answered(10.0, 1, ends=2)], "has 2 ends"),
    "words after the end": ([sent(9.0, 1), answered(10.0, 1, after=1)], "1 events after"),
    "not what was streamed": ([sent(9.0, 1), answered(10.0, 1, whole=False)], "not what was streamed"),
    "one answer for two": (
        [sent(9.0, 1), sent(9.0, 2), answered(10.0, 1, name="p"), answered(10.0, 2, name="p")],
        "2 responses",
    ),
    "a bug": ([sent(9.0, 1), failed(10.0, 1, "internal")], "ended with internal"),
    "an unknown code": ([sent(9.0, 1), failed(10.0, 1, "oops")], "ended with oops"),
    "broken without a kill": (
        [sent(9.0, 1), at(10.0, "seen", n=1, device=0, end="broken", status=0, why="ReadError")],
        "was not killed",
    ),
    "broken by a clean stop": (
        [
            sent(9.0, 1),
            at(9.5, "down", device=0, how="stopped"),
            at(10.0, "seen", n=1, device=0, end="broken", status=0, why="ReadError"),
            at(11.0, "up", device=0, life=2),
        ],
        "was not killed",
    ),
    "refused by one that is there": (
        [sent(9.0, 1), at(9.1, "seen", n=1, device=0, end="refused")],
        "that was there",
    ),
    "accepted and lost": ([*BACKGROUND, kept(30.0, 1, "nothing", None)], "no end that is kept"),
    "accepted and not there": (BACKGROUND, "no end that is kept"),
    "answered anew": ([*BACKGROUND, kept(30.0, 1, digest="e")], "had the end"),
    "told two ends": (
        [at(9.0, "told", device=0, life=1, kind=kind, id="p") for kind in ("accepted", "failed", "answered")],
        "told 2 ends",
    ),
    "told no end": ([at(9.0, "told", device=0, life=1, kind="accepted", id="p")], "told no end"),
    "over its bound": ([look(20.0, 0, queue=MAX_WAITING + 1)], "bound"),
    "died": ([at(20.0, "died", device=0, code=-11)], "died by itself"),
    "did not stop well": ([at(20.0, "exit", device=0, code=1)], "told to stop"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    middle, words = BROKEN[name]
    told = judge(history(*middle))
    assert any(words in each for each in told.wrong), told.wrong


@pytest.mark.parametrize(
    ("quiet", "words"),
    [
        ([look(91.0, 0, busy=1), look(91.0, 1)], "holds"),
        ([look(91.0, 0), look(91.0, 1, prompts=2)], "holds"),
        ([look(91.0, 0, alive=1), look(91.0, 1)], "knows 1 of 2"),
        ([look(91.0, 0, rss=66.5), look(91.0, 1)], "times the memory"),
        ([look(91.0, 0)], "not seen"),
    ],
)
def test_the_end_must_be_quiet(quiet: list[Entry], words: str) -> None:
    told = judge(history(quiet=quiet))
    assert any(words in each for each in told.wrong), told.wrong


def test_a_device_that_answers_no_more_is_found() -> None:
    told = judge(history(end="error", code="overloaded"))
    assert told.wrong == ["d1 does not answer when all is over"]
