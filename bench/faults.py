"""What a frozen, a dead and a slow peer cost, and whether a prompt is ever lost, on real devices of this machine.

    python bench/faults.py --quick --json        within 50 s
    python bench/faults.py --json                by hand: about 20 minutes

Five devices with `timed:exp:0.2` are asked in mode auto, at moments and with seeds that are the same in each row, so that each
job takes as long in all of them. Beside them there is nobody (`healthy`), a sixth device that is stopped (SIGSTOP) or killed
(SIGKILL) at the beginning of the window, or one that is ten times slower throughout. `..._ratio` is the mean latency of the
prompts of all windows, from the fault on, by that of the healthy rest; `..._first_ratio` counts those of the first 5 s alone,
before the moot can know of a death. `..._p99_ratio` is that of the 99th percentiles.

Then the peers of one device are killed while prompts run on it, half of them in mode auto and half with M = 2, k = 2, streamed and
not, and started again in their old homes. `lost` are prompts that got no whole answer though they were not refused (429), `struck` jobs that a kill ended or made
late, `hedged_share` the copies of late jobs as a share of all other jobs, over everything above.

    python bench/faults.py --simulated --json    by hand: some ten minutes

`--simulated` shows, by the same core in virtual time, what `node.peer.hedge.late` and `node.peer.price.haste` do among eight healthy
devices with a mean service of 1: the points that the answers earn, latencies, copies. `late` 0 stands for no copies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import httpx

from folkmoot.cli.open_loop import poisson
from folkmoot.cli.village import DeviceProcess, Village, village
from folkmoot.core.breaker import BreakerConfig
from folkmoot.core.hedge import HedgeConfig
from folkmoot.core.law import parse_law
from folkmoot.core.price import PriceConfig
from folkmoot.queueing.moot import Question
from folkmoot.queueing.streams import keys
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.load import Load, Setting
from folkmoot.sim.overload import earned

ALPHA_S, DEVICES, SLOWER = 0.2, 5, 10
RATE_HZ = 0.2
"""Prompts per second and device: a third of the limit of (2, 3), which mode auto asks for where nobody waits."""
KILLED_HZ = 1.2
"""Prompts per second at the device whose peers are killed: its own jobs keep it busy for seven tenths of the time."""
FIRST_S = 5.0
SEED = 7
SIMULATED, UNTIL_S, ONE, EVEN = 8, 1_500.0, "exp:1", "lognormal:1:0.5"
LAW, SLOW_LAW = f"timed:exp:{ALPHA_S}", f"timed:exp:{ALPHA_S * SLOWER:g}"

Body = dict[str, Any]


@dataclass(slots=True)
class Sent:
    """A prompt: when it was due in its window, how long it took, how it ended, and its provenance."""

    due: float
    latency_s: float = 0.0
    code: str = "open"
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Window:
    """The prompts of one stretch of time."""

    sent: list[Sent]

    def latencies(self, until: float = float("inf")) -> list[float]:
        return [each.latency_s for each in self.sent if each.due < until and not each.code]


async def ask(client: httpx.AsyncClient, body: Body, sent: Sent) -> None:
    """Ask, streamed or not, and keep how it ended: an answer has an empty code."""
    began = time.monotonic()
    try:
        if body.get("stream"):
            await _streamed(client, body, sent)
        else:
            response = await client.post("/v1/chat/completions", json=body)
            _end(sent, response.json(), response.status_code)
    except (httpx.HTTPError, ValueError) as error:
        sent.code = type(error).__name__
    sent.latency_s = time.monotonic() - began


async def _streamed(client: httpx.AsyncClient, body: Body, sent: Sent) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            _end(sent, json.loads(await response.aread()), response.status_code)
            return
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk or "jobs" in chunk.get("folkmoot", {}):
                    _end(sent, chunk, 200)


def _end(sent: Sent, found: dict[str, Any], status: int) -> None:
    if status == 200 and "error" not in found:
        sent.code, sent.told = "", found["folkmoot"]
    else:
        sent.code = str(found["error"]["code"])


def body(number: int, seed: int, own: Body | None = None, *, stream: bool = False) -> Body:
    """A request; its seed makes the times of its jobs."""
    said: Body = {
        "model": "moot",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "seed": seed + number,
    }
    return said | {"stream": stream} | ({"folkmoot": own} if own else {})


async def window(devices: Sequence[DeviceProcess], seconds: float, seed: int) -> Window:
    """Ask the devices at moments that wait for nobody."""
    moments = list(poisson(len(devices), RATE_HZ, seconds, seed))
    sent = [Sent(due) for due, _ in moments]
    clients = [httpx.AsyncClient(base_url=each.api, timeout=60.0, trust_env=False) for each in devices]
    began = time.monotonic()

    async def one(number: int) -> None:
        due, place = moments[number]
        await asyncio.sleep(max(0.0, began + due - time.monotonic()))
        await ask(clients[place], body(number, 1_000 * seed), sent[number])

    try:
        await asyncio.gather(*(one(number) for number in range(len(moments))))
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))
    return Window(sent)


async def warm(devices: Sequence[DeviceProcess], askers: Sequence[DeviceProcess]) -> None:
    """Each device has served a job, and the askers have heard of all of them."""

    async def one(device: DeviceProcess) -> None:
        async with httpx.AsyncClient(base_url=device.api, timeout=60.0, trust_env=False) as client:
            own = {"layers": 1, "proposers": len(devices) - 1}
            await ask(client, body(0, SEED, own), Sent(0.0))

    await asyncio.gather(*(one(device) for device in askers))


# ---- the faults --------------------------------------------------------------------------------------


async def frozen(moot: Village, healthy: Sequence[DeviceProcess], seconds: float, seed: int) -> Window:
    """A sixth device is stopped when the window begins."""
    victim = await moot.add(LAW)
    await warm(moot.devices, healthy)
    victim.process.send_signal(signal.SIGSTOP)
    found = await window(healthy, seconds, seed)
    victim.process.send_signal(signal.SIGCONT)
    await gone(moot, victim)
    return found


async def dead(moot: Village, healthy: Sequence[DeviceProcess], seconds: float, seed: int) -> Window:
    """A sixth device is killed when the window begins."""
    victim = await moot.add(LAW)
    await warm(moot.devices, healthy)
    victim.process.kill()
    found = await window(healthy, seconds, seed)
    await gone(moot, victim)
    return found


async def slow(moot: Village, healthy: Sequence[DeviceProcess], seconds: float, seed: int) -> Window:
    """A sixth device is ten times slower than the others."""
    victim = await moot.add(SLOW_LAW)
    await warm(moot.devices, healthy[:1])
    found = await window(healthy, seconds, seed)
    await gone(moot, victim)
    return found


async def alone(moot: Village, healthy: Sequence[DeviceProcess], seconds: float, seed: int) -> Window:
    """There is no sixth device."""
    return await window(healthy, seconds, seed)


async def gone(moot: Village, victim: DeviceProcess) -> None:
    """Take a device down, and wait until the others know."""
    await victim.stop()
    moot.devices.remove(victim)
    await moot.whole()


FAULTS: dict[str, Callable[[Village, Sequence[DeviceProcess], float, int], Awaitable[Window]]] = {
    "healthy": alone, "frozen": frozen, "dead": dead, "slow": slow,
}  # fmt: skip


# ---- kills -------------------------------------------------------------------------------------------


async def kills(moot: Village, count: int, rng: Random) -> tuple[Window, int]:
    """Kill a peer of the first device again and again while prompts run there; start it again each time."""
    origin, sent, prompts = moot.devices[0], list[Sent](), list[asyncio.Task[None]]()
    struck, over = 0, asyncio.Event()

    async def load() -> None:
        async with httpx.AsyncClient(base_url=origin.api, timeout=60.0, trust_env=False) as client:
            number = 0
            while not over.is_set():
                own = {"layers": 2, "proposers": 2} if number % 2 else None
                sent.append(Sent(0.0))
                asked = ask(client, body(number, SEED, own, stream=number % 4 > 1), sent[-1])
                prompts.append(asyncio.create_task(asked))
                number += 1
                await asyncio.sleep(rng.expovariate(KILLED_HZ))
            await asyncio.gather(*prompts)

    loading = asyncio.create_task(load())
    while struck < count:
        await asyncio.sleep(rng.random())
        victim = moot.devices[rng.randrange(1, len(moot.devices))]
        victim.process.kill()
        await victim.process.wait()
        struck += 1
        await moot.again(victim)
    over.set()
    await loading
    return Window(sent), struck


# ---- what the settings do ------------------------------------------------------------------------------

LATE, HASTE = HedgeConfig().late, PriceConfig(enabled=True, haste=0.5)
SIMULATED_SEED = 500
SETTINGS = (
    *((law, load, late, 0.0) for law, load in ((ONE, 0.3), (ONE, 1.0), (ONE, 3.0)) for late in (0.0, 2.0, LATE, 4.0)),
    *((law, load, LATE, haste) for law, load in ((ONE, 0.3), (ONE, 1.0), (EVEN, 0.3)) for haste in (0.5, 1.0)),
)  # fmt: skip


def setting(law: str, load: float, late: float, haste: float, seeds: int) -> dict[str, Any]:
    """Healthy devices in mode auto; load 1 is the limit of (2, 3)."""
    question = Question(
        SIMULATED, 2, 3, (load / 9,), (parse_law(law),), horizon=UNTIL_S, replications=1, discipline="lsf", best_of=7,
    )  # fmt: skip
    how = Setting(
        price=replace(HASTE, haste=haste), share=2.0, gossip=True, links=LinkConfig(),
        hedge=HedgeConfig(share=0.05 if late else 0.0, late=late or LATE), breaker=BreakerConfig(failures=3),
    )  # fmt: skip

    def one(key: Any) -> tuple[float, ...]:
        history = Load(question, key, UNTIL_S, how).run()
        found = earned(question, history, 0.2 * UNTIL_S, 0.9 * UNTIL_S)
        took = [
            each.ended - each.born for each in history.prompts if not each.code and each.born > 0.2 * UNTIL_S
        ]
        copies = sum(each.copies for each in history.prompts)
        return (
            found.points,
            statistics.fmean(took),
            found.p50_s,
            found.p99_s,
            copies / (len(history.jobs) - copies),
        )

    from joblib import Parallel, delayed

    rows = Parallel(n_jobs=-1)(delayed(one)(key) for key in keys(SIMULATED_SEED, seeds))
    names = ("points", "mean", "p50", "p99", "copies")
    means = dict(zip(names, (statistics.fmean(column) for column in zip(*rows, strict=True)), strict=True))
    spread = statistics.stdev(row[1] for row in rows) / len(rows) ** 0.5
    return {
        "law": law,
        "load": load,
        "late": late,
        "haste": haste,
        **means,
        "mean_error": spread,
        "seeds": seeds,
    }


# ---- all of it ---------------------------------------------------------------------------------------


async def measure(seconds: float, windows: int, kill: int, tell: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: dict[str, list[Window]] = {name: [] for name in FAULTS}
    async with village(dict(os.environ), tell) as moot:
        await moot.start([LAW] * DEVICES)
        healthy = list(moot.devices)
        await warm(healthy, healthy)
        for turn in range(windows):
            for name, fault in FAULTS.items():
                seen[name].append(await fault(moot, healthy, seconds, SEED + turn))
                tell(f"{name}: {_said(seen[name][-1])}")
        killed, struck = await kills(moot, kill, Random(SEED))
        tell(f"{struck} kills: {_said(killed)}")
    for name in FAULTS if windows else ():
        healthy_s = _times(seen["healthy"])
        times = _times(seen[name])
        found |= {f"{name}_{key}_s": value for key, value in times.items()}
        if name != "healthy":
            found |= {f"{name}_ratio": times["mean"] / healthy_s["mean"]}
            found |= {f"{name}_{key}_ratio": times[key] / healthy_s[key] for key in ("first", "p99")}
    everything = [each for windows in seen.values() for each in windows] + [killed]
    jobs = [job for each in everything for sent in each.sent for job in sent.told.get("jobs", ())]
    copies = sum(
        " is asked as well as " in decision["what"]
        for each in everything
        for sent in each.sent
        for decision in sent.told.get("decisions", ())
    )
    hit = [
        job
        for sent in killed.sent
        for job in sent.told.get("jobs", ())
        if job["outcome"] in ("failed", "late")
    ]
    ends = Counter(sent.code for each in everything for sent in each.sent if sent.code)
    return found | {
        "hedged_share": copies / max(1, len(jobs) - copies), "copies": copies, "jobs": len(jobs),
        "lost": ends.total() - ends["overloaded"], "refused": ends["overloaded"], "ends": dict(sorted(ends.items())),
        "kills": struck, "struck": len(hit), "prompts": sum(len(each.sent) for each in everything),
        "prompts_while_killing": len(killed.sent),
    }  # fmt: skip


def _times(windows: Sequence[Window]) -> dict[str, float]:
    every = [latency for each in windows for latency in each.latencies()]
    first = [latency for each in windows for latency in each.latencies(FIRST_S)]
    ninety_nine = sorted(every)[int(0.99 * (len(every) - 1))]
    return {
        "mean": statistics.fmean(every), "p50": statistics.median(every), "p99": ninety_nine,
        "first": statistics.fmean(first),
    }  # fmt: skip


def _said(found: Window) -> str:
    done = found.latencies()
    copies = sum(
        " is asked as well as " in each["what"]
        for sent in found.sent
        for each in sent.told.get("decisions", ())
    )
    ends = Counter(sent.code for sent in found.sent if sent.code)
    codes = "".join(f", {count} {code}" for code, count in ends.items())
    mean = statistics.fmean(done) if done else float("nan")
    return f"{len(done)} of {len(found.sent)} answered, mean {mean:.3f} s, {copies} copies{codes}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one window of 3 s a row, few kills")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--windows", type=int, help="so many windows a row (default 4; 1 with --quick)")
    parser.add_argument("--kills", type=int, help="so many kills (default 200; 2 with --quick)")
    parser.add_argument("--simulated", action="store_true", help="what the settings do, in virtual time")
    parser.add_argument("--seeds", type=int, default=6, help="of each simulated row")
    asked = parser.parse_args()
    began = time.monotonic()

    def tell(line: str) -> None:
        print(line, file=sys.stderr if asked.json else sys.stdout, flush=True)

    if asked.simulated:
        rows = []
        for each in SETTINGS:
            rows.append(setting(*each, asked.seeds))
            tell(json.dumps(rows[-1]))
        machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
        took_s = time.monotonic() - began
        print(json.dumps({"rows": rows, "machine": machine, "seed": SIMULATED_SEED, "wall_s": took_s}))
        return
    seconds, windows, kill = (3.0, 1, 2) if asked.quick else (30.0, 4, 200)
    windows = windows if asked.windows is None else asked.windows
    kill = kill if asked.kills is None else asked.kills
    found = asyncio.run(measure(seconds, windows, kill, tell))
    found |= {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": SEED,
        "wall_s": time.monotonic() - began,
    }  # fmt: skip
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    main()
