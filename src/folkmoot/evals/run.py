"""Asks a live moot every task in every arm, through its real HTTP API, and keeps what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx

from folkmoot.core.medoid import medoid
from folkmoot.core.mixture import DRAFT_STANDS, VOTE_STANDS, seed_of
from folkmoot.errors import EngineError, EvalError, NodeError, PromptTooLong
from folkmoot.evals.arms import Arm, needed
from folkmoot.evals.draws import TEMPERATURE, draw, merging, seed_for
from folkmoot.evals.jobs import Job
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.records import Record, Records
from folkmoot.evals.store import Call
from folkmoot.evals.tasks import Task
from folkmoot.evals.workers import together

SETTINGS = {
    "engine.idle_s": "86400", "node.peer.mixture.patience_s": "86400", "node.peer.max_wait_s": "0",
    "node.peer.hedge.share": "0", "node.peer.breaker.failures": "0",
}  # fmt: skip
"""Of an evaluated moot's devices. They share this machine, so that one waits for another's words: nobody is late by that."""

GIVES_UP = 5
"""So many prompts without an answer after each other end a run: something is broken, and the rest would fail as well."""

ANSWER_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Device:
    """One of the moot: where its API is, and its model, which is a proxy's name."""

    name: str
    url: str
    model: str


@dataclass(frozen=True, slots=True)
class Moot:
    """The devices and what answers for their models. `origin` is whose prompts they are; None: one is drawn for each task by its name."""

    devices: tuple[Device, ...]
    proxies: Mapping[str, Proxy]
    origin: int | None = 0

    def seats(self, task: Task) -> list[int]:
        """The devices in the order of their places in a task's layers: its origin, then the others as they are drawn for it."""
        count = len(self.devices)
        origin = seed_for(task.name) % count if self.origin is None else self.origin
        others = [each for each in range(count) if each != origin]
        return [origin, *Random(f"{seed_for(task.name)} seats").sample(others, len(others))]

    @property
    def same(self) -> bool:
        """Whether all devices have the same model, so that it does not matter who sits where."""
        return len({device.model for device in self.devices}) == 1


async def run(
    moot: Moot,
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    records: Records,
    *,
    at_once: int = 1,
    stored: bool = False,
    rate_hz: float = 0.0,
    step: Callable[[Record | None], None] = lambda record: None,
) -> None:
    """Run what is not among the records yet, task by task, all arms of a task after each other.

    With a rate an arm's tasks come at random, so many a second, and arm after arm: `at_once` does not count, and an arm of which some
    records are there begins anew. `step` hears of each record, and None of one that came to nothing. With `stored` there is no model: what the store lacks is
    left out. Raises `EvalError` after `GIVES_UP` prompts without an answer or where the store fails, `NodeError` where a device is gone.
    """
    waiting = iter(
        [
            turns
            for turns in _conversations(tasks)
            if any((task.name, arm.name) not in records for task in turns for arm in arms)
        ]
    )
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with httpx.AsyncClient(
        trust_env=False, limits=limits, timeout=httpx.Timeout(ANSWER_S, connect=10.0)
    ) as client:
        asker = _Asker(moot, client, records, stored, step)
        if rate_hz:
            for arm in arms:
                if not arm.votes and any((task.name, arm.name) not in records for task in tasks):
                    await _stream(asker, arm, tasks, rate_hz)
            arms = [arm for arm in arms if arm.votes]  # nobody is asked for these
        await together(lambda: _work(asker, arms, waiting), at_once)


