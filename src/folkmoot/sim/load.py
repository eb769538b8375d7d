"""A moot under load: the real protocol in virtual time, on the random numbers of the compiled simulator.

Each prompt, peer, job and reply is the core's own; the world brings arrivals, service times and messages. As it
stands (`Setting()`) messages take no time and each device knows its peers, which is the model of `queueing`: every
job then begins and ends when the compiled simulator says, to the bit. What that one lacks is set here:
several jobs at a time, batching, delays, gossip, devices that fail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import numpy as np
import numpy.typing as npt

from folkmoot.core.breaker import BreakerConfig
from folkmoot.core.events import (
    Announce,
    Effect,
    EngineFailed,
    Event,
    Finished,
    Generate,
    Generated,
    JobProgress,
    Plan,
    Prompt,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Received,
    Started,
    Submitted,
)
from folkmoot.core.gossip import Card, Member, Standing
from folkmoot.core.hedge import HedgeConfig
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.law import Trace
from folkmoot.core.messages import Answer, Ask, Outcome, Turn
from folkmoot.core.meter import MeterConfig
from folkmoot.core.mixture import COPY_OF, MixtureConfig
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.core.price import PriceConfig
from folkmoot.core.queue import QueueConfig
from folkmoot.core.repute import ReputeConfig
from folkmoot.errors import DeadlinePassed, Overloaded, TheoryError
from folkmoot.queueing.moot import Question, service_means
from folkmoot.queueing.stability import Judge, chances, early_stopping_jobs
from folkmoot.queueing.streams import (
    ARRIVALS,
    ORIGINS,
    POLICY,
    ROUTES,
    SERVICES,
    STOPS,
    branch,
    shuffle,
    subset,
    uniform,
)
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.server import Server
from folkmoot.sim.world import Device, World

Key = npt.NDArray[np.uint64]
"""The keys of a run's streams, as `queueing.streams.keys` makes them."""
INSTANT = LinkConfig(delay_s=0.0, jitter_s=0.0, loss=0.0)
MOST_DEVICES = 1_000
"""Each device keeps a row of every other: beyond this many it takes minutes before the first prompt."""
LEAST_SPEED = 1e-6
STEP_S = 60.0
"""So often is looked whether all prompts have ended."""
UNBOUNDED = 1 << 60
TRIES = 256
"""A job that is tried again has a service time of its own; a layer has fewer places."""

