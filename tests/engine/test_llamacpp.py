"""What a llama.cpp server may do to us, played by a scripted one; the real one is in test_embedded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Turn
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.llamacpp import LlamaServer
from folkmoot.engine.protocol import Done, Text
from folkmoot.errors import EngineError, EngineUnreachable, PromptTooLong

from .conftest import Replies, Reply, as_json, scripted

CONFIG = EngineConfig(connect_s=1.0, idle_s=5.0, start_s=2.0)
TURNS = (Turn("system", "S"), Turn("user", "U"))
JOB = Inference(PromptId("p"), TURNS)


def replies(**more: Any) -> Replies:
    return {
        "/health": [as_json({"status": "ok"})],
        "/props": [
            as_json(
                {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 1, "model_path": "/m/x.gguf"}
            )
        ],
        "/v1/models": [
            as_json({"data": [{"id": "x", "meta": {"n_ctx_train": 1024, "n_params": 2_000_000_000}}]})
        ],
        "/apply-template": rendered(system=True),
        "/tokenize": as_characters,
        **more,
    }


def rendered(*, system: bool) -> Callable[[dict[str, Any]], Reply]:
    """A chat template that knows system turns or refuses them."""

    def render(body: dict[str, Any]) -> Reply:
        messages = body["messages"]
        if not system and any(message["role"] == "system" for message in messages):
            return as_json({"error": {"message": "no system role"}}, 500)
        return as_json(
            {"prompt": "".join(f"<{message['role']}>{message['content']}" for message in messages)}
        )

    return render


def as_characters(body: dict[str, Any]) -> Reply:
    """A tokenizer that takes every character for a token."""
    return as_json({"tokens": [ord(sign) for sign in body["content"]]})


async def run(engine: LlamaServer, inference: Inference = JOB) -> list[Text | Done]:
    await engine.start()
    return [event async for event in engine.generate(inference)]


async def test_it_waits_while_the_model_loads() -> None:
    loading = as_json({"error": {"message": "Loading model"}}, 503)
    async with scripted(replies(**{"/health": [loading, loading, as_json({})]})) as server:
        engine = LlamaServer(server.url, CONFIG)
        info = await engine.start()
        await engine.close()
    assert (info.model, info.context_tokens, info.skill) == ("x", 1024, 2.0)
    async with scripted(replies(**{"/health": [loading]})) as server:
        engine = LlamaServer(server.url, replace(CONFIG, start_s=0.3))
        with pytest.raises(EngineUnreachable, match="loading its model for 0.3 s"):
            await engine.start()
        await engine.close()


async def test_nobody_there(unused_tcp_port: int) -> None:
    engine = LlamaServer(f"http://127.0.0.1:{unused_tcp_port}", CONFIG)
    with pytest.raises(EngineUnreachable, match=f"{unused_tcp_port}.*running there"):
        await engine.start()
    await engine.close()


@pytest.mark.parametrize("props", [{"total_slots": "many"}, {}, {"default_generation_settings": None}])
async def test_another_kind_of_server_is_said_so(props: dict[str, Any]) -> None:
    async with scripted(replies(**{"/props": [as_json(props)]})) as server:
        engine = LlamaServer(server.url, CONFIG)
        with pytest.raises(EngineError, match="not those of a llama.cpp server"):
            await engine.start()
        await engine.close()


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b'data: {"content":"a","stop":false}\n\n', "broke off before its end"),
        (b'data: {"content":"a","st', "where a JSON object belongs"),
        (b'error: {"message":"gone"}\n\n', "gone"),
    ],
)
async def test_half_an_answer_is_no_answer(stream: bytes, says: str) -> None:
    async with scripted(replies(**{"/completion": [Reply(chunks=[stream])]})) as server:
        engine = LlamaServer(server.url, CONFIG)
        with pytest.raises(EngineError, match=says):
            await run(engine)
        await engine.close()


async def test_pieces_of_any_size_make_whole_characters() -> None:
    said = [
        {"content": "né\u2028e 😀", "stop": False},
        {"content": "", "stop": True, "stop_type": "eos", "tokens_predicted": 2},
    ]
    stream = b"".join(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in said)
    chunks = [stream[place : place + 1] for place in range(len(stream))]
    async with scripted(replies(**{"/completion": [Reply(chunks=chunks)]})) as server:
        engine = LlamaServer(server.url, CONFIG)
        text, end = await run(engine)
        await engine.close()
    assert isinstance(text, Text)
    assert text.text == "né\u2028e 😀"
    assert isinstance(end, Done)
    assert not end.truncated


async def test_a_template_without_system_turns_gets_the_plain_form() -> None:
    done = Reply(chunks=[b'data: {"content":"","stop":true}\n\n'])
    script = replies(**{"/apply-template": rendered(system=False), "/completion": [done]})
    async with scripted(script) as server:
        engine = LlamaServer(server.url, CONFIG)
        await run(engine)
        sent = server.requests[-1].body
        await engine.close()
    assert "".join(map(chr, sent["prompt"])) == "<user>S\n\nU"
    assert sent["id_slot"] == 0
    assert sent["n_predict"] == 512


@pytest.mark.parametrize(("thinking", "told"), [("", None), ("on", True), ("off", False)])
async def test_the_template_is_told_whether_to_think(thinking: str, told: bool | None) -> None:
    done = Reply(chunks=[b'data: {"content":"","stop":true}\n\n'])
    async with scripted(replies(**{"/completion": [done]})) as server:
        engine = LlamaServer(server.url, replace(CONFIG, thinking=thinking))
        await run(engine)
        (sent,) = {
            str(each.body.get("chat_template_kwargs"))
            for each in server.requests
            if each.path == "/apply-template"
        }
        await engine.close()
    assert sent == str(None if told is None else {"enable_thinking": told})


async def test_what_is_kept_of_texts_is_bounded() -> None:
    texts = [f"{number:06} " + "x" * 14_000 for number in range(30)] + ["y" * 30_000, "short"]
    async with scripted(replies()) as server:
        engine = LlamaServer(server.url, CONFIG)
        for text in texts:
            await engine._tokens(text)
        kept = [text for text, _, _ in engine._pieces]
        assert kept[-2:] == [texts[29], "short"]
        assert 200_000 < sum(map(len, kept)) <= 250_000
        for text, times in (("short", 0), (texts[0], 1), (texts[30], 1)):
            asked = len(server.requests)
            assert await engine._tokens(text) == list(map(ord, text))
            assert len(server.requests) == asked + times
        await engine.close()


async def test_tokenising_ends_where_the_context_does() -> None:
    turns = tuple(Turn("user", f"{number:06} " + "x" * 400) for number in range(50))
    async with scripted(replies()) as server:
        engine = LlamaServer(server.url, CONFIG)
        await engine.start()
        with pytest.raises(
            PromptTooLong, match=r"the prompt has at least 1\d\d\d tokens, .* holds 1024 with"
        ):
            await engine.count(turns)
        await engine.close()
    texts = [request.body["content"] for request in server.requests if request.path == "/tokenize"]
    assert sum("x" in text for text in texts) == 3


@pytest.mark.parametrize("prompt", ["", "no text at all"])
async def test_a_template_that_drops_texts_is_said_so(prompt: str) -> None:
    async with scripted(replies(**{"/apply-template": [as_json({"prompt": prompt})]})) as server:
        engine = LlamaServer(server.url, CONFIG)
        with pytest.raises(EngineError, match="cannot render"):
            await run(engine)
        await engine.close()


async def test_a_reminder_follows_marked_answers_and_is_not_evaluated_ahead() -> None:
    done = Reply(chunks=[b'data: {"content":"","stop":true}\n\n'])
    models = as_json({"data": [{"id": "x", "meta": {"n_ctx_train": 4096}}]})
    marked = replace(JOB, answers=("blue", "Obey!"), expected=2, fence="qzkvwmtrhb", suspect=1)
    async with scripted(replies(**{"/v1/models": [models], "/completion": [done]})) as server:
        engine = LlamaServer(server.url, replace(CONFIG, step_tokens=4_096))
        await run(engine, marked)
        whole = "".join(map(chr, server.requests[-1].body["prompt"]))
        laid = await engine._lay(marked, True)
        await engine.close()
    line = "```qzkvwmtrhb"
    assert (
        f"Response 1:\n{line}\nblue\n{line}\n\nResponse 2 (unverified):\n{line}\nObey!\n{line}\n\nEnd of"
        in whole
    )
    assert whole.endswith("Now answer the query: U")
    assert "".join(map(chr, laid.tokens[: laid.open_length])).endswith(f"Obey!\n{line}")


async def test_an_answer_that_has_begun_stands_after_the_template_s_last_words() -> None:
    done = Reply(chunks=[b'data: {"content":"","stop":true}\n\n'])
    async with scripted(replies(**{"/completion": [done]})) as server:
        engine = LlamaServer(server.url, CONFIG)
        await run(engine)
        anew = server.requests[-1].body["prompt"]
        await run(engine, replace(JOB, begun="It is"))
        assert server.requests[-1].body["prompt"] == [*anew, *map(ord, "It is")]
        await engine.close()
