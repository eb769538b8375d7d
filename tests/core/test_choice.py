"""Who answers: from what was asked and who is there to layers, peers and an aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from math import comb, sqrt
from random import Random
from typing import Any

import pytest
from tests.core.world import FOUR, Moot, answered, failed, fixed

from folkmoot.core.choice import Choice, RandomDraw
from folkmoot.core.events import (
    CardChanged,
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
from folkmoot.core.gossip import Card, Heartbeat, Hot, Member, News, Standing, tag_of
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import (
    Answer,
    Ask,
    Piece,
    Stage,
    Turn,
    Usage,
)
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.core.price import Offer, PriceConfig
from folkmoot.errors import ConfigError


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


def test_a_device_that_is_gone_leaves_no_count_behind() -> None:
    """However many come and go: what was sent to each is kept of those alone that are there."""
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"})
    moot.ask("ann", fixed(1, 2))
    kept = moot.devices[DeviceId("ann")].peer._choice._sent
    assert set(kept) == {"bob", "cid"}
    moot.kill("bob")
    assert set(kept) == {"cid"}


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


@cache
def drawn() -> list[list[Drawn]]:
    return draws(20_241_121)


@pytest.mark.no_cover  # 16,000 jobs, traced, would take three times as long
@pytest.mark.parametrize("layers", [slice(0, 1), slice(1, LAYERS)], ids=["at once", "one layer ahead"])
def test_each_set_of_peers_is_equally_likely(layers: slice) -> None:
    """PROTOCOL.md: k distinct peers, uniformly at random. Also each peer, and each pair of peers."""
    sets = [each for prompt in drawn() for each in prompt[layers]]
    assert all(len(set(each)) == K for each in sets)
    assert chi2(Counter(sets), dict.fromkeys(SUBSETS, len(sets) / len(SUBSETS))) < CHI2_999[34]
    for size in (1, 2):
        seen = Counter(part for each in sets for part in combinations(each, size))
        share = comb(K, size) / comb(len(OTHERS), size)
        mean, sigma = len(sets) * share, sqrt(len(sets) * share * (1 - share))
        assert len(seen) == comb(len(OTHERS), size)
        assert all(abs(count - mean) < 4 * sigma for count in seen.values())


@pytest.mark.no_cover
@pytest.mark.parametrize("lag", [1, 2])
def test_layers_are_drawn_afresh(lag: int) -> None:
    """What two layers of a prompt share is as chance has it (hypergeometric), and no peer attracts another."""
    couples = [couple for prompt in drawn() for couple in zip(prompt, prompt[lag:], strict=False)]
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


def test_auto_is_one_layer_of_three_or_nobody() -> None:
    moot = Moot({**FOUR, "eve": "m5"})
    prompt = moot.ask("ann")
    moot.work()
    told = answered(moot, prompt).provenance
    assert (told.layers, told.proposers, len(told.jobs)) == (1, 3, 5)
    alone = Moot({"ann": "m"})
    prompt = alone.ask("ann")
    alone.work()
    assert len(answered(alone, prompt).provenance.jobs) == 1
    assert "no layers" in answered(alone, prompt).provenance.decisions[0].what


def test_original_mixture_of_agents() -> None:
    moot = Moot({**FOUR, "eve": "m5"})
    plan = fixed(3, 2, select=("bob", "cid"), aggregator="fixed:dot")
    prompt = moot.ask("ann", plan)
    moot.work()
    told = answered(moot, prompt).provenance
    assert len(told.jobs) == 10
    assert [each.asked for each in told.rounds] == [("ann", "bob", "cid")] * 3
    assert [job.layer for job in told.jobs] == [1] * 3 + [2] * 3 + [3] * 3 + [4]
    stages = [Stage.PROPOSE] * 3 + [Stage.REFINE] * 6 + [Stage.AGGREGATE]
    assert [job.stage for job in told.jobs] == stages
    assert told.jobs[-1].device == "dot"


def test_fewer_peers_than_k_is_no_error_and_is_told() -> None:
    moot = Moot({"ann": "m", "bob": "m", "req": ""})
    prompt = moot.ask("ann", fixed(1, 5))
    moot.work()
    told = answered(moot, prompt).provenance
    assert [each.asked for each in told.rounds] == [("ann", "bob")]
    assert any("1 of 5 peers" in each.what for each in told.decisions)


def test_fewer_peers_than_asked_for_are_told_in_each_layer_where_there_are_prices() -> None:
    moot = Moot(FOUR, PeerConfig(price=PriceConfig(enabled=True)))
    prompt = moot.ask("ann", fixed(2, 7))
    moot.work()
    said = [each.what for each in answered(moot, prompt).provenance.decisions]
    assert said == ["layer 1 asks 3 of 7 peers", "layer 2 asks 3 of 7 peers"]


@pytest.mark.parametrize("prices", [False, True])
def test_a_named_peer_that_is_not_there_is_told(prices: bool) -> None:
    moot = Moot({**FOUR, "eve": ""}, PeerConfig(price=PriceConfig(enabled=prices)))
    prompt = moot.ask("ann", fixed(1, 2, select=("bob", "eve")))
    moot.work()
    (said,) = answered(moot, prompt).provenance.decisions
    assert (said.what, said.why) == (
        "layer 1 asks 1 of 2 peers",
        "eve: not alive, no model, or serves no others",
    )


def test_a_requester_in_mode_auto_is_told_who_takes_its_place() -> None:
    moot = Moot({"req": "", **FOUR}, PeerConfig(price=PriceConfig(enabled=True)))
    prompt = moot.ask("req")
    moot.work()
    told = answered(moot, prompt).provenance
    place = told.jobs[0].device
    assert [each.what for each in told.decisions][:2] == [
        f"{place} runs the origin's own jobs",
        f"M = {told.layers}, k = {told.proposers}",
    ]


def test_requester_has_another_device_in_its_place() -> None:
    moot = Moot({"req": "", **FOUR})
    prompt = moot.ask("req", fixed(2, 2))
    moot.work()
    told = answered(moot, prompt).provenance
    place = told.jobs[0].device
    assert told.origin == "req"
    assert "req" not in {job.device for job in told.jobs}
    assert {job.device for job in told.jobs if job.stands_in_for == "req"} == {place}
    assert [job.stands_in_for for job in told.jobs].count("req") == 3
    assert len(told.jobs) == 7


def test_requester_without_anybody_or_in_private() -> None:
    moot = Moot({"req": "", "too": ""})
    assert failed(moot, moot.ask("req")).code == "no_device"
    moot = Moot({"req": "", "ann": "m"})
    assert failed(moot, moot.ask("req", Plan(mode="local"))).code == "no_device"


@pytest.mark.parametrize(
    ("plan", "code", "says"),
    [
        (fixed(17, 1), "invalid", "layers is 17"),
        (fixed(1, 65), "invalid", "proposers is 65"),
        (fixed(0, 2), "invalid", "leave it out"),
        (fixed(1, 2, quorum=4), "invalid", "quorum is 4"),
        (fixed(1, 2, quorum=-1), "invalid", "quorum is -1"),
        (fixed(1, 2, deadline_s=0.01), "invalid", "0.05"),
        (fixed(1, 2, aggregator="boss"), "invalid", "fixed:NAME"),
        (Plan(mode="magic"), "invalid", "auto, fixed, local"),
        (fixed(1, 3, select=("bob",)), "invalid", "names 1 peers"),
        (fixed(1, select=("bob", "bob")), "invalid", "each once"),
        (fixed(1, select=("ann",)), "invalid", "the origin answers"),
        (fixed(1, select=("zed",)), "unknown_model", "ann, bob, cid, dot"),
        (fixed(1, 1, aggregator="fixed:zed"), "unknown_model", "zed"),
    ],
)
def test_impossible_plans(plan: Plan, code: str, says: str) -> None:
    moot = Moot(FOUR)
    end = failed(moot, moot.ask("ann", plan))
    assert end.code == code
    assert says in end.detail
    assert moot.devices[DeviceId("ann")].peer.idle


def test_k_defaults_to_three_or_all_there_are() -> None:
    for names, k in ((FOUR, 3), ({"ann": "m", "bob": "m"}, 1)):
        moot = Moot(names)
        prompt = moot.ask("ann", fixed(1))
        moot.work()
        assert answered(moot, prompt).provenance.proposers == k


def test_two_devices_of_one_name() -> None:
    moot = Moot({"aaaaaa11": "m", "bbbbbb22": "m", "cccccc33": "m"})
    for name in ("bbbbbb22", "cccccc33"):
        card = Card("twin", "m", 4096, 1.0, "x")
        for other in moot.devices:
            members = moot.devices[other].peer.membership.members
            members[DeviceId(name)] = type(members[DeviceId(name)])(
                DeviceId(name), 1, members[DeviceId(name)].standing, card
            )
    end = failed(moot, moot.ask("aaaaaa11", fixed(1, select=("twin",))))
    assert end.code == "invalid"
    assert "twin~bbbbbb" in end.detail
    assert "twin~cccccc" in end.detail
    prompt = moot.ask("aaaaaa11", fixed(1, select=("twin~cccccc",), aggregator="fixed:bbbbbb22"))
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.rounds[0].asked == ("aaaaaa11", "twin~cccccc")
    assert told.jobs[-1].device == "twin~bbbbbb"


def test_strongest_aggregates() -> None:
    moot = Moot({"ann": "m", "bob": "much-bigger", "cid": "mm"})
    prompt = moot.ask("ann", fixed(1, 2, aggregator="strongest"))
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.jobs[-1].device == "bob"
    assert any("bob aggregates" in each.what for each in told.decisions)
    prompt = moot.ask("bob", fixed(1, 2, aggregator="strongest"))
    moot.work()
    assert answered(moot, prompt).provenance.jobs[-1].device == "bob"


def test_private_and_hops_stay_here() -> None:
    moot = Moot(FOUR)
    for plan, hops in ((Plan(mode="local"), 0), (fixed(1, 3), 1)):
        prompt = moot.ask("ann", plan, hops=hops)
        moot.work()
        told = answered(moot, prompt).provenance
        assert [job.device for job in told.jobs] == ["ann"]
        assert bool(hops) == any("recursion" in each.why for each in told.decisions)


def test_a_private_prompt_asks_nobody_and_says_which_rule_keeps_it() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", Plan(private=True, rule="privacy.patterns[0]"))
    moot.work()
    told = answered(moot, prompt).provenance
    assert [job.device for job in told.jobs] == ["ann"]
    assert "privacy.patterns[0]" in told.decisions[0].why


@pytest.mark.parametrize(
    "more", [{"select": ("bob",)}, {"best_of": 2}, {"aggregator": "strongest"}, {"aggregator": "fixed:bob"}]
)
def test_a_private_prompt_that_asks_for_others_is_refused(more: dict[str, Any]) -> None:
    moot = Moot(FOUR)
    for plan in (
        Plan(private=True, **more),
        replace(fixed(1, 3), private=True),
        replace(fixed(0), private=True),
    ):
        assert failed(moot, moot.ask("ann", plan)).code == "invalid"


def test_a_device_that_is_closed_to_others_is_drawn_by_nobody_and_stands_in_for_nobody() -> None:
    moot = Moot(FOUR)
    bob = moot.devices[DeviceId("bob")].peer
    card = replace(bob.membership.members[DeviceId("bob")].card, closed=True)
    moot.tell("bob", CardChanged(card))
    news = News(members=(Member(DeviceId("bob"), 2, Standing.ALIVE, card),))
    for name in FOUR:
        if name != "bob":
            moot.tell(name, Received(DeviceId("bob"), news))
    for plan in (Plan(), fixed(2, 3), fixed(1, 2, aggregator="strongest"), fixed(0, aggregator="fixed:bob")):
        prompt = moot.ask("ann", plan)
        moot.work()
        assert "bob" not in {job.device for job in answered(moot, prompt).provenance.jobs}
    prompt = moot.ask("bob", Plan())
    moot.work()
    assert "bob" in {job.device for job in answered(moot, prompt).provenance.jobs}, "it serves its own users"


def test_unknown_device_has_a_row_all_the_same() -> None:
    moot = Moot(FOUR)
    choice = Choice(DeviceId("ann"), moot.devices[DeviceId("ann")].peer.membership, RandomDraw(Random(1)))
    assert choice.row(DeviceId("zed-of-nowhere")).name == "zed-of-n"
    assert not choice.serves(DeviceId("zed"))
    assert choice.find("bob") == "bob"
    assert choice.others((), Random(1))


@pytest.mark.parametrize("plan", [Plan(), fixed(1)])
def test_who_is_in_a_requester_s_place_is_no_peer_of_its_own(plan: Plan) -> None:
    moot = Moot({"req": "", "ann": "m", "bob": "m", "cid": "m"})
    prompt = moot.ask("req", plan)
    moot.work()
    told = answered(moot, prompt).provenance
    assert told.proposers == 2
    assert sorted(told.rounds[0].asked) == ["ann", "bob", "cid"]
    assert not any("peers" in each.what for each in told.decisions)


# ---- best of d -----------------------------------------------------------------------------------------


class Fixed:
    """Draws the first ones, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def places(self, prompt: PromptId, layer: int, count: int, among: int) -> list[int]:
        self.asked.append((layer, count, among))
        return list(range(count))


