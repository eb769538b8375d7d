"""Every exact statement of the theory against the simulator. A formula that is wrong shows here.

Equalities hold where the interval over the replications covers the theory; the chance that any of them fails
by luck is 1 % over all cases (Bonferroni). An interval that is wider than `WIDEST` shows nothing and counts as a failure.
Bounds must not be exceeded, floors must surely be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from folkmoot import queueing as q
from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull
from folkmoot.queueing import central
from folkmoot.queueing._check import Floats
from folkmoot.queueing.estimate import Interval, interval
from folkmoot.queueing.fcfs import bin_of
from folkmoot.queueing.moot import Measures, Question, measures, replications, rho

FAMILY_ERROR = 0.01
CLOSE = 0.99
"""Confidence of the intervals of statements that hold within a tolerance."""
WIDEST = 0.05
"""Largest half width of an equality's interval, as a share of the theory, in a run that is not quick."""
QUICK = 0.15
"""Share of the horizon that a quick run keeps."""

Seen = Callable[[Measures], Floats]
Run = Callable[[Question, int | None], Measures]
"""A simulator: what a question's replications saw, on so many workers."""


def compiled(question: Question, workers: int | None) -> Measures:
    """The compiled simulator."""
    return measures(question, list(replications(question, workers)))


def _nothing(seen: Measures) -> Floats:
    return np.full_like(seen.latency, np.nan)


@dataclass(frozen=True, slots=True)
class Case:
    """One statement: `theory` for what `seen` reads of each replication of `run`, or for what `other` finds itself.

    `bound` -1: it may be less, never more; 1: it may be more, never less. Within the share `tolerance` of the
    theory it holds in any case (for what is known to have a finite-size bias).
    """

    name: str
    tag: str
    theory: float
    question: Question
    seen: Seen = _nothing
    bound: int = 0
    tolerance: float = 0.0
    run: Run = compiled
    other: Callable[[Question, int | None], Floats] | None = None

    def holds(self, found: Interval) -> bool:
        """Whether an interval agrees with the statement."""
        if abs(found.value - self.theory) <= self.tolerance * abs(self.theory):
            return True
        if self.bound:
            return found.low <= self.theory if self.bound < 0 else found.low >= self.theory
        return found.covers(self.theory)

    def shown(self, found: Interval) -> bool:
        """Whether an interval is narrow enough to find a formula that is a twentieth off."""
        exact = not (self.bound or self.tolerance)
        return not exact or found.high - found.value <= WIDEST * abs(self.theory)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case, what was simulated, and whether the two agree: `ok`, `mismatch`, or `too wide` to say so."""

    case: Case
    simulation: Interval
    verdict: str


def validate(cases: list[Case], *, quick: bool = False, workers: int | None = None) -> Iterator[Outcome]:
    """Run the cases one after another."""
    family = 1.0 - FAMILY_ERROR / len(cases)
    last: tuple[Question, Run, Measures] | None = None
    for case in cases:
        share = QUICK if quick else 1.0
        asked = replace(
            case.question,
            horizon=case.question.horizon * share,
            prompts=math.ceil(case.question.prompts * share),
        )
        if case.other is not None:
            values = case.other(asked, workers)
        else:
            if last is None or last[:2] != (asked, case.run):  # statements on one question stand side by side
                last = asked, case.run, case.run(asked, workers)
            values = case.seen(last[2])
        found = interval(values, CLOSE if case.tolerance else family)
        verdict = "ok" if case.holds(found) else "mismatch"
        if verdict == "ok" and not (quick or case.shown(found)):
            verdict = "too wide"
        yield Outcome(case, found, verdict)


def cases(*, beyond: bool = False) -> list[Case]:
    """The [E] statements on what the compiled simulator knows (`sim.exact` has the others); with `beyond` also the [C] ones on what lies beyond uniform choice's limit."""
    exact = [*_alone(), *_within(), *_markov(), *_loads(), *_limits(), *_quorum(), *_published(), *_central()]
    return [*exact, *_reached(), *_collapse(), *_unlike(), *_chosen()] if beyond else exact


