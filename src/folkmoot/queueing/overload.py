"""What first come first served does beyond its limit: the fluid root, the drift, the goodput.

Beyond the limit every queue holds early-stage jobs above all, each prompt waits at every stage, and ever
fewer prompts get to their end: congestion collapse. All three are [C], derived from a fluid model and
confirmed by simulation, and [E] for M = 0, where each device is a queue of its own; near the limit and at small n a
finite-size bias of some per cent is real. `fluid_root`,
`drift` and `goodput` are for devices that are alike, k <= n − 1, and stages that differ; `fluid` is for devices that differ, on any
graph. Services may follow any law. Source: derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, length, measurable, number, numbers, whole
from folkmoot.queueing.stability import Graph, loads, stage_flow, stage_services

FLUID_ERROR = (-0.02, 0.03)
"""Growth and goodput over those of simulations, less 1, least and largest: M = 1…3, exponential and fixed service, devices,
rates and graphs that are alike and that differ (docs/log.md)."""
FLUID_LOADS, FLUID_DEVICES = (1.2, 3.0), (4, 20)
"""The loads of the busiest device and the numbers of devices that it was seen at."""
FLUID_PROPOSERS, FLUID_SKIPPED = 7, 0.5
"""The most peers and the largest share of skipped aggregations that it was seen at."""
ROUNDS, CLOSE = 2_000, 1e-12
"""Most rounds to the fixed point (259 was the most of 4,000 random moots), and the relative step at which it is there."""


def fluid_root(
    rate_hz: float,
    stage_services_s: Sequence[float],
    aggregate_s: float,
    proposers: int,
    stops: Sequence[float] = (),
) -> float:
    """[C] x in (0, 1] with λ[(k+1) Σ_m S_m α_m x^m + α_agg Σ_m p_m x^(m+1)] = 1; 1 where the load is at most 1.

    x is the share of a stage's jobs that is ever served: jobs of stage m arrive at x^(m−1) times the rate
    of stage 1. `stage_services_s` has M values in seconds, none for M = 0. `stops` are the chances p_m to stop after layer
    m, independent of the queues, none for a stop after layer M; S_m is the chance to get to layer m at all.
    Source: derived here (see the top of this file).
    """
    number("rate_hz", rate_hz, above=True)
    services = stage_services(stage_services_s)
    number("aggregate_s", aggregate_s, above=not services)
    fan = whole("proposers", proposers) + 1
    reached, ends = stage_flow(len(services), stops)

    def excess(x: float) -> float:
        served = fan * sum(
            reached[stage] * service * x ** (stage + 1) for stage, service in enumerate(services)
        )
        last = sum(chance * x ** (stage + 1) for stage, chance in enumerate(ends))
        return float(rate_hz) * (float(served) + aggregate_s * last) - 1.0

    with np.errstate(over="ignore"):
        most = measurable("the load", excess(1.0))
    if most <= 0.0:
        return 1.0
    low = 1.0 / (1.0 + most)  # where no share is lost but once
    if not services or excess(low) >= 0.0:
        return low
    return math.exp(float(brentq(lambda y: excess(math.exp(y)), math.log(low), 0.0, xtol=1e-14)))


def drift(
    rate_hz: float,
    stage_services_s: Sequence[float],
    aggregate_s: float,
    proposers: int,
    stops: Sequence[float] = (),
) -> float:
    """[C] Growth of the number waiting per device, jobs per second: λ[(k+1) Σ_m S_m x^(m−1) + Σ_m p_m x^m](1−x).

    With equal stages and no early stop it is (1/x − 1)/α; the naive (ρ − 1)/α is right for M = 0 only. 0 where the load is
    at most 1. Arguments as in `fluid_root`. Source: jobs that come less those that are served, x of each stage.
    """
    x = fluid_root(rate_hz, stage_services_s, aggregate_s, proposers, stops)
    reached, ends = stage_flow(length("stage_services_s", stage_services_s), stops)
    arriving = (proposers + 1) * sum(chance * x**stage for stage, chance in enumerate(reached))
    arriving += sum(chance * x**stage for stage, chance in enumerate(ends))
    return rate_hz * arriving * (1.0 - x)


def goodput(
    rate_hz: float,
    stage_services_s: Sequence[float],
    aggregate_s: float,
    proposers: int,
    stops: Sequence[float] = (),
) -> float:
    """[C] Prompts that reach their end, per second and device: λ Σ_m p_m x^(m+1).

    Arguments as in `fluid_root`. Source: x of each stage that a prompt goes through is served.
    """
    x = fluid_root(rate_hz, stage_services_s, aggregate_s, proposers, stops)
    _, ends = stage_flow(len(stage_services_s), stops)
    return rate_hz * sum(chance * x ** (stage + 1) for stage, chance in enumerate(ends))


@dataclass(frozen=True, slots=True)
class Fluid:
    """What each device does beyond the limit, arrays of shape (n,): the share of its jobs that is ever served, by how many
    jobs per second its number waiting grows, and how many of its own prompts per second get to their end.
    """

    served: Floats
    drift_hz: Floats
    goodput_hz: Floats


def fluid(
    rates_hz: Sequence[float] | Floats,
    services_s: Sequence[float] | Floats | float,
    layers: int,
    proposers: int,
    *,
    graph: Graph | None = None,
    skip_aggregation: float = 0.0,
) -> Fluid:
    """[C] First come first served where devices, rates or whom they may ask differ, below and beyond the limit.

    Device i serves the share x_i = min(1, 1/(α_i A_i)) of the jobs that arrive there, so that one that comes at t ends at
    t/x_i, and a layer with the slowest of its devices: of the prompts of origin j the share y_j = E[min(x_j, x of its
    k peers)] gets through each layer, and A_i = Σ_m (λ_i y_i^m + Σ_{j asks i} λ_j y_j^m min(k, d_j)/d_j) + (1 − p) λ_i y_i^M
    over m = 0 … M − 1. The number waiting grows by A_i − x_i A_i, and λ_i y_i^M (p + (1 − p) x_i) prompts end. The fixed
    point is found by damped iteration; that there is one only is not proven. Arguments as in `loads`. With devices that
    are alike it is `fluid_root`. Error: `FLUID_ERROR`. Source: derived here.
    """
    count = length("rates_hz", rates_hz)
    rates, services = numbers("rates_hz", rates_hz, count), numbers("services_s", services_s, count)
    loads(
        rates, services, layers, proposers, graph=graph, skip_aggregation=skip_aggregation
    )  # checks the rest
    least, asked = _complete(count, proposers) if graph is None else _along(graph, proposers)
    served = np.ones(count)
    for _ in range(ROUNDS):
        through = least(served) if layers else served
        last = rates * through**layers
        arriving = (1.0 - skip_aggregation) * last
        for layer in range(layers):
            begun = rates * through**layer
            arriving = arriving + begun + asked(begun)
        busy = services * arriving
        step = (1.0 / np.maximum(busy, 1.0) / served) ** (1.0 / (layers + 1))
        if np.abs(step - 1.0).max() < CLOSE:
            grows = np.divide(busy - 1.0, services, out=np.zeros(count), where=busy > 1.0)
            return Fluid(served, grows, last * (skip_aggregation + (1.0 - skip_aggregation) * served))
        served = served * step
    raise TheoryError(f"the fluid's fixed point was not found in {ROUNDS} rounds")


Among = tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]
"""Of a value a device, the mean of the least among an origin and its peers; and of rates of prompts those of jobs."""


def _complete(count: int, proposers: int) -> Among:
    """All may ask all others."""
    chances = np.append(
        _chances(count - 1, proposers), 0.0
    )  # the peers of an origin stand in the order of all
    tail = np.cumsum(chances[::-1])[::-1]

    def least(values: Floats) -> Floats:
        if not proposers or np.all(values == values[0]):
            return values
        order = np.argsort(values)
        ordered = values[order]
        below = np.concatenate([[0.0], np.cumsum(chances[:-1] * ordered[:-1])])
        found = np.empty(count)
        found[order] = below + ordered * tail
        return found

    def asked(rates: Floats) -> Floats:
        share: Floats = (rates.sum() - rates) * (proposers / max(1, count - 1))
        return share

    return least, asked


def _along(graph: Graph, proposers: int) -> Among:
    """Each may ask those that the graph names."""
    degrees = np.array([len(peers) for peers in graph])
    origin = np.repeat(np.arange(len(graph)), degrees)
    peer = np.array([each for peers in graph for each in peers], np.int64)
    chances = np.concatenate([_chances(int(degree), proposers) for degree in degrees])
    shares = np.minimum(proposers, degrees) / np.maximum(1, degrees)

    def least(values: Floats) -> Floats:
        if not proposers or np.all(values == values[0]):
            return values
        seen = values[peer]
        seen = np.minimum(
            seen[np.lexsort((seen, origin))], values[origin]
        )  # those of an origin stay together
        return np.bincount(origin, chances * seen, minlength=len(graph)).astype(float)

    def asked(rates: Floats) -> Floats:
        return np.bincount(peer, (rates * shares)[origin], minlength=len(graph)).astype(float)

    return least, asked


def _chances(peers: int, proposers: int) -> Floats:
    """Of the r-th least of d values to be the least among k drawn: C(d − 1 − r, k − 1)/C(d, k), all d of them for k > d."""
    k = min(peers, proposers)
    if not k:
        return np.zeros(peers)
    place = np.arange(peers - 1)
    ratio = np.maximum(0.0, peers - k - place) / np.maximum(1.0, peers - 1.0 - place)
    return k / peers * np.concatenate([[1.0], np.cumprod(ratio)])
