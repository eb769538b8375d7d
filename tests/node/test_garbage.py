"""Where garbage is collected."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

from folkmoot.node.garbage import collect_here


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
