"""A four-ary heap of times in one array of words: an entry is the bits of its time and a tag.

Times are not negative, so that their bits order as they do; equal ones keep the order of their tags. The entries
begin after `OFFSET` words, so that the four children of an entry fill one cache line of an array that begins on
one. What is not in use holds `NEVER` and the largest tag: the heap is sifted without looking at its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.queueing._jit import Word, compiled, i64, prefetch, u64
from folkmoot.queueing.memory import room_for

Whole = npt.NDArray[np.int64]

NEVER = i64(np.float64(np.inf).view(np.int64))
"""The bits of a time that does not come."""
TOP, TOP_TAG = u64(6), u64(7)
"""Where the first entry stands."""

_LARGE = u64(1 << 12)
"""From so many entries on their children are asked for beforehand."""
_LAST = i64(2**63 - 1)
_1, _2, _3, _4 = (u64(number) for number in (1, 2, 3, 4))


def heap_of(room: int, old: Whole | None = None) -> Whole:
    """An empty heap for so many entries, or one that goes on with an older one. Raises `TheoryError`."""
    heap: Whole = room_for(6 + 2 * (room + 4), np.int64)
    kept = 0 if old is None else old.size
    if old is not None:
        heap[:kept] = old
    heap[kept::2], heap[kept + 1 :: 2] = NEVER, _LAST
    return heap


@compiled()
def bits_of(time: float) -> Word:
    """The bits of a time."""
    return np.float64(time).view(np.int64)


@compiled()
def time_of(bits: Word) -> Any:
    """The time of some bits."""
    return i64(bits).view(np.float64)


@compiled()
def _sooner(bits: Word, tag: Word, other: Word, other_tag: Word) -> Any:
    return (bits < other) | ((bits == other) & (tag < other_tag))


@compiled()
def push(heap: Whole, size: Word, bits: Word, tag: Word) -> None:
    """Add an entry to a heap of so many."""
    place = size
    while place:
        above = (place - _1) >> _2
        at = TOP + _2 * above
        if _sooner(heap[at], heap[at + _1], bits, tag):
            break
        to = TOP + _2 * place
        heap[to], heap[to + _1] = heap[at], heap[at + _1]
        place = above
    to = TOP + _2 * place
    heap[to], heap[to + _1] = bits, tag


@compiled()
def replace_top(heap: Whole, size: Word, bits: Word, tag: Word) -> None:
    """Put another entry in place of the first. No branch depends on which child is the least: none could be foretold."""
    place = u64(0)
    while True:
        child = _4 * place + _1
        if child >= size:
            break
        at = TOP + _2 * child
        if size > _LARGE:
            below = TOP + u64(8) * child + _2
            prefetch(heap, below)
            prefetch(heap, below + u64(8))
            prefetch(heap, below + u64(16))
            prefetch(heap, below + u64(24))
        left = _sooner(heap[at + _2], heap[at + _3], heap[at], heap[at + _1])
        right = _sooner(heap[at + u64(6)], heap[at + u64(7)], heap[at + _4], heap[at + u64(5)])
        first = heap[at + _2] if left else heap[at]
        first_tag = heap[at + _3] if left else heap[at + _1]
        second = heap[at + u64(6)] if right else heap[at + _4]
        second_tag = heap[at + u64(7)] if right else heap[at + u64(5)]
        behind = _sooner(second, second_tag, first, first_tag)
        least, least_tag = second if behind else first, second_tag if behind else first_tag
        if _sooner(bits, tag, least, least_tag):
            break
        to = TOP + _2 * place
        heap[to], heap[to + _1] = least, least_tag
        place = child + (_2 + u64(right) if behind else u64(left))
    to = TOP + _2 * place
    heap[to], heap[to + _1] = bits, tag


@compiled()
def pop(heap: Whole, size: Word) -> Word:
    """Take the first entry off a heap of so many. Gives how many are left."""
    size -= _1
    end = TOP + _2 * size
    bits, tag = heap[end], heap[end + _1]
    heap[end], heap[end + _1] = NEVER, _LAST
    if size:
        replace_top(heap, size, bits, tag)
    return size
