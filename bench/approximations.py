"""How far the [A] and [C] forms are from simulations: the mean field's latency, jobs waiting, the join buffer, the fluid.

    python bench/approximations.py --quick --json    some hundred short questions, within 50 s
    python bench/approximations.py                   loads 0.3, 0.6, 0.9, M = 1 to 3, k = 1 to 7, n to 100, some minutes

Each figure is theory over simulation, less 1; its noise is the half width of the simulation's 95 % interval as a share of its
mean: at high loads much of what is seen is that. Studies: `complete` (equal devices that may ask all others), `graphs` (rings, stars, random
graphs of degree 4, trees of preferential attachment, and devices that are named), `skipped` (half or all of the
aggregations are), `trace` (answers' lengths) and `fluid` (beyond the limit: devices, rates and graphs that differ). The
bounds are those that `folkmoot theory` and `plan` state for the very question; figures that leave them by more than
their noise are counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace
from folkmoot.queueing import Question, simulate
from folkmoot.queueing.estimate import Interval, interval
from folkmoot.queueing.fcfs import FIELDS
from folkmoot.queueing.moot import WARM_UP, end_s, replication, rho
from folkmoot.queueing.stability import Graph
from folkmoot.queueing.streams import keys
from folkmoot.queueing.theory import Error, theory

LAWS: dict[str, Law] = {
    "exponential": Exponential(1.0),
    "lognormal": Lognormal(1.0, 0.5),
    "fixed": Fixed(1.0),
}
OVERLOADS = (1.2, 1.5, 2.0, 3.0)


@dataclass(frozen=True, slots=True)
class Study:
    """A question under a name, and the name of its service law."""

    name: str
    law: str
    asked: Question


@dataclass(frozen=True, slots=True)
class Off:
    """A figure of the theory over a simulated one, less 1, the simulation's own noise, and the bounds that are stated."""

    name: str
    law: str
    what: str
    off: float
    noise: float
    stated: Error
    where: str

    @property
    def beyond(self) -> bool:
        """Whether it leaves the bounds by more than its noise."""
        return self.stated is not None and not (
            self.stated[0] - self.noise <= self.off <= self.stated[1] + self.noise
        )


def ring(n: int) -> Graph:
    """Each may ask the two beside it."""
    return tuple(((device - 1) % n, (device + 1) % n) for device in range(n))


def star(n: int) -> Graph:
    """All may ask device 0, which may ask all."""
    return (tuple(range(1, n)), *((0,) for _ in range(1, n)))


def regular(n: int, degree: int, rng: Random) -> Graph:
    """Each has so many neighbours, drawn by pairing stubs until no pair is a loop or stands twice."""
    while True:
        stubs = [device for device in range(n) for _ in range(degree)]
        rng.shuffle(stubs)
        pairs = {tuple(sorted(stubs[place : place + 2])) for place in range(0, n * degree, 2)}
        if len(pairs) == n * degree // 2 and all(one != other for one, other in pairs):
            return _of(pairs, n)


def tree(n: int, rng: Random) -> Graph:
    """Each newcomer joins a device with a chance in proportion to its neighbours: few have many."""
    ends = [0, 1]
    pairs = {(0, 1)}
    for device in range(2, n):
        other = rng.choice(ends)
        pairs.add((other, device))
        ends += [other, device]
    return _of(pairs, n)


def _of(pairs: set[Any], n: int) -> Graph:
    both = [*pairs, *((other, one) for one, other in pairs)]
    return tuple(tuple(sorted(peer for device, peer in both if device == each)) for each in range(n))


def named(n: int, count: int) -> Graph:
    """The first devices are asked by all, as by `--select fixed:0+1`."""
    return tuple(tuple(peer for peer in range(count) if peer != device) for device in range(n))


def at(load: float, asked: Question) -> Question:
    """The question with the rates at which the busiest device has a load."""
    busiest = float(rho(asked).max())
    return replace(asked, rates_hz=tuple(rate * load / busiest for rate in asked.rates_hz))


