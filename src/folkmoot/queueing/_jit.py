"""How this room's kernels are compiled: cached on disk, with exact arithmetic, without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, inline: bool = False) -> Callable[[F], F]:
    """Decorates a function that numba compiles when it is first called. No `fastmath`: results are the same to the bit."""
    made: Any = numba.njit(cache=True, fastmath=False, nogil=True, inline="always" if inline else "never")
    return cast(Callable[[F], F], made)
