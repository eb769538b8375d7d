"""How long a prompt takes below the limit: exact where it can be, by mean field elsewhere.

Units: seconds, 1/s. M is `layers`, k is `proposers`. In the mean field every device is an M/G/1 queue at its
load ρ_i, a layer is the largest of k + 1 independent sojourns, and the aggregation is one more. In truth a layer's
jobs arrive together and its stages follow each other, so that there is an error: `MEAN_FIELD_ERROR`. It grows with the
load, has both signs (too low for many devices, too high where k = n − 1), and does not vanish as n grows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, ndtr

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, length, number, stable, whole
from folkmoot.queueing.stability import Graph, loads

MEAN_FIELD_ERROR = {True: (-0.14, 0.16), False: (-0.35, 0.42)}
"""Mean field over simulation, less 1: the least and the largest seen, for exponential service (True) and for fixed,
lognormal (cv 0.5) and traced service (False), at loads of 0.3 to 0.9, M = 1…3, k = 1…7, n = 2…100, on the complete graph;
to n = 20 on rings, stars, random graphs and trees with k = 1…3, and for exponential service with aggregations skipped. What lies
elsewhere `theory.known_error` says. bench/approximations.py has the figures, docs/log.md what came out."""
POINTS = 1 << 17
UNSEEN = 600.0
"""The logarithm of chances that no float tells from 0 and 1."""
MOST_POINTS = 1 << 26
"""Half a gigabyte for each grid."""
LEAST = 1 << 13
"""Points of a grid: so many, and with many devices that differ not fewer than these."""
KINDS = 1024
"""Most devices that differ of which the mean field keeps grids."""
WORK = 2_000_000_000
"""Most products of the mean field's grids, some seconds."""


