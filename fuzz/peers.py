"""Mutated messages against a whole device: the codec, `Peer.handle`, and all that it sends and sets in motion.

The device is alive: time passes, its timers fire, its engine works, its users ask, and those whom it asks answer honestly or
not. After each message: only `RemoteProtocolError` from the codec, nothing from the core; what it sends can be encoded, and a
datagram is one; its queue and its tables are within their bounds. In the end it is left in peace, and must come to rest.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random
from typing import Any

import psutil

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
    Plan,
    Prompt,
    PromptAnswered,
    PromptFailed,
    Received,
    Send,
    SetTimer,
    Started,
    Submitted,
    Warm,
    Warmed,
)
from folkmoot.core.gossip import DATAGRAMS, MAX_INCARNATION, Card, Member, Standing, Sync
from folkmoot.core.ids import DeviceId, draw_prompt_id
from folkmoot.core.layout import as_chat
from folkmoot.core.messages import Answer, Ask, Began, Message, Piece, Queued, Turn, Usage
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.errors import RemoteProtocolError
from folkmoot.node.config import NodeConfig
from folkmoot.wire import decode, encode, limits
from fuzz.mutations import RUNS, Mutator
from fuzz.recorded import DEVICES, messages

ME = DEVICES[0]
STRANGERS = tuple(DeviceId(f"{number:02x}" * 32) for number in range(200, 204))
LIFE = 25_000
"""So many messages a young device gets before another one takes its place."""
LONG = 0.3
"""So many of the answers are long runs of one sign."""
ROOM = 14_000
"""Characters of context for an answer: a run and some of what follows it."""
STEP_S = 0.002
HELLO_S = 2.0
REST_S = 1_200.0
"""Virtual seconds in which a device must come to rest: a job without a step forward is given up after 900."""
MOST_EVENTS = 20_000
"""More than that in one step, or in a second of rest, is a device that does nothing but wake itself."""
SLOW_S = 1.0
"""A message that takes longer to handle, in seconds of its thread's own time, is a hang."""
MORE_BYTES = 96 << 20
"""Memory that all tables together may come to hold: members, dead, contacts, declined and kept jobs and their texts."""


class Broken(Exception):
    """A promise was not kept; the message says which, and at which message."""


@dataclass
class Device:
    """A peer with its time, its engine and its honest neighbours."""

    rng: Random
    config: PeerConfig = field(default_factory=lambda: NodeConfig().peer)
    now: float = 0.0
    fed: int = 0
    heap: list[tuple[float, int, Event]] = field(default_factory=list)
    count: int = 0
    names: deque[Any] = field(default_factory=lambda: deque(maxlen=64))
    open: dict[str, int] = field(default_factory=dict)
    hello: float = 0.0

    def __post_init__(self) -> None:
        card = Card("me", "tiny", 4096, 1.0, "here")
        self.peer = Peer(ME, card, 1, self.config, Random(self.rng.random()))
        self.names.extend(b"\x01" + bytes.fromhex(device) for device in DEVICES)
        self.handle(Started(tuple((device, f"at {device[:4]}") for device in DEVICES[1:])))

    def later(self, wait_s: float, event: Event) -> None:
        self.count += 1
        heappush(self.heap, (self.now + wait_s, self.count, event))

    def pass_time(self, seconds: float) -> None:
        until, first = self.now + seconds, self.count
        while self.heap and self.heap[0][0] <= until:
            at, _, event = heappop(self.heap)
            if self.count - first > MOST_EVENTS:
                raise Broken(f"{MOST_EVENTS} events in {seconds:.3g} s, and no end: the last is {event}")
            self.now = max(self.now, at)
            self.handle(event)
        self.now = until

    def greet(self) -> None:
        """Its neighbours say that they live, whatever was said in their names; else nobody would be asked any more."""
        if self.now < self.hello:
            return
        self.hello = self.now + HELLO_S
        for device in DEVICES[1:]:
            known = self.peer.membership.members.get(device)
            incarnation = min((known.incarnation if known is not None else 0) + 1, MAX_INCARNATION - 1)
            card = Card(device[:4], "tiny", 4096, 1.0, f"at {device[:4]}", version=incarnation)
            self.handle(Received(device, Sync(Member(device, incarnation, Standing.ALIVE, card), ())))

    def handle(self, event: Event) -> None:
        for effect in self.peer.handle(event, self.now):
            self._carry_out(effect)

    def ask(self) -> None:
        rng = self.rng
        plan = rng.choice(
            (
                Plan(),
                Plan("fixed", 1, 2),
                Plan("fixed", 2, 2),
                Plan("fixed", 1, 3, deadline_s=1.0),
                Plan("local", 0, 0),
            )
        )
        prompt = Prompt(draw_prompt_id(rng), (Turn("user", "Why?"),), plan, stream=rng.random() < 0.5)
        self.open[prompt.id] = 0
        self.handle(Submitted(prompt))

    def _carry_out(self, effect: Effect) -> None:
        """Do it; the engine lays each answer out, in a context that holds most of a long one."""
        match effect:
            case SetTimer(at=at, timer=timer):
                self.later(max(0.0, at - self.now), Fired(timer))
            case Generate(job=job, inference=inference):
                for answer in inference.answers:
                    as_chat(replace(inference, answers=(answer,), expected=1, suspect=0), ROOM, len)
                for number in range(2):
                    self.later(0.02 * number, Generated(job, f"word {number} "))
                self.later(0.04, Finished(job, Usage(5, 0, 2, 0.04, 0.01)))
            case Abort(job=job):
                self.later(0.0, EngineFailed(job, "cancelled", "the job was cancelled"))
            case Warm(inference=inference):
                self.later(0.01, Warmed(inference.prompt, 1, 1))
            case Chill(prompt=prompt):
                self.later(0.0, Warmed(prompt, 0, 1))
            case Send(to=to, message=message):
                self._sent(to, message)
            case Announce(notice=PromptAnswered(prompt=prompt) | PromptFailed(prompt=prompt)):
                self.open[prompt] += 1
                if self.open[prompt] != 1:
                    raise Broken(f"prompt {prompt} ended twice")
            case _:
                pass

    def _sent(self, to: DeviceId, message: Message) -> None:
        data = encode(message)
        if isinstance(message, DATAGRAMS) and len(data) > limits.DATAGRAM_BYTES:
            raise Broken(f"{type(message).__name__} with {len(data)} bytes is no datagram")
        if isinstance(message, Ask):
            self.names.extend((message.job, b"\x01" + bytes.fromhex(message.prompt)))
            if self.rng.random() < 0.7:
                wait_s = self.rng.random() * 0.2
                text = self.rng.choice(RUNS) if self.rng.random() < LONG else "It is so."
                for number, reply in enumerate(_replies(message, text)):
                    self.later(wait_s * (number + 1), Received(to, reply))

    def rest(self) -> None:
        """Nobody sends anything any more: all that is under way must end."""
        until = self.now + REST_S
        while self.now < until and not self.peer.idle:
            self.pass_time(1.0)
        queue = self.peer.queue
        if not self.peer.idle:
            raise Broken(
                f"no rest: {len(self.peer.prompts)} prompts, {queue.waiting} waiting, {queue.busy} in service"
            )
        if lost := [prompt for prompt, ends in self.open.items() if ends != 1]:
            raise Broken(f"{len(lost)} prompts have no end")

    def check(self) -> None:
        """Bounds that hold at any time."""
        queue, config = self.peer.queue, self.config
        if queue.waiting > config.queue.max_waiting or queue.busy > config.queue.slots:
            raise Broken(f"{queue.waiting} jobs wait, {queue.busy} are in service")
        if len(self.peer.prompts) > config.max_prompts:
            raise Broken(f"{len(self.peer.prompts)} prompts")
        if len(self.peer.membership.members) > config.membership.max_members + config.membership.max_dead:
            raise Broken(f"{len(self.peer.membership.members)} members")


