"""Who was refused and comes again."""

from __future__ import annotations

import pytest

from folkmoot.core.door import LONGEST_S, MOST_REFUSED, Door
from folkmoot.core.events import Prompt
from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Turn


def prompt(text: str, number: int = 0) -> Prompt:
    return Prompt(PromptId(f"{number:032x}"), (Turn("user", text),))


def test_a_refused_prompt_is_known_again_by_its_words() -> None:
    door = Door()
    door.refuse(prompt("a"), 0.0, 10.0)
    assert door.returns(prompt("a", 7))
    assert not door.returns(prompt("b"))
    door.admit(prompt("a", 8), 1.0, 10.0)
    assert not door.returns(prompt("a"))


def test_whoever_comes_later_waits_longer() -> None:
    door = Door()
    for _ in range(20):
        door.admit(prompt("x"), 0.0, 10.0)
    assert door.refuse(prompt("a"), 0.0, 10.0) == (pytest.approx(0.5), 0, pytest.approx(2.0))
    assert door.refuse(prompt("b"), 0.0, 10.0)[:2] == (pytest.approx(1.0), 1)
    assert door.refuse(prompt("a"), 0.0, 10.0)[:2] == (pytest.approx(0.5), 0)  # its place is kept


def test_nobody_waits_for_ever_and_nothing_is_promised_that_is_not_known() -> None:
    door = Door()
    assert door.refuse(prompt("a"), 0.0, 10.0) == (0.0, 0, 0.0)
    door.admit(prompt("x"), 0.0, 1.0)
    assert door.refuse(prompt("b"), 20.0, 1.0)[0] == LONGEST_S


def test_what_is_kept_is_bounded_and_forgotten() -> None:
    door = Door()
    for number in range(MOST_REFUSED + 5):
        door.refuse(prompt(str(number)), 0.0, 10.0)
    assert not door.returns(prompt("4"))
    assert door.returns(prompt("5"))
    door.refuse(prompt("late"), LONGEST_S + 1.0, 10.0)
    assert not door.returns(prompt("5"))