def harmonic(count: int) -> float:
    """[E] H_m = 1 + 1/2 + … + 1/m, the mean of the largest of m unit exponentials. Source: Rényi's representation."""
    return math.fsum(1.0 / place for place in range(1, whole("count", count) + 1))


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (s) and second moment (s²) of a service law."""

    mean: float
    square: float

    def __post_init__(self) -> None:
        number("mean", self.mean)
        number("square", self.square, least=self.mean * self.mean * (1.0 - 1e-9))

    @classmethod
    def of(cls, law: Law, device: int = 0) -> Moments:
        """Those of a law at a device (a trace has a column for each). [E] Raises `TheoryError` where they are no numbers."""
        try:
            return _moments(law, device % len(law.columns) if isinstance(law, Trace) and law.columns else 0)
        except (OverflowError, ValueError, ZeroDivisionError, TheoryError) as error:
            if isinstance(law, Trace):
                raise TheoryError(f"the trace {'+'.join(law.columns)}: {error}") from None
            raise TheoryError(
                f"{law} has no mean and second moment that a number holds; take another law"
            ) from None


@lru_cache(maxsize=64)
def _moments(law: Law, column: int) -> Moments:
    """Kept, since every replication asks for them and a trace is long."""
    match law:
        case Exponential(mean):
            return Moments(mean, 2.0 * mean**2)
        case Fixed(mean):
            return Moments(mean, mean**2)
        case Lognormal(mean, cv):
            return Moments(mean, mean**2 * (1.0 + number("cv", cv) ** 2))
        case Weibull(mean, shape):
            number("shape", shape, above=True)
            return Moments(mean, mean**2 * math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2)
        case Trace(columns, rows):
            if not rows or not columns or any(len(row) != len(columns) for row in rows):
                raise TheoryError(
                    f"{len(rows)} rows, {len(columns)} columns; one of each is needed at least, and a time in every place"
                )
            times = [number("a time of the trace", row[column]) for row in rows]
            return Moments(math.fsum(times) / len(times), math.fsum(value**2 for value in times) / len(times))
        case _:
            raise TheoryError(f"{law!r} is no service law")


def mg1_wait(rate_hz: float, service: Moments) -> float:
    """[E] Mean wait in the queue of M/G/1: λE[B²] / (2(1 − ρ)). Source: Pollaczek and Khinchine."""
    rho = stable(number("rate_hz", rate_hz) * service.mean)
    return rate_hz * service.square / (2.0 * (1.0 - rho))


def alone(rate_hz: float, service: Moments) -> float:
    """[E] E[T] = α + λE[B²]/(2(1 − ρ)), seconds: M = 0, where nobody asks anybody. Source: Pollaczek and Khinchine."""
    return service.mean + mg1_wait(rate_hz, service)


def several_slots_alone(rate_hz: float, service_s: float, slots: int) -> float:
    """[E] E[T] = α + C α/(c − a) of M/M/c, seconds, with a = λα < c: M = 0, exponential service, c `slots` as fast as one each.

    C is the chance to wait, 1/(1 + (1 − a/c) c!/a^c Σ_{i<c} a^i/i!). Source: Erlang's second formula.
    """
    offered = number("rate_hz", rate_hz) * number("service_s", service_s, above=True)
    stable(offered / whole("slots", slots, least=1))
    lost = 1.0  # Erlang's first formula, server by server
    for server in range(1, slots + 1):
        lost = offered * lost / (server + offered * lost)
    waits = slots * lost / (slots - offered * (1.0 - lost))
    return service_s * (1.0 + waits / (slots - offered))


def refining_alone(rate_hz: float, service_s: float, layers: int, skip_aggregation: float = 0.0) -> float:
    """[E] E[T] = Sα/(1 − ρ) with S = M + 1 − p stages and ρ = λαS: k = 0 and exponential service, p the chance to skip the last.

    A feedback queue of product form: every stage waits as in M/M/1. p = 0 for M = 0. Source: Jackson; Kelly.
    """
    skipped = number("skip_aggregation", skip_aggregation, most=1.0 if whole("layers", layers) else 0.0)
    stages = layers + 1 - skipped
    rho = stable(number("rate_hz", rate_hz) * number("service_s", service_s, above=True) * stages)
    return stages * service_s / (1.0 - rho)


def layer_of_two(rate_hz: float, service_s: float) -> float:
    """[E] Mean time of the layer alone, two devices, k = 1, exponential: (12 − ρ)/8 · α/(1 − ρ) with ρ = 2λα.

    Without an aggregation (`skip_aggregation` 1) it is two queues fed by one fork. Source: Flatto and Hahn; Nelson
    and Tantawi.
    """
    rho = stable(2.0 * number("rate_hz", rate_hz) * number("service_s", service_s, above=True))
    return (12.0 - rho) / 8.0 * service_s / (1.0 - rho)


def join_buffer(rate_hz: float, service_s: float, layers: int, proposers: int) -> float:
    """[A] Answers that wait at a device for the rest of their layer: λM(k+1)(H_{k+1} − 1)α/(1 − ρ), exponential service.

    Devices alike, k <= n − 1. Source: Little's law on the mean field's layer. Error: −10 to +9 % where k < n − 1 and 0 to
    +35 % where k = n − 1, at loads of 0.3 to 0.9, M = 1…3, k = 1…7, n = 2…20 (docs/log.md).
    """
    rho = _alike(rate_hz, service_s, layers, proposers)
    fan = proposers + 1
    return rate_hz * layers * fan * (harmonic(fan) - 1.0) * service_s / (1.0 - rho)


def answer_age(rate_hz: float, service_s: float) -> float:
    """[E] Mean age of information of M/M/1, first come first served: (1/μ)(1 + 1/ρ + ρ²/(1 − ρ)).

    Source: Kaul, Yates and Gruteser. 0 < ρ < 1.
    """
    rho = stable(number("rate_hz", rate_hz, above=True) * number("service_s", service_s, above=True))
    return service_s * (1.0 + 1.0 / rho + rho**2 / (1.0 - rho))


def mean_field_exponential(rate_hz: float, service_s: float, layers: int, proposers: int) -> float:
    """[A] E[T] ≈ (M·H_{k+1} + 1) α/(1 − ρ), seconds: equal devices, exponential service, k <= n − 1.

    Source: sojourns of M/M/1 are exponential, and the largest of k + 1 of mean m has the mean m H_{k+1}; that they are
    independent is the heuristic. Error: `MEAN_FIELD_ERROR[True]`.
    """
    rho = _alike(rate_hz, service_s, layers, proposers)
    return (layers * harmonic(proposers + 1) + 1.0) * service_s / (1.0 - rho)


@dataclass(frozen=True, slots=True)
class Latency:
    """A mean-field latency, seconds. `grid_error` is that of the numbers (relative), not that of the mean field."""

    mean: float
    layer: float
    aggregation: float
    grid_error: float


def mean_field(
    rates_hz: Sequence[float] | Floats,
    laws: Sequence[Law],
    layers: int,
    proposers: int,
    *,
    graph: Graph | None = None,
    skip_aggregation: float = 0.0,
    points: int = POINTS,
) -> Latency:
    """[A] E[T] ≈ M ∫(1 − F_layer) + (1 − p) ∫(1 − F), the mean over all prompts, for any laws, one a device (or one for all).

    F is a device's sojourn by `sojourn`; F_layer of an origin i with k peers drawn uniformly from those that it may
    ask is F_i · e_k(F_j, i may ask j)/C(d_i, k), with e_k the elementary symmetric polynomial; an origin with d_i < k
    asks all d_i. Without a `graph` it may ask all others, and k <= n − 1. p is the chance that a prompt ends with its
    last layer (M >= 1). Every load < 1, and a prompt somewhere. A mean of one sojourn alone is `alone`'s, without a
    grid: so M = 0 is exact, and k = 0 with exponential service. Many devices that differ take fewer points, too many
    raise `TheoryError`. Source: Pollaczek–Khinchine for F; the rest is a heuristic. Its error is seen in
    `MEAN_FIELD_ERROR`.
    """
    count = whole("devices", len(rates_hz), least=1)
    place, kinds = each_law(laws, count)
    moments = [Moments.of(law, column) for law, column in kinds]
    means = np.array([one.mean for one in moments])[place]
    rho = loads(rates_hz, means, layers, proposers, graph=graph, skip_aggregation=skip_aggregation)
    stable(float(rho.max()))
    total = float(np.sum(rates_hz))
    if not total:
        raise TheoryError("rates_hz are all 0; a mean over prompts needs some")
    weights = np.asarray(rates_hz, dtype=float) / total
    # What sums in another order differs in its last digits only.
    _, first, kind = np.unique(
        np.stack([place, np.round(rho, 12)]), axis=1, return_index=True, return_inverse=True
    )
    kind = kind.reshape(count)
    queues = [
        _Queue(kinds[at][0], kinds[at][1], moments[at], float(rho[device]))
        for device, at in zip(first, place[first], strict=True)
    ]
    share = np.bincount(kind, weights)
    aggregation = float(sum(part * queue.mean for part, queue in zip(share, queues, strict=True)))
    rest = (1.0 - skip_aggregation) * aggregation
    if not layers or not proposers:
        layer = aggregation if layers else 0.0
        return Latency(layers * layer + rest, layer, aggregation, 0.0)
    if len(queues) > KINDS:
        raise _too_many(len(queues))
    origins = _origins(kind, weights, graph)
    points = _affordable(whole("points", points, least=2), len(queues), origins, proposers)
    width = max(queue.width for queue in queues)
    found = [queue.sojourn(width, points) for queue in queues]
    grids = [grid for grid, _ in found]
    layer = 0.0
    for (own, peers), part in origins.items():
        drawn = _subset_product(grids, dict(peers), proposers)
        layer += part * float((1.0 - grids[own] * drawn).sum() * width / points)
    return Latency(layers * layer + rest, layer, aggregation, max(off for _, off in found))


def sojourn(
    rate_hz: float, law: Law, device: int = 0, *, width: float | None = None, points: int = POINTS
) -> tuple[Floats, float]:
    """[E] P(T <= x) of M/G/1, FCFS, at x = 0, h, …, (points − 1)h with h = width/points, and its relative error.

    The Pollaczek–Khinchine transform W = (1 − ρ)/(1 − ρR) (R: what is left of a service met at a random time)
    is inverted by the fast Fourier transform on the grid, and the service added; both laws are put on the grid by
    E[min(B, x)], which has a closed form. Exact but for the grid and its end: the error is that of the grid's mean
    against `alone`; at one point half of what lies within a step counts too much. It falls with `points`, and is large where a tail reaches beyond `width`, which is chosen
    without one. `rate_hz` is the rate of jobs at the device. Source: Pollaczek and Khinchine.
    """
    moments = Moments.of(law, device)
    rho = stable(number("rate_hz", rate_hz) * moments.mean)
    column = device % len(law.columns) if isinstance(law, Trace) else 0
    queue = _Queue(law, column, moments, rho)
    return queue.sojourn(
        queue.width if width is None else number("width", width, above=True),
        whole("points", points, least=2, most=MOST_POINTS),
    )


@dataclass(frozen=True, slots=True)
class _Queue:
    """A device as the mean field has it: M/G/1 at a load."""

    law: Law
    column: int
    moments: Moments
    rho: float

    @property
    def mean(self) -> float:
        """Of its sojourns, seconds."""
        return alone(self.rho / self.moments.mean, self.moments) if self.moments.mean else 0.0

    @property
    def width(self) -> float:
        """A time that hardly any sojourn exceeds: the tail falls by e in about the mean of a busy wait."""
        if not self.moments.mean:
            return 1e-300
        return 45.0 * (self.moments.mean + self.moments.square / self.moments.mean) / (1.0 - self.rho)

    def sojourn(self, width: float, points: int) -> tuple[Floats, float]:
        """P(T <= x) on a grid, and the relative error of its mean."""
        if not self.moments.mean:
            return np.ones(points), 0.0
        step = width / points
        least = _least(self.law, self.column, np.arange(points + 1, dtype=np.float64) * step)
        # Each service is shared between the two points beside it, so that its mean stays.
        service = np.empty(points)
        service[0] = 1.0 - least[1] / step
        service[1:] = (2.0 * least[1:-1] - least[:-2] - least[2:]) / step
        met = np.diff(least / self.moments.mean) / 2.0
        rest = met.copy()
        rest[1:] += met[:-1]
        wait = (1.0 - self.rho) / (1.0 - self.rho * np.fft.rfft(rest))
        total = np.fft.irfft(wait * np.fft.rfft(np.maximum(service, 0.0)), points)
        grid = np.clip(np.cumsum(total), 0.0, 1.0)
        return grid, abs(float((1.0 - grid).sum() * step) / self.mean - 1.0)


def each_law(laws: Sequence[Law], count: int) -> tuple[npt.NDArray[np.int64], list[tuple[Law, int]]]:
    """For each device the place of its law among those that differ, and these, with their column. Raises `TheoryError`."""
    if length("laws", laws) not in (1, count):
        raise TheoryError(f"{len(laws)} service laws for {count} devices; give 1, or one a device")
    known: dict[tuple[Law, int], int] = {}
    if len(laws) == 1 and not isinstance(laws[0], Trace):
        return np.zeros(count, np.int64), [(laws[0], 0)]
    if len(laws) == 1 and isinstance(laws[0], Trace):
        columns = max(1, min(count, len(laws[0].columns)))
        return np.arange(count) % columns, [(laws[0], column) for column in range(columns)]
    places = [
        known.setdefault(
            (law, device % max(1, len(law.columns)) if isinstance(law, Trace) else 0), len(known)
        )
        for device, law in enumerate(laws)
    ]
    return np.array(places), list(known)


_Peers: TypeAlias = tuple[tuple[int, int], ...]
"""How many of each kind of device may be asked."""


def _origins(
    kind: npt.NDArray[np.int64], weights: Floats, graph: Graph | None
) -> dict[tuple[int, _Peers], float]:
    """The shares of prompts by their origin's kind and by whom it may ask."""
    found: dict[tuple[int, _Peers], float] = {}
    if graph is None:
        everyone = np.bincount(kind)
        for own, share in enumerate(np.bincount(kind, weights)):
            others = ((each, int(many) - (each == own)) for each, many in enumerate(everyone))
            found[own, tuple((each, many) for each, many in others if many)] = float(share)
        return found
    for own, peers, share in zip(kind, graph, weights, strict=True):
        asked = int(own), tuple(sorted(Counter(int(kind[peer]) for peer in peers).items()))
        found[asked] = found.get(asked, 0.0) + float(share)
    return found


