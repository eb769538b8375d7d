"""How fast real devices on loopback learn of each other, of a kill and of a freeze, and what that costs.

    python bench/membership.py --quick --json             16 devices, within 50 s
    python bench/membership.py                            16 and 64 devices, by hand
    python bench/membership.py --devices 16 --load-s 600  ten minutes of 100 % CPU on every core

Each device is a process of its own: a daemon without an engine and without an HTTP API, which prints what its
member list does, with the machine's monotonic clock. All processes are started first; then all but the founder
are asked at once to join, by one invitation with many uses. `join_s` counts from there until all know all.
`sigkill_s` and `sigstop_s` count from the signal until the last other device holds the victim dead: medians over
the victims, the worst beside them. `back_s`: from SIGCONT, `restart_s`: from the killed device's new start in its
old home, until all hold it alive again and it holds all alive. `join_cpu_s`: what joining costs a device, its
interpreter's start left out; `devices` x `join_cpu_s` / cores is the least that `join_s` can be on one machine.

Per device, at rest: `messages_per_s` and `bytes_per_s` are sent messages with 60 B on top of each datagram, as in
the virtual world; `udp_packets_per_s` and `udp_bytes_per_s` are what QUIC has sent, acknowledgements included and
IP and UDP heads left out; `idle_cpu_percent` of a core. `false_deaths`: deaths that a device believed of one
which ran, from the first join to the end; `..._under_load`: those while as many busy processes as cores ran.
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

LIMIT_S = 5.0
WAIT_S = 180.0
DEAD = 2


# ---- one device --------------------------------------------------------------------------------------


async def device(home: Path) -> None:
    """Obey the lines on stdin, until it ends; say on stdout what happens, a JSON object a line."""
    from folkmoot.core.events import MemberChanged
    from folkmoot.node.config import NodeConfig
    from folkmoot.node.daemon import Daemon, Ready

    def say(event: str, **told: object) -> None:
        print(json.dumps({"event": event, "at": time.monotonic(), **told}), flush=True)

    daemon = Daemon(home, home.name, None, NodeConfig(grace_s=0.0))
    me = daemon.status().device
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )

    async def watch() -> None:
        async with contextlib.aclosing(daemon.watch()) as notices:
            async for notice in notices:
                if isinstance(notice, MemberChanged) and notice.member.device != me:
                    say("member", who=notice.member.device, standing=int(notice.member.standing))

    async def obey() -> None:
        while line := (await commands.readline()).split():
            if line[0] == b"invite":
                say("invitation", invitation=await daemon.invite(int(line[1]), 3600.0, False))
            else:
                sent = daemon.traffic
                say(
                    "traffic",
                    messages=sent.messages,
                    bytes=sent.bytes,
                    packets=sent.packets,
                    packet_bytes=sent.packet_bytes,
                    cpu=time.process_time(),
                )
        await daemon.stop()

    async def ready(_: Ready) -> None:
        say("ready")

    watching = asyncio.create_task(watch())
    say("here", me=me, cpu=time.process_time())
    if not (order := (await commands.readline()).decode().split()):
        return
    obeying = asyncio.create_task(obey())
    await daemon.run(join=order[1] if order[0] == "join" else None, ready=ready)
    watching.cancel()
    obeying.cancel()


# ---- all of them -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """What a device has sent, and the CPU seconds that it has used, up to a moment."""

    at: float
    messages: int
    bytes: int
    packets: int
    packet_bytes: int
    cpu: float

    def rates(self, before: Sent) -> tuple[float, ...]:
        """Messages, bytes, packets and their bytes per second, and percent of a core, since then."""
        spent = self.at - before.at
        return (
            (self.messages - before.messages) / spent,
            (self.bytes - before.bytes) / spent,
            (self.packets - before.packets) / spent,
            (self.packet_bytes - before.packet_bytes) / spent,
            100 * (self.cpu - before.cpu) / spent,
        )


@dataclass(eq=False)
class Seen:
    """A device process and what it has said. `alive` and `dead` hold since when it believes so of whom."""

    home: Path
    process: asyncio.subprocess.Process
    me: str = ""
    start_cpu: float = 0.0
    ready: bool = False
    invitation: str = ""
    alive: dict[str, float] = field(default_factory=dict)
    dead: dict[str, float] = field(default_factory=dict)
    sent: Sent | None = None

    def order(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")


class Crowd:
    """The device processes, and everything that they have said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.devices: list[Seen] = []
        self._deaths: list[tuple[float, str]] = []
        self._down: dict[str, list[tuple[float, float]]] = {}
        self._changed = asyncio.Event()
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, home: Path) -> Seen:
        """A process that waits for its first order."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--home", str(home)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        seen = Seen(home, process)
        self._processes.append(process)
        self._readers.append(asyncio.create_task(self._read(seen)))
        return seen

    async def _read(self, seen: Seen) -> None:
        assert seen.process.stdout is not None
        while line := await seen.process.stdout.readline():
            told = json.loads(line)
            event, at = told.pop("event"), told["at"]
            match event:
                case "here":
                    seen.me, seen.start_cpu = told["me"], told["cpu"]
                case "ready":
                    seen.ready = True
                case "invitation":
                    seen.invitation = told["invitation"]
                case "traffic":
                    seen.sent = Sent(**told)
                case "member" if told["standing"] < DEAD:
                    seen.dead.pop(told["who"], None)
                    seen.alive.setdefault(told["who"], at)
                case "member":
                    seen.alive.pop(told["who"], None)
                    seen.dead.setdefault(told["who"], at)
                    self._deaths.append((at, told["who"]))
            self._changed.set()

    async def until(self, what: str, seen: Callable[[], bool], seconds: float = WAIT_S) -> None:
        """Wait for something to be seen. Ends the benchmark when it is not."""
        try:
            async with asyncio.timeout(seconds):
                while not seen():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SystemExit(f"{what}: not within {seconds:.0f} s") from None

    def whole(self) -> bool:
        """Whether all hold all alive."""
        return all(len(seen.alive) == len(self.devices) - 1 for seen in self.devices)

    def whole_at(self) -> float:
        """Since when."""
        return max(max(seen.alive.values()) for seen in self.devices)

    def others(self, victim: Seen) -> list[Seen]:
        return [seen for seen in self.devices if seen is not victim]

    def went_down(self, who: str, begin: float) -> None:
        """From `begin` on a death of `who` is true."""
        self._down.setdefault(who, []).append((begin, float("inf")))

    def came_back(self, who: str, end: float) -> None:
        """Up to `end` it was."""
        begin, _ = self._down[who].pop()
        self._down[who].append((begin, end))

    def false_deaths(self, begin: float, end: float) -> int:
        """Deaths believed in this time of devices that ran."""
        return sum(
            not any(down <= at <= up for down, up in self._down.get(who, ()))
            for at, who in self._deaths
            if begin <= at <= end
        )

    async def sent(self) -> list[Sent]:
        """What each device has sent so far."""
        for seen in self.devices:
            seen.sent = None
            seen.order("traffic")
        await self.until("traffic told", lambda: all(seen.sent for seen in self.devices))
        return [seen.sent for seen in self.devices if seen.sent is not None]

    async def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes), *self._readers)


@contextlib.asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    with tempfile.TemporaryDirectory(prefix="folkmoot-", ignore_cleanup_errors=True) as root:
        everybody = Crowd(Path(root))
        try:
            yield everybody
        finally:
            await everybody.stop()


def _spin(parent: int) -> None:
    while os.getppid() == parent:
        sum(range(100_000))


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """As many busy processes as there are cores, at normal priority."""
    spinners = [
        multiprocessing.Process(target=_spin, args=(os.getpid(),)) for _ in range(os.cpu_count() or 1)
    ]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


async def form(everybody: Crowd, devices: int) -> float:
    """Start them and have them join; seconds until all know all."""
    for number in range(devices):
        everybody.devices.append(await everybody.start(everybody.root / f"device{number}"))
    await everybody.until("processes started", lambda: all(seen.me for seen in everybody.devices))
    founder, *others = everybody.devices
    founder.order("found")
    await everybody.until("a moot founded", lambda: founder.ready)
    founder.order(f"invite {devices - 1}")
    await everybody.until("an invitation", lambda: bool(founder.invitation))
    began = time.monotonic()
    for seen in others:
        seen.order(f"join {founder.invitation}")
    await everybody.until("all know all", everybody.whole)
    return everybody.whole_at() - began


async def at_rest(everybody: Crowd, seconds: float) -> list[float]:
    """Messages, bytes, packets, their bytes per second, percent of a core: means over the devices."""
    before = await everybody.sent()
    await asyncio.sleep(seconds)
    rates = [new.rates(old) for new, old in zip(await everybody.sent(), before, strict=True)]
    return [statistics.mean(column) for column in zip(*rates, strict=True)]


async def strike(everybody: Crowd, victim: Seen, sign: signal.Signals) -> tuple[float, float]:
    """Kill or stop a device, then have it back; seconds until all know of each."""
    struck = time.monotonic()
    everybody.went_down(victim.me, struck)
    victim.process.send_signal(sign)
    others = everybody.others(victim)
    await everybody.until(f"{sign.name} known", lambda: all(victim.me in seen.dead for seen in others))
    known_s = max(seen.dead[victim.me] for seen in others) - struck
    if sign is signal.SIGKILL:
        again = await everybody.start(victim.home)
        await everybody.until("a process restarted", lambda: bool(again.me))
        everybody.devices[everybody.devices.index(victim)] = again
        came = time.monotonic()
        again.order("again")
    else:
        came = time.monotonic()
        victim.process.send_signal(signal.SIGCONT)
    await everybody.until("back again", everybody.whole)
    everybody.came_back(victim.me, everybody.whole_at())
    return known_s, everybody.whole_at() - came


async def measure(devices: int, args: argparse.Namespace) -> dict[str, object]:
    """One row."""
    rng = random.Random(args.seed)
    async with crowd() as everybody:
        began = time.monotonic()
        join_s = await form(everybody, devices)
        join_cpu_s = statistics.mean(
            sent.cpu - seen.start_cpu
            for sent, seen in zip(await everybody.sent(), everybody.devices, strict=True)
        )
        print(f"{devices} devices know each other after {join_s:.2f} s", file=sys.stderr)
        await asyncio.sleep(2.0 if args.quick else 5.0)
        messages, octets, packets, packet_octets, cpu = await at_rest(everybody, 5.0 if args.quick else 30.0)
        rss_mb = statistics.mean(
            psutil.Process(seen.process.pid).memory_info().rss / 1e6 for seen in everybody.devices
        )
        found: dict[signal.Signals, list[tuple[float, float]]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
        victims = rng.sample(range(devices), 2 * args.strikes)
        for turn, victim in enumerate(victims):
            sign = (signal.SIGKILL, signal.SIGSTOP)[turn % 2]
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            pair = await strike(everybody, everybody.devices[victim], sign)
            print(f"{sign.name} known after {pair[0]:.2f} s, back after {pair[1]:.2f} s", file=sys.stderr)
            found[sign].append(pair)
        load_began = time.monotonic()
        with busy_cores():
            await asyncio.sleep(args.load_s)
        await everybody.sent()  # so that everything up to here has been read
        ended = time.monotonic()
        kills, stops = found[signal.SIGKILL], found[signal.SIGSTOP]
        return {
            "devices": devices,
            "join_s": join_s,
            "join_cpu_s": join_cpu_s,
            "sigkill_s": statistics.median(known for known, _ in kills),
            "sigkill_worst_s": max(known for known, _ in kills),
            "sigstop_s": statistics.median(known for known, _ in stops),
            "sigstop_worst_s": max(known for known, _ in stops),
            "restart_s": statistics.median(back for _, back in kills),
            "back_s": statistics.median(back for _, back in stops),
            "strikes": len(kills),
            "false_deaths": everybody.false_deaths(began, ended),
            "false_deaths_under_load": everybody.false_deaths(load_began, ended),
            "load_s": args.load_s,
            "messages_per_s": messages,
            "bytes_per_s": octets,
            "udp_packets_per_s": packets,
            "udp_bytes_per_s": packet_octets,
            "idle_cpu_percent": cpu,
            "rss_mb": rss_mb,
        }


def main() -> None:
    """Measure and print; with --home, be one of the devices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 devices, within 50 s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--devices", help="rows, joined by commas")
    parser.add_argument("--strikes", type=int, help="devices killed, and devices stopped")
    parser.add_argument("--load-s", type=float, help="seconds of 100 %% CPU on every core")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.home is not None:
        asyncio.run(device(args.home))
        return
    args.devices = args.devices or ("16" if args.quick else "16,64")
    args.strikes = args.strikes or (1 if args.quick else 5)
    args.load_s = args.load_s if args.load_s is not None else (5.0 if args.quick else 30.0)
    rows = [asyncio.run(measure(int(devices), args)) for devices in args.devices.split(",")]
    for key in rows[0]:
        cells = (f"{v:10.2f}" if isinstance(v := row[key], float) else f"{v!s:>10}" for row in rows)
        print(f"{key:24}", *cells)
    print(f"limits: at 16 devices sigkill_s and sigstop_s {LIMIT_S:.0f} s, false deaths none")
    if args.json:
        machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
        print(json.dumps({**rows[0], "rows": rows, "machine": machine, "seed": args.seed}))


if __name__ == "__main__":
    main()
