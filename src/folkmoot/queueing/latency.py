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
from typing import Any

import numpy as np

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, number, stable, whole
from folkmoot.queueing.stability import Graph, loads

MEAN_FIELD_ERROR = {True: (-0.13, 0.15), False: (-0.34, 0.42)}
"""Mean field over simulation, less 1: the least and the largest seen, for exponential service (True) and for fixed,
lognormal (cv 0.5) and traced service (False), at loads of 0.3 to 0.9, M = 1…3, k = 1…7, n = 2…100, on the complete graph,
rings, stars, random and scale-free graphs, and with aggregations skipped. docs/log.md has the figures and their command."""
POINTS = 1 << 17
QUANTILES = 1 << 16


def harmonic(count: int) -> float:
    """[E] H_m = 1 + 1/2 + … + 1/m, the mean of the largest of m unit exponentials. Source: Rényi's representation."""
    return math.fsum(1.0 / place for place in range(1, whole("count", count) + 1))


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (s) and second moment (s²) of a service law."""

    mean: float
    square: float

    @classmethod
    def of(cls, law: Law, device: int = 0) -> Moments:
        """Those of a law at a device (a trace has a column for each). [E]"""
        return _moments(law, device)


@lru_cache(maxsize=64)
def _moments(law: Law, device: int) -> Moments:
    """Kept, since every replication asks for them and a trace is long."""
    match law:
        case Exponential(mean):
            return Moments(mean, 2.0 * mean**2)
        case Fixed(mean):
            return Moments(mean, mean**2)
        case Lognormal(mean, cv):
            return Moments(mean, mean**2 * (1.0 + cv**2))
        case Weibull(mean, shape):
            return Moments(mean, mean**2 * math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2)
        case Trace(_, rows):
            column = [row[device % len(row)] for row in rows]
            return Moments(
                math.fsum(column) / len(column), math.fsum(value**2 for value in column) / len(column)
            )


def mg1_wait(rate_hz: float, service: Moments) -> float:
    """[E] Mean wait in the queue of M/G/1: λE[B²] / (2(1 − ρ)). Source: Pollaczek and Khinchine."""
    rho = stable(number("rate_hz", rate_hz) * service.mean)
    return rate_hz * service.square / (2.0 * (1.0 - rho))


def alone(rate_hz: float, service: Moments) -> float:
    """[E] E[T] = α + λE[B²]/(2(1 − ρ)), seconds: M = 0, where nobody asks anybody. Source: Pollaczek and Khinchine."""
    return service.mean + mg1_wait(rate_hz, service)


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
    last layer (M >= 1). Every load < 1. Source: Pollaczek–Khinchine for F; the rest is a heuristic.
    Its error is seen in `MEAN_FIELD_ERROR`.
    """
    count = len(rates_hz)
    if len(laws) not in (1, count):
        raise TheoryError(f"{len(laws)} service laws for {count} devices; give 1, or one a device")
    each = [laws[device % len(laws)] for device in range(count)]
    moments = [Moments.of(law, device) for device, law in enumerate(each)]
    means = [one.mean for one in moments]
    rho = loads(rates_hz, means, layers, proposers, graph=graph, skip_aggregation=skip_aggregation)
    for value in rho:
        stable(float(value))
    kinds: dict[tuple[Law, int, float], int] = {}
    kind, first = [], list[int]()
    for device, law in enumerate(each):
        column = device % len(law.columns) if isinstance(law, Trace) else 0
        place = kinds.setdefault((law, column, float(rho[device])), len(kinds))
        kind.append(place)
        if place == len(first):
            first.append(device)
    width = max(_width(moments[device], float(rho[device])) for device in first)
    found = [
        sojourn(at / moments[device].mean, law, column, width=width, points=points)
        for device, (law, column, at) in zip(first, kinds, strict=True)
    ]
    grids, step = [grid for grid, _ in found], width / points
    weights = np.asarray(rates_hz, dtype=float) / float(np.sum(rates_hz))
    everyone = Counter(kind)
    layer = aggregation = 0.0
    alike: dict[tuple[int, tuple[tuple[int, int], ...]], float] = {}
    sojourns = [_mean(grid, step) for grid in grids]
    for origin in range(count):
        aggregation += float(weights[origin]) * sojourns[kind[origin]]
        if not layers:
            continue
        peers = (
            everyone - Counter([kind[origin]])
            if graph is None
            else Counter(kind[peer] for peer in graph[origin])
        )
        same = kind[origin], tuple(sorted(peers.items()))
        if same not in alike:
            alike[same] = _mean(grids[kind[origin]] * _subset_product(grids, peers, proposers), step)
        layer += float(weights[origin]) * alike[same]
    error = max(off for _, off in found)
    return Latency(layers * layer + (1.0 - skip_aggregation) * aggregation, layer, aggregation, error)


