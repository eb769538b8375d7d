"""An Ollama server's own API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from folkmoot.core.messages import Inference, Turn, Usage
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.lines import body_lines, parse_object
from folkmoot.engine.meter import Meter
from folkmoot.engine.protocol import Done, EngineInfo, Text, Warmth
from folkmoot.engine.remote import Remote, billions, elsewhere, estimate, estimate_turns, messages, whole
from folkmoot.errors import EngineError, EngineUnreachable


class OllamaEngine:
    """The engine of `ollama:MODEL[@URL]`."""

    def __init__(self, url: str, model: str, config: EngineConfig) -> None:
        self._remote = Remote(url.rstrip("/"), config)
        self._model = model
        self._config = config
        self._context = config.context_tokens
        self._info = EngineInfo(model, config.context_tokens, 0.0)

    async def start(self) -> EngineInfo:
        """Ask for the model's size and context."""
        response = await self._remote.ask("POST", "/api/show", {"model": self._model})
        if response.status_code == 404:
            raise EngineError(
                f"{self._remote.url} has no model {self._model!r}; run: ollama pull {self._model}"
            )
        if response.status_code != 200:
            raise self._remote.refusal(response)
        shown = parse_object(response.content, response)
        facts = shown.get("model_info")
        trained = [
            value
            for key, value in (facts.items() if isinstance(facts, dict) else ())
            if key.endswith(".context_length") and isinstance(value, int)
        ]
        self._context = min([self._context, *trained])
        details = shown.get("details")
        size = str(details.get("parameter_size", "")) if isinstance(details, dict) else ""
        skill = self._config.skill or billions(size) or billions(self._model)
        note = f"Ollama at {self._remote.url}"
        self._info = EngineInfo(self._model, self._context, skill, note, elsewhere(self._remote.url))
        return self._info

    async def check(self) -> EngineInfo:
        """Ask for the server's version: it loads models by itself."""
        response = await self._remote.ask("GET", "/api/version")
        if response.status_code != 200:
            raise self._remote.refusal(response)
        return self._info

    async def count(self, conversation: Sequence[Turn]) -> int:
        """An estimate: Ollama has no call for it."""
        return estimate_turns(conversation)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """Write an answer with as much context as the settings say."""
        meter = Meter()
        sampling = inference.sampling
        options: dict[str, Any] = {
            "num_ctx": self._context,
            "num_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
        }
        if sampling.seed is not None:
            options["seed"] = sampling.seed % 2**31
        sent = messages(inference, self._context)
        meter.tokens_in = sum(estimate(turn["content"]) for turn in sent)
        body = {"model": self._model, "messages": sent, "stream": True, "options": options}
        thinking = self._config.thinking
        body |= {"think": thinking == "on"} if thinking else {}
        yield Text("", meter.usage)  # counted before it is sent: whoever asked may go before the first word
        try:
            async with self._remote.stream("/api/chat", body) as response:
                if response.status_code != 200:
                    yield Text("", meter.refused(response.status_code))
                    raise self._remote.refusal(response)
                async for line in body_lines(response):
                    if not line:
                        continue
                    event = parse_object(line, response)
                    if event.get("error"):
                        raise EngineError(f"{self._remote.url}: {event['error']}")
                    message = event.get("message")
                    text = message.get("content") if isinstance(message, dict) else None
                    if isinstance(text, str) and text:
                        meter.wrote(estimate(text))
                        yield Text(text, meter.usage)
                    if event.get("done"):
                        meter.tokens_in = whole(event.get("prompt_eval_count")) or meter.tokens_in
                        meter.tokens_out = whole(event.get("eval_count")) or meter.tokens_out
                        yield Done(meter.usage, truncated=event.get("done_reason") == "length")
                        return
        except EngineUnreachable:
            yield Text("", Usage())
            raise
        raise EngineError(f"{self._remote.url}: the answer broke off before its end")

    async def prefill(self, inference: Inference) -> Warmth:
        """Ollama's cache is out of reach."""
        return Warmth(0, 0)

    async def close(self) -> None:
        """Close the connections."""
        await self._remote.close()
