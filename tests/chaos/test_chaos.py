"""A quarter of a minute of it, on loopback: real processes, the hook in their transport, and a history that can be judged again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
FIELDS = {
    "prompts",
    "answered",
    "typed_errors",
    "lost",
    "answered_twice",
    "leaked_jobs",
    "faults",
    "machine",
    "seed",
}


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chaos", "--json", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230, check=False)


@pytest.mark.long  # `make chaos` is the same, for longer
def test_a_short_run_keeps_every_promise(tmp_path: Path) -> None:
    done = chaos("--no-namespaces", "--seconds", "15", "--seed", "5", "--out", str(tmp_path))
    found = json.loads(done.stdout.splitlines()[-1]) if done.stdout else done.stderr
    assert done.returncode == 0, found
    assert FIELDS <= set(found)
    assert found["prompts"] > 100
    assert found["answered"] > 50
    assert found["faults"]
    again = chaos("--check", str(tmp_path / "history.jsonl"))
    for name in FIELDS - {"machine", "seed"}:
        assert json.loads(again.stdout)[name] == found[name]
