"""How much sooner the aggregation writes its first word when its prompt was evaluated ahead, on real processes.

    python bench/prefill.py --quick --json     cold and staggered, proposals of 40 tokens at origins, within 50 s
    python bench/prefill.py --repeat 3         all modes, by hand
    python bench/prefill.py --real             three real models as peers on the same cores: whole latency only

M = 1, k = 3. The aggregator is `folkmoot up --engine embedded:qwen-0.5b` on all cores; its three peers are
processes whose engine (`timed`) writes stored texts of about 300 tokens and ends when this script tells it to.
A conversation has about 365 tokens and a first line of its own, so that no prompt finds another's cache. Times
are medians over the repetitions: seconds from the end of the last proposal until the first words of the answer,
seen by a client of the HTTP API.

cold           the aggregator has not worked on this prompt: another device was asked and named it
               (`aggregator: fixed:NAME`), so conversation, instruction and four answers are all evaluated then
conversation   the aggregator was asked, and proposed; `warm_prompts = 0` leaves it what its own proposal left in
               its cache: the conversation. The peers end with the origin's own proposal
together       as `conversation`, but with incremental prefill
staggered      with incremental prefill; one peer ends with the origin's own proposal, two more follow, each as
               much later as evaluating what is there by then takes (times 1.15; the last one times `--gap`, and
               from 2 on there is time to evaluate what is written of the last answer too)

`speedup` is cold / staggered. `latency_ratio_...` is the whole latency with incremental prefill / without
(`warm_prompts = 0`), the same seed and the same peers in both. `job_delay_s`: how much later the first word of a
short job comes that arrives in the middle of the prefill, than on the same device at rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from folkmoot.cli.client import Ended, Moved, Words
from folkmoot.cli.village import DeviceProcess
from folkmoot.core.law import Fixed
from folkmoot.core.messages import Inference
from folkmoot.engine.protocol import Done, Text
from folkmoot.engine.threads import cores
from folkmoot.engine.timed import TimedEngine
from folkmoot.node.config import NodeConfig
from folkmoot.node.daemon import Daemon, Ready

SEED = 1
MODEL = "embedded:qwen-0.5b"
PEERS = ("birch", "cedar", "elm")
CONVERSATION, ANSWER, INSTRUCTION = 365, 310, 130
"""Tokens, about."""

SEEN = (
    "the handle grew heavy",
    "the seal leaked",
    "the queue was long",
    "the water was cloudy",
    "the fund was empty",
)
ADVISED = (
    "look at the seals and write down how many strokes fill a bucket",
    "let two caretakers agree on the day of their next visit",
    "keep the book of the fund where everybody can read it",
    "give the hours before noon to those who carry water far",
    "test the water after rain and close the pump if it is bad",
)


def report() -> str:
    """What is asked: with the template about 365 tokens."""
    rng = Random(SEED)
    days = " ".join(
        f"In week {week}, {rng.choice(SEEN)} on {rng.randint(2, 6)} days." for week in range(1, 23)
    )
    return (
        f"Sixty households share one hand pump. {days} In at least eight paragraphs, what should we do in the next "
        "month, in the next year and after, what will it cost, and who should decide? Give reasons at every step."
    )


def advice(number: int) -> str:
    """What peer `number` writes: about 300 tokens."""
    rng = Random(SEED + number)
    return " ".join(f"In month {month}, {rng.choice(ADVISED)}." for month in range(1, 19))


# ---- a peer --------------------------------------------------------------------------------------------


class Storyteller(TimedEngine):
    """Writes its text and takes, for that, the seconds that it was last told."""

    def __init__(self, text: str) -> None:
        super().__init__(Fixed(0.0), name="stored text")
        self.text = text
        self.seconds = 0.0

    def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        return TimedEngine(Fixed(self.seconds), texts=(self.text,)).generate(inference)


async def device(home: Path, invitation: str, number: int) -> None:
    """Run a peer until SIGTERM. Each line of stdin tells its seconds from then on."""
    engine = Storyteller(advice(number))
    daemon = Daemon(home, home.name, engine, NodeConfig(grace_s=0.0))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(daemon.stop()))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def listen() -> None:
        while line := await lines.readline():
            engine.seconds = float(line)
        await daemon.stop()  # whoever started this is gone

    async def ready(_: Ready) -> None:
        print(json.dumps({"event": "ready", "api": ""}), flush=True)

    listening = asyncio.create_task(listen())
    try:
        await daemon.run(join=invitation, ready=ready)
    finally:
        listening.cancel()


# ---- all devices ---------------------------------------------------------------------------------------


@dataclass
class Moot:
    """The devices of one measurement, by name."""

    root: Path
    devices: dict[str, DeviceProcess] = field(default_factory=dict)

    async def spawn(self, name: str, command: list[str], **environ: str) -> DeviceProcess:
        home = self.root / name
        with home.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={
                    **os.environ,
                    "FOLKMOOT_HOME": str(home),
                    "FOLKMOOT_NODE__SKILL__ENABLED": "false",
                    **environ,
                },
                start_new_session=True,
            )
        self.devices[name] = DeviceProcess(name, home, process)
        return self.devices[name]

    async def up(self, name: str, engine: str, join: str | None, **environ: str) -> DeviceProcess:
        command = ["-m", "folkmoot", "up", "--json", "--name", name, "--engine", engine]
        command += ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--with-parent", str(os.getpid())]
        return await self.spawn(name, command + (["--join", join] if join else []), **environ)

    async def start(self, asker: str, aggregators: dict[str, dict[str, str]], peers: str) -> None:
        """Start a device that only asks, the aggregators with their settings, and the peers."""
        founder = await self.up("ash", asker, None)
        await founder.ready()
        async with founder.client() as api:
            invitation = await api.invite(16, 600.0)
        for name, settings in aggregators.items():
            await self.up(name, MODEL, invitation, **settings)
        for number, name in enumerate(PEERS):
            if peers == "real":
                await self.up(name, MODEL, invitation)
            else:
                command = [__file__, "--device", str(self.root / name), "--number", str(number)]
                await self.spawn(name, [*command, "--join", invitation])
        await asyncio.gather(*(each.ready() for each in self.devices.values() if each is not founder))
        for each in (founder, *(self.devices[name] for name in aggregators)):
            await self.knows_all(each)

    async def knows_all(self, device: DeviceProcess) -> None:
        """Wait until a device knows all, with their models."""
        async with device.client() as api:
            for _ in range(600):
                members = (await api.moot())["members"]
                serving = sum(row["standing"] == "alive" and bool(row["model"]) for row in members)
                if serving == len(self.devices):
                    return
                await asyncio.sleep(0.1)
        raise SystemExit(f"{device.name} does not know all devices after a minute")

    def pace(self, *seconds: float) -> None:
        """Tell the peers how long their next answers take."""
        for name, each in zip(PEERS, seconds, strict=True):
            stdin = self.devices[name].process.stdin
            assert stdin is not None
            stdin.write(f"{each}\n".encode())


@contextlib.asynccontextmanager
async def moot() -> AsyncIterator[Moot]:
    """Devices that are gone, with all that they wrote, when the block is left."""
    with tempfile.TemporaryDirectory(prefix="folkmoot-", ignore_cleanup_errors=True) as root:
        devices = Moot(Path(root))
        try:
            yield devices
        finally:
            await asyncio.gather(*(each.stop() for each in devices.devices.values()))


# ---- one prompt ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What one prompt showed. `gap_s`: from the last proposal's end to the first words."""

    gap_s: float
    latency_s: float
    jobs: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.jobs[-1]


