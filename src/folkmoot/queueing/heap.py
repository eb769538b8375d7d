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
_1, _2, _4, _6 = (u64(number) for number in (1, 2, 4, 6))


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
def _first_of(heap: Whole, child: Word) -> Word:
    """Which of four children is the first where some have one time: the one with the smallest tag."""
    best = child
    for other in range(child + _1, child + _4):
        at, first = TOP + _2 * other, TOP + _2 * best
        if _sooner(heap[at], heap[at + _1], heap[first], heap[first + _1]):
            best = other
    return best


@compiled(into=True)
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
        zero, one, two, three = heap[at], heap[at + _2], heap[at + _4], heap[at + _6]
        left, right = one < zero, three < two
        low, high = one if left else zero, three if right else two
        behind = high < low
        least = high if behind else low
        best = child + (_2 + u64(right) if behind else u64(left))
        # It must not depend on `behind` whether some are equal: the compiler would make a branch of it.
        if (low == high) | ((zero == least) & (one == least)) | ((two == least) & (three == least)):
            best = _first_of(heap, child)
        tag_there = heap[TOP_TAG + _2 * best]
        if bits <= least and (bits < least or tag < tag_there):
            break
        to = TOP + _2 * place
        heap[to], heap[to + _1] = least, tag_there
        place = best
    to = TOP + _2 * place
    heap[to], heap[to + _1] = bits, tag


@compiled()
def pop(heap: Whole, size: Word) -> Word:
    """Take the first entry off a heap of so many. Gives how many are left."""
    size -= _1
    bits, tag = cut_last(heap, size)
    replace_top(heap, size, bits, tag)
    return size


@compiled(into=True)
def cut_last(heap: Whole, size: Word) -> tuple[Word, Word]:
    """The bits and the tag of the last entry, which goes off a heap that keeps so many: what comes to the top then."""
    end = TOP + _2 * size
    bits, tag = heap[end], heap[end + _1]
    heap[end], heap[end + _1] = NEVER, _LAST
    return bits if size else NEVER, tag if size else _LAST
