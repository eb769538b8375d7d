"""IFEval: what is handed to its program and what is refused. The verdicts are the program's own, which needs the extra `[ifeval]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.instructions import Instructions, checked, follows
from folkmoot.evals.tasks import load

MODEL = "tokenizers/punkt_tab/english/"
ASKED = Instructions("Shout.", ("case:upper", "words:most"), ({}, {"most": 2}))
CHECKS: dict[str, Callable[..., bool]] = {
    "case:upper": lambda text: text.isupper(),
    "words:most": lambda text, most: len(text.split()) <= most,
}


@dataclass
class Example:
    key: int
    instruction_id_list: list[str]
    prompt: str
    kwargs: list[dict[str, Any]]


@dataclass
class Verdict:
    follow_all_instructions: bool


def strict(example: Example, answer: str) -> Verdict:
    pairs = zip(example.instruction_id_list, example.kwargs, strict=True)
    return Verdict(all([CHECKS[name](answer, **arguments) for name, arguments in pairs]))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules of the packages' names and shapes, with two instructions of our own."""
    names = (
        "nltk", "nltk.data", "langdetect", "lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval",
        "lm_eval.tasks.ifeval.utils", "lm_eval.tasks.ifeval.instructions_registry",
    )  # fmt: skip
    made: dict[str, Any] = {name: ModuleType(name) for name in names}
    made["nltk.data"].find = {MODEL: "here"}.__getitem__
    made["langdetect"].DetectorFactory = type("DetectorFactory", (), {"seed": None})
    made["lm_eval.tasks.ifeval.utils"].InputExample = Example
    made["lm_eval.tasks.ifeval.utils"].test_instruction_following_strict = strict
    made["lm_eval.tasks.ifeval.instructions_registry"].INSTRUCTION_DICT = CHECKS
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.mark.parametrize(
    ("answer", "right"), [("HO THERE", True), ("HO THERE YOU", False), ("ho", False), ("", False)]
)
@pytest.mark.usefixtures("program")
def test_an_answer_follows_all_or_not(answer: str, right: bool) -> None:
    assert follows(ASKED, answer) is right


def test_a_language_is_guessed_alike_each_time(program: dict[str, Any]) -> None:
    follows(ASKED, "HO")
    assert program["langdetect"].DetectorFactory.seed == 0


@pytest.mark.usefixtures("program")
def test_a_file_of_it_is_loaded_as_tasks(tmp_path: Path) -> None:
    row = {
        "key": 7,
        "prompt": "Shout.",
        "instruction_id_list": list(ASKED.names),
        "kwargs": [{}, {"most": 2}],
    }
    path = tmp_path / "input_data.jsonl"
    path.write_text(json.dumps(row))
    (task,) = load(path)
    assert (task.name, task.set, task.group, task.question) == ("ifeval/7", "ifeval", "ifeval", "Shout.")
    assert task.target == ASKED
    assert task.max_tokens == 300
    assert task.right("HO")
    assert not task.right("Ho")
    assert task.given("HO") == task.given("Answer: 4") == ""


@pytest.mark.parametrize(
    ("prompt", "names", "arguments", "told"),
    [
        ("Shout.", ["case:upper"], [], r"row 3: each of `instruction_id_list`"),
        ("Shout.", ["case:upper"], ["most"], r"row 3: each of `instruction_id_list`"),
        ("Shout.", [], [], r"row 3: each of `instruction_id_list`"),
        ("Shout.", 5, [{}], r"row 3: each of `instruction_id_list`"),
        (5, ["case:upper"], [{}], r"row 3: each of `instruction_id_list`"),
        ("Shout.", ["case:lower"], [{}], r"row 3: lm-eval checks no instruction 'case:lower'"),
        ("Shout.", [["case:upper"]], [{}], r"row 3: lm-eval checks no instruction \['case:upper'\]"),
    ],
)
@pytest.mark.usefixtures("program")
def test_what_is_no_row_of_it(prompt: object, names: object, arguments: object, told: str) -> None:
    with pytest.raises(EvalError, match=told):
        checked("row 3", prompt, names, arguments)


@pytest.mark.parametrize("missing", ["nltk.data", "langdetect", "lm_eval.tasks.ifeval.utils"])
def test_without_the_package_it_says_what_to_install(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(EvalError, match=r"folkmoot\[ifeval\]"):
        follows(ASKED, "HO")


def test_without_the_sentence_model_it_says_so_and_downloads_nothing(program: dict[str, Any]) -> None:
    program["nltk.data"].find = {}.__getitem__  # a KeyError is a LookupError, as NLTK's is
    with pytest.raises(EvalError, match=r"punkt_tables\.py"):
        follows(ASKED, "HO")