async def ask(origin: DeviceProcess, number: int, tokens: int, aggregator: str = "origin") -> Asked:
    """One prompt with M = 1 and the three peers, asked at `origin`; `number` is its seed and first line."""
    own = {"mode": "fixed", "layers": 1, "select": "fixed:" + "+".join(PEERS), "aggregator": aggregator}
    body = {
        "model": "moot",
        "messages": [{"role": "user", "content": f"Letter {number}.\n\n{report()}"}],
        "seed": number,
        "temperature": 0,
        "max_tokens": tokens,
        "folkmoot": own,
    }
    proposed = first = 0.0
    async with origin.client() as api, contextlib.aclosing(api.ask(body)) as told:
        async for each in told:
            match each:
                case Moved(what={"stage": "propose", "state": "ok"}):
                    proposed = time.perf_counter()
                case Words() if not first:
                    first = time.perf_counter()
                case Ended(answer=answer):
                    outcomes = [job["outcome"] for job in answer["jobs"]]
                    if outcomes != ["ok"] * 5:
                        raise SystemExit(f"M = 1, k = 3 must make 5 jobs, all ok; it made {outcomes}")
                    return Asked(first - proposed, answer["latency_s"], answer["jobs"])
                case _:
                    pass
    raise SystemExit(f"{origin.name} ended its stream without an answer")


