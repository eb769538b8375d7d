"""Who is asked no more, and how anybody comes back."""

from __future__ import annotations

from random import Random

import pytest

from folkmoot.core.ids import DeviceId
from folkmoot.core.repute import MOST_DEVICES, Books, Judged, Repute, ReputeConfig, Timed, harms, terms
from folkmoot.errors import ConfigError

BOB = DeviceId("bob")
WORDS = [f"word{number}" for number in range(30)]
ASKED = "Which planet is the largest?"
TRUE = [
    "Jupiter is the largest planet of the solar system.",
    "The largest one is Jupiter, a gas giant.",
    "Jupiter.",
]


def on(**more: float) -> Repute:
    return Repute(ReputeConfig(enabled=True, **more))


def test_one_harmful_answer_is_forgiven_and_many_are_not() -> None:
    repute = on()
    count = 0
    while BOB not in repute.shunned:
        repute.note(BOB, 1.0, 0.0)
        count += 1
    assert 4 <= count <= 8
    assert "did harm" in repute.shunned[BOB]


def test_a_device_that_harms_less_than_every_other_time_is_asked_for_ever() -> None:
    repute = on()
    for turn in range(200):
        repute.note(BOB, float(turn % 2), 0.0)
    assert BOB not in repute.shunned


def test_the_way_back_is_time() -> None:
    repute = on(half_life_s=100.0)
    for _ in range(50):
        repute.note(BOB, 1.0, 0.0)
    repute.look(100.0)
    assert BOB in repute.shunned
    repute.look(300.0)
    assert BOB not in repute.shunned
    for _ in range(4):
        repute.note(BOB, 1.0, 300.0)
    assert BOB in repute.shunned, "it has a record, so that fewer are enough"


def test_an_honest_past_does_not_buy_harm_for_ever() -> None:
    repute = on()
    for _ in range(1_000):
        repute.note(BOB, 0.0, 0.0)
    for _ in range(60):
        repute.note(BOB, 1.0, 0.0)
    assert BOB in repute.shunned


def test_no_books_are_kept_unless_asked_for() -> None:
    repute = Repute()
    for _ in range(50):
        repute.note(BOB, 1.0, 0.0)
    assert not repute.shunned
    assert repute.harm(BOB) == 0.0


def test_the_books_are_bounded() -> None:
    repute = on()
    for number in range(5_000):
        for _ in range(8):
            repute.note(DeviceId(f"d{number}"), 1.0, 0.0)
    assert len(repute.shunned) <= 4_096
    repute.look(1.0)


def test_a_liar_among_those_who_agree_did_harm() -> None:
    lie = "Saturn, according to every modern textbook of astronomy."
    found = harms(ASKED, TRUE[0], [*TRUE, lie], "The largest planet is Jupiter, a gas giant.")
    assert found[3] == 1.0
    assert all(each is None or each < 0.5 for each in found[:3])


def test_who_is_heard_against_all_others_did_no_harm() -> None:
    wrong = [
        "Saturn is the biggest planet known.",
        "The biggest planet known is Saturn.",
        "Saturn is biggest.",
    ]
    found = harms(ASKED, wrong[0], [*wrong, "Jupiter, which weighs more than twice the rest."],
                  "Jupiter, which weighs more than twice the rest together.")  # fmt: skip
    assert found[3] == 0.0


def test_liars_in_number_do_not_make_the_honest_harmful() -> None:
    lie = "Saturn, according to every modern textbook of astronomy."
    found = harms(ASKED, TRUE[0], [TRUE[0], TRUE[1], lie, lie], "Jupiter is the largest planet.")
    assert found[1] is not None
    assert found[1] < 0.5


@pytest.mark.parametrize(
    "answers",
    [
        ["Blue waves roll on.", "Quiet forests dream."],
        ["Blue waves roll onward.", "Quiet forests dream.", "Copper bells ringing afar."],
        [],
    ],
)
def test_where_nobody_agrees_nobody_is_judged(answers: list[str]) -> None:
    assert harms("Write a line.", answers[0] if answers else "", answers, "Blue") == [None] * len(answers)


def test_terms_say_something() -> None:
    assert terms("It is 42, the Answer!") == {"42", "answer"}
    assert terms("北京大学") == {"北京", "京大", "大学"}


