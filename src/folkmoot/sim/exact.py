"""The exact statements on what only the real protocol does here: `folkmoot validate` runs them beside `queueing.validate`'s.

Jobs are counted on prompts that come to an empty moot and are drained: what they cost a device in seconds each, times
their rate, is its load, and no job is cut off by the end of the run. Services vary little there, so that what
is found is the number of jobs, not the luck of their lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Fixed, Lognormal
from folkmoot.queueing.moot import Measures, Question, measures
from folkmoot.queueing.validate import Case, Seen
from folkmoot.sim.load import Setting
from folkmoot.sim.reference import lasting, replications


@dataclass(frozen=True, slots=True)
class Core:
    """The real protocol in a setting, as a simulator of cases."""

    setting: Setting

    def __call__(self, question: Question, workers: int | None) -> Measures:
        """What the replications saw."""
        runs = [run.replication for run in replications(question, self.setting, workers)]
        return measures(lasting(question, self.setting), runs)


RUNS = 40
STEADY = Lognormal(1.0, 0.1)
PHI = (1.0, 1.7, 2.2, 2.5)
BATCH_S = len(PHI) / PHI[-1]
"""An engine that batches up to four jobs: φ(1) … φ(4), and what a full batch takes of jobs that take 1 s alone."""
BATCHING = Core(Setting(len(PHI), PHI))
UNEQUAL = (1.0,) * 3 + (3.0,) * 3
"""The mean services of fast devices and slow ones."""


def cases(*, beyond: bool = False) -> list[Case]:
    """The [E] statements; with `beyond` also the [C] ones on full batches, the best weights and unequal stages."""
    exact = [*_stages(), *_stops(), *_aggregator(), *_slots(), *_batches(), *_weights()]
    return [*exact, *_reached(), *_carried(), *_collapse()] if beyond else exact


def load_seen(rate_hz: float, devices: Sequence[int]) -> Seen:
    """The mean load of some devices: prompts a second and device times the seconds that a prompt costs each of them."""
    return lambda seen: rate_hz * seen.utilisation[:, devices].mean(axis=1) / seen.goodput


def _stages() -> Iterator[Case]:
    """Prompts that grow from layer to layer."""
    factors, rate = (1.0, 1.5, 2.5), 0.06
    asked = Question(4, 2, 2, (rate,), (STEADY,), prompts=35, replications=RUNS)
    theory = q.stage_load(rate, factors[:-1], factors[-1], 2)
    run = Core(Setting(stages=factors))
    yield Case("stages of 1, 1.5 and 2.5 s: load", "E", theory, asked, load_seen(rate, range(4)), run=run)


def _stops() -> Iterator[Case]:
    stops, rate = (0.3, 0.7), 0.1
    asked = Question(4, 2, 2, (rate,), (STEADY,), prompts=90, replications=RUNS)
    theory = rate * q.early_stopping_jobs(stops, 2)
    name, run = "3 of 10 prompts stop after the first of 2 layers: load", Core(Setting(stops=stops))
    yield Case(name, "E", theory, asked, load_seen(rate, range(4)), run=run)


def _aggregator() -> Iterator[Case]:
    rate = 0.1
    asked = Question(4, 1, 2, (rate,), (STEADY,), prompts=100, replications=RUNS)
    theory = q.loads([rate] * 4, 1.0, 1, 2, aggregators=[0.0, 0.0, 1.0, 0.0])
    run = Core(Setting(aggregator=2))
    for name, some in (("its load", [2]), ("the load of the others", [0, 1, 3])):
        stated = float(theory[some].mean())
        yield Case(f"one aggregator for all: {name}", "E", stated, asked, load_seen(rate, some), run=run)


def _slots() -> Iterator[Case]:
    """Several servers at one queue."""
    rate, run = 0.3, Core(Setting(slots=3))
    asked = Question(4, 1, 2, (rate,), (STEADY,), prompts=25, replications=RUNS)
    theory = q.load(rate, 1.0, 1, 2)
    yield Case("3 slots: jobs in service", "E", theory, asked, load_seen(rate, range(4)), run=run)
    asked = Question(1, 0, 0, (1.5,), (Exponential(1.0),), horizon=6_000, replications=20)
    theory = q.several_slots_alone(1.5, 1.0, 3)
    yield Case("M/M/3, load 0.5: latency", "E", theory, asked, lambda seen: seen.latency, run=run)


def _batches() -> Iterator[Case]:
    """Engines that batch and always have enough to do."""
    limit = 1.0 / q.batched_service(1.0, len(PHI), BATCH_S)
    asked = Question(1, 0, 0, (1.5 * limit,), (STEADY,), horizon=500, replications=16)
    name = "M = 0, batches of 4, load 1.5: goodput"
    yield Case(name, "E", limit, asked, lambda seen: seen.goodput, run=BATCHING)
    limit, asked = _full_batches()
    name = "batches of 4 beyond the limit, M = 1, k = 1: goodput at most"
    yield Case(name, "E", limit, asked, lambda seen: seen.goodput, bound=-1, run=BATCHING)


def _reached() -> Iterator[Case]:
    limit, asked = _full_batches()
    name = "batches of 4 beyond the limit, M = 1, k = 1: 0.95 of it is done"
    yield Case(name, "C", 0.95 * limit, asked, lambda seen: seen.goodput, bound=1, run=BATCHING)


def _full_batches() -> tuple[float, Question]:
    limit = q.limit_rate(q.batched_service(1.0, len(PHI), BATCH_S), 1, 1)
    return limit, Question(
        4, 1, 1, (2.0 * limit,), (STEADY,), horizon=500, replications=RUNS, discipline="lsf"
    )


def _weights() -> Iterator[Case]:
    """At 0.9 of the limit that the best weights reach, each device has the load 0.9."""
    rate, run = _best()
    asked = Question(6, 2, 2, (rate,), tuple(map(Fixed, UNEQUAL)), prompts=200, replications=RUNS)
    theory = q.loads([rate] * 6, UNEQUAL, 2, 2, weights=run.setting.weights)
    for name, some in (("the fast", [0, 1, 2]), ("the slow", [3, 4, 5])):
        stated = float(theory[some].mean())
        name = f"best weights, 3 fast devices and 3 slow: load of {name}"
        yield Case(name, "E", stated, asked, load_seen(rate, some), run=run)
    name = "best weights, 3 fast devices and 3 slow, 0.9 of their limit: load of all"
    yield Case(name, "E", 0.9, asked, load_seen(rate, range(6)), run=run)


def _carried() -> Iterator[Case]:
    """That is 1.8 times what uniform choice can carry, and it is answered."""
    rate, run = _best()
    asked = Question(6, 2, 2, (rate,), tuple(map(Exponential, UNEQUAL)), horizon=800, replications=16)
    name = "best weights, 3 fast devices and 3 slow, 0.9 of their limit: goodput"
    yield Case(name, "C", rate, asked, lambda seen: seen.goodput, tolerance=0.01, run=run)


def _best() -> tuple[float, Core]:
    limit, weights = q.best_limit(UNEQUAL, 2, 2)
    return 0.9 * limit, Core(Setting(weights=tuple(map(tuple, weights.tolist()))))


def _collapse() -> Iterator[Case]:
    """First come first served beyond the limit, where the aggregation takes three times as long as a proposal."""
    factors, proposers = (1.0, 3.0), 1
    stages = factors[:-1], factors[-1], proposers
    rate = 2.0 / q.stage_load(1.0, *stages)
    asked = Question(20, 1, proposers, (rate,), (Exponential(1.0),), horizon=400, replications=16)
    run = Core(Setting(stages=factors))
    some: list[tuple[str, float, Seen]] = [
        ("drift", q.drift(rate, *stages), lambda seen: seen.drift),
        ("goodput", q.goodput(rate, *stages), lambda seen: seen.goodput),
    ]
    for name, theory, seen in some:
        yield Case(f"stages of 1 and 3 s, load 2: {name}", "C", theory, asked, seen, tolerance=0.05, run=run)
    stops, even = (0.5, 0.5), ((1.0, 1.0), 1.0, proposers)
    rate = 2.0 / q.stage_load(1.0, *even, stops)
    asked = replace(asked, layers=2, rates_hz=(rate,), horizon=1_200, replications=8)  # it settles slowly
    run = Core(Setting(stops=stops))
    some = [
        ("drift", q.drift(rate, *even, stops), lambda seen: seen.drift),
        ("goodput", q.goodput(rate, *even, stops), lambda seen: seen.goodput),
    ]
    for name, theory, seen in some:
        name = f"half of the prompts stop after the first of 2 layers, load 2: {name}"
        yield Case(name, "C", theory, asked, seen, tolerance=0.05, run=run)