async def first_word(origin: DeviceProcess, number: int) -> float:
    """Seconds to the first word of a short job on this device alone."""
    content = f"{number}: name a colour."
    body = {"model": "local", "messages": [{"role": "user", "content": content}], "max_tokens": 2}
    began = time.perf_counter()
    async with origin.client() as api, contextlib.aclosing(api.ask(body)) as told:
        async for each in told:
            if isinstance(each, Words):
                return time.perf_counter() - began
    raise SystemExit(f"{origin.name} gave no word")


async def delay(devices: Moot, number: int) -> float:
    """How much later a short job begins to write that arrives in the middle of a prefill."""
    origin = devices.devices["oak"]
    at_rest = await first_word(origin, number)
    devices.pace(0.0, 0.0, 60.0)
    prompt = asyncio.create_task(ask(origin, number, 2))
    async with origin.client() as api:
        for _ in range(600):  # until its own short proposal is done, and the answers are being evaluated
            await asyncio.sleep(0.05)
            found = await api.moot()
            if found["buffer"] and not found["busy"]:
                break
    await asyncio.sleep(Random(number).uniform(0.3, 1.5))
    meanwhile = await first_word(origin, number + 1)
    prompt.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await prompt
    return meanwhile - at_rest


# ---- the modes -----------------------------------------------------------------------------------------


@dataclass
class Results:
    """What was asked in each mode."""

    modes: dict[str, list[Asked]] = field(default_factory=dict)

    def add(self, mode: str, asked: Asked) -> Asked:
        self.modes.setdefault(mode, []).append(asked)
        final = asked.last
        print(
            f"{mode:18} first word {asked.gap_s:6.2f} s after the last proposal, whole {asked.latency_s:6.2f} s, "
            f"read {final['tokens_in']} of which {final['tokens_cached']} cached, wrote {final['tokens_out']}",
            file=sys.stderr,
            flush=True,
        )
        return asked

    def gap(self, mode: str) -> float:
        return statistics.median(asked.gap_s for asked in self.modes[mode])

    def ratio(self, mode: str, without: str) -> float:
        """Of whole latencies: the median over the pairs with one seed."""
        pairs = zip(self.modes[mode], self.modes[without], strict=True)
        return statistics.median(one.latency_s / other.latency_s for one, other in pairs)


def own_s(cold: Asked, tokens: int) -> float:
    """How long the aggregator's own proposal of so many tokens will take, by its pace in a cold aggregation."""
    final = cold.last
    a_token_s = (final["inference_s"] - final["first_token_s"]) / final["tokens_out"]
    return float(CONVERSATION * final["first_token_s"] / final["tokens_in"] + tokens * a_token_s)


def stagger(cold: Asked, tokens: int, gap: float) -> tuple[float, float, float]:
    """When the peers end: the first with the origin's own proposal, the others after an evaluation each."""
    a_token_s = cold.last["first_token_s"] / cold.last["tokens_in"]
    first = own_s(cold, tokens)
    second = first + 1.15 * a_token_s * (INSTRUCTION + tokens + ANSWER)
    return first, second, second + gap * a_token_s * ANSWER


async def quick(seed: int, gap: float) -> Results:
    """Cold and staggered, once each, with proposals of 40 tokens at origins."""
    results, tokens = Results(), 40
    async with moot() as devices:
        threads = {"FOLKMOOT_ENGINE__THREADS": str(cores())}
        await devices.start("timed:det:1.3", {"oak": threads}, "stored")
        devices.pace(0.0, 0.0, 0.0)
        cold = results.add("cold", await ask(devices.devices["ash"], seed, tokens, "fixed:oak"))
        devices.pace(*stagger(cold, tokens, gap))
        results.add("staggered", await ask(devices.devices["oak"], seed + 1, tokens))
    return results


