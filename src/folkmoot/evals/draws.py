"""The proposals of layer 1, drawn ahead: those that every arm shares, in the words and with the seeds of the live moot.

The common random number of a prompt is its seed; a device's place in the layer makes its job's seed of it
(`core.mixture.seed_of`), whatever M and k are: so the same proposals stand in all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from folkmoot.core.mixture import seed_of
from folkmoot.errors import EngineError, PromptTooLong
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.store import Call
from folkmoot.evals.tasks import Task

TEMPERATURE = 0.7
"""The paper's."""


def seed_for(task: Task) -> int:
    """A task's seed: the same in every arm and on every machine."""
    return crc32(task.name.encode()) & 0xFFFFF


def asked_at(model: str, task: Task, place: int) -> dict[str, Any]:
    """The request that a device in this place of layer 1 makes of its engine."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": task.question}],
        "max_tokens": task.max_tokens,
        "temperature": TEMPERATURE,
        "top_p": 1.0,
        "seed": seed_of(seed_for(task), 1, place),
    }


async def draw(proxies: Sequence[Proxy], task: Task) -> list[Call | None]:
    """The proposals of a task, one for each place, by the model of the device in it; None where there is none to be had."""
    return await asyncio.gather(*(_one(proxy, task, place) for place, proxy in enumerate(proxies)))


async def _one(proxy: Proxy, task: Task, place: int) -> Call | None:
    try:
        return await proxy.call(asked_at(proxy.name, task, place))
    except (EngineError, PromptTooLong):
        return None
