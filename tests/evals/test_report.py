"""From made-up records to tables whose figures can be counted by hand."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.jobs import Job
from folkmoot.evals.pages import PAGE, REPORT, markdown, page, write
from folkmoot.evals.records import LINES, SETUP, Record, Setup, begin
from folkmoot.evals.report import as_json, find, tables
from folkmoot.evals.standings import JUDGMENTS, Judgment, Judgments
from folkmoot.evals.statistics import mcnemar, wilson

SETUP_OF = Setup(("m", "m", "m", "m"), ("gsm8k:g.jsonl",), 10, 0, 0, 0.0, "folkmoot eval run --model m")


def record(number: int, arm: str, right: bool, jobs: int = 1, sort: str = "gsm8k", error: str = "") -> Record:
    job = Job(1, "propose", "ash", "m", "ok", 20, 0, 10, 2.0, 0.5)
    name = f"{sort}/{number}"
    return Record(
        name, sort, arm, "ash", "" if error else "Answer: 4", "4.0", right, 0.3, (job,) * jobs, (), error
    )


def run_in(folder: Path, records: list[Record], setup: Setup = SETUP_OF) -> Path:
    kept = begin(folder, setup)
    for each in records:
        kept.add(each)
    return folder


@pytest.fixture
def like(tmp_path: Path) -> Path:
    """Of ten prompts a device alone has 1 to 4 right, `auto` 1 to 8 (of nine), a row of the paper 4 and 5."""
    records = [record(n, "single", n <= 4) for n in range(1, 11)]
    records += [record(n, "auto", n <= 8, jobs=3) for n in range(1, 10)]
    records += [record(n, "M1-k3", n in (4, 5), jobs=5) for n in range(1, 11)]
    return run_in(tmp_path / "runs" / "like", records)


def test_shares_jobs_and_differences_are_those_of_the_records(like: Path):
    (table,) = tables(find(like))
    assert table.best == "single"
    single, auto, row = table.rows
    assert single.right == wilson(4, 10)
    assert (auto.prompts, auto.jobs, auto.tokens, auto.latency_s) == (9, 3.0, 30.0, 5.0)
    assert (single.limit_s, auto.limit_s) == (2.0, 3 * 2.0 - 2 * 0.5), (
        "one device has all, and reads a question once"
    )
    assert auto.against is not None
    assert (auto.against.prompts, auto.against.only_here, auto.against.only_there) == (9, 4, 0)
    assert auto.against.by.value == pytest.approx(4 / 9)
    assert auto.against.by.low < 4 / 9 < auto.against.by.high
    assert row.against is not None
    assert (row.against.only_here, row.against.only_there) == (1, 3)
    assert (auto.against.chance, row.against.chance) == (mcnemar(4, 0), mcnemar(1, 3))
    assert auto.against.corrected == pytest.approx(2 * mcnemar(4, 0))
    assert [each.other for each in table.auto] == ["single", "M1-k3"]


def test_where_prompts_make_more_or_fewer_jobs_it_says_how_many(tmp_path: Path):
    records = [record(n, "auto", True, jobs=3 if n < 8 else 4) for n in range(10)]
    (table,) = tables(find(run_in(tmp_path / "run", records)))
    assert (table.rows[0].jobs, table.rows[0].by_jobs) == (3.2, {3: 8, 4: 2})
    assert "Prompts of auto by their jobs: 3: 8, 4: 2" in markdown([table])


def test_an_arm_with_settings_is_quoted_for_the_shell(tmp_path: Path):
    (table,) = tables(find(run_in(tmp_path / "run", [record(1, "auto+a.waves=[2,1]", True)])))
    assert "`folkmoot eval run --model m --arms 'auto+a.waves=[2,1]' --out run`" in markdown([table])


def test_its_json_is_the_interfaces(like: Path):
    found = json.loads(json.dumps(as_json(tables(find(like))), allow_nan=False))
    assert {"tables", "claims", "auto", "win_rate"} <= found.keys()
    first, second = found["tables"]["same"]
    assert found["tables"]["diverse"] == []
    assert (first["layers"], first["proposers"], first["prompts"], first["accuracy"]) == (0, 0, 10, 0.4)
    assert (second["layers"], second["proposers"], second["accuracy"]) == (1, 3, 0.2)
    assert second["accuracy_low"] < 0.2 < second["accuracy_high"]
    assert {"latency_s", "queue_size", "queue_size_script"} <= second.keys()
    auto = found["auto"]
    assert (auto["difference"], auto["prompts"], auto["jobs_mean"]) == (pytest.approx(4 / 9), 9, 3.0)


def test_the_page_has_each_arm_with_the_command_that_makes_it_again(like: Path):
    page = markdown(tables(find(like)))
    assert "## 4 × m" in page
    assert "| single | 10 | 40.0 % (16.8 to 68.7) | 1.00 | 10 | 2.0 s | 2.0 s |  |  |  |" in page
    assert "| auto | 9 | 88.9 % (56.5 to 98.0) | 3.00 | 30 | 5.0 s | 5.0 s | +44.4 (" in page
    for arm in ("single", "auto", "M1-k3"):
        assert f"- {arm}: `folkmoot eval run --model m --arms {arm} --out like`" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:5]}) == 1


def test_runs_of_the_same_moot_on_other_sets_are_pooled_and_told_apart(like: Path, tmp_path: Path):
    other = replace(SETUP_OF, sets=("bbh:b.jsonl",))
    run_in(tmp_path / "runs" / "more", [record(n, "single", n <= 1, sort="bbh") for n in range(10)], other)
    (table,) = tables(find(tmp_path / "runs"))
    single = table.rows[0]
    assert (single.prompts, single.right.value) == (20, 6 / 20)
    assert single.by_set == {"gsm8k": (4, 10), "bbh": (2, 10)}
    page = markdown([table])
    assert "| single | 40.0 % (16.8 to 68.7) | 20.0 % (5.7 to 51.0) |" in page
    assert "--arms single --out like && folkmoot eval run --model m --arms single --out more" in page


def test_open_answers_are_neither_right_nor_wrong(tmp_path: Path):
    records = [record(n, "single", n <= 1) for n in range(4)]
    records += [
        replace(record(n, arm, False, sort="alpaca"), right=None)
        for n in range(6)
        for arm in ("single", "auto")
    ]
    (table,) = tables(find(run_in(tmp_path / "run", records)))
    single, auto = table.rows
    assert (single.prompts, single.checked, single.right.value, single.by_set) == (
        10,
        4,
        0.5,
        {"gsm8k": (2, 4)},
    )
    assert (auto.prompts, auto.checked, auto.by_set, auto.against, table.auto) == (6, 0, {}, None, ())
    page = markdown([table])
    assert "| single | 10, 4 of them checkable | 50.0 % (" in page
    assert "| auto | 6, 0 of them checkable |  | 1.00 |" in page
    found = json.loads(json.dumps(as_json([table]), allow_nan=False))
    assert [row["accuracy"] for row in found["moots"][0]["arms"]] == [0.5, None]


def test_judgments_are_told_with_the_records_and_packed_with_them(tmp_path: Path):
    folder = run_in(
        tmp_path / "runs" / "open", [replace(record(1, "auto", False, sort="alpaca"), right=None)]
    )
    kept = Judgments.open(folder / JUDGMENTS)
    for place in ("A", "B"):
        kept.add(Judgment("m", "it is small", "alpaca/1", "auto", "gpt4", "pair", place, "A", call="c"))
        kept.add(
            Judgment("m", "it is small", "mtbench/2", "auto", "", "grade", "", scores={"": 7.0}, call="c")
        )
    kept.add(Judgment("m", "it is small", "alpaca/1", "gpt4", "gpt4", "same", "both", "A", call="c"))
    found = find(tmp_path / "runs")
    assert write(found, tables(found), tmp_path / "out")  # nothing is to be drawn
    again = tables(find(tmp_path / "out"))
    assert again[0].verdicts == tables(found)[0].verdicts
    for told in (markdown(again), (tmp_path / "out" / REPORT).read_text()):
        assert (
            "The verdicts of m are no evidence of quality: it is small. Of 1 times that the same answer"
            in told
        )
        assert "+100 points towards the first place" in told
        assert "| auto | alpaca | gpt4 | 1 | 50.0 % (50.0 to 50.0) |  | 0, 0, 1 | 1 | 0 | 0 | 0 |" in told
        assert "| auto | mtbench | turn 1 | 1 | 7.00 (7.00 to 7.00) | 0 |" in told
    (row,) = json.loads(json.dumps(as_json(again), allow_nan=False))["win_rate"]
    assert (row["model"], row["ours"], row["ours_lc"], row["flipped"]) == ("auto", 50.0, None, 1)


def test_of_unlike_devices_the_best_is_what_the_others_are_compared_with(like: Path, tmp_path: Path):
    setup = replace(SETUP_OF, models=("m", "n", "m", "n"))
    records = [record(n, "single", n == 1) for n in range(10)] + [
        record(n, "single:1", n < 6) for n in range(10)
    ]
    records += [record(n, "auto", n < 5) for n in range(10)]
    run_in(tmp_path / "runs" / "unlike", records, setup)
    found = tables(find(tmp_path / "runs"))
    assert [table.best for table in found] == ["single", "single:1"]
    told = as_json(found)
    # Whether it does harm is a question where devices differ.
    assert told["auto"]["against"] == "single:1"
    assert told["auto"]["difference"] == pytest.approx(-0.1)
    # A device alone is no table.
    assert told["tables"]["diverse"] == []
    assert "## m, n, m, n" in markdown(found)


def test_a_device_that_was_asked_little_is_not_the_best_by_luck(tmp_path: Path):
    records = [record(n, "single", n % 2 == 0) for n in range(40)]
    records += [record(n, "single:1", True) for n in range(1)]  # it has just begun
    records += [
        record(n, "single:2", n >= 30) for n in range(20, 40)
    ]  # of the same prompts they have as many right
    records += [record(n, "auto", n % 3 != 0) for n in range(40)]
    (table,) = tables(find(run_in(tmp_path / "run", records)))
    assert table.best == "single"
    by_arm = {row.arm: row.against for row in table.rows}
    assert by_arm["auto"] is not None
    assert by_arm["auto"].prompts == 40


def test_a_prompt_without_an_answer_is_wrong_and_told(tmp_path: Path):
    records = [record(1, "auto", True), record(2, "auto", False, error="too_long")]
    (table,) = tables(find(run_in(tmp_path / "run", records)))
    assert (table.rows[0].right, table.rows[0].failed, table.rows[0].jobs) == (wilson(1, 2), 1, 1.0)
    assert "Without an answer (counted as wrong, or by a judge as lost): auto 1" in markdown([table])
    assert as_json([table])["auto"] is None  # there is nothing to compare it with


def test_with_a_pace_the_latency_is_what_was_measured(tmp_path: Path):
    folder = run_in(tmp_path / "run", [record(1, "auto", True)], replace(SETUP_OF, pace=0.1))
    (table,) = tables(find(folder))
    assert table.rows[0].latency_s == pytest.approx(3.0)
    assert "came in 0.1 of the times" in markdown([table])


def test_what_is_written_can_be_reported_on_again(like: Path, tmp_path: Path):
    runs = find(tmp_path / "runs")
    found = tables(runs)
    assert write(runs, found, tmp_path / "results")
    assert sorted(each.relative_to(tmp_path / "results").as_posix() for each in (tmp_path / "results").rglob("*.*")) == [
        "figures/1-jobs.svg", "figures/1-latency.svg", "like/records.jsonl.xz", "like/run.json", PAGE, REPORT,
    ]  # fmt: skip
    again = tables(find(tmp_path / "results"))
    assert markdown(again) == markdown(found)
    assert "![Answers that are right against jobs a prompt](figures/1-jobs.svg)" in (
        tmp_path / "results" / REPORT
    ).read_text("utf-8")
    assert write(find(tmp_path / "results"), again, tmp_path / "twice")
    for file in ("figures/1-jobs.svg", "figures/1-latency.svg", "like/records.jsonl.xz", PAGE, REPORT):
        assert (tmp_path / "twice" / file).read_bytes() == (tmp_path / "results" / file).read_bytes()


def test_without_matplotlib_there_are_no_figures(like: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    runs = find(like)
    assert not write(runs, tables(runs), tmp_path / "results")
    assert not (tmp_path / "results" / "figures").exists()
    assert "![" not in (tmp_path / "results" / REPORT).read_text("utf-8")


def test_the_html_page_holds_the_same_rows_and_nothing_that_a_name_could_open(tmp_path: Path):
    setup = replace(SETUP_OF, models=("<b>m</b>",) * 2)
    html = page(tables(find(run_in(tmp_path / "run", [record(1, "auto", True)], setup))))
    assert "<h2>2 × &lt;b&gt;m&lt;/b&gt;</h2>" in html
    assert "<td>auto</td><td>1</td><td>100.0 % (20.7 to 100.0)</td>" in html
    assert "<b>" not in html
    assert html.count("<tr>") == html.count("</tr>") == 2


def test_folders_of_others_are_refused(tmp_path: Path):
    with pytest.raises(EvalError, match="is no folder"):
        find(tmp_path / "none")
    with pytest.raises(EvalError, match="holds no run"):
        find(tmp_path)
    (tmp_path / SETUP).write_text("[]")
    with pytest.raises(EvalError, match="says nothing of a run"):
        find(tmp_path)
    (tmp_path / SETUP).unlink()
    run_in(tmp_path, [record(1, "auto", True)])
    (tmp_path / LINES).unlink()
    with pytest.raises(EvalError, match="holds no records"):
        find(tmp_path)


def test_a_run_goes_on_in_its_folder_and_no_other_does(tmp_path: Path):
    run_in(tmp_path, [record(1, "auto", True)])
    assert len(begin(tmp_path, replace(SETUP_OF, prompts=50, command="more"))) == 1
    named = replace(SETUP_OF, digests=("1234",))
    assert len(begin(tmp_path, named)) == 1  # an older Folkmoot did not say of what content
    for other in (
        {"digests": ("5678",)},
        {"models": ("n",)},
        {"seed": 1},
        {"sets": ("bbh:b",)},
        {"origin": None},
        {"pace": 1.0},
    ):
        with pytest.raises(EvalError, match="another one"):
            begin(tmp_path, replace(named, **other))


def test_what_an_arm_lacks_is_told_with_what_the_other_made_of_it(tmp_path: Path):
    records = [record(n, "single", n < 6) for n in range(10)]
    records += [record(n, "auto", n < 7) for n in range(2, 10)]
    (table,) = tables(find(run_in(tmp_path / "run", records)))
    (each,) = table.auto
    assert (each.prompts, each.here, each.there, each.missing, each.missed) == (8, 5 / 8, 4 / 8, 2, 2)
    assert each.worst == pytest.approx((1 - 2) / 10)
    page = markdown([table])
    assert "| single | 8 | 62.5 %, 50.0 % | +12.5 (" in page
    assert "| yes | 2, 2 right: -10.0 |" in page


def test_runs_of_other_files_or_with_other_answers_are_not_pooled(tmp_path: Path):
    setup = replace(SETUP_OF, digests=("aa",))
    run_in(tmp_path / "runs" / "one", [record(1, "single", True)], setup)
    run_in(tmp_path / "runs" / "two", [record(2, "single", True)], setup)
    assert tables(find(tmp_path / "runs"))[0].rows[0].prompts == 2
    run_in(tmp_path / "runs" / "three", [replace(record(2, "single", True), answer="another")], setup)
    with pytest.raises(EvalError, match="different answers"):
        tables(find(tmp_path / "runs"))
    (tmp_path / "runs" / "three").rename(tmp_path / "three")
    run_in(tmp_path / "runs" / "four", [record(3, "single", True)], replace(setup, digests=("bb",)))
    with pytest.raises(EvalError, match="different files"):
        tables(find(tmp_path / "runs"))
    # What was left out of one is another moot's.
    (tmp_path / "runs" / "four").rename(tmp_path / "four")
    run_in(tmp_path / "runs" / "five", [record(3, "single", True)], replace(setup, skip=5))
    assert [table.setup.skip for table in tables(find(tmp_path / "runs"))] == [5, 0]
