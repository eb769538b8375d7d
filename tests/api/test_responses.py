from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace

import httpx
import openai
import pytest
from tests.api.test_chat import events

from folkmoot.api import ApiConfig, create_app
from folkmoot.api.keys import Keys
from folkmoot.api.privacy import PrivacyConfig
from folkmoot.api.schema import Own
from folkmoot.core.events import AnswerText
from folkmoot.errors import JournalError
from folkmoot.node import journal as journals

RESPONSES = "/v1/responses"
WORDS = "The sky is blue."


def body(**more):
    return {"model": "moot", "input": "Why is the sky blue?", **more}


async def ended(client, name, headers=None):
    """A response once it has ended."""
    async with asyncio.timeout(20):
        while True:
            told = (await client.get(f"{RESPONSES}/{name}", headers=headers)).json()
            if told["status"] not in ("queued", "in_progress"):
                return told


def rows(tmp_path):
    with sqlite3.connect(tmp_path / journals.FILE) as db:
        found = db.execute("SELECT id, response FROM responses ORDER BY created, rowid").fetchall()
    db.close()
    return found


# ---- in the foreground -----------------------------------------------------------------------------


async def test_a_whole_answer(client):
    told = (await client.post(RESPONSES, json=body(metadata={"for": "tea"}))).json()
    assert told["object"] == "response"
    assert told["status"] == "completed"
    [item] = told["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert [part["text"] for part in item["content"]] == [WORDS]
    assert told["usage"]["input_tokens"] == sum(job["tokens_in"] for job in told["folkmoot"]["jobs"]) == 70
    assert told["usage"]["output_tokens_details"] == {"answer_tokens": 3, "reasoning_tokens": 28}
    assert told["metadata"] == {"for": "tea"}
    assert told["background"] is False
    assert (await client.get(f"{RESPONSES}/{told['id']}")).json() == told


async def test_what_is_not_to_be_stored_is_not(client, tmp_path):
    told = (await client.post(RESPONSES, json=body(store=False))).json()
    assert told["store"] is False
    assert (await client.get(f"{RESPONSES}/{told['id']}")).status_code == 404
    assert not (tmp_path / journals.FILE).exists() or rows(tmp_path) == []


async def test_instructions_and_a_conversation_reach_the_core(client, village):
    first = (await client.post(RESPONSES, json=body())).json()
    talk = [
        {"role": "developer", "content": "Be exact."},
        {"role": "user", "content": [{"type": "input_text", "text": "Why?"}]},
        *first["output"],
        {"role": "user", "content": "And at night?"},
    ]
    more = {"instructions": "Be brief.", "max_output_tokens": 7, "temperature": 0, "top_p": 0.5}
    assert (await client.post(RESPONSES, json=body(input=talk, **more))).status_code == 200
    prompt = village.prompts[-1]
    assert [(turn.role, turn.content) for turn in prompt.conversation] == [
        ("system", "Be brief."),
        ("system", "Be exact."),
        ("user", "Why?"),
        ("assistant", WORDS),
        ("user", "And at night?"),
    ]
    assert (prompt.sampling.max_tokens, prompt.sampling.temperature, prompt.sampling.top_p) == (7, 0.0, 0.5)


async def test_an_answer_at_its_limit_is_incomplete(client, village):
    village.truncated = True
    told = (await client.post(RESPONSES, json=body())).json()
    assert told["status"] == "incomplete"
    assert told["incomplete_details"] == {"reason": "max_output_tokens"}
    assert told["output"][0]["status"] == "incomplete"


async def test_a_stream_tells_each_step_in_order(client):
    response = await client.post(RESPONSES, json=body(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [(name, json.loads(data)) for name, data in events(response.text)]
    assert [name for name, _ in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [data["type"] for _, data in found] == [name for name, _ in found]
    assert [data["sequence_number"] for _, data in found] == list(range(11))
    assert "".join(data["delta"] for name, data in found if name.endswith("delta")) == WORDS
    last = found[-1][1]["response"]
    assert found[0][1]["response"]["id"] == last["id"]
    assert (await client.get(f"{RESPONSES}/{last['id']}")).json() == last


async def test_a_failure_in_mid_stream_ends_as_failed_and_is_kept(client, village):
    village.fail_late = "answer_cut"
    found = events((await client.post(RESPONSES, json=body(stream=True))).text)
    assert found[-1][0] == "response.failed"
    last = json.loads(found[-1][1])["response"]
    assert last["error"] == {"code": "answer_cut", "message": "told to fail late"}
    assert (await client.get(f"{RESPONSES}/{last['id']}")).json()["status"] == "failed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_word_is_a_status(client, village, stream):
    village.fail, village.queue = "overloaded", 3
    response = await client.post(RESPONSES, json=body(stream=stream))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "8"


async def test_a_stream_whose_client_goes_away_is_recorded_as_cancelled(serve, village, monkeypatch):
    async def begin(prompt):
        yield AnswerText(prompt.id, "The ")
        await asyncio.Event().wait()

    monkeypatch.setattr(village, "ask", begin)
    async with httpx.AsyncClient(base_url=await serve(), trust_env=False) as client:
        async with client.stream("POST", RESPONSES, json=body(stream=True)) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and '"response.created"' in line:
                    name = json.loads(line[6:])["response"]["id"]
                    break
        async with asyncio.timeout(20):
            while (reply := await client.get(f"{RESPONSES}/{name}")).status_code == 404:
                pass
    assert reply.json()["status"] == "cancelled"
    assert reply.json()["background"] is False


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "role": "user", "content": "x"}]}, "input[0].type"),
        ({"model": 3}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"background": "yes"}, "background"),
        ({"background": True, "stream": True}, "stream"),
        ({"background": True, "store": False}, "store"),
        ({"background": True, "folkmoot": {"layers": -1}}, "folkmoot.layers"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"metadata": {"a": 3}}, "metadata[...]"),
    ],
)
async def test_a_wrong_field_is_named(client, village, wrong, param):
    response = await client.post(RESPONSES, json=body() | wrong)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert village.prompts == []


