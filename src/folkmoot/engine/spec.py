"""The engine SPEC of `--engine` and the configuration, and the engine it stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, assert_never
from urllib.parse import urlsplit

from folkmoot.core.law import parse_law
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.embedded import EmbeddedEngine
from folkmoot.engine.llamacpp import LlamaServer
from folkmoot.engine.ollama import OllamaEngine
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.engine.protocol import Engine
from folkmoot.engine.timed import TimedEngine, read_table
from folkmoot.errors import ConfigError

Kind = Literal["embedded", "llamacpp", "openai", "ollama", "timed", "none"]

OLLAMA_URL = "http://127.0.0.1:11434"

_FORMS = "embedded[:MODEL], llamacpp:URL, openai:URL#MODEL, ollama:MODEL[@URL], timed:DIST or none"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A parsed SPEC. `model` may be empty where the engine chooses; `law` is DIST as text."""

    kind: Kind
    model: str = ""
    url: str = ""
    law: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "embedded":
                return f"embedded:{self.model}" if self.model else "embedded"
            case "llamacpp":
                return f"llamacpp:{self.url}"
            case "openai":
                return f"openai:{self.url}#{self.model}" if self.model else f"openai:{self.url}"
            case "ollama":
                return f"ollama:{self.model}@{self.url}"
            case "timed":
                return f"timed:{self.law}"
            case "none":
                return "none"
            case _:
                assert_never(self.kind)


def parse_spec(text: str) -> EngineSpec:
    """A SPEC's parts. Reads no file and asks no server. Raises `ConfigError`."""
    kind, colon, rest = text.strip().partition(":")
    match kind:
        case "embedded" if rest or not colon:
            return EngineSpec("embedded", model=rest)
        case "llamacpp" if rest:
            return EngineSpec("llamacpp", url=_url(text, rest))
        case "openai" if rest:
            url, _, model = rest.partition("#")
            return EngineSpec("openai", model=model, url=_url(text, url))
        case "ollama" if rest:
            model, at, url = rest.partition("@http")
            if not model:
                raise ConfigError(f"engine {_shown(text)} names no model; write ollama:MODEL[@URL]")
            return EngineSpec("ollama", model=model, url=_url(text, f"http{url}") if at else OLLAMA_URL)
        case "timed" if rest:
            if not rest.startswith("trace:"):
                parse_law(rest)
            return EngineSpec("timed", law=rest)
        case "none" if not colon:
            return EngineSpec("none")
        case _:
            raise ConfigError(f"engine {_shown(text)} is none that exists; write {_FORMS}")


def build(spec: EngineSpec, config: EngineConfig) -> Engine | None:
    """The engine, not yet started; None for a requester. Raises `ConfigError` for an unreadable trace."""
    match spec.kind:
        case "embedded":
            return EmbeddedEngine(spec.model, config)
        case "llamacpp":
            return LlamaServer(spec.url, config, config.api_key)
        case "openai":
            return OpenAIEngine(spec.url, spec.model, config)
        case "ollama":
            return OllamaEngine(spec.url, spec.model, config)
        case "timed":
            return TimedEngine(parse_law(spec.law, read_table), config)
        case "none":
            return None
        case _:
            assert_never(spec.kind)


def _shown(text: str) -> str:
    """The SPEC for an error; what may hold a password is left out."""
    kind, colon, rest = text.strip().partition(":")
    return repr(f"{kind}{colon}…" if "@" in rest else text)


def _url(text: str, url: str) -> str:
    if "@" in re.split("[/?#]", url.partition("//")[2], maxsplit=1)[0]:
        raise ConfigError(
            f"engine {_shown(text)}: its address holds a user or a password, which error messages would show; "
            "leave it out, and put the server's key into the variable that engine.api_key_env names"
        )
    try:
        parts = urlsplit(url)
        sound = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"engine {_shown(text)}: its URL is no address; write it like http://127.0.0.1:8080"
        )
    return url.rstrip("/")
