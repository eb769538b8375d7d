"""What protocol and network cost per prompt, on four real processes of this machine.

    python bench/overhead.py --quick --json
    python bench/overhead.py                     more prompts, by hand

M = 1, k = 3, every device with the engine `timed:det:0` (answers at once), one prompt after another over the
HTTP API of one origin: `median_ms` and `p99_ms` are the client's wall time per prompt, HTTP included;
`core_median_ms` is the provenance's latency, acceptance to answer. With `timed:det:1` the critical path is two
inferences of a second: `critical_path_ratio` is the median latency ÷ 2 s. `prompts_per_s`: 16 clients at a time
on one origin. `rss_mb` and `idle_cpu_percent`: a device process without a model, connected to three others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time

import httpx
import psutil

from folkmoot.cli.village import DeviceProcess, Village, village

LIMIT_MS, LIMIT_RATIO = 25.0, 1.03


async def ask(client: httpx.AsyncClient, seed: int) -> tuple[float, float]:
    """One prompt with M = 1, k = 3: the client's wall time and the origin's own latency, seconds."""
    began = time.perf_counter()
    reply = await client.post(
        "/v1/chat/completions",
        json={
            "model": "moot-M1-k3",
            "messages": [{"role": "user", "content": "Which way is the wind?"}],
            "seed": seed,
        },
    )
    wall = time.perf_counter() - began
    reply.raise_for_status()
    told = reply.json()["folkmoot"]
    jobs = [job["outcome"] for job in told["jobs"]]
    if jobs != ["ok"] * 5:
        raise SystemExit(f"a prompt of M = 1, k = 3 must make 5 jobs, all ok; it made {jobs}")
    return wall, told["latency_s"]


async def one_by_one(origin: DeviceProcess, prompts: int) -> tuple[list[float], list[float]]:
    """Wall times and latencies of prompts asked one after another, the first few left out."""
    async with httpx.AsyncClient(base_url=origin.api, timeout=30) as client:
        for seed in range(min(10, prompts)):
            await ask(client, seed)
        pairs = [await ask(client, seed) for seed in range(prompts)]
    return [wall for wall, _ in pairs], [latency for _, latency in pairs]


async def sustained(origin: DeviceProcess, seconds: float, clients: int) -> float:
    """Answered prompts per second with so many clients asking all the time."""
    answered = 0
    until = time.perf_counter() + seconds

    async def user(number: int, client: httpx.AsyncClient) -> None:
        nonlocal answered
        while time.perf_counter() < until:
            await ask(client, number)
            answered += 1

    began = time.perf_counter()
    async with httpx.AsyncClient(base_url=origin.api, timeout=60) as client:
        await asyncio.gather(*(user(number, client) for number in range(clients)))
    return answered / (time.perf_counter() - began)


async def at_rest(devices: Village, seconds: float) -> tuple[float, float]:
    """Median resident memory (MB) and CPU (percent of a core) of devices with nothing to do."""
    processes = [psutil.Process(device.process.pid) for device in devices.devices]
    before = [sum(p.cpu_times()[:2]) for p in processes]
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    spent = time.perf_counter() - began
    cpu = [100 * (sum(p.cpu_times()[:2]) - was) / spent for p, was in zip(processes, before, strict=True)]
    return statistics.median(p.memory_info().rss / 1e6 for p in processes), statistics.median(cpu)


async def measure(quick: bool) -> dict[str, object]:
    """Every figure."""
    environ = dict(os.environ)

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    found: dict[str, object] = {}
    async with village(environ, tell) as devices:
        await devices.start(["timed:det:0"] * 4)
        rss_mb, cpu = await at_rest(devices, 5.0 if quick else 20.0)
        walls, latencies = await one_by_one(devices.devices[0], 200 if quick else 2000)
        walls.sort()
        found |= {
            "median_ms": 1e3 * statistics.median(walls),
            "p99_ms": 1e3 * walls[int(0.99 * len(walls))],
            "core_median_ms": 1e3 * statistics.median(latencies),
            "prompts_per_s": await sustained(devices.devices[0], 5.0 if quick else 30.0, 16),
            "rss_mb": rss_mb,
            "idle_cpu_percent": cpu,
        }
    async with village(environ, tell) as devices:
        await devices.start(["timed:det:1"] * 4)
        _, latencies = await one_by_one(devices.devices[0], 3 if quick else 15)
        found["critical_path_ratio"] = statistics.median(latencies) / 2.0
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="end within 50 s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    found = asyncio.run(measure(args.quick))
    found |= {"machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": 0}
    for key, value in found.items():
        print(f"{key:22} {value:.3f}" if isinstance(value, float) else f"{key:22} {value}")
    print(f"limits: median {LIMIT_MS} ms, critical path ratio {LIMIT_RATIO}")
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
