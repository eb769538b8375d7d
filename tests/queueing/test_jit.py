"""Kernels are compiled by one process at a time."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest
from filelock import FileLock, Timeout

from folkmoot.queueing._jit import compiling


def test_while_one_compiles_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    other = FileLock(tmp_path / "kept" / "compiling", timeout=0)
    with compiling(), pytest.raises(Timeout):
        other.acquire()
    with other:
        pass


def test_where_nothing_can_be_kept_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "kept"))
    with compiling():
        pass
