"""Where garbage is collected."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import threading

import psutil

from folkmoot.node.garbage import collect_here, give_back


class Knot:
    """Garbage that only a collection finds; it notes the thread that does."""

    def __init__(self, threads: list[int]) -> None:
        self.me = self
        self.threads = threads

    def __del__(self) -> None:
        self.threads.append(threading.get_ident())


async def test_a_foreign_thread_collects_nothing_while_it_runs() -> None:
    threads: list[int] = []

    def litter() -> None:
        for _ in range(20_000):  # many times what the interpreter lets pass before it collects by itself
            Knot(threads)

    collecting = asyncio.create_task(collect_here(0.001))
    await asyncio.sleep(0)
    assert not gc.isenabled()
    await asyncio.to_thread(litter)
    gc.collect()
    assert len(threads) == 20_000
    assert set(threads) == {threading.get_ident()}
    collecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    assert gc.isenabled()


def test_free_memory_goes_back_to_the_system() -> None:
    """60 MB in pieces of 2 kB, of which every 64th is still held, so that the heap's end cannot simply be cut off."""
    process = psutil.Process()
    before = process.memory_info().rss
    held = [bytes(2_000) for _ in range(30_000)]
    most = process.memory_info().rss
    kept = held[::64]
    del held
    assert give_back() == (platform.libc_ver()[0] == "glibc")
    if platform.libc_ver()[0] == "glibc":
        assert process.memory_info().rss - before < (most - before) / 2
    assert len(kept) == 469
