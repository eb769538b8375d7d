"""Any order of service, with departure events: later stage first, a quorum with cancelling, admission by queue length,
and the best of d peers on fresh or old views.

Slower than `fcfs`, which knows a job's end when it arrives; here a job may be overtaken or cut off. At one
time views are refreshed first, then arrivals come, then all departures in the order in which their jobs began,
then the one prompt with a complete layer that was asked first goes on; then departures that are due by now,
the next prompt, and so on. Its naive twin is in tests/agreement.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.queueing._jit import compiled
from folkmoot.queueing.fcfs import (
    TOO_MANY,
    Counts,
    Shape,
    _aged,
    _count,
    _finished,
    _gap,
    _note,
    _origin,
    _pop,
    _push,
    _time,
)
from folkmoot.queueing.services import TRACE, duration
from folkmoot.queueing.streams import POLICY, ROUTES, SERVICES, branch, subset, uniform

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MOST = (1 << 31) - (1 << 24)
"""Jobs that may begin: their number is the upper half of a tag of the heap, and one step begins fewer than 2^24."""

FCFS, LSF = range(2)
"""Disciplines: first come first served; the job of the latest stage first, among equals the first come."""

# Columns of a prompt's row, and of a job's.
_NUMBER, _ORIGIN, _STAGE, _GOT, _TURN, _JOBS, _READY = range(7)
_PROMPT, _AT, _SLOT, _DEVICE, _NEXT, _STATE, _LOG = range(7)
_WAITS, _SERVED, _GONE = range(3)
_ASKED, _TOOK, _BEGAN, _ENDS = range(4)


class Policy(NamedTuple):
    """How jobs are ordered, prompts taken and peers chosen. `quorum` 0 waits for all, `admit` 0 takes every prompt.

    `best_of` 0 chooses peers uniformly, else the best of so many on views that are refreshed at all multiples of
    `view_s` (0: always), to which an origin adds what it has sent since if `count_own`.
    """

    discipline: int
    quorum: int
    admit: int
    best_of: int
    view_s: float
    count_own: bool


class _Views(NamedTuple):
    """Numbers of jobs at the devices at the last refresh, and what each origin has sent since.

    `lengths` and `first` hold for a device only where `stamps` and `sent` say so; the rest is untouched since.
    `tally` is a list of (peer, jobs, next) for each origin that begins at `first`.
    """

    lengths: Whole
    stamps: Whole
    first: Whole
    sent: Whole


@compiled()
def run(
    shape: Shape,
    policy: Policy,
    key: npt.NDArray[np.uint64],
    kind: npt.NDArray[np.int8],
    parameters: Floats,
    rows: Floats,
    mean: Floats,
    counts: Counts,
) -> int:
    """Run as `fcfs.run` does; `mean` are the devices' mean services, which weigh the queues in the best of d.

    A prompt is refused where `policy.admit` or more jobs wait at its own device; `counts.totals[5]` counts these.
    """
    n, layers, k = shape.devices, shape.layers, shape.proposers
    quorum, admit = policy.quorum, policy.admit
    lines = layers + 1 if policy.discipline == LSF else 1
    head, tail = np.full((n, lines), -1, np.int64), np.full((n, lines), -1, np.int64)
    serving, waiting = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    room, fan = 256, k + 1
    heap = np.empty((room, 2), np.int64)
    prompts, born = np.empty((room, 7), np.int64), np.empty(room)
    jobs, times = np.empty((room * fan, 7), np.int64), np.empty((room * fan, 4))
    empty = np.arange(room - 1, -1, -1)
    spare, size, begun, turns, arrived = room, 0, 0, 0, 0
    ready = np.empty(16, np.int64)
    first, found = 0, 0
    chosen, scores = np.empty(max(1, k, min(policy.best_of, n - 1)), np.int64), np.empty(max(1, k))
    old = policy.best_of > 0 and policy.view_s > 0.0
    old_n = n if old else 0
    views = _Views(
        np.zeros(old_n, np.int64),
        np.full(old_n, -1, np.int64),
        np.zeros(old_n, np.int64),
        np.full(old_n, -1, np.int64),
    )
    tally, tallied = np.empty((16, 3), np.int64), 0
    refresh, refreshed = 0, math.inf
    if old:
        refreshed = policy.view_s
    seen, newest = np.zeros(n), np.zeros(n)
    coming = _gap(key, 0, shape.rate)
    now = 0.0
    while True:
        leaving = _time(heap[0, 0]) if size else math.inf
        asking = -1
        if first < found and leaving > now:
            # Nothing else is due by now, so the prompt whose layer was asked first goes on.
            asking = ready[first]
            first += 1
            if first == found:
                first, found = 0, 0
            row = prompts[asking]
            device = row[_ORIGIN]
            for slot in range(row[_JOBS]):  # what is left of its layer is cut off
                job = asking * fan + slot
                other = jobs[job, _DEVICE]
                if jobs[job, _STATE] == _WAITS:
                    jobs[job, _STATE] = _GONE
                    _keep(views, refresh, other, waiting, serving)
                    _unlink(job, other, jobs[job, _AT] - 1 if lines > 1 else 0, head, tail, jobs)
                    waiting[other] -= 1
                    _count(shape, counts, other, times[job, _ASKED], now, 0.0)
                elif jobs[job, _STATE] == _SERVED:
                    jobs[job, _STATE] = _GONE
                    _keep(views, refresh, other, waiting, serving)
                    serving[other] = -1
                    _left(shape, counts, jobs, times, job, now)
                    heap, size, begun = _serve(
                        other, now, head, tail, serving, waiting, jobs, times, counts, heap, size, begun
                    )
            row[_STAGE] += 1
            over = row[_STAGE] > layers + 1
            if row[_STAGE] == layers + 1 and shape.skip > 0.0:
                over = uniform(branch(key[POLICY], row[_NUMBER], 0), 0) < shape.skip
            if over:
                _finished(shape, counts, device, born[asking], now, seen, newest)
                empty[spare] = asking
                spare += 1
                continue
        else:
            if shape.prompts and arrived == shape.prompts:
                coming = math.inf
            now = min(coming, leaving)
            if now > shape.until or math.isinf(now):
                break
            if begun > MOST:
                return TOO_MANY
            if now >= refreshed:
                refresh = _latest(refresh, now, policy.view_s)
                refreshed = (refresh + 1) * policy.view_s
                tallied = 0
            if coming <= leaving:
                device = _origin(key, arrived, shape.origins)
                counts.totals[0] += 1
                taken = admit == 0 or waiting[device] < admit
                if taken:
                    if spare == 0:
                        prompts, born, jobs, times, empty = _grown(prompts, born, jobs, times, fan)
                        spare = room
                        room *= 2
                    spare -= 1
                    asking = empty[spare]
                    row = prompts[asking]
                    row[_NUMBER], row[_ORIGIN], row[_STAGE], row[_READY] = arrived, device, 1, 0
                    born[asking] = now
                arrived += 1
                coming = now + _gap(key, arrived, shape.rate)
                if not taken:
                    counts.totals[5] += 1
                    continue
            else:
                job = heap[0, 1] & 0xFFFFFFFF
                stamp = heap[0, 1] >> 32
                size = _pop(heap, size)
                device = jobs[job, _DEVICE]
                if jobs[job, _STATE] != _SERVED or serving[device] != job or jobs[job, _NEXT] != stamp:
                    continue  # cut off before its end
                _keep(views, refresh, device, waiting, serving)
                serving[device] = -1
                jobs[job, _STATE] = _GONE
                _left(shape, counts, jobs, times, job, now)
                prompt = jobs[job, _PROMPT]
                row = prompts[prompt]
                row[_GOT] += 1
                needed = row[_JOBS] if row[_STAGE] > layers or quorum == 0 else min(quorum, row[_JOBS])
                if row[_GOT] >= needed and row[_READY] == 0:
                    row[_READY] = 1
                    if found == ready.size:
                        more = np.empty(2 * found, np.int64)
                        more[:found] = ready
                        ready = more
                    # In the order of their turns: few are ready at one time.
                    place = found
                    while place > first and prompts[ready[place - 1], _TURN] > row[_TURN]:
                        ready[place] = ready[place - 1]
                        place -= 1
                    ready[place] = prompt
                    found += 1
                heap, size, begun = _serve(
                    device, now, head, tail, serving, waiting, jobs, times, counts, heap, size, begun
                )
                continue
        row = prompts[asking]
        number, at, asked = row[_NUMBER], row[_STAGE], 0
        if at <= layers:
            degree = shape.first[device + 1] - shape.first[device] if shape.first.size else n - 1
            asked = min(k, degree)
            drawn = min(max(k, policy.best_of), degree)
            subset(branch(key[ROUTES], number, at), drawn, degree, chosen)
            for place in range(drawn):
                if shape.first.size:
                    chosen[place] = shape.peers[shape.first[device] + chosen[place]]
                else:
                    chosen[place] += chosen[place] >= device
            if policy.best_of:
                _best(chosen, scores, drawn, asked, device, mean, waiting, serving, views, refresh, tally)
                if old and policy.count_own:
                    if tallied + asked > tally.shape[0]:
                        longer = np.empty((2 * (tallied + asked), 3), np.int64)
                        longer[:tallied] = tally[:tallied]
                        tally = longer
                    tallied = _sent(chosen, asked, device, views, refresh, tally, tallied)
        row[_GOT], row[_TURN], row[_JOBS], row[_READY] = 0, turns, asked + 1, 0
        turns += 1
        for slot in range(asked + 1):
            other = chosen[slot - 1] if slot else device
            u = (
                uniform(branch(key[SERVICES], number, 0), 0)
                if kind[other] == TRACE
                else uniform(branch(key[SERVICES], number, at), slot)
            )
            job = asking * fan + slot
            line = at - 1 if lines > 1 else 0
            jobs[job, _PROMPT], jobs[job, _AT], jobs[job, _SLOT], jobs[job, _DEVICE] = asking, at, slot, other
            jobs[job, _NEXT], jobs[job, _STATE], jobs[job, _LOG] = -1, _WAITS, counts.totals[3]
            times[job, _ASKED] = now
            times[job, _TOOK] = duration(kind[other], parameters[other, 0], parameters[other, 1], rows, u)
            _note(counts, number, at, slot, other, now, math.nan, math.nan)
            _keep(views, refresh, other, waiting, serving)
            if tail[other, line] >= 0:
                jobs[tail[other, line], _NEXT] = job
            else:
                head[other, line] = job
            tail[other, line] = job
            waiting[other] += 1
            heap, size, begun = _serve(
                other, now, head, tail, serving, waiting, jobs, times, counts, heap, size, begun
            )
    for device in range(n):
        _aged(shape, counts, device, shape.until, seen, newest)
        if serving[device] >= 0:
            job = serving[device]
            _count(shape, counts, device, times[job, _ASKED], times[job, _BEGAN], times[job, _TOOK])
        for line in range(lines):
            job = head[device, line]
            while job >= 0:
                _count(shape, counts, device, times[job, _ASKED], math.inf, 0.0)
                job = jobs[job, _NEXT]
    words = heap.size + prompts.size + jobs.size + times.size + 4 * old_n + tally.size
    return int(n * (2 * lines + 4) * 8 + words * 8)


@compiled()
def _latest(refresh: int, now: float, view_s: float) -> int:
    """The largest m with m * view_s <= now, m being at least `refresh`."""
    refresh = max(refresh, int(now / view_s) - 1)
    while (refresh + 1) * view_s <= now:
        refresh += 1
    return refresh


@compiled(inline=True)
def _keep(views: _Views, refresh: int, device: int, waiting: Whole, serving: Whole) -> None:
    """A device's number of jobs is about to change: as it is, it was at the last refresh, if it changes for the first time."""
    if views.stamps.size and views.stamps[device] != refresh:
        views.stamps[device] = refresh
        views.lengths[device] = waiting[device] + (serving[device] >= 0)


