"""Client of a llama.cpp server, the embedded one's or a user's own (`llamacpp:URL`).

It sends token ids, not text: each piece of a job is tokenised by itself, so that the beginning of a
prompt stays the same token for token, whatever comes after it. Every request names its slot.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from folkmoot.core.ids import PromptId
from folkmoot.core.layout import Conversation, arrange, closing, cut, fenced, marks, opening, share, spoken
from folkmoot.core.messages import Inference, Layout, Turn
from folkmoot.engine import template
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.lines import parse_object, sse_objects
from folkmoot.engine.meter import Meter
from folkmoot.engine.protocol import Done, EngineInfo, Text, Warmth
from folkmoot.engine.remote import elsewhere, is_loopback, whole
from folkmoot.engine.slots import Slot, SlotTable, common_length
from folkmoot.errors import EngineError, EngineUnreachable, PromptTooLong

_REMEMBERED_FRAMES = 64
_REMEMBERED_PIECES = 256
_REMEMBERED_CHARACTERS = 250_000
"""Of all remembered pieces together (guess): their tokens are 36 MB at most where each character is one."""
_LONGEST_REMEMBERED = 20_000
"""Characters of a piece (guess): longer ones fill most contexts, and are tokenised anew each time."""
_SEEDS = 2**32 - 1  # llama.cpp takes the largest 32-bit number for "no seed"


@dataclass(frozen=True, slots=True)
class _Laid:
    """A job in tokens; the first `open_length` of them stay as they are when more answers come."""

    tokens: list[int]
    open_length: int


class LlamaServer:
    """The engine behind a llama.cpp server's HTTP address."""

    def __init__(self, url: str, config: EngineConfig, key: str = "") -> None:
        self._url = url.rstrip("/")
        self._config = config
        self._client = httpx.AsyncClient(
            base_url=self._url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(config.idle_s, connect=config.connect_s),
            limits=httpx.Limits(keepalive_expiry=2.0),  # the server drops idle connections after five
            trust_env=not is_loopback(url),
        )
        self._context = 0
        self._info = EngineInfo("", 0, 0.0)
        self._slots = SlotTable(1)
        self._frames: OrderedDict[tuple[str, ...], tuple[str, ...] | None] = OrderedDict()
        self._pieces: OrderedDict[tuple[str, bool, bool], list[int]] = OrderedDict()
        self._held = 0

    async def start(self) -> EngineInfo:
        """Wait until the server has its model; learn its name, size and context."""
        await self._loaded()
        props = await self._ask("GET", "/props")
        models = await self._ask("GET", "/v1/models")
        try:
            context = int(props["default_generation_settings"]["n_ctx"])
            slots = int(props["total_slots"])
            path = str(props.get("model_path") or props.get("model_alias") or "model")
            meta = models["data"][0].get("meta") or {}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self._url}: /props and /v1/models are not those of a llama.cpp server"
            ) from error
        trained = int(meta.get("n_ctx_train") or context)
        self._context = min(context, trained)
        self._slots = SlotTable(slots)
        skill = self._config.skill or float(meta.get("n_params") or 0) / 1e9
        name = path.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf")
        note = f"llama.cpp server at {self._url}, {slots} slots"
        self._info = EngineInfo(name, self._context, skill, note, elsewhere(self._url))
        return self._info

    async def check(self) -> EngineInfo:
        """Ask the server for its health."""
        response = await self._send("GET", "/health")
        if response.status_code != 200:
            raise self._refusal(response)
        return self._info

    async def count(self, conversation: Sequence[Turn]) -> int:
        """Tokens of the conversation in the model's own template."""
        return len((await self._lay(Inference(PromptId(""), tuple(conversation)), False)).tokens)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """Write an answer, in the slot that holds the prompt's beginning if there is one."""
        meter = Meter()
        laid = await self._lay(inference, bool(spoken(inference.answers)))
        slot = self._slots.take(inference.prompt, held=False)
        del slot.tokens[common_length(slot.tokens, laid.tokens) :]
        body = self._body(
            laid.tokens, slot, min(inference.sampling.max_tokens, self._context - len(laid.tokens))
        )
        body |= {
            "stream": True,
            "temperature": inference.sampling.temperature,
            "top_p": inference.sampling.top_p,
        }
        # Without progress events the server reads a whole prompt before it notices that nobody waits for it.
        body |= {"stop": list(inference.sampling.stop), "return_progress": True}
        if inference.sampling.seed is not None:
            body["seed"] = inference.sampling.seed % _SEEDS
        try:
            with slot.working():
                async with self._client.stream("POST", "/completion", json=body) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise self._refusal(response)
                    async for event in sse_objects(response):
                        if "error" in event:
                            raise EngineError(f"{self._url}: {event['error']}")
                        progress = event.get("prompt_progress")
                        if isinstance(progress, dict):
                            meter.tokens_in = whole(progress.get("processed"))
                            meter.tokens_cached = whole(progress.get("cache"))
                            if meter.tokens_in:  # the first step may be told of before anything is read
                                yield Text("", meter.usage)
                        if event.get("content"):
                            meter.tokens_in = len(laid.tokens)
                            meter.wrote(max(1, whole(event.get("tokens_predicted")) - meter.tokens_out))
                            yield Text(event["content"], meter.usage)
                        if event.get("stop"):
                            slot.tokens = laid.tokens
                            meter.tokens_in = len(laid.tokens)
                            meter.tokens_cached = whole((event.get("timings") or {}).get("cache_n"))
                            meter.tokens_out = whole(event.get("tokens_predicted"))
                            yield Done(meter.usage, truncated=event.get("stop_type") == "limit")
                            return
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._lost(error) from error
        raise EngineError(f"{self._url}: the answer broke off before its end")

    async def prefill(self, inference: Inference) -> Warmth:
        """Evaluate the next few tokens of the conversation, the instruction and the answers so far."""
        try:
            laid = await self._lay(inference, True)
        except PromptTooLong:
            return Warmth(0, 0)
        prefix = laid.tokens[: laid.open_length]
        slot = self._slots.take(inference.prompt, held=True)
        there = common_length(slot.tokens, prefix)
        if there == len(prefix):
            return Warmth(there, there)
        goal = min(there + self._config.step_tokens, len(prefix))
        del slot.tokens[there:]
        with slot.working():
            reply = await self._ask("POST", "/completion", self._body(prefix[:goal], slot, 0))
        timings = reply.get("timings") or {}
        evaluated = int(timings.get("cache_n", 0)) + int(timings.get("prompt_n", 0))
        slot.tokens = prefix[: min(goal, evaluated)]
        return Warmth(len(slot.tokens), len(prefix))

    async def close(self) -> None:
        """Close the connections; the server is not ours to stop."""
        await self._client.aclose()

    # ---- tokens -------------------------------------------------------------------------------------

    async def _lay(self, inference: Inference, opened: bool) -> _Laid:
        """The job as tokens; `opened` puts the instruction and the answers in. Raises `PromptTooLong`."""
        conversation, frame = await self._framed(inference)
        before: list[int] = []
        after: list[int] = []
        if opened and (reminder := closing(inference)):
            after += await self._tokens(reminder)
        for index, turn in enumerate(conversation.turns):
            side = before if index <= conversation.open_turn else after
            side += await self._tokens(frame[index], special=True, first=index == 0)
            side += await self._tokens(turn.content)
            if opened and index == conversation.open_turn:
                side += await self._tokens(opening(bool(turn.content), inference.fence))
            self._check_room(len(before) + len(after), "at least ")
        after += await self._tokens(frame[-1], special=True)
        if inference.begun:
            after += await self._tokens(inference.begun)
        fixed = len(before) + len(after)
        self._check_room(fixed)
        if opened:
            reserve = min(inference.sampling.max_tokens, self._context // 4)
            before += await self._answers(inference, self._context - fixed - reserve, fixed)
        return _Laid(before + after, len(before))

    def _check_room(self, tokens: int, about: str = "") -> None:
        if tokens >= self._context:
            raise PromptTooLong(
                f"the prompt has {about}{tokens} tokens, the context of this engine holds {self._context} "
                "with the answer; shorten it or raise engine.context_tokens"
            )

    async def _answers(self, inference: Inference, room: int, fixed: int) -> list[int]:
        """The fenced answers in tokens, each within its share of `room`."""
        tokens: list[int] = []
        used: list[int] = []
        said = zip(spoken(inference.answers), marks(inference), strict=True)
        for number, (text, marked) in enumerate(said, start=1):
            cap = share(room, inference.expected, used)
            piece = await self._fence(number, text, cap, inference.fence, marked)
            used.append(len(piece))
            tokens += piece
        if used and not tokens:
            raise PromptTooLong(
                f"the prompt has {fixed} tokens, which leaves {max(0, room)} of {self._context} for the peers' answers; "
                "shorten it or raise engine.context_tokens"
            )
        return tokens

    async def _fence(self, number: int, text: str, cap: int, fence: str, marked: bool) -> list[int]:
        """One answer's tokens, at most `cap`: shortened by its own density until it fits."""
        while text:
            tokens = await self._tokens(fenced(number, text, fence, marked))
            if len(tokens) <= cap:
                return tokens
            text = cut(text, min(len(text) - 1, len(text) * cap // len(tokens)), len)
        return []

    async def _framed(self, inference: Inference) -> tuple[Conversation, tuple[str, ...]]:
        """The turns and what the model's template puts around their texts.

        A template that knows no system turns, or wants user and assistant in alternation, gets the
        conversation in the plain form that it can render, the answers in its last user turn.
        """
        for tried in (
            inference,
            replace(
                inference, conversation=template.plain(inference.conversation), layout=Layout.SHARED_PREFIX
            ),
        ):
            conversation = arrange(tried)
            frame = await self._frame(tuple(turn.role for turn in conversation.turns))
            if frame is not None:
                return conversation, frame
        raise EngineError(f"{self._url}: the model's chat template cannot render a conversation")

    async def _frame(self, roles: tuple[str, ...]) -> tuple[str, ...] | None:
        if roles not in self._frames:
            pairs = template.marked(roles)
            messages = [{"role": role, "content": marker} for role, marker in pairs]
            body = {"messages": messages, **self._config.template}
            response = await self._send("POST", "/apply-template", body)
            frame = None
            if response.status_code == 200:
                rendered = parse_object(response.content, response).get("prompt")
                frame = template.split(str(rendered), [marker for _, marker in pairs])
            elif response.status_code in {401, 403, 404}:
                raise self._refusal(response)
            self._frames[roles] = frame
            if len(self._frames) > _REMEMBERED_FRAMES:
                self._frames.popitem(last=False)
            return frame
        return self._frames[roles]

    async def _tokens(self, text: str, special: bool = False, first: bool = False) -> list[int]:
        """A piece's tokens. `special`: control tokens are such (templates only); `first`: with the model's BOS."""
        key = (text, special, first)
        if key in self._pieces:
            self._pieces.move_to_end(key)
            return self._pieces[key]
        body = {"content": text, "add_special": first, "parse_special": special}
        reply = await self._ask("POST", "/tokenize", body)
        tokens = [int(token) for token in reply.get("tokens", ())]
        if len(text) <= _LONGEST_REMEMBERED and key not in self._pieces:
            self._pieces[key] = tokens
            self._held += len(text)
            while self._held > _REMEMBERED_CHARACTERS or len(self._pieces) > _REMEMBERED_PIECES:
                (oldest, _, _), _ = self._pieces.popitem(last=False)
                self._held -= len(oldest)
        return tokens

    # ---- HTTP ---------------------------------------------------------------------------------------

    def _body(self, tokens: list[int], slot: Slot, limit: int) -> dict[str, Any]:
        return {"prompt": tokens, "n_predict": limit, "id_slot": slot.number, "cache_prompt": True}

    async def _loaded(self) -> None:
        """Wait while the server says that it is loading."""
        try:
            async with asyncio.timeout(self._config.start_s):
                while True:
                    if (await self._send("GET", "/health")).status_code != 503:
                        return
                    await asyncio.sleep(0.25)
        except TimeoutError as error:
            raise EngineUnreachable(
                f"{self._url} has been loading its model for {self._config.start_s} s"
            ) from error

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        response = await self._send(method, path, body)
        if response.status_code != 200:
            raise self._refusal(response)
        return parse_object(response.content, response)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._lost(error) from error

    def _lost(self, error: httpx.HTTPError | httpx.StreamError) -> EngineError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return EngineUnreachable(
                f"nothing answers at {self._url}; is the llama.cpp server running there?"
            )
        if isinstance(error, httpx.TimeoutException):
            return EngineError(f"{self._url} was silent for {self._config.idle_s} s")
        return EngineError(f"{self._url} broke off: {error or type(error).__name__}")

    def _refusal(self, response: httpx.Response) -> EngineError | PromptTooLong:
        try:
            detail = response.json()["error"]
            kind, message = detail.get("type"), detail.get("message")
        except (ValueError, KeyError, TypeError, AttributeError):
            return EngineError(f"{response.url} answered {response.status_code}: {response.text[:200]}")
        if kind == "exceed_context_size_error":
            tokens, context = detail.get("n_prompt_tokens"), detail.get("n_ctx")
            return PromptTooLong(f"the prompt has {tokens} tokens, the context holds {context}; shorten it")
        if response.status_code in {401, 403}:
            return EngineError(f"{self._url} wants another key; put it into ${self._config.api_key_env}")
        return EngineError(f"{response.url} answered {response.status_code}: {message}")
