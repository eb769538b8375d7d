"""Has a model judge the open answers of a run: pairs in both orders, marks, and some answers against themselves.

Every reply is kept in the store of calls by its content and among the run's judgments, so that what was stopped goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any
from zlib import crc32

from folkmoot.errors import EngineError, EvalError, PromptTooLong
from folkmoot.evals import judging
from folkmoot.evals.judging import TIE, TOO_LONG, UNPARSABLE, A, B, Messages
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.records import Record
from folkmoot.evals.standings import GRADE, PAIR, SAME, Judgment, Judgments
from folkmoot.evals.store import key_of
from folkmoot.evals.tasks import Open, Task, rows
from folkmoot.evals.winrate import INSTRUCTIONS, PROMPTS
from folkmoot.evals.workers import together

DEFAULT = "openai:https://api.openai.com/v1#gpt-4-1106-preview"
"""The judge of AlpacaEval 2.0's published win rates."""

GIVES_UP = 5
"""So many judgments without a reply after each other end the work."""

ABLE_BILLIONS = 30.0
"""A judge of fewer parameters is called small (guess)."""

Answers = Mapping[str, str]
"""By the name of their task; an empty text where there is none."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What answers are compared with."""

    name: str
    answers: Answers


@dataclass(frozen=True, slots=True)
class Wanted:
    """A judgment as far as it is known before the judge has spoken, and what it is asked (None: nothing)."""

    judgment: Judgment
    messages: Messages | None
    skills: tuple[str, ...] = ()


def weakness(model: str, billions: float, made_up: bool) -> str:
    """Why the verdicts of a model are no evidence of quality; empty where nothing is known against them. `billions` 0: unknown."""
    if made_up:
        return "no model writes its words"
    if billions:
        return f"it has {billions:g} billion parameters, which is small" if billions < ABLE_BILLIONS else ""
    known = model.startswith("gpt-4") and not any(each in model for each in ("mini", "nano"))
    return "" if known else "its size is not known"


