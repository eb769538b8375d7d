from __future__ import annotations

import json

import pytest

from folkmoot.core.events import Plan
from folkmoot.core.gossip import Standing
from folkmoot.core.messages import Layout, Sampling, Turn

CHAT = "/v1/chat/completions"


def body(**more):
    return {"model": "moot", "messages": [{"role": "user", "content": "Why is the sky blue?"}], **more}


def events(text):
    """Each SSE event as (name, data)."""
    found = []
    for block in text.split("\n\n"):
        name, data = "", ""
        for line in block.splitlines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
        if data:
            found.append((name, data))
    return found


async def test_a_whole_answer_carries_its_sum_and_its_provenance(client):
    answer = (await client.post(CHAT, json=body())).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": "The sky is blue.",
        "refusal": None,
    }
    assert answer["choices"][0]["finish_reason"] == "stop"
    how = answer["folkmoot"]
    assert len(how["jobs"]) == 5
    assert answer["usage"]["prompt_tokens"] == sum(job["tokens_in"] for job in how["jobs"]) == 70
    assert answer["usage"]["completion_tokens"] == sum(job["tokens_out"] for job in how["jobs"]) == 31
    assert answer["usage"]["total_tokens"] == 101
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 36}
    assert answer["usage"]["completion_tokens_details"] == {"answer_tokens": 3, "reasoning_tokens": 28}
    assert how["final"] == {"prompt_tokens": 30, "cached_tokens": 20, "completion_tokens": 3}
    assert how["answer"] == "The sky is blue."
    assert how["jobs"][0].keys() >= {"layer", "stage", "device", "model", "outcome", "queued_s", "tokens_out"}
    assert "stands_in_for" not in how["jobs"][0]
    assert "error" not in how["jobs"][0]


@pytest.mark.parametrize("stop", [["Question:", "</s>", "<|im_end|>"], []])
async def test_what_lm_eval_sends_is_answered(client, village, stop):
    """As `lm-eval run --model local-chat-completions` of 0.4.13 writes it, with settings of its tasks that are none of OpenAI's."""
    asked = body(max_tokens=1280, temperature=0.0, stop=stop, seed=1234, top_k=1, repetition_penalty=1.1)
    response = await client.post(CHAT, json=asked)
    assert response.status_code == 200
    assert village.prompts[0].sampling == Sampling(
        max_tokens=1280, temperature=0.0, seed=1234, stop=tuple(stop)
    )