def told(peer: Peer, device: str, queue: int, service_ms: int, stages: tuple[int, ...] = ()) -> None:
    """A heartbeat with the load of a device."""
    version = peer.membership.members[DeviceId(device)].pulse.version + 1
    hot = Hot(tag_of(DeviceId(device)), version, queue, 0, 0, service_ms, stages=stages)
    peer.handle(Received(DeviceId(device), Heartbeat(1, 0, (), (hot,))), 0.0)


def asks(peer: Peer, number: int, best_of: int, proposers: int = 1, layers: int = 1) -> list[str]:
    """Who is asked by a prompt's first layer, the origin left out."""
    plan = Plan("fixed", layers, proposers, best_of=best_of)
    prompt = Prompt(PromptId(f"{number:032x}"), (Turn("user", "?"),), plan)
    effects = peer.handle(Submitted(prompt), 0.0)
    return [e.to for e in effects if isinstance(e, Send) and isinstance(e.message, Ask)]


def seer(models: str = "mmmm", diverse: float = 0.0, slots: tuple[int, ...] = (1,) * 4) -> tuple[Peer, Fixed]:
    """A device of model m that has drawn a, b, c, d in this order."""
    draw, config = Fixed(), PeerConfig(diverse=diverse)
    peer = Peer(DeviceId("me"), Card("me", "m", 4096, 1.0, "me"), 1, config, Random(1), draw)
    rows = [
        Member(DeviceId(d), 1, Standing.ALIVE, Card(d, model, 4096, 1.0, d, many))
        for d, model, many in zip("abcd", models, slots, strict=True)
    ]
    peer.membership.adopt(rows, 0.0)
    return peer, draw


