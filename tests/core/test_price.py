"""Which (M, k) a prompt gets, by what it is worth and what its jobs cost."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.core.messages import TOLD
from folkmoot.core.price import PAPER, Offer, PriceConfig, best, bids, expected_s, longest_s, price, vote_s
from folkmoot.errors import ConfigError

CONFIG = PriceConfig(enabled=True)
PLANS = [(layers, proposers) for layers, proposers, _ in PAPER]
FREE = Offer(0.0, 0.0, 1.0)
offers = st.builds(
    Offer, st.floats(0, 60), st.integers(0, 60).map(float), st.floats(0.01, 100), st.floats(0, 2)
)


def chosen(own: Offer, peers: list[Offer], deadline_s: float | None = None, config: PriceConfig = CONFIG):
    bid = best(config, bids(config, PLANS, own, peers), deadline_s)
    return None if bid is None else (bid.layers, bid.proposers)


def test_where_all_are_idle_the_best_is_asked_for() -> None:
    assert chosen(FREE, [FREE] * 3) == (2, 3)
    assert chosen(FREE, [FREE]) == (1, 1)
    assert chosen(FREE, []) == (0, 0)


def test_a_price_is_a_share_of_what_the_own_answer_is_worth() -> None:
    assert price(CONFIG, Offer(11.0, 0.0, 1.0)) == pytest.approx(11.0)
    assert price(CONFIG, Offer(0.0, 22.0, 9.0)) == pytest.approx(11.0)
    assert price(CONFIG, Offer(11.0, 22.0, 1.0), room=1.25) == pytest.approx(22.0 / 1.25)


def test_under_load_it_shrinks_and_at_last_is_refused() -> None:
    """u00 = 22 and X = 22: a job costs as many points as there are jobs of pressure."""
    assert chosen(Offer(1.0, 0.0, 1.0), [Offer(1.0, 0.0, 1.0)] * 3) == (1, 2)
    assert chosen(Offer(9.0, 0.0, 1.0), [Offer(9.0, 0.0, 1.0)] * 3) == (0, 0)
    assert chosen(Offer(21.9, 0.0, 1.0), [FREE] * 3) == (0, 0)
    assert chosen(Offer(22.0, 0.0, 1.0), [FREE] * 3) is None


def test_the_bids_of_the_design_s_example() -> None:
    own, peers = Offer(4.1, 0.0, 1.0), [Offer(5.2, 0.0, 1.0), Offer(6.0, 0.0, 1.0)]
    bid = best(CONFIG, bids(CONFIG, PLANS, own, peers), None)
    assert bid is not None
    assert (bid.layers, bid.proposers, bid.worth) == (1, 2, 40.0)
    assert bid.price == pytest.approx(19.4)


def test_a_deadline_takes_the_slow_ones_out() -> None:
    own, peers = Offer(0.0, 0.0, 1.0), [FREE, FREE, Offer(0.0, 50.0, 1.0)]
    assert chosen(own, peers, 2.21 * expected_s(1, own, peers[:2])) == (1, 2)
    assert chosen(own, peers, 2.19 * expected_s(1, own, peers[:1])) == (0, 0)
    assert chosen(own, peers, 1.81) == (0, 0)
    assert chosen(own, peers, 1.79) is None


def test_a_vote_takes_its_waves_and_no_aggregation() -> None:
    """Three at once and a fourth, busy one afterwards; all at once where that is cheap."""
    own, peers = FREE, [FREE, FREE, Offer(0.0, 4.0, 2.0)]
    three = 1 + 1 / 2 + 1 / 3
    assert vote_s((3, 1), (own, *peers)) == pytest.approx(three + 8.0 + 2.0, rel=1e-3)
    assert vote_s((4,), (own, *peers)) == pytest.approx(8.0 + longest_s([1.0, 1.0, 1.0, 2.0]))
    assert vote_s((3, 1), (own, FREE)) == pytest.approx(1.5, rel=1e-3), "nobody is left for a second wave"

    def waves(cost: float) -> tuple[int, ...]:
        return (4,) if cost < 1.0 else (3, 1)

    (dear,) = bids(CONFIG, [(1, 3)], own, peers, waves=waves)
    (cheap,) = bids(CONFIG, [(1, 2)], own, peers, waves=waves)
    assert dear.price > 1.0 > cheap.price
    assert (dear.votes, dear.expected_s) == (True, vote_s((3, 1), (own, *peers)))
    assert cheap.expected_s == vote_s((4,), (own, *peers[:2])) < expected_s(1, own, peers[:2])


def test_expected_latency_by_hand() -> None:
    """Half of the work comes for later layers: their jobs wait 0.5 x 2 s / (1 - 0.5) where nothing else comes."""
    own = Offer(0.0, 4.0, 2.0, late=0.5)
    assert expected_s(0, own, []) == pytest.approx(16.0 + 2.0)
    peers = [Offer(0.0, 1.0, 2.0), Offer(0.0, 0.0, 2.0)]
    layer = 2.0 * (1 + 1 / 2 + 1 / 3)
    assert expected_s(1, own, peers) == pytest.approx(16.0 + layer + 2.0 + 2.0, rel=1e-3)
    assert expected_s(3, own, peers) == pytest.approx(16.0 + layer + 2 * (2.0 + layer) + 2.0 + 2.0, rel=1e-3)
    assert Offer(0.0, 1.0, 1.0, late=5.0).wait_s == pytest.approx(10.0)  # where the formula means nothing


def test_an_idle_device_lets_nobody_wait_and_a_full_one_lets_later_layers_wait_for_one_job() -> None:
    assert expected_s(1, FREE, [FREE] * 2) == pytest.approx(1 + 1 / 2 + 1 / 3 + 1.0, rel=1e-3)
    assert Offer(0.0, 0.0, 2.0, late=0.5, load=0.75).turn_s == pytest.approx(3.0)
    assert Offer(0.0, 0.0, 2.0, late=0.5, load=9.0).turn_s == pytest.approx(4.0)


def test_each_stage_takes_its_own_time() -> None:
    own = Offer(0.0, 4.0, 2.0, late=0.5, stages=(1.0, 2.0, 4.0))
    assert expected_s(0, own, []) == pytest.approx(16.0 + 1.0)
    peers = [Offer(0.0, 0.0, 1.0, stages=(3.0, 0.0, 1.0))]
    layers = 3.0 + 1.0 - 1.0 / (1 / 3 + 1), 2.0 + 1.0 - 1.0 / (1 / 2 + 1)
    assert expected_s(1, own, peers) == pytest.approx(16.0 + layers[0] + 2.0 + 4.0, rel=1e-3)
    expected = 16.0 + layers[0] + 2.0 + layers[1] + 2.0 + 4.0
    assert expected_s(2, own, peers) == pytest.approx(expected, rel=1e-3)


def test_a_stage_that_a_device_has_not_served_takes_as_much_longer_as_elsewhere() -> None:
    ratios = (1.0, 0.0, 2.5)
    assert Offer(0.0, 0.0, 3.0, stages=(2.0, 0.0, 0.0)).filled(ratios).stages == (2.0, 0.0, 5.0)
    assert Offer(0.0, 0.0, 3.0, stages=(2.0, 4.0, 6.0)).filled(ratios).stages == (2.0, 4.0, 6.0)
    nothing = Offer(0.0, 0.0, 3.0).filled(ratios)
    assert [nothing.stage_s(stage) for stage in TOLD] == [3.0, 3.0, 7.5]


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5))
def test_the_longest_of_some_services(means: list[float]) -> None:
    """By inclusion and exclusion."""
    exact = sum(
        (-1) ** (size + 1) / sum(1 / each for each in some)
        for size in range(1, len(means) + 1)
        for some in combinations(means, size)
    )
    assert longest_s(means) == pytest.approx(exact, rel=3e-3)
    assert longest_s([0.0, *means]) == longest_s(means)


def test_nothing_takes_no_time() -> None:
    assert longest_s([0.0, 0.0]) == 0.0


@given(offers, st.lists(offers, max_size=3), st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_neither_points_nor_seconds_have_a_unit(
    own: Offer, peers: list[Offer], points: float, seconds: float
) -> None:
    """All worths times as much, or all services times as long: the same decisions (ADMISSION.md, test 7)."""
    rich = replace(CONFIG, worths=tuple((m, k, points * worth) for m, k, worth in PAPER))
    slow = [replace(each, service_s=seconds * each.service_s) for each in (own, *peers)]
    first = [bid.score for bid in bids(CONFIG, PLANS, own, peers)]
    assert [bid.score / points for bid in bids(rich, PLANS, own, peers)] == pytest.approx(first, abs=1e-6)
    assert [bid.score for bid in bids(CONFIG, PLANS, slow[0], slow[1:])] == first
    assert expected_s(len(peers), slow[0], slow[1:]) == pytest.approx(
        seconds * expected_s(len(peers), own, peers)
    )


@given(offers, st.lists(offers, min_size=3, max_size=3), st.integers(0, 3))
def test_more_pressure_never_makes_a_bid_cheaper(own: Offer, peers: list[Offer], at: int) -> None:
    all_ = [own, *peers]
    pressed = [replace(o, debt=o.debt + 1.0) if place == at else o for place, o in enumerate(all_)]
    before, after = (bids(CONFIG, PLANS, each[0], each[1:]) for each in (all_, pressed))
    assert all(b.price <= a.price for b, a in zip(before, after, strict=True))


def test_what_is_not_in_the_table_is_worth_what_less_of_it_is() -> None:
    assert CONFIG.worth(3, 3) == 41.0
    assert CONFIG.worth(1, 5) == 40.0
    assert CONFIG.worth(2, 1) == 28.88


@pytest.mark.parametrize(
    "changes",
    [
        {"worths": ((1, 1, 5.0),)},
        {"worths": ((0, 0, 22.0), (0, 2, 5.0))},
        {"worths": ((0, 0, 22.0), (1, 1, math.nan))},
        {"worths": ((0, 0, -1.0),)},
        {"pressure": 0.0},
        {"pressure": math.nan},
        {"draw": 0},
        {"queue": -0.5},
        {"caution": 0.0},
        {"caution_alone": 0.0},
        {"returning": 0.5},
    ],
)
def test_what_makes_no_sense_is_no_configuration(changes: dict) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **changes)