async def test_a_stream_tells_each_piece_and_ends_with_done(client, village):
    response = await client.post(CHAT, json=body(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    assert found[-1] == ("", "[DONE]")
    chunks = [json.loads(data) for _, data in found[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == ["The ", "sky ", "is blue."]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["folkmoot"]["origin"] == "ash"
    assert all("usage" not in chunk for chunk in chunks)
    assert village.prompts[0].stream
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_stream_tells_usage_where_asked(client):
    response = await client.post(CHAT, json=body(stream=True, stream_options={"include_usage": True}))
    chunks = [json.loads(data) for _, data in events(response.text)[:-1]]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 31


async def test_progress_comes_only_to_who_asked_for_it(client):
    plain = events((await client.post(CHAT, json=body(stream=True))).text)
    assert {name for name, _ in plain} == {""}
    asked = events((await client.post(CHAT, json=body(stream=True, folkmoot={"progress": True}))).text)
    progress = [json.loads(data) for name, data in asked if name == "folkmoot.progress"]
    assert progress[0] == {"type": "accepted", "id": progress[0]["id"], "layers": 1, "proposers": 3}
    assert {event["state"] for event in progress[1:]} == {"asked", "began", "writing", "ok"}


@pytest.mark.parametrize("stream", [False, True])
async def test_proposals_come_only_to_who_asked_for_them(client, stream):
    def jobs(response):
        if not stream:
            return response.json()["folkmoot"]["jobs"]
        return json.loads(events(response.text)[-2][1])["folkmoot"]["jobs"]

    plain = jobs(await client.post(CHAT, json=body(stream=stream)))
    assert not any("text" in job for job in plain)
    asked = jobs(await client.post(CHAT, json=body(stream=stream, folkmoot={"proposals": True})))
    assert [job.get("text") for job in asked] == [
        *(f"{name} says that it is blue." for name in ("ash", "birch", "cedar", "elm")),
        None,
    ]


async def test_the_token_limit_is_told(client, village):
    village.truncated = True
    answer = (await client.post(CHAT, json=body())).json()
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_sampling_and_text_parts_reach_the_core(client, village):
    await client.post(
        CHAT,
        json=body(
            messages=[
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
                },
            ],
            max_tokens=9,
            max_completion_tokens=7,
            temperature=0,
            top_p=0.5,
            seed=3,
            stop="END",
            ignore_eos=True,
            continuous_usage_stats=True,
        ),
    )
    prompt = village.prompts[0]
    assert prompt.conversation == (Turn("system", "Be brief."), Turn("user", "One\nTwo"))
    assert prompt.sampling == Sampling(7, 0.0, 0.5, 3, ("END",))
    await client.post(CHAT, json=body())
    assert village.prompts[1].sampling == Sampling()


@pytest.mark.parametrize(
    ("model", "own", "plan"),
    [
        ("moot", {}, Plan()),
        ("moot", {"deadline_s": 5}, Plan(deadline_s=5.0)),
        ("moot", {"layers": 2}, Plan("fixed", 2, None)),
        ("moot", {"proposers": 2}, Plan("fixed", 1, 2)),
        ("moot", {"layers": 0}, Plan("fixed", 0, 0)),
        ("moot", {"layers": 1, "proposers": 0}, Plan("fixed", 1, 0)),
        ("moot", {"mode": "fixed"}, Plan("fixed", 1, None)),
        ("moot", {"mode": "local"}, Plan("local", 0, 0)),
        ("moot", {"private": True}, Plan("local", 0, 0, private=True)),
        ("moot", {"proposers": 1, "layout": "system-first"}, Plan("fixed", 1, 1, layout=Layout.SYSTEM_FIRST)),
        ("moot", {"private": False, "quorum": 2, "proposers": 1}, Plan("fixed", 1, 1, quorum=2)),
        (
            "moot",
            {"layers": 3, "select": "fixed:birch+cedar", "aggregator": "fixed:elm"},
            Plan("fixed", 3, 2, ("birch", "cedar"), "fixed:elm"),
        ),
        ("moot", {"layers": 2, "keep": 2}, Plan("fixed", 2, None, keep=2)),
        ("moot-M2-k2", {"keep": 3, "early_stop": True}, Plan("fixed", 2, 2, keep=3, early_stop=True)),
        ("moot", {"early_stop": False}, Plan()),
        ("moot-M2-k2", {}, Plan("fixed", 2, 2)),
        ("moot-M3", {}, Plan("fixed", 3, None)),
        ("moot-M2-k2", {"proposers": 1}, Plan("fixed", 2, 1)),
        ("moot-fast", {}, Plan("fixed", 1, 1)),
        ("moot-private", {}, Plan("local", 0, 0, private=True)),
        ("local", {}, Plan("local", 0, 0)),
        ("ash", {}, Plan("local", 0, 0)),
        ("birch", {}, Plan("fixed", 0, 0, aggregator="fixed:" + "b" * 64)),
        ("b" * 64, {}, Plan("fixed", 0, 0, aggregator="fixed:" + "b" * 64)),
    ],
)
async def test_a_model_and_own_parameters_make_a_plan(client, village, model, own, plan):
    response = await client.post(CHAT, json=body(model=model, folkmoot=own))
    assert response.status_code == 200, response.text
    assert village.prompts[0].plan == plan


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"folkmoot": {"mode": "slow"}}, "folkmoot.mode: 'slow' is none of auto, fixed, local"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].role: 'tool' is none of assistant, developer, system, user",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url"}]}
                ]
            },
            "messages[0].content[1].type: 'image_url' is none of text; only text can be read, so leave images, audio "
            "and files out",
        ),
    ],
)
async def test_a_word_that_is_none_of_a_few_is_told_which_there_are(client, village, wrong, said):
    response = await client.post(CHAT, json=body() | wrong)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == said
    assert village.prompts == []


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"model": 3}, "model"),
        ({"n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 131_073}, "max_tokens"),  # more than the wire takes to a peer
        ({"messages": [{"role": "user", "content": "x"}] * 1_001}, "messages"),
        ({"stop": "a" * 257}, "stop"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 10**30}, "seed"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 3}}, "stream_options.include_usage"),
        ({"folkmoot": []}, "folkmoot"),
        ({"folkmoot": {"layers": -1}}, "folkmoot.layers"),
        ({"folkmoot": {"layers": True}}, "folkmoot.layers"),
        ({"folkmoot": {"proposers": "3"}}, "folkmoot.proposers"),
        ({"folkmoot": {"mode": "fast"}}, "folkmoot.mode"),
        ({"folkmoot": {"aggregator": "best"}}, "folkmoot.aggregator"),
        ({"folkmoot": {"aggregator": "fixed:"}}, "folkmoot.aggregator"),
        ({"folkmoot": {"select": "best-of:0"}}, "folkmoot.select"),
        ({"folkmoot": {"select": "best-of:two"}}, "folkmoot.select"),
        ({"folkmoot": {"select": "best-of:2", "proposers": 3}}, "folkmoot.select"),
        ({"folkmoot": {"select": "best-of:2", "mode": "local"}}, "folkmoot.mode"),
        ({"folkmoot": {"select": "fixed:birch+birch"}}, "folkmoot.select"),
        ({"folkmoot": {"select": "fixed:birch+"}}, "folkmoot.select"),
        ({"folkmoot": {"select": "fixed:birch", "proposers": 2}}, "folkmoot.select"),
        ({"folkmoot": {"deadline_s": 0.01}}, "folkmoot.deadline_s"),
        ({"folkmoot": {"private": "yes"}}, "folkmoot.private"),
        ({"folkmoot": {"private": True, "layers": 1}}, "folkmoot.private"),
        ({"folkmoot": {"private": True, "aggregator": "fixed:elm"}}, "folkmoot.private"),
        ({"folkmoot": {"quorum": 0}}, "folkmoot.quorum"),
        ({"folkmoot": {"layout": "sideways"}}, "folkmoot.layout"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "messages"),
        ({"folkmoot": {"quorum": 4, "proposers": 2}}, "folkmoot.quorum"),
        ({"folkmoot": {"keep": 0, "layers": 1}}, "folkmoot.keep"),
        ({"folkmoot": {"keep": 66, "layers": 1}}, "folkmoot.keep"),
        ({"folkmoot": {"keep": 4, "proposers": 2}}, "folkmoot.keep"),
        ({"folkmoot": {"keep": 2}}, "folkmoot.keep"),
        ({"folkmoot": {"keep": 1, "layers": 0}}, "folkmoot.keep"),
        ({"folkmoot": {"early_stop": 1, "layers": 1}}, "folkmoot.early_stop"),
        ({"folkmoot": {"early_stop": True, "mode": "auto"}}, "folkmoot.early_stop"),
        ({"folkmoot": {"early_stop": True, "mode": "local"}}, "folkmoot.early_stop"),
        ({"folkmoot": {"early_stop": True, "private": True}}, "folkmoot.early_stop"),
        ({"folkmoot": {"mode": "auto", "layers": 1}}, "folkmoot.mode"),
        ({"folkmoot": {"mode": "local", "layers": 1}}, "folkmoot.mode"),
        ({"folkmoot": {"layers": 0, "proposers": 2}}, "folkmoot.proposers"),
    ],
)
async def test_a_wrong_field_is_named(client, village, wrong, param):
    response = await client.post(CHAT, json=body() | wrong)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["code"] == "invalid"
    assert error["type"] == "invalid_request_error"
    assert param.split("[")[0].split(".")[-1] in error["message"]
    assert village.prompts == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"\xff\xfe",
        b'{"model": "moot"}',
        b'{"model": "moot", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
