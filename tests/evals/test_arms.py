"""What the names of arms stand for, and how many jobs they make."""

from __future__ import annotations

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.arms import ABLATIONS, PAPER, arms_of, needed
from folkmoot.settings import child_environ, load


def test_the_paper_is_its_seven_rows():
    arms = arms_of("paper", 4)
    assert [(arm.layers, arm.proposers) for arm in arms] == list(PAPER)
    assert [arm.most_jobs(4) for arm in arms] == [1, 3, 4, 5, 5, 7, 9]
    assert arms[0].own == {"mode": "local"}
    assert arms[6].own == {"layers": 2, "proposers": 3}
    assert needed(arms, 4) == 4


def test_names_stand_once_and_in_their_order():
    assert [arm.name for arm in arms_of("auto, single,M1-k3,auto,single", 4)] == ["auto", "single", "M1-k3"]


def test_those_that_vote_ask_nobody():
    one, many, most = arms_of("self-consistency:6,majority,majority:2", 4)
    (own,) = arms_of("self-consistency:3@2", 4)
    assert (own.votes, own.voters, own.device, one.device) == (3, "device", 2, None)
    assert (one.votes, one.voters, many.votes, many.voters, most.votes) == (6, "device", 4, "moot", 2)
    assert [arm.most_jobs(4) for arm in (one, many, most)] == [6, 4, 2]
    assert needed((one, many), 4) == 6


def test_judged_layers_count_their_judges_and_who_merges_its_own_drafts_one_more_job():
    # Three layers of three and an aggregation.
    assert arms_of("moa", 4)[0].most_jobs(4) == 10
    smoa, three, keep, stop, own, other = arms_of(
        "smoa,smoa:3,smoa-keep:1,smoa-stop,self-moa,self-moa:6@2", 4
    )
    fixed = {"layers": 2, "proposers": 3}
    assert smoa.own == {**fixed, "keep": 2, "early_stop": True}
    assert three.own == {**fixed, "keep": 3, "early_stop": True}
    assert keep.own == {**fixed, "keep": 1}
    assert stop.own == {**fixed, "early_stop": True}
    assert [arm.most_jobs(4) for arm in (smoa, keep, stop, own, other)] == [11, 11, 10, 5, 7]
    assert (own.merges, own.device, other.device, other.voters) == (True, None, 2, "device")


def test_auto_says_only_what_it_makes_at_most():
    (auto,) = arms_of("auto", 3)
    assert (auto.most_jobs(3), auto.layers, auto.own) == (4, None, {})
    assert needed((auto,), 3) == 0


def test_a_single_device_is_the_origin_or_one_that_is_named():
    single, third = arms_of("single,single:2", 4)
    assert (single.device, third.device) == (None, 2)
    assert single.draft
    assert single.own == third.own == {"mode": "local"}


def test_settings_make_an_ablation():
    (arm,) = arms_of("auto+node.peer.committee.enabled=false+node.peer.price.enabled=false", 4)
    assert arm.settings == {"node.peer.committee.enabled": "false", "node.peer.price.enabled": "false"}
    assert arm.name.startswith("auto+node")
    two = arms_of("auto+node.peer.committee.waves=[2,1,1]+node.peer.price.enabled=false,single", 4)
    assert [dict(arm.settings) for arm in two] == [
        {"node.peer.committee.waves": "[2,1,1]", "node.peer.price.enabled": "false"},
        {},
    ]
    (M1,) = arms_of("M1-k3+node.peer.mixture.fence=false", 4)
    assert (M1.layers, M1.settings) == (1, {"node.peer.mixture.fence": "false"})


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_changes_what_the_devices_do(name: str):
    (arm,) = arms_of(name, 4)
    plain = load(None, environ={"FOLKMOOT_HOME": "/nowhere"}).settings
    changed = load(None, environ={"FOLKMOOT_HOME": "/nowhere", **_only(arm.settings)}).settings
    assert changed.node != plain.node
    assert len(arm.settings) == 1  # what it shows is then that part's


def test_no_two_ablations_are_the_same():
    arms = arms_of("ablations", 4)
    assert [arm.name for arm in arms] == list(ABLATIONS)
    assert len({tuple(arm.settings.items()) for arm in arms}) == len(arms)


def _only(settings) -> dict[str, str]:
    plain = child_environ({})
    return {key: value for key, value in child_environ(settings).items() if plain.get(key) != value}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no arm is named"),
        ("best", "'best' is no arm; there are single"),
        ("M1-k4", "asks 4 peers, and a moot of 4 has 3"),
        ("M0-k1", "with no layer there are no peers"),
        ("single:4", "there is no device 4"),
        ("single:x", "'x' is no number"),
        ("self-consistency:3@4", "there is no device 4"),
        ("self-consistency:3@", "'' is no number"),
        ("majority:3@1", "only self-consistency:N@DEVICE"),
        ("majority:5", "5 cannot vote in a moot of 4"),
        ("self-consistency:0", "0 cannot vote"),
        ("smoa:5", "of 4 answers 5 cannot go on"),
        ("smoa-stop:2", "is no arm"),
        ("self-moa:0", "0 cannot vote"),
        ("auto+fast", "'fast' is no SETTING=VALUE"),
    ],
)
def test_what_is_no_arm_is_refused(text: str, told: str):
    with pytest.raises(EvalError, match=told):
        arms_of(text, 4)