async def test_an_unknown_model_is_404(client):
    assert (await client.post(RESPONSES, json=body(model="gpt-9", background=True))).status_code == 404


# ---- in the background -----------------------------------------------------------------------------


async def test_a_background_prompt_is_on_disk_before_it_is_acknowledged(client, village, tmp_path):
    village.hold = asyncio.Event()
    told = (await client.post(RESPONSES, json=body(background=True))).json()
    assert told["status"] == "queued"
    assert told["background"] is True
    assert rows(tmp_path) == [(told["id"], None)]
    await village.asked.wait()
    assert (await client.get(f"{RESPONSES}/{told['id']}")).json()["status"] == "in_progress"
    village.hold.set()
    answer = await ended(client, told["id"])
    assert answer["status"] == "completed"
    assert answer["output"][0]["content"][0]["text"] == WORDS
    assert answer["created_at"] == told["created_at"]
    [(name, kept)] = rows(tmp_path)
    assert json.loads(kept) == answer
    assert not village.prompts[0].stream


async def test_what_was_not_answered_is_answered_after_the_next_start(connect, village, make_desk):
    village.hold = asyncio.Event()
    first = connect()
    names = [(await first.post(RESPONSES, json=body(background=True))).json()["id"] for _ in range(3)]
    async with asyncio.timeout(20):
        while len(village.prompts) < 3:
            await first.get(f"{RESPONSES}/{names[0]}")
    village.prompts.clear()
    village.hold = None
    second = connect()  # the same journal, opened by another desk: the first one's answers come too late
    answers = [await ended(second, name) for name in names]
    assert [answer["status"] for answer in answers] == ["completed"] * 3
    assert len(village.prompts) == 3
    third = connect()
    assert [(await third.get(f"{RESPONSES}/{name}")).json() for name in names] == answers
    assert len(village.prompts) == 3, "what has ended is never put to the moot again"


