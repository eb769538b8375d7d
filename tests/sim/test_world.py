"""The world itself: what it does to messages, streams, timers and engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from folkmoot.core.events import (
    Abort,
    Chill,
    Disconnect,
    Effect,
    EngineFailed,
    Event,
    Finished,
    Fired,
    Generate,
    Generated,
    GossipTimer,
    LinkLost,
    Received,
    Send,
    SetTimer,
    Started,
    StreamLost,
    Warm,
    Warmed,
)
from folkmoot.core.gossip import Probe
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.messages import Inference, Piece, Turn
from folkmoot.sim.engine import Engine, EngineConfig
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.trace import Trace
from folkmoot.sim.world import World, wire_size

A, B = DeviceId("a"), DeviceId("b")
JOB = JobId("p.1.0.0")
PROMPT = PromptId("p")
CALM = LinkConfig(loss=0.0)


@dataclass
class Stub:
    """Notes what it gets; knows addresses by a table."""

    addresses: dict[DeviceId, str] = field(default_factory=lambda: {A: "A", B: "B"})
    got: list[tuple[float, Event]] = field(default_factory=list)

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.got.append((now, event))
        return []

    def address_of(self, device: DeviceId) -> str | None:
        return self.addresses.get(device)

    def events(self, kind: type) -> list[Event]:
        return [event for _, event in self.got if isinstance(event, kind)]


def pair(links: LinkConfig = CALM, *, engine: EngineConfig | None = None) -> tuple[World, Stub, Stub]:
    world = World(1, links, codec=True, size_of=wire_size)
    a, b = Stub(), Stub()
    world.spawn(A, "A", a, engine=Engine(lambda rng: 1.0, engine or EngineConfig(), Random(1)))
    world.spawn(B, "B", b)
    world.run(0.1)
    return world, a, b


def pieces(world: World, count: int) -> None:
    world.carry_out(A, [Send(B, Piece(JOB, number, "x")) for number in range(count)])


def test_a_job_s_messages_keep_their_order() -> None:
    world, _, b = pair()
    pieces(world, 200)
    world.run(5.0)
    assert [e.message.offset for e in b.events(Received)] == list(range(200))  # type: ignore[attr-defined]


def test_under_torture_they_are_reordered_lost_and_doubled() -> None:
    world, _, b = pair(LinkConfig(loss=0.1, doubling=0.1, torture=True))
    pieces(world, 500)
    world.run(5.0)
    offsets = [e.message.offset for e in b.events(Received)]  # type: ignore[attr-defined]
    assert offsets != sorted(offsets)
    assert len(set(offsets)) < 500 < len(offsets) + 100
    assert len(offsets) > len(set(offsets))


def test_datagrams_are_lost_and_doubled_at_the_given_rates() -> None:
    world, _, b = pair(LinkConfig(loss=0.02, doubling=0.05))
    for _ in range(100):
        world.carry_out(A, [Send(B, Probe())] * 100)
        world.run(world.now + 0.1)
    world.run(world.now + 1.0)
    assert len(b.events(Received)) == pytest.approx(10_000 * (0.98 * 1.05), rel=0.01)
    assert world.traffic.packets == 10_000 + CALM.dial_packets
    assert world.traffic.bytes == 10_000 * (2 + 60) + CALM.dial_bytes


def test_a_killed_device_loses_the_streams_and_is_seen_to_be_gone() -> None:
    world, a, _ = pair(LinkConfig(loss=0.0, loss_seen_s=2.3))
    pieces(world, 1)
    world.run(1.0)
    world.crash(B)
    world.run(3.0)
    assert not a.events(StreamLost)
    world.run(3.4)
    assert a.events(StreamLost) == [StreamLost(B, JOB)]
    assert a.events(LinkLost) == [LinkLost(B)]


def test_what_cannot_be_dialled_is_lost_after_the_time_out() -> None:
    world, a, b = pair()
    a.addresses[B] = "an old address"
    pieces(world, 1)
    world.run(3.05)
    assert not a.events(StreamLost)
    world.run(4.0)
    assert a.events(StreamLost) == [StreamLost(B, JOB)]
    assert not b.events(Received)


def test_whoever_was_dialled_answers_without_knowing_an_address() -> None:
    world, a, b = pair()
    b.addresses.clear()
    world.carry_out(B, [Send(A, Probe())])
    world.run(1.0)
    assert not a.events(Received)
    world.carry_out(A, [Send(B, Probe())])
    world.run(2.0)
    world.carry_out(B, [Send(A, Probe())])
    world.run(3.0)
    assert len(a.events(Received)) == len(b.events(Received)) == 1


def test_disconnecting_ends_the_streams_at_both_ends() -> None:
    world, a, b = pair()
    pieces(world, 1)
    world.run(1.0)
    world.carry_out(B, [Send(A, Piece(JOB, 0, "y"))])
    world.run(2.0)
    world.carry_out(A, [Disconnect(B)])
    world.run(3.0)
    assert a.events(StreamLost) == [StreamLost(B, JOB)]
    assert b.events(StreamLost) == [StreamLost(A, JOB)]
    assert b.events(LinkLost) == [LinkLost(A)]


def test_a_cut_stops_one_direction_a_partition_both() -> None:
    world, a, b = pair()
    both: list[Effect] = [Send(B, Probe())]
    world.carry_out(A, both)
    world.run(1.0)
    world.links.cut(A, B)
    world.carry_out(A, both)
    world.carry_out(B, [Send(A, Probe())])
    world.run(2.0)
    assert (len(a.events(Received)), len(b.events(Received))) == (1, 1)
    world.links.heal()
    world.links.part({A: 1})
    world.carry_out(A, both)
    world.carry_out(B, [Send(A, Probe())])
    world.run(3.0)
    assert (len(a.events(Received)), len(b.events(Received))) == (1, 1)


def test_after_a_freeze_messages_come_before_timers() -> None:
    world, a, b = pair()
    world.freeze(B, 2.0)
    world.carry_out(B, [SetTimer(0.2, GossipTimer("t"))])
    world.run(0.5)
    world.carry_out(A, [Send(B, Probe())])
    world.run(2.0)
    assert len(b.got) == 1
    world.run(3.0)
    assert [type(event) for _, event in b.got] == [Started, Received, Fired]
    assert {now for now, _ in b.got[1:]} == {2.1}


def test_an_engine_writes_pieces_then_ends() -> None:
    world, a, _ = pair()
    world.carry_out(A, [Generate(JOB, Inference(PROMPT, (Turn("user", "?"),)))])
    world.run(3.0)
    assert len(a.events(Generated)) == EngineConfig().pieces
    (end,) = a.events(Finished)
    assert a.got[-1] == (1.1, end)


def test_an_aborted_job_ends_once_and_writes_no_more() -> None:
    world, a, _ = pair()
    world.carry_out(A, [Generate(JOB, Inference(PROMPT, ()))])
    world.run(0.5)
    written = len(a.events(Generated))
    world.carry_out(A, [Abort(JOB)])
    world.run(3.0)
    assert len(a.events(Generated)) == written
    assert [e.code for e in a.events(EngineFailed)] == ["cancelled"]  # type: ignore[attr-defined]
    assert not a.events(Finished)


def test_the_engine_holds_the_driver_to_its_duties() -> None:
    world, a, _ = pair()
    work = Inference(PROMPT, ())
    world.carry_out(A, [Warm(work), Chill(PROMPT), Generate(JOB, work)])
    with pytest.raises(AssertionError, match="began while"):
        world.carry_out(A, [Generate(JobId("q.1.0.0"), work)])
    with pytest.raises(AssertionError, match="prefill step"):
        world.carry_out(A, [Warm(work)])
    world.run(3.0)
    assert len(a.events(Warmed)) == 1
    world.carry_out(A, [Warm(work)])
    world.run(4.0)
    assert a.events(Warmed)[-1] == Warmed(PROMPT, 10, 30)


def test_an_engine_that_dies_says_so() -> None:
    world, a, _ = pair(engine=EngineConfig(failure=1.0))
    world.carry_out(A, [Generate(JOB, Inference(PROMPT, ()))])
    world.run(3.0)
    assert [e.code for e in a.events(EngineFailed)] == ["engine_failed"]  # type: ignore[attr-defined]


def test_the_trace_tells_histories_apart() -> None:
    one, other, same = Trace(), Trace(), Trace(tail=1)
    for trace, what in ((one, Probe()), (other, Started()), (same, Probe())):
        trace.note(1.0, A, what)
    assert one.digest() == same.digest() != other.digest()
    assert list(one.lines) == ["1.000000 a Probe()"]
