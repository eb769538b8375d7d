"""Bytes that were a message once: bent as bytes, or taken apart, bent inside and put together again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

NUMBERS = (
    0, 1, -1, 2, 15, 16, 17, 255, 256, 1_000, 2**31 - 1, 2**31, 2**32 - 1, 2**53 - 1, 2**53, 2**63 - 1, 2**64 - 1,
    -(2**31), -(2**63), 0.0, -0.0, 1e-300, 1e9, 1e300, math.inf, -math.inf, math.nan,
)  # fmt: skip
RUNS = tuple(
    (sign * 12_000)[:12_000] + "x" * 4_000
    for sign in ("\n", " ", ".", "!", "`", "#", "<", "other ", "\n- ", "I ")
)
"""Long runs of one sign with no end that a pattern looks for: what is quadratic in its text takes seconds for them."""
TEXTS = (
    *RUNS,
    "",
    " ",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "ß" * 40,
    "\U0001f600",
    "</s>",
    "<|im_end|>",
    "a" * 257,
    "b" * 5_000,
    "\ud800"[:0],
)
BYTES = (
    b"",
    b"\x00",
    b"\x01",
    b"\x00" * 33,
    b"\x01" + b"\xff" * 32,
    b"\x01" + b"\xff" * 16,
    b"\x00\xff\xfe",
    b"\x02abc",
)
_WRITER = msgspec.msgpack.Encoder()


class Mutator:
    """Draws from one seed. `live` gives texts and names that mean something to the receiver right now."""

    def __init__(self, corpus: Sequence[bytes], seed: int, live: Callable[[], Sequence[Any]] = tuple) -> None:
        self._corpus = corpus
        self._rng = Random(f"mutations {seed}")
        self._live = live

    def draw(self) -> bytes:
        """A message, bent in one way or several; one of 20 is left as it was."""
        rng = self._rng
        data = rng.choice(self._corpus)
        if rng.random() < 0.05:
            return data
        inside = rng.random() < 0.75
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            data = self.inside(data) if inside else self.outside(data)
        return data

    def outside(self, data: bytes) -> bytes:
        """Bent as bytes."""
        rng, out = self._rng, bytearray(data)
        place = rng.randrange(len(out)) if out else 0
        match rng.randrange(7):
            case 0 if out:
                out[place] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[place] = rng.choice((0x00, 0x7F, 0x80, 0xC0, 0xC1, 0xC4, 0xD9, 0xDC, 0xDD, 0xDE, 0xFF))
            case 2:
                del out[place:]
            case 3:
                out[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                del out[place : place + rng.randrange(1, 9)]
            case 5:
                other = rng.choice(self._corpus)
                out[place:] = other[rng.randrange(len(other)) :]
            case _:
                out += out[place : place + 64] * rng.randrange(1, 20)
        return bytes(out)

    def inside(self, data: bytes) -> bytes:
        """Taken apart as msgpack, bent, and put together; what cannot be taken apart is bent as bytes."""
        rng = self._rng
        try:
            body = msgspec.msgpack.decode(data[1:])
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
            return self.outside(data)
        tag = rng.choice(self._corpus)[:1] if rng.random() < 0.02 else data[:1]
        places = list(_places(body))
        if not places:
            return self.outside(data)
        holder, index = rng.choice(places)
        self._bend(holder, index)
        try:
            return tag + _WRITER.encode(body)
        except (msgspec.MsgspecError, OverflowError, UnicodeError, TypeError):
            return self.outside(data)

    def _bend(self, holder: list[Any], index: int) -> None:
        rng, old = self._rng, holder[index]
        match rng.randrange(16):
            case 0:
                del holder[index]
            case 1:
                holder.insert(index, old)
            case 2:
                holder[index] = [old]
            case 3 if isinstance(old, list):
                holder[index] = old * rng.choice((0, 2, 50, 400))
            case _ if not isinstance(old, list):
                holder[index] = self._value(old)
            case _:
                rng.shuffle(old)

    def _value(self, old: Any) -> Any:
        rng = self._rng
        if rng.random() < 0.05:
            return rng.choice((None, True, {}, [], 0, "", b""))
        if isinstance(old, bool):
            return not old
        if isinstance(old, int | float):
            return rng.choice((rng.choice(NUMBERS), old + rng.choice((-1, 1)), old * 2, rng.randrange(40)))
        live = [each for each in self._live() if isinstance(each, type(old))]
        if live and rng.random() < 0.6:
            return rng.choice(live)
        if isinstance(old, str):
            return rng.choice((*TEXTS, old + old, old[:-1], old.upper()))
        if isinstance(old, bytes):
            return rng.choice((*BYTES, old[:-1], old + b"\x00", bytes(reversed(old))))
        return old


def _places(body: Any) -> Any:
    """Every place of a nested list, as its list and its index."""
    if isinstance(body, list):
        for index, each in enumerate(body):
            yield body, index
            yield from _places(each)
