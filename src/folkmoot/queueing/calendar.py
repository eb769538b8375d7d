"""Any order of service, with departure events: later stage first, a quorum with cancelling, admission by queue length,
and the best of d peers on fresh or old views.

Slower than `fcfs`, which knows a job's end when it arrives; here a job may be overtaken or cut off. At one
time views are refreshed first, then arrivals come, then all departures in the order in which their jobs began,
then the one prompt with a complete layer that was asked first goes on; then departures that are due by now,
the next prompt, and so on. Its naive twin is in tests/agreement.

All that a service touches of its device stands in one cache line up to three lines of jobs, and all that its end and
the next start touch of a prompt in another up to three jobs; what is touched once a layer stands elsewhere. The words
of a row are floats or pairs of halves, so the same memory is given to the kernel in two ways. How long a job takes is
drawn when it is asked for, so that no event waits for a logarithm. It runs in slices, as that of `fcfs` does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.queueing._jit import Word, compiled, i64, prefetch, u32, u64
from folkmoot.queueing.fcfs import (
    ARRIVED,
    BEGUN,
    CHECKPOINTS,
    COMING,
    COUNTED,
    EPOCH,
    FULL,
    JOBS,
    LAST,
    LATENCY,
    MORE,
    NONE,
    NOW,
    OVER,
    REFUSED,
    SIZE,
    SLICE,
    SLOT_BITS,
    SPARE,
    TALLIED,
    THROUGH,
    TURNS,
    Counts,
    Shape,
    Tally,
    aged,
    answered,
    bin_of,
    gap,
    grown,
    more,
    origin_of,
    too_many,
)  # fmt: skip
from folkmoot.queueing.heap import TOP, TOP_TAG, bits_of, cut_last, heap_of, pop, push, replace_top, time_of
from folkmoot.queueing.memory import room_for
from folkmoot.queueing.services import EXPONENTIAL, TRACE, Services, duration
from folkmoot.queueing.streams import (
    ARRIVALS,
    ORIGINS,
    POLICY,
    ROUTES,
    SERVICES,
    STAGES,
    branch_of,
    shuffle,
    subset,
    uniform,
)

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Halves = npt.NDArray[np.uint32]

FCFS, LSF = range(2)
"""Disciplines: first come first served; the job of the latest stage first, among equals the first come."""

# Why the kernel comes back, beside the reasons of `fcfs`.
_HEAP_FULL, _READY_FULL, _SENT_FULL = range(MORE + 1, MORE + 4)
# More that stays between its slices: where the prompts that may go on begin in `ready`, and where they end.
_FIRST, _FOUND = 11, 12

# A device's words: four areas; then halves: the job in service, the number waiting, first and last job of each line.
_WAITING, _EARLY, _LATE, _BUSY = (u64(word) for word in range(4))
_SERVING, _COUNT, _HEAD, _TAIL = (u64(half) for half in range(8, 12))
# A prompt's words: its number times STAGES plus its stage (of a free one: the next free one), its birth, as the how
# manieth its layer was asked, and where that begins in the log.
_BORN, _TURN, _LOGGED = u64(1), u64(2), u64(3)
_PROMPT_WORDS = 4
# The words of its layer: when it was asked; two halves, the prompt's origin and the answers that are still needed; then
# two words a job: two halves, the next in its line and its device, and how long it takes. One cache line for k = 2.
_ROW = 2
_ASKED, _TOOK = u64(0), u64(3)
_ORIGIN, _LEFT, _NEXT, _DEVICE = u64(2), u64(3), u64(4), u64(5)

_NOBODY = u32(2**32 - 1)
_1, _2, _4 = u64(1), u64(2), u64(4)
_BITS, _MASK = u64(SLOT_BITS), u64((1 << SLOT_BITS) - 1)
_STAGES = u64(STAGES)


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
    `entries` has (peer, jobs, next) for each origin, from `first` on.
    """

    lengths: Whole
    stamps: Whole
    first: Whole
    sent: Whole
    entries: Whole


class _Cut(NamedTuple):
    """What only cutting needs of a device: when its job began, counted in jobs, and when it ends."""

    stamps: Whole
    ends: Floats


