"""An engine without a model: a text of the right length after the right time.

It makes the real daemon measurable against the theory, whose services it draws from the same laws.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from random import Random

from folkmoot.core.law import Law, Table, Trace
from folkmoot.core.messages import Inference, Turn
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.meter import Meter
from folkmoot.engine.protocol import Done, EngineInfo, Text, Warmth
from folkmoot.errors import ConfigError, PromptTooLong

WORDS_PER_S = 30.0
"""Words a second of service: Qwen 0.5B on two threads (ENGINES.md, Figures)."""

_VOCABULARY = (
    "the moot weighs every answer and keeps what holds since each device speaks once and listens before it "
    "writes so that no single voice decides what all of them know"
).split()
_PIECE_S = 0.03  # guess: the pace at which a stream's words are worth a message


class TimedEngine:
    """Serves each job for a time drawn from `law`, and writes words (its tokens) all the while.

    With a seed in the inference the time and the text depend on it alone; a trace's row depends on the
    prompt alone, so that all devices and stages of a prompt draw the same one. `texts` are given out in
    turn instead of made-up words, whole, whatever the token limit.
    """

    def __init__(
        self,
        law: Law,
        config: EngineConfig | None = None,
        *,
        name: str = "timed",
        device: int = 0,
        texts: Sequence[str] = (),
        rng: Random | None = None,
    ) -> None:
        self._law = law
        self._config = config or EngineConfig()
        self._name = name
        self._device = device
        self._texts = texts
        self._rng = rng or Random()
        self._served = 0

    async def start(self) -> EngineInfo:
        """Nothing to load."""
        return EngineInfo(
            self._name,
            self._config.context_tokens,
            self._config.skill,
            f"no model: {self._law}"[:120],
            made_up=True,
        )

    async def check(self) -> EngineInfo:
        """It cannot fail."""
        return await self.start()

    async def count(self, conversation: Sequence[Turn]) -> int:
        """Words of the conversation."""
        return sum(len(turn.content.split()) for turn in conversation)

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        """Write for as long as the law says. Raises `PromptTooLong` as a model would."""
        clock = asyncio.get_running_loop().time
        began, meter = clock(), Meter()
        words_in = await self.count(inference.conversation)
        if words_in >= self._config.context_tokens:
            raise PromptTooLong(
                f"the prompt has {words_in} tokens, the context holds {self._config.context_tokens}"
            )
        meter.tokens_in = words_in + sum(len(text.split()) for text in (*inference.answers, inference.begun))
        seed = inference.sampling.seed
        rng = self._rng if seed is None else Random(seed)
        uniform = _from_prompt(inference) if isinstance(self._law, Trace) else rng.random()
        duration = self._law.quantile(uniform, self._device)
        words, truncated = self._words(inference, rng, duration)
        self._served += 1
        yield Text("", meter.usage)

        pieces = max(1, min(len(words), int(duration / _PIECE_S)))
        for number in range(pieces):
            due = began + duration * (number + 1) / pieces
            if due > clock():
                await asyncio.sleep(due - clock())
            piece = words[len(words) * number // pieces : len(words) * (number + 1) // pieces]
            meter.wrote(len(piece))
            yield Text("".join(piece), meter.usage)
        yield Done(meter.usage, truncated)

    async def prefill(self, inference: Inference) -> Warmth:
        """There is no cache."""
        return Warmth(0, 0)

    async def close(self) -> None:
        """Nothing to free."""

    def _words(self, inference: Inference, rng: Random, duration: float) -> tuple[list[str], bool]:
        """The answer, cut after every word, and whether the token limit shortened it."""
        if self._texts:
            place = self._served if inference.sampling.seed is None else inference.sampling.seed
            return _cut_into_words(self._texts[place % len(self._texts)]), False
        wanted = max(1, round(duration * WORDS_PER_S))
        words = [rng.choice(_VOCABULARY) for _ in range(min(wanted, inference.sampling.max_tokens))]
        ends = [" "] * (len(words) - 1) + ["."]
        return [word + end for word, end in zip(words, ends, strict=True)], wanted > len(words)


def read_table(file: str) -> Table:
    """A trace file's rows: Parquet by its suffix, else CSV. Raises `ConfigError`."""
    if file.endswith(".parquet"):
        return _read_parquet(file)
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as rows:
            return list(csv.reader(rows))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {file!r} cannot be read: {error}; give a CSV file with a header") from error


def _read_parquet(file: str) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError(
            f"trace {file!r}: pyarrow, which reads Parquet, is not installed; run: pip install 'folkmoot[sim]', "
            "or give a CSV file"
        ) from None
    try:
        table = parquet.read_table(file)
    except (OSError, ArrowException) as error:
        raise ConfigError(f"trace {file!r} cannot be read: {error}; give a Parquet file") from error
    columns = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    return [table.column_names, *map(list, zip(*columns, strict=True))]


def _from_prompt(inference: Inference) -> float:
    """A uniform number that is the same wherever the prompt runs."""
    return int.from_bytes(hashlib.sha256(inference.prompt.encode()).digest()[:6], "big") / 2**48


def _cut_into_words(text: str) -> list[str]:
    *words, last = text.split(" ")
    return [*(word + " " for word in words), last]
