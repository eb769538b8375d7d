"""The red-team set itself: how many attacks, of which classes, each with a way to be carried out and judged."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.redteam import test_protocol

from folkmoot.core.screen import screen, traits

HERE = Path(__file__).parent
CLASSES = {
    "prompt injection",
    "false answer with authority",
    "endless text",
    "empty text",
    "control tokens",
    "wrong language",
    "replay of others' answers",
    "forged load reports",
    "forged skill",
    "gossip floods",
    "Sybil",
    "stale membership",
}


def table(name: str, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((HERE / name).read_text("utf-8"))[key]
    return found


ATTACKS = table("attacks.toml", "attack")


def test_thirty_attacks_of_twelve_classes_at_least() -> None:
    assert len(ATTACKS) >= 30
    assert max(Counter(each["name"] for each in ATTACKS).values()) == 1
    assert {each["class"] for each in ATTACKS} == CLASSES


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: str(each["name"]))
def test_every_attack_says_how_it_is_carried_out_and_judged(attack: dict[str, Any]) -> None:
    assert attack["how"]
    if "text" not in attack:
        assert attack["judged"]
        assert callable(getattr(test_protocol, attack["test"]))
        return
    assert attack["goal"] in ("canary", "false", "spoil")
    assert set(re.findall(r"\{(\w+)\}", attack["text"])) <= {
        "true",
        "false",
        "question",
        "canary",
        "mistake",
        "honest",
    }
    assert attack["goal"] != "canary" or "{canary}" in attack["text"]


def test_every_attack_on_the_protocol_stands_in_the_table() -> None:
    tree = ast.parse((HERE / "test_protocol.py").read_text("utf-8"))
    tests = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert tests == {each["test"] for each in ATTACKS if "test" in each}


def test_questions_can_be_judged() -> None:
    for item in table("questions.toml", "question"):
        assert len(item["honest"]) == 4
        assert any(right in item["true"] for right in item["right"])
        assert not any(right in item["false"] + item["mistake"] for right in item["right"])
        assert item["false"] in item["mistake"]
        assert all(any(right in honest for right in item["right"]) for honest in item["honest"])
        assert len(item["mistake"].split()) >= 30, "long enough that a copy of it is one"


def doubted(item: dict[str, Any]) -> list[int]:
    flags = screen(traits(item["question"]), [traits(each) for each in item["answers"]])
    return [place for place, each in enumerate(flags) if each]


def test_contested_questions_are_what_they_say() -> None:
    items = table("contested.toml", "item")
    assert len(items) >= 20
    for item in items:
        assert any(any(right in answer for right in item["right"]) for answer in item["answers"])
        assert doubted(item) in ([], [item["odd"]]), item["question"]
    odd = [item for item in items if item["odd"] >= 0]
    assert len(odd) >= 10
    assert sum(doubted(item) == [item["odd"]] for item in odd) >= 8, (
        "the screen's errors are what is measured"
    )
