"""What the clients of other people's servers share: connections, retries, errors, estimates."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from folkmoot.core.layout import arrange, as_chat, closing, defused, opening
from folkmoot.core.messages import Inference, Turn
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.lines import parse_object
from folkmoot.errors import EngineError, EngineUnreachable, PromptTooLong

HOPS_HEADER = "X-Folkmoot-Hops"
"""Says how many moots a request has crossed, so that a moot behind a moot's API refuses it."""

_TRIES = 3
GO_ON = (
    "Your answer broke off there. Go on at exactly that character, without repeating or introducing anything."
)
"""What asks a server that takes chat messages only to go on with an answer that has begun."""

_PAUSE_S = 0.2  # guess: before the second try; doubles
_TURN_TOKENS = 8  # guess: what a template puts around a turn
_BYTES_A_TOKEN = 3  # guess on the safe side: English has 4 to 5, Chinese about 3
_TOO_LONG = re.compile(
    r"context[ _]length|context[ _]window|context[ _]size|maximum context|too many tokens", re.IGNORECASE
)
_BILLIONS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*b(?![a-z0-9])", re.IGNORECASE)


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own, which no proxy may come between."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def elsewhere(url: str) -> str:
    """The host of an address that is not this machine's own, else nothing."""
    return "" if is_loopback(url) else urlsplit(url).hostname or url


def estimate(text: str) -> int:
    """Tokens of a text that no tokenizer is at hand for, rather too many than too few."""
    return math.ceil(len(text.encode(errors="replace")) / _BYTES_A_TOKEN)


def estimate_turns(turns: Sequence[Turn]) -> int:
    """The same for a conversation, with what a template adds."""
    return sum(estimate(turn.content) + _TURN_TOKENS for turn in turns)


def whole(told: object) -> int:
    """A count that a server tells; 0 where it is none."""
    return told if isinstance(told, int) and 0 <= told < 2**31 else 0


def billions(name: str) -> float:
    """The size that a model's name tells, in billions of parameters; 0 if it tells none."""
    found = _BILLIONS.findall(name.replace("-", " ").replace("_", " ").replace(":", " ").replace("/", " "))
    return float(found[-1]) if found else 0.0


def messages(inference: Inference, context: int) -> list[dict[str, str]]:
    """The inference as chat messages that leave room for the answer. Raises `PromptTooLong`."""
    more = (Turn("assistant", defused(inference.begun)), Turn("user", GO_ON)) if inference.begun else ()
    fixed = estimate_turns((*arrange(inference).turns, *more))
    if inference.answers:
        fixed += estimate(opening(fence=inference.fence)) + estimate(closing(inference))
    room = context - fixed - min(inference.sampling.max_tokens, context // 4)
    if fixed >= context or (inference.answers and room <= 0):
        raise PromptTooLong(
            f"the prompt has about {fixed} tokens, the context of this engine holds {context} with the answer; "
            "shorten it or raise engine.context_tokens"
        )
    turns = (*as_chat(inference, room, estimate), *more)
    return [{"role": turn.role, "content": turn.content} for turn in turns]


class Remote:
    """Connections to one server, and its failures in our words."""

    def __init__(self, url: str, config: EngineConfig) -> None:
        self.url = url
        self._config = config
        headers = {HOPS_HEADER: "1"}
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(config.idle_s, connect=config.connect_s),
            limits=httpx.Limits(
                keepalive_expiry=2.0
            ),  # so that a request seldom meets a connection just dropped
            trust_env=not is_loopback(url),
        )

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """One whole response, whatever its status. Raises `EngineError`, `EngineUnreachable`."""
        async with self._sent(method, path, body) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response to a POST as it comes, whole where its status is not 200. Raises engine errors."""
        async with self._sent("POST", path, body) as response:
            if response.status_code != 200:
                await response.aread()
            yield response

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def refusal(self, response: httpx.Response) -> EngineError | PromptTooLong:
        """What a status other than 200 means."""
        message = response.text[:300]
        try:
            error = parse_object(response.content, response).get("error", message)
        except EngineError:
            error = message
        if isinstance(error, dict):
            message = f"{error.get('code') or error.get('type') or ''} {error.get('message') or ''}".strip()
        elif isinstance(error, str):
            message = error
        if response.status_code in {400, 413} and _TOO_LONG.search(message):
            return PromptTooLong(f"{self.url}: {message}")
        if response.status_code in {401, 403}:
            return EngineError(f"{self.url} wants another key; put it into ${self._config.api_key_env}")
        return EngineError(f"{response.url} answered {response.status_code}: {message}")

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> AsyncIterator[httpx.Response]:
        """Send, again only where no connection came about, so that no job is ever run twice."""
        try:
            response = await self._connected(self._client.build_request(method, path, json=body))
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineUnreachable(
                f"nothing answers at {self.url} ({error or 'no connection'}); is it running?"
            ) from error
        except httpx.TimeoutException as error:
            raise EngineError(
                f"{self.url} was silent for {self._config.idle_s} s; raise engine.idle_s if it is slow"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise EngineError(f"{self.url} broke off: {error or type(error).__name__}") from error

    async def _connected(self, request: httpx.Request) -> httpx.Response:
        pause = _PAUSE_S
        for _ in range(_TRIES - 1):
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                await asyncio.sleep(pause)
                pause *= 2
        return await self._client.send(request, stream=True)
