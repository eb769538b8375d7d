"""All that the closed forms say of a question, put together once: `folkmoot theory`, `plan` and the rows of results.

Steady state, first come first served, peers drawn uniformly; of the best of d what is known. Each figure has its tag, and by how much it was seen to be off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace
from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, numbers
from folkmoot.queueing.choice import best_limit_closed
from folkmoot.queueing.latency import (
    MEAN_FIELD_ERROR,
    POINTS,
    Moments,
    each_law,
    join_buffer,
    layer_of_two,
    mean_field,
    mg1_wait,
)
from folkmoot.queueing.moot import Question, any_peers, mean_service, rho, rho_most, service_means, weighed
from folkmoot.queueing.overload import (
    FLUID_DEVICES,
    FLUID_ERROR,
    FLUID_LOADS,
    FLUID_PROPOSERS,
    FLUID_SKIPPED,
    drift,
    fluid,
    fluid_root,
    goodput,
)

JOIN_BUFFER_ERROR = {True: (0.0, 0.35), False: (-0.10, 0.09)}
"""The join buffer's approximation over simulation, less 1, the least and the largest seen: where k = n − 1 (True), and
elsewhere; exponential service, equal devices, n <= 20, within `SEEN_LOAD`, `SEEN_LAYERS` and `SEEN_PROPOSERS` (docs/log.md)."""
WAITING_ERROR = {True: (-0.16, 0.05), False: (-0.38, 0.01)}
"""Jobs waiting at M/G/1 over those of simulations, less 1, least and largest: exponential service (True), and fixed or
lognormal (cv 0.5); equal devices on the complete graph, otherwise as `MEAN_FIELD_ERROR` (docs/log.md)."""
SEEN_LOAD, SEEN_LAYERS, SEEN_PROPOSERS, SEEN_DEVICES = 0.9, 3, 7, 100
"""How far the approximations were compared with simulations: beyond these their error is not known here."""
SEEN_PEERS, SEEN_AROUND = 3, 20
"""The same of k and n on graphs, and of n where aggregations are skipped."""
SEEN_CV = 0.5
"""The lognormal service that they were compared with has this coefficient of variation."""
SEEN_TRACE_CV, SEEN_TRACE_RATIO = 1.02, 1.4
"""The trace of answers' lengths that they were compared with: cv of a column at most, and of the columns' means their ratio."""

Error = tuple[float, float] | None
"""Theory over simulation, less 1: the least and the largest seen. (0, 0) is exact, None is not known here."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, its tag, the error of its approximation (`Error`), and the relative one of its numbers, about."""

    value: float
    tag: str
    error: Error
    numerical: float = 0.0


@dataclass(frozen=True, slots=True)
class Overload:
    """Beyond the limit: the share of the busiest device's jobs that is served (of equal devices the fluid's root), jobs
    more waiting per device and mean service time (`drifts` at each), prompts per second and device that end.

    `tag`: [E] for M = 0, where each device is a queue of its own; else [C].
    """

    tag: str
    root: float
    drift: float
    goodput: float
    drifts: tuple[float, ...]
    error: Error


@dataclass(frozen=True, slots=True)
class Theory:
    """What holds for a question; None is what no closed form is known for. Times in seconds, rates in 1/s.

    `load` is that of the busiest device if any peers are asked; with the best of d (`best_of`) it is the same where devices
    are alike, and otherwise `limit_rate` is None: it lies between that of any peers and `choice_limit`. Whether it is `stable` is [E] where it is not, and [E] for M = 0 or k = 0; that
    a load below 1 suffices is else [C]. `layer` and `aggregation` are the parts of the `latency`, `no_latency` says why
    there is none. `waiting` and `joining` count jobs that wait at a device and answers in its join buffer, on average.
    """

    rho: Floats
    rho_most: Floats
    load: float | None
    load_most: float
    stable: bool | None
    stable_tag: str | None
    limit_rate: float | None
    latency: Figure | None
    layer: float | None
    aggregation: float | None
    no_latency: str
    waiting: Figure | None
    joining: Figure | None
    overload: Overload | None