@compiled()
def _best(
    chosen: Whole,
    scores: Floats,
    drawn: int,
    asked: int,
    device: int,
    mean: Floats,
    waiting: Whole,
    serving: Whole,
    views: _Views,
    refresh: int,
    tally: Whole,
) -> None:
    """Keep the `asked` of the `drawn` peers that promise the least delay, best first, equals as they were drawn."""
    for place in range(drawn):
        peer = chosen[place]
        jobs = waiting[peer] + (serving[peer] >= 0)
        if views.stamps.size:
            if views.stamps[peer] == refresh:
                jobs = views.lengths[peer]
            entry = views.first[device] if views.sent[device] == refresh else -1
            while entry >= 0:
                if tally[entry, 0] == peer:
                    jobs += tally[entry, 1]
                    break
                entry = tally[entry, 2]
        score = mean[peer] * float(jobs + 1)
        spot = min(place, asked)
        while spot and scores[spot - 1] > score:
            if spot < asked:
                scores[spot], chosen[spot] = scores[spot - 1], chosen[spot - 1]
            spot -= 1
        if spot < asked:
            scores[spot], chosen[spot] = score, peer


@compiled()
def _sent(
    chosen: Whole, asked: int, device: int, views: _Views, refresh: int, tally: Whole, tallied: int
) -> int:
    """Add the jobs of a layer to what their origin has sent since the last refresh. Gives the entries in use."""
    if views.sent[device] != refresh:
        views.sent[device], views.first[device] = refresh, -1
    for place in range(asked):
        entry = views.first[device]
        while entry >= 0 and tally[entry, 0] != chosen[place]:
            entry = tally[entry, 2]
        if entry >= 0:
            tally[entry, 1] += 1
        else:
            tally[tallied, 0], tally[tallied, 1], tally[tallied, 2] = chosen[place], 1, views.first[device]
            views.first[device] = tallied
            tallied += 1
    return tallied


