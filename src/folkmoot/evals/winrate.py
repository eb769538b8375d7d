"""AlpacaEval 2.0's win rate and length-controlled win rate of judged answers, by the `alpaca_eval` package, without a network.

The package downloads a file of the instructions' difficulties; here one is named instead. Extra `[judge]`.
"""

from __future__ import annotations

import csv
import gzip
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot.errors import EvalError

GLM = "length_controlled_noreg"
"""The package's model that needs no answers of gamed baselines, which nobody can download here."""

PROMPTS = 805
"""Difficulties are those of AlpacaEval's own instructions, in their order."""

INSTRUCTIONS = "80812b0556445b687866e773d710c204bfba95387db0af79d373912c3c667af9"
"""SHA-256 of these, a line end between two."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One instruction's verdict: 1 the baseline's answer, 2 the model's, between them a probability; characters of both."""

    index: int
    preference: float
    baseline_characters: int
    model_characters: int


@dataclass(frozen=True, slots=True)
class WinRate:
    """In percent. `controlled` is what is left at equal length."""

    model: str
    win_rate: float
    controlled: float


def load(path: Path) -> dict[str, list[Judged]]:
    """Preferences by model from a CSV with `index, model, preference, chars_baseline, chars_model`, gzipped or not."""
    found: dict[str, list[Judged]] = {}
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["model"], []).append(
                    Judged(
                        int(row["index"]),
                        float(row["preference"]),
                        int(row["chars_baseline"]),
                        int(row["chars_model"]),
                    )
                )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise EvalError(f"{path} holds no preferences: {error!r}") from error
    return found


def win_rate(model: str, judged: Sequence[Judged], difficulty: Path) -> WinRate:
    """Both win rates of a model. Raises `EvalError` where the rows are not AlpacaEval's or the package is missing."""
    rows = sorted(judged, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(PROMPTS)):
        raise EvalError(
            f"{model}: {len(rows)} rows, but difficulties are known of AlpacaEval's {PROMPTS} instructions only"
        )
    if not difficulty.is_file():
        raise EvalError(f"{difficulty} is not there: name a file of instruction difficulties")
    package, frames = _package()
    annotations = frames.DataFrame(
        {
            "preference": [row.preference for row in rows],
            # Only their lengths are looked at.
            "output_1": ["x" * row.baseline_characters for row in rows],
            "output_2": ["x" * row.model_characters for row in rows],
            "generator_1": "baseline", "generator_2": model, "annotator": "judge",
        },
        index=frames.Index(range(PROMPTS), name="index"),
    )  # fmt: skip
    with _difficulties(package, difficulty):
        found = package.get_length_controlled_winrate(
            annotations, glm_name=GLM, save_weights_dir=None, is_warn_extreme_changes=False
        )
    return WinRate(model, float(found["win_rate"]), float(found["length_controlled_winrate"]))


def _package() -> tuple[Any, Any]:
    try:
        return importlib.import_module("alpaca_eval.metrics.glm_winrate"), importlib.import_module("pandas")
    except ImportError as error:
        raise EvalError(
            f"win rates need the package alpaca_eval ({error}): pip install 'folkmoot[judge]'"
        ) from error


@contextmanager
def _difficulties(package: Any, path: Path) -> Iterator[None]:
    """Let the package take this file for the one that it would download."""
    download = package.hf_hub_download
    package.hf_hub_download = lambda **_: str(path)
    try:
        yield
    finally:
        package.hf_hub_download = download
