"""One question to the compiled simulator: its arguments checked, its replications run, its answer with intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from folkmoot.core.law import Exponential, Law
from folkmoot.core.load import jobs_per_prompt as most_jobs
from folkmoot.errors import TheoryError
from folkmoot.queueing import calendar, fcfs
from folkmoot.queueing._check import Floats, length, number, numbers, whole
from folkmoot.queueing._jit import compiling
from folkmoot.queueing.estimate import Interval, growing, interval, slope, verdict
from folkmoot.queueing.fcfs import Counts, Shape
from folkmoot.queueing.latency import Moments, each_law
from folkmoot.queueing.memory import check as room_check
from folkmoot.queueing.overload import drift, fluid_root
from folkmoot.queueing.published import script_queue
from folkmoot.queueing.services import services
from folkmoot.queueing.stability import (
    Graph,
    Judge,
    judged_loads,
    judged_means,
    loads,
    quorum_load,
    stage_load,
)
from folkmoot.queueing.streams import STAGES, keys

WARM_UP = 0.2
"""Share of the horizon that is not counted (a fixed share, as the replications are long)."""
SCRIPT_JOBS = 1_000_000
"""Most jobs of a run for which the published script's queue is computed (it needs the log of all, 56 B each)."""
DEVICE_BYTES = 300
"""What a device costs at least, at the height of a run and its summary."""
LEAST_VIEW = 1e-6
"""Least age of views that are not fresh, in mean services."""
LEAST_S = 1e-290
"""Shortest run, seconds, of which quarters can still be told apart."""
DISCIPLINES = ("fcfs", "lsf")
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Question:
    """What is simulated. Times in seconds, rates in prompts per second and device.

    `rates_hz` has one rate, or one a device. `horizon` is in services per device at the load that is offered.
    `prompts` > 0 is the mode `paper`: so many prompts from an empty start, drained to empty, no warm-up.
    `discipline` is `fcfs` or `lsf` (the job of the latest stage first); `quorum` 0 waits for all k + 1 answers,
    else layers end with so many and the rest is cancelled; `admit` > 0 refuses a prompt where so many jobs wait at
    its own device. `best_of` > 0 draws so many peers and keeps the k with the least mean service times jobs there + 1,
    as a view has it that is refreshed at all multiples of `view_s` (0: always); `count_own` adds what the origin itself
    has sent since. A `judge` reads the layers: the loads and the real protocol count its jobs, the
    compiled simulator has none.
    """

    devices: int
    layers: int
    proposers: int
    rates_hz: tuple[float, ...]
    laws: tuple[Law, ...]
    graph: Graph | None = None
    skip_aggregation: float = 0.0
    horizon: float = 20_000.0
    prompts: int = 0
    replications: int = 10
    seed: int = 1
    discipline: str = "fcfs"
    quorum: int = 0
    admit: int = 0
    best_of: int = 0
    view_s: float = 0.0
    count_own: bool = True
    judge: Judge | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One device's part: its load by the theory if any peers are asked, and means over the replications."""

    rho: float
    utilisation: float
    queue_size: float
    drift: float


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen. `drift` in jobs per service time and device, `goodput` in prompts per second and device.

    `queue_size` is the time average of jobs waiting per device; `queue_size_script` what the paper's published script
    would print instead (mode `paper`, first come first served with every job to its end; else NaN). `rho`,
    `limit_rate` and `goodput_of_limit` are NaN where a quorum makes them unknown, the last two also with the best of d among
    devices that differ; `rho_most` bounds `rho`, which is that of any peers. `growing`
    counts the devices whose own number waiting surely grows, which the mean `drift` may hide.
    """

    question: Question
    verdict: str
    rho: tuple[float, ...]
    rho_most: tuple[float, ...]
    limit_rate: float
    drift: Interval
    growing: int
    latency: Interval
    quantiles: tuple[float, ...]
    queue_size: Interval
    queue_size_script: Interval
    utilisation: float
    goodput: Interval
    goodput_of_limit: float
    age: float
    unfinished: float
    refused: float
    inferences: int
    per_device: tuple[Device, ...]
    kernel_s: float = field(compare=False, default=0.0)
    wall_s: float = field(compare=False, default=0.0)
    state_bytes: int = field(compare=False, default=0)


@dataclass(frozen=True, slots=True)
class Replication:
    """One run's counts, the seconds inside the kernel, and the published script's queue (NaN where it was not asked for)."""

    counts: Counts
    kernel_s: float
    state_bytes: int
    script: float = math.nan


def simulate(
    question: Question, *, workers: int | None = None, progress: Callable[[int], None] = lambda done: None
) -> Result:
    """Run all replications of a question and sum them up. Raises `TheoryError` for what cannot be simulated.

    The same question gives the same result to the bit, apart from the times, for any number of workers.
    """
    began = time.perf_counter()
    done = []
    for one in replications(question, workers):
        done.append(one)
        progress(len(done))
    return replace(summary(question, done), wall_s=time.perf_counter() - began)


def replications(question: Question, workers: int | None = None) -> Iterator[Replication]:
    """The runs of a question in their order, on all cores or so many; see `runs`."""
    return runs([question], workers)


def runs(questions: Iterable[Question], workers: int | None = None) -> Iterator[Replication]:
    """The runs of all the questions, in their order, on all cores or so many.

    The kernel does not hold the interpreter's lock, so threads are enough; a joblib backend that is active
    (Ray, Dask) is used instead of them.
    """
    from joblib import Parallel, delayed

    asked = list(questions)
    for question in asked:
        _compiled(question)  # what cannot be simulated is refused here, not in a worker
    run = Parallel(n_jobs=workers or -1, prefer="threads", return_as="generator")
    yield from run(
        delayed(_with_script)(question, key)
        for question in asked
        for key in keys(question.seed, question.replications)
    )


@cache
def _compile(events: bool) -> None:
    """Compile a kernel, or read it from its cache: once a process, before any run is timed."""
    one = Question(2, 1, 1, (1.0,), (Exponential(1.0),), prompts=1)
    with compiling():
        _run(one, keys(1, 1)[0], 0, events)


def replication(question: Question, key: Any, log: int = 0, *, events: bool = False) -> Replication:
    """One run with the keys of its streams; `log` jobs are written down (columns `fcfs.FIELDS`).

    `events` takes the kernel with departure events also where the faster one would do.
    """
    events = events or _needs_events(question)
    _compile(events)
    return _run(question, key, log, events)


def _run(question: Question, key: Any, log: int, events: bool) -> Replication:
    shape, law = _compiled(question)
    began = time.perf_counter()
    if not events:
        counts, state = fcfs.run(shape, key, law, log)
    else:
        order = calendar.LSF if question.discipline == "lsf" else calendar.FCFS
        policy = calendar.Policy(
            order, question.quorum, question.admit, question.best_of, question.view_s, question.count_own
        )
        counts, state = calendar.run(shape, policy, key, law, log)
    return Replication(counts, time.perf_counter() - began, state)


def _needs_events(question: Question) -> bool:
    return question.discipline != "fcfs" or bool(
        question.quorum or question.admit or question.skip_aggregation or question.best_of
    )


def _with_script(question: Question, key: Any) -> Replication:
    """One run, in the mode `paper` with the published script's queue."""
    key = np.array(key)  # Ray gives what may not be written to, which would be compiled for anew
    jobs = question.prompts * most_jobs(question.layers, question.proposers)
    to_its_end = question.discipline == "fcfs" and not (question.quorum or question.admit)
    if not (0 < jobs <= SCRIPT_JOBS) or not to_its_end or question.skip_aggregation:
        return replication(question, key)
    run = replication(question, key, jobs)
    log = run.counts.log[: run.counts.totals[3]]  # a graph may have fewer neighbours than k
    return replace(
        run, counts=run.counts._replace(log=log[:0].copy()), script=script_queue(log, question.devices)
    )


