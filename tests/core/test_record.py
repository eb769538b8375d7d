"""What was seen of devices' answers: by device and model, bounded, taken up again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.record import MOST_DEVICES, MOST_MODELS, Record, Row
from folkmoot.core.skill import SkillClass

BOB = DeviceId("bob")
CARD = Card("bob", "m", probes=7)
SUMS, WORDS = SkillClass.ARITHMETIC, SkillClass.EXTRACTION


def test_each_model_of_a_device_has_a_row_of_its_own() -> None:
    it = Record()
    for right in (True, False, True):
        it.note(BOB, CARD, SUMS, right, 60)
    it.note(BOB, CARD, WORDS, 0.25, 60)
    assert it.seen(BOB, CARD, SUMS) == (2.0, 3.0)
    assert it.seen(BOB, CARD, WORDS) == (0.25, 1.0)
    for other in (replace(CARD, model="n"), replace(CARD, probes=8)):
        assert it.seen(BOB, other, SUMS) == (0.0, 0.0)
    assert it.seen(BOB, replace(CARD, name="robert", version=9, slots=4), SUMS) == (2.0, 3.0)
    assert it.changes == 4
    again = Record()
    again.take_up(it.rows())
    assert again.rows() == it.rows()
    assert again.knows(BOB)
    assert not again.changes, "nothing new is to be written"


def test_old_answers_count_half_and_what_was_seen_first_is_forgotten_first() -> None:
    it = Record()
    for _ in range(11):
        it.note(BOB, CARD, SUMS, True, 10)
    assert it.seen(BOB, CARD, SUMS) == (6.0, 6.0)
    for number in range(MOST_MODELS):
        it.note(BOB, replace(CARD, model=str(number)), SUMS, True, 10)
    assert it.seen(BOB, CARD, SUMS) == (0.0, 0.0)
    for number in range(MOST_DEVICES):
        it.note(DeviceId(str(number)), CARD, SUMS, True, 10)
    assert not it.knows(BOB)
    assert len(it.rows()) == MOST_DEVICES


@pytest.mark.parametrize("right", [(2.0,) + (0.0,) * 5, (-1.0,) + (0.0,) * 5, (math.nan,) * 6, (0.0,) * 5])
def test_a_row_that_cannot_be_is_told(right: tuple[float, ...]) -> None:
    assert not Row(BOB, 1, right, (1.0,) * 6).plausible
    assert Row(BOB, 1, (0.5,) * 6, (1.0,) * 6).plausible
