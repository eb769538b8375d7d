"""Files of tasks, and what of an answer is right."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.tasks import OPEN_TOKENS, Open, Task, digest, groups, load, pooled, said

DATA = Path(__file__).parents[3] / "shared/data"


def gsm8k(target: str) -> Task:
    return Task("gsm8k/1", "gsm8k", "How many?", target, 256)


def bbh(target: str) -> Task:
    return Task("bbh/t/1", "t", "Which?", target, 96)


@pytest.mark.parametrize(
    ("target", "answer", "right"),
    [
        ("4", "Two and two.\nAnswer: 4", True),
        ("4", "**Answer:** 4", True),
        ("4", "Answer:\n4", True),
        ("4", "The answer is 4.", True),
        ("4", "answer = 4 apples", True),
        ("4", "Answer: 4.0", True),
        ("1200", "Answer: $1,200.00", True),
        ("1,200", "Answer: 1200", True),
        ("-3", "Answer: -3", True),
        ("-3", "Answer: -$3", True),
        ("3", "Answer: -3", False),
        ("5", "Answer: 2 + 3 = 5", True),
        ("2", "Answer: 2 + 3 = 5", False),
        ("5", "Answer: 2 + 3 = 4 + 1 = **5** apples of 7", True),
        ("5", "Answer: 5 = x", True),
        ("5", "2 + 3 = 6\nAnswer: 5", True),
        ("4", "First I thought that the answer is 5.\nAnswer: 4", True),
        ("4", "It makes 5 and then 4", True),
        ("4", "It makes 4 and then 5", False),
        ("4", "Answer: 44", False),
        ("4", "Answer: [Number of tune-ups needed]\n", False),
        ("4", "I do not know.", False),
        ("4", "", False),
    ],
)
def test_gsm8k_is_right_by_its_number(target: str, answer: str, right: bool):
    assert gsm8k(target).right(answer) is right


@pytest.mark.parametrize(
    ("target", "answer", "right"),
    [
        ("(B)", "Answer: (B)", True),
        ("(B)", "Answer: B", True),
        ("(B)", "Answer: (B) the second one", True),
        ("(B)", "So it is this.\n\n**Answer: (B)**", True),
        ("(B)", "Answer: (A)", False),
        ("(B)", "Answer: Because", False),
        ("(B)", "Answer: B because it fits", True),
        ("(B)", "Answer: B, as told", True),
        ("(B)", "Answer: A because B does not fit", False),
        ("(B)", "(B)", True),
        ("True", "Answer: true.", True),
        ("yes", "Answer: Yes", True),
        ("yes", "Answer: yes, it is", False),
        ("valid", "Answer: invalid", False),
        ("apple pear", "Answer: apple, pear", True),
        ("apple pear", "Answer: pear apple", False),
        ("] )", "Answer: ] )", True),
        ("-20", "Answer: -20", True),
        ("8", "", False),
    ],
)
def test_bbh_is_right_by_its_letter_or_words(target: str, answer: str, right: bool):
    assert bbh(target).right(answer) is right


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("Answer: 4", "so 4.0", True), ("Answer: $1,000", "Answer: 1000", True), ("Answer: 4", "Answer: 5", False)],
)  # fmt: skip
def test_two_answers_of_gsm8k_agree_by_their_number(one: str, other: str, same: bool):
    task = gsm8k("4")
    assert (task.given(one) == task.given(other)) is same
    assert task.given("I do not know") == ""


def test_two_answers_of_bbh_agree_by_their_letter_or_words():
    task = bbh("(B)")
    assert task.given("Answer: B") == task.given("Answer: (B) the second") == "(B)"
    assert task.given("Answer: B because it fits") == task.given("Answer: B since it is so") == "(B)"
    assert task.given("Answer: because of (B)") == "(B)"
    assert task.given("Answer: Because") == "because"
    assert task.given("") == ""
    words = bbh("yes")
    assert words.given("Answer: Yes.") == words.given("answer is yes") == "yes"
    assert words.given("Answer: A dog") == "a dog"


@pytest.mark.parametrize("target", ["(B)", "yes", "apple pear", "] )", "-20", "answer boat", "x answer"])
@pytest.mark.parametrize(
    "answer",
    [
        "Answer: B it is",
        "Answer: yes",
        "Answer: apple, pear",
        "Answer: ] )",
        "answer boat",
        "Answer: x answer",
    ],
)
def test_an_answer_is_right_just_where_it_gives_what_the_target_gives(target: str, answer: str):
    """A vote that is counted by what is given must not lose what would be right."""
    task = bbh(target)
    assert task.right(answer) is (task.given(answer) == task.given(f"Answer: {target}"))


def test_what_stands_behind_the_last_answer_on_its_line():
    assert said("Answer: 1\nThe Answer is: *2*.\nThat is all.") == "2"
    assert said("nothing of the kind") == ""


def test_a_file_is_loaded_in_an_order_drawn_once(sums: Path):
    names = [task.name for task in load(sums)]
    assert sorted(names) == ["gsm8k/1", "gsm8k/2", "gsm8k/3"]
    assert [task.name for task in load(sums, 2)] == names[:2]
    assert [task.name for task in load(sums, 1, skip=1)] == names[1:2]
    assert [task.name for task in load(sums, skip=2)] == names[2:]
    orders = {tuple(task.name for task in load(sums, seed=seed)) for seed in range(20)}
    assert len(orders) > 1
    assert load(sums)[0].question.startswith(("Two and", "Ten less", "Six times"))


def test_the_originals_are_taken_too(tmp_path: Path):
    row = {"question": "How many?", "answer": "It is 2<<1+1=2>>2 and so 1,002.\n#### 1,002"}
    with gzip.open(tmp_path / "test.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n\n")
    (task,) = load(tmp_path / "test.jsonl.gz")
    assert (task.name, task.target, task.set) == ("gsm8k/ba352e24c6", "1,002", "gsm8k")
    assert task.right("Answer: 1002")
    folder = tmp_path / "bbh"
    folder.mkdir()
    for name in ("navigate", "snarks"):
        examples = [{"input": f"{name} {each}?", "target": "Yes"} for each in range(3)]
        (folder / f"{name}.json").write_text(json.dumps({"canary": "…", "examples": examples}, indent=2))
    assert [task.group for task in load(folder / "navigate.json")] == ["navigate"] * 3
    both = load(folder)
    assert groups(both) == {"navigate": 3, "snarks": 3}
    assert len({task.name for task in both}) == 6
    assert both[0].set == "bbh"


ALPACA = {"id": 3, "dataset": "koala", "instruction": "Name a tree.", "chars": 12}
MT_BENCH = {
    "question_id": 81,
    "category": "math",
    "turns": ["Two and two?", "And two more?"],
    "reference": ["4", "6"],
}
FLASK = {"question_id": 7, "text": "Why is the sky blue?", "task": "Self-instruct", "answer": "Air.", "metrics": ["Factuality"]}  # fmt: skip


def test_open_tasks_are_neither_right_nor_wrong(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ALPACA))
    (task,) = load(tmp_path / "a.jsonl")
    assert (task.name, task.set, task.group, task.question) == ("alpaca/3", "alpaca", "koala", "Name a tree.")
    assert (task.open, task.right("An oak."), task.given("An oak."), task.max_tokens) == (
        True,
        None,
        "",
        1000,
    )
    assert not gsm8k("4").open
    (tmp_path / "eval.json").write_text(
        json.dumps([{"instruction": "A?"}, {"instruction": "B?", "dataset": "vicuna"}])
    )
    assert sorted(task.name for task in load(tmp_path / "eval.json")) == ["alpaca/0", "alpaca/1"]
    (tmp_path / "f.jsonl").write_text(json.dumps(FLASK))
    (task,) = load(tmp_path / "f.jsonl")
    assert (task.name, task.group, task.target) == ("flask/7", "Self-instruct", Open("Air.", ("Factuality",)))


def test_the_second_turn_is_asked_in_the_conversation_of_the_first(tmp_path: Path):
    rows = [MT_BENCH, *({**MT_BENCH, "question_id": number, "reference": None} for number in range(82, 90))]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = load(tmp_path / "m.jsonl", 2)
    assert len(tasks) == 4
    assert [task.before for task in tasks[1::2]] == tasks[::2]
    first, second = (
        task for task in load(tmp_path / "m.jsonl") if task.name in ("mtbench/81", "mtbench/81/2")
    )
    assert (second.name, second.set, second.group, second.target) == (
        "mtbench/81/2",
        "mtbench",
        "math",
        Open("6"),
    )
    assert first.messages == [{"role": "user", "content": "Two and two?"}]
    said = second.after("Four.").messages
    assert [turn["role"] for turn in said] == ["user", "assistant", "user"]
    assert [turn["content"] for turn in said] == ["Two and two?", "Four.", "And two more?"]
    assert second.max_tokens == OPEN_TOKENS


def test_two_files_without_ids_are_pooled_whole(tmp_path: Path):
    for name, question in (("train", "{}+1?"), ("test", "{}+2?"), ("again", "{}+2?")):
        rows = [{"question": question.format(each), "answer": str(each)} for each in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test, again = (load(tmp_path / f"{name}.jsonl") for name in ("train", "test", "again"))
    assert len({task.name for task in pooled([train, test])}) == 10
    assert pooled([test, again]) == test  # the same question is the same task
    assert (
        digest(tmp_path / "test.jsonl")
        == digest(tmp_path / "again.jsonl")
        != digest(tmp_path / "train.jsonl")
    )


def test_two_tasks_of_one_name_are_refused(sums: Path, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": 2, "question": "Five and five?", "answer": "10"}) + "\n")
    with pytest.raises(EvalError, match="two tasks are called gsm8k/2 and are not the same"):
        pooled([load(sums), load(other)])


def test_a_file_is_known_by_its_content_gzipped_or_not(sums: Path, tmp_path: Path):
    zipped = tmp_path / "elsewhere.jsonl.gz"
    zipped.write_bytes(gzip.compress(sums.read_bytes()))
    assert digest(zipped) == digest(sums)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    before = digest(folder)
    (folder / "a.json").write_text('{"examples": []}')
    assert digest(folder) != before
    with pytest.raises(EvalError, match="cannot be read"):
        digest(tmp_path / "none")
    zipped.write_bytes(zipped.read_bytes()[:-20])
    with pytest.raises(EvalError, match="cannot be read"):
        digest(zipped)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"question": "x"}', "line 1: fields question are of no set"),
        ("a.jsonl", '["question"]', "line 1: no object"),
        ("a.jsonl", "words", "holds no tasks as JSON"),
        ("a.jsonl", '{"question": "x", "answer": "a robe"}', "line 1: the answer 'a robe' is no number"),
        ("a.jsonl.gz", "not zipped", "holds no tasks as JSON"),
        ("a.json", '{"input": "x"}', "no list of `examples`"),
        ("a.json", "[5]", "no list of `examples`"),
        ("a.json", '{"examples": [5]}', "no list of `examples`"),
        ("a.jsonl", '{"turns": "x"}', "are lists of texts"),
        ("a.jsonl", '{"text": "x", "metrics": "Factuality"}', "is a list of skills"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, told: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(EvalError, match=told):
        load(tmp_path / name)


def test_a_file_that_is_missing_or_cut_off_is_refused(tmp_path: Path):
    with pytest.raises(EvalError, match="is not there"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(EvalError, match=r"holds no \.json files"):
        load(tmp_path)
    whole = gzip.compress(json.dumps({"question": "x" * 5_000, "answer": "1"}).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvalError, match="holds no tasks as JSON"):
        load(tmp_path / "cut.jsonl.gz")


@pytest.mark.parametrize(("name", "count", "sort"), [("gsm8k", 692, "gsm8k"), ("bbh", 3285, "bbh")])
def test_the_shared_files_give_their_own_targets(name: str, count: int, sort: str):
    file = DATA / f"{name}.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there: the shared data lie beside the project only where it is developed")
    tasks = load(file)
    assert len({task.name for task in tasks}) == len(tasks) == count
    assert {task.set for task in tasks} == {sort}
    assert all(
        task.name.rpartition("/")[2].isdecimal() for task in tasks
    )  # their own ids: what is stored is found again
    assert all(task.right(f"Answer: {task.target}") for task in tasks)
    assert not any(task.right("Answer: none of these") for task in tasks)
