"""`folkmoot eval judge` from the command line, with a judge that has no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.test_json import printed

from folkmoot.evals.records import LINES, Record, Records, Setup, write_setup
from folkmoot.evals.standings import JUDGMENTS, Judgments
from folkmoot.evals.tasks import digest

TREES = [{"id": number, "dataset": "koala", "instruction": f"Name tree {number}."} for number in range(3)]
JUDGE = ("--judge", "timed:det:0.001")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two arms that answered three instructions."""
    file = tmp_path / "trees.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in TREES))
    out = tmp_path / "out"
    command = f"folkmoot eval run --model m --set alpaca:{file}"
    write_setup(out, Setup(("m",), ("alpaca:trees.jsonl",), 3, 0, 0, 0.0, command, digests=(digest(file),)))
    records = Records.open(out / LINES)
    for arm, tree in (("single", "An oak."), ("auto", "An elm.")):
        for row in TREES:
            records.add(Record(f"alpaca/{row['id']}", "koala", arm, "ash", tree, "", None, 0.1))
    return out


def test_a_run_is_judged_once_and_the_report_tells_it(run, folder: Path):
    code, told, err = run("judge", str(folder), *JUDGE, "--baseline", "single", "--json")
    assert code == 0, err
    found = json.loads(told)
    assert (found["judgments"], found["new"], found["made"]) == (7, 7, 7)
    # No set here has marks; what a mark has is told all the same.
    marks = [dict.fromkeys(("judge", "set", "arm", "of", "count", "mean", "low", "high", "unread"))]
    assert printed({**found, "marks": marks}, "eval judge")
    (row,) = found["win_rate"]
    assert (row["model"], row["against"], row["pairs"], row["unparsable"], row["ours"]) == (
        "auto",
        "single",
        0,
        3,
        None,
    )
    assert "no evidence of quality: no model writes its words" in row["evidence"]
    assert found["judges"][0]["identical"] == 1
    code, told, _ = run("judge", str(folder), *JUDGE, "--baseline", "single")
    assert (code, len(Judgments.open(folder / JUDGMENTS))) == (0, 7)
    assert told.startswith("### Judged by ")

    code, told, _ = run("report", str(folder), "--json")
    assert code == 0
    assert json.loads(told)["win_rate"][0].items() >= row.items()


def test_answers_in_a_file_are_a_baseline(run, folder: Path, tmp_path: Path):
    (tmp_path / "gpt4.jsonl").write_text('{"id": 1, "output": "A beech."}\n')
    code, told, err = run(
        "judge", str(folder), *JUDGE, "--baseline", str(tmp_path / "gpt4.jsonl"), "--same", "0", "--json"
    )
    assert code == 0, err
    assert [(row["model"], row["against"], row["unparsable"]) for row in json.loads(told)["win_rate"]] == [
        ("auto", "gpt4", 1), ("single", "gpt4", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        ((), 2, "FOLKMOOT_ENGINE_KEY holds no key for the usual one (openai:https://api.openai.com/v1#gpt-4-1106-preview)"),
        (JUDGE, 2, "name a --baseline, a file of outputs or one of single, auto"),
        ((*JUDGE, "--baseline", "best"), 2, "is no file and none of the run's arms"),
        ((*JUDGE, "--baseline", "single", "--arms", "best"), 2, "--arms best"),
        ((*JUDGE, "--baseline", "single", "--set", "gsm8k:x"), 1, "nothing is to be judged: the run asked alpaca:trees.jsonl"),
        ((*JUDGE, "--baseline", "single", "--set", "alpaca:/none"), 1, "/none is not there: name the run's file with --set"),
        (("--judge", "none", "--baseline", "single"), 2, "a judge needs a model"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_told(run, folder: Path, more, code: int, told: str):
    found, _, err = run("judge", str(folder), *more)
    assert (found, err.count("\n")) == (code, 1), err
    assert told in err


def test_other_tasks_than_the_runs_are_refused(run, folder: Path, tmp_path: Path):
    (tmp_path / "trees.jsonl").write_text(json.dumps({**TREES[0], "instruction": "Name a rock."}))
    code, _, err = run("judge", str(folder), *JUDGE, "--baseline", "single")
    assert code == 1
    assert "does not hold the tasks of this run" in err
