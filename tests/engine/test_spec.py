from __future__ import annotations

import pytest

from folkmoot.engine.config import EngineConfig
from folkmoot.engine.embedded import EmbeddedEngine
from folkmoot.engine.llamacpp import LlamaServer
from folkmoot.engine.ollama import OllamaEngine
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.engine.spec import OLLAMA_URL, EngineSpec, build, parse_spec
from folkmoot.engine.timed import TimedEngine
from folkmoot.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("embedded", EngineSpec("embedded")),
        ("embedded:smollm2", EngineSpec("embedded", model="smollm2")),
        ("embedded:/m/x.gguf", EngineSpec("embedded", model="/m/x.gguf")),
        ("embedded:hf:owner/repo/x.gguf", EngineSpec("embedded", model="hf:owner/repo/x.gguf")),
        ("llamacpp:http://h:8080/", EngineSpec("llamacpp", url="http://h:8080")),
        ("openai:https://h/v1#gpt:1#a", EngineSpec("openai", model="gpt:1#a", url="https://h/v1")),
        ("openai:http://[::1]:8000", EngineSpec("openai", url="http://[::1]:8000")),
        ("ollama:qwen2.5:0.5b", EngineSpec("ollama", model="qwen2.5:0.5b", url=OLLAMA_URL)),
        ("ollama:qwen2.5:0.5b@http://h:1", EngineSpec("ollama", model="qwen2.5:0.5b", url="http://h:1")),
        ("timed:exp:1", EngineSpec("timed", law="exp:1")),
        ("timed:trace:f.csv:a:2", EngineSpec("timed", law="trace:f.csv:a:2")),
        ("none", EngineSpec("none")),
    ],
)
def test_forms(text: str, spec: EngineSpec) -> None:
    assert parse_spec(text) == spec
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    ["", "embedded:", "llamacpp", "llamacpp:localhost", "llamacpp:http://", "openai:ftp://h#m", "openai:http://h:99999",
     "ollama:", "ollama:@http://h", "timed:", "timed:exp:0", "none:1", "gpt4all:x"],
)  # fmt: skip
def test_bad_text_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_spec(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openai:http://me:s3cret@host/v1#m", "a user or a password.*api_key_env"),
        ("openai:https://s3cret@host", "a user or a password"),
        ("llamacpp:http://me:s3cret@", "a user or a password"),
        ("ollama:m@http://me:s3cret@host:1", "a user or a password"),
        ("openai:http://me:s3/cret@host", "no address"),
        ("openai:http://me:s3#cret@host", "no address"),
        ("opnai:http://me:s3cret@host", "none that exists"),
        ("ollama:@http://me:s3cret@host", "names no model"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        parse_spec(text)
    assert "s3" not in str(told.value)
    assert "cret" not in str(told.value)


def test_an_at_sign_may_stand_in_a_model_s_name() -> None:
    assert parse_spec("openai:https://h/v1#@cf/meta/llama").model == "@cf/meta/llama"


async def test_every_kind_builds() -> None:
    config = EngineConfig()
    kinds = {
        "embedded": EmbeddedEngine,
        "llamacpp:http://127.0.0.1:1": LlamaServer,
        "openai:http://127.0.0.1:1#m": OpenAIEngine,
        "ollama:m": OllamaEngine,
        "timed:det:0": TimedEngine,
    }
    for text, kind in kinds.items():
        engine = build(parse_spec(text), config)
        assert isinstance(engine, kind)
        await engine.close()
    assert build(parse_spec("none"), config) is None


@pytest.mark.parametrize(
    "values",
    [
        {"threads": -1},
        {"slots": 0},
        {"idle_s": 0.0},
        {"port": 70000},
        {"restart_max_s": 0.1},
        {"context_tokens": 10},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        EngineConfig(**values)  # type: ignore[arg-type]


def test_a_key_is_never_shown() -> None:
    assert "sesame" not in repr(EngineConfig(api_key="sesame"))