def sojourn(
    rate_hz: float, law: Law, device: int = 0, *, width: float | None = None, points: int = POINTS
) -> tuple[Floats, float]:
    """[E] P(T <= x) of M/G/1, FCFS, at x = 0, h, …, (points − 1)h with h = width/points, and its relative error.

    The Pollaczek–Khinchine transform W = (1 − ρ)/(1 − ρR) (R: what is left of a service met at a random time)
    is inverted by the fast Fourier transform on the grid, and the service added. The error is that of the mean
    wait against λE[B²]/(2(1 − ρ)). `rate_hz` is the rate of jobs at the device. Source: Pollaczek and Khinchine.
    """
    moments = Moments.of(law, device)
    rho = stable(number("rate_hz", rate_hz) * moments.mean)
    width = _width(moments, rho) if width is None else number("width", width, above=True)
    step = width / points
    values = _values(law, device)
    values = np.minimum(values * (moments.mean / max(values.mean(), 1e-300)), width - 2 * step)
    service: Any = np.bincount((values / step).astype(np.int64), 1.0 - (values / step) % 1.0, points + 1)
    service += np.bincount((values / step).astype(np.int64) + 1, (values / step) % 1.0, points + 1)[
        : points + 1
    ]
    service = service[:points] / len(values)
    edges = np.arange(points + 1) * step
    ordered = np.sort(values)
    below = np.searchsorted(ordered, edges, side="right")
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    left = (sums[below] + edges * (len(values) - below)) / sums[-1]  # E[min(B, x)]/E[B]
    rest = np.zeros(points)
    rest += np.diff(left) / 2.0
    rest[1:] += np.diff(left)[:-1] / 2.0
    wait = np.fft.irfft((1.0 - rho) / (1.0 - rho * np.fft.rfft(rest)), points)
    total = np.fft.irfft(np.fft.rfft(wait) * np.fft.rfft(service), points)
    expected = mg1_wait(rate_hz, moments)
    got = float(wait @ (np.arange(points) * step))
    error = abs(got - expected) / (expected + moments.mean) if moments.mean else 0.0
    return np.clip(np.cumsum(total), 0.0, 1.0), error


def _alike(rate_hz: float, service_s: float, layers: int, proposers: int) -> float:
    jobs = (whole("proposers", proposers) + 1) * whole("layers", layers) + 1
    return stable(number("rate_hz", rate_hz) * number("service_s", service_s, above=True) * jobs)


def _values(law: Law, device: int) -> Floats:
    """A law as `QUANTILES` equally likely values, seconds."""
    return np.array([law.quantile((place + 0.5) / QUANTILES, device) for place in range(QUANTILES)])


def _width(moments: Moments, rho: float) -> float:
    """A time that hardly any sojourn exceeds: the tail falls by e in about the mean of a busy wait."""
    spread = moments.square / moments.mean
    return 45.0 * (moments.mean + spread) / (1.0 - rho)


def _mean(distribution: Floats, step: float) -> float:
    """∫(1 − F): a lattice law with F at 0, h, 2h, …"""
    return float((1.0 - distribution).sum() * step)


def _subset_product(grids: Sequence[Floats], peers: Counter[int], proposers: int) -> Floats:
    """Mean over all sets of min(k, d) of d peers of the product of their distributions: e_k(F_j)/C(d, k).

    `peers` counts them by kind. The sets of a kind's m devices of which i are drawn are C(m, i) equal ones.
    """
    size = min(proposers, peers.total())
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
