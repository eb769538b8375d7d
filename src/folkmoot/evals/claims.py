"""The paper's claims (PROTOCOL: known faults), each put to the records: confirmed, refuted, or not to be told from these.

A claim about answers is confirmed or refuted by paired differences whose McNemar p is below 0.05 after Holm's correction over the
comparisons of that claim; one about queues by runs that repeat the recorded jobs (`evals.queues`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from typing import Literal

from folkmoot.evals.paper import FAR, INSIDE, OUTSIDE, PaperRow, PaperTable
from folkmoot.evals.queues import LONG
from folkmoot.evals.report import Against, against, corrected
from folkmoot.evals.statistics import LEVEL, least_shown, power

Verdict = Literal["confirmed", "refuted", "undecided"]
ENOUGH = 0.8
"""A test that finds what is there less often than this had too few prompts."""
BEST_K = 4
"""The row that the paper's text names as the best."""
CURVED = 2.0
"""Between a growth that is linear (`Queues.bend` 1) and an exponential one (3 or more)."""
LIKE = 0.05
"""Devices are alike where the formula's load is 1 within this much where the busiest one is at its limit."""
STEADY = 0.01
"""Queues stay where at most this share of the jobs that come is left waiting, as 1 % of overload would leave, and grow where more is."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim in few words, what the records make of it, and why."""

    claim: str
    verdict: Verdict
    why: str


def claims(tables: Sequence[PaperTable]) -> list[Claim]:
    """All claims, as far as there are tables for them; none without any."""
    if not tables:
        return []
    return [
        *(_best_row(table) for table in tables),
        *(claim for table in tables for claim in _answers(table)),
        *_diversity(tables),
        *(claim for table in tables for claim in _queues(table)),
    ]


def _name(table: PaperTable) -> str:
    return "same models" if table.same else "different models"


def _shape(row: PaperRow) -> str:
    return f"M={row.layers} k={row.proposers}"


def _best_row(table: PaperTable) -> Claim:
    claim, peers = f"the best row is k = {BEST_K} ({_name(table)})", len(table.models) - 1
    if peers < BEST_K:
        return Claim(
            claim, "refuted", f"of {peers + 1} devices each has {peers} peers, so there is no such row"
        )
    best = max(table.rows, key=lambda row: row.right.value)
    less = _compared((best, row) for row in table.rows if row is not best)
    sure = all(each.corrected < 1 - LEVEL for each in less.values())
    verdict: Verdict = "undecided" if not sure else "confirmed" if best.proposers == BEST_K else "refuted"
    return Claim(claim, verdict, f"{_shape(best)} got the most right; {_told(less)}")


# ---- answers -------------------------------------------------------------------------------------------


def _answers(table: PaperTable) -> Iterator[Claim]:
    alone = [row for row in table.rows if row.layers == 0]
    mixed = [row for row in table.rows if row.layers]
    gains = _compared((row, alone[0]) for row in mixed if alone)
    if gains:
        verdict = _all(gains.values(), every=False)
        yield Claim(f"a mixture answers better than one device ({_name(table)})", verdict, _told(gains))
        best = max(gains, key=lambda name: abs(gains[name].by.value))
        yield _ten(table, best, gains[best])
    rises = _compared((high, low) for low, high in _steps(table.rows))
    if rises:
        yield Claim(f"accuracy rises with M and k ({_name(table)})", _all(rises.values()), _told(rises))


def _steps(rows: Sequence[PaperRow]) -> Iterator[tuple[PaperRow, PaperRow]]:
    """Each row and the one with a layer or a peer more."""
    by_shape = {(row.layers, row.proposers): row for row in rows}
    for (layers, proposers), row in by_shape.items():
        for more in ((layers, proposers + 1), (layers + 1, proposers)):
            if layers and more in by_shape:
                yield row, by_shape[more]


def _diversity(tables: Sequence[PaperTable]) -> Iterator[Claim]:
    for one in (table for table in tables if table.same):
        for other in (table for table in tables if not table.same):
            like = {_shape(row): row for row in one.rows}
            gains = _compared(
                (row, like[_shape(row)]) for row in other.rows if row.layers and _shape(row) in like
            )
            if gains:
                yield Claim(
                    f"different models answer better than the same ({', '.join(dict.fromkeys(other.models))} against {one.models[0]})",
                    _all(gains.values()),
                    _told(gains),
                )


def _compared(pairs: Iterable[tuple[PaperRow, PaperRow]]) -> dict[str, Against]:
    found = {}
    for here, there in pairs:
        each = against(here.records, _shape(there), there.records)
        if each is not None:
            found[f"{_shape(here)} less {_shape(there)}"] = each
    return corrected(found)


def _all(found: Iterable[Against], every: bool = True) -> Verdict:
    """Whether all of the differences, or not `every` one but any, are above 0 for sure; refuted where that is sure not to be."""
    signs = [0 if each.corrected >= 1 - LEVEL else (1 if each.by.value > 0 else -1) for each in found]
    if all(sign > 0 for sign in signs) or (not every and max(signs) > 0 and min(signs) >= 0):
        return "confirmed"
    if (every and min(signs) < 0) or all(sign < 0 for sign in signs):
        return "refuted"
    return "undecided"


