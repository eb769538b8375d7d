"""`folkmoot eval` from the command line: real devices on engines without a model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from tests.cli.test_json import printed

from folkmoot.evals.records import LINES, Records, load, read_setup
from folkmoot.evals.store import Store

SUMS = [
    {"id": 1, "question": "Two and two?", "answer": "4"},
    {"id": 2, "question": "Ten less three?", "answer": "7"},
    {"id": 3, "question": "Six times six?", "answer": "36"},
]


@pytest.fixture
def sums(tmp_path: Path) -> str:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in SUMS), "utf-8")
    return f"gsm8k:{file}"


def test_real_devices_are_asked_and_each_call_is_paid_once(run, sums: str, tmp_path: Path):
    out = tmp_path / "out"
    asked = (
        "run",
        "--model",
        "tim=timed:det:0.001",
        "--devices",
        "2",
        "--set",
        sums,
        "--out",
        str(out),
        "--json",
    )
    code, told, err = run(*asked, "--prompts", "2", "--arms", "single,self-consistency,M1-k1")
    assert code == 0, err
    first = json.loads(told)
    # Two drafts of each task and its aggregation; `single` and the vote found what the layer had made.
    assert (first["records"], first["made"]) == (6, 6)
    by_arm = {record.arm: record for record in load(out)}
    assert [len(by_arm[arm].jobs) for arm in ("single", "self-consistency", "M1-k1")] == [1, 2, 3]
    assert by_arm["single"].answer == by_arm["self-consistency"].answer
    assert {job.model for record in load(out) for job in record.jobs} == {"tim"}
    # What a job took is what the model took for it, not what it took a device to ask.
    store = Store(out / "calls.sqlite")
    kept = {call.inference_s for call in store}
    store.close()
    assert {job.inference_s for record in load(out) for job in record.jobs} == kept

    # Its jobs can be replayed on live devices, in the times that they took, without any model.
    again = tmp_path / "again"
    replay = ("replay", str(out), "--out", str(again), "--rate", "50", "--pace", "2", "--json")
    code, told, err = run(*replay, "--arms", "M1-k1")
    assert code == 0, err
    assert json.loads(told) == {"out": str(again), "records": 2, "new": 2, "rate": 50.0}
    before_of = {record.task: record for record in load(out) if record.arm == "M1-k1"}
    for after in load(again):
        before = before_of.pop(after.task)
        assert (after.right, len(after.jobs)) == (None, 3)
        assert {job.inference_s for job in after.jobs} == {job.inference_s for job in before.jobs}
        assert after.wall_s > 2 * before.latency_s
    assert not before_of
    code, told, err = run("report", str(again))
    assert "a prompt each 0.0 s; pace 2" in told
    code, _, err = run(*replay, "--arms", "self-consistency")
    assert code == 2
    assert "hangs on answers" in err
    code, _, err = run(*replay, "--arms", "M1-k1", "--speed", "tom=1,2")
    assert code == 2
    assert "has tim" in err

    # What was kept can be given on, packed, and answers the same run elsewhere without any model.
    packed = out / "given.jsonl.xz"
    store = Store(out / "calls.sqlite")
    assert store.write(packed) == 6
    store.close()
    elsewhere = [str(out / "elsewhere") if each == str(out) else each for each in asked]
    code, told, err = run(
        *elsewhere, "--prompts", "2", "--arms", "single", "--stored", "--calls", str(packed)
    )
    assert code == 0, err
    assert json.loads(told)["records"] == 2
    assert (out / "given.jsonl.sqlite").exists()

    code, told, err = run(*asked, "--prompts", "3", "--arms", "single,self-consistency", "--stored")
    assert code == 0, err
    assert "2 answers came to nothing" in err
    assert json.loads(told) == {"out": str(out), "records": 6, "new": 0, "made": 0, "found": 0}
    assert printed(json.loads(told), "eval run")

    code, _, err = run(*asked, "--prompts", "3", "--arms", "single", "--seed", "1")
    assert code == 1
    assert "which is another one" in err

    file = Path(sums.removeprefix("gsm8k:"))
    file.write_text(json.dumps({**SUMS[0], "question": "Two and two and none?"}) + "\n", "utf-8")
    code, _, err = run(*asked, "--prompts", "2", "--arms", "single")
    assert code == 1
    assert "sets or their contents" in err


def test_the_command_that_makes_a_run_again_says_how_it_was_made(run, sums: str, tmp_path: Path):
    out, calls = tmp_path / "out", tmp_path / "the calls"
    more = ("--at-once", "2", "--parallel", "3", "--stored", "--calls", str(calls), "--prompts", "1")
    asked = ("--model", "tim=timed:det:0.001", "--devices", "2", "--set", sums, "--out", str(out))
    assert run("run", *asked, "--arms", "majority", *more)[0] == 0
    again = shlex.split(read_setup(out).command)
    for name, value in (("--at-once", "2"), ("--parallel", "3"), ("--calls", str(calls))):
        assert again[again.index(name) + 1] == value
    assert (
        "--stored" not in again
    )  # what is stored is found anyway, and what is not cannot be made again with it


def test_a_plan_leaves_nothing_behind(run, sums: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    asked = ("plan", "--model", "tim=timed:det:0.01", "--devices", "2", "--set", sums, "--arms", "single")
    assert run(*asked)[0] == 0
    assert sorted(tmp_path.iterdir()) == before
    code, _, err = run(*asked, "--skip", "3")
    assert code == 1
    assert "holds no prompt behind the first 3" in err


def test_a_plan_counts_what_is_not_made_yet(run, sums: str, tmp_path: Path):
    asked = (
        "plan",
        "--model",
        "tim=timed:det:0.1",
        "--devices",
        "2",
        "--set",
        sums,
        "--calls",
        str(tmp_path / "c"),
    )
    code, told, err = run(*asked, "--arms", "single,M1-k1,M2-k1", "--at-once", "2", "--json")
    assert code == 0, err
    found = json.loads(told)
    assert {row["arm"]: (row["jobs"], row["new_jobs"]) for row in found["arms"]} == {
        "shared drafts": (2, 6), "single": (1, 0), "M1-k1": (3, 3), "M2-k1": (5, 9),
    }  # fmt: skip
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["arms"]))
    assert found["tokens_per_s"] > 0
    assert found["reads"]["tim"] > 0
    code, told, _ = run(*asked, "--arms", "single")
    assert told.startswith("3 prompts; ")
    assert "tokens/s: --speed tim=" in told
    assert told.splitlines()[-1].startswith("together ")


def test_a_plan_prices_a_judge(run, tmp_path: Path):
    file = tmp_path / "trees.jsonl"
    file.write_text(
        "".join(json.dumps({"id": each, "instruction": f"Name tree {each}."}) + "\n" for each in range(5))
    )
    asked = (
        "plan", "--model", "tim=timed:det:0.001", "--devices", "2", "--set", f"alpaca:{file}", "--calls", str(tmp_path / "c"),
        "--arms", "single,majority", "--judge", "jim=timed:det:0.001",
    )  # fmt: skip
    code, told, err = run(*asked, "--baseline", "single", "--json")
    assert code == 0, err
    found = json.loads(told)
    judged = found["judge"]
    assert printed({**found, "models": None, "reads": None}, "eval plan")
    assert (judged["judge"], judged["verdicts"], judged["pairs"], judged["same"], judged["marks"]) == (
        "jim",
        11,
        10,
        1,
        0,
    )
    assert judged["hours"] == pytest.approx(
        (judged["tokens_in"] / judged["read_per_s"] + judged["tokens_out"] / judged["written_per_s"]) / 3600
    )
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["arms"]) + judged["hours"])
    assert "jim judges: 11 verdicts (10 of pairs in both orders" in run(*asked, "--baseline", "single")[1]
    for more, says in (
        ((), "answers to AlpacaEval are compared"),
        (("--baseline", "auto"), "none of the arms, single, majority"),
        (("--judge", ""), None),
        (("--judge", "", "--baseline", "single"), "name the --judge"),
        (("--judge", "none", "--baseline", "single"), "a judge needs a model"),
    ):
        code, _, err = run(*asked, *more)
        assert (code, says is None or says in err) == (2 if says else 0, True), err


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (("--arms", "best"), 2, "'best' is no arm"),
        (("--arms", "auto+node.peer.comittee.enabled=false"), 2, "unknown variable FOLKMOOT_NODE__PEER__COMITTEE"),
        (("--arms", "auto+node.peer.committee.enabled=perhaps"), 2, "FOLKMOOT_NODE__PEER__COMMITTEE__ENABLED is 'perhaps'"),
        (("--set", "mmlu:x"), 2, "it is one of gsm8k:FILE, bbh:FILE, "),
        (("--set", "gsm8k:/nowhere"), 1, "/nowhere is not there"),
        (("--model", "none"), 2, "each device needs a model"),
        (("--model", "gpt"), 2, "is none that exists"),
        (("--origin", "2"), 2, "there are 2 devices, numbered from 0"),
        (("--stored", "--model", "embedded:/x.gguf"), 2, "write NAME=embedded:/x.gguf"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_told_before_anything_starts(
    run, sums: str, tmp_path: Path, more, code: int, told: str
):
    usual = (
        "--devices",
        "2",
        "--out",
        str(tmp_path / "out"),
        *(() if "--model" in more else ("--model", "timed:det:0.01")),
    )
    found, _, err = run("run", *usual, *(() if "--set" in more else ("--set", sums)), *more)
    assert (found, err.count("\n")) == (code, 1), err
    assert told in err


def test_a_set_that_is_another_is_refused(run, sums: str, tmp_path: Path):
    file = sums.removeprefix("gsm8k:")
    code, _, err = run(
        "run", "--model", "timed:det:0.01", "--set", f"bbh:{file}", "--out", str(tmp_path / "out")
    )
    assert code == 1
    assert "the file holds gsm8k" in err
    assert len(Records.open(tmp_path / "out" / LINES)) == 0


def test_a_report_of_what_was_run(run, sums: str, tmp_path: Path):
    out = str(tmp_path / "runs" / "one")
    asked = ("--model", "tim=timed:det:0.001", "--devices", "2", "--set", sums, "--out", out)
    assert run("run", *asked, "--arms", "self-consistency,majority")[0] == 0
    code, told, _ = run("report", out)
    assert code == 0
    assert told.startswith("# Answers\n\n## 2 × tim\n")
    assert f"`folkmoot eval run --model tim=timed:det:0.001 --set {sums} --devices 2 --prompts 200 --seed 0 --origin 0 --at-once 4 --parallel 1 --arms majority --out one`" in told  # fmt: skip
    code, told, err = run("report", str(tmp_path / "runs"), "--out", str(tmp_path / "results"), "--json")
    assert code == 0
    assert [each["arm"] for each in json.loads(told)["moots"][0]["arms"]] == ["self-consistency", "majority"]
    assert (tmp_path / "results" / "report.html").exists()
    assert run("report", str(tmp_path / "results"))[1].startswith("# Answers\n")
    code, _, err = run("report", str(tmp_path))
    assert (code, err.count("\n")) == (1, 1)
    assert "holds no run" in err
