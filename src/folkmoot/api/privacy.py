"""Which prompts stay on this device though their user did not say so: rules of the configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.core.messages import Turn
from folkmoot.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    """A prompt that one of these fits is answered by this device alone, as with `private: true`.

    `patterns` are regular expressions (Python's), looked for in every message of the conversation; `models` are names as
    they stand in a request's `model`; `keys` are names of API keys (`folkmoot key list`). A pattern that takes long to
    match holds up the whole device while it does.
    """

    patterns: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for place, pattern in enumerate(self.patterns):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"api.privacy.patterns[{place}] is no regular expression: {error}; in TOML write it in single quotes"
                ) from None


def rule_of(config: PrivacyConfig, model: str, key: str | None, conversation: Sequence[Turn]) -> str:
    """The rule that keeps a prompt here, by its place and never by its text; empty where none does."""
    if key is not None and key in config.keys:
        return f"api.privacy.keys[{config.keys.index(key)}]"
    if model in config.models:
        return f"api.privacy.models[{config.models.index(model)}]"
    for place, pattern in enumerate(config.patterns):
        if any(re.search(pattern, turn.content) for turn in conversation):
            return f"api.privacy.patterns[{place}]"
    return ""