@dataclass(frozen=True, slots=True)
class Measures:
    """What each replication saw: arrays of shape (replications,), or (replications, devices). Units as in `Result`."""

    latency: Floats
    waiting: Floats
    script: Floats
    utilisation: Floats
    goodput: Floats
    drift: Floats
    device_drift: Floats
    age: Floats
    unfinished: Floats


def measures(question: Question, runs: Sequence[Replication]) -> Measures:
    """The runs as rates and time averages; drifts are NaN in the mode `paper`."""
    shape, _ = _shape(question)
    n, mean_s = question.devices, mean_service(question)
    steady = math.isfinite(shape.until)
    span = np.array([shape.until - shape.warm if steady else run.counts.latency[1] for run in runs])
    done = np.array([run.counts.totals[4] for run in runs], dtype=float)
    sums = np.array([run.counts.latency[0] for run in runs])
    late = np.array([run.counts.late for run in runs]) / (span / 4)[:, None, None]
    unknown = np.full(len(runs), math.nan)
    return Measures(
        latency=np.divide(sums, done, out=unknown.copy(), where=done > 0),
        waiting=np.array([run.counts.waiting for run in runs]) / span[:, None],
        script=np.array([run.script for run in runs]),
        utilisation=np.array([run.counts.busy for run in runs]) / span[:, None],
        goodput=done / span / n,
        drift=np.array([_drift(run, shape) / n * mean_s for run in runs]) if steady else unknown,
        device_drift=(late[:, :, 1] - late[:, :, 0]) / (span / 4)[:, None] * mean_s
        if steady
        else np.full((len(runs), n), math.nan),
        age=np.array([run.counts.age.sum() for run in runs]) / span / n if steady else unknown,
        unfinished=np.array(
            [run.counts.totals[0] - run.counts.totals[1] - run.counts.totals[5] for run in runs], dtype=float
        ),
    )


