"""Win rates: what is read and refused. The figures themselves are `bench/winrate.py`'s, which needs the extra `[judge]`."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.winrate import PROMPTS, Judged, load, win_rate

ROWS = "index,model,preference,chars_baseline,chars_model\n0,ash,1.25,100,90\n1,ash,2.0,10,9\n0,birch,1.0,100,400\n"
WHOLE = [Judged(index, 1.5, 10, 10) for index in range(PROMPTS)]


@pytest.mark.parametrize("packed", [False, True])
def test_preferences_by_model(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / f"rows.csv{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(ROWS.encode()) if packed else ROWS.encode())
    found = load(path)
    assert found == {
        "ash": [Judged(0, 1.25, 100, 90), Judged(1, 2.0, 10, 9)],
        "birch": [Judged(0, 1.0, 100, 400)],
    }


@pytest.mark.parametrize("text", ["index,model\n0,ash\n", ROWS.replace("1.25", "much"), ROWS + "2,ash,1.0\n"])
def test_what_holds_no_preferences(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(EvalError, match=r"rows\.csv holds no preferences"):
        load(path)
    with pytest.raises(EvalError, match="none holds no preferences"):
        load(tmp_path / "none")


def test_other_prompts_have_no_difficulties(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="ash: 3 rows"):
        win_rate("ash", WHOLE[:3], tmp_path)
    with pytest.raises(EvalError, match="805 rows"):
        win_rate("ash", [*WHOLE[1:], Judged(PROMPTS, 1.0, 1, 1)], tmp_path)
    with pytest.raises(EvalError, match="name a file of instruction difficulties"):
        win_rate("ash", WHOLE, tmp_path / "none")


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "alpaca_eval.metrics.glm_winrate", None)
    monkeypatch.setitem(sys.modules, "alpaca_eval", None)
    path = tmp_path / "difficulty.csv"
    path.write_text("")
    with pytest.raises(EvalError, match=r"folkmoot\[judge\]"):
        win_rate("ash", WHOLE, path)