def _replies(ask: Ask, text: str) -> tuple[Message, ...]:
    return (
        Queued(ask.job, 0), Began(ask.job, 0.1), Piece(ask.job, 0, text), Answer(ask.job, len(text), 0.1, Usage(3, 0, 3, 0.1)),
    )  # fmt: skip


@dataclass
class Fuzzed:
    """What came of it. Rates per second of all together; memory in MB."""

    messages: int = 0
    refused: int = 0
    handled: dict[str, int] = field(default_factory=dict)
    slowest_ms: float = 0.0
    slowest: str = ""
    rate: float = 0.0
    memory_mb: list[float] = field(default_factory=list)
    prompts: int = 0


def run(count: int, seed: int) -> Fuzzed:
    """Send so many mutated messages to one device that lives through all of it and to young ones in turn. Raises `Broken`."""
    rng, process = Random(f"peers {seed}"), psutil.Process()
    devices = [Device(rng), Device(rng)]
    mutators = [Mutator(messages(seed), seed * 2 + n, lambda n=n: devices[n].names) for n in range(2)]  # type: ignore[misc]
    found, handled = Fuzzed(count), Counter[str]()
    began = time.perf_counter()
    for number in range(count):
        place = number % 2
        device = devices[place]
        if place and device.fed >= LIFE:
            device.rest()
            found.prompts += len(device.open)
            device = devices[1] = Device(rng)
        data = mutators[place].draw()
        device.fed += 1
        start = time.thread_time()
        try:
            _feed(device, data, rng, handled)
        except Broken:
            raise
        except Exception as bug:
            raise Broken(f"message {number} of seed {seed} ({data[:200].hex()}): {bug!r}") from bug
        slow_ms = 1e3 * (time.thread_time() - start)
        if slow_ms > found.slowest_ms:
            found.slowest_ms, found.slowest = slow_ms, f"message {number} of seed {seed}: {data[:40].hex()}"
        if slow_ms > 1e3 * SLOW_S:
            raise Broken(f"message {number} of seed {seed} took {slow_ms:.0f} ms")
        if number % max(1, count // 20) == 0:
            found.memory_mb.append(round(process.memory_info().rss / 2**20, 1))
    for device in devices:
        device.rest()
        found.prompts += len(device.open)
    found.rate = count / (time.perf_counter() - began)
    found.memory_mb.append(round(process.memory_info().rss / 2**20, 1))
    found.refused = handled.pop("refused", 0)
    found.handled = dict(sorted(handled.items()))
    if found.memory_mb[-1] - found.memory_mb[0] > MORE_BYTES / 2**20:
        raise Broken(f"memory grew from {found.memory_mb[0]} to {found.memory_mb[-1]} MB")
    return found


def _feed(device: Device, data: bytes, rng: Random, handled: Counter[str]) -> None:
    if rng.random() < 0.005:
        device.ask()
    device.pass_time(rng.expovariate(1.0 / STEP_S))
    device.greet()
    sender = rng.choice(DEVICES[1:]) if rng.random() < 0.95 else rng.choice(STRANGERS)
    try:
        message = decode(data)
    except RemoteProtocolError:
        handled["refused"] += 1
        return
    if isinstance(message, Sync) and message.me.device != sender:  # the transport throws it out, as rubbish
        handled["refused"] += 1
        return
    handled[type(message).__name__] += 1
    device.handle(Received(sender, message))
    device.check()
