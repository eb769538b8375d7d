"""First come first served, without departure events: one busy-until clock a device, one heap entry a prompt.

A job's start and end are known when it arrives, since nothing can overtake it; so a layer's end is the
largest of its jobs' ends, and the prompt comes back then. Every prompt ends with its aggregation: only so are
a device's answers seen in the order of their ends, which their age needs. Its naive twin is in tests/agreement.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.queueing._jit import compiled
from folkmoot.queueing.services import TRACE, duration
from folkmoot.queueing.streams import ARRIVALS, ORIGINS, ROUTES, SERVICES, branch, subset, uniform

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

BINS_PER_OCTAVE = 64
OCTAVES = 48
CHECKPOINTS = 400

MOST = 1 << 23
"""Prompts under way when twice as many is all that a tag of the heap can number (24 bits)."""
TOO_MANY = -1
"""What a kernel gives back instead of bytes where more is under way than it can number."""

FIELDS = ("prompt", "stage", "slot", "device", "asked", "start", "end")
"""Columns of the log of jobs."""


class Shape(NamedTuple):
    """What is simulated. `origins` are the cumulated shares of the prompts, `first`/`peers` a graph as CSR (empty: complete)."""

    devices: int
    layers: int
    proposers: int
    rate: float
    origins: Floats
    first: Whole
    peers: Whole
    skip: float
    warm: float
    until: float
    prompts: int


class Counts(NamedTuple):
    """What a run has seen. Times in seconds; areas are integrals over [warm, until]."""

    waiting: Floats
    busy: Floats
    late: Floats
    checkpoints: Whole
    latency: Floats
    histogram: Whole
    age: Floats
    totals: Whole
    log: Floats


@compiled()
def run(
    shape: Shape,
    key: npt.NDArray[np.uint64],
    kind: npt.NDArray[np.int8],
    parameters: Floats,
    rows: Floats,
    counts: Counts,
) -> int:
    """Run until `shape.until` or, with `shape.prompts` > 0, until so many prompts are through.

    Gives the bytes of its state, or `TOO_MANY`.
    """
    n, layers, k = shape.devices, shape.layers, shape.proposers
    free = np.zeros(n)
    room = 64
    heap = np.empty((room, 2), np.int64)
    origin = np.empty(room, np.int32)
    stage = np.empty(room, np.int16)
    number = np.empty(room, np.int64)
    born = np.empty(room, np.float64)
    empty = np.empty(room, np.int32)
    for place in range(room):
        empty[place] = room - 1 - place
    spare, size, pushed = room, 0, 0
    chosen = np.empty(max(1, k), np.int64)
    seen = np.zeros(n)
    newest = np.zeros(n)
    arrived = 0
    coming = _gap(key, 0, shape.rate)
    while True:
        if size == 0 or coming <= _time(heap[0, 0]):
            if coming > shape.until or (shape.prompts and arrived == shape.prompts):
                if size == 0 or not shape.prompts:
                    break
                coming = math.inf
                continue
            if spare == 0:
                if room > MOST:
                    return TOO_MANY
                heap, origin, stage, number, born, empty = _grown(heap, origin, stage, number, born)
                spare, room = room, 2 * room
            spare -= 1
            slot = empty[spare]
            now = coming
            number[slot], born[slot], stage[slot] = arrived, now, 1
            origin[slot] = _origin(key, arrived, shape.origins)
            arrived += 1
            coming = now + _gap(key, arrived, shape.rate)
            counts.totals[0] += 1
        else:
            now = _time(heap[0, 0])
            slot = heap[0, 1] & 0xFFFFFF
            size = _pop(heap, size)
            if now > shape.until:
                break
        at = stage[slot]
        device, prompt = origin[slot], number[slot]
        latest = now
        draw, row = branch(key[SERVICES], prompt, at), branch(key[SERVICES], prompt, 0)
        if at <= layers:
            asked = k
            if shape.first.size:
                degree = shape.first[device + 1] - shape.first[device]
                asked = min(k, degree)
                subset(branch(key[ROUTES], prompt, at), asked, degree, chosen)
            else:
                subset(branch(key[ROUTES], prompt, at), asked, n - 1, chosen)
            for place in range(asked + 1):
                other = device
                if place:
                    drawn = chosen[place - 1]
                    other = (
                        shape.peers[shape.first[device] + drawn]
                        if shape.first.size
                        else drawn + (drawn >= device)
                    )
                u = uniform(row, 0) if kind[other] == TRACE else uniform(draw, place)
                took = duration(kind[other], parameters[other, 0], parameters[other, 1], rows, u)
                start = max(now, free[other])
                free[other] = start + took
                latest = max(latest, free[other])
                _count(shape, counts, other, now, start, took)
                _note(counts, prompt, at, place, other, now, start, free[other])
            stage[slot] = at + 1
            if size == heap.shape[0]:
                bigger = np.empty((2 * size, 2), np.int64)
                bigger[:size] = heap
                heap = bigger
            _push(heap, size, latest, (pushed << 24) | slot)
            size, pushed = size + 1, pushed + 1
            continue
        else:
            u = uniform(row, 0) if kind[device] == TRACE else uniform(draw, 0)
            took = duration(kind[device], parameters[device, 0], parameters[device, 1], rows, u)
            start = max(now, free[device])
            free[device] = start + took
            latest = free[device]
            _count(shape, counts, device, now, start, took)
            _note(counts, prompt, at, 0, device, now, start, latest)
        _finished(shape, counts, device, born[slot], latest, seen, newest)
        empty[spare] = slot
        spare += 1
    for device in range(n):
        _aged(shape, counts, device, shape.until, seen, newest)
    return (n * 4 * 8) + heap.size * 8 + room * (4 + 2 + 8 + 8 + 4)


@compiled()
def _time(bits: int) -> float:
    return np.int64(bits).view(np.float64)


@compiled()
def _gap(key: npt.NDArray[np.uint64], prompt: int, rate: float) -> float:
    return -math.log1p(-uniform(branch(key[ARRIVALS], prompt, 0), 0)) / rate


@compiled()
def _origin(key: npt.NDArray[np.uint64], prompt: int, origins: Floats) -> int:
    u = uniform(branch(key[ORIGINS], prompt, 0), 0)
    if origins.size == 1:
        return int(u * origins[0])
    return min(int(np.searchsorted(origins, u, side="right")), origins.size - 1)


@compiled()
def _push(heap: Whole, size: int, time: float, tag: int) -> None:
    """Times are positive, so that their bits order as they do; equal ones keep the order of their tags."""
    bits = np.float64(time).view(np.int64)
    place = size
    while place:
        above = (place - 1) >> 2
        if heap[above, 0] < bits or (heap[above, 0] == bits and heap[above, 1] < tag):
            break
        heap[place, 0], heap[place, 1] = heap[above, 0], heap[above, 1]
        place = above
    heap[place, 0], heap[place, 1] = bits, tag


@compiled()
def _pop(heap: Whole, size: int) -> int:
    size -= 1
    bits, tag = heap[size, 0], heap[size, 1]
    place = 0
    while True:
        child = 4 * place + 1
        if child >= size:
            break
        best = child
        for other in range(child + 1, min(child + 4, size)):
            if heap[other, 0] < heap[best, 0] or (
                heap[other, 0] == heap[best, 0] and heap[other, 1] < heap[best, 1]
            ):
                best = other
        if bits < heap[best, 0] or (bits == heap[best, 0] and tag < heap[best, 1]):
            break
        heap[place, 0], heap[place, 1] = heap[best, 0], heap[best, 1]
        place = best
    heap[place, 0], heap[place, 1] = bits, tag
    return size


@compiled()
def _grown(heap: Whole, origin: Any, stage: Any, number: Any, born: Any) -> Any:
    room = origin.shape[0]
    more = np.empty((2 * room, 2), np.int64)
    more[: heap.shape[0]] = heap
    origins, stages = np.empty(2 * room, np.int32), np.empty(2 * room, np.int16)
    numbers, borns = np.empty(2 * room, np.int64), np.empty(2 * room, np.float64)
    origins[:room], stages[:room], numbers[:room], borns[:room] = origin, stage, number, born
    empty = np.empty(2 * room, np.int32)
    for place in range(room):
        empty[place] = 2 * room - 1 - place
    return more, origins, stages, numbers, borns, empty


@compiled()
def _count(shape: Shape, counts: Counts, device: int, asked: float, start: float, took: float) -> None:
    """Add a job to the areas of its device, and to the number waiting at each checkpoint."""
    warm, until = shape.warm, shape.until
    counts.waiting[device] += max(0.0, min(start, until) - max(asked, warm))
    end = start + took
    counts.busy[device] += max(0.0, min(end, until) - max(start, warm))
    counts.latency[1] = max(counts.latency[1], end)
    if math.isinf(until):
        return
    middle, quarter = (warm + until) / 2, (until - warm) / 4
    counts.late[device, 0] += max(0.0, min(start, middle + quarter) - max(asked, middle))
    counts.late[device, 1] += max(0.0, min(start, until) - max(asked, middle + quarter))
    if start > asked:
        scale = CHECKPOINTS / (until - warm)
        first = max(0, math.ceil((asked - warm) * scale))
        last = min(CHECKPOINTS, math.ceil((min(start, until + 1.0 / scale) - warm) * scale))
        if first < last:
            counts.checkpoints[first] += 1
            counts.checkpoints[last] -= 1


@compiled()
def _finished(
    shape: Shape, counts: Counts, device: int, born: float, end: float, seen: Floats, newest: Floats
) -> None:
    if end > shape.until:
        return
    counts.totals[1] += 1
    _aged(shape, counts, device, end, seen, newest)
    newest[device] = max(newest[device], born)
    if end < shape.warm:
        return
    counts.totals[4] += 1
    latency = end - born
    counts.latency[0] += latency
    place = int((math.log2(max(latency, 1e-9)) + 24.0) * BINS_PER_OCTAVE)
    counts.histogram[min(max(place, 0), OCTAVES * BINS_PER_OCTAVE - 1)] += 1


@compiled()
def _aged(shape: Shape, counts: Counts, device: int, now: float, seen: Floats, newest: Floats) -> None:
    """Add the area under the age of the newest answer at a device, from the last look until now."""
    since, now = max(seen[device], shape.warm), min(now, shape.until)
    if since < now < math.inf:
        counts.age[device] += ((now - newest[device]) ** 2 - (since - newest[device]) ** 2) / 2
    seen[device] = max(seen[device], now)


@compiled()
def _note(
    counts: Counts, prompt: int, stage: int, slot: int, device: int, asked: float, start: float, end: float
) -> None:
    """Count a job, and write it into the log where there is room."""
    place = counts.totals[3]
    counts.totals[3] += 1
    if place < counts.log.shape[0]:
        row = counts.log[place]
        row[0], row[1], row[2], row[3], row[4], row[5], row[6] = (
            prompt,
            stage,
            slot,
            device,
            asked,
            start,
            end,
        )
