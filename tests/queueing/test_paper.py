"""`bench/paper.py`: what its Table II is made of, with made-up lengths and with the measured ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from folkmoot.core.law import Fixed
from folkmoot.errors import ConfigError
from folkmoot.queueing.central import Failures

ROOT = Path(__file__).parents[2]
MADE_UP = ROOT / "tests/data/lengths.csv"


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_paper", ROOT / "bench/paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_means_follow_the_lengths_or_the_weights(paper: ModuleType) -> None:
    tokens, whole = paper.lengths(MADE_UP)
    assert tokens[3] == (1000.0, 900.0, 1000.0, 700.0), "capped as the paper's script caps them"
    assert whole == pytest.approx((576, 424, 416, 364))
    (trace,) = paper.scaled(tokens, whole)(45.0)
    assert paper.means(trace.rows) == pytest.approx([45.0 * mean / 445 for mean in whole])
    assert trace.rows[1][0] / trace.rows[0][0] == pytest.approx(90 / 410), "a row stays a row"
    (trace,) = paper.scaled(tokens, (3.0, 1.0, 1.0, 1.0))(45.0)
    assert paper.means(trace.rows) == pytest.approx([90.0, 30.0, 30.0, 30.0])
    with pytest.raises(ConfigError):
        paper.lengths(ROOT / "nowhere.csv")


def test_the_row_that_is_fitted_is_met(paper: ModuleType) -> None:
    factor = paper.fitted(lambda mean: (Fixed(mean),), 94.0, 40, 1)
    assert paper.rows((Fixed(factor),), 80, 1)[0]["latency_s"] == pytest.approx(94.0, rel=1e-3)


def test_one_slow_device_is_slower_and_queues_less(paper: ModuleType) -> None:
    """The queues of the fast ones are short while the slow one holds all prompts up: latency and queue part ways."""
    lengths, slow = paper.table_2(MADE_UP, 94.0, (1.0, 3.0), 60, 1)
    for table in (lengths, slow):
        assert table["rows"][0]["latency_s"] == pytest.approx(94.0, rel=0.1)
    ratios = {(one["slow"], one["layers"], one["proposers"]): one for one in slow["dependence"]}
    assert len(ratios) == 14
    assert ratios[3.0, 2, 3]["latency_ratio"] > 1.2
    assert ratios[3.0, 2, 3]["queue_ratio"] < 0.8


def test_the_central_server_s_rows(paper: ModuleType) -> None:
    found = paper.central(20.0, 2, 1.0, Failures(3600.0, 600.0), 1)
    assert [row["load"] for row in found["rows"]] == sorted(row["load"] for row in found["rows"])
    assert found["nobody_answered"]["centre"] == pytest.approx(1 / 7)
    for row in found["rows"]:
        assert row["centre"]["latency_s"] < row["moot"]["latency_s"]
        assert row["failing"]["moot_elsewhere"]["answered"] >= row["failing"]["moot"]["answered"]


def test_the_measured_lengths(paper: ModuleType) -> None:
    if not paper.LENGTHS.exists():
        pytest.skip("the measured answer lengths are not part of this repository")
    tokens, whole = paper.lengths(paper.LENGTHS)
    assert whole == pytest.approx((416, 342, 307, 310), abs=0.5)
    assert paper.means(tokens) == pytest.approx(whole, rel=0.03)
