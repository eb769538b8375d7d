"""What a command makes of its device's answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folkmoot.cli import client
from folkmoot.cli.client import Api, Ended, Moved, Words
from folkmoot.core.events import AnswerText, PromptAnswered, PromptFailed
from folkmoot.errors import AdmissionError, FolkmootError

ASKED = {"model": "moot", "messages": [{"role": "user", "content": "Why?"}]}
LOUD = "\x1b]0;owned\x07\x9b31m\x7f"
"""Sets a terminal's title and colour, where it gets that far."""


@pytest.fixture
async def api(serve, control):
    async with Api(await serve(), control) as api:
        yield api


def strings(value):
    match value:
        case dict():
            return [*value, *(text for each in value.values() for text in strings(each))]
        case list():
            return [text for each in value for text in strings(each)]
        case str():
            return [value]
        case _:
            return []


def plain(value):
    return all(
        ch in "\n\t" or not ("\0" <= ch < " " or "\x7f" <= ch < "\xa0") for ch in "".join(strings(value))
    )


async def test_peers_do_not_steer_the_terminal_by_their_names_and_answers(api, village, monkeypatch):
    birch = village.members[1]
    card = replace(birch.card, name=f"bir{LOUD}ch", model=f"{LOUD}tiny", address=LOUD)
    village.members[1] = replace(birch, card=card)
    life, said = village._life, f"one\r\n\ttwo {LOUD}\x85\u2028three"

    def loud(prompt):
        for notice in life(prompt):
            match notice:
                case AnswerText():
                    yield replace(notice, text=said)
                case PromptAnswered():
                    yield replace(notice, answer=said)
                case _:
                    yield notice

    monkeypatch.setattr(village, "_life", loud)
    moot = await api.moot()
    assert moot["members"][1]["name"] == "bir]0;owned31mch"
    assert plain(moot)
    assert plain(await api.models())
    told = [each async for each in api.ask(ASKED)]
    assert {each.text for each in told if isinstance(each, Words)} == {"one\n\ttwo ]0;owned31m\u2028three"}
    assert all(plain(each.what) for each in told if isinstance(each, Moved))
    assert isinstance(told[-1], Ended)
    assert told[-1].answer["answer"] == said, (
        "for a program it stays as it is: JSON escapes what is dangerous"
    )
    shown = client.plain(told[-1].answer)
    assert plain(shown)
    assert shown["answer"] == "one\n\ttwo ]0;owned31m\u2028three"
    assert "bir]0;owned31mch" in [job["device"] for job in shown["jobs"]]


@pytest.mark.parametrize("late", [False, True])
async def test_errors_do_not_steer_the_terminal(api, village, monkeypatch, late):
    life = village._life

    def loud(prompt):
        notices = [each for each in life(prompt) if late and not isinstance(each, PromptAnswered)]
        return [*notices, PromptFailed(prompt.id, "engine_failed", f"birch: {LOUD}")]

    async def refuse(*_):
        raise AdmissionError(LOUD)

    monkeypatch.setattr(village, "_life", loud)
    monkeypatch.setattr(village, "invite", refuse)
    with pytest.raises(FolkmootError) as failed:
        [each async for each in api.ask(ASKED)]
    assert str(failed.value) == "birch: ]0;owned31m"
    with pytest.raises(AdmissionError) as refused:
        await api.invite(1, 60.0)
    assert str(refused.value) == "]0;owned31m"
