"""Prompts in the background while their device is killed again and again: none is lost, none is answered twice.

    python bench/journal.py --quick --json       20 kills
    python bench/journal.py                      200 kills, by hand

Three devices with the engine `timed:exp:0.05`. Of one of them, clients ask prompts in the background, each with an
Idempotency-Key: some for its own engine (`local`), some for the moot (`moot-M1-k2`). A request that meets no device
is sent again with the same key. That device gets SIGKILL and is started again at once: one time in four while it
starts, else at a moment drawn from its first 1.5 s of service, when it answers what it owes and takes what is new.
In between the clients fetch what they were promised, and cancel some of it.

Counted over all prompts whose id was told: `lost`, those without an end at the end of the run; `changed`, those that
read differently after they had ended once, a cancelled one that was answered all the same among them; `twice`, keys
with more than one entry in the journal; `unkept`, entries on disk that do not agree with what was fetched. All must
be 0. `accept_ms`: from the request to the acknowledgement, with the commit's fsync, where no kill came between;
`kills_at_work`: kills that met a prompt under way. Exit code 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

FOLKMOOT = [sys.executable, "-P", "-m", "folkmoot"]
ENGINE = "timed:exp:0.05"
CLIENTS = 4
AHEAD = 60
"""Prompts that may be unanswered before a client asks no more."""
CANCELLED_SHARE = 0.05
STARTING_SHARE = 0.25
SERVICE_S = 1.5
ENDED = ("completed", "incomplete", "failed", "cancelled")
PATIENCE_S = 180.0


@dataclass
class Device:
    """A device process that can be killed and started again on its port."""

    home: Path
    name: str
    port: int
    process: asyncio.subprocess.Process | None = None
    is_up: bool = False

    async def start(self, join: str | None = None) -> None:
        """Begin; `ready` waits until it is up."""
        self.is_up = False
        command = [*FOLKMOOT, "up", "--json", "--name", self.name, "--engine", ENGINE]
        command += ["--api", f"127.0.0.1:{self.port}", *(["--join", join] if join else [])]
        log = self.home.with_suffix(".log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "FOLKMOOT_HOME": str(self.home)},
            )

    async def ready(self) -> None:
        """Wait until it is up, if it is not yet. Raises SystemExit where it ends instead."""
        assert self.process is not None
        assert self.process.stdout is not None
        if self.is_up:
            return
        self.is_up = bool(await self.process.stdout.readline())
        if not self.is_up:
            raise SystemExit(
                f"{self.name} did not start: {self.home.with_suffix('.log').read_text()[-2000:]}"
            )

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.process.communicate()

    async def invite(self, uses: int) -> str:
        """An invitation of this device."""
        asking = await asyncio.create_subprocess_exec(
            *FOLKMOOT, "invite", "--uses", str(uses), "--json",
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "FOLKMOOT_HOME": str(self.home)},
        )  # fmt: skip
        out, _ = await asking.communicate()
        return str(json.loads(out.decode().splitlines()[-1])["invitation"])


@dataclass
class Promises:
    """What the device has promised, and what was seen of it."""

    told: dict[str, str] = field(default_factory=dict)
    ended: dict[str, bytes] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    accept_s: list[float] = field(default_factory=list)

    @property
    def open(self) -> list[str]:
        """Ids whose end was not seen yet."""
        return [name for name in self.told.values() if name not in self.ended]

    def see(self, name: str, reply: httpx.Response) -> None:
        """Hold what was fetched against what was known."""
        ending = reply.json()["status"] in ENDED
        if name in self.ended:
            if reply.content != self.ended[name]:
                self.changed.add(name)
        elif ending:
            self.ended[name] = reply.content
        if name in self.cancelled and reply.json()["status"] != "cancelled":
            self.changed.add(name)


async def ask(client: httpx.AsyncClient, promises: Promises, rng: random.Random, key: str) -> None:
    """One prompt until its id is told, however often the device dies meanwhile."""
    body = {
        "model": rng.choice(["local", "moot-M1-k2"]),
        "input": f"Which way is the wind? ({key})",
        "background": True,
        "max_output_tokens": 8,
    }
    tried = 0
    while True:
        began, tried = time.perf_counter(), tried + 1
        with contextlib.suppress(httpx.TransportError):
            reply = await client.post("/v1/responses", json=body, headers={"Idempotency-Key": key})
            if reply.status_code == 200:
                if tried == 1:
                    promises.accept_s.append(time.perf_counter() - began)
                promises.told[key] = reply.json()["id"]
                promises.see(promises.told[key], reply)
                return
            promises.refused[reply.status_code] += 1
        await asyncio.sleep(0.02)


async def use(
    client: httpx.AsyncClient, promises: Promises, rng: random.Random, number: int, over: asyncio.Event
) -> None:
    """A client: asks, looks again at what it was promised, takes some of it back."""
    count = 0
    while not over.is_set():
        if len(promises.open) < AHEAD:
            await ask(client, promises, rng, f"{number}.{count}")
            count += 1
        name = rng.choice(list(promises.told.values()))
        with contextlib.suppress(httpx.TransportError):
            if rng.random() < CANCELLED_SHARE:
                reply = await client.post(f"/v1/responses/{name}/cancel")
                if reply.status_code == 200 and reply.json()["status"] == "cancelled":
                    promises.cancelled.add(name)
            else:
                reply = await client.get(f"/v1/responses/{name}")
            if reply.status_code == 200:
                promises.see(name, reply)
            else:
                promises.refused[reply.status_code] += 1
        await asyncio.sleep(rng.uniform(0.0, 0.05))


async def settle(client: httpx.AsyncClient, promises: Promises) -> int:
    """Fetch all that was promised until it has ended; how many have not, after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while promises.open and time.monotonic() < deadline:
        for name in promises.open:
            promises.see(name, await client.get(f"/v1/responses/{name}"))
        await asyncio.sleep(0.1)
    lost = len(promises.open)
    for name in promises.told.values():
        promises.see(name, await client.get(f"/v1/responses/{name}"))
    return lost