def summary(
    question: Question,
    runs: Sequence[Replication],
    stages: Sequence[float] = (),
    stops: Sequence[float] = (),
    speed: float = 1.0,
) -> Result:
    """The replications as means with intervals.

    `stages` are factors on the service times of the M + 1 stages, if not 1; `stops` chances to stop after each layer; `speed`
    is how many times as much a device does as with one job at a time.
    """
    seen, load = measures(question, runs), rho(question)
    mean_s = mean_service(question)
    most = float(load.max())
    limit = math.inf if most == 0 else _rate(question) / question.devices / most
    if weighed(question):
        limit = math.nan
    # What the number waiting grows by in a service time of a device that is overloaded by 1 %: 1/x − 1.
    ends = 1.0 - question.skip_aggregation
    if stages or stops:
        each = stages[:-1] or (1.0,) * question.layers, stages[-1] if stages else 1.0, question.proposers
        overload = drift(1.01 / stage_load(1.0, *each, stops), *each, stops)
    else:
        jobs = (question.proposers + 1) * question.layers + ends
        overload = 1.0 / fluid_root(1.01 / jobs, [1.0] * question.layers, ends, question.proposers) - 1.0
    overload *= speed
    with np.errstate(divide="ignore", invalid="ignore"):
        overloads = np.nan_to_num(overload * mean_s / service_means(question), nan=math.inf, posinf=math.inf)
    goodput = interval(seen.goodput)
    per_device = zip(
        load,
        seen.utilisation.mean(axis=0),
        seen.waiting.mean(axis=0),
        seen.device_drift.mean(axis=0),
        strict=True,
    )
    return Result(
        question=question,
        verdict="undecided"
        if question.prompts or not any(run.counts.totals[3] for run in runs)
        else verdict(seen.drift, overload, seen.device_drift, overloads),
        rho=tuple(map(float, load)),
        rho_most=tuple(map(float, rho_most(question))),
        limit_rate=limit,
        drift=interval(seen.drift),
        growing=0 if question.prompts else int(growing(seen.device_drift).sum()),
        latency=interval(seen.latency),
        quantiles=_quantiles(sum((run.counts.histogram for run in runs), np.zeros(1, np.int64))),
        queue_size=interval(seen.waiting.mean(axis=1)),
        queue_size_script=interval(seen.script),
        utilisation=float(seen.utilisation.mean()),
        goodput=goodput,
        goodput_of_limit=goodput.value / limit,
        age=float(seen.age.mean()),
        unfinished=float(seen.unfinished.mean()),
        refused=float(np.mean([run.counts.totals[5] / max(1, run.counts.totals[0]) for run in runs])),
        inferences=int(sum(run.counts.totals[3] for run in runs)),
        per_device=tuple(Device(*map(float, each)) for each in per_device),
        kernel_s=sum(run.kernel_s for run in runs),
        state_bytes=max(run.state_bytes for run in runs),
    )


def _compiled(question: Question) -> tuple[Shape, Any]:
    if question.judge is not None:
        raise TheoryError(
            "the compiled simulator has no judge; the real protocol in virtual time has (--core)"
        )
    return _shape(question)


