"""A proxy on a real socket, a model that can be held back, and small files of tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from folkmoot.api.config import ApiConfig
from folkmoot.api.server import bind, make_server, url_of
from folkmoot.core.messages import Inference, Usage
from folkmoot.engine.protocol import Done, Text
from folkmoot.errors import FolkmootError
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.store import Store

KEY = "the key of a run"

SUMS = [
    {"id": 1, "question": "Two and two?", "answer": "4"},
    {"id": 2, "question": "Ten less three?", "answer": "7"},
    {"id": 3, "question": "Six times six?", "answer": "36"},
]


@dataclass
class Model:
    """Writes `texts` in turn, each once `free` is set; `fail` is raised instead."""

    texts: Sequence[str] = ("It is four.\nAnswer: 4",)
    fail: FolkmootError | None = None
    truncated: bool = False
    usage: Usage = Usage(20, 0, 9, 1.5, 0.5)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[Inference] = field(default_factory=list)
    busy: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        self.asked.append(inference)
        self.busy.set()
        await self.free.wait()
        if self.fail is not None:
            raise self.fail
        text = self.texts[(len(self.asked) - 1) % len(self.texts)]
        yield Text(text[:3])
        yield Text(text[3:])
        yield Done(self.usage, self.truncated)


@pytest.fixture
async def model() -> Model:
    made = Model()
    made.free.set()
    return made


@pytest.fixture
def store(tmp_path: Path):
    made = Store(tmp_path / "calls.sqlite")
    yield made
    made.close()


@pytest.fixture
async def serve_proxy() -> AsyncIterator[Callable[[Proxy], Awaitable[str]]]:
    """Puts a proxy on a socket, for who has `KEY`; gives its URL."""
    running = []

    async def start(proxy: Proxy) -> str:
        listener = bind(ApiConfig(listen="127.0.0.1:0"))
        server = make_server(proxy.app(KEY))
        running.append((proxy, server, asyncio.create_task(server.serve(sockets=[listener])), listener))
        return url_of(listener)

    yield start
    for proxy, server, task, listener in running:
        server.should_exit = True
        await task
        await proxy.close()
        listener.close()


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """Three tasks in the form of GSM8K."""
    file = tmp_path / "gsm8k.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in SUMS), "utf-8")
    return file
