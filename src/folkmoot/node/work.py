"""The engine's time: one job or one prefill step at a time, as the core says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from folkmoot.core.events import EngineFailed, Event, Finished, Generated, Warmed
from folkmoot.core.ids import JobId, PromptId
from folkmoot.core.messages import Inference, Usage
from folkmoot.engine.protocol import Done, Engine, Text
from folkmoot.errors import EngineError, FolkmootError
from folkmoot.node.bugs import way_of

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
Room = Callable[[], Coroutine[Any, Any, None]]

DETAIL = 1_000
"""Characters of an engine's last words that are passed on; wire's bound is 2,000."""

log = logging.getLogger(__name__)


class Work:
    """Runs the core's `Generate` and `Warm` on an engine, and probes while it does neither. `handle` takes what comes of it.

    Each runs in a task of its own that can be cancelled, before its first step too, while another one waits
    for it and reports: so every `Generate` and every `Warm` is answered.
    """

    def __init__(self, engine: Engine | None, spawn: Spawn, coalesce_s: float) -> None:
        self._engine = engine
        self._spawn = spawn
        self._coalesce_s = coalesce_s
        self._jobs: dict[JobId, asyncio.Task[Event]] = {}
        self._spent: dict[JobId, Usage] = {}
        self._step: tuple[PromptId, asyncio.Task[Event]] | None = None
        self._probing: asyncio.Task[tuple[str, bool]] | None = None
        self.handle: Callable[[Event], None] = lambda event: None

    @property
    def probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probing is not None

    def generate(self, job: JobId, inference: Inference, room: Room) -> None:
        """Run a job; `room` waits until its asker has read what was written."""
        before: list[asyncio.Task[Any]] = self._stop_probing()
        if self._step is not None:
            before.append(self._step[1])
        task = asyncio.ensure_future(self._write(job, inference, room, before))
        self._jobs[job] = task
        self._spawn(self._report_job(job, task))

    def abort(self, job: JobId) -> None:
        """Stop a job at once; it ends as `cancelled`."""
        if job in self._jobs:
            self._jobs[job].cancel()

    def warm(self, inference: Inference) -> None:
        """Evaluate one step of an inference's open prefix."""
        task = asyncio.ensure_future(self._prefill(inference, self._stop_probing()))
        self._step = (inference.prompt, task)
        self._spawn(self._report_step(inference.prompt, task))

    def chill(self, prompt: PromptId) -> None:
        """Stop the step that is running."""
        if self._step is not None and self._step[0] == prompt:
            self._step[1].cancel()

    async def probe(self, inference: Inference) -> tuple[str, bool] | None:
        """An answer for this device itself, and whether it was cut off; None where the engine is needed, then or meanwhile.

        Whatever else is begun stops it at once. Raises EngineError.
        """
        if self._engine is None or self._jobs or self._step is not None or self._probing is not None:
            return None
        task = self._probing = asyncio.ensure_future(self._read(self._engine, inference))
        try:
            await _ended(task)
        finally:
            if task.done():
                self._probing = None
        if task.cancelled():
            return None
        fault = task.exception()
        if fault is not None and not isinstance(fault, FolkmootError):
            log.error("the engine failed at a probe by a fault of ours: %s", way_of(fault))
            raise EngineError(f"a fault in the engine ({type(fault).__name__})")
        return task.result()

    def _stop_probing(self) -> list[asyncio.Task[Any]]:
        """Somebody needs the engine: what must have ended before it is free."""
        if self._probing is None:
            return []
        if not self._probing.cancelling():  # a second time would break into what an engine does to stop
            self._probing.cancel()
        return [self._probing]

    async def _read(self, engine: Engine, inference: Inference) -> tuple[str, bool]:
        said = list[str]()
        async with contextlib.aclosing(engine.generate(inference)) as pieces:
            async for piece in pieces:
                match piece:
                    case Text(text=text):
                        said.append(text)
                    case Done(truncated=truncated):
                        return _sound("".join(said)), truncated
        raise EngineError("the engine stopped in the middle of an answer")

    async def _report_job(self, job: JobId, task: asyncio.Task[Event]) -> None:
        await _ended(task)
        del self._jobs[job]
        spent = self._spent.pop(job, Usage())
        if task.cancelled():
            self.handle(EngineFailed(job, "cancelled", "the job was cancelled", spent))
        elif isinstance(fault := task.exception(), FolkmootError):
            log.info("a job failed: %s", fault.code)  # a server's words may hold the prompt
            self.handle(EngineFailed(job, fault.code, str(fault)[:DETAIL], spent))
        elif fault is not None:
            log.error("the engine failed at a job by a fault of ours: %s", way_of(fault))
            detail = f"a fault in the engine ({type(fault).__name__})"
            self.handle(EngineFailed(job, EngineError.code, detail, spent))
        else:
            self.handle(task.result())

    async def _report_step(self, prompt: PromptId, task: asyncio.Task[Event]) -> None:
        await _ended(task)
        self._step = None
        if task.cancelled():
            self.handle(Warmed(prompt, 0, 1))
        elif (bug := task.exception()) is not None:
            log.error("the engine failed at a prefill by a fault of ours: %s", way_of(bug))
            self.handle(Warmed(prompt, 0, 0))
        else:
            self.handle(task.result())

    async def _write(
        self, job: JobId, inference: Inference, room: Room, before: list[asyncio.Task[Any]]
    ) -> Event:
        if before:
            await asyncio.wait(before)
        if self._engine is None:
            return EngineFailed(job, "no_engine", "this device has no model")
        return await self._pass_on(self._engine, job, inference, room)

    async def _pass_on(self, engine: Engine, job: JobId, inference: Inference, room: Room) -> Event:
        """Pass pieces on, gathered so that no more than one goes out every `coalesce_s`, the first at once."""
        clock = asyncio.get_running_loop().time
        gathered: list[str] = []
        last = -math.inf
        async with contextlib.aclosing(engine.generate(inference)) as pieces:
            async for piece in pieces:
                match piece:
                    case Text(text=text, usage=usage):
                        self._spent[job] = usage
                        if not text:
                            continue
                        gathered.append(_sound(text))
                        if clock() - last >= self._coalesce_s:
                            last = clock()
                            self.handle(Generated(job, "".join(gathered), usage))
                            gathered.clear()
                            await room()
                    case Done(usage=usage, truncated=truncated):
                        if gathered:
                            self.handle(Generated(job, "".join(gathered), usage))
                        return Finished(job, usage, truncated)
        raise EngineError("the engine stopped in the middle of an answer")

    async def _prefill(self, inference: Inference, before: list[asyncio.Task[Any]]) -> Event:
        if before:
            await asyncio.wait(before)
        if self._engine is None:
            return Warmed(inference.prompt, 0, 0)
        try:
            warmth = await self._engine.prefill(inference)
        except FolkmootError:
            # The job itself will meet the fault and report it; prefill is a favour.
            return Warmed(inference.prompt, 0, 0)
        return Warmed(inference.prompt, warmth.evaluated, warmth.total)


def _sound(text: str) -> str:
    """The text without halves of characters, as servers send that tear one in two: they cannot be encoded."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def _ended(task: asyncio.Task[Any]) -> None:
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
