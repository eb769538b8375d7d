"""What verdicts come to: a length-controlled win rate where there is one, and why there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals import standings
from folkmoot.evals.standings import JUDGMENTS, PAIR, Judgment, Judgments, load, verdicts
from folkmoot.evals.winrate import PROMPTS, Judged, WinRate

ONE = Judgment("m", "", "alpaca/0", "auto", "gpt4", PAIR, "A", "A", {}, (30, 40), 0, "c", "Why.\u2028[[A]]")


def both(number: int, first: str, second: str) -> list[Judgment]:
    one = replace(ONE, task=f"alpaca/{number}", index=number)
    return [replace(one, verdict=first), replace(one, place="B", verdict=second)]


def test_judgments_are_read_as_they_were_written(tmp_path: Path):
    kept = Judgments.open(tmp_path / JUDGMENTS)
    other = replace(ONE, place="", kind="grade", against="", verdict="", scores={"Factuality": 4.0})
    for each in (ONE, other):
        kept.add(each)
    assert load(tmp_path) == [ONE, other]
    assert load(tmp_path / "none") == []
    (tmp_path / JUDGMENTS).write_text(json.dumps({"judge": "m"}) + "\n")
    with pytest.raises(EvalError, match=r"judgments\.jsonl, line 1 is no record"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "rate", "seen"),
    [
        ("A", "B", 1.0, (1, 0, 0, 0)),
        ("B", "A", 0.0, (0, 1, 0, 0)),
        ("A", "A", 0.5, (0, 0, 1, 1)),
        ("B", "B", 0.5, (0, 0, 1, 1)),
        ("tie", "tie", 0.5, (0, 0, 1, 0)),
        ("A", "tie", 0.75, (1, 0, 0, 0)),
        ("tie", "A", 0.25, (0, 1, 0, 0)),
    ],
)
def test_a_pair_is_the_mean_of_its_orders(first: str, second: str, rate: float, seen: tuple[int, ...]):
    (one,) = verdicts(both(1, first, second)).standings
    assert (one.rate.value, (one.won, one.lost, one.tied, one.flipped)) == (rate, seen)


def test_a_pair_of_which_one_order_is_there_is_not_counted_yet():
    assert verdicts([ONE]).standings == ()
    (one,) = verdicts([*both(1, "A", "B"), ONE]).standings
    assert one.pairs == 1


def test_all_of_alpaca_evals_instructions_have_a_length_controlled_win_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[Judged] = []

    def fitted(model: str, judged: list[Judged], difficulty: Path) -> WinRate:
        given.extend(judged)
        return WinRate(model, 50.0, 43.0)

    monkeypatch.setattr(standings, "win_rate", fitted)
    monkeypatch.setattr(standings, "difference", lambda pairs: standings.Interval(0.5, 0.4, 0.6))
    whole = [each for number in range(PROMPTS) for each in both(number, "A", "B" if number % 2 else "A")]
    (one,) = verdicts(whole, tmp_path).standings
    assert (one.controlled, one.uncontrolled) == (43.0, "")
    assert sorted(given, key=lambda row: row.index)[:2] == [Judged(0, 1.5, 40, 30), Judged(1, 2.0, 40, 30)]
    (one,) = verdicts(whole).standings
    assert (one.controlled, "--difficulty" in one.uncontrolled) == (None, True)
    (one,) = verdicts(whole[2:], tmp_path).standings
    assert "804 of them have a verdict" in one.uncontrolled


def test_why_a_length_controlled_win_rate_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(standings, "difference", lambda pairs: standings.Interval(0.5, 0.4, 0.6))
    whole = [each for number in range(PROMPTS) for each in both(number, "A", "B")]
    (one,) = verdicts(whole, tmp_path / "none").standings
    assert (one.controlled, "name a file of instruction difficulties" in one.uncontrolled) == (None, True)
