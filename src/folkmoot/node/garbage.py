"""Cyclic garbage is collected on the event loop's thread only.

iroh calls into Python from its own threads while it holds a connection's lock. Should the interpreter begin a collection
just there, and find a stream among the garbage, freeing it waits for that very lock for ever, and with it the
whole device (seen under kills of peers, iroh 1.2). So the interpreter begins none by itself while the network is up.

After all garbage was collected what is free is given back to the system: a burst of long answers leaves holes in the C library's
heap, which it would keep for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import itertools

PAUSE_S = 1.0
"""The young are collected so often (guess: a busy device makes some thousand objects meanwhile)."""
FULL = 60
"""Every so many turns all are."""


async def collect_here(pause_s: float = PAUSE_S) -> None:
    """Collect garbage on this thread alone, until cancelled."""
    was = gc.isenabled()
    gc.disable()
    try:
        for turn in itertools.count(1):
            await asyncio.sleep(pause_s)
            gc.collect(1 if turn % FULL else 2)
            if not turn % FULL:
                give_back()
    finally:
        if was:
            gc.enable()


def give_back() -> bool:
    """Give free memory back to the system, some milliseconds of work; False where the C library cannot (all but glibc)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        return True
    return False