async def test_malformed_bodies_are_400(client, content):
    response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid"


@pytest.mark.parametrize(
    "text", [r"\ud800", r"so \uD83D it goes", r"\udc00", r"\ud83d\u0041", r"\ud83d\ud83d\ude00"]
)
async def test_half_a_character_is_told_as_such(client, text):
    content = f'{{"model": "moot", "messages": [{{"role": "user", "content": "{text}"}}]}}'
    response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "half of a surrogate pair" in response.json()["error"]["message"]


async def test_a_whole_pair_is_a_character(client, village):
    content = r'{"model": "moot", "messages": [{"role": "user", "content": "\ud83d\ude00"}]}'
    response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 200
    assert village.prompts[0].conversation[0].content == "😀"


async def test_a_body_that_ends_too_early_is_told_as_such(client):
    response = await client.post(
        CHAT, content=b'{"model": "\\ud83d\\ude00', headers={"content-type": "application/json"}
    )
    assert "not JSON" in response.json()["error"]["message"]


async def test_null_means_the_default(client, village):
    nothing = dict.fromkeys(("max_tokens", "temperature", "top_p", "seed", "stop", "stream", "n", "folkmoot"))
    assert (await client.post(CHAT, json=body(**nothing))).status_code == 200
    assert village.prompts[0].sampling == Sampling()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid", 400),
        ("unknown_model", 404),
        ("too_long", 413),
        ("overloaded", 429),
        ("no_device", 503),
        ("deadline", 504),
        ("engine_failed", 500),
        ("never heard of", 500),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_prompt_has_its_status(client, village, code, status, stream):
    village.fail, village.queue = code, 3
    response = await client.post(CHAT, json=body(stream=stream))
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.headers.get("retry-after") == ("8" if status == 429 else None)
    assert village.withdrawn == []


