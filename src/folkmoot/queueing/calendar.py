"""Any order of service, with departure events: later stage first, a quorum with cancelling, admission by queue length.

Slower than `fcfs`, which knows a job's end when it arrives; here a job may be overtaken or cut off. At one
time arrivals come first, then departures in the order in which their jobs began, then the prompts whose layer
is complete, in the order in which it was asked. Its naive twin is in tests/agreement.
"""

from __future__ import annotations

import math

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


@compiled()
def run(
    shape: Shape,
    discipline: int,
    quorum: int,
    admit: int,
    key: npt.NDArray[np.uint64],
    kind: npt.NDArray[np.int8],
    parameters: Floats,
    rows: Floats,
    counts: Counts,
) -> int:
    """Run as `fcfs.run` does. `quorum` 0 waits for all answers, `admit` 0 takes every prompt.

    A prompt is refused where `admit` or more jobs wait at its own device; `counts.totals[5]` counts these.
    """
    n, layers, k = shape.devices, shape.layers, shape.proposers
    lines = layers + 1 if discipline == LSF else 1
    head, tail = np.full((n, lines), -1, np.int64), np.full((n, lines), -1, np.int64)
    serving, waiting = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    room, fan = 256, k + 1
    heap = np.empty((room, 2), np.int64)
    prompts, born = np.empty((room, 7), np.int64), np.empty(room)
    jobs, times = np.empty((room * fan, 7), np.int64), np.empty((room * fan, 4))
    empty = np.arange(room - 1, -1, -1)
    spare, size, begun, turns, arrived = room, 0, 0, 0, 0
    ready = np.empty(max(16, n), np.int64)
    chosen = np.empty(max(1, k), np.int64)
    seen, newest = np.zeros(n), np.zeros(n)
    coming = _gap(key, 0, shape.rate)
    while True:
        if shape.prompts and arrived == shape.prompts:
            coming = math.inf
        leaving = _time(heap[0, 0]) if size else math.inf
        now = min(coming, leaving)
        if now > shape.until or math.isinf(now):
            break
        if begun > MOST:
            return TOO_MANY
        asking, found = -1, 0
        if coming <= leaving:
            device = _origin(key, arrived, shape.origins)
            counts.totals[0] += 1
            if admit and waiting[device] >= admit:
                counts.totals[5] += 1
            else:
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
            ready[0], found = asking, 1 if asking >= 0 else 0
        else:
            while size and _time(heap[0, 0]) == now:
                job = heap[0, 1] & 0xFFFFFFFF
                stamp = heap[0, 1] >> 32
                size = _pop(heap, size)
                device = jobs[job, _DEVICE]
                if jobs[job, _STATE] != _SERVED or serving[device] != job or jobs[job, _NEXT] != stamp:
                    continue  # cut off before its end
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
                    while place and prompts[ready[place - 1], _TURN] > row[_TURN]:
                        ready[place] = ready[place - 1]
                        place -= 1
                    ready[place] = prompt
                    found += 1
                heap, size, begun = _serve(
                    device, now, head, tail, serving, waiting, jobs, times, counts, heap, size, begun
                )
        for place in range(found):
            prompt = ready[place]
            row = prompts[prompt]
            device, number = row[_ORIGIN], row[_NUMBER]
            if prompt != asking:
                # Its layer is complete: what is left of it is cut off.
                for slot in range(row[_JOBS]):
                    job = prompt * fan + slot
                    other = jobs[job, _DEVICE]
                    if jobs[job, _STATE] == _WAITS:
                        jobs[job, _STATE] = _GONE
                        _unlink(job, other, jobs[job, _AT] - 1 if lines > 1 else 0, head, tail, jobs)
                        waiting[other] -= 1
                        _count(shape, counts, other, times[job, _ASKED], now, 0.0)
                    elif jobs[job, _STATE] == _SERVED:
                        jobs[job, _STATE] = _GONE
                        serving[other] = -1
                        _left(shape, counts, jobs, times, job, now)
                        heap, size, begun = _serve(
                            other, now, head, tail, serving, waiting, jobs, times, counts, heap, size, begun
                        )
                row[_STAGE] += 1
                over = row[_STAGE] > layers + 1
                if row[_STAGE] == layers + 1 and shape.skip > 0.0:
                    over = uniform(branch(key[POLICY], number, 0), 0) < shape.skip
                if over:
                    _finished(shape, counts, device, born[prompt], now, seen, newest)
                    empty[spare] = prompt
                    spare += 1
                    continue
            at, asked = row[_STAGE], 0
            if at <= layers:
                asked = k
                if shape.first.size:
                    asked = min(k, shape.first[device + 1] - shape.first[device])
                    subset(
                        branch(key[ROUTES], number, at),
                        asked,
                        shape.first[device + 1] - shape.first[device],
                        chosen,
                    )
                else:
                    subset(branch(key[ROUTES], number, at), asked, n - 1, chosen)
            row[_GOT], row[_TURN], row[_JOBS], row[_READY] = 0, turns, asked + 1, 0
            turns += 1
            for slot in range(asked + 1):
                other = device
                if slot:
                    drawn = chosen[slot - 1]
                    other = (
                        shape.peers[shape.first[device] + drawn]
                        if shape.first.size
                        else drawn + (drawn >= device)
                    )
                u = (
                    uniform(branch(key[SERVICES], number, 0), 0)
                    if kind[other] == TRACE
                    else uniform(branch(key[SERVICES], number, at), slot)
                )
                job = prompt * fan + slot
                line = at - 1 if lines > 1 else 0
                jobs[job, _PROMPT], jobs[job, _AT], jobs[job, _SLOT], jobs[job, _DEVICE] = (
                    prompt,
                    at,
                    slot,
                    other,
                )
                jobs[job, _NEXT], jobs[job, _STATE], jobs[job, _LOG] = -1, _WAITS, counts.totals[3]
                times[job, _ASKED] = now
                times[job, _TOOK] = duration(kind[other], parameters[other, 0], parameters[other, 1], rows, u)
                _note(counts, number, at, slot, other, now, math.nan, math.nan)
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
    return int(n * (2 * lines + 4) * 8 + heap.size * 8 + prompts.size * 8 + jobs.size * 8 + times.size * 8)


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
