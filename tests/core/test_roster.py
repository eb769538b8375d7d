"""The member list against a model of a few lines, the rings against brute force."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from folkmoot.core.events import GossipTimer, Send
from folkmoot.core.gossip import (
    DATAGRAM_BYTES,
    Card,
    Heartbeat,
    Hot,
    Member,
    News,
    Pulse,
    Rumour,
    Standing,
    Sync,
    checksum,
    hot_bytes,
    row_bytes,
    rumour_of,
    stamp,
    tag_of,
)
from folkmoot.core.ids import DeviceId
from folkmoot.core.membership import Membership, MembershipConfig
from folkmoot.core.rings import Rings
from folkmoot.core.roster import hot_of
from folkmoot.wire import encode

ME, TELLER = DeviceId("me"), DeviceId("teller")
OTHERS = [DeviceId(name) for name in "abcd"]
STANDINGS = st.sampled_from(list(Standing))


def card(device: str, life: int = 0) -> Card:
    return Card(device, "m", 1, 1.0, f"{device}:{life}")


class TableMachine(RuleBasedStateMachine):
    """Nothing ticks, so the table follows claims alone: the model is a dict of (incarnation, standing)."""

    @initialize()
    def begin(self) -> None:
        self.it = Membership(ME, card(ME), 1, MembershipConfig(max_members=5), Random(1))
        self.model: dict[DeviceId, tuple[int, Standing]] = {}
        self.now = 0.0
        self.highest = 1
        self.it.on_message(TELLER, Sync(Member(TELLER, 1, Standing.ALIVE, card(TELLER)), ()), 0.0)
        self.model[TELLER] = (1, Standing.ALIVE)

    def believe(self, device: DeviceId, incarnation: int, standing: Standing, *, card_known: bool) -> None:
        if device == ME:
            if standing != Standing.ALIVE and incarnation >= self.highest:
                self.highest = incarnation + 1
            return
        known = self.model.get(device)
        if known is None:
            if card_known and standing <= Standing.SUSPECT and len(self.model) + 1 < 5:
                self.model[device] = (incarnation, standing)
        elif (incarnation, standing) > known:
            self.model[device] = (incarnation, standing)

    @rule(device=st.sampled_from(OTHERS), incarnation=st.integers(0, 6), standing=STANDINGS)
    def row(self, device: DeviceId, incarnation: int, standing: Standing) -> None:
        self.it.on_message(TELLER, News((), (Member(device, incarnation, standing, card(device)),)), self.now)
        self.believe(device, incarnation, standing, card_known=True)

    @rule(device=st.sampled_from([*OTHERS, ME]), incarnation=st.integers(0, 6), standing=STANDINGS)
    def rumour(self, device: DeviceId, incarnation: int, standing: Standing) -> None:
        if device == ME and standing == Standing.ALIVE:
            return
        known = self.it.members[ME].card if device == ME else card(device)
        told = Rumour(device, incarnation, standing, checksum(known))
        self.it.on_message(TELLER, News((told,)), self.now)
        self.believe(device, incarnation, standing, card_known=False)

    @rule(version=st.integers(0, 9), device=st.sampled_from(OTHERS))
    def pulse(self, version: int, device: DeviceId) -> None:
        before = self.it.members[device].pulse.version if device in self.it.members else None
        self.it._roster.beat(Hot(tag_of(device), version, 1, 1, 1, 1))
        if before is not None:
            assert self.it.members[device].pulse.version == max(before, version)

    @rule(seconds=st.floats(0.0, 3.0))
    def flush(self, seconds: float) -> None:
        self.now += seconds
        self.it._eager.clear()

    @invariant()
    def as_the_model(self) -> None:
        rows = {d: (row.incarnation, row.standing) for d, row in self.it.members.items() if d != ME}
        assert rows == self.model
        mine = self.it.members[ME]
        assert (mine.incarnation, mine.standing) == (self.highest, Standing.ALIVE)

    @invariant()
    def all_indices_agree(self) -> None:
        live = [d for d, row in self.it.members.items() if row.standing <= Standing.SUSPECT]
        assert [row.device for row in self.it.live()] == [d for d in live if d != ME]
        view = 0
        for device in live:
            view ^= stamp(device, self.it.members[device].incarnation)
        assert self.it._roster.view == view
        assert self.it._roster.live_count == len(live) == len(self.it._rings)
        assert len(self.it.members) <= 5


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=30, unique=True),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_neighbours_are_mutual_and_those_next_on_each_ring(names: list[str], count: int) -> None:
    devices = [DeviceId(name) for name in names]
    rings = Rings(count)
    for device in devices:
        rings.add(device)
    together = Rings(count)
    together.add_all(devices)
    for device in devices:
        neighbours = rings.neighbours(device)
        assert neighbours == together.neighbours(device)
        assert device not in neighbours
        assert len(neighbours) == len(set(neighbours)) <= min(2 * count, len(devices) - 1)
        assert all(device in rings.neighbours(other) for other in neighbours)
        assert len(devices) == 1 or neighbours
    rings.remove(devices[0])
    assert all(devices[0] not in rings.neighbours(device) for device in devices[1:])


def test_an_outsider_sees_its_neighbours_to_be() -> None:
    rings = Rings(2)
    for name in "abc":
        rings.add(DeviceId(name))
    before = rings.neighbours(DeviceId("x"))
    rings.add(DeviceId("x"))
    assert rings.neighbours(DeviceId("x")) == before


@given(
    st.integers(0, 2**53 - 2),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=64),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=128),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**53 - 1),
)
@settings(deadline=None)
def test_the_byte_estimates_are_upper_bounds(
    incarnation: int, name: str, model: str, tokens: int, version: int
) -> None:
    device = DeviceId("ab" * 32)
    row = Member(
        device,
        incarnation,
        Standing.LEFT,
        Card(name, model, tokens, 1.25, "x" * 100, 4_096, True, 2**32 - 1, (127,) * 6, (127,) * 6),
        Pulse(version, *(2**31 - 1,) * 3, 12.5, 1e6, 1.5, 2**31 - 1, 1.5, (1.0, 2.0, 3.0)),
    )
    empty = len(encode(News()))
    if row_bytes(row) <= DATAGRAM_BYTES:
        assert len(encode(News((), (row,)))) - empty <= row_bytes(row)
    assert len(encode(News((rumour_of(row),)))) - empty <= 52


@given(
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 10**9 - 1),
    st.lists(st.integers(0, 50_000), min_size=3, max_size=3),
)
@settings(deadline=None)
def test_the_size_of_a_pulse_is_no_less_than_the_encoded(
    version: int, queue: int, service_ms: int, stages: list[int]
) -> None:
    hot = Hot(2**64 - 1, version, queue, queue // 2, queue // 3, service_ms, stages=tuple(stages))
    assert len(encode(Heartbeat(1, 1, (), (hot,)))) - len(encode(Heartbeat(1, 1))) <= hot_bytes(hot)


@given(st.floats(0.001, 1e5), st.lists(st.floats(0.0, 1e5), min_size=3, max_size=3))
def test_the_mean_of_a_stage_arrives_to_a_fiftieth(service_s: float, stages: list[float]) -> None:
    """Of the mean of all jobs; what is known stays known, and nothing is more than a thousand times the mean."""
    rows = [Member(DeviceId(d), 1, Standing.ALIVE, card(d)) for d in "ab"]
    teller, roster = (Membership(row.device, row.card, 1, MembershipConfig(), Random(1)) for row in rows)
    teller.set_pulse(Pulse(service_s=service_s, stages=tuple(stages)), 0.0)
    roster.adopt(rows[:1], 0.0)
    hot = hot_of(teller.members[DeviceId("a")])
    roster.on_message(DeviceId("a"), Heartbeat(1, 0, (), (hot,)), 0.0)
    heard = roster.members[DeviceId("a")].pulse
    for told, stage_s in zip(heard.stages, stages, strict=True):
        assert bool(told) is bool(stage_s)
        if stage_s:
            sent = min(max(stage_s / service_s, 0.02), 1000.0)
            assert abs(told / heard.service_s - sent) <= 0.0101


def test_a_full_heartbeat_fits_into_a_datagram() -> None:
    devices = [DeviceId(f"{number:064x}") for number in range(120)]
    it = Membership(devices[0], card("me"), 2**40, MembershipConfig(), Random(1))
    it.start([], 0.0)
    it.adopt([Member(d, 2**40, Standing.ALIVE, card(d)) for d in devices[1:]], 0.0)
    it.on_timer(GossipTimer("tick"), 0.5)
    for device in devices[1:]:
        row = it.members[device]
        hot = Hot(tag_of(device), 2**50, 70_000, 70_000, 70_000, 10**8, stages=(50, 100, 50_000))
        it._roster.beat(hot)
        it._hot.add(device, hot, None)
        it._apply(Member(device, row.incarnation, Standing.SUSPECT, row.card), devices[1], _beat_way(), 0.6)
    sizes = [
        len(encode(e.message))
        for step in range(10)
        for e in it.on_timer(GossipTimer("tick"), 1.0 + step / 10)
        if isinstance(e, Send)
    ]
    assert 800 < max(sizes) <= 1_200


def _beat_way() -> object:
    from folkmoot.core.membership import Way

    return Way.BEAT