def studies(quick: bool, seed: int) -> Iterator[Study]:
    """All questions."""
    rng = Random(seed)
    loads = (0.3, 0.9) if quick else (0.3, 0.6, 0.9)
    layers = (1, 3) if quick else (1, 2, 3)
    graphs: list[tuple[str, Graph, tuple[int, ...]]] = [
        ("ring 6", ring(6), (1, 2)), ("ring 20", ring(20), (1, 2)), ("star 5", star(5), (1, 3)), ("star 20", star(20), (1, 3)),
        ("random 20", regular(20, 4, rng), (1, 3)), ("tree 20", tree(20, rng), (1, 3)), ("named 6", named(6, 2), (2,)),
        ("named 20", named(20, 3), (3,)),
    ]  # fmt: skip
    for law, service in LAWS.items():
        for m in layers:
            for load in loads:
                long = 30_000.0 if load > 0.8 and not quick else 8_000.0
                usual = Question(4, m, 1, (1.0,), (service,), horizon=long, replications=6, seed=seed)
                for n in (4, 20) if quick else (2, 4, 8, 20, 100):
                    for k in sorted({1, 3, min(7, n - 1)} & set(range(n))):
                        yield Study("complete", law, at(load, replace(usual, devices=n, proposers=k)))
                for _, graph, peers in graphs:
                    for k in peers[:1] if quick else peers:
                        asked = replace(usual, devices=len(graph), proposers=k, graph=graph)
                        yield Study("graphs", law, at(load, asked))
                for n in (4, 20):
                    for k in (1, 3):
                        for skip in (0.5, 1.0):
                            asked = replace(usual, devices=n, proposers=k, skip_aggregation=skip)
                            yield Study("skipped", law, at(load, asked))
    lengths = Trace(
        ("a", "b"), tuple((0.8 * size, 0.9 * size + 0.2 * rng.random()) for size in _lengths(rng))
    )
    for load in loads:
        for m in layers:
            asked = Question(4, m, 3, (1.0,), (lengths,), horizon=8_000.0, replications=6, seed=seed)
            yield Study("trace", "trace", at(load, asked))
    for asked in uneven(20_000.0 if quick else 100_000.0, seed, graphs):
        for load in OVERLOADS[1::2] if quick else OVERLOADS:
            kind = "exponential" if isinstance(asked.laws[0], Exponential) else "fixed"
            yield Study("fluid", kind, at(load, asked))


def uneven(
    horizon: float, seed: int, graphs: Sequence[tuple[str, Graph, tuple[int, ...]]]
) -> Iterator[Question]:
    """Moots in which not all devices are alike, and one in which they are."""
    usual = Question(20, 2, 2, (1.0,), (Exponential(1.0),), horizon=horizon, replications=6, seed=seed)
    one, slow = Exponential(1.0), Exponential(3.0)
    rates = tuple(1.0 + device for device in range(20))
    for m in (1, 2, 3):
        yield replace(usual, layers=m)
        yield replace(usual, layers=m, proposers=7, skip_aggregation=0.5)
        yield replace(usual, layers=m, devices=8, proposers=7, laws=(Fixed(1.0),))
        yield replace(usual, layers=m, laws=(slow, *(one,) * 19))
        yield replace(usual, layers=m, laws=(one,) * 10 + (slow,) * 10)
        yield replace(usual, layers=m, proposers=4, laws=(Fixed(1.0),) * 10 + (Fixed(3.0),) * 10)
        yield replace(usual, layers=m, rates_hz=rates, skip_aggregation=0.5)
        yield replace(usual, layers=m, devices=4, proposers=3, laws=(slow, one, one, one))
        for _, graph, peers in graphs:
            yield replace(usual, layers=m, devices=len(graph), proposers=peers[-1], graph=graph)


def _lengths(rng: Random) -> list[float]:
    """Made-up answers' lengths with a cv of about 0.6."""
    return [rng.lognormvariate(0.0, 0.55) for _ in range(400)]