def notes(tmp_path):
    with sqlite3.connect(tmp_path / journals.FILE) as db:
        found = [note for (note,) in db.execute("SELECT note FROM notes ORDER BY rowid")]
    db.close()
    return found


async def noted(client, name, tmp_path, count):
    """So many steps of a prompt are on disk."""
    async with asyncio.timeout(20):
        while len(notes(tmp_path)) < count:
            await client.get(f"{RESPONSES}/{name}")


async def test_what_an_earlier_try_has_got_goes_with_the_next(connect, village, tmp_path):
    village.hold = asyncio.Event()
    first = connect()
    name = (await first.post(RESPONSES, json=body(model="moot-M2-k3", background=True))).json()["id"]
    await noted(first, name, tmp_path, 8)
    assert village.prompts[0].headway is None
    village.hold = None
    second = connect()  # as after a kill
    assert (await ended(second, name))["status"] == "completed"
    past = village.prompts[1].headway
    assert (past.layers, past.proposers, past.layer) == (2, 3, 2)
    assert [(p.layer, p.slot, p.device.name) for p in past.proposals] == [
        (layer, slot, peer) for layer in (1, 2) for slot, peer in enumerate(("ash", "birch", "cedar", "elm"))
    ]
    assert past.proposals[1].text == "birch says that it is blue."
    assert past.proposals[1].usage.tokens_out == 7
    assert len(past.asked) == 6
    assert past.asked[0].job == f"{village.prompts[0].id}.1.1.0"
    assert notes(tmp_path) == []


async def test_a_try_that_fails_leaves_what_it_has_got(client, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 0.0)
    village.fail_late = "overloaded"
    name = (await client.post(RESPONSES, json=body(model="moot-M1-k3", background=True))).json()["id"]
    async with asyncio.timeout(20):
        while len(village.prompts) < 2:
            await client.get(f"{RESPONSES}/{name}")
    village.fail_late = ""
    assert (await ended(client, name))["status"] == "completed"
    assert len(village.prompts[1].headway.proposals) == 4
    assert village.prompts[1].headway.asked == (), "they were taken back"


async def test_notes_that_cannot_be_read_are_done_without(connect, village, tmp_path):
    village.hold = asyncio.Event()
    first = connect()
    name = (await first.post(RESPONSES, json=body(model="moot-M1-k3", background=True))).json()["id"]
    await noted(first, name, tmp_path, 4)
    with sqlite3.connect(tmp_path / journals.FILE) as db:
        db.execute("UPDATE notes SET note = ? WHERE rowid = 2", (b'{"of": "another version"}',))
    db.close()
    village.hold = None
    assert (await ended(connect(), name))["status"] == "completed"
    assert [p.slot for p in village.prompts[1].headway.proposals] == [0]


@pytest.fixture
async def naming(connect, village, tmp_path, monkeypatch):
    """A prompt that names two peers, cut off before any answer was kept."""
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 0.0)
    village.hold = asyncio.Event()
    first = connect()
    asked = body(background=True, folkmoot={"layers": 1, "select": "fixed:birch+cedar"})
    name = (await first.post(RESPONSES, json=asked)).json()["id"]
    await noted(first, name, tmp_path, 3)
    with sqlite3.connect(tmp_path / journals.FILE) as db:
        db.execute("DELETE FROM notes")
    db.close()
    village.hold = None
    return name


async def test_whom_a_prompt_names_is_waited_for_until_it_has_a_model(connect, village, naming):
    birch = village.members[1]
    village.members[1] = replace(birch, card=replace(birch.card, model=""))
    second = connect()
    for _ in range(20):
        assert (await second.get(f"{RESPONSES}/{naming}")).json()["status"] in ("queued", "in_progress")
    assert len(village.prompts) == 1
    village.members[1] = birch
    assert (await ended(second, naming))["status"] == "completed"


