"""The same work several times at once, which ends together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine


async def together(work: Callable[[], Coroutine[None, None, None]], count: int) -> None:
    """So many of them until all have ended; where one fails the others are stopped, and its error is raised."""
    workers = [asyncio.create_task(work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
