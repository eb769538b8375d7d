"""The keys that docs/reference/json.md names are those that the commands print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from folkmoot.cli import exits, group
from folkmoot.queueing import validate
from folkmoot.sim import exact

PAGE = Path(__file__).parents[2] / "docs/reference/json.md"
FEW = ("--reps", "2", "--horizon", "20")
RUNS: dict[str, list[tuple[str, ...]]] = {
    "theory": [
        ("--load", "0.5"),
        ("--load", "1.5"),
        ("--quorum", "2", "--rate", "0.1", "--service", "det:1"),
    ],
    "plan": [
        ("--rate", "0.1", "--max-layers", "1"),
        ("--rate", "0.1", "--deadline", "0.1", "--max-layers", "1"),
    ],
    "simulate": [FEW, ("--mode", "paper", "--reps", "2"), (*FEW, "--core", "--workers", "1")],
    "sweep": [("--load", "0.5,1.5", "-n", "2", "-k", "1", "--plot", "none", *FEW)],
    "validate": [("--quick",)],
}


def keys(value: object, prefix: str = "") -> Iterator[str]:
    """Of an object within an object a.b, of a list of objects a[].b; one that has keys is left out itself."""
    match value:
        case dict() if prefix in ("ends", "best", "nearest"):  # by how they end; a choice again
            yield prefix
        case dict():
            for name, each in value.items():
                yield from keys(each, f"{prefix}.{name}" if prefix else name)
        case [dict(), *_]:
            for each in value:
                yield from keys(each, f"{prefix}[]")
        case _:
            yield prefix


def documented(command: str) -> set[str]:
    (section,) = re.findall(rf"^## {command}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S)
    cells = re.findall(r"^\| (`.*?) \|", section, re.M)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def parents(command: str) -> set[str]:
    """What has keys of its own."""
    known = documented(command)
    return {name for name in known if any(other.startswith((f"{name}.", f"{name}[]")) for other in known)}


def printed(found: object, command: str) -> bool:
    """Whether an object has what the page says of this command, and nothing else."""
    return set(keys(found)) - parents(command) == documented(command) - parents(command)


@pytest.mark.parametrize("command", RUNS)
def test_every_key_is_documented_and_no_other(home, capsys, tmp_path: Path, monkeypatch, command):
    some = validate.cases()[:2]
    monkeypatch.setattr(validate, "cases", lambda **flags: some)
    monkeypatch.setattr(exact, "cases", lambda **flags: [])
    out = ("--out", str(tmp_path)) if command == "sweep" else ()
    told: set[str] = set()
    for flags in RUNS[command]:
        asked = (command, *flags, *out, "--json")
        assert exits.run(lambda asked=asked: group.main(asked, standalone_mode=False), debug=True) == 0
        told |= set(keys(json.loads(capsys.readouterr().out.splitlines()[-1])))
    assert told - parents(command) == documented(command) - parents(command)
