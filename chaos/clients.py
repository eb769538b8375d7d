"""Users who ask at moments that wait for nobody, and write down exactly what they get to see."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from random import Random
from typing import Any

import httpx

from chaos.devices import KEY, Device
from chaos.history import History

PATIENCE_S = 90.0
"""Who has seen no end after so long has seen none."""
LATER_S = 150.0
"""The same for an answer in the background, for which its device may wait for better times."""
AGAIN_S = 0.5
WAYS = ("whole", "stream", "later", "leave", "deadline", "unknown")
WEIGHTS = (35, 30, 15, 10, 8, 2)
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"layers": 1, "proposers": 2},
    {"layers": 2, "proposers": 2},
    {"mode": "local"},
)


class Clients:
    """All prompts of a run."""

    def __init__(self, devices: Sequence[Device], history: History, seed: int) -> None:
        self._devices = devices
        self._history = history
        self._rng = Random(f"prompts {seed}")
        self._number = 0
        self._open: dict[asyncio.Task[None], None] = {}
        self._accepted: dict[int, tuple[int, str]] = {}
        self.patient = False
        """Whether there are prompts in the background: after a burst one may wait for a minute until it is tried again."""
        # A connection a request: on one that was kept, a request may meet its end without anybody's fault.
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {KEY}", "connection": "close"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            timeout=httpx.Timeout(PATIENCE_S, connect=PATIENCE_S),
        )

    async def load(self, rate_hz: float, until: float) -> None:
        """Prompts at `rate_hz` altogether until the history's clock says `until`."""
        due = self._history.now
        while (due := due + self._rng.expovariate(rate_hz)) < until:
            await asyncio.sleep(due - self._history.now)
            self.ask(self._rng.randrange(len(self._devices)))

    def ask(self, device: int) -> None:
        """Send one prompt now."""
        rng, self._number = self._rng, self._number + 1
        way = rng.choices(WAYS, WEIGHTS)[0]
        own = dict(rng.choice(SHAPES))
        if way == "deadline":
            own["deadline_s"] = rng.uniform(0.05, 1.5)
        leaves_s = rng.uniform(0.0, 0.6) if way == "leave" else None
        streams = rng.random() < 0.5
        if way == "later" and not self.patient:
            way = "whole"
        if way == "later":
            task = asyncio.ensure_future(self._ask_later(self._number, device, own))
        else:
            task = asyncio.ensure_future(self._ask(self._number, device, way, own, leaves_s, streams=streams))
        self._open[task] = None
        task.add_done_callback(lambda done: self._open.pop(done, None))

    def ask_plainly(self, device: int, *, later: bool = False) -> None:
        """Send one prompt now that a moot of three and more must answer, in the user's presence or in the background."""
        self._number += 1
        own = {"layers": 1, "proposers": 2}
        if later:
            task = asyncio.ensure_future(self._ask_later(self._number, device, own))
        else:
            task = asyncio.ensure_future(self._ask(self._number, device, "whole", own, None, streams=False))
        self._open[task] = None
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def finish(self) -> None:
        """Wait for all that was asked."""
        while self._open:
            await asyncio.wait(list(self._open))

    async def close(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._http.aclose()

    async def _ask(
        self,
        number: int,
        device: int,
        way: str,
        own: dict[str, Any],
        leaves_s: float | None,
        *,
        streams: bool,
    ) -> None:
        body = {
            "model": "nobody" if way == "unknown" else "moot",
            "messages": [{"role": "user", "content": f"Which way is the wind, for the {number}th time?"}],
            "stream": way == "stream" or (way in ("leave", "deadline") and streams),
            "folkmoot": own,
        }
        self._history.note("sent", n=number, device=device, way=way, stream=body["stream"], own=own)
        try:
            async with asyncio.timeout(PATIENCE_S if leaves_s is None else leaves_s):
                seen = await self._see(device, body)
        except TimeoutError:
            seen = {"end": "hung" if leaves_s is None else "left"}
        self._history.note("seen", n=number, device=device, **seen)

    # ---- in the background -------------------------------------------------------------------------

    async def _ask_later(self, number: int, device: int, own: dict[str, Any]) -> None:
        """Have a prompt answered in the background, whatever its device goes through, and fetch the answer."""
        text = f"Which way is the wind, for the {number}th time?"
        body = {"model": "moot", "input": text, "background": True, "folkmoot": own}
        self._history.note("sent", n=number, device=device, way="later", stream=False, own=own)
        try:
            async with asyncio.timeout(LATER_S):
                seen = await self._accept(number, device, body)
                while seen is None:
                    await asyncio.sleep(AGAIN_S)
                    seen = await self._fetch(number)
        except TimeoutError:
            seen = {"end": "hung"}
        self._history.note("seen", n=number, device=device, **seen)

    async def _accept(self, number: int, device: int, body: dict[str, Any]) -> dict[str, Any] | None:
        """Send it until it is accepted, with one key: however often it arrives, it is one. Gives the end where it is refused."""
        url, key = self._devices[device].url + "/v1/responses", {"idempotency-key": f"the {number}th"}
        while True:
            try:
                got = await self._http.post(url, json=body, headers=key)
                found = got.json()
            except (httpx.TransportError, ValueError):
                await asyncio.sleep(AGAIN_S)
                continue
            if "error" in found and got.status_code >= 400:
                one = {"status": got.status_code, "ends": 1, "after": 0, "done": 0}
                return {"end": "error", "code": found["error"]["code"], **one}
            self._accepted[number] = device, found["id"]
            self._history.note("accepted", n=number, device=device, id=found["id"])
            return None

    async def _fetch(self, number: int) -> dict[str, Any] | None:
        """The end of what was accepted, if it has come and its device is there."""
        device, name = self._accepted[number]
        try:
            got = await self._http.get(f"{self._devices[device].url}/v1/responses/{name}")
            found = got.json()
        except (httpx.TransportError, ValueError):
            return None
        if got.status_code != 200:  # 404 would be the loss of what was accepted
            return {"end": "nothing", "status": got.status_code} if got.status_code == 404 else None
        one = {"status": 200, "ends": 1, "after": 0, "done": 1}
        if found["status"] == "failed":
            return {"end": "error", "code": found["error"]["code"], **one}
        if found["status"] not in ("completed", "incomplete"):
            return None
        text = found["output"][0]["content"][0]["text"]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {"end": "answered", "id": name, "whole": bool(text), "digest": digest, **one}

    async def fetch_again(self) -> None:
        """When all is quiet: note what stands there of all that was accepted."""
        for number in self._accepted:
            seen = await self._fetch(number) or {"end": "nothing"}
            self._history.note(
                "kept", n=number, end=seen["end"], digest=seen.get("digest"), code=seen.get("code")
            )

    # ---- in the user's presence --------------------------------------------------------------------

    async def _see(self, device: int, body: dict[str, Any]) -> dict[str, Any]:
        """What a client gets to see of a prompt, up to the end of the response or of the connection."""
        url = self._devices[device].url + "/v1/chat/completions"
        answers: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        text, done, after, status = "", 0, 0, 0
        broken = ""
        try:
            async with self._http.stream("POST", url, json=body) as response:
                status = response.status_code
                if response.headers["content-type"].startswith("text/event-stream"):
                    async for line in response.aiter_lines():
                        if not line.startswith("data: "):
                            continue
                        after += bool(answers or errors) and line != "data: [DONE]"
                        if line == "data: [DONE]":
                            done += 1
                            continue
                        event = json.loads(line.removeprefix("data: "))
                        if "error" in event:
                            errors.append(event["error"])
                        elif "folkmoot" in event:
                            answers.append(event["folkmoot"])
                        else:
                            text += "".join(c["delta"].get("content", "") for c in event["choices"])
                else:
                    found = json.loads(await response.aread())
                    if "error" in found:
                        errors.append(found["error"])
                    else:
                        answers.append(found["folkmoot"])
                        text, done = found["choices"][0]["message"]["content"], 1
        except httpx.ConnectError:
            return {"end": "refused"}
        except httpx.TransportError as error:
            broken = type(error).__name__
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return {"end": "malformed", "status": status, "why": repr(error)}
        if broken and not answers and not errors:
            return {"end": "broken", "status": status, "why": broken}
        seen: dict[str, Any] = {
            "status": status,
            "ends": len(answers) + len(errors),
            "after": after,
            "done": done,
        }
        if answers:
            whole = answers[0]["answer"] == text and bool(text) and (done == 1 or bool(broken))
            jobs = answers[0]["jobs"]
            return {"end": "answered", "id": answers[0]["id"], "whole": whole, "jobs": len(jobs), **seen}
        if errors:
            return {"end": "error", "code": errors[0]["code"], **seen}
        return {"end": "nothing", **seen}


async def watch(device: Device, history: History) -> None:
    """Note how prompts begin and end at a device, as its own stream of events tells it, for as long as it lives."""
    life = device.life
    async with device.client(PATIENCE_S) as http:
        try:
            async with http.stream("GET", "/v1/moot/events") as response:
                history.note("watching", device=device.number, life=life)
                async for line in response.aiter_lines():
                    if not line.startswith('data: {"type":"'):
                        continue
                    kind = line[15 : line.index('"', 15)]
                    if kind in ("accepted", "answered", "failed"):
                        told = json.loads(line.removeprefix("data: "))
                        history.note("told", device=device.number, life=life, kind=kind, id=told["id"])
        except httpx.TransportError:
            return