def _alone() -> Iterator[Case]:
    laws: list[Law] = [
        Exponential(2.0), Fixed(2.0), Lognormal(2.0, 0.5), Weibull(2.0, 1.5),
        Trace(("a",), ((1.0,), (2.0,), (6.0,))),
    ]  # fmt: skip
    for law in laws:
        moments = q.Moments.of(law)
        for load in (0.4, 0.8):
            rate = load / moments.mean
            asked = Question(1, 0, 0, (rate,), (law,), horizon=400_000, replications=16)
            name = f"M/G/1, {type(law).__name__}, load {load}"
            yield Case(f"{name}: latency", "E", q.alone(rate, moments), asked, lambda seen: seen.latency)
            yield Case(
                f"{name}: waiting",
                "E",
                rate * q.mg1_wait(rate, moments),
                asked,
                lambda seen: seen.waiting[:, 0],
            )


def _within() -> Iterator[Case]:
    """How many take how long, not only the mean."""
    some: list[Law] = [Lognormal(1.0, 0.5), Weibull(1.0, 1.5)]
    for law in some:
        for bound in (1.0, 4.0):  # powers of 2, where bins of latencies end
            asked = Question(1, 0, 0, (0.7,), (law,), horizon=200_000, replications=16)
            points = 1 << 20
            stated, _ = q.sojourn(0.7, law, width=512.0, points=points)
            yield Case(
                f"M/G/1, {type(law).__name__}, load 0.7: share within {bound:g} s", "E",
                float(stated[int(bound * points / 512.0)]), asked, other=partial(_share, bound),
            )  # fmt: skip


def _share(bound: float, asked: Question, workers: int | None) -> Floats:
    seen = [run.counts.histogram for run in replications(asked, workers)]
    return np.array([each[: bin_of(bound)].sum() / each.sum() for each in seen])


def _markov() -> Iterator[Case]:
    for layers in (1, 2, 3):
        rate = 0.7 * q.limit_rate(1.0, layers, 0)
        asked = Question(3, layers, 0, (rate,), (Exponential(1.0),), horizon=200_000, replications=16)
        theory = q.refining_alone(rate, 1.0, layers)
        yield Case(f"k = 0, M = {layers}: latency", "E", theory, asked, lambda seen: seen.latency)
    asked = Question(
        3, 2, 0, (0.28,), (Exponential(1.0),), skip_aggregation=0.5, horizon=100_000, replications=16
    )
    theory = q.refining_alone(0.28, 1.0, 2, 0.5)
    yield Case(
        "k = 0, M = 2, half of the aggregations skipped: latency",
        "E",
        theory,
        asked,
        lambda seen: seen.latency,
    )
    for load in (0.3, 0.7):
        asked = Question(
            2, 1, 1, (load / 2,), (Exponential(1.0),), skip_aggregation=1.0, horizon=200_000, replications=16
        )
        theory = q.layer_of_two(load / 2, 1.0)
        yield Case(
            f"two devices, the layer alone, load {load}", "E", theory, asked, lambda seen: seen.latency
        )
    for load in (0.3, 0.8):
        asked = Question(1, 0, 0, (load,), (Exponential(1.0),), horizon=200_000, replications=16)
        yield Case(f"M/M/1, load {load}: age", "E", q.answer_age(load, 1.0), asked, lambda seen: seen.age)


