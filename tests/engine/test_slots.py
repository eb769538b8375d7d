from __future__ import annotations

from folkmoot.core.ids import PromptId
from folkmoot.engine.slots import SlotTable, common_length


def names(table: SlotTable, *prompts: tuple[str, bool]) -> list[int]:
    return [table.take(PromptId(prompt), held).number for prompt, held in prompts]


def test_a_prompt_gets_its_slot_again() -> None:
    assert names(SlotTable(2), ("a", False), ("b", False), ("a", False), ("b", False)) == [0, 1, 0, 1]


def test_a_new_prompt_takes_the_least_recently_used_slot() -> None:
    assert names(SlotTable(2), ("a", False), ("b", False), ("a", False), ("c", False), ("a", False)) == [
        0,
        1,
        0,
        1,
        0,
    ]


def test_a_prompt_that_will_come_back_keeps_its_slot() -> None:
    table = SlotTable(2)
    assert names(table, ("mine", True), ("b", False), ("c", False), ("d", False), ("mine", False)) == [
        0,
        1,
        1,
        1,
        0,
    ]
    assert names(table, ("e", True), ("f", True), ("g", False)) == [1, 0, 1]


def test_a_new_prompt_does_not_wait_for_a_slot_that_works() -> None:
    table = SlotTable(3)
    with table.take(PromptId("a"), False).working():
        assert names(table, ("b", False), ("c", False), ("d", False), ("e", True)) == [1, 2, 1, 2]
        assert names(table, ("f", False), ("g", False), ("a", False)) == [1, 1, 0]
    assert names(table, ("h", False)) == [1]


def test_common_length() -> None:
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([1, 2], [1, 2, 3]) == 2
    assert common_length([], [1]) == 0
