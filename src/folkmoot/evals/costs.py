"""What an evaluation will cost: the jobs of each arm that are not made yet, and a judge's verdicts, at the speed that models have here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn, Usage
from folkmoot.engine.protocol import Text
from folkmoot.errors import EngineError
from folkmoot.evals import judging
from folkmoot.evals.arms import Arm, needed
from folkmoot.evals.draws import asked_at
from folkmoot.evals.judge import Baseline, wanted
from folkmoot.evals.proxy import Model
from folkmoot.evals.standings import GRADE, PAIR
from folkmoot.evals.store import Store
from folkmoot.evals.tasks import Task

MEASURED_TOKENS = 48
"""So many tokens each are written to measure the speed (guess: some ten seconds on two cores)."""
READ_WORDS = 400
"""So many words each are read to measure that speed (guess: a third of what a judge reads)."""
LETTERS = 4
"""Of a token, about."""
SHARE = 0.5
"""What of its limit an answer takes where none is stored yet (guess; GSM8K on Qwen 1.5B: 0.4)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one arm: the jobs of a prompt at most, and of all prompts those still to be made, with their seconds."""

    arm: str
    jobs: int
    new_jobs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Judging:
    """A judge's replies at most: those to pairs (two each), to an answer beside itself, and marks; about so many tokens, and seconds."""

    pairs: int
    same: int
    marks: int
    tokens_in: int
    tokens_out: int
    seconds: float


async def speed(model: Model, at_once: int, clock: Callable[[], float]) -> float:
    """Tokens per second of so many answers that are written at a time. Raises `EngineError`."""

    asks = "Count from one to a hundred in words, and say what is odd about each number."
    began = clock()
    used = await asyncio.gather(*(_used(model, asks, MEASURED_TOKENS, number) for number in range(at_once)))
    tokens = sum(each.tokens_out for each in used)
    if not tokens:
        raise EngineError("the model wrote nothing, so that its speed cannot be measured")
    return tokens / max(clock() - began, 1e-9)


async def reading(model: Model, at_once: int, clock: Callable[[], float]) -> float:
    """Tokens per second of so many prompts that are read at a time, none of which begins as another. Raises `EngineError`."""
    asks = [f"{number}. " + f"word {number} and " * (READ_WORDS // 3) for number in range(at_once)]
    began = clock()
    used = await asyncio.gather(*(_used(model, text, 1, number) for number, text in enumerate(asks)))
    tokens = sum(each.tokens_in - each.tokens_cached for each in used)
    return (tokens or sum(map(len, asks)) / LETTERS) / max(clock() - began, 1e-9)


async def _used(model: Model, asks: str, most: int, number: int) -> Usage:
    inference = Inference(
        PromptId(f"{number:032x}"), (Turn("user", asks),), sampling=Sampling(most, 0.7, seed=number)
    )
    async with aclosing(model.generate(inference)) as pieces:
        async for piece in pieces:
            if not isinstance(piece, Text):
                return piece.usage
    return Usage()


def costs(
    arms: Sequence[Arm], tasks: Sequence[Task], models: Sequence[str], store: Store, tokens_per_s: float
) -> list[Cost]:
    """The shared drafts that are not in the store, and what each arm makes beyond them.

    `models` are the devices'. Drafts are looked for as if each device had its number's place; where models differ and seats
    are drawn, it is an estimate. An arm's other jobs depend on what came before, and count as not made.
    """
    drafts = needed(arms, len(models))
    there = _written(drafts, tasks, models, store)
    job_s = _usual(there, tasks) / tokens_per_s
    missing = drafts * len(tasks) - len(there)
    alike = len({*models}) == 1
    found = [Cost("shared drafts", drafts, missing, missing * job_s)]
    for arm in arms:
        jobs = arm.most_jobs(len(models))
        # Where models differ a device writes votes of its own; what else votes or is the origin's draft is there already.
        shared = arm.drafts(len(models))
        if not alike and (arm.device is not None or arm.voters == "device"):
            shared = 0 if arm.device is not None else 1
        new = jobs - shared
        found.append(Cost(arm.name, jobs, new * len(tasks), new * len(tasks) * job_s))
    return found


def judging_costs(
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    models: Sequence[str],
    store: Store,
    baseline: str | Baseline | None,
    same_share: float,
    speeds: tuple[float, float],
) -> Judging:
    """What a judge is asked of the arms' answers to open tasks, as `judge.wanted` asks it; none of it is taken for made.

    `baseline` is an arm's name or the answers of a file. Answers that are not there yet are taken for as long as stored drafts
    are, and a reply for `SHARE` of its limit. `speeds`: tokens read and written per second.
    """
    some = [task for task in tasks if task.open]
    length = _usual(_written(needed(arms, len(models)), some, models, store), some)
    answers = {task.name: "word " * max(1, round(length * LETTERS / 5)) for task in some}
    there = Baseline(baseline, answers) if isinstance(baseline, str) else baseline
    asked = [
        each
        for each in wanted(("", ""), some, {arm.name: answers for arm in arms}, there, same_share)
        if each.messages is not None
    ]
    kinds = [each.judgment.kind for each in asked]
    letters = sum(len(turn["content"]) for each in asked for turn in each.messages or ())
    read, written = letters // LETTERS, round(SHARE * judging.TOKENS * len(asked))
    pairs, marks = kinds.count(PAIR), kinds.count(GRADE)
    seconds = read / speeds[0] + written / speeds[1]
    return Judging(pairs, len(asked) - pairs - marks, marks, read, written, seconds)


def _written(drafts: int, tasks: Sequence[Task], models: Sequence[str], store: Store) -> list[int]:
    """The tokens of the shared drafts that are in the store."""
    calls = (
        store.find(asked_at(models[place % len(models)], task, place))
        for task in tasks
        for place in range(drafts)
    )
    return [call.tokens_out for call in calls if call is not None]


def _usual(tokens: Sequence[int], tasks: Sequence[Task]) -> float:
    """Tokens of an answer: the mean of those that are there, or a part of the limit."""
    if tokens:
        return sum(tokens) / len(tokens)
    return SHARE * sum(task.max_tokens for task in tasks) / max(1, len(tasks))