@compiled(inline=True)
def _serve(
    device: int,
    now: float,
    head: Whole,
    tail: Whole,
    serving: Whole,
    waiting: Whole,
    jobs: Whole,
    times: Floats,
    counts: Counts,
    heap: Whole,
    size: int,
    begun: int,
) -> tuple[Whole, int, int]:
    """Begin with the next job, if the device is free and one waits: the latest stage's line first."""
    if serving[device] >= 0:
        return heap, size, begun
    for line in range(head.shape[1] - 1, -1, -1):
        job = head[device, line]
        if job < 0:
            continue
        head[device, line] = jobs[job, _NEXT]
        if head[device, line] < 0:
            tail[device, line] = -1
        waiting[device] -= 1
        serving[device] = job
        # In service it needs no successor: there stands when it began, so that its departure knows it again.
        jobs[job, _STATE], jobs[job, _NEXT] = _SERVED, begun
        times[job, _BEGAN], times[job, _ENDS] = now, now + times[job, _TOOK]
        if jobs[job, _LOG] < counts.log.shape[0]:
            counts.log[jobs[job, _LOG], 5] = now
        if size == heap.shape[0]:
            bigger = np.empty((2 * size, 2), np.int64)
            bigger[:size] = heap
            heap = bigger
        _push(heap, size, times[job, _ENDS], (begun << 32) | job)
        return heap, size + 1, begun + 1
    return heap, size, begun


