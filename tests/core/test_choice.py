"""Who answers: from what was asked and who is there to layers, peers and an aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations, product
from math import comb, sqrt
from random import Random
from typing import Any

import pytest
from tests.core.world import Moot

from folkmoot.core.events import (
    Event,
    Finished,
    Generate,
    Generated,
    Plan,
    Prompt,
    PromptAnswered,
    Received,
    Send,
    Submitted,
)
from folkmoot.core.gossip import Card, Member, Standing
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import Answer, Ask, Piece, Turn, Usage
from folkmoot.core.peer import Peer, PeerConfig


def fixed(layers: int, proposers: int | None = None, **more: object) -> Plan:
    return Plan(mode="fixed", layers=layers, proposers=proposers, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_a_requester_may_name_its_peers(seed: int) -> None:
    """Who takes the requester's own place is drawn among those that it has not named."""
    moot = Moot({"req": "", "ann": "m", "bob": "m", "cid": "m"}, seed=seed)
    prompt = moot.ask("req", fixed(1, select=("ann", "bob"), aggregator="fixed:ann"))
    moot.work()
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered), end
    assert end.provenance.rounds[0].asked == ("cid", "ann", "bob")
    assert end.provenance.jobs[-1].device == "ann"


def test_a_requester_that_names_everybody_has_one_fewer_and_is_told() -> None:
    moot = Moot({"req": "", "ann": "m", "bob": "m"})
    prompt = moot.ask("req", fixed(2, select=("ann", "bob")))
    moot.work()
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered), end
    assert [sorted(row.asked) for row in end.provenance.rounds] == [["ann", "bob"]] * 2
    assert [row.asked[1:] for row in end.provenance.rounds][0] != ()
    assert any("1 of 2 peers" in each.what for each in end.provenance.decisions)


# ---- each peer equally likely --------------------------------------------------------------------------

OTHERS = [DeviceId(f"d{number}") for number in range(7)]
K, LAYERS = 3, 16
SUBSETS = list(combinations(OTHERS, K))
CHI2_999 = {3: 16.27, 34: 65.25}
"""99.9 % quantiles of the chi-square distribution, by degrees of freedom."""

Drawn = tuple[DeviceId, ...]


def draws(seed: int, prompts: int = 250) -> list[list[Drawn]]:
    """The peers of each layer of many prompts at one origin among 8; all layers but the first are drawn one ahead."""
    peer = Peer(DeviceId("me"), Card("me", "m", 4096, 1.0, "me"), 1, PeerConfig(), Random(seed))
    peer.membership.adopt([Member(d, 1, Standing.ALIVE, Card(d, "m", 4096, 1.0, d)) for d in OTHERS], 0.0)
    told = []
    for number in range(prompts):
        layers: list[list[DeviceId]] = [[] for _ in range(LAYERS)]
        prompt = Prompt(PromptId(f"{number:032x}"), (Turn("user", "?"),), Plan("fixed", LAYERS, K))
        events: list[Event] = [Submitted(prompt)]
        while events:
            for effect in peer.handle(events.pop(0), 0.0):
                match effect:
                    case Send(to=to, message=Ask(job=job, layer=layer)):
                        layers[layer - 1].append(to)
                        events += [
                            Received(to, Piece(job, 0, "x")),
                            Received(to, Answer(job, 1, 0.0, Usage())),
                        ]
                    case Generate(job=job):
                        events += [Generated(job, "x"), Finished(job, Usage())]
        told.append([tuple(sorted(layer)) for layer in layers])
    return told


def chi2(seen: Counter[Any], expected: Mapping[Any, float]) -> float:
    assert set(seen) <= set(expected)
    return sum((seen[cell] - mean) ** 2 / mean for cell, mean in expected.items())


@pytest.fixture(scope="module")
def drawn() -> list[list[Drawn]]:
    return draws(20_241_121)


@pytest.mark.parametrize("layers", [slice(0, 1), slice(1, LAYERS)], ids=["at once", "one layer ahead"])
def test_each_set_of_peers_is_equally_likely(drawn: list[list[Drawn]], layers: slice) -> None:
    """PROTOCOL.md: k distinct peers, uniformly at random. Also each peer, and each pair of peers."""
    sets = [each for prompt in drawn for each in prompt[layers]]
    assert all(len(set(each)) == K for each in sets)
    assert chi2(Counter(sets), dict.fromkeys(SUBSETS, len(sets) / len(SUBSETS))) < CHI2_999[34]
    for size in (1, 2):
        seen = Counter(part for each in sets for part in combinations(each, size))
        share = comb(K, size) / comb(len(OTHERS), size)
        mean, sigma = len(sets) * share, sqrt(len(sets) * share * (1 - share))
        assert len(seen) == comb(len(OTHERS), size)
        assert all(abs(count - mean) < 4 * sigma for count in seen.values())


@pytest.mark.parametrize("lag", [1, 2])
def test_layers_are_drawn_afresh(drawn: list[list[Drawn]], lag: int) -> None:
    """What two layers of a prompt share is as chance has it (hypergeometric), and no peer attracts another."""
    couples = [couple for prompt in drawn for couple in zip(prompt, prompt[lag:], strict=False)]
    n = len(OTHERS)
    by_chance = {
        shared: len(couples) * comb(K, shared) * comb(n - K, K - shared) / comb(n, K)
        for shared in range(K + 1)
    }
    shared = Counter(len({*one} & {*other}) for one, other in couples)
    assert chi2(shared, by_chance) < CHI2_999[3]
    follows = Counter(both for one, other in couples for both in product(one, other))
    share = (K / n) ** 2
    mean, sigma = len(couples) * share, sqrt(len(couples) * share * (1 - share))
    assert len(follows) == n * n
    assert all(abs(count - mean) < 4.5 * sigma for count in follows.values())


def test_the_draw_follows_the_generator_alone() -> None:
    assert draws(1, 5) == draws(1, 5) != draws(2, 5)
