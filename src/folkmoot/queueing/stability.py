"""When the queues of a moot stay bounded: the load of every device, and the rate at which it reaches 1.

Units: seconds and prompts per second of one device. M is `layers`, k is `proposers` (the peers asked in a
layer; the origin answers as well). Tags: [E] exact, [A] approximation, [C] confirmed by simulation. That a
load below 1 suffices for M, k >= 1 is [C]: the paper argues by rates; that it is necessary is [E].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

import numpy as np

from folkmoot.core.load import jobs_per_prompt, judged_stages, judges_at_most
from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, array, length, measurable, number, numbers, whole

Graph = Sequence[Sequence[int]]
"""For each device the devices that it may ask."""
WEIGHT_ERROR = 1e-6
"""So far off may a weight and the sum of a row be, as what solves linear programmes is not more exact."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge between layers, a job of the origin: `keep` answers go on (0: all), and `early_stop` lets it end the layers.

    `stop` is the chance that it does so, wherever it may.
    """

    keep: int = 0
    early_stop: bool = False
    stop: float = 0.0

    def stages(self, layers: int, proposers: int) -> tuple[float, float]:
        """[E] E[layers] and E[judges] of a prompt whose origin has so many peers to ask."""
        stops = (self.stop,) * (layers - 1) if self.stop else ()
        return judged_stages(layers, proposers, self.keep, self.early_stop, stops)

    def check(self, layers: int, proposers: int) -> None:
        """Raises `TheoryError` where it would have nothing to say, or says what cannot be."""
        whole("keep", self.keep)
        if self.keep > proposers + 1 and layers:
            raise TheoryError(f"keep is {self.keep}, but a layer has {proposers + 1} answers (k + 1)")
        if number("stop", self.stop, most=1.0) and not self.early_stop:
            raise TheoryError("a chance to stop belongs to early_stop: else the judge ends no layers")
        if not judges_at_most(layers, proposers, self.keep, self.early_stop):
            raise TheoryError(
                f"with M = {layers} and k = {proposers} a judge has nothing to say: it picks keep answers out of more than so many, "
                "or with early_stop skips a layer after the first"
            )


def load(rate_hz: float, service_s: float, layers: int, proposers: int) -> float:
    """[E] ρ = λαK with K = (k+1)M + 1, of every device when all are alike and k <= n − 1.

    Holds for any service law. Source: arXiv 2412.21200, Theorem 1.
    """
    number("rate_hz", rate_hz)
    return measurable(
        "the load", rate_hz * number("service_s", service_s, above=True) * _jobs(layers, proposers)
    )


def limit_rate(service_s: float, layers: int, proposers: int) -> float:
    """[E] λ* = 1/(αK), prompts per second and device. Source: Theorem 1."""
    return measurable(
        "the limit", 1.0 / (number("service_s", service_s, above=True) * _jobs(layers, proposers))
    )


@np.errstate(over="ignore", invalid="ignore")  # the sum is looked at in the end
def loads(
    rates_hz: Sequence[float] | Floats,
    services_s: Sequence[float] | Floats | float,
    layers: int,
    proposers: int,
    *,
    graph: Graph | None = None,
    weights: Sequence[Sequence[float]] | Floats | None = None,
    aggregators: Sequence[float] | Sequence[Sequence[float]] | Floats | None = None,
    skip_aggregation: float = 0.0,
) -> Floats:
    """[E] ρ_i = α_i R_i of each device, shape (n,), where prompts come at unequal rates to unequal devices.

    R_i = λ_i M + M Σ_{j asks i} λ_j min(k, d_j)/d_j + (1 − p) A_i, with d_j the number of devices that j may ask
    (n − 1 without a `graph`: Remark 1) and A_i the aggregations at i: λ_i at the origin; or Σ_j λ_j a_ji where
    `aggregators` says who aggregates, as shares a_i of all prompts (shape (n,), sum 1: `fixed` and `strongest`) or
    a_ji of each origin's (shape (n, n), rows sum to 1). p is the chance that a prompt skips its aggregation (M >= 1).
    The layers are asked uniformly among those that may be asked; or, with `weights`, device i with chance w_ji by origin j
    (shape (n, n), no chance above 1, rows sum to k: `best_limit` gives some), which makes the sum over j Σ_j λ_j w_ji.
    Source: jobs counted; Remark 1 for its case.
    """
    count = whole("devices", length("rates_hz", rates_hz), least=1)
    rates = numbers("rates_hz", rates_hz, count)
    services = numbers("services_s", services_s, count)
    whole("layers", layers)
    if number("skip_aggregation", skip_aggregation, most=1.0) and not layers:
        raise TheoryError("skip_aggregation needs a last layer to end with; with 0 layers it must be 0")
    whole("proposers", proposers)
    if weights is not None:
        asked = rates @ chances(weights, count, proposers, graph)
    else:
        asked = _asked(rates, proposers if layers else 0, graph)
    aggregations = rates
    if aggregators is not None:
        shares = array("aggregators", aggregators)
        if shares.shape not in ((count,), (count, count)) or not np.all(shares >= 0.0):
            raise TheoryError(f"aggregators must be {count} shares, or {count} rows of them, each 0 or more")
        for total in np.atleast_1d(shares.sum(axis=-1)):
            if abs(total - 1.0) > 1e-9:
                raise TheoryError(f"aggregators sum to {total:.6g}; they are shares and sum to 1")
        aggregations = rates @ shares if shares.ndim == 2 else shares * rates.sum()
    found: Floats = services * (layers * (rates + asked) + (1.0 - skip_aggregation) * aggregations)
    measurable("the load", float(found.sum()))
    return found


@np.errstate(over="ignore", invalid="ignore")
def judged_loads(
    rates_hz: Sequence[float] | Floats,
    services_s: Sequence[float] | Floats | float,
    layers: int,
    proposers: int,
    judge: Judge,
    *,
    graph: Graph | None = None,
    skip_aggregation: float = 0.0,
) -> Floats:
    """[E] ρ_i of each device, shape (n,), where the origins' judges read the layers; the rest as in `loads`.

    R_i = L_i λ_i + Σ_{j asks i} L_j λ_j min(k, d_j)/d_j + (1 − p + J_i) λ_i, with L_i and J_i the mean numbers of layers and of
    judges of a prompt of device i (`judged_stages`), as long as stops do not depend on queues. A judge counts as a job
    of mean length. Source: jobs counted.
    """
    count = whole("devices", length("rates_hz", rates_hz), least=1)
    rates = numbers("rates_hz", rates_hz, count)
    services = numbers("services_s", services_s, count)
    judge.check(whole("layers", layers), whole("proposers", proposers))
    number("skip_aggregation", skip_aggregation, most=1.0)
    lasted, judged = judged_means(count, layers, proposers, judge, graph)
    asked = _asked(lasted * rates, proposers, graph)
    found: Floats = services * (asked + (lasted + judged + 1.0 - skip_aggregation) * rates)
    measurable("the load", float(found.sum()))
    return found


def judged_means(
    count: int, layers: int, proposers: int, judge: Judge, graph: Graph | None
) -> tuple[Floats, Floats]:
    """E[layers] and E[judges] of each device's prompts, shape (n,) each."""
    if graph is None:
        lasted, judged = judge.stages(layers, proposers)
        return np.full(count, lasted), np.full(count, judged)
    check_graph(graph, count)
    by_peers = np.array([judge.stages(layers, min(proposers, len(peers))) for peers in graph])
    return by_peers[:, 0], by_peers[:, 1]


