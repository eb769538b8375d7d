"""How fast a death is known, how many deaths are false and what it costs, in the virtual world.

    python bench/membership_sim.py --quick --json            16, 100 and 1,000 devices within 50 s
    python bench/membership_sim.py --seconds 3600            the virtual hour, by hand
    python bench/membership_sim.py --freezes 6 --protocol both

2 % loss, one-way delay 1 ms + exponential 20 ms, 10 % slow devices (stalls U(0, 1) s, gaps U(0, 1) s); with
`--freezes F` each device also handles nothing for 3 s, F times an hour (Poisson: two may run into a longer one; deaths by those are counted, and shown
apart as `..._of_chains`). Two runs make a row: one with crashes
(and restarts at a new address) and without freezes, one with freezes and without crashes. Devices that do
nothing cost nothing here: `form_s` and all other times hold no CPU time.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

from folkmoot.core.membership import MembershipConfig
from folkmoot.sim.study import Findings, Scenario, Study, swim, watcher_rings
from folkmoot.sim.swim import SwimConfig


@dataclass(frozen=True)
class Task:
    """One run, small enough to be sent to another process."""

    protocol: str
    scenario: Scenario
    settings: tuple[tuple[str, float], ...] = ()


def run(task: Task) -> tuple[Findings, float]:
    """The findings and the seconds that they took."""
    gc.disable()  # nothing here is cyclic garbage, and millions of rows are looked through in vain
    settings = {key: int(value) if value == int(value) else value for key, value in task.settings}
    protocol = (
        swim(SwimConfig(**settings))
        if task.protocol == "swim"
        else watcher_rings(MembershipConfig(**settings))  # type: ignore[arg-type]
    )
    begin = time.perf_counter()
    findings = Study(task.scenario, protocol).run()
    return findings, time.perf_counter() - begin


def tasks_of(devices: int, protocol: str, args: argparse.Namespace) -> list[Task]:
    """Crashes without freezes; then, if asked for, freezes without crashes."""
    # Quick runs of many devices start whole: joining is measured on the smaller ones.
    seconds = args.seconds or {16: 120.0, 100: 60.0}.get(devices, 12.0)
    every = max(2.0, min(10.0, seconds / 6))
    scenario = Scenario(
        devices,
        seconds,
        seed=args.seed,
        slow_share=args.slow,
        crash_every_s=every,
        whole=args.quick and devices > 100,
        pulse_every_s=args.pulses,
    )
    settings = tuple((key, float(value)) for key, value in (item.split("=") for item in args.set))
    tasks = [Task(protocol, scenario, settings)]
    if args.freezes:
        frozen = Scenario(
            devices,
            seconds,
            seed=args.seed,
            slow_share=args.slow,
            freezes_per_hour=args.freezes,
            pulse_every_s=0.0,
            whole=True,
        )
        tasks.append(Task(protocol, frozen, settings))
    return tasks


def row_of(devices: int, protocol: str, runs: list[tuple[Findings, float]]) -> dict[str, object]:
    """One line of the table."""
    crashes, wall = runs[0]
    row: dict[str, object] = {
        "devices": devices,
        "protocol": protocol,
        "p99_s": round(crashes.pairs_p99_s, 3),
        "healthy_max_s": round(crashes.healthy_max_s, 3),
        "all_s": round(crashes.all_max_s, 3),
        "crashes": crashes.crashes,
        "unknown": crashes.unknown,
        "false_deaths_per_device_hour": round(crashes.false_deaths / crashes.device_hours, 5),
        "false_deaths": crashes.false_deaths,
        "device_hours": round(crashes.device_hours, 3),
        "packets_per_s": round(crashes.packets_per_s, 2),
        "bytes_per_s": round(crashes.bytes_per_s),
        "state_p99_s": round(crashes.state_p99_s, 2),
        "form_s": round(crashes.form_s, 2) if crashes.form_s else None,
        "restart_p99_s": round(crashes.back_p99_s, 2),
        "events_per_wall_s": round(crashes.events / wall),
    }
    if len(runs) > 1:
        frozen, _ = runs[1]
        row["frozen_false_deaths_per_device_hour"] = round(frozen.false_deaths / frozen.device_hours, 5)
        row["frozen_false_deaths"] = frozen.false_deaths
        row["frozen_false_of_chains"] = frozen.false_of_chains
        row["frozen_device_hours"] = round(frozen.device_hours, 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="all rows within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--devices", default="16,100,1000", help="rows, joined by commas")
    parser.add_argument("--seconds", type=float, help="virtual seconds of each run")
    parser.add_argument("--freezes", type=float, default=0.0, help="freezes of 3 s per device-hour")
    parser.add_argument(
        "--pulses", type=float, default=5.0, help="seconds between changes of a device's state; 0: none"
    )
    parser.add_argument("--slow", type=float, default=0.1, help="share of slow devices")
    parser.add_argument("--protocol", choices=["rings", "swim", "both"], default="rings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the protocol"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    protocols = ["rings", "swim"] if args.protocol == "both" else [args.protocol]
    rows = [(int(devices), protocol) for devices in args.devices.split(",") for protocol in protocols]
    tasks = [tasks_of(devices, protocol, args) for devices, protocol in rows]
    flat = [task for group in tasks for task in group]
    if args.workers > 1:
        with ProcessPoolExecutor(args.workers, max_tasks_per_child=1) as pool:
            done = iter(list(pool.map(run, flat)))
    else:
        done = map(run, flat)
    table = []
    for (devices, protocol), group in zip(rows, tasks, strict=True):
        row = row_of(devices, protocol, [next(done) for _ in group])
        table.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), file=sys.stderr, flush=True)
    if args.json:
        machine = {"cpus": os.cpu_count(), "arch": platform.machine(), "python": platform.python_version()}
        settings = asdict(MembershipConfig()) if "rings" in protocols else asdict(SwimConfig())
        print(json.dumps({"rows": table, "machine": machine, "seed": args.seed, "settings": settings}))


if __name__ == "__main__":
    main()