def run(
    shape: Shape, policy: Policy, key: npt.NDArray[np.uint64], law: Services, log: int = 0
) -> tuple[Counts, int]:
    """Run as `fcfs.run` does. A prompt is refused where `policy.admit` or more jobs wait at its own device."""
    n, fan = shape.devices, shape.proposers + 1
    lines = shape.layers + 1 if policy.discipline == LSF else 1
    shift = max(3, (5 + lines - 1).bit_length())
    areas = room_for(n << shift, np.float64)
    areas[:] = 0.0
    halves = areas.view(np.uint32).reshape(n, 2 << shift)
    halves[:, 8:] = _NOBODY
    halves[:, 9] = 0
    ages = room_for(3 * n, np.float64)
    ages[:] = 0.0
    bits, words, room = (fan - 1).bit_length(), _ROW + 2 * fan, 256
    prompts, heap = grown(None, room, _PROMPT_WORDS), heap_of(n + 2 * fan)
    asked = room_for(room * words, np.float64)
    ready = np.empty(64, np.int64)
    drawn = max(1, shape.proposers, min(policy.best_of, n - 1))
    chosen, scores = np.empty(drawn, np.int64), np.empty(max(1, shape.proposers))
    old = n if policy.best_of and policy.view_s else 0
    views = _Views(
        np.zeros(old, np.int64), np.full(old, -1, np.int64), np.zeros(old, np.int64), np.full(old, -1, np.int64),
        np.empty((16 + 2 * fan, 3), np.int64),
    )  # fmt: skip
    some = n if policy.quorum else 0
    cut = _Cut(np.zeros(some, np.int64), np.zeros(some))
    tally = Tally.new(log)
    tally.real[COMING] = gap(key[ARRIVALS], u64(0), shape.rate)
    while True:
        why = _kernel(
            shape, policy, key, *law, areas, halves.ravel(), u64(shift), ages, prompts, asked,
            asked.view(np.uint32), u64(bits), heap, ready, chosen, scores, views, cut, tally, SLICE,
        )  # fmt: skip
        if why == OVER:
            break
        if why == FULL:
            tally.whole[SPARE], room = room, more(room)
            if room << bits >= _NOBODY:
                raise too_many()
            prompts, before = grown(prompts, room, _PROMPT_WORDS), asked
            asked = room_for(room * words, np.float64)
            asked[: before.size] = before
        elif why == _HEAP_FULL:
            heap = heap_of(heap.size, heap)
        elif why == _READY_FULL:
            ready = np.concatenate([ready, np.empty_like(ready)])
        elif why == _SENT_FULL:
            views = views._replace(entries=np.concatenate([views.entries, np.empty_like(views.entries)]))
        if tally.whole[BEGUN] >> (63 - SLOT_BITS):
            raise too_many()
    state = [areas, ages, prompts, asked, heap, law.which, ready, *views, *cut]
    return tally.counts(areas.reshape(n, 1 << shift), ages[::3]), sum(each.nbytes for each in state)