def chances(
    weights: Sequence[Sequence[float]] | Floats, count: int, proposers: int, graph: Graph | None = None
) -> Floats:
    """Weights as an array, shape (n, n). Raises `TheoryError` for what says nobody's chances to be asked."""
    if graph is not None:
        raise TheoryError("weights say who is asked, and so does a graph: give one of them")
    table = array("weights", weights)
    if table.shape != (count, count):
        raise TheoryError(f"weights have the shape {table.shape}; it is ({count}, {count}), a row an origin")
    near = 1.0 + WEIGHT_ERROR
    if not (np.all(table >= 0.0) and np.all(table <= near)) or table.diagonal().any():
        raise TheoryError("weights are chances from 0 to 1, and 0 on the diagonal: nobody asks itself")
    for origin, total in enumerate(table.sum(axis=1)):
        if abs(total - proposers) > WEIGHT_ERROR:
            raise TheoryError(
                f"the weights of origin {origin} sum to {total:.6g}; k = {proposers} peers are asked"
            )
    return table


def stage_load(
    rate_hz: float,
    stage_services_s: Sequence[float],
    aggregate_s: float,
    proposers: int,
    stops: Sequence[float] = (),
) -> float:
    """[E] ρ = λ[(k+1) Σ_m S_m α^(m) + α^(agg)]: stages take unequal times, as prompts grow from layer to layer.

    S_m is the chance to get to layer m where `stops` gives the chances to stop after each (`early_stopping_jobs`), else 1.
    Devices alike, k <= n − 1. Source: Theorem 1, each stage counted with its own time.
    """
    number("rate_hz", rate_hz)
    services = stage_services(stage_services_s)
    reached, _ = stage_flow(len(services), stops)
    total = sum(chance * service for chance, service in zip(reached, services, strict=True))
    jobs_s = (whole("proposers", proposers) + 1) * total + number("aggregate_s", aggregate_s)
    return measurable("the load", rate_hz * jobs_s)


