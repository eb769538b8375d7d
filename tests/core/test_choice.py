"""Who answers: from what was asked and who is there to layers, peers and an aggregator."""

from __future__ import annotations

import pytest
from tests.core.world import Moot

from folkmoot.core.events import Plan, PromptAnswered


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
