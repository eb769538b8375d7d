"""How fast the compiled simulator is, beside C++ and the simulators that people use, all in this run.

    python bench/simulator.py --quick --json    n = 4 and 100 and short runs, within 50 s
    python bench/simulator.py                   n = 4, 100, 10,000 and 1,000,000, by hand (some ten minutes)

M = 2, k = 2, load 0.8, exponential service. Figures are inferences a second on one core, the median of
`--repeat` runs that take turns (the slow ones once from n = 10,000 on). `ours` is `queueing/fcfs.py`, `ours_lsf`
the kernel with departure events and later stage first; `cpp` is `simulator.cpp` with the same algorithm, layout,
random numbers and counts, built by g++ -O3 -march=native; `heapq` is a plain Python heap, `simpy` processes and
resources of SimPy, `ciw` a Ciw network that serves as many jobs at the same load, without the join of layers (Ciw
has none, and looks at every node at each event, so it is left out from n = 10,000 on: null). Compiling is not
timed; making and growing the state is. The mean latency of `ours`, `cpp`, `heapq` and `simpy` must agree at n = 4
and 100, or there is no comparison; beyond, the slow ones end before it has settled. `bytes_per_device` is the state
of `ours` at its height.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from folkmoot.core.law import Exponential
from folkmoot.queueing.moot import Question, replication
from folkmoot.queueing.streams import keys

LAYERS, PEERS, LOAD = 2, 2, 0.8
JOBS = (PEERS + 1) * LAYERS + 1
RATE = LOAD / JOBS
Seen = tuple[float, float]
"""Inferences a second, and the mean latency."""


def ours(n: int, services: float, seed: int, discipline: str = "fcfs") -> tuple[float, float, float]:
    """Ours, and the bytes of its state a device."""
    asked = Question(n, LAYERS, PEERS, (RATE,), (Exponential(1.0),), horizon=services, discipline=discipline)
    run = replication(asked, keys(seed, 1)[0])
    counts = run.counts
    return counts.totals[3] / run.kernel_s, counts.latency[0] / counts.totals[4], run.state_bytes / n


def cpp(program: Path, n: int, services: float, seed: int) -> Seen:
    """The C++ program."""
    until = services / (RATE * JOBS)
    command = [str(program), str(n), str(LAYERS), str(PEERS), str(RATE * n), str(until), str(seed)]
    done, seconds, latency, _, _ = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    return int(done) / float(seconds), float(latency)


def with_heapq(n: int, services: float, seed: int) -> Seen:
    """The same algorithm in plain Python."""
    rng, free, until = Random(seed), [0.0] * n, services / (RATE * JOBS)
    events: list[tuple[float, int, int, int, float]] = []
    done = turns = ended = 0
    latency, coming = 0.0, rng.expovariate(RATE * n)
    began = time.perf_counter()
    while True:
        if not events or coming <= events[0][0]:
            now, origin, stage, born = coming, rng.randrange(n), 1, coming
            coming = now + rng.expovariate(RATE * n)
        else:
            now, _, origin, stage, born = heapq.heappop(events)
        if now > until:
            break
        last = stage > LAYERS
        places = [origin] if last else [origin, *(d + (d >= origin) for d in rng.sample(range(n - 1), PEERS))]
        latest = now
        for device in places:
            free[device] = max(now, free[device]) + rng.expovariate(1.0)
            latest = max(latest, free[device])
            done += 1
        if not last:
            turns += 1
            heapq.heappush(events, (latest, turns, origin, stage + 1, born))
        elif born > 0.2 * until:
            latency, ended = latency + latest - born, ended + 1
    return done / (time.perf_counter() - began), latency / max(1, ended)


def with_simpy(n: int, services: float, seed: int) -> Seen:
    """SimPy: a resource a device, a process a prompt and a job."""
    import simpy

    rng, env, until = Random(seed), simpy.Environment(), services / (RATE * JOBS)
    devices = [simpy.Resource(env) for _ in range(n)]
    seen = [0, 0, 0.0]

    def job(device: int) -> Any:
        with devices[device].request() as turn:
            yield turn
            yield env.timeout(rng.expovariate(1.0))
        seen[0] += 1

    def prompt(origin: int) -> Any:
        born = env.now
        for _ in range(LAYERS):
            peers = (d + (d >= origin) for d in rng.sample(range(n - 1), PEERS))
            yield env.all_of([env.process(job(device)) for device in (origin, *peers)])
        yield env.process(job(origin))
        if born > 0.2 * until:
            seen[1] += 1
            seen[2] += env.now - born

    def arrivals() -> Any:
        while True:
            yield env.timeout(rng.expovariate(RATE * n))
            env.process(prompt(rng.randrange(n)))

    env.process(arrivals())
    began = time.perf_counter()
    env.run(until)
    return seen[0] / (time.perf_counter() - began), seen[2] / max(1, seen[1])


def with_ciw(n: int, services: float, seed: int) -> Seen:
    """Ciw: n independent queues at the same load; it cannot join the jobs of a layer."""
    import ciw

    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(LOAD)] * n,
        service_distributions=[ciw.dists.Exponential(1.0)] * n,
        number_of_servers=[1] * n,
        routing=[[0.0] * n] * n,
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    began = time.perf_counter()
    simulation.simulate_until_max_time(services / LOAD)
    seconds = time.perf_counter() - began
    return len(simulation.get_all_records()) / seconds, math.nan


def build(folder: Path) -> Path | None:
    """The C++ program, None where there is no g++."""
    compiler, program = shutil.which("g++"), folder / "simulator"
    if compiler is None:
        return None
    source = Path(__file__).with_suffix(".cpp")
    subprocess.run([compiler, "-O3", "-march=native", "-o", program, source], check=True)
    return program


def row(n: int, services: float, repeat: int, program: Path | None, slow_services: float) -> dict[str, Any]:
    """One n: every simulator `repeat` times, by turns; slow ones once where n is large."""
    large = n > 100
    runners: dict[str, Callable[[int], tuple[float, ...]]] = {
        "ours": lambda seed: ours(n, services, seed),
        "ours_lsf": lambda seed: ours(n, services, seed, "lsf"),
    }
    if program is not None:
        runners["cpp"] = lambda seed: cpp(program, n, services, seed)
    if slow_services:
        runners["heapq"] = lambda seed: with_heapq(n, slow_services, seed)
        runners["simpy"] = lambda seed: with_simpy(n, slow_services / 4, seed)
        if not large:
            runners["ciw"] = lambda seed: with_ciw(n, slow_services / (4 if n < 100 else 16), seed)
    seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in runners}
    for seed in range(repeat):
        for name, run in runners.items():
            if seed == 0 or not large or name in ("ours", "ours_lsf", "cpp"):
                seen[name].append(run(seed + 1))
    speed = {name: statistics.median(each[0] for each in runs) for name, runs in seen.items()}
    latency = {name: statistics.median(each[1] for each in runs) for name, runs in seen.items()}
    found: dict[str, Any] = {"n": n} | {
        name: speed.get(name) for name in ("ours", "ours_lsf", "cpp", "simpy", "ciw", "heapq")
    }
    found["bytes_per_device"] = seen["ours"][0][2]
    found["of_cpp"] = speed["ours"] / speed["cpp"] if "cpp" in speed else None
    found["lsf_of_cpp"] = speed["ours_lsf"] / speed["cpp"] if "cpp" in speed else None
    found["of_simpy"] = speed["ours"] / speed["simpy"] if "simpy" in speed else None
    found["latency"] = {name: value for name, value in latency.items() if math.isfinite(value)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="n = 4 and 100, within 50 s")
    parser.add_argument("--repeat", type=int, default=0, help="runs of each (3, quick 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    repeat = args.repeat or (2 if args.quick else 3)
    ours(4, 100.0, 1)
    ours(4, 100.0, 1, "lsf")  # compiled before they are timed
    sizes = (4, 100) if args.quick else (4, 100, 10_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        rows = []
        for n in sizes:
            total = 6e6 if args.quick else 1.5e7 if n <= 10_000 else 3e7
            slow = (1e5 if args.quick else 1e6 if n <= 100 else 2e6 if n <= 10_000 else 8e6) / n
            rows.append(row(n, total / n, repeat, program, slow))
            found = rows[-1]
            line = "  ".join(
                f"{name}={value / 1e6:.3f}M"
                if name in ("ours", "ours_lsf", "cpp", "simpy", "ciw", "heapq")
                else f"{name}={value:.4g}"
                for name, value in found.items()
                if isinstance(value, int | float)
            )
            print(line, file=sys.stderr if args.json else sys.stdout)
    machine = {"arch": platform.machine(), "python": platform.python_version()}
    if args.json:
        print(json.dumps({"rows": rows, "machine": machine, "seed": 1}))


if __name__ == "__main__":
    main()