@compiled()
def _kernel(
    shape: Shape,
    policy: Policy,
    key: npt.NDArray[np.uint64],
    kind: npt.NDArray[np.int8],
    parameters: Floats,
    rows: Floats,
    mean: Floats,
    which: Halves,
    areas: Floats,
    devices: Halves,
    shift: Word,
    ages: Floats,
    prompts: Whole,
    times: Floats,
    jobs: Halves,
    bits: Word,
    heap: Whole,
    ready: Whole,
    chosen: Whole,
    scores: Floats,
    views: _Views,
    cut: _Cut,
    tally: Tally,
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
    quorum, admit, best_of, view_s = policy.quorum, policy.admit, policy.best_of, policy.view_s
    whole, real, log = tally.whole, tally.real, tally.log
    checkpoints, histogram = tally.checkpoints, tally.histogram
    neighbours, peers, origins, skip = shape.first, shape.peers, shape.origins, shape.skip
    arrivals, places, routes, services = key[ARRIVALS], key[ORIGINS], key[ROUTES], key[SERVICES]
    arrived, size, turns, spare = (
        u64(whole[ARRIVED]),
        u64(whole[SIZE]),
        u64(whole[TURNS]),
        u64(whole[SPARE]),
    )
    asked_for, begun, refused = whole[JOBS], u64(whole[BEGUN]), whole[REFUSED]
    through, counted, latency = whole[THROUGH], whole[COUNTED], real[LATENCY]
    first, found, epoch, sent = (
        u64(whole[_FIRST]),
        u64(whole[_FOUND]),
        whole[EPOCH],
        u64(whole[TALLIED]),
    )
    coming, last, now = real[COMING], real[LAST], real[NOW]
    limit, noted, graph, laws = u64(shape.prompts), log.shape[0], neighbours.size > 0, which.size > 0
    by_stage = policy.discipline == LSF
    lines = u64(layers + 1 if by_stage else 1)
    fan, old = u64(k + 1), views.stamps.size > 0
    row, slots = u64(_ROW) + _2 * fan, (_1 << bits) - _1
    refresh_at = (epoch + 1) * view_s if old else math.inf
    early, late = (warm + until) / 2, (warm + until) / 2 + (until - warm) / 4
    span = warm, until, early, late, CHECKPOINTS / (until - warm)
    wide = n > 2048
    why = MORE
    while events:
        events -= 1
        if size + _2 * fan > (u64(heap.size) - TOP) // _2 - _4:
            why = _HEAP_FULL
            break
        if old and sent + fan > u64(views.entries.shape[0]):
            why = _SENT_FULL
            break
        leaving = heap[TOP]
        asking, name, over, cutting = NONE, u64(0), False, False
        if first < found and leaving > bits_of(now):
            # Nothing else is due by now, so the prompt whose layer was asked first goes on.
            asking = u64(ready[first])
            first += _1
            if first == found:
                first, found = u64(0), u64(0)
            name = asking * _4
            device, word = u64(jobs[_2 * asking * row + _ORIGIN]), u64(prompts[name])
            word += _1
            over = i64(word % _STAGES) > layers + 1
            if skip > 0.0 and i64(word % _STAGES) == layers + 1:
                over = uniform(branch_of(key[POLICY], word - word % _STAGES), 0) < skip
            prompts[name] = i64(word)
            cutting = quorum > 0
        else:
            comes = bits_of(coming) <= leaving
            time = coming if comes else time_of(leaving)
            if time > until or time == math.inf:
                why = OVER
                break
            if comes and spare == NONE:
                why = FULL
                break
            if found == u64(ready.size):
                why = _READY_FULL
                break
            now = time
            if now >= refresh_at:
                epoch = _latest(epoch, now, view_s)
                refresh_at = (epoch + 1) * view_s
                sent = u64(0)
            if comes:
                device = origin_of(uniform(branch_of(places, arrived * _STAGES), 0), origins)
                if admit == 0 or i64(devices[_2 * (device << shift) + _COUNT]) < admit:
                    asking = spare
                    name = asking * _4
                    spare = u64(prompts[name])
                    word = arrived * _STAGES + _1
                    prompts[name], prompts[name + _BORN] = i64(word), bits_of(now)
                    jobs[_2 * asking * row + _ORIGIN] = u32(device)
                else:
                    refused += 1
                arrived += _1
                coming = now + gap(arrivals, arrived, rate)
                if arrived == limit:
                    coming = math.inf
            else:
                tag = u64(heap[TOP_TAG])
                device = tag & _MASK
                server = _2 * (device << shift)
                job = u64(devices[server + _SERVING])
                if quorum and (job == u64(_NOBODY) or u64(cut.stamps[device]) != tag >> _BITS):
                    size = pop(heap, size)  # it was cut off before its end
                    continue
                if old:
                    _keep(views, epoch, device, devices, server)
                prompt, slot = job >> bits, job & slots
                at = prompt * row
                half = _2 * at
                last = now
                if quorum:
                    jobs[half + _4 * slot + _DEVICE] = _NOBODY
                if noted and prompts[prompt * _4 + _LOGGED] + i64(slot) < noted:
                    log[prompts[prompt * _4 + _LOGGED] + i64(slot), 6] = now
                jobs[half + _LEFT] -= u32(1)
                if jobs[half + _LEFT] == u32(0):
                    # In the order of their turns: few are ready at one time.
                    place = found
                    while (
                        place > first
                        and prompts[u64(ready[place - _1]) * _4 + _TURN] > prompts[prompt * _4 + _TURN]
                    ):
                        ready[place] = ready[place - _1]
                        place -= _1
                    ready[place] = i64(prompt)
                    found += _1
                if _next(devices, server, lines, jobs, row, bits):
                    job = u64(devices[server + _SERVING])
                    prompt, slot = job >> bits, job & slots
                    at = prompt * row
                    end = now + times[at + _2 * slot + _TOOK]
                    _served(areas, device << shift, checkpoints, times[at + _ASKED], now, end, span)
                    if noted and prompts[prompt * _4 + _LOGGED] + i64(slot) < noted:
                        log[prompts[prompt * _4 + _LOGGED] + i64(slot), 5] = now
                    if quorum:
                        cut.stamps[device], cut.ends[device] = i64(begun), end
                    ends, mark = bits_of(end), i64((begun << _BITS) | device)
                    begun += _1
                else:
                    size -= _1
                    ends, mark = cut_last(heap, size)
                replace_top(heap, size, ends, mark)
        if asking != NONE and not over:
            stage, asked = i64(word % _STAGES), 0
            if stage <= layers:
                degree = neighbours[device + _1] - neighbours[device] if graph else n - 1
                asked = min(k, degree)
                drawn = u64(min(max(k, best_of), degree))
                subset(branch_of(routes, word), i64(drawn), degree, chosen)
                if best_of:
                    shuffle(branch_of(routes, word), i64(drawn), chosen)
                for place in range(drawn):
                    peer = u64(chosen[place])
                    if graph:
                        chosen[place] = peers[u64(neighbours[device]) + peer]
                    else:
                        chosen[place] = i64(peer + u64(peer >= device))
                    if wide:
                        prefetch(areas, u64(chosen[place]) << shift)
                if best_of:
                    _best(chosen, scores, drawn, asked, device, mean, which, devices, shift, views, epoch)
                    if old and policy.count_own:
                        sent = _sent(chosen, u64(asked), device, views, epoch, sent)
        if cutting:  # what is left of its layer is cut off; who is asked next was chosen before that was told
            at, word = asking * row, word - _1
            left = 0
            if i64(word % _STAGES) <= layers:
                left = min(k, neighbours[device + _1] - neighbours[device]) if graph else k
            for slot in range(u64(left + 1)):
                half = _2 * (at + _2 * slot)
                where = jobs[half + _DEVICE]
                if where == _NOBODY:
                    continue
                other = u64(where)
                line, job = other << shift, (asking << bits) | slot
                server = _2 * line
                if old:
                    _keep(views, epoch, other, devices, server)
                last = now
                if u64(devices[server + _SERVING]) != job:
                    _unlink(
                        job,
                        server + _2 * (word % _STAGES - _1 if by_stage else u64(0)),
                        devices,
                        jobs,
                        row,
                        bits,
                    )
                    devices[server + _COUNT] -= u32(1)
                    _served(areas, line, checkpoints, times[at + _ASKED], now, now, span)
                    continue
                if noted and prompts[asking * _4 + _LOGGED] + i64(slot) < noted:
                    log[prompts[asking * _4 + _LOGGED] + i64(slot), 6] = now
                areas[line + _BUSY] -= max(0.0, min(cut.ends[other], until) - max(now, warm))
                if _next(devices, server, lines, jobs, row, bits):
                    job = u64(devices[server + _SERVING])
                    prompt, begins = job >> bits, job & slots
                    after = prompt * row
                    end = now + times[after + _2 * begins + _TOOK]
                    _served(areas, line, checkpoints, times[after + _ASKED], now, end, span)
                    if noted and prompts[prompt * _4 + _LOGGED] + i64(begins) < noted:
                        log[prompts[prompt * _4 + _LOGGED] + i64(begins), 5] = now
                    cut.stamps[other], cut.ends[other] = i64(begun), end
                    push(heap, size, bits_of(end), i64((begun << _BITS) | other))
                    size += _1
                    begun += _1
            word += _1
        if over:
            through += 1
            born = time_of(prompts[name + _BORN])
            answered(ages, u64(3) * device, born, now, warm, until)
            if now >= warm:
                counted += 1
                latency += now - born
                histogram[bin_of(now - born)] += 1
            prompts[name], spare = i64(spare), asking
            asking = NONE
        if asking != NONE:
            at = asking * row
            half = _2 * at
            times[at + _ASKED], prompts[name + _TURN] = now, i64(turns)
            if noted:
                prompts[name + _LOGGED] = asked_for
            turns += _1
            jobs[half + _LEFT] = u32(min(quorum, asked + 1) if quorum and stage <= layers else asked + 1)
            draw = branch_of(services, word)
            for slot in range(u64(asked + 1)):
                other = u64(chosen[slot - _1]) if slot else device
                law = u64(which[other]) if laws else u64(0)
                if kind[law] == EXPONENTIAL:
                    took = -parameters[law, 0] * math.log(1.0 - uniform(draw, slot))
                else:
                    u = (
                        uniform(branch_of(services, word - word % _STAGES), 0)
                        if kind[law] == TRACE
                        else uniform(draw, slot)
                    )
                    took = duration(kind[law], parameters[law, 0], parameters[law, 1], rows, u)
                times[at + _2 * slot + _TOOK] = took
                one = half + _4 * slot
                jobs[one + _DEVICE] = u32(other)
                if asked_for < noted:
                    log[asked_for, 0], log[asked_for, 1], log[asked_for, 2] = word // _STAGES, stage, slot
                    log[asked_for, 3], log[asked_for, 4] = other, now
                    log[asked_for, 5], log[asked_for, 6] = math.nan, math.nan
                asked_for += 1
                server = _2 * (other << shift)
                if old:
                    _keep(views, epoch, other, devices, server)
                job = u32((asking << bits) | slot)
                if devices[server + _SERVING] == _NOBODY:
                    devices[server + _SERVING] = job
                    end = now + took
                    areas[(other << shift) + _BUSY] += max(0.0, min(end, until) - max(now, warm))
                    if noted and asked_for <= noted:
                        log[asked_for - 1, 5] = now
                    if quorum:
                        cut.stamps[other], cut.ends[other] = i64(begun), end
                    push(heap, size, bits_of(end), i64((begun << _BITS) | other))
                    size += _1
                    begun += _1
                    continue
                devices[server + _COUNT] += u32(1)
                queue = server + _2 * (u64(stage) - _1 if by_stage else u64(0))
                # Into its own next, which is written after it, where nobody is before it: no branch to foretell.
                head = devices[queue + _HEAD]
                empty = head == _NOBODY
                behind = one if empty else _half(u64(devices[queue + _TAIL]), row, bits)
                devices[queue + _HEAD] = job if empty else head
                devices[queue + _TAIL] = job
                jobs[behind + _NEXT] = job
                jobs[one + _NEXT] = _NOBODY
        if wide:
            # The next events but one: their devices now, and the jobs there when they come nearer.
            for child in range(_1, u64(5)):
                line = (u64(heap[TOP_TAG + _2 * child]) & _MASK) << shift
                prefetch(areas, line)
            line = (u64(heap[TOP_TAG]) & _MASK) << shift
            if line < u64(areas.size):
                prompt = u64(devices[_2 * line + _SERVING]) >> bits
                prefetch(prompts, prompt * _4)
                prefetch(times, prompt * row)
                for stage in range(lines):
                    prefetch(times, (u64(devices[_2 * (line + stage) + _HEAD]) >> bits) * row)
    if why == OVER:
        for device in range(u64(n)):
            aged(ages, u64(3) * device, until, warm, until)
            line = device << shift
            for stage in range(lines):
                waits = devices[_2 * (line + stage) + _HEAD]
                while waits != _NOBODY:
                    asked_at = times[(u64(waits) >> bits) * row + _ASKED]
                    _served(areas, line, checkpoints, asked_at, math.inf, math.inf, span)
                    waits = jobs[_half(u64(waits), row, bits) + _NEXT]
    whole[ARRIVED], whole[SIZE], whole[TURNS], whole[SPARE], whole[JOBS] = (
        arrived,
        size,
        turns,
        spare,
        asked_for,
    )
    whole[THROUGH], whole[COUNTED], whole[REFUSED], whole[BEGUN] = through, counted, refused, begun
    whole[_FIRST], whole[_FOUND], whole[EPOCH], whole[TALLIED] = first, found, epoch, sent
    real[COMING], real[LAST], real[LATENCY], real[NOW] = coming, last, latency, now
    return why


@compiled()
def _half(job: Word, row: Word, bits: Word) -> Word:
    """Where the halves of a job are counted from."""
    return _2 * ((job >> bits) * row + _2 * (job & ((_1 << bits) - _1)))


@compiled(into=True)
def _next(devices: Halves, server: Word, lines: np.uint64, jobs: Halves, row: Word, bits: Word) -> bool:
    """A device is free: take the first job of the latest stage's line into service, if any waits."""
    queue, job = server, devices[server + _HEAD]
    for line in range(_1, lines):
        later = devices[server + _2 * line + _HEAD]
        waits = later != _NOBODY
        queue, job = server + _2 * line if waits else queue, later if waits else job
    devices[server + _SERVING] = job
    if job == _NOBODY:
        return False
    devices[queue + _HEAD] = jobs[_half(u64(job), row, bits) + _NEXT]
    devices[server + _COUNT] -= u32(1)
    return True


@compiled()
def _unlink(job: Word, queue: Word, devices: Halves, jobs: Halves, row: Word, bits: Word) -> None:
    """Take a waiting job out of its line."""
    before, at = _NOBODY, devices[queue + _HEAD]
    while u64(at) != job:
        before, at = at, jobs[_half(u64(at), row, bits) + _NEXT]
    after = jobs[_half(job, row, bits) + _NEXT]
    if before == _NOBODY:
        devices[queue + _HEAD] = after
    else:
        jobs[_half(u64(before), row, bits) + _NEXT] = after
    if after == _NOBODY:
        devices[queue + _TAIL] = before


@compiled()
def _served(
    areas: Floats,
    line: Word,
    checkpoints: Whole,
    asked: float,
    start: float,
    end: float,
    span: tuple[float, float, float, float, float],
) -> None:
    """Add a job to the areas of its device, and to the number waiting at each checkpoint."""
    warm, until, early, late, scale = span
    areas[line] += max(0.0, min(start, until) - max(asked, warm))
    areas[line + _EARLY] += max(0.0, min(start, late) - max(asked, early))
    areas[line + _LATE] += max(0.0, min(start, until) - max(asked, late))
    areas[line + _BUSY] += max(0.0, min(end, until) - max(start, warm))
    if start > asked:
        since = i64(max(0.0, np.ceil((asked - warm) * scale)))
        to = i64(min(float(CHECKPOINTS), np.ceil((min(start, until + 1.0 / scale) - warm) * scale)))
        if since < to:
            checkpoints[u64(since)] += 1
            checkpoints[u64(to)] -= 1


@compiled()
def _latest(epoch: int, now: float, view_s: float) -> int:
    """The largest m with m * view_s <= now, m being at least `epoch`."""
    epoch = max(epoch, i64(now / view_s) - 1)
    while (epoch + 1) * view_s <= now:
        epoch += 1
    return epoch


@compiled()
def _here(devices: Halves, server: Word) -> Word:
    return i64(devices[server + _COUNT]) + i64(devices[server + _SERVING] != _NOBODY)


@compiled()
def _keep(views: _Views, epoch: int, device: Word, devices: Halves, server: Word) -> None:
    """A device's number of jobs is about to change: if for the first time since the last refresh, keep it as it was."""
    if views.stamps[device] != epoch:
        views.stamps[device] = epoch
        views.lengths[device] = _here(devices, server)


@compiled()
def _best(
    chosen: Whole,
    scores: Floats,
    drawn: Word,
    asked: int,
    device: Word,
    mean: Floats,
    which: Halves,
    devices: Halves,
    shift: Word,
    views: _Views,
    epoch: int,
) -> None:
    """Keep the `asked` of the `drawn` peers that promise the least delay, best first, equals as they were drawn."""
    kept = u64(asked)
    for place in range(drawn):
        peer = u64(chosen[place])
        here = _here(devices, _2 * (peer << shift))
        if views.stamps.size:
            if views.stamps[peer] == epoch:
                here = views.lengths[peer]
            entry = views.first[device] if views.sent[device] == epoch else -1
            while entry >= 0:
                if views.entries[entry, 0] == i64(peer):
                    here += views.entries[entry, 1]
                    break
                entry = views.entries[entry, 2]
        score = mean[u64(which[peer]) if which.size else u64(0)] * float(here + 1)
        spot = min(place, kept)
        while spot and scores[spot - _1] > score:
            if spot < kept:
                scores[spot], chosen[spot] = scores[spot - _1], chosen[spot - _1]
            spot -= _1
        if spot < kept:
            scores[spot], chosen[spot] = score, i64(peer)


@compiled()
def _sent(chosen: Whole, asked: Word, device: Word, views: _Views, epoch: int, sent: Word) -> Word:
    """Add the jobs of a layer to what their origin has sent since the last refresh. Gives the entries in use."""
    if views.sent[device] != epoch:
        views.sent[device], views.first[device] = epoch, -1
    for place in range(asked):
        entry = views.first[device]
        while entry >= 0 and views.entries[entry, 0] != chosen[place]:
            entry = views.entries[entry, 2]
        if entry >= 0:
            views.entries[entry, 1] += 1
        else:
            views.entries[sent, 0], views.entries[sent, 1], views.entries[sent, 2] = (
                chosen[place],
                1,
                views.first[device],
            )
            views.first[device] = i64(sent)
            sent += _1
    return sent
