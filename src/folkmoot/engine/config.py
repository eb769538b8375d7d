"""What can be set about engines."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from folkmoot.errors import ConfigError


def default_models_folder() -> Path:
    """Where joined weights lie unless `FOLKMOOT_MODELS` says otherwise: the user's cache, shared by all homes."""
    return platformdirs.user_cache_path("folkmoot") / "models"


def default_runtime_folder() -> Path:
    """Where engines on this host find each other: the user's runtime folder, gone after a restart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a session's own folder the temporary one serves as well
        try:
            return platformdirs.user_runtime_path("folkmoot")
        except FileNotFoundError:  # nor can anything be written there: the disk is full
            return platformdirs.user_cache_path("folkmoot") / "runtime"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of whichever engine runs. Times in seconds, sizes in tokens.

    `threads` 0 means cores / engines on this host (ENGINES.md, trap 1). `port` 0 means a free one.
    `context_tokens` is the room of one job; an embedded engine holds it `slots` times. `skill` 0 means
    what the model's size says. `thinking` is one switch for all engines whose model can reason before it answers: `on`, `off`, or empty
    for what the model does by itself. `api_key` is for servers that want one; whoever loads the settings reads
    it from the variable that `api_key_env` names.
    """

    threads: int = 0
    context_tokens: int = 4096  # two slots of 4096 were measured (ENGINES.md, section 1)
    slots: int = 2  # ENGINES.md: one for answers to others, one for the own aggregation
    step_tokens: int = 64  # ENGINES.md: a prefill stops only between batches; 64 end within a second
    port: int = 0
    skill: float = 0.0
    thinking: str = ""
    start_s: float = 120.0  # guess: 1.5B weights from a slow disk
    connect_s: float = 5.0  # guess
    idle_s: float = 120.0  # guess: a full context at 55 tokens/s takes 75 s to its first word
    stop_s: float = 2.0  # guess: a child that has not ended by then is killed
    restart_s: float = 0.5  # guess: first pause before a dead child is started again; doubles
    restart_max_s: float = 30.0  # guess
    models_folder: Path = field(default_factory=default_models_folder)
    runtime_folder: Path = field(default_factory=default_runtime_folder)
    api_key_env: str = "FOLKMOOT_ENGINE_KEY"
    api_key: str = field(default="", repr=False)

    @property
    def template(self) -> dict[str, object]:
        """What the model's chat template is told, as llama.cpp, vLLM and SGLang take it in a request; nothing where there is nothing to say."""
        return {"chat_template_kwargs": {"enable_thinking": self.thinking == "on"}} if self.thinking else {}

    def __post_init__(self) -> None:
        for name, least in (
            ("threads", 0),
            ("context_tokens", 256),
            ("slots", 1),
            ("step_tokens", 1),
            ("port", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"engine.{name} is {value}; it must be at least {least}")
        for name in ("start_s", "connect_s", "idle_s", "stop_s", "restart_s", "restart_max_s"):
            value = getattr(self, name)
            if value <= 0:
                raise ConfigError(f"engine.{name} is {value}; it must be more than 0 seconds")
        if self.thinking not in ("", "on", "off"):
            raise ConfigError(
                f"engine.thinking is {self.thinking!r}; it is on, off, or empty for the model's own way"
            )
        if self.port > 65535:
            raise ConfigError(f"engine.port is {self.port}; it must be at most 65535")
        if self.restart_max_s < self.restart_s:
            raise ConfigError(
                f"engine.restart_max_s is {self.restart_max_s}, below restart_s {self.restart_s}; raise it"
            )
