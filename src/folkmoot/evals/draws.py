"""The proposals of layer 1, drawn ahead: those that every arm shares, in the words and with the seeds of the live moot.

The common random number of a prompt is its seed; a device's place in the layer makes its job's seed of it
(`core.mixture.seed_of`), whatever M and k are: so the same proposals stand in all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from zlib import crc32

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn
from folkmoot.core.mixture import seed_of
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.evals.tasks import Task

TEMPERATURE = 0.7
"""The paper's."""


def seed_for(task: Task) -> int:
    """A task's seed: the same in every arm and on every machine."""
    return crc32(task.name.encode()) & 0xFFFFF


async def draw(
    engine: OpenAIEngine, tasks: Sequence[Task], places: int, at_once: int, tell: Callable[[int], None]
) -> None:
    """Ask for `places` proposals of each task, `at_once` tasks at a time; `tell` hears how many tasks are whole."""
    room = asyncio.Semaphore(at_once)
    done = 0

    async def one(task: Task) -> None:
        nonlocal done
        async with room:
            for place in range(places):
                sampling = Sampling(task.max_tokens, TEMPERATURE, seed=seed_of(seed_for(task), 1, place))
                inference = Inference(PromptId(task.name), (Turn("user", task.question),), sampling=sampling)
                async with aclosing(engine.generate(inference)) as pieces:
                    async for _ in pieces:
                        pass
            done += 1
            tell(done)

    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(one(task))