def _shape(question: Question) -> tuple[Shape, Any]:
    n = whole("devices", question.devices, least=1)
    whole("layers", question.layers, most=STAGES - 2)
    whole("proposers", question.proposers, most=n - 1 if question.layers else None)
    whole("replications", question.replications, least=1)
    whole("prompts", question.prompts)
    whole("seed", question.seed, most=(1 << 64) - 1)
    whole("quorum", question.quorum, most=question.proposers + 1)
    whole("admit", question.admit)
    any_peers(question)
    if number("view_s", question.view_s) and question.view_s < LEAST_VIEW * mean_service(question):
        raise TheoryError(f"view_s is {question.view_s!r}; a view as young as that is a fresh one: give 0")
    if question.discipline not in DISCIPLINES:
        raise TheoryError(f"discipline is {question.discipline!r}; it is one of {', '.join(DISCIPLINES)}")
    rho_most(question)  # checks the graph, and the memory
    rates = numbers("rates_hz", question.rates_hz, n)
    total = float(rates.sum())
    number("rates_hz", total, above=True)
    law = services(question.laws, n)
    until = end_s(question)
    if not question.prompts:
        number("horizon", question.horizon, above=True)
        number("horizon in seconds", until, least=LEAST_S)
    equal = len(question.rates_hz) == 1
    origins = np.array([float(n)]) if equal else np.cumsum(rates) / total
    first, peers = _csr(question.graph, n)
    warm = 0.0 if question.prompts else WARM_UP * until
    shape = Shape(
        n, question.layers, question.proposers, total, origins, first, peers, question.skip_aggregation, warm, until,
        question.prompts,
    )  # fmt: skip
    return shape, law


def any_peers(question: Question) -> bool:
    """Whether all peers that may be asked are as likely: so, too, where the best k are taken of k, or of all there are.

    Raises `TheoryError` where fewer are drawn than asked.
    """
    drawn, k = whole("best_of", question.best_of), question.proposers
    if drawn and drawn < k:
        raise TheoryError(f"best_of is {drawn}; it must be 0 (any peers) or at least k = {k}")
    if not drawn or not question.layers or not k:
        return True
    if question.graph is None:
        return min(drawn, question.devices - 1) == k
    return all(min(drawn, len(peers)) == min(k, len(peers)) for peers in question.graph)


def symmetric(question: Question) -> bool:
    """Whether no device differs from another, so that each has the mean load whoever is asked."""
    kinds = each_law(question.laws, question.devices)[1]
    return question.graph is None and len(set(question.rates_hz)) == len(kinds) == 1


def weighed(question: Question) -> bool:
    """Whether the choice of peers shifts load between devices, so that uniform choice's limit is not this one's."""
    return not any_peers(question) and not symmetric(question)


def check(question: Question) -> None:
    """Raises `TheoryError` for a question that cannot be simulated; only the real protocol has a judge."""
    _shape(question)
    rho(question)


def end_s(question: Question) -> float:
    """When a run ends, seconds; infinite in the mode `paper`, which ends when it is empty."""
    if question.prompts:
        return math.inf
    return question.horizon / (_rate(question) * jobs_per_prompt(question) / question.devices)


def _csr(graph: Graph | None, devices: int) -> tuple[Any, Any]:
    if graph is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if len(graph) != devices:
        raise TheoryError(f"the graph has {len(graph)} devices, not {devices}")
    first = np.concatenate([[0], np.cumsum([len(peers) for peers in graph])]).astype(np.int64)
    return first, np.array([peer for peers in graph for peer in peers], np.int64)


def rho(question: Question) -> Floats:
    """[E] The load of each device, shape (n,): what uniform choice of peers offers it. NaN where it is not known.

    A quorum cancels jobs that have cost nobody knows how much: known for devices that are alike, on the complete
    graph, with exponential service (`quorum_load`); elsewhere there is only the bound `rho_most`.
    """
    whole("quorum", question.quorum, most=question.proposers + 1)
    most = rho_most(question)
    if question.judge is not None and question.quorum not in (0, question.proposers + 1):
        raise TheoryError("what a quorum leaves to a judge is not known: give one of them")
    if not question.layers or question.quorum in (0, question.proposers + 1):
        return most
    law, rates = question.laws[0], question.rates_hz
    alike = question.graph is None and len(set(rates)) == 1 and len(set(question.laws)) == 1
    if not alike or not isinstance(law, Exponential):
        return np.full(question.devices, math.nan)
    cut = quorum_load(rates[0], law.mean, question.layers, question.proposers, question.quorum)
    return np.full(question.devices, cut - rates[0] * law.mean * question.skip_aggregation)


