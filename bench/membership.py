"""How fast real devices on loopback learn of each other, of a kill and of a freeze, and what that costs.

    python bench/membership.py --quick --json             16 devices, within 50 s
    python bench/membership.py --devices 16,64            by hand
    python bench/membership.py --devices 16 --load 600    ten minutes of 100 % CPU on every core

Each device is a process of its own: a daemon without an engine and without an HTTP API, which prints what its
member list does, with the machine's monotonic clock. All but the first join by one invitation. `join_s` counts
from the moment at which the last process was started until all know all; `sigkill_s` and `sigstop_s` from the
signal until the last other device holds the victim dead (medians over the victims, the worst beside them);
`back_s` from SIGCONT until all hold it alive again. `messages_per_s` and `bytes_per_s` are per device, idle, with
60 B on top of each datagram; QUIC's own packets are not in them. `false_deaths`: deaths announced of devices
that were running, at rest and under load.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SEED = 1


# ---- one device --------------------------------------------------------------------------------------


async def device(home: Path, join: str | None, uses: int) -> None:
    """Run a daemon until SIGTERM; say on stdout what happens, a JSON object a line."""
    from folkmoot.core.events import MemberChanged
    from folkmoot.node.config import NodeConfig
    from folkmoot.node.daemon import Daemon, Ready

    def say(**told: object) -> None:
        print(json.dumps({"at": time.monotonic(), **told}), flush=True)

    daemon = Daemon(home, home.name, None, NodeConfig(grace_s=0.0))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(daemon.stop()))

    async def watch() -> None:
        async with contextlib.aclosing(daemon.watch()) as notices:
            async for notice in notices:
                if isinstance(notice, MemberChanged):
                    say(event="member", who=notice.member.device, standing=int(notice.member.standing))

    async def ready(told: Ready) -> None:
        invitation = await daemon.invite(uses, 3600.0, False) if join is None and uses else None
        known = [m.device for m in daemon.status().members if m.standing <= 1]
        say(event="ready", me=daemon.status().device, invitation=invitation, known=known)

    async def count() -> None:
        while True:
            say(event="traffic", messages=daemon.traffic.messages, bytes=daemon.traffic.bytes)
            await asyncio.sleep(1.0)

    watching, counting = asyncio.create_task(watch()), asyncio.create_task(count())
    try:
        await daemon.run(join=join, ready=ready)
    finally:
        watching.cancel()
        counting.cancel()


# ---- all of them -------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What the parent knows of one device process. `standing` is what it holds the others to be, and since when."""

    process: asyncio.subprocess.Process
    me: str = ""
    invitation: str = ""
    standing: dict[str, tuple[int, float]] = field(default_factory=dict)
    traffic: list[tuple[float, int, int]] = field(default_factory=list)