def _affordable(points: int, kinds: int, origins: dict[tuple[int, _Peers], float], proposers: int) -> int:
    """So many points of a grid, or fewer, that the work is bounded. Raises `TheoryError` where `LEAST` are too many."""
    products = sum(min(many, proposers) * (proposers + 1) + 1 for _, peers in origins for _, many in peers)
    work = 20 * kinds + 2 * products
    while points > LEAST and (work * points > WORK or kinds * points > KINDS * LEAST):
        points //= 2
    if work * points > WORK:
        raise _too_many(max(kinds, len(origins)))
    return points


def _too_many(kinds: int) -> TheoryError:
    return TheoryError(
        f"{kinds} kinds of devices differ in load, law or whom they may ask, too many for the mean field: "
        "give fewer different rates or laws, or a lower k"
    )


def _alike(rate_hz: float, service_s: float, layers: int, proposers: int) -> float:
    jobs = (whole("proposers", proposers) + 1) * whole("layers", layers) + 1
    return stable(number("rate_hz", rate_hz) * number("service_s", service_s, above=True) * jobs)


def _least(law: Law, column: int, at: Floats) -> Floats:
    """E[min(B, x)] of a service B, seconds."""
    match law:
        case Exponential(mean):
            return np.asarray(-mean * np.expm1(-at / mean))
        case Lognormal(mean, cv) if cv > 0.0:
            spread = math.sqrt(math.log1p(cv**2))
            with np.errstate(divide="ignore"):
                score = (np.log(at / mean) + spread**2 / 2) / spread
            return np.asarray(mean * ndtr(score - spread) + at * ndtr(-score))
        case Fixed(mean) | Lognormal(mean):
            return np.minimum(at, mean)
        case Weibull(mean, shape):
            with np.errstate(divide="ignore"):
                power = shape * np.log(at / mean * math.gamma(1 + 1 / shape))
            within = mean * gammainc(1 / shape, np.exp(np.clip(power, -UNSEEN, UNSEEN)))
            return np.where(power < -UNSEEN, at, within)  # below that no service is as short
        case Trace(_, rows):
            ordered = np.sort([row[column] for row in rows])
            below = np.searchsorted(ordered, at, side="right")
            sums = np.concatenate([[0.0], np.cumsum(ordered)])
            return np.asarray((sums[below] + at * (len(rows) - below)) / len(rows))


def _subset_product(grids: Sequence[Floats], peers: dict[int, int], proposers: int) -> Floats:
    """Mean over all sets of min(k, d) of d peers of the product of their distributions: e_k(F_j)/C(d, k).

    `peers` counts them by kind. The sets of a kind's m devices of which i are drawn are C(m, i) equal ones.
    """
    size = min(proposers, sum(peers.values()))
    sums = [np.ones_like(grids[0])]
    drawn_of = 0  # devices that the sums are over, so that each stays a mean and no count overflows
    for place, many in peers.items():
        powers = [np.ones_like(grids[0])]
        for _ in range(min(many, size)):
            powers.append(powers[-1] * grids[place])
        more = []
        for drawn in range(min(size, drawn_of + many) + 1):
            total = math.comb(drawn_of + many, drawn)
            mean = np.zeros_like(grids[0])
            for own in range(max(0, drawn - drawn_of), min(drawn, many) + 1):
                share = math.comb(many, own) * math.comb(drawn_of, drawn - own) / total
                mean += share * powers[own] * sums[drawn - own]
            more.append(mean)
        sums, drawn_of = more, drawn_of + many
    return sums[size]
