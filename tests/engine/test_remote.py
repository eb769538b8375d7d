"""OpenAI-compatible servers and Ollama, played by a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from folkmoot.core.ids import PromptId
from folkmoot.core.layout import SYSTEM_PROMPT
from folkmoot.core.messages import Inference, Sampling, Turn, Usage
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.ollama import OllamaEngine
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.engine.protocol import Done, Engine, Text
from folkmoot.engine.remote import billions, elsewhere, estimate
from folkmoot.errors import ConfigError, EngineError, EngineUnreachable, PromptTooLong

from .conftest import Reply, as_json, scripted

CONFIG = EngineConfig(connect_s=1.0, idle_s=5.0)
JOB = Inference(
    PromptId("p"), (Turn("user", "Hi"),), sampling=Sampling(9, 0.5, 0.9, seed=2**40, stop=("END",))
)
MODELS = as_json({"data": [{"id": "tiny-7b", "max_model_len": 1000}]})
SHOWN = as_json({"details": {"parameter_size": "7.6B"}, "model_info": {"qwen2.context_length": 2048}})
STRANGE = "née \u2028 \u0085 😀"
CHAT = "/v1/chat/completions"


def sse(*objects: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(thing, ensure_ascii=False).encode() + b"\n\n" for thing in objects)


def delta(text: str = "", finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def ndjson(*objects: Any) -> bytes:
    return b"".join(json.dumps(thing, ensure_ascii=False).encode() + b"\n" for thing in objects)


def by_byte(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


async def run(engine: Engine, inference: Inference = JOB) -> tuple[str, Done]:
    *pieces, end = [event async for event in engine.generate(inference)]
    assert isinstance(end, Done)
    return "".join(piece.text for piece in pieces if isinstance(piece, Text)), end


async def test_openai_streams_byte_by_byte() -> None:
    stream = sse(delta(STRANGE), delta("!"), delta(finish="stop"), {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}})  # fmt: skip
    stream = b": ping\n\n" + stream + b"data: [DONE]\n\n"
    async with scripted({"/v1/models": [MODELS], CHAT: [Reply(chunks=by_byte(stream))]}) as server:
        engine = OpenAIEngine(server.url, "", replace(CONFIG, api_key="sesame"))
        info = await engine.start()
        assert (info.model, info.context_tokens, info.skill) == ("tiny-7b", 1000, 7.0)
        text, end = await run(engine)
        await engine.close()
    assert text == STRANGE + "!"
    assert (end.usage.tokens_in, end.usage.tokens_cached, end.usage.tokens_out) == (5, 3, 4)
    assert not end.truncated
    sent = server.requests[-1]
    assert sent.headers["authorization"] == "Bearer sesame"
    assert sent.headers["x-folkmoot-hops"] == "1"
    assert sent.body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (sent.body["max_tokens"], sent.body["temperature"], sent.body["stop"]) == (9, 0.5, ["END"])


async def test_openai_counts_by_itself_where_the_server_does_not() -> None:
    async with scripted(
        {"/v1/models": [MODELS], CHAT: [Reply(chunks=[sse(delta("Hello"), delta(finish="length"))])]}
    ) as server:
        engine = OpenAIEngine(server.url, "tiny-7b", CONFIG)
        await engine.start()
        text, end = await run(engine)
        await engine.close()
    assert text == "Hello"
    assert end.truncated
    assert end.usage.tokens_out == estimate("Hello")
    assert end.usage.tokens_in == estimate("Hi")


async def test_peers_answers_ride_in_the_user_s_turn_and_share_the_context() -> None:
    endless = tuple(f"{word} says <|im_end|> on and on. " * 500 for word in ("Alpha", "Beta"))
    async with scripted({"/v1/models": [MODELS], CHAT: [Reply(chunks=[sse(delta("x", "stop"))])]}) as server:
        engine = OpenAIEngine(server.url, "", CONFIG)
        await engine.start()
        await run(engine, replace(JOB, answers=endless, expected=2))
        await engine.close()
    (message,) = server.requests[-1].body["messages"]
    assert message["content"].startswith(f"Hi\n\n{SYSTEM_PROMPT}\n\nResponse 1:\n```\nAlpha says")
    assert "<|im_end|>" not in message["content"]
    assert 0 < message["content"].count("Beta says") <= message["content"].count("Alpha says") + 1
    assert estimate(message["content"]) < 1000


@pytest.mark.parametrize(("thinking", "told"), [("", None), ("on", True), ("off", False)])
async def test_one_switch_says_whether_to_think(thinking: str, told: bool | None) -> None:
    config = replace(CONFIG, thinking=thinking)
    chat = Reply(chunks=[ndjson({"message": {"content": "x"}}, {"done": True})])
    async with scripted({CHAT: [Reply(chunks=[sse(delta("x", "stop"))])], "/api/chat": [chat]}) as server:
        for engine in (OpenAIEngine(server.url, "m", config), OllamaEngine(server.url, "m", config)):
            await run(engine)
            await engine.close()
    first, second = (each.body for each in server.requests)
    assert first.get("chat_template_kwargs", {}).get("enable_thinking") is told
    assert second.get("think") is told
    with pytest.raises(ConfigError, match=r"engine\.thinking is 'yes'"):
        replace(CONFIG, thinking="yes")


async def test_ollama_streams_byte_by_byte() -> None:
    said = [{"message": {"content": STRANGE}}, {"message": {"content": "!"}, "done": False}, {"done": True, "done_reason": "length", "prompt_eval_count": 7, "eval_count": 6}]  # fmt: skip
    async with scripted(
        {"/api/show": [SHOWN], "/api/chat": [Reply(chunks=by_byte(ndjson(*said)))]}
    ) as server:
        engine = OllamaEngine(server.url, "qwen", CONFIG)
        info = await engine.start()
        assert (info.model, info.context_tokens, info.skill) == ("qwen", 2048, 7.6)
        text, end = await run(engine)
        assert (await engine.prefill(JOB)).total == 0
        assert await engine.count(JOB.conversation) > 0
        await engine.close()
    assert text == STRANGE + "!"
    assert (end.usage.tokens_in, end.usage.tokens_out, end.truncated) == (7, 6, True)
    options = server.requests[-1].body["options"]
    assert (options["num_ctx"], options["num_predict"], options["top_p"]) == (2048, 9, 0.9)
    assert server.requests[-1].headers["x-folkmoot-hops"] == "1"


MAKERS: list[Callable[[str], Engine]] = [
    lambda url: OpenAIEngine(url, "m", CONFIG),
    lambda url: OllamaEngine(url, "m", CONFIG),
]
PATHS = [CHAT, "/api/chat"]
KINDS = pytest.mark.parametrize(
    ("make", "path"), list(zip(MAKERS, PATHS, strict=True)), ids=["openai", "ollama"]
)


@KINDS
@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (Reply(chunks=[sse(delta("Hel")), ndjson({"message": {"content": "Hel"}})], cut=True), EngineError, "broke off|belongs"),
        (Reply(chunks=[]), EngineError, "broke off before its end"),
        (as_json({"error": {"message": "boom"}}, 500), EngineError, "500: boom"),
        (as_json({"error": "no key"}, 401), EngineError, "FOLKMOOT_ENGINE_KEY"),
        (as_json({"error": {"message": "This model's maximum context length is 5 tokens", "code": None}}, 400), PromptTooLong, "5 tokens"),
        (as_json({"error": {"code": "context_length_exceeded"}}, 400), PromptTooLong, "context"),
        (as_json({"error": {"message": "slow down"}}, 429), EngineError, "429: slow down"),
        (Reply(502, [b"<html>bad gateway</html>"]), EngineError, "502"),
        (Reply(hang=True), EngineError, "silent for 0.2 s"),
    ],
)  # fmt: skip
async def test_faults_are_named(
    make: Callable[[str], Engine], path: str, reply: Reply, error: type[Exception], says: str
) -> None:
    async with scripted({path: [reply]}) as server:
        engine = make(server.url)
        if reply.hang:
            engine = type(engine)(server.url, "m", replace(CONFIG, idle_s=0.2))  # type: ignore[call-arg]
        with pytest.raises(error, match=says):
            await run(engine)
        await engine.close()
    assert len(server.requests) == 1  # what was sent is never sent again


@KINDS
async def test_an_error_in_mid_stream_is_an_error(make: Callable[[str], Engine], path: str) -> None:
    bad = ndjson({"error": "out of memory"}) if "api" in path else sse(delta("a"), {"error": "out of memory"})
    async with scripted({path: [Reply(chunks=[bad])]}) as server:
        engine = make(server.url)
        with pytest.raises(EngineError, match="out of memory"):
            await run(engine)
        await engine.close()


@KINDS
async def test_cancelling_closes_the_connection(make: Callable[[str], Engine], path: str) -> None:
    async with scripted({path: [Reply(hang=True)]}) as server:
        engine = make(server.url)
        task = asyncio.create_task(run(engine))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await server.gone.wait()
        await engine.close()


@KINDS
async def test_nobody_there(make: Callable[[str], Engine], path: str, unused_tcp_port: int) -> None:
    engine = make(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(EngineUnreachable, match=f"{unused_tcp_port}.*is it running"):
        await engine.start()
    with pytest.raises(EngineUnreachable):
        await run(engine)
    await engine.close()


@pytest.mark.parametrize(
    ("make", "start", "path"),
    [
        (lambda url: OpenAIEngine(url, "", CONFIG), {"/v1/models": [MODELS, MODELS]}, "/v1/models"),
        (
            lambda url: OllamaEngine(url, "qwen", CONFIG),
            {"/api/show": [SHOWN], "/api/version": [Reply(chunks=[b"{}"])]},
            "/api/version",
        ),
    ],
)
async def test_a_check_asks_the_server(
    make: Callable[[str], Engine], start: dict[str, list[Reply]], path: str
) -> None:
    async with scripted(start) as server:
        engine = make(server.url)
        info = await engine.start()
        assert await engine.check() == info
        assert server.requests[-1].path == path
    with pytest.raises(EngineUnreachable, match="is it running"):
        await engine.check()
    await engine.close()


@pytest.mark.parametrize(
    ("status", "alive"), [(429, True), (404, True), (405, True), (401, False), (500, False)]
)
async def test_a_busy_server_is_alive(status: int, alive: bool) -> None:
    async with scripted(
        {"/v1/models": [MODELS, as_json({"error": {"message": "slow down"}}, status)]}
    ) as server:
        engine = OpenAIEngine(server.url, "", CONFIG)
        info = await engine.start()
        if alive:
            assert await engine.check() == info
        else:
            with pytest.raises(EngineError):
                await engine.check()
        await engine.close()


@KINDS
async def test_a_server_that_comes_up_late_is_tried_again(
    make: Callable[[str], Engine], path: str, unused_tcp_port: int
) -> None:
    engine = make(f"http://127.0.0.1:{unused_tcp_port}")
    done = (
        sse(delta("late", "stop")) if path == CHAT else ndjson({"message": {"content": "late"}, "done": True})
    )
    refused = asyncio.Event()
    remote: Any = engine._remote  # type: ignore[attr-defined]
    send = remote._client.send

    async def watched(*arguments: Any, **options: Any) -> Any:
        try:
            return await send(*arguments, **options)
        except httpx.ConnectError:
            refused.set()
            raise

    remote._client.send = watched
    task = asyncio.create_task(run(engine))
    await refused.wait()
    async with scripted({path: [Reply(chunks=[done])]}, unused_tcp_port):
        assert (await task)[0] == "late"
    await engine.close()


@KINDS
async def test_too_long_is_known_before_sending(make: Callable[[str], Engine], path: str) -> None:
    engine = make("http://127.0.0.1:1")
    with pytest.raises(PromptTooLong, match="context of this engine holds 4096"):
        await run(engine, replace(JOB, conversation=(Turn("user", "word " * 5000),)))
    await engine.close()


async def test_a_model_that_is_not_there() -> None:
    async with scripted(
        {"/v1/models": [MODELS], "/api/show": [as_json({"error": "not found"}, 404)]}
    ) as server:
        openai, ollama = OpenAIEngine(server.url, "huge", CONFIG), OllamaEngine(server.url, "huge", CONFIG)
        with pytest.raises(EngineError, match="has no model 'huge'; it has tiny-7b"):
            await openai.start()
        with pytest.raises(EngineError, match="ollama pull huge"):
            await ollama.start()
        await openai.close()
        await ollama.close()


async def test_a_server_without_a_list_needs_a_name() -> None:
    async with scripted({}) as server:
        named, nameless = (
            OpenAIEngine(f"{server.url}/api", "m-1.5B", CONFIG),
            OpenAIEngine(server.url, "", CONFIG),
        )
        assert (await named.start()).skill == 1.5
        assert server.requests[-1].path == "/api/models"
        with pytest.raises(EngineError, match="name one"):
            await nameless.start()
        await named.close()
        await nameless.close()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("qwen2.5:0.5b", 0.5),
        ("Llama-3-70B-Instruct", 70.0),
        ("gpt-4o", 0.0),
        ("7.6B", 7.6),
        ("x/y-8b-q4", 8.0),
    ],
)
def test_sizes_in_names(name: str, size: float) -> None:
    assert billions(name) == size


async def last_usage(engine: Engine, cancel: asyncio.Event | None = None) -> Usage:
    """What a job has cost as far as was told when it failed, or was cancelled at that event."""
    told = [Usage()]

    async def read() -> None:
        async for piece in engine.generate(JOB):
            told.append(piece.usage)

    task = asyncio.create_task(read())
    if cancel is not None:
        await cancel.wait()
        task.cancel()
    with pytest.raises((EngineError, PromptTooLong, asyncio.CancelledError)):
        await task
    return told[-1]


@KINDS
async def test_what_is_cancelled_before_the_server_says_a_word_has_cost_its_question(
    make: Callable[[str], Engine], path: str
) -> None:
    async with scripted({path: [Reply(hang=True)]}) as server:
        engine = make(server.url)
        usage = await last_usage(engine, cancel=server.asked)
        await engine.close()
    assert usage.tokens_in == estimate("Hi")


@KINDS
@pytest.mark.parametrize(
    ("reply", "tokens_in"),
    [
        (Reply(cut=True), estimate("Hi")),
        (as_json({"error": "down"}, 504), estimate("Hi")),
        (as_json({"error": "slow down"}, 429), 0),
        (as_json({"error": "context length"}, 400), 0),
    ],
)
async def test_only_a_question_that_was_refused_has_cost_nothing(
    make: Callable[[str], Engine], path: str, reply: Reply, tokens_in: int
) -> None:
    async with scripted({path: [reply]}) as server:
        engine = make(server.url)
        usage = await last_usage(engine)
        await engine.close()
    assert usage.tokens_in == tokens_in


@KINDS
async def test_a_question_that_reaches_no_server_has_cost_nothing(
    make: Callable[[str], Engine], path: str, unused_tcp_port: int
) -> None:
    engine = make(f"http://127.0.0.1:{unused_tcp_port}")
    assert (await last_usage(engine)).tokens_in == 0
    await engine.close()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:8080", ""),
        ("http://localhost:8080/v1", ""),
        ("http://[::1]:8080", ""),
        ("http://192.0.2.7:8080", "192.0.2.7"),
        ("https://api.example/v1", "api.example"),
    ],
)
def test_where_a_server_is_that_is_not_on_this_machine(url: str, host: str) -> None:
    assert elsewhere(url) == host


async def test_an_answer_that_has_begun_is_said_before_the_wish_to_go_on() -> None:
    """Such a server opens a turn of its own; the control token in the words of another model is none."""
    stream = sse(delta("blue."), delta(finish="stop")) + b"data: [DONE]\n\n"
    async with scripted({"/v1/models": [MODELS], CHAT: [Reply(chunks=[stream])]}) as server:
        engine = OpenAIEngine(server.url, "", CONFIG)
        await engine.start()
        assert (await run(engine, replace(JOB, begun="It is <|im_end|>")))[0] == "blue."
        await engine.close()
    user, assistant, wish = server.requests[-1].body["messages"]
    assert user == {"role": "user", "content": "Hi"}
    assert assistant == {"role": "assistant", "content": "It is < |im_end|>"}
    assert (wish["role"], "Go on" in wish["content"]) == ("user", True)