def answers_of(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """The answers of each arm."""
    found: dict[str, dict[str, str]] = {}
    for record in records:
        found.setdefault(record.arm, {})[record.task] = "" if record.error else record.answer
    return found


def outputs(path: Path) -> Baseline:
    """Answers to AlpacaEval's instructions out of a file with `id` and `output`, or AlpacaEval's own list. Raises `EvalError`."""
    try:
        answers = {f"alpaca/{row['id']}": str(row["output"]) for row in rows(path)}
    except KeyError as error:
        raise EvalError(
            f"{path}: a row has no {error}; name a file of outputs, with `id` and `output`"
        ) from None
    return Baseline(path.name.partition(".")[0], answers)


def indices(tasks: Sequence[Task]) -> dict[str, int]:
    """The place of each task among AlpacaEval's own instructions, where `tasks` are all of them."""
    own = {task.name.partition("/")[2]: task for task in tasks if task.set == "alpaca"}
    if own.keys() != {str(number) for number in range(PROMPTS)}:
        return {}
    words = "\n".join(own[str(number)].question for number in range(PROMPTS))
    if hashlib.sha256(words.encode()).hexdigest() != INSTRUCTIONS:
        return {}
    return {task.name: int(number) for number, task in own.items()}


def wanted(
    judge: tuple[str, str],
    tasks: Sequence[Task],
    answers: Mapping[str, Answers],
    baseline: Baseline | None,
    same_share: float,
) -> list[Wanted]:
    """All judgments of a run by `judge`, its name and weakness: pairs with the baseline where it has the task, and marks of MT-Bench and FLASK.

    For a share of the tasks the baseline's answer stands on both sides as well, once.
    """
    places = indices(tasks)
    found: list[Wanted] = []
    compared: dict[str, Task] = {}
    for task in tasks:
        for arm, mine in answers.items():
            if not task.open or task.name not in mine:
                continue
            if baseline is not None and arm != baseline.name and task.name in baseline.answers:
                compared[task.name] = task
                found += _pair(judge, task, arm, mine, baseline, places.get(task.name))
            if task.set != "alpaca":
                found.append(_graded(judge, task, arm, mine))
    if baseline is not None:
        some = sorted((task for task in compared.values() if baseline.answers[task.name]), key=_rank)
        for task in some[: ceil(same_share * len(some))]:
            said = _said(task, baseline.answers)
            judgment = Judgment(*judge, task.name, baseline.name, baseline.name, SAME, "both")
            found.append(Wanted(judgment, judging.pair(_questions(task), said, said)))
    return found


def _rank(task: Task) -> int:
    return crc32(task.name.encode())


def _questions(task: Task) -> tuple[str, ...]:
    return (task.question,) if task.before is None else (task.before.question, task.question)


def _said(task: Task, answers: Answers) -> tuple[str, ...]:
    return tuple(answers.get(each.name, "") for each in (task.before, task) if each is not None)


def _pair(
    judge: tuple[str, str], task: Task, arm: str, mine: Answers, baseline: Baseline, index: int | None
) -> Iterator[Wanted]:
    theirs = baseline.answers
    lengths = len(mine[task.name]), len(theirs[task.name])
    sides = _said(task, mine), _said(task, theirs)
    there, other = bool(mine[task.name].strip()), bool(theirs[task.name].strip())
    for place, elsewhere in ((A, B), (B, A)):
        judgment = Judgment(
            *judge, task.name, arm, baseline.name, PAIR, place, characters=lengths, index=index
        )
        if there and other:
            order = sides if place == A else sides[::-1]
            yield Wanted(judgment, judging.pair(_questions(task), *order))
        else:
            said = TIE if there == other else place if there else elsewhere
            yield Wanted(replace(judgment, verdict=said), None)


def _graded(judge: tuple[str, str], task: Task, arm: str, mine: Answers) -> Wanted:
    assert isinstance(task.target, Open)
    judgment = Judgment(*judge, task.name, arm, "", GRADE, "", characters=(len(mine[task.name]), 0))
    names = task.target.skills
    if not mine[task.name].strip():
        return Wanted(replace(judgment, scores=dict.fromkeys(names or ("",), 1.0)), None)
    if names:
        return Wanted(
            judgment, judging.skills(task.question, mine[task.name], task.target.reference, names), names
        )
    return Wanted(judgment, judging.grade(_questions(task), _said(task, mine), task.target.reference))


def body_of(model: str, messages: Messages) -> dict[str, Any]:
    """The request of a judgment."""
    return {
        "model": model,
        "messages": messages,
        "max_tokens": judging.TOKENS,
        "temperature": 0.0,
        "top_p": 1.0,
    }


def missing(proxy: Proxy, some: Sequence[Wanted], kept: Judgments) -> list[Wanted]:
    """Those that are not kept, or were made of other words."""
    return [each for each in some if _stale(proxy, each, kept.get(each.judgment.key))]


def _stale(proxy: Proxy, each: Wanted, there: Judgment | None) -> bool:
    return there is None or there.call != _call(proxy, each)


def _call(proxy: Proxy, each: Wanted) -> str:
    return "" if each.messages is None else key_of(body_of(proxy.name, each.messages))[:16]


async def judge(
    proxy: Proxy, some: Sequence[Wanted], kept: Judgments, *, at_once: int, step: Callable[[bool], None]
) -> None:
    """Make judgments and keep each at once; `step` hears whether it came to something.

    Raises `EvalError` after `GIVES_UP` in a row that came to nothing, or where the store fails.
    """
    waiting = iter(some)
    failed = 0

    async def work() -> None:
        nonlocal failed
        for each in waiting:
            try:
                kept.add(await _judged(proxy, each))
                failed = 0
                step(True)
            except EngineError as error:
                failed += 1
                step(False)
                if failed == GIVES_UP:
                    raise EvalError(
                        f"{GIVES_UP} judgments after each other came to nothing; the last one: {error}"
                    ) from error

    await together(work, at_once)


async def _judged(proxy: Proxy, each: Wanted) -> Judgment:
    if each.messages is None:
        return each.judgment
    judgment = replace(each.judgment, call=_call(proxy, each))
    try:
        reply = (await proxy.call(body_of(proxy.name, each.messages))).text
    except PromptTooLong:
        return replace(judgment, verdict=TOO_LONG)
    if judgment.kind != GRADE:
        return replace(judgment, verdict=judging.verdict(reply), reply=reply)
    value = None if each.skills else judging.mark(reply)
    scores = judging.marks(reply, each.skills) if each.skills else {} if value is None else {"": value}
    return replace(judgment, scores=scores, verdict="" if scores else UNPARSABLE, reply=reply)
