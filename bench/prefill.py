"""Time to the first token of the aggregation, with and without incremental prefill.

    python bench/prefill.py --quick --json       cold and staggered only, within 50 s
    python bench/prefill.py --json               all, three times each, medians, by hand

M = 1, k = 3, a conversation of about 365 tokens, answers of about 300. The origin and aggregator is a real device
with Qwen 0.5B in its own child process; its three peers are real devices on loopback with the engine `timed` and
stored texts, so that only the aggregator's engine uses the processor. Measured from the arrival of the
last answer at the origin to the first word of the aggregation, seconds:

cold          the origin's own proposal has been pushed out of the engine's cache, nothing is prefilled
conversation  the conversation is in the cache, as the origin's own proposal leaves it; nothing is prefilled
incremental   as shipped: while it waits, the origin evaluates the conversation and each answer as it arrives

`together`: all three peers end when the origin's own proposal does; `staggered`: one after another, `GAP_S` apart.
`speedup` is cold ÷ incremental staggered. `latency_ratio_*`: the whole latency, acceptance to the end of the answer,
incremental ÷ conversation. The quick run takes the prompt back after the first word.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from folkmoot.core.events import AnswerText, JobProgress, Plan, Prompt, PromptAnswered, PromptFailed
from folkmoot.core.ids import PromptId
from folkmoot.core.law import parse_law
from folkmoot.core.messages import Inference, Sampling, Stage, Turn
from folkmoot.core.peer import PeerConfig
from folkmoot.core.queue import QueueConfig
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.embedded import EmbeddedEngine
from folkmoot.engine.protocol import Done, EngineInfo, Text, Warmth
from folkmoot.engine.timed import TimedEngine
from folkmoot.node.config import NodeConfig
from folkmoot.node.daemon import Daemon, Ready

SEED = 1
GAP_S = 5.0
ANSWER_WORDS, QUESTION_WORDS = 245, 300
WORDS = (
    "the river rises in the hills and carries sand to the sea where tides sort it by weight so that beaches "
    "change their shape with every storm while dunes behind them hold fresh water that plants reach with long "
    "roots and birds nest among the grass because few animals cross the open ground at night"
).split()


def prose(rng: random.Random, words: int) -> str:
    """Sentences of about so many words."""
    chosen = [rng.choice(WORDS) for _ in range(words)]
    cuts = range(0, words, 14)
    return " ".join(" ".join(chosen[i : i + 14]).capitalize() + "." for i in cuts)


class Forgetful:
    """The embedded engine; where `cold`, its own proposals are pushed out of its cache as soon as they end."""

    def __init__(self, inner: EmbeddedEngine, slots: int) -> None:
        self._inner = inner
        self._slots = slots
        self.cold = False

    async def start(self) -> EngineInfo:
        return await self._inner.start()

    async def count(self, conversation: Sequence[Turn]) -> int:
        return await self._inner.count(conversation)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        async with contextlib.aclosing(self._inner.generate(inference)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Done) and self.cold and not inference.answers:
                    for number in range(self._slots):
                        await self._other(number)
                yield piece

    async def _other(self, number: int) -> None:
        turns = (Turn("user", f"{number}: name a colour."),)
        other = Inference(PromptId(f"{number:032x}"), turns, sampling=Sampling(max_tokens=1))
        async with contextlib.aclosing(self._inner.generate(other)) as pieces:
            async for _ in pieces:
                pass

    async def prefill(self, inference: Inference) -> Warmth:
        return await self._inner.prefill(inference)

    async def close(self) -> None:
        await self._inner.close()


@dataclass
class Found:
    """One prompt: seconds from the last answer to the first word, and (unless cut short) in all."""

    first_s: float
    latency_s: float
    cached: int


@contextlib.asynccontextmanager
async def running(daemon: Daemon, join: str | None) -> AsyncIterator[None]:
    """A device that is up."""
    up = asyncio.Event()

    async def ready(_: Ready) -> None:
        up.set()

    task = asyncio.create_task(daemon.run(join=join, ready=ready))
    waiting = asyncio.create_task(up.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield
    finally:
        waiting.cancel()
        await daemon.stop()
        await task


async def once(origin: Daemon, conversation: str, tokens: int, cut_short: bool) -> Found:
    """Ask once and take the times."""
    clock = asyncio.get_running_loop().time
    sampling = Sampling(max_tokens=tokens, seed=SEED)
    turns = (Turn("user", conversation),)
    plan = Plan(mode="fixed", layers=1, proposers=3)
    prompt = Prompt(origin.new_prompt_id(), turns, plan, sampling, stream=True)
    last = first = 0.0
    async with contextlib.aclosing(origin.ask(prompt)) as notices:
        async for notice in notices:
            match notice:
                case JobProgress(stage=Stage.PROPOSE, state="ok"):
                    last = clock()
                case AnswerText() if not first:
                    first = clock() - last
                    if cut_short:
                        return Found(first, 0.0, 0)
                case PromptAnswered(provenance=told):
                    return Found(first, told.latency_s, told.jobs[-1].tokens_cached)
                case PromptFailed(code=code, detail=detail):
                    raise SystemExit(f"the prompt failed, {code}: {detail}")
    raise SystemExit("the prompt did not end")


async def scene(mode: str, gap_s: float, times: int, quick: bool) -> list[Found]:
    """A fresh moot in a mode, asked so many times."""
    rng = random.Random(SEED)
    engine_config = EngineConfig(models_folder=platformdirs.user_cache_path("folkmoot") / "models")
    node = NodeConfig(grace_s=0.0)
    if mode != "incremental":
        node = replace(node, peer=PeerConfig(queue=QueueConfig(warm_prompts=0)))
    engine = Forgetful(EmbeddedEngine("qwen-0.5b", engine_config), engine_config.slots)
    engine.cold = mode == "cold"
    tokens = 32 if quick else 300
    own_s = tokens / 24  # about what Qwen 0.5B takes for its own proposal here
    async with contextlib.AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="folkmoot-")))
        origin = Daemon(root / "origin", "origin", engine, node)
        await stack.enter_async_context(running(origin, None))
        invitation = await origin.invite(3, 600.0, False)
        for number in range(3):
            law = parse_law(f"det:{own_s + gap_s * number}")
            texts = [prose(rng, ANSWER_WORDS)]
            peer = Daemon(root / f"peer{number}", f"peer{number}", TimedEngine(law, texts=texts), node)
            await stack.enter_async_context(running(peer, invitation))
        async with contextlib.aclosing(origin.watch()) as notices:
            while sum(1 for m in origin.status().members if m.card.model) < 4:
                await anext(notices)
        return [
            await once(origin, prose(random.Random(SEED + each), QUESTION_WORDS), tokens, quick)
            for each in range(times)
        ]


async def measure(quick: bool, times: int) -> dict[str, float]:
    """Every figure."""
    found: dict[str, float] = {}
    whole: dict[str, float] = {}
    scenes = [("cold", "together"), ("incremental", "staggered")]
    if not quick:
        scenes += [("conversation", "together"), ("conversation", "staggered"), ("incremental", "together")]
    for mode, way in scenes:
        gap_s = GAP_S if way == "staggered" else 0.0
        rows = await scene(mode, gap_s, times, quick)
        name = {"cold": "cold_s", "conversation": "conversation_s"}.get(mode, f"{mode}_{way}_s")
        if (mode, way) != ("conversation", "staggered"):
            found[name] = statistics.median(row.first_s for row in rows)
        whole[f"{mode}_{way}"] = statistics.median(row.latency_s for row in rows)
        print(
            f"{mode:12} {way:10} first word after {[round(row.first_s, 2) for row in rows]} s, whole after "
            f"{[round(row.latency_s, 1) for row in rows]} s, cached {[row.cached for row in rows]}",
            file=sys.stderr,
        )
    found["speedup"] = found["cold_s"] / found["incremental_staggered_s"]
    if not quick:
        for way in ("together", "staggered"):
            found[f"latency_ratio_{way}"] = whole[f"incremental_{way}"] / whole[f"conversation_{way}"]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="cold and staggered only, within 50 s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--times", type=int, default=3, help="prompts in each mode")
    args = parser.parse_args()
    found: dict[str, object] = dict(asyncio.run(measure(args.quick, 1 if args.quick else args.times)))
    keys = "cold_s conversation_s incremental_together_s incremental_staggered_s speedup"
    names = [*keys.split(), "latency_ratio_together", "latency_ratio_staggered"]
    for name in names:
        value = found.setdefault(name, None)
        print(f"{name:26} {value:.3f}" if isinstance(value, float) else f"{name:26} not in the quick run")
    if args.json:
        about = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "seed": SEED,
        }
        print(json.dumps({**{name: found[name] for name in names}, **about}))


if __name__ == "__main__":
    main()