_CUT = (Outcome.LATE, Outcome.FAILED, Outcome.CANCELLED, Outcome.REFUSED)
_ARRIVAL, _ENGINE, _MESSAGE, _ANSWER = range(4)
"""Ranks of what happens at one time; answers after all else, those of the layer that was asked first before others."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What there is in the world beyond a `Question`. Times in seconds.

    `slots` jobs are served at a time on each device, as fast as alone; with `speed` the engine batches: speed[b-1] is
    φ(b), its speed with b jobs in service. `links` gives messages their delays and losses, None none.
    `gossip`: devices learn of each other's load and death by heartbeats alone; without it they know who is there,
    and best of d sees the queues as the question's `view_s` says. `up_s` and `down_s` are the mean times to failure
    and to repair of a device, both exponential, 0 for devices that do not fail; failing needs gossip. `aggregator` is
    the device that aggregates all prompts, None their origins. `stages` are M + 1 factors on the service times of the
    layers' jobs and of the aggregation, as prompts grow from layer to layer; an answer alone counts as a first layer's.
    `stops` are M chances, sum 1: a prompt is asked with so many layers, drawn without a look at the queues. `weights`, n
    rows, say with what chance an origin asks each device in a layer; rows sum to k.
    With a `price` prompts are asked in mode auto, and devices choose M and k by it; M and k of the question are then those
    of its loads only. `cheats` are devices that ask for as many all the same, `share` is `MeterConfig`'s. From each time
    in `steps` (rising) on prompts come so many times as often as the question says; each has `deadline_s`.
    `models` are the devices' models, repeated cyclically. `hedge`, `breaker`, `max_wait_s`, `repute` and `diverse` are
    `PeerConfig`'s. Each of `frozen` is a device, and from when on for how many seconds it handles nothing; others hear of
    that by gossip alone.
    """

    slots: int = 1
    speed: tuple[float, ...] = ()
    links: LinkConfig | None = None
    gossip: bool = False
    up_s: float = 0.0
    down_s: float = 0.0
    aggregator: int | None = None
    stages: tuple[float, ...] = ()
    stops: tuple[float, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()
    price: PriceConfig | None = None
    cheats: tuple[int, ...] = ()
    share: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()
    deadline_s: float | None = None
    hedge: HedgeConfig = HedgeConfig()
    breaker: BreakerConfig = BreakerConfig()
    max_wait_s: float = 0.0
    repute: ReputeConfig = ReputeConfig()
    frozen: tuple[tuple[int, float, float], ...] = ()
    models: tuple[str, ...] = ("law",)
    diverse: float = 0.0

    @property
    def full_speed(self) -> float:
        """How many times faster than with one job at a time a device is that has enough to do: φ(slots)."""
        return self.speed[-1] if self.speed else float(self.slots)

    @property
    def plain(self) -> bool:
        """Whether who does what, and how much, is as the question says."""
        return self.aggregator is None and not (self.stages or self.stops or self.weights)

    def check(self, question: Question) -> None:
        """Raises `TheoryError` for what cannot be simulated."""
        if question.devices > MOST_DEVICES:
            raise TheoryError(
                f"{question.devices} devices of the real protocol are too many here, {MOST_DEVICES} the most; "
                "the compiled simulator takes more"
            )
        if self.slots < 1:
            raise TheoryError(f"slots is {self.slots}; a device serves at least 1 job at a time")
        if len(self.speed) > self.slots or any(
            not LEAST_SPEED <= each <= 1 / LEAST_SPEED for each in self.speed
        ):
            raise TheoryError(
                f"speed is {', '.join(f'{each:g}' for each in self.speed)}; it has one number for each number of jobs in "
                f"service, {self.slots} at most, from {LEAST_SPEED:g} to {1 / LEAST_SPEED:g}"
            )
        if self.up_s < 0 or self.down_s < 0 or (self.up_s > 0) != (self.down_s > 0):
            raise TheoryError("up_s and down_s are both more than 0, or both 0 for devices that do not fail")
        if self.up_s and not self.gossip:
            raise TheoryError("devices that fail need gossip, or nobody hears of it")
        if question.graph is not None and self.gossip:
            raise TheoryError("gossip makes everybody known to everybody, so it needs the complete graph")
        if self.aggregator is not None and not 0 <= self.aggregator < question.devices:
            raise TheoryError(
                f"aggregator is {self.aggregator}; devices are numbered 0 to {question.devices - 1}"
            )
        if self.aggregator is not None and question.graph is not None:
            raise TheoryError("one aggregator for all must be known to all, so it needs the complete graph")
        self._check_layers(question)
        if self.price is None and (self.cheats or self.deadline_s is not None):
            raise TheoryError("cheats and a deadline belong to a price")
        if self.frozen and not self.gossip:
            raise TheoryError("devices that freeze need gossip, or nobody hears of it")
        if any(
            not 0 <= each < question.devices or start < 0 or not last > 0 for each, start, last in self.frozen
        ):
            raise TheoryError(
                f"each of frozen is a device, 0 to {question.devices - 1}, a time and seconds above 0"
            )
        if any(not 0 <= each < question.devices for each in self.cheats):
            raise TheoryError(f"cheats are devices, numbered 0 to {question.devices - 1}")
        times = [start for start, _ in self.steps]
        if times != sorted(set(times)) or any(not start >= 0 or not many > 0 for start, many in self.steps):
            raise TheoryError("steps are times that rise from 0, each with a factor above 0")
        if question.skip_aggregation:
            raise TheoryError(
                "the protocol aggregates every prompt; skip_aggregation is for the compiled simulator"
            )
        if question.judge is not None and (question.judge.stop or not self.plain or self.price is not None):
            raise TheoryError(
                "a simulated judge gives no verdict and stops nothing: leave out its chance to stop, and prices, another "
                "aggregator, stages, stops and weights beside it"
            )
        if question.best_of and not question.count_own:
            raise TheoryError(
                "the protocol counts a device's own jobs in its view; count_own is for the compiled simulator"
            )

    def _check_layers(self, question: Question) -> None:
        layers = question.layers
        if self.stages and len(self.stages) != layers + 1:
            raise TheoryError(
                f"stages has {len(self.stages)} factors; with M = {layers} it has {layers + 1}: each layer's and the "
                "aggregation's"
            )
        for each in self.stages:
            if not LEAST_SPEED <= each <= 1 / LEAST_SPEED:
                raise TheoryError(
                    f"stages has {each:g}; its factors go from {LEAST_SPEED:g} to {1 / LEAST_SPEED:g}"
                )
        if self.stops:
            if len(self.stops) != layers:
                raise TheoryError(
                    f"stops has {len(self.stops)} chances; with M = {layers} it has {layers}, one after each layer"
                )
            early_stopping_jobs(self.stops, question.proposers)
        if self.weights:
            if not layers or question.best_of or self.gossip:
                raise TheoryError(
                    "weights need a layer, and stand for themselves: without best of d and without gossip"
                )
            chances(self.weights, question.devices, question.proposers, question.graph)


@dataclass(slots=True)
class Job:
    """One inference as it went; `start`, `end`, and when it was `cut` off, are NaN where it did not come to that."""

    prompt: int
    stage: int
    slot: int
    device: int
    asked: float
    start: float = math.nan
    end: float = math.nan
    cut: float = math.nan


@dataclass(slots=True)
class Asked:
    """One prompt, asked with so many `layers`; `code` is empty where it was answered, an error's code where it failed,
    `open` before its end. `answers` of the layer that had the fewest went into it, `copies` of late jobs were asked for.
    """

    number: int
    origin: int
    born: float
    layers: int
    ended: float = math.nan
    code: str = "open"
    proposers: int = 0
    answers: int = 1
    copies: int = 0


@dataclass(slots=True)
class History:
    """All that a run saw, in the order in which it was asked."""

    jobs: list[Job] = field(default_factory=list)
    prompts: list[Asked] = field(default_factory=list)
    failures: int = 0
    events: int = 0
    wall_s: float = 0.0


class Load:
    """One run: `key` are the keys of its streams (`streams.keys`), `until` the end of time (inf: drained)."""

    def __init__(self, question: Question, key: Key, until: float, setting: Setting | None = None) -> None:
        self.question = question
        self.setting = setting or Setting()
        self.setting.check(question)
        self.history = History()
        self._key = key
        self._until = until
        instant = self.setting.links is None and not self.setting.gossip
        links = self.setting.links or INSTANT
        seed = int(key[POLICY])
        self.world = World(seed, links, check=self._check, rank=self._rank if instant else None)
        self._loopback = not instant
        self._rng = Random(seed + 1)
        rates = question.rates_hz * (question.devices if len(question.rates_hz) == 1 else 1)
        self._total = float(np.array(rates).sum())
        self._shares = np.cumsum(rates) / self._total
        self._stops = np.cumsum(self.setting.stops)
        self._judge = question.judge or Judge()
        self._weights = np.array(self.setting.weights)
        self._ids = [DeviceId(f"d{number}") for number in range(question.devices)]
        self._numbers = {device: number for number, device in enumerate(self._ids)}
        self._rows: dict[JobId, Job] = {}
        self._turns: dict[tuple[PromptId, int], int] = {}
        self._left = question.prompts or math.inf
        self._lives = [0] * question.devices
        self._means = service_means(question).tolist()
        for number in range(question.devices):
            self._bring_up(number)

    def run(self) -> History:
        """Run to the end of time."""
        began = time.perf_counter()
        question, world = self.question, self.world
        if question.best_of and question.view_s and not self.setting.gossip:
            world.at(0.0, lambda: self._refresh(0), _ARRIVAL - 1)
        world.at(self._next(0), lambda: self._arrive(0))
        for number, start, last in self.setting.frozen:
            world.at(start, partial(world.freeze, self._ids[number], last))
        if self.setting.up_s:
            for number in range(question.devices):
                self._fail_later(number)
        if math.isinf(self._until) and not self._instant:
            while self._left:  # heartbeats go on for ever
                world.run(world.now + STEP_S)
        else:
            world.run(self._until)
        self.history.events, self.history.wall_s = world.events, time.perf_counter() - began
        return self.history

    # ---- devices -----------------------------------------------------------------------------------

    def _bring_up(self, number: int) -> None:
        question, device = self.question, self._ids[number]
        self._lives[number] += 1
        config = PeerConfig(
            queue=QueueConfig(
                discipline=question.discipline, slots=self.setting.slots, max_waiting=UNBOUNDED,
                max_characters=UNBOUNDED, meter=MeterConfig(share=self.setting.share), keep_jobs=0 if self._instant else 64, warm_prompts=0,
            ),
            mixture=MixtureConfig(poll_s=1e15, patience_s=1e15) if self._instant else MixtureConfig(patience_s=1e15),
            max_prompts=UNBOUNDED,
            admit_waiting=question.admit,
            max_wait_s=self.setting.max_wait_s,
            price=PriceConfig() if number in self.setting.cheats else self.setting.price or PriceConfig(),
            hedge=self.setting.hedge,
            breaker=self.setting.breaker,
            repute=self.setting.repute,
            diverse=self.setting.diverse,
        )  # fmt: skip
        peer = Peer(
            device,
            self._card(number),
            self._lives[number],
            config,
            Random(f"{self._key[POLICY]}.{number}"),
            self,
        )
        rows = [
            Member(self._ids[other], 1, Standing.ALIVE, replace(self._card(other), version=1))
            for other in self._known(number)
        ]
        peer.membership.adopt(rows, self.world.now)
        server = Server(lambda: self.world.now, lambda job: self._took(job, number), self.setting.speed)
        contacts = [(self._ids[other], self._card(other).address) for other in self._known(number)]
        fresh = bool(question.best_of) and not question.view_s and not self.setting.gossip
        seat = Seat(peer, self, loopback=self._loopback, gossip=self.setting.gossip, fresh=fresh)
        self.world.spawn(device, str(device), seat, tuple(contacts), engine=server)

    @property
    def _instant(self) -> bool:
        return not self._loopback

    def _known(self, number: int) -> Sequence[int]:
        if self.question.graph is not None:
            return self.question.graph[number]
        return [other for other in range(self.question.devices) if other != number]

    def _card(self, number: int) -> Card:
        model = self.setting.models[number % len(self.setting.models)]
        return Card(f"d{number}", model, 4096, 1.0, str(self._ids[number]), self.setting.slots)

    def _fail_later(self, number: int) -> None:
        self.world.at(
            self.world.now + self._rng.expovariate(1 / self.setting.up_s), lambda: self._fail(number)
        )

    def _fail(self, number: int) -> None:
        self.history.failures += 1
        device = self._ids[number]
        self.world.crash(device)
        for asked in self.history.prompts:
            if asked.origin == number and asked.code == "open":
                self._close(asked, "origin_died")
        for name, job in list(self._rows.items()):
            if job.device == number:
                self._end(name)
        self.world.at(
            self.world.now + self._rng.expovariate(1 / self.setting.down_s), lambda: self._repair(number)
        )

    def _repair(self, number: int) -> None:
        self._bring_up(number)
        self._fail_later(number)

    # ---- prompts -----------------------------------------------------------------------------------

    def _next(self, number: int) -> float:
        """When this prompt is asked: the last one was now."""
        gap, at = -math.log(1.0 - self._draw(ARRIVALS, number, 0, 0)) / self._total, self.world.now
        factor = 1.0
        for start, many in self.setting.steps:
            if start > at:
                if at + gap / factor <= start:
                    break
                gap, at = gap - (start - at) * factor, start
            factor = many
        return at + gap / factor

    def _arrive(self, number: int) -> None:
        question, now = self.question, self.world.now
        u = self._draw(ORIGINS, number, 0, 0)
        origin = int(u * question.devices)
        if len(question.rates_hz) > 1:
            origin = min(int(np.searchsorted(self._shares, u, side="right")), question.devices - 1)
        asked = Asked(number, origin, now, self._layers(number))
        self.history.prompts.append(asked)
        if number + 1 != question.prompts:
            self.world.at(self._next(number + 1), lambda: self._arrive(number + 1))
        device = self.world.devices[self._ids[origin]]
        if not device.alive:
            self._close(asked, "origin_down")
            return
        proposers = question.proposers if asked.layers else None
        chosen = self.setting.aggregator
        plan = Plan(
            "fixed", asked.layers, proposers, best_of=question.best_of, quorum=question.quorum,
            keep=self._judge.keep, early_stop=self._judge.early_stop,
            aggregator="origin" if chosen is None else f"fixed:{self._ids[chosen]}",
        )  # fmt: skip
        if self.setting.price is not None and origin not in self.setting.cheats:
            plan = Plan("auto", deadline_s=self.setting.deadline_s)
        self.world.feed(device.id, Submitted(Prompt(PromptId(f"{number:032x}"), (Turn("user", "x"),), plan)))

    def _layers(self, number: int) -> int:
        """How many layers a prompt is asked with."""
        if not self.setting.stops:
            return self.question.layers
        u = self._draw(STOPS, number, 0, 0)
        return min(int(np.searchsorted(self._stops, u, side="right")) + 1, self.question.layers)

    def _draw(self, stream: int, prompt: int, stage: int, slot: int) -> float:
        return float(uniform(np.uint64(branch(self._key[stream], prompt, stage)), slot))

    def places(self, prompt: PromptId, layer: int, count: int, among: int) -> Sequence[int]:
        """The peers of a prompt's layer, by name (`core.choice.Draw`)."""
        drawn = np.empty(max(1, count), np.int64)
        key = np.uint64(branch(self._key[ROUTES], int(prompt, 16), layer))
        if self.setting.weights:
            own = self.history.prompts[int(prompt, 16)].origin
            return weighted(key, np.delete(self._weights[own], own), count)
        subset(key, count, among, drawn)
        if self.question.best_of:
            shuffle(key, count, drawn)
        return [int(place) for place in drawn[:count]]

    def _took(self, name: JobId, device: int) -> float:
        prompt, layer, slot, attempt = name.split(".")
        law = self.question.laws[device % len(self.question.laws)]
        whole = isinstance(law, Trace)
        place = int(slot) + TRIES * int(attempt)
        u = self._draw(SERVICES, int(prompt, 16), 0 if whole else int(layer), 0 if whole else place)
        took = law.quantile(u, device)
        if not self.setting.stages:
            return took
        final = int(layer) > max(1, self.history.prompts[int(prompt, 16)].layers)
        return took * self.setting.stages[-1 if final else int(layer) - 1]

    # ---- views of the queues -----------------------------------------------------------------------

    def _refresh(self, turn: int) -> None:
        """Everybody learns how long the queues are now."""
        for device in self._ids:
            self.look(device)
        if self._left:
            self.world.at((turn + 1) * self.question.view_s, lambda: self._refresh(turn + 1), _ARRIVAL - 1)

    def look(self, device: DeviceId) -> None:
        """A device learns how long its peers' queues are now; their mean service times are those of their laws."""
        peer = self._peer(device)
        for member in peer.membership.live():
            other = self._peer(member.device)
            pulse = other.membership.members[other.me].pulse
            if self.setting.price is None:
                pulse = replace(pulse, service_s=self._means[self._numbers[other.me]], stages=())
            peer.membership.hear_pulse(other.me, pulse, self.world.now)

    def _peer(self, device: DeviceId) -> Peer:
        seat = self.world.devices[device].host
        assert isinstance(seat, Seat)
        return seat.peer

    # ---- what happens at one time, and what is seen of it -------------------------------------------

    def _rank(self, device: Device, event: Event) -> int:
        match event:
            case Generated() | Finished() | EngineFailed():
                return _ENGINE
            case Received(message=Ask(prompt=prompt, layer=layer)):
                self._turns.setdefault((prompt, layer), len(self._turns))
                return _MESSAGE
            case Received(message=Answer(job=job)):
                prompt_of_it, layer_of_it, _, _ = job.split(".")
                return _ANSWER + self._turns[PromptId(prompt_of_it), int(layer_of_it)]
            case _:
                return _MESSAGE

    def _check(self, device: Device, event: Event, effects: list[Effect], now: float) -> None:
        if isinstance(event, Finished | EngineFailed):
            self._end(event.job)
        for effect in effects:
            match effect:
                case Announce(notice=JobProgress(state="asked", job=name, layer=layer, device=other)):
                    prompt, _, slot, _ = name.split(".")
                    job = Job(int(prompt, 16), layer, int(slot), self._numbers[other], now)
                    self._rows[name] = job
                    self.history.jobs.append(job)
                case Announce(notice=JobProgress(state=state, job=name)) if state in _CUT:
                    if name in self._rows:
                        self._rows[name].cut = now
                case Announce(notice=PromptAccepted(prompt=prompt_id, layers=layers, proposers=proposers)):
                    asked = self.history.prompts[int(prompt_id, 16)]
                    asked.layers, asked.proposers = layers, proposers
                case Announce(notice=PromptAnswered(prompt=prompt_id, provenance=told)):
                    asked = self.history.prompts[int(prompt_id, 16)]
                    asked.answers = min((len(each.answered) for each in told.rounds), default=1)
                    asked.copies = sum(COPY_OF in each.what for each in told.decisions)
                    self._close(asked, "")
                case Announce(notice=PromptFailed(prompt=prompt_id, code=code, provenance=told)):
                    at_the_door = code == DeadlinePassed.code and told is None
                    code = Overloaded.code if at_the_door else code  # it was refused, and is not late
                    self._close(self.history.prompts[int(prompt_id, 16)], code)
                case Generate(job=name) if name in self._rows:
                    self._rows[name].start = now
                case _:
                    pass

    def _close(self, asked: Asked, code: str) -> None:
        asked.code, asked.ended = code, self.world.now
        self._left -= 1

    def _end(self, name: JobId) -> None:
        """A job leaves its device, done or not."""
        job = self._rows.pop(name, None)
        if job is None:
            return
        if math.isnan(job.start):
            job.cut = self.world.now
        else:
            job.end = self.world.now


class Seat:
    """A peer's place in the world."""

    def __init__(self, peer: Peer, load: Load, *, loopback: bool, gossip: bool, fresh: bool) -> None:
        self.peer = peer
        self._load = load
        self._loopback = loopback
        self._gossip = gossip
        self._fresh = fresh

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The peer's door. Without gossip it never starts its heartbeats; `fresh`: it looks before it may ask."""
        if isinstance(event, Started) and not self._gossip:
            return []
        if self._fresh and (isinstance(event, Submitted) or _answers(event)):
            self._load.look(self.peer.me)
        return self.peer.handle(event, now, loopback=self._loopback)

    def address_of(self, device: DeviceId) -> str | None:
        """Where it would dial a device."""
        return self.peer.address_of(device)


def weighted(key: np.uint64, shares: npt.NDArray[np.float64], count: int) -> list[int]:
    """`count` distinct places, each drawn with its chance (their sum is `count`, none is above 1).

    Systematic sampling on a random order: the chances laid end to end, and every place taken that u, u + 1, … falls into.
    Source: Madow, "On the theory of systematic sampling, II", 1949; on a random order Hartley and Rao, 1962.
    """
    among, steps = len(shares), np.arange(count)
    order = np.arange(among)
    shuffle(key, among, order)
    found = np.searchsorted(np.cumsum(shares[order]), uniform(key, 0) + steps, side="right")
    # Two in one place, or one beyond the end, come of roundings only.
    found = np.maximum.accumulate(found - steps) + steps
    return [int(order[place]) for place in np.minimum(found, among - count + steps)]


def _answers(event: Event) -> bool:
    return isinstance(event, Received) and isinstance(event.message, Answer)
