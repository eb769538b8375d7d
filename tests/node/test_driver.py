"""The live loop: timers, stalls, the order of what has arrived, and a whole prompt on real engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from typing import Any

import pytest

from folkmoot.core.events import (
    Event,
    Fired,
    ForgetTimer,
    Notice,
    PollTimer,
    Prompt,
    PromptAnswered,
    PromptFailed,
    Received,
    SetTimer,
    Started,
    Submitted,
    Withdrawn,
)
from folkmoot.core.events import Plan as Asked
from folkmoot.core.gossip import Card, Probe
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.law import parse_law
from folkmoot.core.messages import Outcome, Sampling, Turn
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.engine.timed import TimedEngine
from folkmoot.node.config import NodeConfig
from folkmoot.node.driver import LATE_S, Driver
from folkmoot.node.work import Work

TIMER = PollTimer(JobId("a" * 32 + ".1.1.0"))


class Listening(Peer):
    """The real core; keeps what it was told."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.events: list[Event] = []
        self.bug: Exception | None = None

    def handle(self, event: Event, now: float) -> Any:
        self.events.append(event)
        if self.bug is not None:
            raise self.bug
        return super().handle(event, now)


class Node:
    """A device without a daemon: network, core, engine and driver."""

    def __init__(self, device: Any, law: str, seed: int) -> None:
        self.device = device
        self.id: DeviceId = device.id
        self.notices: list[Notice] = []
        self.tasks: list[asyncio.Task[None]] = []
        config = NodeConfig()
        card = Card(f"d{seed}", "timed", 4096, 0.0, device.network.address)
        self.peer = Listening(self.id, card, 1, PeerConfig(), Random(seed))
        self.engine = TimedEngine(parse_law(law))
        self.work = Work(self.engine, self.spawn, config.coalesce_s)
        self.driver = Driver(self.peer, device.network, self.work, self.spawn, self.notices.append)
        self.work.handle = self.driver.handle
        device.serve = self.driver.talk.serve
        device.heard.put_nowait = lambda pair: self.driver.handle(Received(*pair))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.peer.events if isinstance(event, kind)]

    def ended(self) -> list[Any]:
        return [n for n in self.notices if isinstance(n, PromptAnswered | PromptFailed)]

    async def close(self) -> None:
        self.driver.close()
        await self.device.network.close()
        for task in self.tasks:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None


@pytest.fixture
async def nodes(lan: Any) -> AsyncIterator[Callable[..., Any]]:
    """Makes devices that know each other."""
    made: list[Node] = []

    async def make(count: int, law: str = "det:0") -> list[Node]:
        for number in range(count):
            device = await (lan.member() if made else lan.found())
            made.append(Node(device, law, number))
        for node in made:
            contacts = [(n.id, n.device.network.address) for n in made if n is not node]
            node.driver.handle(Started(tuple(contacts)))
        await lan.until(lambda: all(len(n.peer.membership.live()) == count - 1 for n in made))
        return made

    yield make
    for node in made:
        await node.close()


def prompt(stream: bool = False, **plan: Any) -> Prompt:
    asked = Asked(mode="fixed", **plan)
    return Prompt(PromptId("b" * 32), (Turn("user", "why?"),), asked, Sampling(seed=1), stream)


# ---- time ---------------------------------------------------------------------------------------------


async def test_timers_come_back_in_order_and_never_early(lan: Any, nodes: Any) -> None:
    (node,) = await nodes(1)
    now = asyncio.get_running_loop().time()
    early: list[bool] = []
    fired: list[Any] = []
    handle = node.peer.handle

    def watch(event: Event, at: float) -> Any:
        if isinstance(event, Fired) and isinstance(event.timer, ForgetTimer):
            fired.append(event.timer)
            early.append(at < due[event.timer])
        return handle(event, at)

    node.peer.handle = watch
    due = {
        ForgetTimer(JobId(f"{n}"), DeviceId("zed")): now + s
        for n, s in enumerate((0.05, 0.01, 0.03, 0.03, 0.0))
    }
    for timer, at in due.items():
        node.driver._do(SetTimer(at, timer))
    node.driver._arm()
    await lan.until(lambda: len(fired) == 5)
    assert [timer.job for timer in fired] == ["4", "1", "2", "3", "0"]
    assert early == [False] * 5