def rho_most(question: Question) -> Floats:
    """[E] The load of each device if no job is cancelled, shape (n,): a quorum can only take from it."""
    means = service_means(question)  # and the memory is checked
    length("rates_hz", question.rates_hz)
    rates = numbers("rates_hz", question.rates_hz, question.devices)
    if question.judge is not None:
        return judged_loads(
            rates, means, question.layers, question.proposers, question.judge, graph=question.graph,
            skip_aggregation=question.skip_aggregation,
        )  # fmt: skip
    return loads(
        rates, means, question.layers, question.proposers, graph=question.graph,
        skip_aggregation=question.skip_aggregation,
    )  # fmt: skip


def jobs_per_prompt(question: Question) -> float:
    """[E] Jobs that a prompt begins, the mean over prompts; a quorum cancels some of them.

    K = (k+1)M + 1 less the aggregations that are skipped, with min(k, d_i) for k where an origin may ask d_i devices
    only. With a judge (k+1) E[layers] + 1 + E[judges] (`core.load.judged_jobs`). Source: jobs counted.
    """
    if question.judge is not None:
        lasted, judges = _judged(question)
        peers: Floats = np.full(question.devices, float(question.proposers))
        if question.graph is not None:
            peers = np.minimum(peers, [len(each) for each in question.graph])
        return _usual((peers + 1) * lasted + 1 - question.skip_aggregation + judges, question)
    proposers: float = question.proposers
    if question.graph is not None and question.layers:
        proposers = _usual(np.minimum(proposers, [len(peers) for peers in question.graph]), question)
    return (proposers + 1) * question.layers + 1 - question.skip_aggregation


def judges_per_prompt(question: Question) -> float:
    """[E] Of these the jobs of its judge."""
    return 0.0 if question.judge is None else _usual(_judged(question)[1], question)


def _judged(question: Question) -> tuple[Floats, Floats]:
    assert question.judge is not None
    return judged_means(question.devices, question.layers, question.proposers, question.judge, question.graph)


def _usual(each: Floats, question: Question) -> float:
    """The mean over prompts of what each origin's have."""
    if (each == each[0]).all():
        return float(each[0])
    rates = numbers("rates_hz", question.rates_hz, len(each))
    return float(each @ rates / rates.sum()) if rates.any() else float(each.mean())


def _rate(question: Question) -> float:
    return float(numbers("rates_hz", question.rates_hz, question.devices).sum())


def mean_service(question: Question) -> float:
    """The mean service time over all devices, seconds."""
    return float(service_means(question).mean())


def service_means(question: Question) -> Floats:
    """[E] The mean service time of each device, seconds, shape (n,)."""
    count = whole("devices", question.devices, least=1)
    room_check(count * DEVICE_BYTES)
    place, kinds = each_law(question.laws, count)
    return np.array([Moments.of(law, column).mean for law, column in kinds])[place]


def _drift(run: Replication, shape: Shape) -> float:
    """Slope of the number waiting over the second half, 1/s."""
    waiting = np.cumsum(run.counts.checkpoints[: fcfs.CHECKPOINTS])
    return slope(waiting[fcfs.CHECKPOINTS // 2 :], (shape.until - shape.warm) / 2)


def _quantiles(histogram: Any) -> tuple[float, ...]:
    total = histogram.sum()
    if not total:
        return tuple(math.nan for _ in QUANTILES)
    below = np.cumsum(histogram)
    places = [int(np.searchsorted(below, q * total)) for q in QUANTILES]
    return tuple(map(_middle, places))


def _middle(place: int) -> float:
    """The middle of a bin of latencies, seconds: 0 for the first one, unknown for the last one, which has no end."""
    if place == fcfs.OCTAVES * fcfs.BINS_PER_OCTAVE - 1:
        return math.nan
    return float(2.0 ** ((place + 0.5) / fcfs.BINS_PER_OCTAVE - 24.0)) if place else 0.0
