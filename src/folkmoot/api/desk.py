"""Answers that outlive their connection: what the journal holds is put to the moot until each has its end.

An entry is on disk before its id is told, and so is its end. Between the two it may be put to the moot more than
once: after a restart, and when the moot could not take it. Only the first end is kept. What a layer's devices have
answered is noted as it comes, behind the prompt's back, and a later try goes on from there: what the last moment before a
kill had no time to write is asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

import msgspec

from folkmoot.api.config import ApiConfig
from folkmoot.api.models import servers
from folkmoot.api.response_schema import Response, ResponseRequest
from folkmoot.api.translate import prompt_of
from folkmoot.api.written import PREFIX, begun, cancelled, chat_of, ended, failed
from folkmoot.core.choice import is_called
from folkmoot.core.events import Advanced, Headway, Prompt, PromptAnswered, PromptFailed
from folkmoot.errors import (
    BudgetSpent,
    DeadlinePassed,
    FolkmootError,
    JournalError,
    NoDevice,
    Overloaded,
    PromptInvalid,
    UnknownModel,
)
from folkmoot.node.bugs import way_of
from folkmoot.node.journal import Entry, Journal
from folkmoot.node.service import Moot

AGAIN = (Overloaded.code, BudgetSpent.code, NoDevice.code)
"""How a prompt ends that may find its devices later: this one is stopping, others are not met yet or are full."""
AGAIN_S = 1.0
"""When a prompt is put to the moot again that knew no better time (guess)."""
AGAIN_MOST_S = 60.0
"""And the longest that it waits whatever the moot said (guess)."""
UNACQUAINTED = (UnknownModel.code, PromptInvalid.code)
"""How a prompt that once was accepted ends after a start, where those whom it names have not been met yet."""
LEAST_S = 0.05
"""The shortest deadline that a prompt can have (INTERFACE.md)."""
TOO_LATE = "its deadline passed before the moot could take it"
MEET_S = 2.0
"""How long a device that has just started waits for others before it goes on with what is old (guess)."""
STORE_S = 1.0
"""When an answer that could not be stored is stored again (guess)."""
PRUNE_S = 3_600.0
"""How often what is too old is deleted (guess)."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """What the journal keeps of a request; `hops` counts the moots that it has crossed, `key` names its API key."""

    asked: ResponseRequest
    hops: int
    key: str | None


class NotFound(FolkmootError):
    """No response of that id is kept for whoever asks."""

    code = "not_found"


class Desk:
    """The responses of one device. `owner` is whose a response is; None stands for the device's owner, who sees all."""

    def __init__(self, moot: Moot, journal: Journal, config: ApiConfig, retention_s: float) -> None:
        self._moot = moot
        self._journal = journal
        self._config = config
        self._retention_s = retention_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._seats = asyncio.Semaphore(config.background_prompts)
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._seated: set[str] = set()
        self._untried: set[str] = set()
        self._unwritten: list[tuple[str, bytes]] = []
        self._writing: asyncio.Task[None] | None = None
        self._since = 0.0

    @property
    def trouble(self) -> str:
        """What is wrong with the journal: `damaged`, `full` or `unusable`; empty where nothing is."""
        return self._journal.trouble

    # ---- what is asked of it -----------------------------------------------------------------------

    async def open(self) -> None:
        """Open the journal; its trouble is told in the log, and everything else goes on."""
        with contextlib.suppress(JournalError):
            await self._do(self._journal.open)

    async def accept(self, kept: Kept, owner: str | None, retry_key: str) -> bytes:
        """Put a prompt into the journal, and to the moot in its turn; when this returns it is on disk.

        Gives the response as it stands; with a `retry_key` that its owner has used before, the earlier one. Raises
        `PromptInvalid`, `Overloaded`, `JournalError`.
        """
        entry = Entry(self.draw_id(), owner or "", time.time(), msgspec.json.encode(kept))
        accepted = await self._do(self._journal.accept, entry, retry_key)
        if accepted.id == entry.id:
            self._begin(entry.id, entry.owner)
        return self._as_it_stands(accepted)

    async def record(self, kept: Kept, owner: str | None, response: Response) -> None:
        """Keep a response that has ended in its user's presence. Raises `JournalError`."""
        now = time.time()
        request, ending = msgspec.json.encode(kept), msgspec.json.encode(response)
        await self._do(self._journal.accept, Entry(response.id, owner or "", now, request, now, ending))

    async def fetch(self, name: str, owner: str | None) -> bytes:
        """A response as it stands. Raises `NotFound`, `JournalError`."""
        return self._as_it_stands(await self._entry(name, owner))

    async def cancel(self, name: str, owner: str | None) -> bytes:
        """End a response in the background without an answer; one that has ended stays as it is.

        Raises `NotFound`, `PromptInvalid` where it is none of the background, `JournalError`.
        """
        entry = await self._entry(name, owner)
        asked = _kept(entry).asked
        if not asked.background:
            raise PromptInvalid("only a response in the background is cancelled so; for others, hang up")
        if entry.response is not None:
            return entry.response
        ending = msgspec.json.encode(cancelled(begun(name, entry.created, asked), time.time()))
        if not await self._do(self._journal.finish, name, ending, time.time()):
            return await self.fetch(name, owner)
        self._drop(name)
        return ending

    async def forget(self, name: str, owner: str | None) -> None:
        """Delete a response; one that has not ended is taken back. Raises `NotFound`, `JournalError`."""
        await self._entry(name, owner)
        await self._do(self._journal.forget, name)
        self._drop(name)

    async def forget_all(self) -> int:
        """Delete every response and take those back that have not ended; how many. Raises `JournalError`."""
        gone = await self._do(self._journal.forget_all)
        for name in list(self._running):
            self._drop(name)
        return gone

    def draw_id(self) -> str:
        """A fresh id of a response."""
        return f"{PREFIX}{self._moot.new_prompt_id()}"

    # ---- its work ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer what was accepted, before this start too, and delete what is too old; until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks, self._since = tasks, time.time()
            try:
                with contextlib.suppress(JournalError):  # a damaged one, of which the log tells
                    await self._resume()
                while True:
                    with contextlib.suppress(JournalError):
                        await self._do(self._journal.prune, time.time() - self._retention_s)
                    await asyncio.sleep(PRUNE_S)
            finally:
                self._tasks = None

    def close(self) -> None:
        """Close the journal, once `run` has ended."""
        self._thread.submit(self._journal.close)
        self._thread.shutdown()

    async def _resume(self) -> None:
        old = await self._insist(self._journal.unanswered)
        if old:
            log.info("%d prompts in the background are not answered yet", len(old))
            await self._meet()
        for name, whose in old:
            self._begin(name, whose)

    async def _meet(self) -> None:
        """Wait a little until another device serves: the member list of one that has just started is empty."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEET_S), aclosing(self._moot.watch()) as notices:
                if len(servers(self._moot.status())) < 2:
                    async for _ in notices:
                        if len(servers(self._moot.status())) > 1:
                            return

    def _begin(self, name: str, owner: str) -> None:
        if self._tasks is not None and name not in self._running:
            task = asyncio.ensure_future(self._see_through(name, self._lane(owner)))
            self._running[name] = task
            self._tasks.create_task(self._attend(name, task))

    def _drop(self, name: str) -> None:
        if name in self._running:
            self._running[name].cancel()

    async def _attend(self, name: str, task: asyncio.Task[None]) -> None:
        """Wait for a task that can be cancelled alone; a fault of ours at one prompt takes no others along."""
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])
            del self._running[name]
            self._untried.discard(name)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, JournalError):
            log.error("a prompt in the background failed by a fault of ours: %s", way_of(fault))
            with contextlib.suppress(JournalError):
                await self._fail(name)

    def _lane(self, owner: str) -> asyncio.Semaphore:
        """The seats that an owner may take: an API key half of them, so that no key waits behind another's hundreds."""
        seats = self._config.background_prompts
        most = max(1, seats // 2) if owner else seats
        return self._lanes.setdefault(owner, asyncio.Semaphore(most))

    async def _see_through(self, name: str, lane: asyncio.Semaphore) -> None:
        """Put a prompt to the moot until it has its end; while it waits for better times it takes nobody's seat."""
        entry = await self._insist(self._journal.get, name)
        if entry is None:
            return
        kept = _kept(entry)
        due = self._due(entry.created, kept)
        wait_s: float | None = 0.0
        self._untried.add(name)
        while wait_s is not None:
            async with contextlib.AsyncExitStack() as seat:
                try:
                    async with asyncio.timeout(None if due == math.inf else due - time.time()):
                        await asyncio.sleep(wait_s)
                        await seat.enter_async_context(lane)
                        await seat.enter_async_context(self._seats)
                except TimeoutError:
                    break
                self._seated.add(name)
                try:
                    wait_s = await self._attempt(name, kept, due)
                finally:
                    self._seated.discard(name)
        else:
            return
        late = failed(begun(name, entry.created, kept.asked), DeadlinePassed.code, TOO_LATE, time.time())
        await self._insist(self._journal.finish, name, msgspec.json.encode(late), time.time())

    async def _attempt(self, name: str, kept: Kept, due: float) -> float | None:
        """Put a prompt to the moot; None where it has its end, else when to try again, in seconds."""
        entry = await self._insist(self._journal.get, name)
        if entry is None or entry.response is not None:
            return None
        response = begun(name, entry.created, kept.asked)
        try:
            end = await self._ask(entry, kept, due)
        except FolkmootError as error:
            end = PromptFailed(self._moot.new_prompt_id(), error.code, str(error))
        now = time.time()
        if isinstance(end, PromptAnswered):
            own = kept.asked.folkmoot
            response = ended(response, end, now, proposals=bool(own and own.proposals))
        elif self._hopes(end.code, entry.created, due):
            return min(end.retry_s or AGAIN_S, AGAIN_MOST_S)
        else:
            response = failed(response, end.code, end.detail, now)
        await self._insist(self._journal.finish, name, msgspec.json.encode(response), now)
        return None

    def _due(self, created: float, kept: Kept) -> float:
        """When a prompt's deadline passes, its own or its preset's, in seconds since 1970; infinite where it has none."""
        for own in (kept.asked.folkmoot, self._config.presets.get(kept.asked.model)):
            if own is not None and own.deadline_s is not None:
                return created + own.deadline_s
        return math.inf

    def _hopes(self, code: str, created: float, due: float) -> bool:
        """Whether a prompt that ended so may be answered yet."""
        known = code in AGAIN or (created < self._since and code in UNACQUAINTED)
        return known and self._waits(created, due)

    def _waits(self, created: float, due: float) -> bool:
        """Whether a prompt is still put to the moot that does not take it."""
        until = max(created, self._since) + self._config.background_wait_s if due == math.inf else due
        return time.time() < until

    async def _ask(self, entry: Entry, kept: Kept, due: float) -> PromptAnswered | PromptFailed:
        prompt_id = self._moot.new_prompt_id()
        prompt = prompt_of(
            chat_of(kept.asked), prompt_id, kept.hops, self._moot.status(), self._config, kept.key
        )
        if prompt.plan.deadline_s is not None:
            left_s = due - time.time()
            if left_s < LEAST_S:
                raise DeadlinePassed(TOO_LATE)
            prompt = replace(prompt, plan=replace(prompt.plan, deadline_s=left_s))
        prompt = replace(prompt, keep=True, headway=await self._headway(entry.id))
        if entry.created < self._since and self._waits(entry.created, due):
            for name in _named(prompt):
                if not any(is_called(name, member) for member in servers(self._moot.status())):
                    return PromptFailed(
                        prompt_id, NoDevice.code, f"{name!r} is not there yet, or has no model yet"
                    )
        self._untried.discard(entry.id)
        async with aclosing(self._moot.ask(prompt)) as notices:
            async for notice in notices:
                if isinstance(notice, Advanced):
                    self._note(entry.id, notice.headway)
                elif isinstance(notice, PromptAnswered | PromptFailed):
                    return notice
        return PromptFailed(prompt_id, NoDevice.code, "this device is shutting down")

    def _note(self, name: str, headway: Headway) -> None:
        """Keep a step of a prompt. The prompt goes on meanwhile, and what comes until a commit is over makes the next."""
        self._unwritten.append((name, msgspec.json.encode(headway)))
        if self._tasks is not None and (self._writing is None or self._writing.done()):
            self._writing = self._tasks.create_task(self._write())

    async def _write(self) -> None:
        while self._unwritten:
            notes, self._unwritten = self._unwritten, []
            with contextlib.suppress(JournalError):  # its log tells; what is not kept is asked for again
                await self._do(self._journal.note, notes)

    async def _headway(self, name: str) -> Headway | None:
        """How far earlier tries of a prompt have come."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        found: Headway | None = None
        with contextlib.suppress(msgspec.MsgspecError):  # of another version: from there on it is asked again
            for note in await self._insist(self._journal.notes, name):
                step = msgspec.json.decode(note, type=Headway)
                found = step if found is None else found.then(step)
        if found is not None and name not in self._untried:
            found = replace(found, asked=())  # a try of this process has taken back what it had asked for
        return found

    async def _fail(self, name: str) -> None:
        entry = await self._insist(self._journal.get, name)
        if entry is not None:
            response = begun(name, entry.created, _kept(entry).asked)
            ending = failed(response, "internal", "a bug in Folkmoot; its log says more", time.time())
            await self._insist(self._journal.finish, name, msgspec.json.encode(ending), time.time())

    # ---- inside ------------------------------------------------------------------------------------

    async def _entry(self, name: str, owner: str | None) -> Entry:
        entry = await self._do(self._journal.get, name)
        if entry is None or owner not in (None, entry.owner):
            raise NotFound(f"no response {name!r} is kept here; it may have been deleted, or be too old")
        return entry

    def _as_it_stands(self, entry: Entry) -> bytes:
        if entry.response is not None:
            return entry.response
        response = begun(entry.id, entry.created, _kept(entry).asked)
        if entry.id in self._seated:
            response = msgspec.structs.replace(response, status="in_progress")
        return msgspec.json.encode(response)

    async def _do(self, work: Callable[..., T], *arguments: object) -> T:
        """Have the journal do something, in its own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _insist(self, work: Callable[..., T], *arguments: object) -> T:
        """The same until it succeeds: a full disk is emptied some day. Raises `JournalError` of a damaged journal."""
        while True:
            try:
                return await self._do(work, *arguments)
            except JournalError:
                if self._journal.damaged:
                    raise
            await asyncio.sleep(STORE_S)


def _named(prompt: Prompt) -> list[str]:
    """The devices that a prompt names and has yet to ask."""
    plan, past = prompt.plan, prompt.headway
    select = () if past is not None and past.is_asked else plan.select
    last = [p.device for p in past.proposals if p.layer == past.layers] if past is not None else []
    there = {name for row in last for name in (row.name, row.id)}
    aggregator = [plan.aggregator.removeprefix("fixed:")] if plan.aggregator.startswith("fixed:") else []
    return [*(name for name in select if name not in there), *aggregator]


def _kept(entry: Entry) -> Kept:
    return msgspec.json.decode(entry.request, type=Kept)
