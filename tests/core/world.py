"""A few real peers in one place: messages arrive at once and in order, time moves when it is told to.

Smaller and more obedient than `sim.world`: a test decides which message is lost and when an engine speaks.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from folkmoot.core.events import (
    Abort,
    Announce,
    Chill,
    Effect,
    EngineFailed,
    Event,
    Finished,
    Fired,
    Generate,
    Generated,
    Notice,
    Plan,
    Prompt,
    PromptAnswered,
    PromptFailed,
    Received,
    Send,
    SetTimer,
    Submitted,
    Timer,
    Warm,
    Warmed,
)
from folkmoot.core.gossip import Card, Member, Standing
from folkmoot.core.ids import DeviceId, JobId, PromptId, draw_prompt_id
from folkmoot.core.messages import Inference, Message, Sampling, Turn, Usage
from folkmoot.core.peer import Peer, PeerConfig

GOSSIP = "folkmoot.core.gossip"


@dataclass
class Device:
    """One peer, its engine's job in service, and all that it did."""

    peer: Peer
    running: tuple[JobId, Inference] | None = None
    warming: Inference | None = None
    effects: list[Effect] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


class Moot:
    """`models` maps names to models ("" for a requester). Gossip's own messages are left out."""

    def __init__(self, models: dict[str, str], config: PeerConfig | None = None, seed: int = 1) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.lost: Callable[[DeviceId, DeviceId, Message], bool] = lambda sender, to, message: False
        self.mail: deque[tuple[DeviceId, DeviceId, Message]] = deque()
        self.timers: list[tuple[float, int, DeviceId, Timer]] = []
        self.count = 0
        self.devices: dict[DeviceId, Device] = {}
        self.abort_costs: dict[str, Usage] = {}
        for name, model in models.items():
            me = DeviceId(name)
            card = Card(name, model, 4096, float(len(model)), f"at-{name}")
            peer = Peer(me, card, 1, config or PeerConfig(), Random(f"{seed}{name}"))
            self.devices[me] = Device(peer)
        for name, device in self.devices.items():
            rows = [
                Member(other, 1, Standing.ALIVE, self.devices[other].peer.membership.members[other].card)
                for other in self.devices
                if other != name
            ]
            device.peer.membership.adopt(rows, 0.0)

    def tell(self, name: str, event: Event) -> list[Effect]:
        """Let a device take an event; its messages are on their way afterwards."""
        me = DeviceId(name)
        device = self.devices[me]
        effects = device.peer.handle(event, self.now)
        device.effects += effects
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    if type(message).__module__ != GOSSIP and not self.lost(me, to, message):
                        self.mail.append((me, to, message))
                case SetTimer(at=at, timer=timer):
                    self.count += 1
                    heapq.heappush(self.timers, (at, self.count, me, timer))
                case Generate(job=job, inference=inference):
                    assert device.running is None, "two jobs at once"
                    assert device.warming is None or any(isinstance(e, Chill) for e in effects)
                    device.running = (job, inference)
                case Warm(inference=inference):
                    assert device.warming is None, "two prefill steps at once"
                    assert device.running is None, "prefill while a job runs"
                    device.warming = inference
                case Chill(prompt=prompt):
                    assert device.warming is not None
                    assert device.warming.prompt == prompt
                case Abort(job=job):
                    assert device.running is not None
                    assert device.running[0] == job
                case Announce(notice=notice):
                    device.notices.append(notice)
        self._owe(me, effects)
        return effects

    def _owe(self, me: DeviceId, effects: list[Effect]) -> None:
        """What an engine owes after `Abort` and `Chill`."""
        device = self.devices[me]
        for effect in effects:
            match effect:
                case Abort(job=job) if device.running is not None and device.running[0] == job:
                    device.running = None
                    self.tell(
                        me, EngineFailed(job, "cancelled", "aborted", self.abort_costs.get(me, Usage()))
                    )
                case Chill(prompt=prompt) if device.warming is not None:
                    device.warming = None
                    self.tell(me, Warmed(prompt, 0, 1))

    def deliver(self) -> None:
        """Every message on its way arrives."""
        while self.mail:
            sender, to, message = self.mail.popleft()
            if to in self.devices:
                self.tell(to, Received(sender, message))

    def pass_time(self, seconds: float) -> None:
        """Timers of prompts and jobs that come due fire; gossip's are left alone."""
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            self.now, _, me, timer = heapq.heappop(self.timers)
            if me in self.devices and type(timer).__name__ != "GossipTimer":
                self.tell(me, Fired(timer))
                self.deliver()
        self.now = until

    def ask(self, name: str, plan: Plan | None = None, **more: object) -> PromptId:
        """Submit a prompt and deliver what comes of it."""
        prompt = Prompt(
            draw_prompt_id(self.rng),
            (Turn("user", more.pop("question", "why?")),),  # type: ignore[arg-type]
            plan or Plan(),
            more.pop("sampling", Sampling()),  # type: ignore[arg-type]
            **more,  # type: ignore[arg-type]
        )
        self.tell(name, Submitted(prompt))
        self.deliver()
        return prompt.id

    def write(self, name: str, text: str = "because", whole: bool = True) -> None:
        """The engine of a device writes text for the job in service and, if `whole`, ends it."""
        device = self.devices[DeviceId(name)]
        assert device.running is not None, f"nothing runs on {name}"
        job = device.running[0]
        if text:
            self.tell(name, Generated(job, text))
        if whole and device.running is not None and device.running[0] == job:
            device.running = None
            self.tell(name, Finished(job, Usage(10, 2, 5, 1.0, 0.1)))
        self.deliver()

    def running(self, name: str) -> JobId:
        """The job in service at a device."""
        running = self.devices[DeviceId(name)].running
        assert running is not None
        return running[0]

    def break_engine(self, name: str, code: str = "engine_failed", usage: Usage | None = None) -> None:
        """The engine gives up the job in service."""
        device = self.devices[DeviceId(name)]
        assert device.running is not None
        job, device.running = device.running[0], None
        self.tell(name, EngineFailed(job, code, "it broke", usage or Usage()))
        self.deliver()

    def work(self, rounds: int = 200) -> None:
        """All engines write answers until nothing is to be done."""
        for _ in range(rounds):
            busy = [name for name, device in self.devices.items() if device.running is not None]
            if not busy:
                return
            for name in busy:
                if self.devices[name].running is not None:
                    self.write(name, f"{name} says so")
        raise AssertionError("there is no end to the work")

    def work_until(self, name: str, layer: int) -> None:
        """All engines write answers until one device has a job of this layer in service (M + 1 aggregates)."""
        while True:
            busy = [(each, d.running[0]) for each, d in self.devices.items() if d.running is not None]
            assert busy, f"{name} never ran a job of layer {layer}"
            for each, job in busy:
                if each == name and job.split(".")[1] == str(layer):
                    return
                self.write(each, f"{each} says so")

    def kill(self, name: str) -> None:
        """A device is gone, and all others have heard so."""
        gone = DeviceId(name)
        farewell = [
            effect.message
            for effect in self.devices.pop(gone).peer.membership.leave(self.now)
            if isinstance(effect, Send)
        ]
        self.mail = deque(m for m in self.mail if gone not in (m[0], m[1]))
        for other in list(self.devices):
            self.tell(other, Received(gone, farewell[0]))
        self.deliver()

    def end_of(self, prompt: PromptId) -> PromptAnswered | PromptFailed | None:
        """How a prompt ended; it must have ended once only."""
        ends = [
            notice
            for device in self.devices.values()
            for notice in device.notices
            if isinstance(notice, PromptAnswered | PromptFailed) and notice.prompt == prompt
        ]
        assert len(ends) <= 1
        return ends[0] if ends else None


FOUR = {"ann": "m1", "bob": "m2", "cid": "m3", "dot": "m4"}


def fixed(layers: int, proposers: int | None = None, **more: object) -> Plan:
    """A plan of mode `fixed`."""
    return Plan(mode="fixed", layers=layers, proposers=proposers, **more)  # type: ignore[arg-type]


def answered(moot: Moot, prompt: PromptId) -> PromptAnswered:
    """The prompt's end, which must be an answer."""
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered), end
    return end


def failed(moot: Moot, prompt: PromptId) -> PromptFailed:
    """The prompt's end, which must be an error."""
    end = moot.end_of(prompt)
    assert isinstance(end, PromptFailed), end
    return end