async def test_whom_a_prompt_names_is_not_waited_for_for_ever(connect, village, naming):
    del village.members[1]
    assert (await ended(connect(background_wait_s=0.01), naming))["status"] == "completed"
    assert len(village.prompts) == 2


async def test_cancelling_takes_the_prompt_back_and_is_final(client, village):
    village.hold = asyncio.Event()
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    await village.asked.wait()
    told = (await client.post(f"{RESPONSES}/{name}/cancel")).json()
    assert told["status"] == "cancelled"
    async with asyncio.timeout(5):
        await village.let_go.wait()
    assert village.withdrawn == [village.prompts[0].id]
    village.hold.set()
    for _ in range(2):
        assert (await client.post(f"{RESPONSES}/{name}/cancel")).json() == told
    assert (await client.get(f"{RESPONSES}/{name}")).json() == told


async def test_cancelling_what_has_ended_changes_nothing(client):
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    answer = await ended(client, name)
    assert (await client.post(f"{RESPONSES}/{name}/cancel")).json() == answer


async def test_only_the_background_is_cancelled(client):
    name = (await client.post(RESPONSES, json=body())).json()["id"]
    assert (await client.post(f"{RESPONSES}/{name}/cancel")).status_code == 400


async def test_deleting_takes_it_back_and_leaves_nothing(client, village, tmp_path):
    village.hold = asyncio.Event()
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    await village.asked.wait()
    told = (await client.delete(f"{RESPONSES}/{name}")).json()
    assert told == {"id": name, "object": "response.deleted", "deleted": True}
    async with asyncio.timeout(5):
        await village.let_go.wait()
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        assert (await client.request(method, f"{RESPONSES}/{name}{path}")).status_code == 404
    assert rows(tmp_path) == []


async def test_a_retry_with_its_key_is_the_same_response(client, village):
    headers = {"idempotency-key": "once"}
    first = (await client.post(RESPONSES, json=body(background=True), headers=headers)).json()
    answer = await ended(client, first["id"])
    again = await client.post(RESPONSES, json=body(background=True), headers=headers)
    assert again.json() == answer
    assert len(village.prompts) == 1
    other = await client.post(RESPONSES, json=body(background=True, input="And why green?"), headers=headers)
    assert other.status_code == 400
    assert "Idempotency-Key" in other.json()["error"]["message"]
    long = await client.post(RESPONSES, json=body(background=True), headers={"idempotency-key": "x" * 257})
    assert long.status_code == 400


async def test_a_failure_is_an_end_with_its_code(client, village):
    village.fail = "engine_failed"
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    told = await ended(client, name)
    assert told["status"] == "failed"
    assert told["error"] == {"code": "engine_failed", "message": "told to fail"}
    assert told["output"] == []


async def test_a_full_moot_is_asked_again(client, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 0.0)
    village.fail = "overloaded"
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    async with asyncio.timeout(20):
        while len(village.prompts) < 3:
            await client.get(f"{RESPONSES}/{name}")
    village.fail = ""
    assert (await ended(client, name))["status"] == "completed"


async def test_its_own_deadline_ends_the_asking(client, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 0.0)
    village.fail = "no_device"
    asked = body(background=True, folkmoot={"deadline_s": 0.3})
    name = (await client.post(RESPONSES, json=asked)).json()["id"]
    told = await ended(client, name)
    assert told["error"]["code"] == "deadline"
    assert all(0.05 <= prompt.plan.deadline_s <= 0.3 for prompt in village.prompts)


async def test_a_deadline_ends_the_waiting_however_late_the_moot_wants_it_again(client, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 3_600.0)
    village.fail = "overloaded"
    asked = body(background=True, folkmoot={"deadline_s": 0.3})
    name = (await client.post(RESPONSES, json=asked)).json()["id"]
    told = await ended(client, name)
    assert told["error"]["code"] == "deadline"
    assert len(village.prompts) == 1


