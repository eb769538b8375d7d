from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.engine.threads import Seat, _quota, cores, share
from folkmoot.errors import EngineError

OTHER = """
import sys
from pathlib import Path
from folkmoot.engine.threads import Seat
seat = Seat(Path(sys.argv[1]))
seat.claim()
print("sitting", flush=True)
sys.stdin.read()
"""


def test_engines_of_one_host_share_its_cores(tmp_path: Path) -> None:
    one, two = Seat(tmp_path), Seat(tmp_path)
    one.claim()
    assert one.engines() == 1
    two.claim()
    assert one.engines() == two.engines() == 2
    two.leave()
    two.leave()
    assert one.engines() == 1
    one.leave()
    assert list((tmp_path / "engines").glob("*.lock")) == []


def test_more_engines_than_cores_have_one_thread_each() -> None:
    assert [share(4, engines) for engines in (1, 2, 3, 4, 5, 100)] == [4, 2, 1, 1, 1, 1]
    assert cores() >= 1


def test_a_killed_engine_frees_its_seat(tmp_path: Path) -> None:
    mine = Seat(tmp_path)
    mine.claim()
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"sitting\n"
        assert mine.engines() == 2
        other.kill()
        other.wait()
        assert mine.engines() == 1
    mine.leave()


def test_a_container_s_quota_counts(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    assert _quota(file, 8) == 8
    file.write_text("max 100000\n")
    assert _quota(file, 8) == 8
    file.write_text("250000 100000\n")
    assert _quota(file, 8) == 2


def test_a_folder_that_cannot_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(EngineError, match="runtime folder"):
        Seat(tmp_path).claim()