@pytest.mark.parametrize(
    "wrong", [{"prior": 0.0}, {"harmful": 1.0}, {"half_life_s": 0.0}, {"most": float("nan")}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="repute"):
        ReputeConfig(**wrong)  # type: ignore[arg-type]


def test_claims_are_not_believed_far_below_what_was_timed_and_a_queue_drains() -> None:
    repute = on()
    for at in (10.0, 20.0):
        repute.time(BOB, 8.0, 2.0, at)
    assert repute.floor(BOB) == (0.0, 0.0), "two jobs are no measurement"
    repute.time(BOB, 8.0, 2.0, 30.0)
    assert repute.floor(BOB) == (1.0, 2.0)
    repute.look(34.0)
    assert repute.floor(BOB) == (1.0, 1.0)
    repute.look(50.0)
    assert repute.floor(BOB) == (1.0, 0.0)
    off = Repute()
    for _ in range(5):
        off.time(BOB, 8.0, 2.0, 1.0)
    assert off.floor(BOB) == (0.0, 0.0)


@pytest.mark.parametrize("words", [1, 2, 3, 8, 40])
def test_words_by_chance_condemn_nobody(words: int) -> None:
    rng, repute = Random(words), on()
    for number in range(400):
        said = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, words))) for _ in range(4)]
        for place, harm in enumerate(harms("why?", said[0], said, rng.choice(WORDS))):
            if harm is not None:
                repute.note(DeviceId(f"d{place}"), harm, float(number))
        assert not repute.shunned


def shunning(**more: float) -> Repute:
    repute = on(**more)
    for _ in range(20):
        repute.note(BOB, 1.0, 1_000.0)
    repute.note(DeviceId("ann"), 0.0, 1_000.0)
    return repute


def test_who_is_shunned_is_so_in_books_that_were_taken_up() -> None:
    old, fresh = shunning(), on()
    fresh.take_up(old.books(1_000.0), 0.0, 5.0)
    assert fresh.shunned == old.shunned
    assert fresh.books(5.0) == old.books(1_000.0)


@pytest.mark.parametrize("down_s", [0.0, 50.0, 150.0, 1e9])
def test_forgetting_goes_on_while_the_books_are_shut(down_s: float) -> None:
    old, fresh = shunning(half_life_s=100.0), on(half_life_s=100.0)
    books = old.books(1_010.0)
    fresh.take_up(books, down_s, 3.0)
    old.look(1_010.0 + down_s)
    assert list(fresh.shunned) == list(old.shunned)
    assert fresh.harm(BOB) == pytest.approx(old.harm(BOB) if BOB in old.shunned else fresh.harm(BOB))
    there = {each.device: each for each in fresh.books(3.0).judged}
    left = 0.5 ** ((10.0 + down_s) / 100.0)
    assert (BOB in there) == (20.0 * left >= 0.01)
    if BOB in there:
        assert there[BOB].harm == pytest.approx(20.0 * left)


def test_a_clock_that_was_set_back_makes_nothing_worse() -> None:
    fresh = on()
    fresh.take_up(shunning().books(1_000.0), -1e6, 5.0)
    assert fresh.books(5.0) == shunning().books(1_000.0)


def test_what_was_timed_is_taken_up_and_the_queue_has_drained_meanwhile() -> None:
    old, fresh = on(), on()
    for at in (10.0, 20.0, 30.0):
        old.time(BOB, 8.0, 2.0, at)
    fresh.take_up(old.books(32.0), 2.0, 100.0)
    assert fresh.floor(BOB) == (1.0, 1.0)


def test_books_say_whether_they_changed_and_are_bounded_when_taken_up() -> None:
    repute = on()
    before = repute.changes
    repute.take_up(Books((Judged(BOB, 3.0, 1.0),)), 0.0, 1.0)
    repute.look(2.0)
    assert repute.changes == before
    repute.note(BOB, 1.0, 3.0)
    repute.time(BOB, 1.0, 1.0, 3.0)
    assert repute.changes == before + 2
    many = [DeviceId(f"d{number}") for number in range(MOST_DEVICES + 100)]
    repute.take_up(
        Books(tuple(Judged(d, 1e9, 1.0) for d in many), tuple(Timed(d, 1.0, 1.0, 3) for d in many)), 0.0, 4.0
    )
    books = repute.books(4.0)
    assert len(books.judged) == MOST_DEVICES
    assert len(books.timed) <= MOST_DEVICES
    assert max(each.harm + each.good for each in books.judged) <= repute.config.most * 1.001
    assert len(repute.shunned) <= MOST_DEVICES


def test_books_that_are_not_kept_take_nothing_up() -> None:
    off = Repute()
    off.take_up(shunning().books(1_000.0), 0.0, 0.0)
    assert not off.shunned
    assert off.books(0.0) == Books()


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_books_that_cannot_be_are_told_apart(wrong: float) -> None:
    assert shunning().books(1_000.0).plausible
    assert not Books((Judged(BOB, wrong, 1.0),)).plausible
    assert not Books((), (Timed(BOB, 1.0, wrong, 3),)).plausible
