"""What a question wants, and what an answer says in short."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.core.extract import LOOKED_AT, LOOKED_AT_WHOLE, Kind, extract, kind_of

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
        ("Write a C++ function that reverses an integer.", Kind.CODE),
        ("Write a program to find the nth Fibonacci number.", Kind.CODE),
        ("Write a function that returns a JSON array.", Kind.CODE),
        ("Give me a diet program.", Kind.OPEN),
        ("Write a script for the opening scene of a film.", Kind.OPEN),
        ("Create a program for our summer party.", Kind.OPEN),
        ("What happened on 9/11?", Kind.OPEN),
        ("What is 9/11?", Kind.OPEN),
        ("What is 17 * 3?", Kind.NUMBER),
        ("Write an essay about the Second World War, 1939-1945.", Kind.OPEN),
        ("I need an essay of 300 words on how far we have come.", Kind.OPEN),
        ("Write two pages on how many people live in towns.", Kind.OPEN),
        ("How many atoms are in 3 grains of salt? Try to explain your answer.", Kind.OPEN),
        ("I have a flute, a drum and a horn. How many instruments do I have?", Kind.NUMBER),
        ("Расскажи, что значит счёт 2-3", Kind.OPEN),
        ("请解释 2-3", Kind.OPEN),
        ("哪个是水果？\n(A) 砖\n(B) 梨", Kind.LETTER),
        ('Сколько будет пять и семь? В конце строка "Answer: NUMBER".', Kind.NUMBER),
        ("Did you like the novels of A. S. Byatt and B. S. Johnson?", Kind.OPEN),
        ("Write my paper:\nA. Introduction\nB. Methods", Kind.OPEN),
        ("Which one is a fruit?\nA. brick\nB. pear", Kind.LETTER),
        ("Write one letter.\nOptions:\n(A) x\n(B) y", Kind.LETTER),
        ("Only the strong survive: discuss.", Kind.OPEN),
        ("What can be cooked with only the ingredients of this list: salt, eggs?", Kind.OPEN),
        ("In one word: what is the capital of Peru?", Kind.SHORT),
        ("Do you have any tips for sleeping better?", Kind.OPEN),
        ("Is Python or Rust better?", Kind.OPEN),
        ("Is there a meaning for wreaths?", Kind.OPEN),
        ("What does it mean to answer yes or no?", Kind.OPEN),
        ("True or false: whales are fish.", Kind.YES_NO),
        ("Was ist besser, der Bus oder die Bahn?", Kind.OPEN),
        ("What is the JSON format and why was it invented?", Kind.OPEN),
        ("How do I return valid JSON from a server?", Kind.OPEN),
        ("Identify the rivers in this text. Output in JSON format.", Kind.JSON),
        ("Convert this JSON to YAML.", Kind.OPEN),
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
        (Kind.NUMBER, ("Answer: -0.50", "Answer: −0.5", "Answer: minus 0.5")),
        (Kind.NUMBER, ("Answer: 0", "Answer: -0.0")),
        (
            Kind.NUMBER,
            ("Answer: 3/2", "Answer: 1.5", r"\boxed{\frac{3}{2}}", "Answer: 1 1/2", r"It is $\dfrac{3}{2}$"),
        ),
        (Kind.NUMBER, ("Answer: 1/3", "Answer: 2/6")),
        (
            Kind.NUMBER,
            (
                "Answer: 2 + 3 = 5 apples, 2 more",
                "Answer: 5 (since 5 = 10/2)",
                "So 5 are left (of 7).",
                "Answer:\n5",
            ),
        ),
        (Kind.NUMBER, (r"\boxed{\$1{,}200}", "Answer: 1,200.", "1200")),
        (
            Kind.LETTER,
            (
                "**B**",
                "**B. pear**",
                "The correct option is B.",
                "I believe option B is right.",
                "A pear it is, (B)",
            ),
        ),
        (Kind.LETTER, ("Answer: (B)", "Answer: B", "(B) pear", "B. It is a pear.", "It must be\n(B)")),
        (
            Kind.YES_NO,
            (
                "Yes, it is.",
                "Yes it is.",
                "Answer: yes",
                "**Yes**",
                "True",
                "I looked it up: the answer is yes.",
            ),
        ),
        (
            Kind.JSON,
            ('{"a": 1, "b": [2]}', 'Here [it] is: {"b":[2],"a":1} So.', '```json\n{"b":[2],"a":1}\n```'),
        ),
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
        (Kind.NUMBER, "Answer: 3,5"),
        (Kind.NUMBER, "Answer: 3, 5"),
        (Kind.NUMBER, "10-15 minutes"),
        (Kind.NUMBER, "Answer: between 10 and 15"),
        (Kind.NUMBER, "Answer: 3 to 5"),
        (Kind.NUMBER, "Answer: 3 * 5"),
        (Kind.NUMBER, "Answer: 10^6"),
        (Kind.NUMBER, "Answer: 1.5e3"),
        (Kind.NUMBER, "Answer: 2026-01-02"),
        (Kind.NUMBER, "Answer: 1/0"),
        (Kind.NUMBER, "Answer: " + "1" * 33 + "2"),
        (Kind.NUMBER, "Answer: 5 million"),
        (Kind.LETTER, "It could be (A) or (B)."),
        (Kind.LETTER, "Answer: I think (A) is tempting but (B) is right"),
        (Kind.YES_NO, "There is no single winner here."),
        (Kind.YES_NO, "No single cause is known."),
        (Kind.YES_NO, "- No screens"),
        (Kind.YES_NO, "That is not true."),
        (Kind.LETTER, "I believe it is the pear."),
        (Kind.LETTER, "A careful look shows a pear."),
        (Kind.LETTER, "The answer is A careful look."),
        (Kind.LETTER, "I"),
        (Kind.YES_NO, "It depends: yes in one way, no in another."),
        (Kind.JSON, "{'a': 1}"),
        (Kind.JSON, "3"),
        (Kind.JSON, "```\n3\n```"),
        (Kind.JSON, '{"a": NaN}'),
        (Kind.JSON, '{"a": 1e999}'),
        (Kind.JSON, '{"a": 1'),
        (Kind.JSON, f"[{'1, ' * LOOKED_AT_WHOLE}1]"),
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


def test_only_letters_that_the_question_offers_count() -> None:
    assert extract(Kind.LETTER, "Answer: D", question=OPTIONS) is None
    assert extract(Kind.LETTER, "Answer: D") == "D"
    assert extract(Kind.LETTER, "(D) is not there, it is (B)", question=OPTIONS) == "B"
    nine = "Pick one.\n" + "\n".join(f"({letter}) {letter}x" for letter in "ABCDEFGHI")
    assert extract(Kind.LETTER, "Answer: I", question=nine) == "I"


def test_a_few_words_without_a_mark_count_where_no_more_is_asked_for() -> None:
    question = "Answer with only the name: what is the capital of Peru?"
    assert kind_of(question) is Kind.SHORT
    assert (
        extract(Kind.SHORT, "Lima.", question=question) == extract(Kind.SHORT, "The answer is Lima") == "lima"
    )
    assert extract(Kind.SHORT, "Lima.") is None
    assert extract(Kind.SHORT, "It has been Lima since 1535.", question=question) is None
    assert extract(Kind.SHORT, "Lim", truncated=True, question=question) is None
    assert extract(Kind.SHORT, "Answer: Lim", truncated=True) is None


def test_long_json_is_read_whole() -> None:
    rows = [{"row": at} for at in range(2_000)]
    assert json.loads(extract(Kind.JSON, f"Here they are:\n{json.dumps(rows)}") or "") == rows


def test_numbers_are_compared_exactly() -> None:
    one, other = "1" * 29 + "2", "1" * 29 + "3"
    assert extract(Kind.NUMBER, f"Answer: {one}") == one != extract(Kind.NUMBER, f"Answer: {other}") == other
    assert extract(Kind.NUMBER, "Answer: 1200.50") == "1200.5"
    assert extract(Kind.NUMBER, "Answer: 0.005") == "0.005"
    assert extract(Kind.NUMBER, "Answer: -1/8") == "-0.125"


def test_the_last_mark_counts_and_one_that_says_nothing_does_not() -> None:
    assert extract(Kind.NUMBER, "Answer: 3? No.\nAnswer: 4\nThat is my answer.") == "4"
    assert (
        extract(Kind.NUMBER, "Answer: 2 + 3 = 5")
        == extract(Kind.NUMBER, "Answer: 2 + 3 = 4 + 1 = **5** apples")
        == "5"
    )


def code(text: str) -> str | None:
    return extract(Kind.CODE, f"So:\n```python\n{text}\n```")


STATEMENTS = ["x = 1", "def f(a, b=2):\n    'Why.'\n    return [a ** i for i in b]", "s = '#' + \"it's\\n\"", "async def g(): await h",
              "class C:\n    'Why.'\n    y: int = 0\n    def m(self):\n        'Why.'", "for i in x:\n    print(f'{i}')"]  # fmt: skip


@pytest.mark.no_cover
@given(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=4))
def test_python_is_compared_by_its_tree(statements: list[str]) -> None:
    text = "\n".join(statements)
    other = ast.unparse(ast.parse(text)).replace("Why.", "For other reasons.")
    other = "\n".join(
        f"{line}  # as told\n" if line.strip() and '"' not in line else line for line in other.split("\n")
    )
    assert code(text) == code(other) != code(text + "\npass")
    assert code(text.replace("x", "z")) != code(text) or "x" not in text


def test_other_code_is_compared_as_text() -> None:
    assert code("int f() {\n  return 1;\n}") == "int f() {\n  return 1;\n}"
    assert code("x = 1\n\n# no\nx +") == "x = 1\nx +"
    assert code(r"re.split('\d', s)") == code(r're.split("\d", s)') != code(r"re.split('\w', s)")
    assert code("'A text alone.'") == "'A text alone.'"


DEEP = ["(" * 31 + "1" + ")" * 31, "-" * 9_000 + "1", "a" + ".b" * 7_000, "1" + "+1" * 7_000, "not " * 3_000 + "a", "lambda: " * 1_900 + "a",
        "f" + "()" * 7_000, "a if b else " * 1_300 + "c", "if a: pass\n" + "elif a: pass\n" * 1_200, "a**" * 5_000 + "b", 
        "\n".join(f"{' ' * level}if a:" for level in range(120)), "x = '" + "[" * 40 + "'", "9" * 9_000, "a\0b", "s = '\ud800'", "x = 1\n" * 3_000]  # fmt: skip


@pytest.mark.parametrize("text", DEEP)
def test_code_that_is_too_deep_or_too_long_is_compared_as_text(text: str) -> None:
    assert code(text) == "\n".join(line for line in text.splitlines() if line)


def test_an_answer_that_was_cut_counts_by_its_mark_only() -> None:
    assert extract(Kind.NUMBER, "First 3, then 4", truncated=True) is None
    assert extract(Kind.NUMBER, "To answer this we first take 3 apples", truncated=True) is None
    assert extract(Kind.NUMBER, "Answer: 4\nsince 3 and", truncated=True) == "4"
    assert extract(Kind.NUMBER, r"so \boxed{4}", truncated=True) == "4"
    assert extract(Kind.NUMBER, "Answer: 4", truncated=True) is None, "it may be 42"


def test_the_bare_word_answer_is_no_mark() -> None:
    assert extract(Kind.NUMBER, "To answer this we take 3 of them.\nThat leaves 5.") == "5"
    assert extract(Kind.SHORT, "I answer with care") is None


@pytest.mark.no_cover  # traced it takes many times as long, and the tests above cover what it reaches
@given(st.sampled_from(list(Kind)), st.text(), st.booleans())
def test_any_text_will_do(kind: Kind, text: str, truncated: bool) -> None:
    kind_of(text)
    found = extract(kind, text, truncated)
    assert found is None or found


RUNS = [" ", "\n", "9", "1+", "(", "[", "{", "is ", ", is ", "answer", "answer:", "answer is ", "1,", "(A) ", "```a\n", "\\boxed{", "- ",
        "what is ", "what is a ", "how many ", "write ", "json in ", "yes or no ", "$-", "1 to ", "**A", "\\frac{1"]  # fmt: skip


@pytest.mark.parametrize("piece", RUNS)
def test_long_runs_are_cut(piece: str) -> None:
    """Bounded in size: what is looked at of a million characters is what is looked at of its end."""
    text = piece * (1_000_000 // len(piece))
    for kind in set(Kind) - {Kind.JSON, Kind.CODE}:
        assert extract(kind, text) == extract(kind, text[-LOOKED_AT:])
    assert extract(Kind.JSON, text) is extract(Kind.CODE, text) is None


def spent(work: Callable[[], object]) -> float:
    """The least processor time of three runs."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("around", ["{}", "{}a", "1+1{}a", "What is {}?", "a{}\n="])
@pytest.mark.parametrize("piece", RUNS)
def test_time_grows_as_the_text_does(piece: str, around: str) -> None:
    """Four times the text takes about four times as long, sixteen where a pattern is quadratic; and a plain text is the least it is held against."""

    def both(length: int) -> None:
        text = around.format(piece * (length // len(piece)))
        kind_of(text)
        for kind in Kind:
            extract(kind, text, question=text)

    plain = "The cat sat on the mat, and 3 dogs ran. " * 50
    least = spent(lambda: [kind_of(plain), *(extract(kind, plain, question=plain) for kind in Kind)])
    assert spent(lambda: both(8_000)) < 10 * max(spent(lambda: both(2_000)), least)
