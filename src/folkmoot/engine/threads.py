"""How many threads an engine may take: engines on one host find each other by lock files.

More threads than cores is a cliff, not a slope: four engines of two threads on two cores are eleven
times slower than four of one (ENGINES.md, trap 1).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from filelock import FileLock, Timeout

from folkmoot.errors import EngineError


def cores() -> int:
    """Processors that this process may use: affinity and, in a Linux control group, its quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota(Path("/sys/fs/cgroup/cpu.max"), count)))


def _quota(file: Path, otherwise: int) -> int:
    try:
        allowed, period = file.read_text().split()
        return int(allowed) // int(period)
    except (OSError, ValueError):  # no control group, or "max": no quota
        return otherwise


def share(cores: int, engines: int) -> int:
    """Threads for each engine: max(1, floor(cores / engines))."""
    return max(1, cores // max(1, engines))


class Seat:
    """This engine's lock file among those of the host. The kernel frees it with the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "engines"
        self._own = FileLock(self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.lock", thread_local=False)

    def claim(self) -> None:
        """Take a seat. Blocks for at most seconds; call it in a thread. Raises `EngineError`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._door():
                self._own.acquire(timeout=0)
        except (OSError, Timeout) as error:
            raise EngineError(
                f"no lock file in {self._folder}: {error}; is the runtime folder writable?"
            ) from error

    def engines(self) -> int:
        """How many engines hold a seat now, this one included. Files of the dead are removed."""
        with self._door():
            return sum(self._taken(file) for file in sorted(self._folder.glob("*.lock")))

    def leave(self) -> None:
        """Give the seat back. Safe to call twice."""
        if self._own.is_locked:
            with self._door():
                self._own.release()
                Path(self._own.lock_file).unlink(missing_ok=True)

    def _door(self) -> FileLock:
        """Whoever claims, counts or leaves holds it, so that nobody's fresh file is taken for a stale one."""
        return FileLock(self._folder / "door", timeout=10, thread_local=False)

    def _taken(self, file: Path) -> bool:
        if str(file) == str(self._own.lock_file):
            return self._own.is_locked
        probe = FileLock(file, thread_local=False)
        try:
            probe.acquire(timeout=0)
        except Timeout:
            return True
        file.unlink(missing_ok=True)
        probe.release()
        return False
