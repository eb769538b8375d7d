"""What an evaluation will cost: the jobs of each arm that are not made yet, at the speed that the model has here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn
from folkmoot.engine.protocol import Text
from folkmoot.errors import EngineError
from folkmoot.evals.arms import Arm, needed
from folkmoot.evals.draws import asked_at
from folkmoot.evals.proxy import Model
from folkmoot.evals.store import Store
from folkmoot.evals.tasks import Task

MEASURED_TOKENS = 48
"""So many tokens each are written to measure the speed (guess: some ten seconds on two cores)."""
SHARE = 0.5
"""What of its limit an answer takes where none is stored yet (guess; GSM8K on Qwen 1.5B: 0.4)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one arm: the jobs of a prompt at most, and of all prompts those still to be made, with their seconds."""

    arm: str
    jobs: int
    new_jobs: int
    seconds: float


async def speed(model: Model, at_once: int, clock: Callable[[], float]) -> float:
    """Tokens per second of so many answers that are written at a time. Raises `EngineError`."""

    async def write(number: int) -> int:
        sampling = Sampling(MEASURED_TOKENS, 0.7, seed=number)
        turns = (
            Turn("user", "Count from one to a hundred in words, and say what is odd about each number."),
        )
        async with aclosing(
            model.generate(Inference(PromptId(f"{number:032x}"), turns, sampling=sampling))
        ) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Text):
                    return piece.usage.tokens_out
        return 0

    began = clock()
    tokens = sum(await asyncio.gather(*(write(number) for number in range(at_once))))
    if not tokens:
        raise EngineError("the model wrote nothing, so that its speed cannot be measured")
    return tokens / max(clock() - began, 1e-9)


def costs(
    arms: Sequence[Arm], tasks: Sequence[Task], models: Sequence[str], store: Store, tokens_per_s: float
) -> list[Cost]:
    """The shared drafts that are not in the store, and what each arm makes beyond them.

    `models` are the devices'. Drafts are looked for as if each device had its number's place; where models differ and seats
    are drawn, it is an estimate. An arm's other jobs depend on what came before, and count as not made.
    """
    drafts, there, tokens = needed(arms, len(models)), 0, list[int]()
    for task in tasks:
        for place in range(drafts):
            call = store.find(asked_at(models[place % len(models)], task, place))
            if call is not None:
                there += 1
                tokens.append(call.tokens_out)
    limit = sum(task.max_tokens for task in tasks) / max(1, len(tasks))
    job_s = (sum(tokens) / len(tokens) if tokens else SHARE * limit) / tokens_per_s
    missing = drafts * len(tasks) - there
    found = [Cost("shared drafts", drafts, missing, missing * job_s)]
    for arm in arms:
        jobs = arm.most_jobs(len(models))
        # A device other than the origin writes drafts of its own; what votes or is the origin's draft is there already.
        new = jobs if arm.device else jobs - arm.drafts(len(models))
        found.append(Cost(arm.name, jobs, new * len(tasks), new * len(tasks) * job_s))
    return found