def test_best_of_d_asks_those_with_the_least_expected_delay_and_counts_what_it_sends() -> None:
    peer, draw = seer()
    for device, queue, service_ms in (("a", 5, 1000), ("b", 2, 1000), ("c", 0, 4000), ("d", 0, 1)):
        told(peer, device, queue, service_ms)
    assert asks(peer, 1, best_of=3) == ["b"], "3 s at b, 4 s at c, 6 s at a; d was not drawn"
    assert asks(peer, 2, best_of=3) == ["b"], "4 s at b by now, as at c, which was drawn later"
    assert asks(peer, 3, best_of=3) == ["c"]
    told(peer, "b", 2, 1000)
    assert asks(peer, 4, best_of=3) == ["b"], "b has told anew, so what was sent before counts no more"
    assert draw.asked == [(1, 3, 4)] * 4


def test_who_has_served_nothing_yet_counts_as_the_others() -> None:
    peer, _ = seer()
    told(peer, "a", 1, 3000)
    assert asks(peer, 1, best_of=2) == ["b"], "3 s for one job at b, 6 s at a"
    assert asks(seer()[0], 1, best_of=4, proposers=2) == ["a", "b"], "nothing is known: the first drawn"


@pytest.mark.parametrize(
    ("diverse", "asked"),
    [(0.0, ["a", "b", "c"]), (0.5, ["a", "d", "b"]), (1.5, ["d", "a", "b"]), (50.0, ["d", "a", "b"])],
)
def test_other_models_are_preferred_as_far_as_the_weight_goes(diverse: float, asked: list[str]) -> None:
    """All but d have the origin's model; a would take 1 s, b 1.5 s, c 1.6 s, d 2 s."""
    peer, _ = seer("mmmx", diverse)
    for device, service_ms in (("a", 1000), ("b", 1500), ("c", 1600), ("d", 2000)):
        told(peer, device, 0, service_ms)
    assert asks(peer, 1, best_of=4, proposers=3) == asked