class Crowd:
    """The device processes, and everything that they have said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = random.Random(SEED)
        self.devices: list[Seen] = []
        self.false_deaths = 0
        self._gone: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, join: str | None, uses: int = 0) -> Seen:
        home = self.root / f"d{len(self.devices)}"
        command = [sys.executable, __file__, "--home", str(home), "--uses", str(uses)]
        if join is not None:
            command += ["--invitation", join]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        seen = Seen(process)
        self.devices.append(seen)
        self._readers.append(asyncio.create_task(self._read(seen)))
        return seen

    async def _read(self, seen: Seen) -> None:
        assert seen.process.stdout is not None
        while line := await seen.process.stdout.readline():
            told = json.loads(line)
            match told["event"]:
                case "ready":
                    seen.me, seen.invitation = told["me"], told["invitation"] or ""
                    for who in told["known"]:
                        seen.standing.setdefault(who, (0, told["at"]))
                case "member":
                    seen.standing[told["who"]] = (told["standing"], told["at"])
                    if told["standing"] == 2 and told["who"] not in self._gone:
                        self.false_deaths += 1
                        print(f"false death of {told['who'][:8]} at {seen.me[:8]}", file=sys.stderr)
                case "traffic":
                    seen.traffic.append((told["at"], told["messages"], told["bytes"]))
            self._changed.set()

    async def until(self, what: Callable[[], bool], seconds: float) -> None:
        """Wait for something to be seen. Ends the benchmark when it is not."""
        try:
            async with asyncio.timeout(seconds):
                while not what():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SystemExit(f"not seen within {seconds} s") from None

    def expect(self, who: str, gone: bool) -> None:
        """From now on a death of `who` is true, or is not."""
        if gone:
            self._gone[who] = None
        else:
            self._gone.pop(who, None)

    def all_hold(self, who: str, dead: bool, but: Seen) -> bool:
        """Whether every running device holds `who` dead, or not."""
        return all(
            (seen.standing.get(who, (0, 0.0))[0] >= 2) == dead
            for seen in self.devices
            if seen is not but and seen.process.returncode is None
        )

    def last(self, who: str, but: Seen) -> float:
        """When the last device changed its mind about `who`."""
        return max(
            seen.standing[who][1]
            for seen in self.devices
            if seen is not but and seen.process.returncode is None
        )

    async def stop(self) -> None:
        for seen in self.devices:
            if seen.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    seen.process.send_signal(signal.SIGCONT)
                    seen.process.kill()
        await asyncio.gather(*(seen.process.wait() for seen in self.devices), *self._readers)


@contextlib.asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    with tempfile.TemporaryDirectory(prefix="folkmoot-", ignore_cleanup_errors=True) as root:
        everybody = Crowd(Path(root))
        try:
            yield everybody
        finally:
            await everybody.stop()


def _spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """As many busy processes as there are cores."""
    spinners = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


async def form(everybody: Crowd, devices: int) -> float:
    founder = await everybody.start(None, uses=devices)
    await everybody.until(lambda: bool(founder.me), 30)
    for _ in range(devices - 1):
        await everybody.start(founder.invitation)
    began = time.monotonic()
    await everybody.until(
        lambda: all(
            sum(1 for who, (standing, _) in seen.standing.items() if standing < 2 and who != seen.me)
            == devices - 1
            for seen in everybody.devices
        ),
        180,
    )
    return time.monotonic() - began


async def at_rest(everybody: Crowd, seconds: float) -> tuple[float, float, float]:
    """Messages and bytes per second, and percent of a core: medians over the devices."""
    living = [seen for seen in everybody.devices if seen.process.returncode is None]
    processes = [psutil.Process(seen.process.pid) for seen in living]
    marks = [seen.traffic[-1] for seen in living]
    before, began = [sum(p.cpu_times()[:2]) for p in processes], time.monotonic()
    await asyncio.sleep(seconds)
    cpu = [
        100 * (sum(p.cpu_times()[:2]) - was) / (time.monotonic() - began)
        for p, was in zip(processes, before, strict=True)
    ]
    rates = [
        ((new[1] - old[1]) / (new[0] - old[0]), (new[2] - old[2]) / (new[0] - old[0]))
        for seen, old in zip(living, marks, strict=True)
        if (new := seen.traffic[-1])[0] > old[0]
    ]
    return (
        statistics.median(r[0] for r in rates),
        statistics.median(r[1] for r in rates),
        statistics.median(cpu),
    )


async def strike(everybody: Crowd, sign: signal.Signals) -> tuple[float, float]:
    """Signal one device; seconds until the last knows, and (SIGSTOP) until all have it back."""
    victim = everybody.rng.choice([s for s in everybody.devices if s.process.returncode is None])
    everybody.expect(victim.me, gone=True)
    at = time.monotonic()
    victim.process.send_signal(sign)
    if sign is signal.SIGKILL:
        await victim.process.wait()
    await everybody.until(lambda: everybody.all_hold(victim.me, True, victim), 60)
    known = everybody.last(victim.me, victim) - at
    if sign is signal.SIGKILL:
        return known, 0.0
    at = time.monotonic()
    victim.process.send_signal(signal.SIGCONT)
    await everybody.until(lambda: everybody.all_hold(victim.me, False, victim), 60)
    back = everybody.last(victim.me, victim) - at
    # What it believed of the others while it was frozen is no false death, if it takes it back.
    await everybody.until(
        lambda: all(
            everybody.all_hold(s.me, False, s) for s in everybody.devices if s.process.returncode is None
        ),
        60,
    )
    everybody.expect(victim.me, gone=False)
    return known, back


async def measure(devices: int, quick: bool, load_s: float) -> dict[str, object]:
    async with crowd() as everybody:
        join_s = await form(everybody, devices)
        print(f"{devices} devices know each other after {join_s:.2f} s", file=sys.stderr)
        await asyncio.sleep(3.0)
        messages, octets, cpu = await at_rest(everybody, 5.0 if quick else 30.0)
        times = 1 if quick else 5
        stops = [await strike(everybody, signal.SIGSTOP) for _ in range(times)]
        print(f"SIGSTOP known after {stops}", file=sys.stderr)
        if load_s:
            with busy_cores():
                await asyncio.sleep(load_s)
        under_load = everybody.false_deaths
        kills = [await strike(everybody, signal.SIGKILL) for _ in range(times)]
        print(f"SIGKILL known after {kills}", file=sys.stderr)
        return {
            "devices": devices,
            "join_s": join_s,
            "sigkill_s": statistics.median(k[0] for k in kills),
            "sigkill_worst_s": max(k[0] for k in kills),
            "sigstop_s": statistics.median(s[0] for s in stops),
            "sigstop_worst_s": max(s[0] for s in stops),
            "back_s": statistics.median(s[1] for s in stops),
            "false_deaths": everybody.false_deaths,
            "false_deaths_by_end_of_load": under_load,
            "load_s": load_s,
            "messages_per_s": messages,
            "bytes_per_s": octets,
            "idle_cpu_percent": cpu,
        }


def main() -> None:
    """Measure and print; with --home, be one of the devices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 devices, within 50 s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--devices", default="16", help="rows, joined by commas")
    parser.add_argument("--load", type=float, help="seconds of 100 %% CPU on every core")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--invitation", help=argparse.SUPPRESS)
    parser.add_argument("--uses", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.home is not None:
        asyncio.run(device(args.home, args.invitation, args.uses))
        return
    load_s = args.load if args.load is not None else (8.0 if args.quick else 30.0)
    rows = [asyncio.run(measure(int(n), args.quick, load_s)) for n in args.devices.split(",")]
    for row in rows:
        print("  ".join(f"{k}={v:.2f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
    if args.json:
        about = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "seed": SEED,
        }
        print(json.dumps({**rows[0], "rows": rows, **about}))


if __name__ == "__main__":
    main()
