"""One operating-system process that runs the model: its start, its end and its last words."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from pathlib import Path

from folkmoot.engine._child import EXIT_MODEL, EXIT_PORT
from folkmoot.engine.config import EngineConfig
from folkmoot.errors import EngineError, WeightsError

_TAIL_BYTES = 4096


class Child:
    """A running model server, reached at `url` with `key`."""

    def __init__(self, process: Process, key: str) -> None:
        self.url = ""
        self.key = key
        self._process = process
        self._tail: deque[int] = deque(maxlen=_TAIL_BYTES)
        self._readers: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is known to run."""
        return self._process.returncode is None

    @classmethod
    async def spawn(cls, model: Path, threads: int, config: EngineConfig) -> Child:
        """Start the process and wait until it has loaded the model. Raises `EngineError`, `WeightsError`."""
        numbers = (config.port, threads, config.context_tokens, config.slots, config.step_tokens, os.getpid())
        command = (sys.executable, "-P", "-m", "folkmoot.engine._child", str(model), *map(str, numbers))
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except OSError as error:
            raise EngineError(f"no process can be started for the model: {error}") from error
        child = cls(process, secrets.token_hex(16))
        try:
            async with asyncio.timeout(config.start_s):
                await child._wait_ready()
        except TimeoutError as error:
            await child.stop(config.stop_s)
            raise EngineError(
                f"the model was not loaded within {config.start_s} s; raise engine.start_s"
            ) from error
        except BaseException:
            await child.stop(config.stop_s)
            raise
        return child

    async def died(self) -> None:
        """Wait for the end of the process."""
        await self._process.wait()

    def epitaph(self) -> str:
        """How it ended, with what it wrote on stderr last."""
        status = self._process.returncode
        how = (
            "still running"
            if status is None
            else f"signal {-status}"
            if status < 0
            else f"exit status {status}"
        )
        tail = bytes(self._tail).decode(errors="replace").strip()
        return f"model process {self.pid}: {how}" + (f"; its last words: {tail}" if tail else "")

    async def stop(self, patience_s: float) -> None:
        """End the process, by force after `patience_s`. Safe to call twice."""
        for signal_it in (self._process.terminate, self._process.kill):
            if self._process.returncode is None:
                try:
                    signal_it()
                except ProcessLookupError:
                    break
            try:
                async with asyncio.timeout(patience_s):
                    await self._process.wait()
                    break
            except TimeoutError:
                continue
        await self._process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _wait_ready(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers.append(asyncio.create_task(self._keep_tail(process.stderr)))
        process.stdin.write(f"{self.key}\n".encode())
        while not self.url:
            line = await process.stdout.readline()
            if not line:
                await process.wait()
                await asyncio.gather(*self._readers)
                raise self._failure()
            word, _, rest = line.decode(errors="replace").strip().partition(" ")
            if word == "READY":
                self.url = rest
        self._readers.append(asyncio.create_task(_drain(process.stdout)))

    def _failure(self) -> EngineError:
        match self._process.returncode:
            case code if code == EXIT_PORT:
                return EngineError(f"{self.epitaph()}; set engine.port to 0 or to a free port")
            case code if code == EXIT_MODEL:
                return WeightsError(f"the model cannot be loaded: {self.epitaph()}; is it a whole GGUF file?")
            case _:
                return EngineError(f"the model process ended while loading: {self.epitaph()}")

    async def _keep_tail(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(_TAIL_BYTES):
            self._tail.extend(piece)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