def test_a_weight_that_is_none_is_refused() -> None:
    for wrong in (-1.0, float("nan"), 1e9):
        with pytest.raises(ConfigError, match="diverse"):
            PeerConfig(diverse=wrong)


def test_several_slots_are_waited_for_together() -> None:
    """b serves four at a time: six jobs there are 1.75 s, three at a 4 s."""
    peer, _ = seer(slots=(1, 4, 1, 1))
    for device, queue in (("a", 3), ("b", 6), ("c", 2), ("d", 3)):
        told(peer, device, queue, 1000)
    assert asks(peer, 1, best_of=4, proposers=2) == ["b", "c"]
    choice = Choice(peer.me, peer.membership, Fixed())
    assert choice.delay_s(DeviceId("b"), Stage.PROPOSE) == pytest.approx(1.75)
    assert choice.offer(DeviceId("b"), 0.0).queue == 1.5
    told(peer, "b", 0, 1000)
    assert choice.delay_s(DeviceId("b"), Stage.PROPOSE) == 1.0, (
        "a job takes as long as one, however many slots there are"
    )


def test_a_job_takes_what_its_stage_takes_and_those_before_it_the_mean() -> None:
    """a and b both say 1 s a job; first-layer jobs take 0.5 s at a and 2 s at b."""
    peer, _ = seer()
    told(peer, "a", 1, 1000, (25, 50, 100))
    told(peer, "b", 0, 1000, (100, 0, 0))
    assert asks(peer, 1, best_of=2) == ["a"], "1.5 s at a, 2 s at b"
    choice = Choice(peer.me, peer.membership, Fixed())
    assert choice.delay_s(DeviceId("a"), Stage.AGGREGATE) == pytest.approx(3.0)
    assert choice.delay_s(DeviceId("b"), Stage.REFINE) == 1.0, "b has served none: the mean of all"
    assert choice.expected_s(DeviceId("a"), Stage.AGGREGATE, 0.0, 1) == pytest.approx(2.0)
    assert choice.expected_s(DeviceId("a"), Stage.PROPOSE, 0.0) == pytest.approx(1.5)
    assert choice.offer(DeviceId("a"), 0.0).stages == pytest.approx((0.5, 1.0, 2.0))


