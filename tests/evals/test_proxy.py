"""The proxy over a real socket: what devices get from it is what a server would give them, paid for once."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import httpx
import pytest
from tests.evals.conftest import KEY

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn, Usage
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.engine.protocol import Done, Text
from folkmoot.errors import EngineError, EvalError, PromptTooLong
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.store import Speed

KEYED = {"authorization": f"Bearer {KEY}"}
BODY = {"messages": [{"role": "user", "content": "Two and two?"}], "max_tokens": 9, "seed": 5}


def inference(seed: int = 5) -> Inference:
    sampling = Sampling(9, 0.7, seed=seed, stop=("STOP",))
    return Inference(PromptId("0" * 32), (Turn("user", "Two and two?"),), sampling=sampling)


async def drain(engine: OpenAIEngine, seed: int = 5) -> tuple[str, Done]:
    words: list[str] = []
    async with aclosing(engine.generate(inference(seed))) as pieces:
        async for piece in pieces:
            if isinstance(piece, Done):
                return "".join(words), piece
            words.append(piece.text)
    raise AssertionError("no end")


@pytest.fixture
async def open_engine():
    made = []

    async def start(url: str, name: str = "m") -> OpenAIEngine:
        engine = OpenAIEngine(url, name, EngineConfig(api_key=KEY))
        made.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in made:
        await engine.close()


async def test_a_device_gets_what_the_model_wrote_and_the_second_time_from_the_store(
    model, store, serve_proxy, open_engine
):
    model.truncated = True
    proxy = Proxy("m", model, store)
    engine = await open_engine(await serve_proxy(proxy))
    first, done = await drain(engine)
    assert first == model.texts[0]
    assert (done.truncated, done.usage.tokens_in, done.usage.tokens_out) == (True, 20, 9)
    assert await drain(engine) != (first, None)
    assert (proxy.made, proxy.found, len(model.asked)) == (1, 1, 1)
    sampling = model.asked[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed, sampling.stop) == (9, 0.7, 5, ("STOP",))
    assert model.asked[0].conversation == (Turn("user", "Two and two?"),)
    kept = next(iter(store))
    assert (kept.text, kept.inference_s, kept.first_token_s) == (first, 1.5, 0.5)
    assert kept.request["model"] == "m"


async def test_it_lists_its_model_and_no_other(model, store, serve_proxy, open_engine):
    url = await serve_proxy(Proxy("m", model, store))
    with pytest.raises(EngineError, match="has no model 'n'; it has m"):
        await open_engine(url, "n")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (KEYED, 200),
        ({}, 401),
        ({"authorization": "Bearer another"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({**KEYED, "host": "evil.example"}, 403),
        ({**KEYED, "origin": "http://evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example", "content-type": "text/plain"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_who_has_the_key_of_the_run_is_answered_and_no_page_of_others(
    model, store, serve_proxy, headers, status: int, method: str
):
    url = await serve_proxy(Proxy("m", model, store))
    path = "/v1/models" if method == "GET" else "/v1/chat/completions"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        told = await client.request(method, path, content=json.dumps(BODY), headers=headers)
    assert told.status_code == status
    assert len(store) == len(model.asked) == (1 if (status, method) == (200, "POST") else 0)


async def test_where_the_store_fails_the_proxy_says_why(model, store, serve_proxy):
    proxy = Proxy("m", model, store)
    url = await serve_proxy(proxy)
    store._base.execute("PRAGMA query_only=1")
    async with httpx.AsyncClient(base_url=url, trust_env=False, headers=KEYED) as client:
        told = await client.post("/v1/chat/completions", json=BODY)
    assert (told.status_code, told.json()["error"]["code"]) == (500, "engine_error")
    assert "make room" in str(proxy.broken)
    with pytest.raises(EvalError, match="cannot be read or kept"):
        await proxy.call({**BODY, "seed": 6})


async def test_what_a_job_took_is_found_by_its_question_tokens_and_text(model, store):
    model.texts = ("4", "4", "So 4", "4")
    proxy, calls = Proxy("m", model, store), []
    for number, seconds in enumerate((1.0, 2.0, 3.0, 40.0)):
        model.usage = Usage(900 if number == 3 else 20, 0, 1, seconds, 0.5)
        calls.append(await proxy.call({**BODY, "seed": number}))
    one, two, longer, aggregate = calls
    assert proxy.took("Two and two?", (900, 1), "4") == aggregate
    assert proxy.took("Two and two?", (900, 1), None) == aggregate
    assert proxy.took("Two and two?", (20, 1), "4") == two
    assert (
        proxy.took("Two and two?", (20, 1), "4", {two.key}) == one
    )  # two drafts that say the same are two calls
    assert proxy.took("Two and two?", (20, 1), "So 4") == longer
    assert proxy.took("Two and two?", (20, 1), "what was shown of it") == longer
    assert proxy.took("Two and two?", (20, 2), "4") is None
    assert proxy.took("Ten less three?", (20, 1), "4") is None


async def test_two_that_ask_the_same_at_once_are_one_generation(model, store):
    model.free.clear()
    proxy = Proxy("m", model, store, at_once=2)
    calls = [asyncio.create_task(proxy.call({**BODY, "seed": seed})) for seed in (5, 5, 6)]
    await model.busy.wait()  # each of the three has come as far as it can by now
    assert proxy.found == 0
    model.free.set()
    one, same, _ = await asyncio.gather(*calls)
    assert one is same
    assert (len(model.asked), len(store), proxy.found) == (2, 2, 0)


async def test_so_they_are_over_a_socket(model, store, serve_proxy, open_engine):
    proxy = Proxy("m", model, store, at_once=2)
    engine = await open_engine(await serve_proxy(proxy))
    told = await asyncio.gather(*(drain(engine, seed) for seed in (5, 5, 6, 5)))
    assert len(model.asked) == len(store) == 2
    assert {text for text, _ in told} == {model.texts[0]}


async def test_no_more_are_generated_at_a_time_than_was_said_and_of_a_question_one(model, store):
    model.free.clear()
    proxy = Proxy("m", model, store, at_once=2)
    others = [[{"role": "user", "content": text}] for text in ("Three and three?", "Four and four?")]
    bodies = [{**BODY, "seed": seed} for seed in range(3)] + [{**BODY, "messages": each} for each in others]
    calls = [asyncio.create_task(proxy.call(body)) for body in bodies]
    await model.busy.wait()
    assert [each.conversation[0].content for each in model.asked] == ["Two and two?", "Three and three?"]
    model.free.set()
    await asyncio.gather(*calls)
    assert len(model.asked) == 5


async def test_what_a_client_that_went_away_had_asked_for_is_kept(model, store, serve_proxy):
    model.free.clear()
    proxy = Proxy("m", model, store)
    url = await serve_proxy(proxy)
    async with httpx.AsyncClient(base_url=url, trust_env=False, headers=KEYED) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
        await model.busy.wait()
        asking.cancel()
        await asyncio.wait([asking])
        again = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
        model.free.set()
        assert (await again).json()["choices"][0]["message"]["content"] == model.texts[0]
    assert (len(model.asked), len(store)) == (1, 1)


async def test_a_failure_that_nobody_waits_for_is_no_noise(model, store):
    """Warnings are errors here, also of a task whose exception nobody looked at."""
    model.free.clear()
    model.fail = EngineError("it broke")
    proxy = Proxy("m", model, store)
    asking = asyncio.create_task(proxy.call(BODY))
    await model.busy.wait()
    asking.cancel()
    await asyncio.wait([asking])
    model.free.set()
    await proxy.close()
    assert len(store) == 0


async def test_what_fails_is_no_answer_and_is_asked_again(model, store, serve_proxy, open_engine):
    proxy = Proxy("m", model, store)
    engine = await open_engine(await serve_proxy(proxy))
    model.fail = EngineError("the model broke")
    with pytest.raises(EngineError, match=r"answered 500: engine_error the model broke"):
        await drain(engine)
    model.fail = PromptTooLong("it has 9000 tokens")
    with pytest.raises(PromptTooLong, match="9000 tokens"):
        await drain(engine)
    model.fail = None
    assert (await drain(engine))[0]
    assert len(store) == 1


async def test_without_a_model_it_answers_what_is_stored(model, store, serve_proxy, open_engine):
    await Proxy("m", model, store).call({**BODY, "model": "m"})
    engine = await open_engine(await serve_proxy(Proxy("m", None, store)))
    with pytest.raises(EngineError, match="not in the store"):
        await drain(engine, 6)
    found = await Proxy("m", None, store).call({**BODY, "model": "m"})
    assert found.text == model.texts[0]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"a"', b"{}", b'{"messages": []}', b'{"messages": "hello"}', b'{"messages": [{"role": "user"}]}',
     b'{"messages": [{"role": "user", "content": 5}]}', b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": "x"}',
     b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
async def test_a_body_that_is_none_is_a_400(model, store, serve_proxy, body: bytes):
    url = await serve_proxy(Proxy("m", model, store))
    async with httpx.AsyncClient(base_url=url, trust_env=False, headers=KEYED) as client:
        told = await client.post("/v1/chat/completions", content=body)
    assert told.status_code == 400
    assert told.json()["error"]["code"] == "invalid"
    assert not model.asked


async def test_whole_or_streamed_it_is_the_same_answer(model, store, serve_proxy):
    url = await serve_proxy(Proxy("m", model, store))
    async with httpx.AsyncClient(base_url=url, trust_env=False, headers=KEYED) as client:
        whole = (await client.post("/v1/chat/completions", json={**BODY, "stop": "STOP"})).json()
        streamed = await client.post("/v1/chat/completions", json={**BODY, "stop": "STOP", "stream": True})
    assert model.asked[0].sampling.stop == ("STOP",)
    events = [json.loads(line[6:]) for line in streamed.text.split("\n\n")[:-2]]
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in events if each["choices"])
    assert text == whole["choices"][0]["message"]["content"] == model.texts[0]
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert (
        whole["usage"]
        == events[-1]["usage"]
        == {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}
    )


async def test_with_a_speed_it_takes_what_its_tokens_take(model, store):
    """20 tokens read at 10 a second, 9 written at 3."""
    body = {**BODY, "model": "m"}
    made = await Proxy("m", model, store).call(body)
    quiet = Proxy("m", None, store, speed=Speed(10.0, 3.0))
    found = await quiet.call(body)
    assert (found.first_token_s, found.inference_s) == (2.0, 5.0)
    assert quiet.took("Two and two?", (20, 9), found.text) == found
    assert replace(found, first_token_s=made.first_token_s, inference_s=made.inference_s) == made
    assert store.find(body) == made, "what is kept is what was measured"


async def test_with_pace_a_stored_answer_comes_in_pieces_that_make_it_up(
    model, store, serve_proxy, open_engine
):
    await Proxy("m", model, store).call(
        {**BODY, "model": "m", "temperature": 0.7, "top_p": 1.0, "stop": ["STOP"]}
    )
    engine = await open_engine(await serve_proxy(Proxy("m", None, store, pace=0.01)))
    pieces = [piece async for piece in engine.generate(inference())]
    words = [piece.text for piece in pieces if isinstance(piece, Text) and piece.text]
    assert "".join(words) == model.texts[0]
    assert len(words) > 3
    assert pieces[-1].usage.inference_s >= 0.01 * 1.5  # it took as long as it should, or longer
