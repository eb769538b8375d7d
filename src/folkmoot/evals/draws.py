"""The proposals of layer 1, drawn ahead: those that every arm shares, in the words and with the seeds of the live moot; and what
a device alone makes of its own.

The common random number of a prompt is its seed; a device's place in the layer makes its job's seed of it
(`core.mixture.seed_of`), whatever M and k are: so the same proposals stand in all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from string import ascii_lowercase
from typing import Any
from zlib import crc32

from folkmoot.core.ids import PromptId
from folkmoot.core.layout import prose
from folkmoot.core.messages import Inference, Sampling
from folkmoot.core.mixture import seed_of
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.remote import messages
from folkmoot.errors import EngineError, PromptTooLong
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.store import Call
from folkmoot.evals.tasks import Task

TEMPERATURE = 0.7
"""The paper's."""


def seed_for(name: str) -> int:
    """The seed of the task with this name: the same in every arm and on every machine."""
    return crc32(name.encode()) & 0xFFFFF


def asked_at(model: str, task: Task, place: int) -> dict[str, Any]:
    """The request that a device in this place of layer 1 makes of its engine."""
    return {
        "model": model,
        "messages": task.messages,
        "max_tokens": task.max_tokens,
        "temperature": TEMPERATURE,
        "top_p": 1.0,
        "seed": seed_of(seed_for(task.name), 1, place),
    }


def merging(model: str, task: Task, drafts: Sequence[str]) -> dict[str, Any]:
    """The request that a device makes of its engine for an aggregation of these drafts, fenced by a word drawn for the task.

    In the layout and with the seed of the live moot, whose screen alone is missing: nothing is marked. Raises `PromptTooLong`.
    """
    body = asked_at(model, task, 0)
    seed = seed_for(task.name)
    inference = Inference(
        PromptId(f"{seed:032x}"), task.turns, tuple(prose(each) for each in drafts), len(drafts),
        Sampling(task.max_tokens), fence="".join(Random(f"{seed} fence").sample(ascii_lowercase, 10)),
    )  # fmt: skip
    sent = messages(inference, EngineConfig().context_tokens)
    return {**body, "messages": sent, "seed": seed_of(seed, 2, 0)}


async def draw(proxies: Sequence[Proxy], task: Task) -> list[Call | None]:
    """The proposals of a task, one for each place, by the model of the device in it; None where there is none to be had."""
    return await asyncio.gather(*(_one(proxy, task, place) for place, proxy in enumerate(proxies)))


async def _one(proxy: Proxy, task: Task, place: int) -> Call | None:
    try:
        return await proxy.call(asked_at(proxy.name, task, place))
    except (EngineError, PromptTooLong):
        return None