async def test_a_failure_in_mid_stream_is_an_error_event_without_done(client, village):
    village.fail_late = "answer_cut"
    response = await client.post(CHAT, json=body(stream=True))
    assert response.status_code == 200
    found = events(response.text)
    assert json.loads(found[-1][1])["error"]["code"] == "answer_cut"
    assert "[DONE]" not in response.text


@pytest.mark.parametrize("model", ["gpt-9", "moot-", "moot-M1-k", "moot-M1-k2-x", "MOOT", ""])
async def test_an_unknown_model_is_404(client, model):
    response = await client.post(CHAT, json=body(model=model))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_model"


@pytest.mark.parametrize(("model", "param"), [("moot-M99-k3", "layers"), ("moot-M1-k999", "proposers")])
async def test_a_fixed_name_out_of_range_is_400(client, model, param):
    response = await client.post(CHAT, json=body(model=model))
    assert response.status_code == 400
    assert param in response.json()["error"]["message"]


async def test_two_devices_of_one_name_must_be_told_apart(client, village, make_member):
    village.members.append(make_member("e", "birch"))
    response = await client.post(CHAT, json=body(model="birch"))
    assert response.status_code == 404
    assert "birch~bbbbbb, birch~eeeeee" in response.json()["error"]["message"]
    assert (await client.post(CHAT, json=body(model="birch~eeeeee"))).status_code == 200
    assert village.prompts[0].plan == Plan("fixed", 0, 0, aggregator="fixed:" + "e" * 64)


async def test_a_dead_device_is_no_model(client, village, make_member):
    village.members.append(make_member("e", "fir", standing=Standing.DEAD))
    assert (await client.post(CHAT, json=body(model="fir"))).status_code == 404


async def test_the_hops_of_a_request_reach_the_core(client, village):
    await client.post(CHAT, json=body(folkmoot={"layers": 2}), headers={"X-Folkmoot-Hops": "1"})
    await client.post(CHAT, json=body())
    assert [prompt.hops for prompt in village.prompts] == [1, 0]
    response = await client.post(CHAT, json=body(), headers={"X-Folkmoot-Hops": "-1"})
    assert response.status_code == 400
