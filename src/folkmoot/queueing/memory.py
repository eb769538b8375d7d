"""Arrays for the simulator's state: on cache lines, and not more of them than there is memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.errors import TheoryError

LINE = 64
"""Bytes of a cache line."""
SMALL = 64_000_000
"""Bytes that are taken without a look at what is left, since that costs as much as a short run."""


def available() -> int:
    """Bytes that this machine, or the control group that we are in, has left."""
    left = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            left = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    most, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    if most.isdecimal() and used.isdecimal():
        left = min(left, int(most) - int(used))
    return max(0, left)


def check(size: int) -> None:
    """Raise `TheoryError` where there is less memory than `size` bytes, if that is more than `SMALL`."""
    if size <= SMALL:
        return
    left = available()
    if size > left:
        raise too_large(size, left)


def too_large(size: int, left: int) -> TheoryError:
    """What is said where a simulation does not fit."""
    return TheoryError(
        f"{size / 1e9:.3g} GB more memory would be needed, and there are {left / 1e9:.3g}; "
        "shorten the horizon, lower the load or take fewer devices"
    )


def room_for(words: int, kind: Any) -> Any:
    """An array of 8-byte words that begins on a cache line, its values undefined. Raises `TheoryError`."""
    size = 8 * words + LINE
    check(size)
    try:
        raw = np.empty(size, np.uint8)
    except MemoryError:
        raise too_large(size, available()) from None
    start = -raw.ctypes.data % LINE
    return raw[start : start + 8 * words].view(kind)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""
