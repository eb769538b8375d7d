"""Devices with one and the same real model: at temperature 0.7 their proposals differ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from folkmoot.core.events import Plan, Prompt, PromptAnswered
from folkmoot.core.messages import Inference, Sampling, Stage, Turn
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.embedded import EmbeddedEngine
from folkmoot.engine.protocol import Done, Text
from folkmoot.node.config import NodeConfig
from folkmoot.node.daemon import Daemon

pytestmark = pytest.mark.live


class Overheard(EmbeddedEngine):
    """The real engine; keeps what it wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__("smollm2", EngineConfig(models_folder=folder, threads=1))
        self.wrote: list[str] = []

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        words: list[str] = []
        async with contextlib.aclosing(super().generate(inference)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Text):
                    words.append(piece.text)
                else:
                    self.wrote.append("".join(words))
                yield piece


@contextlib.asynccontextmanager
async def running(daemon: Daemon, join: str | None) -> AsyncIterator[None]:
    up = asyncio.Event()

    async def ready(_: object) -> None:
        up.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(daemon.run(join=join, ready=ready))
        await up.wait()
        try:
            yield
        finally:
            await daemon.stop()


async def test_same_model_at_0_7_gives_differing_proposals(tmp_path: Path) -> None:
    engines = [Overheard(tmp_path / "models") for _ in range(3)]
    node = NodeConfig(grace_s=0.0)
    daemons = [Daemon(tmp_path / f"d{i}", f"d{i}", engine, node) for i, engine in enumerate(engines)]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(daemons[0], None))
        invitation = await daemons[0].invite(2, 600.0, False)
        for daemon in daemons[1:]:
            await stack.enter_async_context(running(daemon, invitation))
        async with contextlib.aclosing(daemons[0].watch()) as notices:
            while sum(1 for m in daemons[0].status().members if m.card.model) < 3:
                await anext(notices)
        prompt = Prompt(
            daemons[0].new_prompt_id(),
            (Turn("user", "Tell me a short story about a boat."),),
            Plan(mode="fixed", layers=1, proposers=2),
            Sampling(max_tokens=24, temperature=0.7, seed=11),
        )
        async with contextlib.aclosing(daemons[0].ask(prompt)) as asked:
            told = [notice async for notice in asked][-1]
    assert isinstance(told, PromptAnswered)
    assert {job.model for job in told.provenance.jobs} == {"SmolLM2-135M-Instruct"}
    assert [job.stage for job in told.provenance.jobs] == [Stage.PROPOSE] * 3 + [Stage.AGGREGATE]
    proposals = [engine.wrote[0] for engine in engines]
    assert all(proposals)
    assert len({*proposals}) == 3
