"""An OpenAI-compatible server before one model that answers each call from the store where it can.

Devices of a live moot take it for their engine (`openai:URL#MODEL`), so that what is measured is the shipped path while
each generation is paid for once. With `pace` a stored answer takes `pace` times as long as it once took, or with a `speed` as its
tokens would take at that.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping
from contextlib import aclosing
from typing import Any, Protocol
from weakref import WeakValueDictionary

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from folkmoot.api.config import ApiConfig
from folkmoot.api.guard import Guard, bearer
from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn
from folkmoot.engine.protocol import Done, Text
from folkmoot.errors import EngineError, EvalError, PromptTooLong
from folkmoot.evals.store import Call, Speed, asked, key_of

_TOLD = 4_096
"""Of so many calls it knows what they took."""
_PIECES = 16
"""A stored answer that takes its time is sent in so many pieces."""


class Model(Protocol):
    """What is asked of an engine: to write an answer."""

    def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """The answer's pieces, then its end."""


class Calls(Protocol):
    """Where calls are found: a store, or what was recorded."""

    def find(self, body: Mapping[str, Any]) -> Call | None:
        """The call with this content."""

    def keep(self, call: Call) -> None:
        """Keep a call."""


class Proxy:
    """One model's calls. `made` were generated, `found` came from the store. `at_once` are generated at a time.

    `broken` is why the store cannot be used any more: no answer of a device says so.
    """

    def __init__(
        self,
        name: str,
        model: Model | None,
        store: Calls,
        *,
        pace: float = 0.0,
        speed: Speed | None = None,
        at_once: int = 1,
    ) -> None:
        self.name = name
        self.made = self.found = 0
        self.broken: EvalError | None = None
        self.pace = pace
        self._speed = speed
        self.model = model
        self._store = store
        self._room = asyncio.Semaphore(at_once)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: dict[str, asyncio.Task[Call]] = {}
        self._told: dict[str, Call] = {}

    def took(
        self, question: str, tokens: tuple[int, int], text: str | None, but: Container[str] = ()
    ) -> Call | None:
        """The last call about this question with so many tokens in and out, with this text if one has it; none whose key is in `but`.

        A provenance tells of a job its tokens and mostly its text, but neither its words nor what it once took.
        """
        found: Call | None = None
        for key, call in reversed(self._told.items()):
            if (call.tokens_in, call.tokens_out) != tokens or key in but:
                continue
            if any(question in turn["content"] for turn in call.request["messages"]):
                if text is None or call.text == text:
                    return call
                found = found or call
        return found

    async def call(self, body: Mapping[str, Any]) -> Call:
        """The answer to a request, from the store or the model. Raises `EngineError`, `PromptTooLong`, `EvalError`.

        Two that ask the same at a time wait for one generation, which goes on where one of them goes away.
        """
        call = self._store.find(body)
        if call is not None:
            self.found += 1
        else:
            call = await self._made(body)
        call = call.at(self._speed)
        key = call.key
        self._told.pop(key, None)
        self._told[key] = call
        if len(self._told) > _TOLD:
            del self._told[next(iter(self._told))]
        return call

    async def _made(self, body: Mapping[str, Any]) -> Call:
        key = key_of(body)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._generate(asked(body)))
            task.add_done_callback(lambda done: self._over(key, done))
        return await asyncio.shield(task)

    def _over(self, key: str, task: asyncio.Task[Call]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # where nobody waits any more, nobody else looks at it

    async def close(self) -> None:
        """Let go of what is being generated."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _generate(self, request: dict[str, Any]) -> Call:
        if self.model is None:
            raise EngineError("this call is not in the store, and there is no model to make it")
        inference = _inference(request)
        text: list[str] = []
        # Who asks the same with other seeds waits in turn: the engine then reads the question once.
        turn = self._turns.setdefault(inference.prompt, asyncio.Lock())
        async with turn, self._room, aclosing(self.model.generate(inference)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Text):
                    text.append(piece.text)
                    continue
                usage = piece.usage
                call = Call(
                    request, "".join(text), piece.truncated, usage.tokens_in, usage.tokens_out, usage.inference_s,
                    usage.first_token_s,
                )  # fmt: skip
                self._store.keep(call)
                self.made += 1
                return call
        raise EngineError("the answer broke off before its end")

    # ---- HTTP ---------------------------------------------------------------------------------------

    def app(self, key: str) -> ASGIApp:
        """The server, for who has the key and no page of another site: a list of one model, and its chat completions."""

        def keyed(
            answer: Callable[[Request], Awaitable[Response]],
        ) -> Callable[[Request], Awaitable[Response]]:
            async def checked(request: Request) -> Response:
                token = bearer(request.headers)
                if token is None or not hmac.compare_digest(token, key.encode()):
                    return _refused(401, "wrong_key", "this model answers the devices of its run alone")
                return await answer(request)

            return checked

        routes = [
            Route("/v1/models", keyed(self._models)),
            Route("/v1/chat/completions", keyed(self._complete), methods=["POST"]),
        ]
        return Guard(Starlette(routes=routes), ApiConfig(listen="127.0.0.1:0"), key, None)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    async def _complete(self, request: Request) -> Response:
        try:
            body = await request.json()
            _inference(body)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return _refused(400, "invalid", f"no chat completion can be made of this body: {error!r}")
        body["model"] = self.name
        try:
            stored = self._store.find(body) is not None
            call = await self.call(body)
        except PromptTooLong as error:
            return _refused(400, "context_length_exceeded", f"maximum context: {error}")
        except EngineError as error:
            return _refused(500, "engine_error", str(error))
        except EvalError as error:
            self.broken = error
            return _refused(500, "engine_error", str(error))
        takes_s = self.pace * call.inference_s if stored else 0.0
        if body.get("stream"):
            return StreamingResponse(self._stream(call, takes_s), media_type="text/event-stream")
        await asyncio.sleep(takes_s)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": call.text},
            "finish_reason": _ending(call),
        }
        return JSONResponse(
            {"object": "chat.completion", "model": self.name, "choices": [choice], "usage": _usage(call)}
        )

    async def _stream(self, call: Call, takes_s: float) -> AsyncGenerator[str, None]:
        pieces = [call.text]
        if takes_s:
            step = max(1, -(-len(call.text) // _PIECES))
            pieces = [call.text[at : at + step] for at in range(0, len(call.text), step)] or [""]
            first_s = min(takes_s, self.pace * call.first_token_s)
            pause_s = (takes_s - first_s) / len(pieces)
            await asyncio.sleep(first_s)
        for piece in pieces:
            yield _event({"choices": [{"index": 0, "delta": {"content": piece}}]})
            if takes_s:
                await asyncio.sleep(pause_s)
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": _ending(call)}]})
        yield _event({"choices": [], "usage": _usage(call)})
        yield "data: [DONE]\n\n"


def _inference(request: Mapping[str, Any]) -> Inference:
    """A request as an engine takes it. Raises `KeyError`, `TypeError` or `ValueError` where it is none."""
    turns = tuple(Turn(_text(each["role"]), _text(each["content"])) for each in request["messages"])
    if not turns:
        raise ValueError("messages: there is none")
    given = {name: value for name, value in request.items() if value is not None}
    stop, seed = given.get("stop", ()), given.get("seed")
    sampling = Sampling(
        int(given.get("max_tokens", 512)), float(given.get("temperature", 0.7)), float(given.get("top_p", 1.0)),
        None if seed is None else int(seed), (stop,) if isinstance(stop, str) else tuple(map(_text, stop)),
    )  # fmt: skip
    # One id for all that begins with the same words: the engine then finds them in its cache.
    name = key_of({"messages": request["messages"]})
    return Inference(PromptId(name[:32]), turns, sampling=sampling)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _ending(call: Call) -> str:
    return "length" if call.truncated else "stop"


def _usage(call: Call) -> dict[str, int]:
    tokens = call.tokens_in + call.tokens_out
    return {"prompt_tokens": call.tokens_in, "completion_tokens": call.tokens_out, "total_tokens": tokens}


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps({'object': 'chat.completion.chunk', **body}, ensure_ascii=False)}\n\n"


def _refused(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)