def on_disk(home: Path) -> dict[str, bytes | None]:
    """The journal's entries: id -> response."""
    with contextlib.closing(sqlite3.connect(home / "journal.db")) as db:
        return dict(db.execute("SELECT id, response FROM responses"))


async def run(kills: int, seed: int, root: Path) -> dict[str, object]:
    """Kill that often; what became of all that was promised."""
    rng = random.Random(seed)
    names = ("ash", "birch", "cedar")
    ash, *others = (Device(root / name, name, free_port()) for name in names)
    promises, over, at_work = Promises(), asyncio.Event(), 0
    try:
        began = time.monotonic()
        await ash.start()
        await ash.ready()
        start_s = time.monotonic() - began
        invitation = await ash.invite(len(others))
        for other in others:
            await other.start(invitation)
        for other in others:
            await other.ready()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ash.port}", timeout=30, trust_env=False
        ) as client:
            users = [
                asyncio.create_task(use(client, promises, random.Random(f"{seed}.{number}"), number, over))
                for number in range(CLIENTS)
            ]
            began = time.monotonic()
            for number in range(kills):
                if rng.random() < STARTING_SHARE:
                    await asyncio.sleep(rng.uniform(0.0, start_s))
                else:
                    await ash.ready()
                    await asyncio.sleep(rng.uniform(0.0, SERVICE_S))
                at_work += bool(promises.open)
                await ash.kill()
                await ash.start()
                if (number + 1) % 20 == 0:
                    print(
                        f"{number + 1} kills, {len(promises.told)} prompts accepted, "
                        f"{len(promises.ended)} ended, {len(promises.changed)} changed",
                        file=sys.stderr,
                    )
            await ash.ready()
            over.set()
            await asyncio.gather(*users)
            lost = await settle(client, promises)
            wall_s = time.monotonic() - began
    finally:
        for device in (ash, *others):
            if device.process is not None:
                await device.kill()
    kept = on_disk(ash.home)
    states = Counter(json.loads(body)["status"] for body in promises.ended.values())
    codes = Counter(
        body["error"]["code"] for body in map(json.loads, promises.ended.values()) if body["error"]
    )
    accept_ms = sorted(1000.0 * each for each in promises.accept_s)
    return {
        "kills": kills,
        "kills_at_work": at_work,
        "accepted": len(promises.told),
        "ended": dict(states),
        "failed_by": dict(codes),
        "refused": {str(status): count for status, count in promises.refused.items()},
        "lost": lost,
        "changed": len(promises.changed),
        "twice": len(kept) - len(set(promises.told.values())),
        "unkept": sum(kept.get(name) != body for name, body in promises.ended.items()),
        "accept_ms": {
            "median": round(statistics.median(accept_ms), 2),
            "p99": round(accept_ms[int(0.99 * (len(accept_ms) - 1))], 2),
        },
        "wall_s": round(wall_s, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": seed,
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Parse the flags, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="20 kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        told = asyncio.run(run(20 if given.quick else given.kills, given.seed, Path(root)))
    if not given.json:
        for name, value in told.items():
            print(f"{name:14} {value}")
    print(json.dumps({"journal": told}))
    sys.exit(any(told[name] for name in ("lost", "changed", "twice", "unkept")))


if __name__ == "__main__":
    main()
