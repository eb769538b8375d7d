"""An aggregate that is worse than a draft, and one that only differs."""

from __future__ import annotations

import json
from random import Random

import pytest
from tests.core.test_committee import ALIKE, VOTING, asked
from tests.core.world import Moot, answered, fixed

from folkmoot.core.events import AnswerText, Plan
from folkmoot.core.extract import LOOKED_AT_WHOLE, Kind
from folkmoot.core.floor import Text, below, faults
from folkmoot.core.messages import Stage
from folkmoot.core.screen import loops

WHY = "Why is the sky blue?"
SKY = Text("Air scatters blue light more than red.")
OTHER = Text("It is since small molecules scatter short waves best.")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (Text(" \n"), "empty"),
        (Text("Air scatters", truncated=True), "cut off"),
        (Text("so it is. " * 200), "again and again"),
        (Text("I'm sorry, but I can't help with that."), "refuses"),
        (Text("As an AI language model, I am unable to assist with that."), "refuses"),
        (Text("Потому что воздух рассеивает синий свет."), "another script"),
    ],
)
def test_what_is_wrong_by_itself(text: Text, word: str) -> None:
    (fault,) = faults(Kind.OPEN, WHY, text)
    assert word in fault
    found = below(Kind.OPEN, WHY, text, [text, SKY, OTHER])
    assert found is not None
    assert found[0] == 1, "the first draft without a fault"
    assert word in found[1]


@pytest.mark.parametrize("drafts", [[], [Text("")], [Text("I cannot say."), Text("I can't tell you that.")]])
def test_where_no_draft_is_better_it_stands(drafts: list[Text]) -> None:
    assert below(Kind.OPEN, WHY, Text("I cannot say."), drafts) is None


def test_what_is_asked_for_is_no_fault() -> None:
    """A question that wants another script is answered so by all."""
    russian = Text("Потому что воздух рассеивает синий свет.")
    assert below(Kind.OPEN, "Say in Russian why the sky is blue.", russian, [russian, russian]) is None


def test_a_fault_that_half_of_the_drafts_have_is_the_questions_own() -> None:
    """The wrong draft is the only one "without a fault", and it stays out; and another fault is answered by a draft as was asked."""
    question = "Translate into Russian: The weather is fine today and we walk along the river."
    russian = Text("Сегодня прекрасная погода, и мы гуляем вдоль реки.")
    english = Text("The weather is fine today and we walk along the river.")
    assert below(Kind.OPEN, question, russian, [russian, english, russian]) is None
    assert below(Kind.OPEN, question, russian, [russian, russian, english, english]) is None
    assert below(Kind.OPEN, question, Text(""), [russian, russian, english]) == (0, "it is empty")
    assert below(Kind.OPEN, question, Text(""), [Text(""), Text(""), english]) == (2, "it is empty")
    assert below(Kind.OPEN, WHY, russian, [russian, SKY, OTHER]) is not None, "one of three is no half"


def test_drafts_that_refuse_or_are_cut_take_nobodys_place() -> None:
    refusing, cut = Text("I cannot say."), Text("Air scatters", truncated=True)
    assert below(Kind.OPEN, WHY, cut, [refusing, refusing]) is None
    assert below(Kind.OPEN, WHY, refusing, [cut, cut]) is None
    assert below(Kind.OPEN, WHY, cut, [cut, cut, SKY]) is None, "the limit is the question's own"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear about your dog. Losing a friend is hard.",
        "As an AI I have no garden, but here is how roses are cut: above an eye, in March.",
        "I can't wait to see you on Friday!",
        "I can't help but smile at this: a fine question.",
        "I cannot say it better than this book does. "
        + "It names three causes of the war. " * 3
        + "The first is trade. " * 12,
    ],
)
def test_what_is_no_refusal(text: str) -> None:
    assert "it refuses" not in faults(Kind.OPEN, WHY, Text(text))


def test_rows_of_json_are_no_loop() -> None:
    rows = Text(json.dumps([{"number": at, "name": "a river"} for at in range(400)]))
    assert loops(rows.text)
    assert faults(Kind.JSON, "List them as JSON.", rows) == frozenset()
    assert faults(Kind.JSON, "List them as JSON.", Text("and so on " * 200)) == {
        "it is no JSON",
        "it says the same again and again",
    }


