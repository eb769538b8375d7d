"""A short form of `make fuzz`, and that it would find what it looks for."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fuzz.mutations import Mutator
from fuzz.recorded import messages

from folkmoot.core import layout
from folkmoot.core.peer import Peer
from folkmoot.errors import RemoteProtocolError
from folkmoot.node.service import Status
from folkmoot.wire import TAGS, decode
from fuzz import api, peers


def test_all_kinds_of_messages_are_recorded() -> None:
    recorded = messages(1, each=20)
    assert {data[0] for data in recorded} == set(TAGS.values())
    assert all(decode(data) for data in recorded)


def test_mutations_reach_the_core_and_are_one_seeds() -> None:
    recorded = messages(1, each=20)
    drawn = [
        [mutator.draw() for _ in range(2_000)] for mutator in (Mutator(recorded, 7), Mutator(recorded, 7))
    ]
    assert drawn[0] == drawn[1]
    changed = [data for data in drawn[0] if data not in recorded]
    passed = 0
    for data in changed:
        try:
            decode(data)
        except RemoteProtocolError:
            continue
        passed += 1
    assert len(changed) > 1_500
    assert 0.1 < passed / len(changed) < 0.9


def test_mutated_messages_break_nothing() -> None:
    found = peers.run(4_000, seed=11)
    assert found.refused > 500
    assert len(found.handled) >= 12
    assert found.prompts > 3


def test_a_pattern_that_long_runs_keep_busy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was there once: quadratic in dots that no blank follows."""
    quadratic = re.compile(r"[.!?…]+[\"')\]]*(?=\s|$)|[。！？]|\n(?=\n)")
    monkeypatch.setattr(layout, "_SENTENCE_END", quadratic)
    monkeypatch.setattr(peers, "RUNS", ["." * 6_000 + "x" * 10_000])
    monkeypatch.setattr(peers, "LONG", 1.0)
    monkeypatch.setattr(peers, "SLOW_S", 0.2)
    with pytest.raises(peers.Broken, match="took"):
        peers.run(6_000, seed=11)


def test_a_core_that_fails_at_a_message_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Peer._on_message

    def careless(self: Peer, sender: Any, message: Any, now: float) -> Any:
        if getattr(message, "have", 0) > 2**30:
            raise OverflowError("careless")
        return handle(self, sender, message, now)

    monkeypatch.setattr(Peer, "_on_message", careless)
    with pytest.raises(peers.Broken, match="careless"):
        peers.run(4_000, seed=11)


async def test_bent_requests_break_nothing() -> None:
    found = await api.run(1_000, seed=11)
    assert {"200", "400", "401", "403", "404", "405"} <= set(found.statuses)
    assert found.prompts > 20


async def test_an_api_that_fails_at_a_request_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(status: Status) -> Any:
        raise KeyError("careless")

    monkeypatch.setattr("folkmoot.api.views.moot_status", careless)
    with pytest.raises(ExceptionGroup) as caught:
        await api.run(500, seed=11)
    assert caught.group_contains(api.Broken, match="careless|status 500")


async def test_an_api_that_asks_for_no_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folkmoot.api.guard.Guard._check", lambda *_: None)
    with pytest.raises(ExceptionGroup) as caught:
        await api.run(500, seed=11)
    assert caught.group_contains(api.Broken, match="without a key|by nobody")
