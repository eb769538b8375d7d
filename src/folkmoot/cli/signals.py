"""The signals that end a command in good order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


def ending() -> tuple[signal.Signals, ...]:
    """What asks a program to end beside Ctrl-C: SIGTERM, and SIGHUP as a terminal sends that is closed."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)  # nohup: whoever started this wants it to outlive the terminal
    return (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """A `with` block in which these signals do what Ctrl-C does, so that what was started is ended and cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in ending()}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