async def test_after_a_stall_what_has_arrived_is_read_before_late_timers(lan: Any, nodes: Any) -> None:
    """A device that stood still must not hold others dead whose heartbeats lie in its sockets."""
    here, there = await nodes(2)
    loop = asyncio.get_running_loop()
    here.peer.events.clear()
    here.driver._do(SetTimer(loop.time() + 0.01, TIMER))
    here.driver._arm()
    for _ in range(60):
        there.device.network.send_datagram(here.id, Probe())
    time.sleep(LATE_S + 0.3)  # noqa: ASYNC251 (the stall itself)
    await lan.until(lambda: Fired(TIMER) in here.peer.events)
    place = here.peer.events.index(Fired(TIMER))
    probes = [n for n, event in enumerate(here.peer.events) if event == Received(there.id, Probe())]
    assert len(probes) == 60
    assert probes[-1] < place


async def test_a_late_timer_is_not_put_off_for_ever(lan: Any, nodes: Any) -> None:
    """Where something arrives all the time there is never a quiet moment to wait for."""
    (node,) = await nodes(1)
    loop = asyncio.get_running_loop()
    node.driver._do(SetTimer(loop.time() - 2 * LATE_S, TIMER))
    events = 0

    def flood() -> None:
        nonlocal events
        events += 1
        node.driver.handle(Withdrawn(PromptId("c" * 32)))
        if Fired(TIMER) not in node.peer.events and events < 1_000:
            loop.call_later(0.004, flood)

    flood()
    await lan.until(lambda: Fired(TIMER) in node.peer.events)
    assert events < 1_000


async def test_nothing_is_handled_after_the_end(lan: Any, nodes: Any) -> None:
    (node,) = await nodes(1)
    loop = asyncio.get_running_loop()
    for late_s in (0.0, 2 * LATE_S):
        node.driver._do(SetTimer(loop.time() - late_s, TIMER))
    node.driver._arm()
    node.driver.close()
    before = len(node.peer.events)
    node.driver.handle(Withdrawn(PromptId("c" * 32)))
    later: list[bool] = []
    loop.call_later(LATE_S, later.append, True)
    await lan.until(lambda: later)
    assert len(node.peer.events) == before


async def test_a_bug_in_the_core_is_told_to_the_device(nodes: Any) -> None:
    (node,) = await nodes(1)
    node.peer.bug = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        node.driver.handle(Withdrawn(PromptId("c" * 32)))
    assert node.driver.failed.done()
    with pytest.raises(ZeroDivisionError):
        node.driver.failed.result()


# ---- prompts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "proposers"), [(1, 3), (2, 2), (3, 1), (0, 0)])
async def test_a_prompt_makes_the_paper_s_jobs(lan: Any, nodes: Any, layers: int, proposers: int) -> None:
    devices = await nodes(4, "det:0.02")
    devices[0].driver.handle(Submitted(prompt(layers=layers, proposers=proposers)))
    await lan.until(lambda: devices[0].ended())
    (end,) = devices[0].ended()
    assert isinstance(end, PromptAnswered)
    assert len(end.provenance.jobs) == (proposers + 1) * layers + 1
    assert {job.outcome for job in end.provenance.jobs} == {Outcome.OK}
    assert all(node.peer.idle for node in devices)


async def test_a_withdrawn_prompt_frees_every_engine(lan: Any, nodes: Any) -> None:
    devices = await nodes(3, "det:600")
    devices[0].driver.handle(Submitted(prompt(layers=1, proposers=2)))
    await lan.until(lambda: all(node.peer.queue.busy and node.work._jobs for node in devices))
    devices[0].driver.handle(Withdrawn(PromptId("b" * 32)))
    await lan.until(lambda: all(node.peer.idle and not node.work._jobs for node in devices))
    (end,) = devices[0].ended()
    assert end.code == "cancelled"
