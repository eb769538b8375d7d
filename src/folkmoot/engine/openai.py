"""Any server with OpenAI's chat completions: vLLM, LM Studio, llama.cpp, a cloud."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from folkmoot.core.messages import Inference, Turn, Usage
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.lines import parse_object, sse_objects
from folkmoot.engine.meter import Meter
from folkmoot.engine.protocol import Done, EngineInfo, Text, Warmth
from folkmoot.engine.remote import Remote, billions, elsewhere, estimate, estimate_turns, messages, whole
from folkmoot.errors import EngineError, EngineUnreachable

_NO_LIST = {404, 405}
"""What servers say that keep no list of models."""
_BUSY = 429
"""Too many requests: whoever says so is alive."""


class OpenAIEngine:
    """The engine of `openai:URL#MODEL`. URL is the API's base, `/v1` added where it has no path."""

    def __init__(self, url: str, model: str, config: EngineConfig) -> None:
        base = url.rstrip("/")
        self._remote = Remote(base if urlsplit(base).path else f"{base}/v1", config)
        self._model = model
        self._config = config
        self._context = config.context_tokens
        self._info = EngineInfo(model, config.context_tokens, 0.0)

    async def start(self) -> EngineInfo:
        """Ask for the models; take the first where none was named, and its context where it is told."""
        response = await self._remote.ask("GET", "/models")
        rows: list[dict[str, Any]] = []
        if response.status_code == 200:
            data = parse_object(response.content, response).get("data")
            rows = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
        elif response.status_code not in _NO_LIST:
            raise self._remote.refusal(response)
        if not self._model:
            if not rows:
                raise EngineError(f"{self._remote.url} lists no models; name one: openai:URL#MODEL")
            self._model = str(rows[0].get("id"))
        known = [row for row in rows if row.get("id") == self._model]
        if rows and not known:
            some = ", ".join(str(row.get("id")) for row in rows[:5])
            raise EngineError(f"{self._remote.url} has no model {self._model!r}; it has {some}")
        with suppress(IndexError, TypeError, ValueError):  # only vLLM and its kin tell
            self._context = int(known[0].get("max_model_len") or self._context)
        skill = self._config.skill or billions(self._model)
        note = f"OpenAI-compatible server at {self._remote.url}"
        self._info = EngineInfo(self._model, self._context, skill, note, elsewhere(self._remote.url))
        return self._info

    async def check(self) -> EngineInfo:
        """Ask for the models once more; what a busy server or one without such a list says will do."""
        response = await self._remote.ask("GET", "/models")
        if response.status_code not in {200, _BUSY, *_NO_LIST}:
            raise self._remote.refusal(response)
        return self._info

    async def count(self, conversation: Sequence[Turn]) -> int:
        """An estimate: the server keeps its tokenizer to itself."""
        return estimate_turns(conversation)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """Write an answer; usage is the server's where it tells, else an estimate."""
        meter = Meter()
        sent = messages(inference, self._context)
        sampling = inference.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": sent,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **self._config.template,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed % 2**31
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        meter.tokens_in = sum(estimate(message["content"]) for message in sent)
        ending: str | None = None
        told: dict[str, Any] = {}
        yield Text("", meter.usage)  # counted before it is sent: whoever asked may go before the first word
        try:
            async with self._remote.stream("/chat/completions", body) as response:
                if response.status_code != 200:
                    yield Text("", meter.refused(response.status_code))
                    raise self._remote.refusal(response)
                async for event in sse_objects(response):
                    if event.get("error"):
                        raise EngineError(f"{self._remote.url}: {event['error']}")
                    text, finish = _choice(event)
                    ending = finish or ending
                    usage = event.get("usage")
                    told = usage if isinstance(usage, dict) else told
                    if text:
                        meter.wrote(estimate(text))
                        yield Text(text, meter.usage)
        except EngineUnreachable:
            yield Text("", Usage())
            raise
        if ending is None:
            raise EngineError(f"{self._remote.url}: the answer broke off before its end")
        details = told.get("prompt_tokens_details")
        meter.tokens_in = whole(told.get("prompt_tokens")) or meter.tokens_in
        meter.tokens_cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
        meter.tokens_out = whole(told.get("completion_tokens")) or meter.tokens_out
        yield Done(meter.usage, truncated=ending == "length")

    async def prefill(self, inference: Inference) -> Warmth:
        """The server's cache is out of reach."""
        return Warmth(0, 0)

    async def close(self) -> None:
        """Close the connections."""
        await self._remote.close()


def _choice(event: dict[str, Any]) -> tuple[str, str | None]:
    """The text and the finish reason of a chunk; the last one, with the usage, has no choice at all."""
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "", None
    delta = choices[0].get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    finish = choices[0].get("finish_reason")
    return (text if isinstance(text, str) else ""), (finish if isinstance(finish, str) else None)