def _loads() -> Iterator[Case]:
    ring = tuple(tuple((i + step) % 6 for step in (1, 2, 5)) for i in range(6))
    star = ((1, 2, 3, 4), (0,), (0,), (0,), (0,))
    uneven = (0.01, 0.02, 0.04, 0.03)
    some = {
        "equal devices": Question(8, 1, 3, (0.14,), (Lognormal(1.0, 0.5),)),
        "M = 3, k = n − 1": Question(4, 3, 3, (0.06,), (Exponential(1.0),)),
        "unequal rates": Question(4, 2, 2, uneven, (Exponential(2.0),)),
        "unequal devices": Question(
            4, 2, 2, (0.05,), (Exponential(1.0), Fixed(2.0), Exponential(2.5), Fixed(0.5))
        ),
        "a regular graph": Question(6, 2, 2, (0.1,), (Exponential(1.0),), graph=ring),
        "a star": Question(5, 1, 2, (0.12,), (Exponential(1.0),), graph=star),
        "aggregation skipped in 4 of 10": Question(
            5, 1, 2, (0.2,), (Exponential(1.0),), skip_aggregation=0.4
        ),
    }
    alike = {
        "equal devices": q.load(0.14, 1.0, 1, 3),
        "aggregation skipped in 4 of 10": 0.2 * q.skipping_jobs(1, 2, 0.4),
    }
    for name, question in some.items():
        asked = replace(question, horizon=40_000, replications=12)
        loads = rho(asked)
        for device in sorted({int(np.argmin(loads)), int(np.argmax(loads))}):
            stated = float(loads[device])
            yield Case(f"load, {name}, device {device}", "E", stated, asked, _utilisation(device))
        if name in alike:
            yield Case(
                f"load, {name}, Theorem 1",
                "E",
                alike[name],
                asked,
                lambda seen: seen.utilisation.mean(axis=1),
            )


def _utilisation(device: int) -> Seen:
    return lambda seen: seen.utilisation[:, device]


def _limits() -> Iterator[Case]:
    over = Question(4, 0, 0, (1.3,), (Exponential(1.0),), horizon=20_000, replications=12)
    yield Case("M = 0, load 1.3: drift", "E", q.drift(1.3, [], 1.0, 0), over, lambda seen: seen.drift)
    yield Case("M = 0, load 1.3: goodput", "E", q.goodput(1.3, [], 1.0, 0), over, lambda seen: seen.goodput)
    for name, limit, asked in _fullest():
        yield Case(f"{name}: goodput at most", "E", limit, asked, lambda seen: seen.goodput, bound=-1)


def _fullest() -> Iterator[tuple[str, float, Question]]:
    """Moots beyond a limit that do as much as can be done, so that a limit stated too low is exceeded."""
    for layers, proposers in ((1, 1), (2, 3)):
        limit = q.limit_rate(1.0, layers, proposers)
        asked = Question(
            8, layers, proposers, (1.5 * limit,), (Exponential(1.0),), horizon=10_000, replications=12, discipline="lsf",
        )  # fmt: skip
        yield f"beyond the limit, M = {layers}, k = {proposers}", limit, asked
    bound = q.best_limit_closed([1.0] * 10 + [3.0] * 10, 2, 2)
    laws = (Exponential(1.0),) * 10 + (Exponential(3.0),) * 10
    asked = Question(
        20, 2, 2, (1.05 * bound,), laws, horizon=4_000, replications=12, discipline="lsf", best_of=8
    )
    yield "beyond the best limit of unequal devices", bound, asked


def _reached() -> Iterator[Case]:
    """And nearly reach it, so that a limit stated too high is not."""
    for name, limit, asked in _fullest():
        yield Case(
            f"{name}: 0.97 of it is done", "C", 0.97 * limit, asked, lambda seen: seen.goodput, bound=1
        )


def _quorum() -> Iterator[Case]:
    for layers, proposers, quorum in ((2, 3, 2), (1, 2, 1)):
        rate = 0.7 / (quorum * layers + 1)
        asked = Question(
            12, layers, proposers, (rate,), (Exponential(1.0),), quorum=quorum, horizon=8_000, replications=12
        )
        name = f"quorum {quorum} of {proposers + 1}, M = {layers}: load"
        theory = q.quorum_load(rate, 1.0, layers, proposers, quorum)
        yield Case(name, "E", theory, asked, lambda seen: seen.utilisation.mean(axis=1))


def _published() -> Iterator[Case]:
    """So many prompts that the empty start and the empty end count for little beside the interval."""
    some: dict[str, Law] = {"M/M/1": Exponential(1.0), "M/G/1, Lognormal": Lognormal(1.0, 0.5)}
    for name, law in some.items():
        for load in (0.5, 0.8):
            asked = Question(1, 0, 0, (load,), (law,), prompts=200_000, replications=16)
            theory = q.script_queue_alone(load, q.Moments.of(law))
            yield Case(
                f"{name}, load {load}: the published script's queue",
                "E",
                theory,
                asked,
                lambda seen: seen.script,
            )