def theory(question: Question, points: int = POINTS) -> Theory:
    """The closed forms that hold for a question. Raises `TheoryError` for what is no moot."""
    loads, most = rho(question), rho_most(question)
    busiest = None if math.isnan(loads.max()) else float(loads.max())
    stable = busiest < 1.0 if busiest is not None else True if most.max() < 1.0 else None
    fed_back = question.layers > 0 and question.proposers > 0
    rates = set(question.rates_hz)
    plain = _plain(question) and len(rates) == 1 and _alike(question.laws) and question.graph is None
    plain = plain and not question.skip_aggregation
    shifted = weighed(question)
    if shifted:
        stable = _stable_best(question, busiest)
    latency, layer, aggregation, why = _latency(question, most, points)
    return Theory(
        rho=loads,
        rho_most=most,
        load=busiest,
        load_most=float(most.max()),
        stable=stable,
        stable_tag=None if stable is None else "C" if stable and fed_back else "E",
        limit_rate=_mean_rate(question) / busiest if busiest and not shifted else None,
        latency=latency,
        layer=layer,
        aggregation=aggregation,
        no_latency=why,
        waiting=_waiting(question, loads) if latency else None,
        joining=_joining(question) if latency and plain and mean_service(question) > 0 else None,
        overload=_overload(question, plain) if _plain(question) and most.max() >= 1.0 else None,
    )


def choice_limit(question: Question) -> float | None:
    """[E] `best_limit_closed` for a question, None where it says nothing: prompts/s and device that no choice of peers exceeds."""
    means = service_means(question)
    whole = question.quorum in (0, question.proposers + 1)
    as_paper = not question.skip_aggregation and question.judge is None
    if question.graph is not None or not question.layers or not whole or not as_paper:
        return None
    if len(set(question.rates_hz)) > 1 or not means.min() > 0:
        return None
    return best_limit_closed(means, question.layers, question.proposers)


def known_error(question: Question) -> Error:
    """The error of the mean field that was seen for questions like this one (`MEAN_FIELD_ERROR`); None where none was asked.

    Seen: equal devices (or a trace of answers' lengths on them), loads to 0.9, M to 3, k from 1 to 7, n to 100;
    exponential, fixed and lognormal service with a cv to 0.5. On graphs k to 3 and n to 20, with skipped aggregations
    exponential service and n to 20: where all are asked at once and little else is done, jobs begin and end together, and
    the mean field was seen to be up to 143 % too high (fixed service, n = 8, k = 7, no aggregation).
    """
    around = question.graph is not None or question.skip_aggregation > 0.0
    peers = question.proposers
    if question.graph is not None:
        peers = min(peers, max(map(len, question.graph), default=0))
    if around and not (question.devices <= SEEN_AROUND and (question.graph is None or peers <= SEEN_PEERS)):
        return None
    if question.skip_aggregation and not (
        question.graph is None and all(isinstance(law, Exponential) for law in question.laws)
    ):
        return None
    if not (
        1 <= question.layers <= SEEN_LAYERS
        and 1 <= question.proposers <= SEEN_PROPOSERS
        and question.devices <= SEEN_DEVICES
        and rho_most(question).max() <= SEEN_LOAD + 1e-9
        and len(set(question.rates_hz)) == len(set(question.laws)) == 1
    ):
        return None
    match question.laws[0]:
        case Exponential():
            return MEAN_FIELD_ERROR[True]
        case Fixed():
            return MEAN_FIELD_ERROR[False]
        case Lognormal(_, cv) if cv <= SEEN_CV:
            return MEAN_FIELD_ERROR[False]
        case Trace(columns) as law:
            several = [Moments.of(law, column) for column in range(min(question.devices, len(columns)))]
            means = [one.mean for one in several]
            seen = all(one.square <= (1.0 + SEEN_TRACE_CV**2) * one.mean**2 for one in several)
            seen = seen and max(means) <= SEEN_TRACE_RATIO * min(means)
            return MEAN_FIELD_ERROR[False] if seen else None
        case _:
            return None


def _latency(
    question: Question, most: Floats, points: int
) -> tuple[Figure | None, float | None, float | None, str]:
    """The mean latency, of its layer, of its aggregation; or why there is none."""
    if question.judge is not None:
        return None, None, None, "no closed form is known with a judge"
    if not any_peers(question):
        return None, None, None, "no closed form is known for the best of d; `folkmoot simulate` measures it"
    if not _plain(question):
        return None, None, None, "it is known first come first served, for any peers and without cancelling"
    if most.max() >= 1.0:
        return None, None, None, "there is none beyond the limit"
    layers, proposers, skip = question.layers, question.proposers, question.skip_aggregation
    rates = numbers("rates_hz", question.rates_hz, question.devices)
    exponential = all(isinstance(law, Exponential) for law in question.laws)
    if (question.devices, layers, proposers, skip) == (2, 1, 1, 1.0) and exponential:
        means = service_means(question)
        if means[0] == means[1] and rates[0] == rates[1]:
            layer = layer_of_two(float(rates[0]), float(means[0]))
            return Figure(layer, "E", (0.0, 0.0)), layer, 0.0, ""
    try:
        field = mean_field(
            rates,
            question.laws,
            layers,
            proposers,
            graph=question.graph,
            skip_aggregation=skip,
            points=points,
        )
    except TheoryError as error:
        return None, None, None, str(error)
    exact = not layers or (not proposers and exponential) or not most.any()
    figure = Figure(
        field.mean, "E" if exact else "A", (0.0, 0.0) if exact else known_error(question), field.grid_error
    )
    return figure, field.layer, field.aggregation, ""


