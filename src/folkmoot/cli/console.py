"""Where people read: a terminal as wide as it is, anything else as wide as its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 240
CUT = "note: the answer is cut off where it reached --max-tokens or the end of the model's context"


def counted(number: int, noun: str) -> str:
    """So many of a thing, in English."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr; where that is no terminal, lines are not wrapped at 80."""
    from rich.console import Console

    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=PLAIN_WIDTH)
