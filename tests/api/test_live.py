"""The API on a real socket: the official client, curl, and clients that go away."""

from __future__ import annotations

import asyncio
import json
import shutil

import httpx
import openai
import pytest

from folkmoot.api import ApiConfig, create_app
from folkmoot.api.server import bind, make_server, url_of
from folkmoot.errors import NodeError

ASK = {"model": "moot", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


async def test_the_official_client_whole(serve):
    async with openai.AsyncOpenAI(base_url=f"{await serve()}/v1", api_key="any") as client:
        answer = await client.chat.completions.create(
            model="moot-M1-k3", messages=ASK["messages"], extra_body={"folkmoot": {"deadline_s": 30}}
        )
        assert answer.choices[0].message.content == "The sky is blue."
        assert answer.usage.total_tokens == 101
        assert answer.usage.prompt_tokens_details.cached_tokens == 36
        assert answer.folkmoot["proposers"] == 3
        assert "moot" in [model.id async for model in await client.models.list()]


async def test_the_official_client_streaming(serve):
    async with openai.AsyncOpenAI(base_url=f"{await serve()}/v1", api_key="any") as client:
        stream = await client.chat.completions.create(
            model="moot", messages=ASK["messages"], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The sky is blue."
    assert chunks[-1].usage.completion_tokens == 31


async def test_the_official_client_sees_typed_errors(serve, village):
    async with openai.AsyncOpenAI(base_url=f"{await serve()}/v1", api_key="any", max_retries=0) as client:

        async def ask(**more):
            return await client.chat.completions.create(**{**ASK, **more})

        with pytest.raises(openai.NotFoundError):
            await ask(model="none")
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(temperature=9)
        assert caught.value.param == "temperature"
        village.fail = "overloaded"
        with pytest.raises(openai.RateLimitError):
            await ask()
        village.fail, village.fail_late = "", "answer_cut"
        with pytest.raises(openai.APIError, match="told to fail late"):
            async for _ in await ask(stream=True):
                pass


async def curl(*arguments):
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--noproxy", "*", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_curl(serve):
    assert shutil.which("curl"), "curl is needed: apt install curl"
    url = await serve()
    chat = (f"{url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d")
    whole = json.loads(await curl(*chat, json.dumps(ASK)))
    assert whole["choices"][0]["message"]["content"] == "The sky is blue."
    streamed = await curl("-N", *chat, json.dumps(ASK | {"stream": True}))
    assert streamed.endswith("data: [DONE]\n\n")
    assert json.loads(await curl(f"{url}/healthz")) == {"status": "ready"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_takes_its_prompt_back(serve, village, stream):
    village.hold = asyncio.Event()
    async with httpx.AsyncClient(base_url=await serve(), trust_env=False) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=ASK | {"stream": stream}))
        await village.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(5):
            await village.let_go.wait()
    assert village.withdrawn == [village.prompts[0].id]


async def test_the_server_can_stop_while_prompts_run(serve, village):
    village.hold = asyncio.Event()
    async with httpx.AsyncClient(base_url=await serve(), trust_env=False) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=ASK))
        await village.asked.wait()
        village.hold.set()
        assert (await asking).status_code == 200


async def test_a_quiet_stream_is_kept_alive(serve, village):
    village.hold = asyncio.Event()
    lines = []
    async with (
        httpx.AsyncClient(base_url=await serve(keep_alive_s=0.01), trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as response,
    ):
        async for line in response.aiter_lines():
            lines.append(line)
            if len([line for line in lines if line.startswith(":")]) == 3:
                village.hold.set()
    assert lines[0].startswith(": ")
    assert "data: [DONE]" in lines


async def test_a_late_failure_after_a_beat_is_an_event(serve, village):
    village.hold, village.fail_late = asyncio.Event(), "engine_failed"
    async with (
        httpx.AsyncClient(base_url=await serve(keep_alive_s=0.01), trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as response,
    ):
        text = ""
        async for chunk in response.aiter_text():
            text += chunk
            village.hold.set()
    assert response.status_code == 200
    assert '"engine_failed"' in text
    assert "[DONE]" not in text


def test_a_taken_port_is_told():
    first = bind(ApiConfig(listen="127.0.0.1:0"))
    try:
        with pytest.raises(NodeError, match="--api"):
            bind(ApiConfig(listen=f"127.0.0.1:{first.getsockname()[1]}"))
        with pytest.raises(NodeError, match="--api"):
            bind(ApiConfig(listen="192.0.2.1:1", keys=("secret",)))
    finally:
        first.close()


def test_the_url_of_a_socket():
    listener = bind(ApiConfig(listen="0.0.0.0:0", keys=("secret",)))
    assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


BAD_CHUNK = b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize("host", [b"127.0.0.1", b"evil.example"])
async def test_a_request_that_turns_into_noise_is_answered_once_and_is_no_bug(serve, caplog, host):
    reader, writer = await asyncio.open_connection("127.0.0.1", int((await serve()).rpartition(":")[2]))
    writer.write(BAD_CHUNK % host)
    got = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert got.startswith(b"HTTP/1.1 400 ")
    assert got.count(b"HTTP/1.1") == 1
    assert "Exception" not in caplog.text


async def test_a_request_that_arrives_while_the_server_ends_is_answered(village, make_desk):
    config = ApiConfig(listen="127.0.0.1:0")
    listener = bind(config)
    server = make_server(create_app(village, config, "owner", make_desk(config)))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    port = int(url_of(listener).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not server.server_state.connections:  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0)
    server.should_exit = True
    while server.servers[0].is_serving():  # noqa: ASYNC110
        await asyncio.sleep(0)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    got = await reader.read()
    assert got.startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    await serving
