"""The embedded engine: a supervised child process with the model, spoken to over loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

import httpx

from folkmoot.core.messages import Inference, Turn
from folkmoot.engine.child import Child
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.llamacpp import LlamaServer
from folkmoot.engine.protocol import Done, EngineInfo, Text, Warmth
from folkmoot.engine.threads import Seat, cores, share
from folkmoot.engine.weights import Weights, find
from folkmoot.errors import EngineError

_LOOK_S = 2.0  # guess: how often an idle engine looks whether other engines have come
_STEADY_S = 60.0  # guess: a child that lived so long starts its back-off anew
_LAST_WORDS_S = 1.0

log = logging.getLogger(__name__)


class EmbeddedEngine:
    """A model in a child process that is started again when it dies.

    The job in progress then fails; the next one waits until the model is back. When more engines come to
    this host, an idle child with too many threads is replaced by one with its fair share.
    """

    def __init__(self, model: str, config: EngineConfig) -> None:
        self._model = model
        self._config = config
        self._seat = Seat(config.runtime_folder)
        self._weights: Weights | None = None
        self._child: Child | None = None
        self._server: LlamaServer | None = None
        self._info = EngineInfo("", 0, 0.0)
        self._serving = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._threads = 0
        self._jobs = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._trouble = "not started"
        self._replacing = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def start(self) -> EngineInfo:
        """Find the weights, load them in a child, and keep it alive from now on."""
        self._weights = await asyncio.to_thread(find, self._model, self._config.models_folder)
        await asyncio.to_thread(self._seat.claim)
        try:
            await self._spawn()
        except BaseException:
            await asyncio.to_thread(self._seat.leave)
            raise
        self._supervisor = asyncio.create_task(self._supervise())
        return self._info

    async def check(self) -> EngineInfo:
        """Whether the child lives. Raises `EngineError` with its last words while it is being started again.

        One that is replaced for the sake of other engines is no outage: the jobs wait for the new one.
        """
        if self._replacing:
            return self._info
        if self._child is not None and self._child.alive and self._serving.is_set():
            return self._info
        trouble = self._trouble if self._child is None else self._child.epitaph()
        raise EngineError(f"the embedded engine is down: {trouble}")

    async def count(self, conversation: Sequence[Turn]) -> int:
        """Tokens of the conversation in the model's own template."""
        async with self._working() as server:
            return await server.count(conversation)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """Write an answer. Raises `EngineError` if the child dies meanwhile."""
        async with self._working() as server, aclosing(server.generate(inference)) as pieces:
            async for piece in pieces:
                yield piece

    async def prefill(self, inference: Inference) -> Warmth:
        """Evaluate one small step of the open prefix."""
        async with self._working() as server:
            return await server.prefill(inference)

    async def close(self) -> None:
        """Stop the supervision and the child; bounded by `stop_s`."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait([supervisor])
        self._trouble = "closed"
        await self._stop()
        await asyncio.to_thread(self._seat.leave)

    # ---- the child ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[LlamaServer]:
        """The server, waited for if it is being started again; errors get the child's last words."""
        try:
            async with asyncio.timeout(self._config.start_s if self._supervisor else 0):
                await self._serving.wait()
                while (
                    self._child is not None and not self._child.alive
                ):  # dead, and the supervisor is about to know
                    self._serving.clear()
                    await self._serving.wait()
        except TimeoutError as error:
            raise EngineError(f"the embedded engine is down: {self._trouble}") from error
        server, child = self._server, self._child
        assert server is not None
        assert child is not None
        self._jobs += 1
        self._idle.clear()
        try:
            yield server
        except EngineError as error:
            if isinstance(error.__cause__, httpx.ReadTimeout):  # it hangs: killing is the last resort
                await child.stop(self._config.stop_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await child.died()
            if child.alive:
                raise
            if self._child is child:
                self._serving.clear()
            raise EngineError(f"the model process died during the job; {child.epitaph()}") from error
        finally:
            self._jobs -= 1
            if not self._jobs:
                self._idle.set()

    async def _spawn(self) -> None:
        assert self._weights is not None
        engines = await asyncio.to_thread(self._seat.engines)
        self._threads = self._config.threads or share(cores(), engines)
        child = await Child.spawn(self._weights.path, self._threads, self._config)
        server = LlamaServer(child.url, self._config, child.key)
        try:
            found = await server.start()
        except BaseException:
            await server.close()
            await child.stop(self._config.stop_s)
            raise
        note = f"{self._threads} thread(s): {cores()} core(s), {engines} engine(s) on this host; {self._weights.path}"
        self._info = replace(
            found,
            model=self._weights.title or found.model,
            skill=self._config.skill or self._weights.skill or found.skill,
            note=note,
        )
        self._child, self._server = child, server
        self._serving.set()

    async def _stop(self) -> None:
        self._serving.clear()
        server, self._server = self._server, None
        child, self._child = self._child, None
        if child is not None and not child.alive:
            with suppress(TimeoutError):  # a job's broken connection is its own to notice
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._idle.wait()
        if server is not None:
            await server.close()
        if child is not None:
            await child.stop(self._config.stop_s)

    async def _supervise(self) -> None:
        """Start the child again whenever it has died, ever more slowly while it keeps dying."""
        clock = asyncio.get_running_loop().time
        pause = self._config.restart_s
        while True:
            born = clock()
            died = await self._until_replaced()
            self._replacing = not died
            if died and self._child is not None:
                self._trouble = self._child.epitaph()
            await self._stop()
            if clock() - born > _STEADY_S:
                pause = self._config.restart_s
            while self._server is None:
                if died:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, self._config.restart_max_s)
                try:
                    await self._spawn()
                except (EngineError, OSError) as error:
                    self._trouble, died, self._replacing = str(error), True, False
            self._replacing = False
            self.restarts += 1

    async def _until_replaced(self) -> bool:
        """Wait until the child is dead (True), or is idle and has more threads than its share (False)."""
        assert self._child is not None
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._child.died()
                    return True
            except TimeoutError:
                if self._config.threads or self._threads == 1 or self._jobs:
                    continue
                try:
                    engines = await asyncio.to_thread(self._seat.engines)
                except OSError as error:  # a full disk, or somebody holds the door: the next look may tell
                    log.debug("the engines of this host cannot be counted: %s", error)
                    continue
                if share(cores(), engines) < self._threads and not self._jobs:
                    return False