@pytest.mark.parametrize(("aggregations", "layers"), [((0, 0), 1), ((200, 300), 0)])
def test_a_device_that_has_aggregated_nothing_yet_expects_what_the_others_know(
    aggregations: tuple[int, int], layers: int
) -> None:
    """All take 1 s for a proposal; with 5 s for an aggregation, as two others say in the mean, no layer fits into 8 s."""
    peer, _ = seer()
    told(peer, "a", 0, 1000, (50, 0, aggregations[0]))
    told(peer, "b", 0, 1000, (50, 0, aggregations[1]))
    choice = Choice(peer.me, peer.membership, Fixed(), PriceConfig(enabled=True))
    prompt = Prompt(PromptId("1" * 32), (Turn("user", "?"),), Plan(deadline_s=8.0))
    assert choice.resolve(prompt, Random(1), 0.0, Offer(0.0, 0.0, 1.0)).layers == layers


def test_the_best_are_chosen_when_their_layer_is_asked_and_why_is_told() -> None:
    moot = Moot(FOUR)
    prompt = moot.ask("ann", Plan("fixed", 2, 1, best_of=3))
    moot.work()
    provenance = answered(moot, prompt).provenance
    whys = [each.why for each in provenance.decisions if each.what.startswith("layer")]
    assert len(whys) == 2
    assert all(why.startswith("least expected delay of 3 drawn: ") for why in whys)


def test_best_of_fewer_than_are_to_be_asked_is_refused() -> None:
    moot = Moot(FOUR)
    assert failed(moot, moot.ask("ann", Plan("fixed", 1, 3, best_of=2))).code == "invalid"
    assert failed(moot, moot.ask("ann", Plan("fixed", 1, 1, ("bob",), best_of=2))).code == "invalid"
