"""How a fault of ours is logged: by its type and the way that it took, never by its words, which may be a user's."""

from __future__ import annotations

import traceback


def way_of(error: BaseException) -> str:
    """`ValueError in work.py:97 < link.py:340`: the innermost place first."""
    steps = reversed(traceback.extract_tb(error.__traceback__))
    places = " < ".join(f"{step.filename.rpartition('/')[2]}:{step.lineno}" for step in steps)
    return f"{type(error).__name__} in {places}" if places else type(error).__name__
