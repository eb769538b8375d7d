"""Real engines, loaded once for all tests, and a scripted HTTP server for faults."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from folkmoot.engine.config import EngineConfig
from folkmoot.engine.embedded import EmbeddedEngine


@dataclass(frozen=True)
class Reply:
    """What the scripted server answers. `cut` breaks the connection instead of ending the body."""

    status: int = 200
    chunks: Sequence[bytes] = ()
    cut: bool = False
    hang: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(status, [json.dumps(value).encode()])


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Replies = dict[str, list[Reply] | Callable[[dict[str, Any]], Reply]]


@dataclass
class Script:
    """Replies by path: made from the request's body, or a list used up from the front whose last one stays."""

    replies: Replies
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(Request(method, path, headers, json.loads(body) if body else {}))
        self.asked.set()
        queue = self.replies.get(path, [as_json({"error": {"message": "no such path"}}, 404)])
        if callable(queue):
            reply = queue(self.requests[-1].body)
        else:
            reply = queue.pop(0) if len(queue) > 1 else queue[0]
        if reply.hang:
            await reader.read()
            self.gone.set()
            return
        size = (
            f"Content-Length: {sum(map(len, reply.chunks))}"
            if reply.headers
            else "Transfer-Encoding: chunked"
        )
        lines = [f"HTTP/1.1 {reply.status} X", "Connection: close", size]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        for chunk in reply.chunks if method != "HEAD" else ():
            writer.write(chunk if reply.headers else b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if not (reply.cut or reply.headers or method == "HEAD"):
            writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def scripted(replies: Replies, port: int = 0) -> AsyncIterator[Script]:
    script = Script(replies)
    server = await asyncio.start_server(script.serve, "127.0.0.1", port)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield script
        if script.tasks:
            await asyncio.wait(script.tasks, timeout=5)


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port at which nobody listens, and that no other process is given meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def config(models: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    return EngineConfig(
        threads=1, context_tokens=2048, models_folder=models, runtime_folder=tmp_path_factory.mktemp("run")
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def smol(config: EngineConfig) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine("smollm2", config)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def qwen(config: EngineConfig) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine("", config)
    info = await engine.start()
    assert info.model == "Qwen2.5-Coder-0.5B-Instruct"
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def both(smol: EmbeddedEngine, qwen: EmbeddedEngine) -> dict[str, EmbeddedEngine]:
    return {"smol": smol, "qwen": qwen}
