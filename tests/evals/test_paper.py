"""The paper's tables and claims from made-up records whose verdicts are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from tests.evals.test_report import run_in

from folkmoot.evals import paper as module
from folkmoot.evals.claims import Claim, claims
from folkmoot.evals.jobs import Job
from folkmoot.evals.pages import PAGE, REPORT, markdown, write
from folkmoot.evals.paper import PaperTable, as_rows, enough, paper
from folkmoot.evals.paper_pages import blocks, curves, live
from folkmoot.evals.records import Record, Setup
from folkmoot.evals.report import as_json, find, tables

SHAPES = ((0, 0), (1, 1), (1, 2), (1, 3), (2, 1))
NAMES = ("ash", "birch", "cid", "dot")
PROMPTS = 60


def record(number: int, layers: int, peers: int, right: bool, slow: float) -> Record:
    random = Random(f"{number} {layers} {peers}")
    origin = number % 4
    jobs = []
    for layer in range(1, layers + 1):
        others = random.sample([each for each in range(4) if each != origin], peers)
        jobs += [(layer, "propose" if layer == 1 else "refine", each) for each in (origin, *others)]
    jobs.append((layers + 1, "aggregate" if layers else "propose", origin))
    made = tuple(
        Job(layer, stage, NAMES[each], "m", "ok", 10, 0, 10, random.uniform(1.0, 3.0) * slow**each, 0.1)
        for layer, stage, each in jobs
    )
    arm = f"M{layers}-k{peers}" if layers else "single"
    return Record(f"gsm8k/{number}", "gsm8k", arm, NAMES[origin], "", "", right, 0.0, made)


def table(folder: Path, models: tuple[str, ...], better: int, slow: float = 1.0) -> PaperTable:
    """One alone is right in a third of the prompts, whoever mixes in `better` of 60 more; the last row has ten prompts more."""
    records = [
        record(n, layers, peers, n % 3 == 0 or (layers > 0 and n % 3 == 1 and n < 3 * better), slow)
        for layers, peers in SHAPES
        for n in range(PROMPTS + 10 * (layers == 2))
    ]
    setup = Setup(models, ("gsm8k:g.jsonl",), PROMPTS, 0, None, 0.0, "folkmoot eval run")
    (found,) = tables(find(run_in(folder, records, setup)))
    assert enough(found)
    made = paper(found)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[PaperTable, PaperTable]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONG", 800)
        patch.setattr(module, "LONG_RUNS", 6)
        folder = tmp_path_factory.mktemp("runs")
        return table(folder / "same", ("m",) * 4, 16), table(folder / "other", tuple("mnop"), 0, slow=1.5)


def verdict(found: list[Claim], begins: str) -> str:
    (claim,) = (each for each in found if each.claim.startswith(begins))
    assert claim.why
    return claim.verdict


def test_rows_have_the_prompts_that_all_have_and_one_rate(both: tuple[PaperTable, PaperTable]) -> None:
    same, _ = both
    assert [(row.layers, row.proposers) for row in same.rows] == list(SHAPES)
    assert {row.prompts for row in same.rows} == {PROMPTS}
    assert [row.jobs for row in same.rows] == [1, 3, 4, 5, 5]
    assert {row.below.rate_hz for row in same.rows} == {0.7 * min(row.limit_hz for row in same.rows)}
    assert {row.ten.rate_hz for row in same.rows} == {1.3 * max(row.limit_hz for row in same.rows)}
    for row in same.rows:
        assert row.alpha_s == pytest.approx(2.0, abs=0.2)
        assert row.limit_hz == pytest.approx(4 / (row.alpha_s * row.jobs), rel=0.15)
        assert row.rest_s < row.below.latency.value < row.above.latency.value
        assert row.below.load <= 0.7 + 1e-9


def test_what_is_sure_is_told_and_what_is_not_is_not(both: tuple[PaperTable, PaperTable]) -> None:
    found = claims(both)
    assert verdict(found, "a mixture answers better than one device (same") == "confirmed"
    assert verdict(found, "a mixture answers better than one device (different") == "undecided"
    assert verdict(found, "accuracy rises with M and k (same") == "undecided"
    assert verdict(found, "different models answer better") == "refuted"
    assert verdict(found, "ten prompts tell the rows apart (same") == "refuted"
    for name in ("same", "different"):
        assert (
            verdict(found, f"queues stay where each device's own load is below 1, and else grow ({name}")
            == "confirmed"
        )
        assert verdict(found, f"an unstable queue grows exponentially ({name}") == "refuted"
        assert verdict(found, f"ten prompts at such a load show an average queue ({name}") == "refuted"
        assert verdict(found, f"the script's column is the average queue ({name}") == "refuted"
    # Where one device has more to do than the mean it is at its limit before the formula's load is 1.
    formula = "queues stay where α((k+1)M+1)λ < 1 with the mean α, and else grow"
    assert (verdict(found, f"{formula} (same"), verdict(found, f"{formula} (different")) == (
        "undecided",
        "refuted",
    )
    assert verdict(found, "the best row is k = 4 (same") == "refuted"
    assert claims([]) == []


def test_the_busiest_of_unequal_devices_makes_the_limit(both: tuple[PaperTable, PaperTable]) -> None:
    for row in both[1].rows:
        assert row.limit_hz < 0.9 * 4 / (row.alpha_s * row.jobs)


def test_rows_and_claims_are_those_of_the_interface(
    both: tuple[PaperTable, PaperTable], tmp_path: Path
) -> None:
    same, _ = both
    found = tables(
        find(run_in(tmp_path, [record(1, 0, 0, True, 1.0)], Setup(same.models, ("g",), 1, 0, None, 0.0, "c")))
    )
    told = json.loads(json.dumps(as_json(found, [as_rows(same)], [{"claim": "c"}]), allow_nan=False))
    assert told["claims"] == [{"claim": "c"}]
    first = told["tables"]["same"][0]
    assert (first["layers"], first["proposers"], first["prompts"]) == (0, 0, PROMPTS)
    assert first["accuracy_low"] < first["accuracy"] < first["accuracy_high"]
    assert first["queue_size"] != first["queue_size_script"]
    assert first["ten"]["load"] == pytest.approx(1.3)


def test_pages_show_both_tables_their_claims_and_latency_against_load(
    both: tuple[PaperTable, PaperTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("folkmoot.evals.paper_pages.LONG", 50)
    same, other = both
    found = claims(both)
    folder = run_in(
        tmp_path / "run", [record(1, 0, 0, True, 1.0)], Setup(("m",), ("g",), 1, 0, None, 0.0, "c")
    )
    runs = find(folder)
    assert write(runs, tables(runs), tmp_path / "out", list(blocks(both, found)), curves([same]))
    text = (tmp_path / "out" / REPORT).read_text()
    assert "### Table I: 4 × m" in text
    assert "### Table II: m, n, o, p" in text
    assert "| the best row is k = 4 (same models) | refuted |" in text
    assert f"| 1 | 3 | {100 * other.rows[3].right.value:.1f} % " in text
    assert "(figures/load-1.svg)" in text
    assert "figures/load-1.svg" in (tmp_path / "out" / PAGE).read_text()
    assert (tmp_path / "out" / "figures" / "load-1.svg").stat().st_size > 1_000
    assert list(blocks([], [])) == []
    assert "Table I" not in markdown(tables(runs))


def test_too_few_prompts_make_no_table(tmp_path: Path) -> None:
    records = [record(n, *shape, True, 1.0) for shape in SHAPES[:2] for n in range(9)]
    setup = Setup(("m",) * 4, ("g",), 9, 0, None, 0.0, "c")
    (found,) = tables(find(run_in(tmp_path, records, setup)))
    assert not enough(found)
    assert paper(found) is None
    (alone,) = tables(find(run_in(tmp_path / "b", [replace(each, arm="auto") for each in records], setup)))
    assert paper(alone) is None


def test_a_run_at_a_rate_is_shown_beside_what_is_reckoned(tmp_path: Path) -> None:
    some = [replace(record(n, 1, 1, True, 1.0), at_s=0.2 * n, wall_s=0.5) for n in range(20)]
    setup = Setup(("m",) * 4, ("g",), 20, 0, None, 0.1, "c", rate=0.5)
    (found,) = tables(find(run_in(tmp_path, some, setup)))
    assert not enough(found)
    text = markdown([found], list(live([found])))
    assert "a prompt each 2.0 s; pace 0.1" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| M1-k1 | 20 | 0."))
    assert row.split(" | ")[3] == "5.00 s"  # half a second at a tenth of the time
    assert list(live([])) == []
