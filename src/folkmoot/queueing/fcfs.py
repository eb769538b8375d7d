"""First come first served, without departure events: one busy-until clock a device, one heap entry a prompt.

A job's start and end are known when it arrives, since nothing can overtake it; so a layer's end is the
largest of its jobs' ends, and the prompt comes back then. Every prompt ends with its aggregation: only so are
a device's answers seen in the order of their ends, which their age needs. Its naive twin is in tests/agreement.

The kernel runs in slices: it comes back after so many events, or when it needs room, and goes on where it was. So
its arrays never move inside the loop, room is asked for where memory is counted, and Ctrl-C is heard.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.errors import TheoryError
from folkmoot.queueing._jit import Word, compiled, i64, prefetch, u64
from folkmoot.queueing.heap import TOP, TOP_TAG, bits_of, cut_last, heap_of, push, replace_top, time_of
from folkmoot.queueing.memory import room_for
from folkmoot.queueing.services import EXPONENTIAL, TRACE, Services, duration
from folkmoot.queueing.streams import ARRIVALS, ORIGINS, ROUTES, SERVICES, STAGES, branch_of, subset, uniform

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

BINS_PER_OCTAVE = 64
OCTAVES = 48
CHECKPOINTS = 400

FIELDS = ("prompt", "stage", "slot", "device", "asked", "start", "end")
"""Columns of the log of jobs."""

SLICE = 1 << 20
"""Events between two looks at the outer world, some tenths of a second."""
SLOT_BITS = 26
"""Of a tag of the heap: so many bits number what is under way, the rest what was pushed."""

OVER, FULL, MORE = range(3)
"""Why a kernel comes back: it is at its end, it needs room for prompts, or its slice is over."""

# A device's cache line of words; the four areas side by side, so that they are added to at once.
FREE, WAITING, EARLY, LATE, BUSY, AGE, SEEN, NEWEST = (u64(word) for word in range(8))
DEVICE_WORDS = 8
# A prompt's words: its number times STAGES plus its stage (of a free one: the next free one), its birth, its origin.
_BORN, _ORIGIN = u64(1), u64(2)
_PROMPT_WORDS = 3
# What stays of a kernel between its slices.
ARRIVED, SIZE, TURNS, SPARE, JOBS, THROUGH, COUNTED, REFUSED, BEGUN, EPOCH, TALLIED = range(11)
COMING, LATENCY, LAST, NOW = range(4)

NONE = u64(2**63)
_1, _2, _3 = u64(1), u64(2), u64(3)
_BITS, _MASK = u64(SLOT_BITS), u64((1 << SLOT_BITS) - 1)
_STAGES = u64(STAGES)


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


class Tally(NamedTuple):
    """What a kernel counts for all devices together, and what stays of it between its slices."""

    whole: Whole
    real: Floats
    checkpoints: Whole
    histogram: Whole
    log: Floats

    @classmethod
    def new(cls, log: int) -> Tally:
        """Before anything has come."""
        return cls(
            np.zeros(16, np.int64), np.zeros(8), np.zeros(CHECKPOINTS + 1, np.int64),
            np.zeros(OCTAVES * BINS_PER_OCTAVE, np.int64), np.zeros((log, len(FIELDS))),
        )  # fmt: skip

    def counts(self, areas: Floats, age: Floats) -> Counts:
        """The counts with those of the devices: `areas` (n, 4) of waiting, early, late and busy."""
        seen = [self.whole[place] for place in (ARRIVED, THROUGH)] + [0]
        seen += [self.whole[place] for place in (JOBS, COUNTED, REFUSED)]
        return Counts(
            areas[:, 0].copy(), areas[:, 3].copy(), areas[:, 1:3].copy(), self.checkpoints, self.real[[LATENCY, LAST]], self.histogram,
            age.copy(),
            np.array(seen, np.int64), self.log,
        )  # fmt: skip


def run(shape: Shape, key: npt.NDArray[np.uint64], law: Services, log: int = 0) -> tuple[Counts, int]:
    """Run until `shape.until` or, with `shape.prompts` > 0, until so many prompts are through.

    Gives the counts and the bytes of its state. Raises `TheoryError` where that does not fit into memory.
    """
    n = shape.devices
    devices = room_for(n * DEVICE_WORDS, np.float64)
    devices[:] = 0.0
    room = 256
    prompts, heap = grown(None, room, _PROMPT_WORDS), heap_of(room)
    tally, chosen = Tally.new(log), np.empty(max(1, shape.proposers), np.int64)
    tally.real[COMING] = gap(key[ARRIVALS], u64(0), shape.rate)
    while True:
        why = _kernel(shape, key, *law, devices, prompts, heap, tally, chosen, SLICE)
        if why == OVER:
            break
        if why == FULL:
            tally.whole[SPARE], room = room, more(room)
            prompts, heap = grown(prompts, room, _PROMPT_WORDS), heap_of(room, heap)
        if tally.whole[TURNS] >> (63 - SLOT_BITS):
            raise too_many()
    table = devices.reshape(n, DEVICE_WORDS)
    counts = tally.counts(table[:, 1:5], table[:, 5])
    return counts, devices.nbytes + prompts.nbytes + heap.nbytes + law.which.nbytes


def more(room: int) -> int:
    """The next room for prompts under way, a quarter more. Raises `TheoryError` where they cannot be numbered."""
    room += max(256, room // 4)
    if room >> SLOT_BITS:
        raise too_many()
    return room


def too_many() -> TheoryError:
    """What is said where numbers run out."""
    return TheoryError(
        "more prompts are under way, or more stages asked, than the simulator can number; "
        "shorten the horizon, lower the load or take fewer devices"
    )


def grown(old: Whole | None, room: int, words: int) -> Whole:
    """Room for so many prompts; the new ones are a chain of free ones, each naming the next."""
    prompts: Whole = room_for(room * words, np.int64)
    kept = 0 if old is None else old.size // words
    if old is not None:
        prompts[: old.size] = old
    prompts[kept * words :: words] = np.arange(kept + 1, room + 1)
    prompts[(room - 1) * words] = NONE.view(np.int64)
    return prompts


@compiled()
def _kernel(
    shape: Shape,
    key: npt.NDArray[np.uint64],
    kind: npt.NDArray[np.int8],
    parameters: Floats,
    rows: Floats,
    mean: Floats,
    which: npt.NDArray[np.uint32],
    devices: Floats,
    prompts: Whole,
    heap: Whole,
    tally: Tally,
    chosen: Whole,
    events: int,
) -> int:
    n, layers, k, rate, warm, until = (
        shape.devices,
        shape.layers,
        shape.proposers,
        shape.rate,
        shape.warm,
        shape.until,
    )
    whole, real, log = tally.whole, tally.real, tally.log
    checkpoints, histogram = tally.checkpoints, tally.histogram
    through, counted, latency = whole[THROUGH], whole[COUNTED], real[LATENCY]
    first, peers, origins = shape.first, shape.peers, shape.origins
    arrivals, places, routes, services = key[ARRIVALS], key[ORIGINS], key[ROUTES], key[SERVICES]
    arrived, size, turns, spare = (
        u64(whole[ARRIVED]),
        u64(whole[SIZE]),
        u64(whole[TURNS]),
        u64(whole[SPARE]),
    )
    jobs, coming, last = u64(whole[JOBS]), real[COMING], real[LAST]
    limit, lines, graph, laws = (
        u64(shape.prompts),
        u64(log.shape[0]),
        first.size > 0,
        which.size > 0,
    )
    only, only_first = kind[0], parameters[0, 0]
    early, late = (warm + until) / 2, (warm + until) / 2 + (until - warm) / 4
    scale = CHECKPOINTS / (until - warm)
    beyond = until + 1.0 / scale
    wide = n > 2048  # more than the second cache holds
    why = MORE
    while events:
        events -= 1
        fresh = bits_of(coming) <= heap[TOP]
        if fresh:
            if coming > until or coming == math.inf:
                why = OVER
                break
            if spare == NONE:
                why = FULL
                break
            slot, now = spare, coming
            at = _3 * slot
            spare = u64(prompts[at])
            word = arrived * _STAGES + _1
            device = origin_of(uniform(branch_of(places, arrived * _STAGES), 0), origins)
            prompts[at + _BORN], prompts[at + _ORIGIN] = bits_of(now), i64(device)
            arrived += _1
            coming = now + gap(arrivals, arrived, rate)
            if arrived == limit:
                coming = math.inf
        else:
            now = time_of(heap[TOP])
            if now > until:
                why = OVER
                break
            slot = u64(heap[TOP_TAG]) & _MASK
            at = _3 * slot
            word, device = u64(prompts[at]), u64(prompts[at + _ORIGIN])
        goes_on = i64(word % _STAGES) <= layers
        asked = 0
        if goes_on:
            degree = first[device + _1] - first[device] if graph else n - 1
            asked = min(k, degree)
            subset(branch_of(routes, word), asked, degree, chosen)
            if not graph:
                for place in range(u64(asked)):
                    drawn = u64(chosen[place])
                    other = drawn + u64(drawn >= device)
                    chosen[place] = i64(other)
                    prefetch(devices, other << _3)
        draw, latest = branch_of(services, word), now
        from_warm, from_early, from_late = max(now, warm), max(now, early), max(now, late)
        from_checkpoint = i64(max(0.0, np.ceil((now - warm) * scale)))
        for place in range(u64(asked + 1)):
            other = device
            if place:
                other = u64(chosen[place - _1])
                if graph:
                    other = u64(peers[u64(first[device]) + other])
            sort, scaled, law = only, only_first, u64(0)
            if laws:
                law = u64(which[other])
                sort, scaled = kind[law], parameters[law, 0]
            if sort == EXPONENTIAL:
                took = -scaled * math.log(1.0 - uniform(draw, place))
            else:
                u = (
                    uniform(branch_of(services, word - word % _STAGES), 0)
                    if sort == TRACE
                    else uniform(draw, place)
                )
                took = duration(sort, scaled, parameters[law, 1], rows, u)
            line = other << _3
            start = max(now, devices[line])
            end = start + took
            devices[line] = end
            devices[line + WAITING] += max(0.0, min(start, until) - from_warm)
            devices[line + EARLY] += max(0.0, min(start, late) - from_early)
            devices[line + LATE] += max(0.0, min(start, until) - from_late)
            devices[line + BUSY] += max(0.0, min(end, until) - max(start, warm))
            latest = max(latest, end)
            # No checkpoint is between a start and the same time: nobody has to ask whether the device was free.
            to = i64(min(float(CHECKPOINTS), np.ceil((min(start, beyond) - warm) * scale)))
            if from_checkpoint < to:
                checkpoints[u64(from_checkpoint)] += 1
                checkpoints[u64(to)] -= 1
            if jobs < lines:
                log[jobs, 0], log[jobs, 1], log[jobs, 2] = word // _STAGES, word % _STAGES, place
                log[jobs, 3], log[jobs, 4], log[jobs, 5], log[jobs, 6] = other, now, start, end
            jobs += _1
        last = max(last, latest)
        ends, tag = bits_of(latest), i64((turns << _BITS) | slot)
        if goes_on:
            prompts[at] = i64(word + _1)
            turns += _1
            if fresh:
                push(heap, size, ends, tag)
                size += _1
        elif not fresh:
            size -= _1
            ends, tag = cut_last(heap, size)
        if not fresh:
            replace_top(heap, size, ends, tag)
        if wide:
            _fetch(heap, prompts, devices)
        if goes_on:
            continue
        if latest <= until:
            through += 1
            born = time_of(prompts[at + _BORN])
            answered(devices, (device << _3) + AGE, born, latest, warm, until)
            if latest >= warm:
                counted += 1
                latency += latest - born
                histogram[bin_of(latest - born)] += 1
        prompts[at], spare = i64(spare), slot
    if why == OVER:
        for device in range(u64(n)):
            aged(devices, (device << _3) + AGE, until, warm, until)
    whole[ARRIVED], whole[SIZE], whole[TURNS], whole[SPARE], whole[JOBS] = arrived, size, turns, spare, jobs
    whole[THROUGH], whole[COUNTED] = through, counted
    real[COMING], real[LAST], real[LATENCY] = coming, last, latency
    return why


@compiled()
def _fetch(heap: Whole, prompts: Whole, devices: Floats) -> None:
    """Ask for what comes next: the device of the first entry's prompt, and the prompts of the four behind it."""
    for child in range(_1, u64(5)):
        prefetch(prompts, _3 * (u64(heap[TOP_TAG + _2 * child]) & _MASK))
    at = _3 * (u64(heap[TOP_TAG]) & _MASK)
    if at < u64(prompts.size):
        prefetch(devices, u64(prompts[at + _ORIGIN]) << _3)


