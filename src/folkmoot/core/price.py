"""Which (M, k) a prompt gets: each is worth something, and each job costs what its device says.

Pure arithmetic on what a device knows of itself and of some peers. Units: jobs, seconds, points of utility.
Source: ADMISSION.md, where the figures behind each number stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from folkmoot.core.messages import TOLD, Stage
from folkmoot.core.meter import stage_s
from folkmoot.errors import ConfigError

Worth = tuple[int, int, float]
"""M, k, and what an answer so made is worth, in points."""

PAPER: tuple[Worth, ...] = (
    (0, 0, 22.0), (1, 1, 29.55), (1, 2, 40.0), (1, 3, 40.0), (2, 1, 28.88), (2, 2, 40.0), (2, 3, 41.0),
)  # fmt: skip
"""The paper's accuracies, as far as they are at hand: those of (1,3) and (2,2) are set so that they never decide."""


_STEPS = 32
"""Of the integral in `longest_s`."""
_PLACES = tuple((step + 0.5) / _STEPS for step in range(_STEPS))


@dataclass(frozen=True, slots=True)
class PriceConfig:
    """Admission by a price per job.

    `pressure` X: so many jobs of pressure make even an answer by the own device not worth it (lower: shorter queues, less
    utility). `queue` is the weight of the real queue beside the virtual debt. `draw` peers are looked at for a prompt.
    An (M, k) is dropped where `caution` times its expected latency passes the deadline, `caution_alone` times for M = 0, after
    which there is only a refusal (docs/explanation/overload.md has what comes late then). A prompt that was refused and comes
    again finds `returning` times the room. `worths` is the utility table; it must hold (0, 0). A layer in mode auto goes on
    without answers whose worth is below `haste` points for each mean service that they are still expected to take (0: it
    waits for all; docs/explanation/faults.md has the figures).
    """

    enabled: bool = False
    pressure: float = 22.0
    queue: float = 0.5
    draw: int = 8
    caution: float = 2.2
    caution_alone: float = 1.8
    returning: float = 1.25
    haste: float = 0.0
    worths: tuple[Worth, ...] = PAPER

    def __post_init__(self) -> None:
        for layers, proposers, worth in self.worths:
            if layers < 0 or proposers < 0 or (not layers and proposers) or not 0.0 < worth < math.inf:
                raise ConfigError(f"worths: M = {layers}, k = {proposers} cannot be worth {worth}")
        if self.worth(0, 0) <= 0.0:
            raise ConfigError("worths must say what M = 0 is worth")
        positive = (self.pressure, self.draw, self.caution, self.caution_alone)
        floors = (self.queue >= 0.0, self.haste >= 0.0, self.returning >= 1.0)
        if not all(each > 0 for each in positive) or not all(floors):
            raise ConfigError(
                "price: pressure, draw, caution and caution_alone are more than 0, queue and haste 0 or more, returning 1 or more"
            )

    def factor(self, layers: int) -> float:
        """So many times the expected latency of so many layers must fit into a deadline."""
        return self.caution if layers else self.caution_alone

    def worth(self, layers: int, proposers: int) -> float:
        """Points of an (M, k): its row's, else those of the best row that asks for no more; 0 where there is none."""
        exact = [worth for m, k, worth in self.worths if (m, k) == (layers, proposers)]
        return max(
            exact or [worth for m, k, worth in self.worths if m <= layers and k <= proposers], default=0.0
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """What is known of a device: its virtual debt Z and queue Q with what it serves (jobs per slot), its mean service time
    (seconds), the load of layers after the first, the mean service time of each stage as `Pulse` has it, and its whole load."""

    debt: float
    queue: float
    service_s: float
    late: float = 0.0
    stages: tuple[float, ...] = ()
    load: float = 0.0

    def stage_s(self, stage: Stage) -> float:
        """α of a stage's jobs; where none was served the mean of all."""
        return stage_s(self.stages, stage) or self.service_s

    @property
    def wait_s(self) -> float:
        """[A] What a first-layer job waits where later layers go first: Qα/(1 − ρ_hi). Mean within −4…+11 % (ADMISSION.md)."""
        return self.queue * self.service_s / (1.0 - self.late_share)

    def filled(self, ratios: Sequence[float]) -> Offer:
        """With α of stages of which it has served none yet: so many times that of its first-layer jobs. 0: nobody knows."""
        first = self.stage_s(Stage.PROPOSE)
        known = self.stages or (0.0,) * len(TOLD)
        stages = tuple(each or first * r for each, r in zip(known, ratios, strict=True))
        return Offer(self.debt, self.queue, self.service_s, self.late, stages, self.load)

    @property
    def idle(self) -> Offer:
        """The same device if it had nothing to do."""
        return Offer(0.0, 0.0, self.service_s, stages=self.stages)

    @property
    def turn_s(self) -> float:
        """[A] What a later layer's job waits: ρα/(1 − ρ_hi), for one in service and for others of later layers.

        Source: Cobham, "Priority assignment in waiting line problems", 1954, with exponential service.
        """
        return min(1.0, max(self.load, self.late_share)) * self.service_s / (1.0 - self.late_share)

    @property
    def late_share(self) -> float:
        """ρ_hi, 0.9 at most: above it the formula means nothing."""
        return min(max(self.late, 0.0), 0.9)


@dataclass(frozen=True, slots=True)
class Bid:
    """One (M, k): what it is worth, what its jobs cost, when it would be done. Where it `votes`, no job aggregates. `judges` are jobs
    of the origin that pick out of the layers' answers, at most."""

    layers: int
    proposers: int
    worth: float
    own: float
    peers: tuple[float, ...]
    expected_s: float
    votes: bool = False
    judges: int = 0

    @property
    def own_jobs(self) -> int:
        """Jobs of the origin: one a layer, the aggregation, and the judges."""
        return (self.layers if self.votes and self.layers else self.layers + 1) + self.judges

    @property
    def price(self) -> float:
        """(M + 1 + judges) p_o + M Σ p_c, in points; M p_o where it votes."""
        return self.own_jobs * self.own + self.layers * sum(self.peers)

    @property
    def score(self) -> float:
        """What is left of its worth."""
        return self.worth - self.price


def price(config: PriceConfig, offer: Offer, room: float = 1.0) -> float:
    """p = u00/X · (Z + wQ): points that one job at a device costs. `room` times X may be waiting."""
    return config.worth(0, 0) / (config.pressure * room) * pressure(config, offer)


def pressure(config: PriceConfig, offer: Offer) -> float:
    """Z + wQ, jobs."""
    return offer.debt + config.queue * offer.queue


def bids(
    config: PriceConfig,
    plans: Iterable[tuple[int, int]],
    own: Offer,
    peers: Sequence[Offer],
    room: float = 1.0,
    *,
    waves: Callable[[float], Sequence[int]] | None = None,
    judges: int = 0,
) -> list[Bid]:
    """Each plan (M, k) with k of the peers, in their order; those that need more peers than there are are left out.

    With `waves`, which tells by the price how many are asked one after another, a vote is held: it is priced, and expected to take
    so long, as if all were asked.
    """
    mine, theirs = price(config, own, room), [price(config, peer, room) for peer in peers]
    found = [
        Bid(
            layers, proposers, config.worth(layers, proposers), mine, tuple(theirs[:proposers]),
            expected_s(layers, own, peers[:proposers], judges), waves is not None, judges,
        )
        for layers, proposers in plans
        if proposers <= len(peers)
    ]  # fmt: skip
    if waves is None:
        return found
    return [
        replace(bid, expected_s=vote_s(waves(bid.price), (own, *peers[: bid.proposers]))) for bid in found
    ]


def expected_s(layers: int, own: Offer, peers: Sequence[Offer], judges: int = 0) -> float:
    """[A] T̂ = max W + E max S₁ + (M − 1)(max W' + E max S₂) + W' + α₃; W + α₁ for M = 0, whose answer reads no others.

    Each of the `judges` adds W' + α at the origin.

    W is what a first layer's job waits, W' a later one's, S₁ and S₂ are the stages' exponential services; the origin
    aggregates, for no less time than it proposes: it reads more, and a mean of a few jobs may be far too short.
    """
    if not layers:
        return own.wait_s + own.stage_s(Stage.PROPOSE)
    asked = (own, *peers)
    first = max(offer.wait_s for offer in asked) + longest_s([o.stage_s(Stage.PROPOSE) for o in asked])
    again = max(offer.turn_s for offer in asked) + longest_s([o.stage_s(Stage.REFINE) for o in asked])
    aggregate = max(own.stage_s(Stage.AGGREGATE), own.stage_s(Stage.PROPOSE))
    judged = judges * (own.turn_s + own.stage_s(Stage.JUDGE))
    return first + (layers - 1) * again + judged + own.turn_s + aggregate


def vote_s(waves: Sequence[int], asked: Sequence[Offer]) -> float:
    """[A] T̂ = Σ (max W + E max S₁) over the waves of a vote, as if each were needed: jobs of a first layer all of them.

    Nobody aggregates, but where fewer than half of the answers can be read.
    """
    found, place = 0.0, 0
    for many in waves:
        some = asked[place : place + many]
        place += many
        if some:
            found += max(offer.wait_s for offer in some)
            found += longest_s([offer.stage_s(Stage.PROPOSE) for offer in some])
    return found


def longest_s(means: Sequence[float]) -> float:
    """[E] The mean of the longest of independent exponential times: ∫ 1 − Π(1 − exp(−t/a)) dt, within 0.1 % for up to ten."""
    return _longest_s(tuple(means))


@lru_cache(maxsize=1 << 10)
def _longest_s(means: tuple[float, ...]) -> float:
    """Kept: the plans of a prompt ask for the same devices' times again and again, as they are and as if they were idle."""
    most = max(means)
    if not most:
        return 0.0
    # v = exp(−t/most): for equal means what is left is a polynomial in v.
    powers = [most / each for each in means if each]
    left = 0.0
    for v in _PLACES:
        over = 1.0
        for power in powers:
            over *= 1.0 - v**power
        left += (1.0 - over) / v
    return most * left / _STEPS


def best(config: PriceConfig, offered: Sequence[Bid], deadline_s: float | None) -> Bid | None:
    """The bid with the most left of its worth, among equals the one with fewer jobs; None where none has anything left,
    or none would keep the deadline."""
    left = [bid for bid in offered if bid.score > 0.0 and keeps(config, bid, deadline_s)]
    return max(left, key=lambda bid: (bid.score, -bid.layers, -bid.proposers), default=None)


def keeps(config: PriceConfig, bid: Bid, deadline_s: float | None) -> bool:
    """Whether a bid is expected to keep a deadline."""
    return deadline_s is None or config.factor(bid.layers) * bid.expected_s <= deadline_s


def enough(config: PriceConfig, layers: int, there: int, left: Sequence[float]) -> bool:
    """Whether a layer with `there` answers is not worth the wait for the others, who need `left` mean services each.

    It is worth it for the first so many of them if what they add is at least `haste` points a mean service.
    """
    has = config.worth(layers, there - 1)
    return all(
        config.worth(layers, there - 1 + more) - has < config.haste * wait
        for more, wait in enumerate(sorted(left), start=1)
    )