def compared(study: Study) -> Iterator[Off]:
    """What of a question is known in closed form, beside its simulation."""
    asked, told = study.asked, theory(study.asked)
    seen = simulate(asked)
    k = "k=n-1" if asked.graph is None and asked.proposers == asked.devices - 1 else f"k={asked.proposers}"
    where = f"n={asked.devices} M={asked.layers} {k} load {max(seen.rho):.2g}"

    def off(what: str, value: float, simulated: Interval, stated: Error) -> Off:
        noise = (simulated.high - simulated.value) / simulated.value
        return Off(study.name, study.law, what, value / simulated.value - 1, noise, stated, where)

    if told.overload:
        yield off("growth", told.overload.drift, seen.drift, told.overload.error)
        yield off("goodput", told.overload.goodput, seen.goodput, told.overload.error)
        return
    assert told.latency is not None
    assert told.waiting is not None
    yield off("latency", told.latency.value, seen.latency, told.latency.error)
    yield off("waiting", told.waiting.value, seen.queue_size, told.waiting.error)
    if told.joining and asked.devices <= 20 and told.joining.value:
        yield off("join buffer", told.joining.value, joining(asked), told.joining.error)


def joining(asked: Question) -> Interval:
    """Answers that wait at a device for the rest of their layer, by the log of all jobs of shorter runs."""
    short = replace(asked, horizon=min(asked.horizon, 8_000.0))
    room, until, means = int(1.2 * short.devices * short.horizon) + 1_000, end_s(short), []
    for key in keys(asked.seed, asked.replications):
        counts = replication(short, key, room).counts
        log = counts.log[: counts.totals[3]]
        prompt, stage, begun, end = (
            log[:, FIELDS.index(name)] for name in ("prompt", "stage", "asked", "end")
        )
        some = (stage < stage.max()) & (begun > WARM_UP * until) & (begun < 0.9 * until)
        _, layer = np.unique(np.stack([prompt, stage])[:, some], axis=1, return_inverse=True)
        last = np.zeros(layer.max() + 1)
        np.maximum.at(last, layer.ravel(), end[some])
        wait = float((last[layer.ravel()] - end[some]).sum())
        means.append(wait / ((0.9 - WARM_UP) * until * asked.devices))
    return interval(means)


def main() -> None:
    """Run all, say the ranges."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="some hundred short questions, within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began, found = time.perf_counter(), list[Off]()
    for study in studies(args.quick, args.seed):
        found += compared(study)
    ranges: dict[str, Any] = {}
    for each in found:
        name = " ".join((each.name, each.law, each.what))
        ranges.setdefault(name, []).append(each)
    out = sys.stderr if args.json else sys.stdout
    for name, some in ranges.items():
        low, high = min(some, key=lambda one: one.off), max(some, key=lambda one: one.off)
        known = [one.stated for one in some if one.stated is not None]
        stated = (min(one for one, _ in known), max(one for _, one in known)) if known else None
        beyond = [one for one in some if one.beyond]
        bounds = f"stated {100 * stated[0]:+.0f} to {100 * stated[1]:+.0f}" if stated else "none stated"
        print(
            f"{name}: {100 * low.off:+.1f} % (noise {100 * low.noise:.0f}, {low.where}) to {100 * high.off:+.1f} % "
            f"(noise {100 * high.noise:.0f}, {high.where}); {bounds}; {len(beyond)} of {len(some)} beyond by more than noise"
            + "".join(
                f"\n  beyond: {100 * one.off:+.1f} % (noise {100 * one.noise:.1f}) {one.where}"
                for one in beyond
            ),
            file=out,
        )
        ranges[name] = {
            "low": low.off, "high": high.off, "noise": max(one.noise for one in some), "stated": stated,
            "count": len(some), "beyond": len(beyond),
        }  # fmt: skip
    print(f"{len(found)} figures, {time.perf_counter() - began:.0f} s", file=out)
    if args.json:
        machine = {"arch": platform.machine(), "python": platform.python_version()}
        print(json.dumps({"ranges": ranges, "machine": machine, "seed": args.seed}))


if __name__ == "__main__":
    main()
