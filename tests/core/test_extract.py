"""What a question wants, and what an answer says in short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.core.extract import LOOKED_AT, Kind, extract, kind_of

OPTIONS = "Which is a fruit?\nOptions:\n(A) brick\n(B) pear\n(C) glass"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("A box holds 3 pens. How many pens do 4 boxes hold?", Kind.NUMBER),
        ("Calculate the interest on 300 at 4 %.", Kind.NUMBER),
        ("17 * (3 + 4) =", Kind.NUMBER),
        ("What is the total weight of the two bags?", Kind.NUMBER),
        ('Tom sells eggs. End with a line of the form "Answer: NUMBER".', Kind.NUMBER),
        (OPTIONS, Kind.LETTER),
        ("Pick one. A) red B) blue", Kind.LETTER),
        ("Is Lisbon south of Madrid?", Kind.YES_NO),
        ("Whales have lungs. Answer yes or no.", Kind.YES_NO),
        ("List three rivers as JSON.", Kind.JSON),
        ("Give me a JSON object with name and age", Kind.JSON),
        ("Write a Python function that reverses a list.", Kind.CODE),
        ("Sort these words: b a. End with a line Answer: and the list.", Kind.SHORT),
        ("Tell me about Lisbon.", Kind.OPEN),
        ("Can you write a poem about rain?", Kind.OPEN),
        ("How can I calculate my taxes?", Kind.OPEN),
        ("What is the difference between bread and cake?", Kind.OPEN),
        ("How much of a threat is rust?", Kind.OPEN),
        ("Why is the sky blue?", Kind.OPEN),
        ("", Kind.OPEN),
    ],
)
def test_what_a_question_wants(question: str, kind: Kind) -> None:
    assert kind_of(question) is kind


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        (
            Kind.NUMBER,
            ("Answer: 1,200", "so it is\n**Answer:** $1200.00", "It costs\n#### 1200", r"thus \boxed{1200}"),
        ),
        (Kind.NUMBER, ("3 + 4 = 7.\nAnswer: 3 + 4 = 7", "The answer is 7.", "We get 7")),
        (Kind.NUMBER, ("Answer: -0.50", "Answer: −0.5")),
        (Kind.NUMBER, ("Answer: 0", "Answer: -0.0")),
        (Kind.LETTER, ("Answer: (B)", "Answer: B", "(B) pear", "B. It is a pear.", "It must be\n(B)")),
        (
            Kind.YES_NO,
            ("Yes, it is.", "Answer: yes", "**Yes**", "True", "I looked it up: the answer is yes."),
        ),
        (Kind.JSON, ('{"a": 1, "b": [2]}', '```json\n{"b":[2],"a":1}\n```')),
        (
            Kind.CODE,
            ("```python\ndef f():\n    return 1\n```", "So:\n```\n# one\ndef f():  \n\n    return 1\n```"),
        ),
        (Kind.SHORT, ("Answer: a, b", "Answer:  A b.", "Sorted.\nThe answer is a b")),
    ],
)
def test_the_same_is_said_the_same(kind: Kind, answers: tuple[str, ...]) -> None:
    said = {extract(kind, answer) for answer in answers}
    assert len(said) == 1
    assert None not in said


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (Kind.NUMBER, "I do not know."),
        (Kind.LETTER, "It could be (A) or (B)."),
        (Kind.YES_NO, "It depends: yes in one way, no in another."),
        (Kind.JSON, "{'a': 1}"),
        (Kind.JSON, "3"),
        (Kind.JSON, "[" * 5_000),
        (Kind.CODE, "no code"),
        (Kind.SHORT, "Answer: " + "word " * 60),
        (Kind.SHORT, "nothing is marked"),
        (Kind.OPEN, "Answer: 3"),
        (Kind.NUMBER, ""),
    ],
)
def test_where_nothing_is_said(kind: Kind, answer: str) -> None:
    assert extract(kind, answer) is None


def test_different_results_differ() -> None:
    assert extract(Kind.NUMBER, "Answer: 12") != extract(Kind.NUMBER, "Answer: 13")
    assert extract(Kind.NUMBER, "Answer: 12") != extract(Kind.NUMBER, "Answer: -12")
    assert extract(Kind.YES_NO, "Yes.") != extract(Kind.YES_NO, "No.")
    assert extract(Kind.JSON, '{"a": 1}') != extract(Kind.JSON, '{"a": "1"}')


def test_the_last_mark_counts_and_one_that_says_nothing_does_not() -> None:
    assert extract(Kind.NUMBER, "Answer: 3? No.\nAnswer: 4\nThat is my answer.") == "4"


def test_an_answer_that_was_cut_counts_by_its_mark_only() -> None:
    assert extract(Kind.NUMBER, "First 3, then 4", truncated=True) is None
    assert extract(Kind.NUMBER, "Answer: 4\nsince 3 and", truncated=True) == "4"


@given(st.sampled_from(list(Kind)), st.text(), st.booleans())
def test_any_text_will_do(kind: Kind, text: str, truncated: bool) -> None:
    kind_of(text)
    found = extract(kind, text, truncated)
    assert found is None or found


@pytest.mark.parametrize(
    "piece", ["\n", "(", "answer:", "1,", "(A) ", "is ", "```a\n", "\\boxed{", "9", "- "]
)
def test_long_runs_are_cut(piece: str) -> None:
    """Bounded in size: what is looked at of a million characters is what is looked at of its end."""
    text = piece * (1_000_000 // len(piece))
    for kind in Kind:
        assert extract(kind, text) == extract(kind, text[-LOOKED_AT:])
    assert kind_of(text) is kind_of(text[-LOOKED_AT:])