def test_an_aggregate_that_says_nothing_in_short_may_stand_against_drafts_that_agree() -> None:
    drafts = [Text("Yes, it did."), Text("Yes.")]
    assert below(Kind.YES_NO, "Did it rain?", Text("It rained all day."), drafts) is None
    assert below(Kind.YES_NO, "Did it rain?", Text("No."), drafts) is not None


def test_only_letters_that_the_question_offers_are_held_against_it() -> None:
    question = "Which is a fruit?\n(A) brick\n(B) pear"
    assert below(Kind.LETTER, question, Text("Answer: Z"), [Text("(B)"), Text("B")]) is None
    assert below(Kind.LETTER, question, Text("Answer: A"), [Text("(B)"), Text("B")]) is not None


@pytest.mark.parametrize("length", [LOOKED_AT_WHOLE // 10, 2 * LOOKED_AT_WHOLE])
def test_long_json_is_json_or_unknown(length: int) -> None:
    rows = json.dumps([Random(at).randbytes(5).hex() for at in range(length // 14)])
    assert faults(Kind.JSON, "List them as JSON.", Text(rows)) == frozenset()
    assert faults(Kind.JSON, "List them as JSON.", Text(f"Here it is: {rows}")) == frozenset()


def test_a_good_one_stands() -> None:
    assert below(Kind.OPEN, WHY, SKY, [OTHER, OTHER]) is None
    assert below(Kind.NUMBER, "How many?", Text("Answer: 3"), [Text("Answer: 3"), Text("3")]) is None


def test_against_all_drafts_it_does_not_stand() -> None:
    drafts = [Text("Answer: 3"), Text("It is 3")]
    found = below(Kind.NUMBER, "How many?", Text("Answer: 4"), drafts)
    assert found == (0, "all 2 drafts say the same, and it does not")
    assert below(Kind.NUMBER, "How many?", Text("Answer: 4"), [*drafts, Text("Answer: 5")]) is None
    assert below(Kind.NUMBER, "How many?", Text("Answer: 4"), drafts[:1]) is None


def test_the_form_that_was_asked_for() -> None:
    question = "List two rivers as JSON."
    found = below(Kind.JSON, question, Text("Here are two: Po, Rhône"), [Text("Po"), Text('["Po", "Rhône"]')])
    assert found == (1, "it is no JSON")


# ---- in a prompt ---------------------------------------------------------------------------------------


def through(moot: Moot, plan: Plan, *, stream: bool = False) -> tuple[str, list[str]]:
    """Drafts that are sound, an aggregate that refuses: the answer, and what was decided."""
    prompt = moot.ask("ann", plan, question=WHY, stream=stream)
    while any(job.split(".")[1] == "1" for job in (moot.running(name) for name in asked(moot))):
        for name in asked(moot):
            if moot.running(name).split(".")[1] == "1":
                moot.write(name, f"{name}: {SKY.text}")
    assert asked(moot) == ["ann"]
    moot.write("ann", "I'm sorry, I cannot say.")
    told = answered(moot, prompt)
    assert told.provenance.jobs[-1].stage is Stage.AGGREGATE
    return told.answer, [decision.what for decision in told.provenance.decisions]


def test_in_mode_auto_a_draft_stands_and_its_user_is_told() -> None:
    answer, decided = through(Moot(ALIKE, VOTING), Plan())
    assert answer.endswith(SKY.text)
    assert decided[-1] == f"the draft of {answer[:3]} stands in place of the aggregate"


def test_in_mode_fixed_the_aggregate_is_the_answer() -> None:
    answer, _ = through(Moot(ALIKE, VOTING), fixed(1, 3))
    assert answer == "I'm sorry, I cannot say."


def test_what_its_user_has_seen_is_not_taken_back() -> None:
    moot = Moot(ALIKE, VOTING)
    answer, _ = through(moot, Plan(), stream=True)
    shown = [n.text for n in next(iter(moot.devices.values())).notices if isinstance(n, AnswerText)]
    assert "".join(shown) == answer