@compiled(inline=True)
def _unlink(job: int, device: int, line: int, head: Whole, tail: Whole, jobs: Whole) -> None:
    """Take a waiting job out of its line."""
    before, at = -1, head[device, line]
    while at != job:
        before, at = at, jobs[at, _NEXT]
    if before < 0:
        head[device, line] = jobs[job, _NEXT]
    else:
        jobs[before, _NEXT] = jobs[job, _NEXT]
    if tail[device, line] == job:
        tail[device, line] = before


@compiled(inline=True)
def _left(shape: Shape, counts: Counts, jobs: Whole, times: Floats, job: int, now: float) -> None:
    """A job has left its server: count it, and complete its line in the log."""
    start = times[job, _BEGAN]
    _count(shape, counts, jobs[job, _DEVICE], times[job, _ASKED], start, now - start)
    if jobs[job, _LOG] < counts.log.shape[0]:
        counts.log[jobs[job, _LOG], 6] = now


@compiled()
def _grown(
    prompts: Whole, born: Floats, jobs: Whole, times: Floats, fan: int
) -> tuple[Whole, Floats, Whole, Floats, Whole]:
    room = prompts.shape[0]
    rows, borns = np.empty((2 * room, 7), np.int64), np.empty(2 * room)
    many, longer = np.empty((2 * room * fan, 7), np.int64), np.empty((2 * room * fan, 4))
    rows[:room], borns[:room], many[: room * fan], longer[: room * fan] = prompts, born, jobs, times
    empty = np.empty(2 * room, np.int64)
    for place in range(room):
        empty[place] = 2 * room - 1 - place
    return rows, borns, many, longer, empty