async def test_a_presets_deadline_ends_the_waiting_too(connect, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 3_600.0)
    village.fail = "overloaded"
    client = connect(presets={"moot-hasty": Own(deadline_s=0.3)})
    name = (await client.post(RESPONSES, json=body(background=True, model="moot-hasty"))).json()["id"]
    assert (await ended(client, name))["error"]["code"] == "deadline"


async def test_a_deadline_that_passes_before_there_is_a_seat_ends_it(connect, village):
    village.hold = asyncio.Event()
    client = connect(background_prompts=1)
    first = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    asked = body(background=True, folkmoot={"deadline_s": 0.3})
    second = (await client.post(RESPONSES, json=asked)).json()["id"]
    assert (await ended(client, second))["error"]["code"] == "deadline"
    assert len(village.prompts) == 1
    village.hold.set()
    assert (await ended(client, first))["status"] == "completed"


async def test_a_deadline_that_is_later_than_the_wait_counts(connect, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 0.0)
    village.fail = "no_device"
    client = connect(background_wait_s=0.001)
    asked = body(background=True, folkmoot={"deadline_s": 0.5})
    name = (await client.post(RESPONSES, json=asked)).json()["id"]
    assert (await ended(client, name))["error"]["code"] == "deadline"


async def test_so_long_is_tried_and_no_longer(connect, village, monkeypatch):
    monkeypatch.setattr("folkmoot.api.desk.AGAIN_S", 0.0)
    village.fail = "no_device"
    client = connect(background_wait_s=0.01)
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    assert (await ended(client, name))["error"]["code"] == "no_device"


async def test_so_many_are_put_to_the_moot_at_a_time(connect, village):
    village.hold = asyncio.Event()
    client = connect(background_prompts=2)
    names = [(await client.post(RESPONSES, json=body(background=True))).json()["id"] for _ in range(5)]
    async with asyncio.timeout(20):
        while len(village.prompts) < 2:
            await client.get(f"{RESPONSES}/{names[0]}")
    states = [(await client.get(f"{RESPONSES}/{name}")).json()["status"] for name in names]
    assert sorted(states) == ["in_progress"] * 2 + ["queued"] * 3
    assert len(village.prompts) == 2
    village.hold.set()
    assert {(await ended(client, name))["status"] for name in names} == {"completed"}


async def test_no_key_waits_behind_anothers_many(connect, village):
    village.hold = asyncio.Event()
    client = connect(background_prompts=2, keys=("greedy", "modest"))
    greedy, modest = ({"authorization": f"Bearer {key}"} for key in ("greedy", "modest"))

    async def ask(headers):
        return (await client.post(RESPONSES, json=body(background=True), headers=headers)).json()["id"]

    many = [await ask(greedy) for _ in range(4)]
    one = await ask(modest)
    async with asyncio.timeout(20):
        told = {}
        while told.get("status") != "in_progress":
            told = (await client.get(f"{RESPONSES}/{one}", headers=modest)).json()
    assert len(village.prompts) <= 2
    village.hold.set()
    assert {(await ended(client, name, greedy))["status"] for name in many} == {"completed"}


async def test_a_bug_at_one_prompt_is_told_and_the_next_is_answered(client, village, monkeypatch, caplog):
    async def broken(prompt):
        raise RuntimeError("a secret of the prompt")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(village, "ask", broken)
        name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
        told = await ended(client, name)
    assert told["error"]["code"] == "internal"
    assert "secret" not in told["error"]["message"]
    assert "RuntimeError" in caplog.text
    assert "a secret of the prompt" not in caplog.text.replace('RuntimeError("a secret of the prompt")', "")
    name = (await client.post(RESPONSES, json=body(background=True))).json()["id"]
    assert (await ended(client, name))["status"] == "completed"


# ---- whose it is -----------------------------------------------------------------------------------


