"""What every engine can do: the one seam between Folkmoot and a model runtime."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from folkmoot.core.messages import Inference, Turn, Usage


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine turned out to be once loaded.

    `context_tokens` is the room of ONE job, input and output together. `skill` orders models
    (billions of parameters where nothing better is known). `note` tells people what was chosen
    (threads, file), for `up` and `doctor`. `elsewhere` is the host that it runs on where that is another machine:
    what is asked here goes there. `made_up`: no model writes its texts, so there is no skill to be found out.
    """

    model: str
    context_tokens: int
    skill: float
    note: str = ""
    elsewhere: str = ""
    made_up: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """The next words of an answer, and what the inference has cost so far; no words while it still reads."""

    text: str
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer; the last thing a stream yields. `truncated`: the token limit stopped it."""

    usage: Usage
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Warmth:
    """How much of an inference's open prefix is in the cache, in tokens."""

    evaluated: int
    total: int


class Engine(Protocol):
    """A model runtime. One `generate` at a time; every method may raise `EngineError`.

    Cancelling the awaiting task, or `aclose()` on the stream, frees the runtime at once.
    """

    async def start(self) -> EngineInfo:
        """Load the model; returns when it can serve. Raises `EngineUnreachable`, `WeightsError`."""
        ...

    async def check(self) -> EngineInfo:
        """What it is by now, at little cost; after `start`. Raises `EngineError` while it cannot serve."""
        ...

    async def count(self, conversation: Sequence[Turn]) -> int:
        """Tokens of a conversation with the model's own template (an estimate where no tokenizer is at hand)."""
        ...

    def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """Write an answer: `Text` pieces as they come, then one `Done`. Raises `PromptTooLong`."""
        ...

    async def prefill(self, inference: Inference) -> Warmth:
        """Evaluate one small step (at most 64 tokens) of the open prefix; engines that cannot say 0 of 0."""
        ...

    async def close(self) -> None:
        """Free everything; leaves no process behind. Safe to call twice."""
        ...
