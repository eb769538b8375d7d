"""Prompts at moments that were drawn beforehand: the load does not wait for the devices (an open loop)."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from folkmoot.errors import ConfigError, NodeError

LOOK_S = 0.25
"""So often is looked how long the queues are."""
ANSWER_S = 3_600.0


@dataclass(slots=True)
class Sent:
    """A prompt: the device's number, when it was due and when it ended, in seconds since the beginning.

    `code` is empty where it was answered, an error's code where it was not, `open` before its end. `answers` of the layer
    that had the fewest went into it; a job of its first layer waited for up to `first_wait_s` seconds.
    """

    device: int
    due: float
    ended: float = math.nan
    code: str = "open"
    layers: int = 0
    proposers: int = 0
    answers: int = 1
    first_wait_s: float = 0.0

    @property
    def latency_s(self) -> float:
        """From the moment when it was due, whenever it was sent: a client that is late hides nothing."""
        return self.ended - self.due


@dataclass(frozen=True, slots=True)
class Look:
    """What a device said of itself at a moment: jobs waiting and in service, seconds per job, and seconds of service since its
    start.
    """

    at: float
    device: int
    queue: int
    busy: int
    service_s: float
    busy_s: float = 0.0


@dataclass(slots=True)
class Driven:
    """All that was sent and seen."""

    sent: list[Sent] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


def poisson(devices: int, rate_hz: float, seconds: float, seed: int) -> Iterator[tuple[float, int]]:
    """Moments and devices of prompts that come at `rate_hz` a device, independent of each other."""
    rng, now = Random(seed), 0.0
    while (now := now + rng.expovariate(rate_hz * devices)) < seconds:
        yield now, rng.randrange(devices)


def written(file: Path, devices: int, seed: int) -> list[tuple[float, int]]:
    """Moments from a file: a line each, seconds from the beginning, and after a comma the number of the device that is asked.

    Without it a device is drawn. Moments rise. Raises `ConfigError`.
    """
    rng, found, last = Random(seed), list[tuple[float, int]](), 0.0
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--arrivals {file} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        at, _, device = line.partition(",")
        try:
            moment, asked = float(at), int(device) if device.strip() else rng.randrange(devices)
        except ValueError:
            raise ConfigError(
                f"--arrivals {file}, line {number}: it holds seconds, and after a comma the number of a device"
            ) from None
        if not last <= moment < math.inf or not 0 <= asked < devices:
            raise ConfigError(
                f"--arrivals {file}, line {number}: moments rise from 0 and devices are numbered 0 to {devices - 1}"
            )
        found.append((moment, asked))
        last = moment
    if not found:
        raise ConfigError(f"--arrivals {file}: it is empty; write a moment in seconds on each line")
    return found


async def answers(url: str, key: str) -> bool:
    """Whether anybody is there. Raises `NodeError` where the key is not taken."""
    async with httpx.AsyncClient(
        base_url=url, headers=_headers(key), trust_env=False, timeout=10.0
    ) as client:
        try:
            found = await client.get("/v1/moot")
        except (httpx.TransportError, httpx.InvalidURL):
            return False
    if found.status_code in (401, 403):
        how = "take another one" if key else "give a file that holds it by --key-file"
        raise NodeError(f"the device at {url} wants an API key of its own: {how}")
    return found.is_success


async def drive(
    urls: Sequence[str],
    key: str,
    moments: Sequence[tuple[float, int]],
    body: Mapping[str, Any],
    seconds: float,
    drain_s: float,
    tell: Callable[[Driven, float], None] = lambda driven, now: None,
) -> Driven:
    """Send each prompt when it is due and look at the queues for `seconds`; then wait `drain_s` at most for what is open.

    What is open after that stays so, and its device hears that nobody waits for it any more.
    """
    driven, loop = Driven(), asyncio.get_running_loop()
    async with _clients(urls, key) as clients:
        began = loop.time()

        async def ask(sent: Sent) -> None:
            await asyncio.sleep(began + sent.due - loop.time())
            await _ask(clients[sent.device], body, sent)
            sent.ended = loop.time() - began

        async def watch() -> None:
            turn = 0
            while turn * LOOK_S <= seconds:
                await asyncio.sleep(began + turn * LOOK_S - loop.time())
                looks = await asyncio.gather(
                    *(_look(client, number, began) for number, client in enumerate(clients))
                )
                driven.looks += [look for look in looks if look is not None]
                now = loop.time() - began
                tell(driven, now)
                turn = max(turn + 1, math.ceil(now / LOOK_S))  # those that were missed are not made up for

        driven.sent = [Sent(device, due) for due, device in moments]
        prompts = [asyncio.create_task(ask(sent)) for sent in driven.sent]
        try:
            await watch()
            end, waiting = loop.time() + drain_s, set(prompts)
            while waiting and (left := end - loop.time()) > 0:
                _, waiting = await asyncio.wait(waiting, timeout=min(left, LOOK_S))
                tell(driven, loop.time() - began)
        finally:
            for prompt in prompts:
                prompt.cancel()
            await asyncio.gather(*prompts, return_exceptions=True)
    return driven


async def _ask(client: httpx.AsyncClient, body: Mapping[str, Any], sent: Sent) -> None:
    try:
        response = await client.post("/v1/chat/completions", json=body)
        found = response.json()
        if response.status_code == 200:
            told = found["folkmoot"]
            sent.layers, sent.proposers = told["layers"], told["proposers"]
            sent.answers = min((len(each["answered"]) for each in told["rounds"]), default=1)
            first = (each["queued_s"] for each in told["jobs"] if each["layer"] == 1)
            sent.first_wait_s = max(first, default=0.0)
            sent.code = ""
        else:
            sent.code = str(found["error"]["code"])
    except httpx.TransportError:
        sent.code = "unreachable"
    except (ValueError, KeyError, TypeError):
        sent.code = "malformed"


async def _look(client: httpx.AsyncClient, number: int, began: float) -> Look | None:
    """What it says of itself, at the moment when its answer came, in seconds since `began`.

    None where it says nothing: a queue that was not seen is not an empty one.
    """
    try:
        found = (await client.get("/v1/moot", timeout=10.0)).json()
        at = asyncio.get_running_loop().time() - began
        mean_s = found["members"][0]["service_s"]
        return Look(at, number, found["queue"], found["busy"], mean_s, found["busy_s"])
    except (httpx.TransportError, ValueError, KeyError, IndexError, TypeError):
        return None


@contextlib.asynccontextmanager
async def _clients(urls: Sequence[str], key: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    many = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=url,
                    headers=_headers(key),
                    limits=many,
                    trust_env=False,
                    timeout=httpx.Timeout(ANSWER_S, connect=10.0),
                )
            )
            for url in urls
        ]


def _headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}