def _conversations(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks, with those of one conversation together: each is asked when the one before it has its answer."""
    found: list[list[Task]] = []
    for task in tasks:
        if task.before is None:
            found.append([])
        found[-1].append(task)
    return found


async def _work(asker: _Asker, arms: Sequence[Arm], waiting: Iterator[Sequence[Task]]) -> None:
    for turns in waiting:
        for task in turns:
            await asker.task(task, [arm for arm in arms if (task.name, arm.name) not in asker.records])


async def _stream(asker: _Asker, arm: Arm, tasks: Sequence[Task], rate_hz: float) -> None:
    """The tasks of an arm, at the same random times whoever asks for them."""
    random, clock = Random("arrivals"), asyncio.get_running_loop().time
    began = clock()
    due = 0.0

    async def ask(turns: Sequence[Task], at_s: float) -> None:
        for task in turns:
            await asker.task(task, [arm], at_s if task.before is None else clock() - began)

    try:
        async with asyncio.TaskGroup() as group:
            for turns in _conversations(tasks):
                await asyncio.sleep(began + due - clock())
                group.create_task(ask(turns, due))
                due += random.expovariate(rate_hz)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


class _Asker:
    """Who asks, and counts what fails."""

    def __init__(
        self,
        moot: Moot,
        client: httpx.AsyncClient,
        records: Records,
        stored: bool,
        step: Callable[[Record | None], None],
    ) -> None:
        self.records = records
        self._moot, self._client = moot, client
        self._stored = stored
        self._step = step
        self._failed = 0

    async def task(self, task: Task, arms: Sequence[Arm], at_s: float = 0.0) -> None:
        if task.before is None:
            await self._task(task, arms, at_s)
            return
        for arm in arms:
            first = self.records.get((task.before.name, arm.name))
            if first is None or first.error:
                self._step(None)  # there is no conversation to go on with
            else:
                await self._task(task.after(first.answer), [arm], at_s)

    async def _task(self, task: Task, arms: Sequence[Arm], at_s: float) -> None:
        seats = self._moot.seats(task)
        drafts = await self._drafts(task, arms, seats)
        for arm in arms:
            if arm.merges:
                record = await self._merged(arm, task, seats, drafts[arm.name])
            elif arm.votes:
                record = _voted(self._moot, arm, task, seats, drafts[arm.name])
            else:
                record = await self._asked(arm, task, seats)
            if record is not None:
                self.records.add(replace(record, at_s=at_s))
            self._step(record)

    async def _drafts(
        self, task: Task, arms: Sequence[Arm], seats: Sequence[int]
    ) -> dict[str, list[Call | None]]:
        """What votes in each arm; those that the arms that ask will need are made at the same time."""
        devices = self._moot.devices
        at = [self._moot.proxies[devices[seat].model] for seat in seats]
        # What a device asks of its model comes one after another; drawn ahead a model writes it all at a time.
        wanted = {"": at[: needed(arms, len(devices))]}
        for arm in arms:
            if arm.voters == "device" or arm.draft:
                own = at[0] if arm.device is None else self._moot.proxies[devices[arm.device].model]
                wanted[arm.name] = [own] * (arm.votes or 1)
        drawn = await asyncio.gather(*(draw(proxies, task) for proxies in wanted.values()))
        found = dict(zip(wanted, drawn, strict=True))
        return found | {arm.name: found[""][: arm.votes] for arm in arms if arm.voters == "moot"}

    async def _asked(self, arm: Arm, task: Task, seats: Sequence[int]) -> Record | None:
        origin = self._moot.devices[seats[0] if arm.device is None else arm.device]
        try:
            response = await self._client.post(
                f"{origin.url}/v1/chat/completions", json=body_of(self._moot, arm, task, seats)
            )
            for proxy in self._moot.proxies.values():
                if proxy.broken is not None:
                    raise proxy.broken
            answered = response.status_code == 200
            told = response.json()["folkmoot" if answered else "error"]
            code, why = ("", "") if answered else (str(told["code"]), str(told["message"]))
        except httpx.TransportError as error:
            raise NodeError(
                f"device {origin.name} is gone ({error or type(error).__name__}); run the same again"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise NodeError(f"what answers at {origin.url} is not Folkmoot") from None
        if answered:
            return self._kept(_record(self._moot, arm, task, origin, told))
        if code == "too_long":
            right = None if task.open else False
            return Record(task.name, task.group, arm.name, origin.name, "", "", right, 0.0, error=code)
        if code == "invalid":
            raise EvalError(f"arm {arm.name}: {why}")
        self._lost(f"arm {arm.name}, {task.name}: {why}")
        return None

    async def _merged(
        self, arm: Arm, task: Task, seats: Sequence[int], drafts: Sequence[Call | None]
    ) -> Record | None:
        """What a device makes of its own drafts, by its model without its moot."""
        calls = [draft for draft in drafts if draft is not None]
        device = self._moot.devices[seats[0] if arm.device is None else arm.device]
        if len(calls) < len(drafts):
            return None
        try:
            body = merging(device.model, task, [call.text for call in calls])
            last = await self._moot.proxies[device.model].call(body)
        except PromptTooLong as error:
            right = None if task.open else False
            return Record(task.name, task.group, arm.name, device.name, "", "", right, 0.0, error=error.code)
        except EngineError as error:
            self._lost(f"arm {arm.name}, {task.name}: {error}")
            return None
        made = [_made(call, 1, "propose", device.name) for call in calls]
        return self._kept(Record(
            task.name, task.group, arm.name, device.name, last.text, task.given(last.text), task.right(last.text), 0.0,
            (*made, _made(last, 2, "aggregate", device.name)),
        ))  # fmt: skip

    def _kept(self, record: Record) -> Record | None:
        """The record, unless a job of it failed: what the store lacks, or a device that was lost among others on this machine. Whoever stood
        in for it is not what the arm asks."""
        if any(job.outcome == "failed" for job in record.jobs):
            self._lost(f"arm {record.arm}, {record.task}: a job failed")
            return None
        self._failed = 0
        return record

    def _lost(self, why: str) -> None:
        if self._stored:
            return
        self._failed += 1
        if self._failed == GIVES_UP:
            raise EvalError(f"{GIVES_UP} prompts after each other had no answer; the last one: {why}")


def body_of(moot: Moot, arm: Arm, task: Task, seats: Sequence[int]) -> dict[str, Any]:
    """The request of an arm.

    Where models differ the peers of a single layer are named, so that the same device drafts in the same place in all arms.
    A device alone is given the seed that the origin's own draft has.
    """
    own = {**arm.own, "proposals": True}
    if arm.proposers and not moot.same and (arm.layers == 1 or arm.proposers == len(moot.devices) - 1):
        names = [moot.devices[seat].name for seat in seats[1 : arm.proposers + 1]]
        own["select"] = f"fixed:{'+'.join(names)}"
    seed = seed_for(task.name)
    return {
        "model": "moot",
        "messages": task.messages,
        "max_tokens": task.max_tokens,
        "temperature": TEMPERATURE,
        "seed": seed_of(seed, 1, 0) if arm.draft else seed,
        "folkmoot": own,
    }


def _record(moot: Moot, arm: Arm, task: Task, origin: Device, told: Mapping[str, Any]) -> Record:
    answer = str(told["answer"])
    decisions = tuple((str(each["what"]), str(each["why"])) for each in told["decisions"])
    # Where a draft is the answer nobody tells what the aggregate said.
    last = None if any(what.endswith((DRAFT_STANDS, VOTE_STANDS)) for what, _ in decisions) else answer
    taken: set[str] = set()
    jobs = tuple(_job(moot, task, row, last, taken) for row in told["jobs"])
    return Record(
        task.name, task.group, arm.name, origin.name, answer, task.given(answer), task.right(answer),
        float(told["latency_s"]), jobs, decisions,
    )  # fmt: skip


def _job(moot: Moot, task: Task, row: Mapping[str, Any], last: str | None, taken: set[str]) -> Job:
    """A job of the provenance; what it took is what its model took for it, be it long ago. `taken` are the calls of other jobs."""
    proxy, call = moot.proxies.get(row["model"]), None
    if proxy is not None and row["outcome"] == "ok":
        text = last if row["stage"] == "aggregate" else row.get("text")
        call = proxy.took(task.question, (row["tokens_in"], row["tokens_out"]), text, taken)
    if call is not None:
        taken.add(call.key)
    # A job without an answer took the run's own seconds; of stored answers those are `pace` of the model's.
    own = 1.0 / proxy.pace if proxy is not None and proxy.pace else 1.0
    return Job(
        row["layer"], row["stage"], row["device"], row["model"], row["outcome"], row["tokens_in"], row["tokens_cached"],
        row["tokens_out"], own * row["inference_s"] if call is None else call.inference_s,
        own * row["first_token_s"] if call is None else call.first_token_s, row["queued_s"] or 0.0,
    )  # fmt: skip


def _voted(
    moot: Moot, arm: Arm, task: Task, seats: Sequence[int], drafts: Sequence[Call | None]
) -> Record | None:
    """The answer of the most drafts that give the same, in the words of the first of these; of equally many the first."""
    if any(draft is None for draft in drafts):
        return None
    calls = [draft for draft in drafts if draft is not None]
    if arm.alike:
        return _selected(moot, arm, task, seats, calls)
    given = [task.given(call.text) for call in calls]
    if arm.until:
        enough = next(
            (n for n in range(1, len(calls)) if given[:n].count(given[n - 1]) == arm.until and given[n - 1]),
            len(calls),
        )
        calls, given = calls[:enough], given[:enough]
    votes = Counter(each for each in given if each)
    best = max(votes, key=lambda each: (votes[each], -given.index(each)), default="")
    winner = calls[given.index(best)] if best else calls[0]
    own = seats[0] if arm.device is None else arm.device
    names = [moot.devices[seat].name for seat in (seats if arm.voters == "moot" else [own] * arm.votes)]
    jobs = tuple(_made(call, 1, "propose", name) for name, call in zip(names, calls, strict=False))
    return Record(
        task.name, task.group, arm.name, moot.devices[seats[0]].name, winner.text, best, task.right(winner.text), 0.0, jobs,
        (("the most that give the same", ", ".join(f"{each or 'nothing'}: {votes[each]}" for each in dict.fromkeys(given))),),
    )  # fmt: skip


def _selected(moot: Moot, arm: Arm, task: Task, seats: Sequence[int], calls: Sequence[Call]) -> Record:
    """The draft that the others are most like, whatever it gives."""
    found = medoid([call.text for call in calls], [1.0] * len(calls))
    winner = calls[found.place]
    names = [moot.devices[seat].name for seat in seats]
    jobs = tuple(_made(call, 1, "propose", name) for name, call in zip(names, calls, strict=False))
    return Record(
        task.name, task.group, arm.name, names[0], winner.text, task.given(winner.text), task.right(winner.text), 0.0, jobs,
        (("the draft that the others are most like", f"mean similarity {found.agreement:.2f}"),),
    )  # fmt: skip


def _made(call: Call, layer: int, stage: str, device: str) -> Job:
    """A job that no device was asked for: its call alone."""
    return Job(
        layer, stage, device, str(call.request["model"]), "ok", call.tokens_in, 0, call.tokens_out, call.inference_s,
        call.first_token_s,
    )  # fmt: skip