@compiled()
def gap(key: np.uint64, prompt: Word, rate: float) -> float:
    """How long after the one before it a prompt arrives, s."""
    return -math.log(1.0 - uniform(branch_of(key, prompt * _STAGES), 0)) / rate


@compiled()
def origin_of(u: float, origins: Floats) -> Word:
    """The device that a prompt arrives at."""
    if origins.size == 1:
        return u64(i64(u * origins[0]))
    return u64(min(np.searchsorted(origins, u, side="right"), origins.size - 1))


@compiled()
def bin_of(latency: float) -> Word:
    """The place of a latency in the histogram."""
    place = i64((math.log2(max(latency, 1e-9)) + 24.0) * BINS_PER_OCTAVE)
    return u64(min(max(place, 0), OCTAVES * BINS_PER_OCTAVE - 1))


@compiled()
def answered(devices: Floats, line: Word, born: float, now: float, warm: float, until: float) -> None:
    """A device has the answer to a prompt of then; its age, look and newest answer are the words from `line` on."""
    aged(devices, line, now, warm, until)
    newest = line + _2
    devices[newest] = max(devices[newest], born)


@compiled()
def aged(devices: Floats, line: Word, now: float, warm: float, until: float) -> None:
    """Add the area under the age of the newest answer at a device, from the last look until now."""
    look, newest = line + _1, line + _2
    since, now = max(devices[look], warm), min(now, until)
    if since < now < math.inf:
        devices[line] += ((now - devices[newest]) ** 2 - (since - devices[newest]) ** 2) / 2
    devices[look] = max(devices[look], now)
