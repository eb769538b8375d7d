"""What the commands of `eval` share: models by their names, and where their calls are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from folkmoot.cli.options import settings_of

if TYPE_CHECKING:
    from folkmoot.engine.config import EngineConfig
    from folkmoot.evals.store import Store

_STEP_TOKENS = 256
"""Read at a time by a model that answers no user: nothing is cancelled there."""


def named(text: str) -> tuple[str, str]:
    """NAME and SPEC; a SPEC's own `=` stands behind its first colon."""
    name, equals, spec = text.partition("=")
    return (name, spec) if equals and ":" not in name else ("", text)


def engine_config(at_once: int, config_file: Path | None) -> EngineConfig:
    """An engine's settings for who is asked by nobody else: `at_once` answers at a time, held as long as it runs."""
    settings = settings_of(config_file).settings.engine
    return replace(
        settings,
        slots=at_once,
        idle_s=86_400.0,
        step_tokens=max(settings.step_tokens, _STEP_TOKENS),
    )


@contextlib.contextmanager
def store_at(path: Path) -> Iterator[Store]:
    """The calls in a file of SQLite, or in a compressed one (`.xz`), which is read first and written anew in the end."""
    from folkmoot.evals.store import Store

    packed = path if path.suffix == ".xz" else None
    store = Store(path.with_suffix(".sqlite") if packed else path)
    try:
        if packed is not None and packed.exists():
            store.read(packed)
        yield store
        if packed is not None:
            store.write(packed)
    finally:
        store.close()