def early_stopping_jobs(stops: Sequence[float], proposers: int) -> float:
    """[E] K_eff = (k+1) E[layers] + 1, where `stops[m]` is the chance to stop after layer m + 1 (they sum to 1).

    ρ = λ α K_eff as long as a stop does not depend on queues. Source: Theorem 1, with the mean number of layers.
    """
    chances = stop_chances(stops)
    return (whole("proposers", proposers) + 1) * float(chances @ np.arange(1, len(stops) + 1)) + 1.0


def stop_chances(stops: Sequence[float] | Floats) -> Floats:
    """Chances to stop after each layer as an array, shape (M,), sum 1. Raises `TheoryError`."""
    found = numbers("stops", stops, whole("stops", length("stops", stops), least=1))
    if abs(float(found.sum()) - 1.0) > 1e-9:
        raise TheoryError(f"stops sum to {found.sum():.6g}; they are chances and sum to 1")
    return found


def stage_flow(layers: int, stops: Sequence[float]) -> tuple[list[float], list[float]]:
    """S_1 … S_M, the chance to get to each layer, and p_0 … p_M, that to end after so many."""
    if not length("stops", stops):
        return [1.0] * layers, [0.0] * layers + [1.0]
    chances = stop_chances(stops)
    if len(chances) != layers:
        raise TheoryError(f"stops has {len(chances)} chances for {layers} layers; give one a layer")
    return [float(chances[layer:].sum()) for layer in range(layers)], [0.0, *map(float, chances)]


def stage_services(services_s: Sequence[float] | Floats) -> list[float]:
    """The service times of M stages, seconds, none for M = 0. Raises `TheoryError`."""
    count = length("stage_services_s", services_s)
    return [float(each) for each in numbers("stage_services_s", services_s, count)] if count else []


def skipping_jobs(layers: int, proposers: int, skip_aggregation: float) -> float:
    """[E] K_eff = (k+1)M + 1 − p, where a prompt skips its aggregation with chance p (M >= 1).

    Source: Theorem 1, with the mean number of aggregations.
    """
    return _jobs(whole("layers", layers, least=1), proposers) - number(
        "skip_aggregation", skip_aggregation, most=1.0
    )


def batched_service(service_s: float, batch: int, batch_s: float) -> float:
    """[E] α/φ(B): the time that a job takes of a device that serves B at once in `batch_s` seconds.

    φ(B) = B α/`batch_s`. Holds at the limit, where batches are full. Source: a full batch's time, shared.
    """
    number("service_s", service_s, above=True)
    return number("batch_s", batch_s, above=True) / whole("batch", batch, least=1)


def quorum_load(rate_hz: float, service_s: float, layers: int, proposers: int, quorum: int) -> float:
    """[E] ρ = λα(qM + 1): layers end with q of k + 1 answers, and what is queued or running is cancelled.

    Devices alike and exponential service only: a device at work ends jobs at the rate 1/α whether they are to be
    cut or not, so that its busy time is α times the jobs that end, and q a layer do. Without cancelling the quorum
    changes nothing (`load`); with other service there is only that bound. 1 <= q <= k + 1. Source: derived here.
    """
    number("rate_hz", rate_hz)
    whole("quorum", quorum, least=1, most=whole("proposers", proposers) + 1)
    jobs = quorum * whole("layers", layers) + 1
    return measurable("the load", rate_hz * number("service_s", service_s, above=True) * jobs)


def _jobs(layers: int, proposers: int) -> int:
    return jobs_per_prompt(whole("layers", layers), whole("proposers", proposers))


def check_graph(graph: Graph, count: int) -> None:
    """Raises `TheoryError` where a graph is not of `count` devices that name others, each once."""
    try:
        if len(graph) != count:
            raise TheoryError(f"the graph has {len(graph)} devices, but there are {count} rates")
        for origin, peers in enumerate(graph):
            inside = all(index(peer) in range(count) for peer in peers)
            if origin in peers or len(set(peers)) < len(peers) or not inside:
                raise TheoryError(f"device {origin} must name other devices, each once: {list(peers)}")
    except TypeError:
        raise TheoryError("a graph names for each device those it may ask, by whole numbers from 0") from None


def _asked(rates: Floats, proposers: int, graph: Graph | None) -> Floats:
    """Σ_{j asks i} λ_j min(k, d_j)/d_j, jobs per second and layer, shape (n,)."""
    count = len(rates)
    if graph is None:
        if proposers > count - 1:
            have = "1 device has no peers" if count == 1 else f"{count} devices have {count - 1} peers each"
            raise TheoryError(f"proposers is {proposers}, but {have}")
        shares: Floats = (rates.sum() - rates) * proposers / max(1, count - 1)
        return shares
    check_graph(graph, count)
    asked = np.zeros(count)
    for origin, peers in enumerate(graph):
        if not peers and proposers:
            raise TheoryError(f"device {origin} may ask nobody; a graph with isolated devices is no moot")
        for peer in peers:
            asked[peer] += rates[origin] * min(proposers, len(peers)) / len(peers)
    return asked
