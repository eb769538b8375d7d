"""`make chaos`: real devices under load while everything goes wrong that can, and a proof that nothing was lost.

    python -m chaos                                300 s, seed 1
    python -m chaos --seconds 300 --seed 1 --json  the form that CI runs
    python -m chaos --check chaos-history/history.jsonl    judge a history again

Five devices with `timed:exp:0.1` answer an open load while a script drawn from the seed kills, stops, freezes and restarts them,
cuts the network in two, makes it slow, fills a disk, damages a state file, and floods the ports with noise, strangers and
prompts. Where the user may have namespaces (root, or unprivileged ones), each device has a network of its own; where not,
a hook in the devices' transport cuts and slows them (`chaos/hook.py`), no disk is filled, and `without` says so. The faults
and the prompts are the same for one seed; what becomes of them also depends on the machine. The history keeps all of it, a
JSON object a line.

Phases: a load which begins with as many prompts at once as any later burst, and with noise and a flood at each device while it
stands still, so that what an allocator keeps for good is there; after it three seconds of silence: the least that a device
holds in them is what its memory at the end is held against. Then the load with faults, and silence until no device holds
anything and all know all. Last each device is asked once more, and must answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import httpx

from chaos import check, history, plan, wires
from chaos.clients import Clients, watch
from chaos.devices import Device
from chaos.history import History
from chaos.strikes import BURST, Strikes

DEVICES = 5
ENGINE = "timed:exp:0.1"
RATE_HZ = 8.0
"""Of all devices together; with 4.7 jobs a prompt on average three quarters of what they can do."""
SMALL_DISK = DEVICES - 1
QUIET_S = 75.0
"""Who is alone is tried again every 15 to 25 s (MembershipConfig.heal_s): three times are enough."""
LOOK_S = 0.5
ALWAYS = ("kill", "stop", "corrupt", "freeze", "garbage", "flood", "burst")


class Run:
    """One run of all phases."""

    def __init__(self, network: wires.Wires, root: Path, told: History, seed: int) -> None:
        self._wires = network
        self._history = told
        self._seed = seed
        self.devices = [Device(n, root / f"d{n}", ENGINE, network, told) for n in range(DEVICES)]
        if "fill" in network.faults:
            network.small_disk(self.devices[SMALL_DISK].home)
        self._clients = Clients(self.devices, told, seed)
        self._strikes = Strikes(self.devices, network, self._clients, told, seed, self._up)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._dead: dict[int, int] = {}

    async def run(self, seconds: float) -> None:
        """All phases; `seconds` of load altogether."""
        told, warm_s = self._history, max(5.0, 0.15 * seconds)
        self._phase("start")
        await self._form()
        looking = self._spawn(self._look())
        self._phase("warm-up")
        begun = told.now
        for device in self.devices:
            self._clients.ask_plainly(device.number, later=True)
        await self._clients.finish()
        await asyncio.gather(*(self._strikes.rehearse(device) for device in self.devices))
        for device in self.devices:
            for _ in range(BURST):
                self._clients.ask(device.number)
        await self._clients.load(RATE_HZ, begun + warm_s)
        await self._clients.finish()
        self._phase("baseline")
        await asyncio.sleep(3.0)
        self._phase("faults")
        self._clients.patient = True
        begin, end = told.now, told.now + seconds - warm_s
        kinds = (*ALWAYS, *self._wires.faults)
        faults = plan.faults(self._seed, DEVICES, begin, end - 2.0, kinds, SMALL_DISK)
        told.note("plan", faults=len(faults), kinds=kinds)
        strikes = [asyncio.ensure_future(self._at(fault)) for fault in faults]
        try:
            await self._clients.load(RATE_HZ, end)
            self._phase("after")
            await asyncio.gather(*strikes)
            await self._clients.finish()
        finally:
            for strike in strikes:
                strike.cancel()
            await asyncio.gather(*strikes, return_exceptions=True)
        await self._settle()
        self._phase("again")
        for device in self.devices:
            self._clients.ask_plainly(device.number)
        await self._clients.finish()
        await self._settle()
        self._phase("quiet")
        await self._clients.fetch_again()
        await asyncio.sleep(5.0)
        looking.cancel()

    async def close(self) -> None:
        """Take everything down."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._clients.close()
        await asyncio.gather(*(device.end() for device in self.devices))

    def _phase(self, name: str) -> None:
        self._history.note("phase", name=name)
        print(f"{self._history.now:6.1f} s  {name}", file=sys.stderr, flush=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    async def _form(self) -> None:
        founder, *others = self.devices
        await founder.start()
        async with founder.client() as http:
            told = await http.post("/v1/moot/invitations", json={"uses": len(others)})
        await asyncio.gather(*(other.start(told.json()["invitation"]) for other in others))
        for device in self.devices:
            self._up(device)
        async with asyncio.timeout(30.0), self._all() as clients:
            while not await self._whole(clients):
                await asyncio.sleep(0.1)

    def _up(self, device: Device) -> None:
        self._spawn(watch(device, self._history))

    async def _at(self, fault: plan.Fault) -> None:
        await asyncio.sleep(fault.at - self._history.now)
        await self._strikes.strike(fault)

    @contextlib.asynccontextmanager
    async def _all(self) -> AsyncIterator[list[httpx.AsyncClient]]:
        async with contextlib.AsyncExitStack() as stack:
            yield [await stack.enter_async_context(device.client(2.0)) for device in self.devices]

    async def _whole(self, clients: list[httpx.AsyncClient]) -> bool:
        """Whether nobody holds anything, and all know all."""
        seen = await asyncio.gather(*(d.look(c) for d, c in zip(self.devices, clients, strict=True)))
        return all(
            look is not None
            and look["alive"] == DEVICES
            and not (look["queue"] or look["busy"] or look["buffer"] or look["prompts"])
            for look in seen
        )

    async def _settle(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S), self._all() as clients:
                while not await self._whole(clients):
                    await asyncio.sleep(0.5)

    async def _look(self) -> None:
        """Look at every device again and again, each by itself: one that is frozen holds up no other."""

        async def one(device: Device) -> None:
            async with device.client(60.0) as client:
                while True:
                    await device.look(client)
                    if device.returncode is not None and not device.turn.locked():
                        if self._dead.get(device.number) != device.life:
                            self._history.note("died", device=device.number, code=device.returncode)
                            self._dead[device.number] = device.life
                    await asyncio.sleep(LOOK_S)

        await asyncio.gather(*(one(device) for device in self.devices))


async def _run(told: History, root: Path, seconds: float, seed: int, inside: bool) -> wires.Wires:
    network: wires.Wires = wires.make_namespaces(DEVICES) if inside else wires.Loopback(DEVICES, root)
    run = Run(network, root, told, seed)
    try:
        await run.run(seconds)
    finally:
        await run.close()
        network.close()
    return network


def main() -> None:
    """Run or judge; exits 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of load, altogether")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path("chaos-history"), help="folder of the history and the logs"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--check", type=Path, metavar="FILE", help="judge this history, run nothing")
    parser.add_argument(
        "--no-namespaces", action="store_true", help="do without, even where they are allowed"
    )
    parser.add_argument(wires.INSIDE, action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    without: list[str] = []
    if asked.check is None:
        if not asked.inside and not asked.no_namespaces and wires.can_have_namespaces():
            wires.go_inside(sys.argv[1:])
        asked.out.mkdir(parents=True, exist_ok=True)
        told = History(asked.out / "history.jsonl")
        with tempfile.TemporaryDirectory(prefix="folkmoot-chaos-", ignore_cleanup_errors=True) as root:
            try:
                network = asyncio.run(_run(told, Path(root), asked.seconds, asked.seed, asked.inside))
            finally:
                told.close()
                for log in Path(root).glob("*.log"):
                    shutil.copy(log, asked.out / log.name)
        without = [each for each in ("part", "slow", "fill") if each not in network.faults]
    verdict = check.judge(history.read(asked.check or asked.out / "history.jsonl"))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    found = {**check.as_json(verdict), "without": without, "machine": machine, "seed": asked.seed}
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            if name != "wrong":
                print(f"{name:>15}  {value}")
        print(*(verdict.wrong or ["every promise was kept"]), sep="\n")
    sys.exit(1 if verdict.wrong else 0)


if __name__ == "__main__":
    main()