async def test_a_response_is_its_keys_alone(connect, control):
    client = connect(keys=("one", "two"))
    mine, other, owner = ({"authorization": f"Bearer {key}"} for key in ("one", "two", control))
    name = (await client.post(RESPONSES, json=body(background=True), headers=mine)).json()["id"]
    await ended(client, name, mine)
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        told = await client.request(method, f"{RESPONSES}/{name}{path}", headers=other)
        assert told.status_code == 404
        assert told.json()["error"]["code"] == "not_found"
    assert (await client.get(f"{RESPONSES}/{name}", headers=owner)).status_code == 200
    assert (await client.get(f"{RESPONSES}/{name}")).status_code == 401
    assert (await client.delete(f"{RESPONSES}/{name}", headers=mine)).status_code == 200


async def test_a_response_of_a_key_that_has_a_name(village, control, make_desk, tmp_path):
    keys = Keys(tmp_path / "home")
    (tmp_path / "home").mkdir()
    config = ApiConfig(privacy=PrivacyConfig(keys=("phone",)))
    app = create_app(village, config, control, make_desk(config), keys)
    phone, laptop = ({"authorization": f"Bearer {keys.add(name, 0.0)}"} for name in ("phone", "laptop"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        name = (await client.post(RESPONSES, json=body(background=True), headers=phone)).json()["id"]
        assert (await ended(client, name, phone))["status"] == "completed"
        assert (await client.get(f"{RESPONSES}/{name}", headers=laptop)).status_code == 404
    assert village.prompts[0].plan.private, "what holds of a key holds in the background as well"


async def test_keys_are_in_no_file(connect, tmp_path):
    client = connect(keys=("a-key-of-some-length",))
    headers = {"authorization": "Bearer a-key-of-some-length", "idempotency-key": "a-retry-of-some-length"}
    name = (await client.post(RESPONSES, json=body(background=True), headers=headers)).json()["id"]
    await ended(client, name, headers)
    for path in tmp_path.glob(f"{journals.FILE}*"):
        assert b"of-some-length" not in path.read_bytes()


# ---- a journal in trouble --------------------------------------------------------------------------


async def test_without_a_journal_the_background_is_refused_and_the_rest_goes_on(connect, tmp_path, caplog):
    (tmp_path / journals.FILE).write_bytes(b"no database at all" * 500)
    client = connect()
    for _ in range(2):
        refused = await client.post(RESPONSES, json=body(background=True))
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == JournalError.code
        assert str(tmp_path) not in refused.text
    told = (await client.post(RESPONSES, json=body())).json()
    assert told["status"] == "completed"
    assert told["store"] is False, "it could not be kept, and says so"
    assert (await client.get(f"{RESPONSES}/{told['id']}")).status_code == 503
    assert (await client.get("/healthz")).json() == {"status": "ready", "journal": "damaged"}
    assert caplog.text.count("is set aside") == 1
    assert "sky" not in caplog.text


# ---- the official client ---------------------------------------------------------------------------


async def test_the_official_client(serve):
    async with openai.AsyncOpenAI(base_url=f"{await serve()}/v1", api_key="any") as client:
        whole = await client.responses.create(model="moot", input="Why is the sky blue?")
        assert whole.output_text == WORDS
        assert whole.usage.total_tokens == 101
        stream = await client.responses.create(model="moot", input="Why?", stream=True)
        seen = [event async for event in stream]
        assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == WORDS
        assert seen[-1].response.output_text == WORDS
        async with client.responses.stream(model="moot", input="Why?") as managed:
            assert (await managed.get_final_response()).output_text == WORDS


async def test_the_official_client_in_the_background(serve, village):
    async with openai.AsyncOpenAI(base_url=f"{await serve()}/v1", api_key="any") as client:
        told = await client.responses.create(
            model="moot", input="Why?", background=True, extra_headers={"Idempotency-Key": "x"}
        )
        assert told.status == "queued"
        async with asyncio.timeout(20):
            while told.status in ("queued", "in_progress"):
                told = await client.responses.retrieve(told.id)
        assert told.output_text == WORDS
        assert (await client.responses.cancel(told.id)).status == "completed"
        await client.responses.delete(told.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(told.id)