def _central() -> Iterator[Case]:
    """One server for all beside the moot, and machines that fail."""
    for layers, proposers, law in ((1, 3, Exponential(1.0)), (2, 2, Lognormal(1.0, 0.5))):
        rate = 0.6 * q.limit_rate(1.0, layers, proposers)
        asked = Question(4, layers, proposers, (rate,), (law,), horizon=15_000, replications=12)
        theory = central.centre_latency(asked, 2.0)
        yield Case(
            f"central server, M = {layers}, k = {proposers}, {type(law).__name__}: latency", "E", theory, asked,
            other=lambda asked, workers: central.centre(asked, 2.0).latency,
        )  # fmt: skip
    often = central.Failures(5.0, 5.0)
    asked = Question(2, 1, 1, (0.1,), (Exponential(1.0),), horizon=20_000, replications=12)
    for where, theory, other in (
        (
            "the central server",
            1.0 - often.up,
            lambda asked, workers: central.centre(asked, 0.0, often).refused,
        ),
        ("one's own device", 1.0 - often.up, lambda asked, workers: central.moot(asked, often).refused),
        (
            "any device",
            often.nobody(2),
            lambda asked, workers: central.moot(asked, often, elsewhere=True).refused,
        ),
    ):
        yield Case(f"refused, as {where} is down", "E", theory, asked, other=other)


def _collapse() -> Iterator[Case]:
    """First come first served collapses as computed, later stage first does not."""
    for layers in (1, 2, 3):
        for proposers in (1, 2, 3, 4):
            for load in (1.5, 2.0, 3.0):
                limit = q.limit_rate(1.0, layers, proposers)
                rate, stages = load * limit, [1.0] * layers
                asked = Question(
                    20, layers, proposers, (rate,), (Exponential(1.0),), horizon=25_000 * load, replications=8
                )  # 20,000 services a device at least, of which the second half counts
                name = f"M = {layers}, k = {proposers}, load {load}"
                grows = q.drift(rate, stages, 1.0, proposers)
                done = q.goodput(rate, stages, 1.0, proposers)
                yield Case(f"{name}: drift", "C", grows, asked, lambda seen: seen.drift, tolerance=0.05)
                yield Case(f"{name}: goodput", "C", done, asked, lambda seen: seen.goodput, tolerance=0.05)
                kept = replace(asked, discipline="lsf")
                least = 0.95 * limit
                yield Case(
                    f"{name}: goodput, later stage first",
                    "C",
                    least,
                    kept,
                    lambda seen: seen.goodput,
                    bound=1,
                )


def _unlike() -> Iterator[Case]:
    """Beyond the limit with devices that differ, which the fluid's fixed point knows."""
    means = (1.0,) * 10 + (3.0,) * 10
    rate = 2.0 * q.limit_rate(3.0, 2, 2)
    asked = Question(20, 2, 2, (rate,), tuple(map(Exponential, means)), horizon=50_000, replications=8)
    fluid = q.fluid([rate] * 20, means, 2, 2)
    some: list[tuple[str, float, Seen]] = [
        ("drift", float(fluid.drift_hz.mean() * np.mean(means)), lambda seen: seen.drift),
        ("goodput", float(fluid.goodput_hz.mean()), lambda seen: seen.goodput),
    ]
    for name, theory, seen in some:
        yield Case(f"10 fast devices and 10 slow, load 2: {name}", "C", theory, asked, seen, tolerance=0.05)


def _chosen() -> Iterator[Case]:
    """The best of d carries more than uniform choice could: all that comes is answered."""
    laws = (Exponential(1.0),) * 10 + (Exponential(3.0),) * 10
    uniform = Question(20, 2, 2, (1.0,), laws, horizon=20_000, replications=8)
    limit = 1.0 / float(max(rho(uniform)))
    for best_of, beyond in ((3, 1.2), (4, 1.2), (4, 1.55), (8, 1.9)):
        asked = replace(uniform, rates_hz=(beyond * limit,), best_of=best_of)
        yield Case(
            f"10 fast devices and 10 slow, best of {best_of}, {beyond} times uniform's limit: goodput", "C",
            beyond * limit, asked, lambda seen: seen.goodput, tolerance=0.005,
        )  # fmt: skip