def _plain(question: Question) -> bool:
    """Whether it is first come first served, all jobs to their end, any peers, for ever."""
    return (
        question.discipline == "fcfs"
        and not (question.admit or question.prompts or question.judge)
        and any_peers(question)
        and (not question.layers or question.quorum in (0, question.proposers + 1))
    )


def _stable_best(question: Question, busiest: float | None) -> bool | None:
    """With the best of d among devices that differ, where `choice_limit` is known: [E] not beyond it; [C] where any peers
    would do."""
    limit = choice_limit(question)
    if limit is None or busiest is None:
        return None
    if _mean_rate(question) > limit:
        return False
    return True if busiest < 1.0 else None


def _alike(laws: tuple[Law, ...]) -> bool:
    return len(set(laws)) == 1 and not isinstance(laws[0], Trace)


def _mean_rate(question: Question) -> float:
    return math.fsum(question.rates_hz) / len(question.rates_hz)


def _overload(question: Question, alike: bool) -> Overload:
    alpha, n = mean_service(question), question.devices
    (low, high), (few, many) = FLUID_LOADS, FLUID_DEVICES
    seen = low - 1e-9 <= rho_most(question).max() <= high + 1e-9
    seen = seen and few <= n <= many and 1 <= question.layers <= SEEN_LAYERS
    seen = seen and all(isinstance(law, Exponential | Fixed) for law in question.laws)
    seen = seen and question.proposers <= FLUID_PROPOSERS and question.skip_aggregation <= FLUID_SKIPPED
    tag, error = ("C", FLUID_ERROR if seen else None) if question.layers else ("E", (0.0, 0.0))
    if alike:
        asked = question.rates_hz[0], [alpha] * question.layers, alpha, question.proposers
        each = drift(*asked) * alpha
        return Overload(tag, fluid_root(*asked), each, goodput(*asked), (each,) * n, error)
    found = fluid(
        numbers("rates_hz", question.rates_hz, n), service_means(question), question.layers, question.proposers,
        graph=question.graph, skip_aggregation=question.skip_aggregation,
    )  # fmt: skip
    drifts = found.drift_hz * alpha
    return Overload(
        tag,
        float(found.served.min()),
        float(drifts.mean()),
        float(found.goodput_hz.mean()),
        tuple(map(float, drifts)),
        error,
    )


def _joining(question: Question) -> Figure | None:
    rate, n, k = question.rates_hz[0], question.devices, question.proposers
    if not isinstance(question.laws[0], Exponential):
        return None
    value = join_buffer(rate, mean_service(question), question.layers, k)
    if not value:
        return Figure(value, "E", (0.0, 0.0))
    seen = known_error(question) is not None and n <= 20
    return Figure(value, "A", JOIN_BUFFER_ERROR[k == n - 1] if seen else None)


def _waiting(question: Question, load: Floats) -> Figure:
    """Mean number waiting per device, each an M/G/1 queue at its load: [E] for M = 0."""
    place, kinds = each_law(question.laws, question.devices)
    moments = [Moments.of(law, column) for law, column in kinds]
    pairs, many = np.unique(np.stack([place, load]), axis=1, return_counts=True)
    total = 0.0
    for (law, busy), count in zip(pairs.T, many, strict=True):
        service = moments[int(law)]
        if service.mean > 0:
            total += count * busy / service.mean * mg1_wait(busy / service.mean, service)
    if not question.layers:
        return Figure(float(total / question.devices), "E", (0.0, 0.0))
    seen = known_error(question) and question.graph is None and not question.skip_aggregation
    seen = seen and not isinstance(question.laws[0], Trace)
    error = WAITING_ERROR[isinstance(question.laws[0], Exponential)] if seen else None
    return Figure(float(total / question.devices), "A", error)
