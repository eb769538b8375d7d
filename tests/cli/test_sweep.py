"""`sweep` from the command line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import click
import pytest

from folkmoot.cli import exits, group
from folkmoot.cli.sweep import Numbers

GRID = ("-n", "2,4", "-M", "0:1", "-k", "1", "--load", "0.5,1.5", "--reps", "3", "--horizon", "300")


@pytest.fixture
def run(home, capsys):
    def command(*arguments: str) -> tuple[int, str, str]:
        code = exits.run(
            lambda: group.main(("sweep", *arguments), prog_name="folkmoot", standalone_mode=False),
            debug=False,
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def quiet(err: str) -> str:
    """What was said, without how far it was: a busy machine takes longer."""
    return "".join(line for line in err.splitlines(keepends=True) if " replications" not in line)


def kept(file: Path) -> list[dict]:
    from pyarrow import parquet

    return parquet.read_table(file).to_pylist()


def test_a_row_is_what_simulate_says_with_the_theory_beside_it(run, tmp_path: Path, capsys):
    code, out, err = run(*GRID, "--out", str(tmp_path / "s"), "--json")
    assert (code, quiet(err)) == (0, "")
    found = json.loads(out)
    rows = kept(tmp_path / "s/sweep.parquet")
    assert found["rows"] == rows
    assert found["skipped"] == 0
    assert [(row["n"], row["layers"], row["proposers"], round(row["load"], 9)) for row in rows] == [
        (n, layers, layers, load) for n in (2, 4) for layers in (0, 1) for load in (0.5, 1.5)
    ]
    last = rows[-1]
    asked = "simulate -n 4 -M 1 -k 1 --load 1.5 --reps 3 --horizon 300 --json".split()
    exits.run(lambda: group.main(asked, standalone_mode=False), debug=True)
    alone = json.loads(capsys.readouterr().out)
    assert last["latency_mean_low"] == alone["latency"]["mean_low"]
    assert last["drift_value"] == alone["drift"]["value"]
    assert last["verdict"] == alone["verdict"]
    assert last["theory_rho"] == pytest.approx(1.5)
    assert last["theory_limit_rate"] == pytest.approx(1 / 3)
    assert last["theory_latency"] is None
    assert last["theory_drift"] == pytest.approx(0.366, abs=1e-3)
    assert rows[0]["theory_latency"] == pytest.approx(2, rel=1e-3)
    assert rows[0]["theory_latency_tag"] == "E"
    assert rows[0]["theory_queue_size"] == pytest.approx(0.5)
    assert rows[0]["service"] == "exp:1"
    figures = [Path(each) for each in found["files"][1:]]
    assert [each.name for each in figures] == ["sweep-stability.png", "sweep-latency.png", "sweep-queue.png"]
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in figures)


def test_a_second_run_does_what_is_missing(run, tmp_path: Path):
    file = tmp_path / "s.parquet"
    few = ("-n", "3", "-k", "1", "--reps", "2", "--horizon", "100", "--out", str(file))
    assert run(*few, "--load", "0.5", "--plot", "none")[0] == 0
    (first,) = kept(file)
    code, out, err = run(*few, "--load", "0.5:0.7:0.1", "--plot", "svg")
    assert (code, quiet(err)) == (0, f"folkmoot: 1 of 3 questions are in {file} already\n")
    assert [line.endswith("(from the file)") for line in out.splitlines()] == [True, False, False, False]
    assert out.splitlines()[-1].startswith(f"3 rows (1 from the file): {file}, ")
    assert kept(file)[0] == first
    assert len(kept(file)) == 3
    assert (tmp_path / "s-latency.svg").read_text().startswith("<?xml")
    assert not (tmp_path / "s-queue.svg").exists(), "one n makes no line"
    before = file.read_bytes()
    again = run(*few, "--load", "0.7,0.5", "--plot", "none")[1].splitlines()
    assert again == [
        *(line.removesuffix(" (from the file)") + " (from the file)" for line in (out.splitlines()[2], out.splitlines()[0])),
        f"2 rows (2 from the file): {file}",
    ]  # fmt: skip
    assert file.read_bytes() == before
    run(*few, "--load", "0.5", "--seed", "2", "--plot", "none")
    assert len(kept(file)) == 4, "another seed is another question"


def test_a_row_says_which_peers_were_named(run, tmp_path: Path):
    few = ("-M", "0:1", "--load", "0.5", "--reps", "2", "--horizon", "100", "--plot", "none")
    assert run(*few, "--select", "fixed:0+2", "--out", str(tmp_path))[0] == 0
    rows = kept(tmp_path / "sweep.parquet")
    assert [(row["select"], row["layers"], row["proposers"]) for row in rows] == [
        ("fixed:0+2", 0, 0),
        ("fixed:0+2", 1, 2),
    ]
    assert rows[1]["theory_latency"] is not None


def test_a_file_of_something_else_is_refused_and_left_alone(run, tmp_path: Path):
    import pyarrow
    from pyarrow import parquet

    other, text = tmp_path / "other.parquet", tmp_path / "text.parquet"
    parquet.write_table(pyarrow.table({"key": ["a"], "n": [1.5]}), other)
    text.write_text("no table")
    for file, says in ((other, "is no table of this sweep: it lacks"), (text, "cannot be read as Parquet")):
        before = file.read_bytes()
        code, _, err = run(*GRID, "--out", str(file))
        assert (code, says in err, "choose another --out" in err) == (2, True, True)
        assert file.read_bytes() == before
        assert sorted(tmp_path.iterdir()) == sorted((other, text)), "no lock stays"


def test_rows_of_another_version_are_not_mixed_with_new_ones(run, tmp_path: Path, monkeypatch):
    few = ("-n", "2", "-k", "1", "--reps", "2", "--horizon", "100", "--plot", "none", "--out", str(tmp_path))
    monkeypatch.setattr("folkmoot.queueing.sweep.FORMAT", 1)
    assert run(*few, "--load", "0.5")[0] == 0
    assert kept(tmp_path / "sweep.parquet")[0]["key"].startswith("1-")
    monkeypatch.undo()
    before = (tmp_path / "sweep.parquet").read_bytes()
    for load in ("0.5", "0.6"):
        code, _, err = run(*few, "--load", load)
        assert (code, "rows of another version" in err, "choose another --out" in err) == (2, True, True)
    assert (tmp_path / "sweep.parquet").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["sweep.parquet"]


def test_columns_and_theory_are_those_of_their_format():
    """Where this fails, a row says something else than before: raise FORMAT, and write the new digest here."""
    from folkmoot import queueing as q
    from folkmoot.core.law import Exponential, Fixed, Weibull
    from folkmoot.queueing.sweep import FORMAT

    usual = q.Question(4, 1, 2, (0.1,), (Exponential(1.0),), horizon=20.0, replications=2)
    some = [
        usual, replace(usual, rates_hz=(0.4,)), replace(usual, layers=0, proposers=0, rates_hz=(1.5,)),
        replace(usual, laws=(Fixed(1.0),)), replace(usual, laws=(Weibull(1.0, 0.2),), rates_hz=(0.4,)),
        replace(usual, quorum=2), replace(usual, best_of=3, laws=(Fixed(1.0), *(Fixed(2.0),) * 3)),
        replace(usual, skip_aggregation=0.5), replace(usual, graph=((1, 2, 3), (0,), (0,), (0,))),
    ]  # fmt: skip
    told = [
        [
            (name, f"{value:.4g}" if isinstance(value, float) else value)
            for name, value in row.items()
            if name.startswith("theory_") or name in ("load", "service")
        ]
        for row in q.rows(map(q.simulate, some))
    ]
    names = sorted(q.rows([q.simulate(usual)])[0])
    digest = hashlib.sha256(repr((names, told)).encode()).hexdigest()[:16]
    assert (FORMAT, digest) == (5, "ebb8e6662cc65d79")


def test_without_layers_there_is_no_quorum_and_nothing_to_skip(run, tmp_path: Path):
    few = ("-M", "0,1", "-k", "2", "--load", "0.5", "--reps", "2", "--horizon", "50", "--plot", "none")
    for more in (("--quorum", "2"), ("--skip-aggregation", "0.5")):
        out = tmp_path / more[0].strip("-")
        assert run(*few, *more, "--out", str(out))[0] == 0
        lone, layered = sorted(kept(out / "sweep.parquet"), key=lambda row: row["layers"])
        assert (lone["layers"], lone["proposers"], lone["quorum"], lone["skip_aggregation"]) == (0, 0, 0, 0.0)
        assert layered["quorum"] or layered["skip_aggregation"]


def test_a_trace_of_zeros_has_its_figures(run, tmp_path: Path):
    trace = tmp_path / "zeros.csv"
    trace.write_text("a\n0\n0\n")
    few = ("-k", "1", "--rate", "0.5,1", "--reps", "2", "--horizon", "50", "--service", f"trace:{trace}")
    code, _, err = run(*few, "--out", str(tmp_path / "s"))
    assert (code, err.splitlines()[-1:] if code else []) == (0, [])


def test_one_sweep_at_a_time_writes_to_a_file(run, tmp_path: Path):
    from filelock import FileLock

    with FileLock(tmp_path / ".s.parquet.lock"):
        code, _, err = run(*GRID, "--out", str(tmp_path / "s.parquet"))
    assert (code, "another sweep writes to" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--load", "nan"), "no list of numbers"),
        (("--load", "-0.5"), "not at least 1e-09"),
        (("--rate", "1e-320"), "not at least 1e-12"),
        (("--service", "exp:1e-320"), "MEAN is '1e-320'"),
        (("--reps", "1" + 20 * "0"), "--reps"),
        (("--topology", ""), "--topology is empty"),
        (("--load", "0.5:1.5"), "no list of numbers"),
        (("--load", "2:1:0.1"), "no list of numbers"),
        (("-n", "1.5"), "no list of numbers"),
        (("-n", "0:3"), "not at least 1"),
        (("-n", "1:1000000000"), "more than 100000 numbers"),
        (("-n", "3", "-k", "3"), "3 devices have 2 peers"),
        (("--load", "0.5", "--rate", "1"), "the same thing"),
        (("--service", "gauss:1"), "no service-time law"),
        (("--prompts", "3"), "--mode paper"),
        (("--address", "127.0.0.1:1"), "--backend"),
        (("--backend", "dask", "--address", "tcp://127.0.0.1:1"), "no cluster answers"),
        (("--out", "/dev/null/s"), "cannot be made"),
    ],
)
def test_bad_input_is_one_clear_line(run, tmp_path: Path, arguments, says):
    code, out, err = run("--out", str(tmp_path / "s"), "--reps", "2", "--horizon", "50", *arguments)
    assert (code, out, says in err) == (2, "", True), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "whole", "numbers"),
    [
        ("1:4", True, (1, 2, 3, 4)),
        ("4,1:7:3,1", True, (4, 1, 7)),
        ("0.5:1.5:0.25", False, (0.5, 0.75, 1.0, 1.25, 1.5)),
        ("0.1:0.3:0.1", False, (0.1, 0.2, 0.3)),
        ("0.9", False, (0.9,)),
    ],
)
def test_lists_and_ranges(text, whole, numbers):
    kind: click.ParamType[tuple[float, ...]] = Numbers(0, 100, whole=whole)
    assert kind.convert(text, None, None) == numbers
