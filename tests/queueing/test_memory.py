"""What does not fit into memory is refused before it is taken, and while a run grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from folkmoot import queueing as q
from folkmoot.core.law import Exponential
from folkmoot.errors import TheoryError
from folkmoot.queueing import memory
from folkmoot.queueing.moot import replication
from folkmoot.queueing.streams import keys


def having(monkeypatch: pytest.MonkeyPatch, left: int, small: int = 0) -> None:
    """A machine with so many bytes left, all of them looked at but the first `small`."""
    monkeypatch.setattr(memory, "available", lambda: left)
    monkeypatch.setattr(memory, "SMALL", small)


def test_what_this_machine_has_left() -> None:
    assert 0 < memory.available() < 1 << 50


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   7 kB\n"}, 7 * 1024),
        ({"/proc/meminfo": "MemAvailable: 7 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}, 7 * 1024),
        (
            {
                "/proc/meminfo": "MemAvailable: 7 kB\n",
                "/sys/fs/cgroup/memory.max": "5000\n",
                "/sys/fs/cgroup/memory.current": "2000\n",
            },
            3000,
        ),
        (
            {
                "/proc/meminfo": "MemAvailable: 7 kB\n",
                "/sys/fs/cgroup/memory.max": "5000\n",
                "/sys/fs/cgroup/memory.current": "6000\n",
            },
            0,
        ),
    ],
)
def test_the_least_of_the_machine_s_and_the_control_group_s(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], left: int
) -> None:
    monkeypatch.setattr(memory, "_read", lambda path: files.get(str(path), ""))
    assert memory.available() == left


def test_without_any_such_file_the_system_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_read", lambda path: "")
    monkeypatch.setattr("os.sysconf", {"SC_AVPHYS_PAGES": 3, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert memory.available() == 3 * 4096


def test_small_sizes_are_taken_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, 0, small=100)
    memory.check(100)
    with pytest.raises(
        TheoryError, match="GB more memory would be needed, and there are 0; shorten the horizon"
    ):
        memory.check(101)


def test_rooms_begin_on_a_cache_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (1, 7, 1000):
        room = memory.room_for(words, np.int64)
        assert (room.size, room.dtype, room.ctypes.data % memory.LINE) == (words, np.int64, 0)
    monkeypatch.setattr(memory, "check", lambda size: None)
    with pytest.raises(TheoryError, match="GB more memory would be needed"):
        memory.room_for(1 << 55, np.float64)


@pytest.mark.parametrize("discipline", ["fcfs", "lsf"])
def test_a_horizon_that_fills_the_memory_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, discipline: str
) -> None:
    """Beyond the limit the prompts in progress grow with the horizon: a short run fits, a long one does not."""
    short, long = (
        q.Question(
            2, 1, 1, (1.0,), (Exponential(1.0),), discipline=discipline, horizon=horizon, replications=1
        )
        for horizon in (50.0, 50_000.0)
    )
    (key,) = keys(1, 1)
    having(monkeypatch, 1 << 30)
    needed = replication(long, key).state_bytes
    having(monkeypatch, needed // 4)
    replication(short, key)
    with pytest.raises(TheoryError, match="shorten the horizon, lower the load or take fewer devices"):
        replication(long, key)


def test_devices_are_counted_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, 1 << 20)
    with pytest.raises(TheoryError, match="take fewer devices"):
        q.simulate(q.Question(100_000, 1, 1, (0.1,), (Exponential(1.0),), replications=1))