async def full(seed: int, repeat: int, tokens: int, gap: float) -> tuple[Results, list[float]]:
    """Every mode in turn, `repeat` times, with proposals of `tokens` at origins; and delays of other jobs."""
    results, delays = Results(), []
    threads = {"FOLKMOOT_ENGINE__THREADS": str(cores())}  # of the two aggregators one works at a time
    without = {**threads, "FOLKMOOT_NODE__PEER__QUEUE__WARM_PROMPTS": "0"}
    async with moot() as devices:
        await devices.start("timed:det:10", {"oak": threads, "rowan": without}, "stored")
        ash, oak, rowan = (devices.devices[name] for name in ("ash", "oak", "rowan"))
        for number in range(seed, seed + 20 * repeat, 20):
            devices.pace(0.0, 0.0, 0.0)
            cold = results.add("cold", await ask(ash, number, tokens, "fixed:oak"))
            devices.pace(*[own_s(cold, tokens)] * 3)
            results.add("conversation", await ask(rowan, number + 1, tokens))
            results.add("together", await ask(oak, number + 1, tokens))
            devices.pace(*stagger(cold, tokens, gap))
            results.add("staggered_without", await ask(rowan, number + 2, tokens))
            results.add("staggered", await ask(oak, number + 2, tokens))
            delays += [await delay(devices, number + 4 + 2 * turn) for turn in range(3)]
    return results, delays


async def real(seed: int) -> Results:
    """The whole latency with three real models as peers, all five engines on the cores of this machine."""
    results = Results()
    without = {"FOLKMOOT_NODE__PEER__QUEUE__WARM_PROMPTS": "0"}
    async with moot() as devices:
        await devices.start("timed:det:10", {"oak": {}, "rowan": without}, "real")
        results.add("real_without", await ask(devices.devices["rowan"], seed, 150))
        results.add("real", await ask(devices.devices["oak"], seed, 150))
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="end within 50 s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of every mode")
    parser.add_argument("--tokens", type=int, default=300, help="most tokens of an answer written here")
    parser.add_argument(
        "--gap", type=float, default=1.15, help="how long the last peer follows the one before it"
    )
    parser.add_argument("--real", action="store_true", help="real models as peers, whole latency only")
    parser.add_argument("--seed", type=int, default=SEED)
    for name in ("--device", "--join"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device:
        asyncio.run(device(Path(args.device), args.join, args.number))
        return
    found: dict[str, object] = {}
    if args.real:
        results = asyncio.run(real(args.seed))
        found |= {"latency_ratio_real": results.ratio("real", "real_without")}
        found |= {f"{mode}_s": results.gap(mode) for mode in results.modes}
    else:
        delays: list[float] = []
        if args.quick:
            results = asyncio.run(quick(args.seed, args.gap))
        else:
            results, delays = asyncio.run(full(args.seed, args.repeat, args.tokens, args.gap))
        names = "conversation_s incremental_together_s latency_ratio_together latency_ratio_staggered"
        found |= {"cold_s": results.gap("cold"), "incremental_staggered_s": results.gap("staggered")}
        found |= {"speedup": results.gap("cold") / results.gap("staggered"), **dict.fromkeys(names.split())}
        if not args.quick:
            found |= {
                "conversation_s": results.gap("conversation"),
                "incremental_together_s": results.gap("together"),
                "latency_ratio_together": results.ratio("together", "conversation"),
                "latency_ratio_staggered": results.ratio("staggered", "staggered_without"),
                "staggered_without_s": results.gap("staggered_without"),
                "job_delay_s": statistics.median(delays),
                "job_delay_max_s": max(delays),
            }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    found |= {"gap": args.gap, "machine": machine, "seed": args.seed}
    for key, value in found.items():
        print(f"{key:26} {value:.3f}" if isinstance(value, float) else f"{key:26} {value}")
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