def _told(found: dict[str, Against]) -> str:
    return "; ".join(
        f"{name}: {100 * each.by.value:+.1f} points ({100 * each.by.low:+.1f} to {100 * each.by.high:+.1f}), p {each.corrected:.2g}"
        for name, each in found.items()
    )


def _ten(table: PaperTable, name: str, most: Against) -> Claim:
    won, lost = most.only_here / most.prompts, most.only_there / most.prompts
    won, lost = max(won, lost), min(won, lost)
    ten, ours, least = power(won, lost, 10), power(won, lost, most.prompts), least_shown(10, lost)
    return Claim(
        f"ten prompts tell the rows apart ({_name(table)})",
        "refuted" if ten < ENOUGH else "confirmed",
        f"the largest difference from one device is {name}, {100 * most.by.value:+.1f} points: ten prompts show it by McNemar's test in "
        f"{100 * ten:.0f} of 100 tries, the {most.prompts} here in {100 * ours:.0f}; "
        + (
            "there is none that ten prompts show"
            if isnan(least)
            else f"ten prompts show differences from {100 * least:.0f} points on"
        )
        + f" in {100 * ENOUGH:.0f}",
    )


# ---- queues --------------------------------------------------------------------------------------------


def _queues(table: PaperTable) -> Iterator[Claim]:
    rows, name = table.rows, _name(table)
    inside, outside = [row.inside.growth for row in rows], [row.outside.growth for row in rows]
    stay, grow = [each.high < STEADY for each in inside], [each.low > STEADY for each in outside]
    against_it = any(each.low > STEADY for each in inside) or any(each.high < STEADY for each in outside)
    own: Verdict = "refuted" if against_it else "confirmed" if all(stay) and all(grow) else "undecided"
    yield Claim(
        f"queues stay where each device's own load is below 1, and else grow ({name})",
        own,
        f"at {INSIDE} of the busiest device's limit queues stay in {sum(stay)} of {len(rows)} rows, at {OUTSIDE} they grow in {sum(grow)}",
    )
    spread = [row.alpha_s * row.jobs * row.limit_hz / len(table.models) for row in rows]
    early = [rises and OUTSIDE * load < 1.0 for rises, load in zip(grow, spread, strict=True)]
    exact = all(abs(load - 1.0) < LIKE for load in spread)
    yield Claim(
        f"queues stay where α((k+1)M+1)λ < 1 with the mean α, and else grow ({name})",
        "refuted" if any(early) or own == "refuted" else own if exact else "undecided",
        f"the formula's load is {min(spread):.2f} to {max(spread):.2f} where the busiest device is at its limit; queues grow below 1 for certain in "
        f"{sum(early)} of {len(rows)} rows",
    )
    bends = [row.far.bend for row in rows]
    yield Claim(
        f"an unstable queue grows exponentially ({name})",
        "confirmed"
        if all(each.low > CURVED for each in bends)
        else "refuted"
        if all(each.high < CURVED for each in bends)
        else "undecided",
        f"at {FAR:g} times its own limit a queue's growth from the third quarter to the last is {min(each.value for each in bends):.2f} to {max(each.value for each in bends):.2f} times "
        "that from the first to the second: 1 is linear, an exponential that grew as much from the first to the last would have 3 or more",
    )
    for where, some in (
        ("a load that lasts", [row.below for row in rows]),
        ("ten prompts of overload", [row.ten for row in rows]),
    ):
        # Two rows speak against it only where both differ for certain.
        order = [
            (one.size.low > other.size.high) - (one.size.high < other.size.low)
            if one.latency.low > other.latency.high
            else (other.size.low > one.size.high) - (other.size.high < one.size.low)
            for one, other in combinations(some, 2)
            if one.latency.low > other.latency.high or other.latency.low > one.latency.high
        ]  # fmt: skip
        yield Claim(
            f"queue size rises with latency ({name}, {where})",
            "refuted"
            if -1 in order
            else "confirmed"
            if order and all(sign == 1 for sign in order)
            else "undecided",
            f"of {len(order)} pairs of rows whose latencies differ for certain the slower one has the longer queue in {order.count(1)}, the shorter in "
            f"{order.count(-1)}",
        )
    ratios = [row.below.script.value / row.below.size.value for row in rows]
    apart = [
        row.below.script.low > row.below.size.high or row.below.script.high < row.below.size.low
        for row in rows
    ]
    yield Claim(
        f"the script's column is the average queue ({name})",
        "refuted" if any(apart) else "undecided",
        f"at a load that lasts it is {min(ratios):.2f} to {max(ratios):.2f} times the time average",
    )
    short = [row.ten.size.value / row.above.size.value for row in rows]
    yield Claim(
        f"ten prompts at such a load show an average queue ({name})",
        "refuted" if all(each < 0.5 for each in short) else "undecided",
        f"the queue of ten prompts is {min(short):.3f} to {max(short):.3f} of that of {LONG:,} at the same rate: there is no average, it grows with the run",
    )
