"""A run against a real API: what is asked, what is kept of it, and what is not asked again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from folkmoot.api.config import ApiConfig
from folkmoot.api.server import bind, make_server, url_of
from folkmoot.core.layout import SYSTEM_PROMPT
from folkmoot.core.messages import Usage
from folkmoot.core.mixture import seed_of
from folkmoot.errors import EngineError, EvalError, NodeError, PromptTooLong
from folkmoot.evals.arms import Arm, arms_of
from folkmoot.evals.draws import draw, seed_for
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.records import LINES, Records
from folkmoot.evals.run import GIVES_UP, Device, Moot, body_of, run
from folkmoot.evals.tasks import Open, Task, load

DRAFT = "It is four.\nAnswer: 4"
NAMES = ("ash", "birch", "cedar", "elm")


@dataclass
class Api:
    """A device's API as far as a run asks it: each answer is `said`, or an error."""

    said: str = "It is four.\nAnswer: 4"
    error: str = ""
    decided: str = "k = 0"
    outcome: str = "ok"
    aggregates: Proxy | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.complete, methods=["POST"])])

    async def complete(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.aggregates is not None:
            shown = f"{body['messages'][0]['content']}\n\nSome drafts: …"
            await self.aggregates.call({"model": "m", "messages": [{"role": "user", "content": shown}]})
        if self.error:
            return JSONResponse({"error": {"code": self.error, "message": "no"}}, 503)
        job = {
            "layer": 1, "stage": "propose", "device": "ash", "model": "m", "outcome": self.outcome, "queued_s": 0.25,
            "inference_s": 0.01, "first_token_s": 0.01, "tokens_in": 20, "tokens_cached": 0, "tokens_out": 9,
        }  # fmt: skip
        told = {
            "answer": self.said, "latency_s": 0.02, "rounds": [{"layer": 1, "asked": ["ash"], "answered": ["ash"]}],
            "jobs": [{**job, "text": DRAFT}, {**job, "layer": 2, "stage": "aggregate", "tokens_in": 900, "tokens_out": 30}],
            "decisions": [{"what": self.decided, "why": "so"}],
        }  # fmt: skip
        return JSONResponse({"folkmoot": told})


@pytest.fixture
async def at() -> AsyncIterator[Callable[[Api], Awaitable[str]]]:
    """Puts an API on a socket; gives its URL."""
    running = []

    async def start(api: Api) -> str:
        listener = bind(ApiConfig(listen="127.0.0.1:0"))
        server = make_server(api.app())
        running.append((server, asyncio.create_task(server.serve(sockets=[listener])), listener))
        return url_of(listener)

    yield start
    for server, task, listener in running:
        server.should_exit = True
        await task
        listener.close()


def moot_of(
    proxy: Proxy, url: str = "", models: tuple[str, ...] = ("m",) * 4, origin: int | None = 0
) -> Moot:
    devices = tuple(Device(name, url, model) for name, model in zip(NAMES, models, strict=True))
    return Moot(devices, dict.fromkeys(models, proxy), origin)


def task_of(number: int = 1) -> Task:
    return Task(f"gsm8k/{number}", "gsm8k", "Two and two?", "4", 256)


# ---- who sits where, and what is asked -----------------------------------------------------------------


def test_the_origin_has_the_first_place_and_the_others_are_drawn_for_each_task():
    moot = Moot(tuple(Device(name, "", name) for name in NAMES), {}, 1)
    orders = {tuple(moot.seats(task_of(number))) for number in range(200)}
    assert {order[0] for order in orders} == {1}
    assert len(orders) == 6
    turns = [replace(moot, origin=None).seats(task_of(number))[0] for number in range(200)]
    assert all(30 < turns.count(device) < 75 for device in range(4))
    assert moot.seats(task_of()) == moot.seats(task_of())


def test_a_device_alone_gets_the_seed_of_the_origins_draft_and_the_others_that_of_the_prompt():
    moot, task = Moot(tuple(Device(name, "", "m") for name in NAMES), {}), task_of()
    single, fixed, auto = (
        body_of(moot, arm, task, moot.seats(task)) for arm in arms_of("single,M1-k3,auto", 4)
    )
    assert single["seed"] == seed_of(seed_for(task.name), 1, 0)
    assert fixed["seed"] == auto["seed"] == seed_for(task.name)
    assert single["folkmoot"] == {"mode": "local", "proposals": True}
    assert fixed["folkmoot"] == {"layers": 1, "proposers": 3, "proposals": True}
    assert auto["folkmoot"] == {"proposals": True}
    assert {body["max_tokens"] for body in (single, fixed, auto)} == {256}


def test_where_models_differ_the_peers_of_a_layer_are_named_in_their_places():
    moot, task = Moot(tuple(Device(name, "", name) for name in NAMES), {}), task_of()
    seats = moot.seats(task)
    one, three, deep, wide = (
        body_of(moot, arm, task, seats)["folkmoot"] for arm in arms_of("M1-k1,M1-k3,M2-k1,M2-k3", 4)
    )
    peers = [NAMES[seat] for seat in seats[1:]]
    assert one["select"] == f"fixed:{peers[0]}"
    assert three["select"] == wide["select"] == "fixed:" + "+".join(peers)
    assert "select" not in deep  # each of its layers draws its own


# ---- what is kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decided", ["k = 0", "the draft of ash stands in place of the aggregate"])
async def test_a_record_tells_the_answer_and_every_job_at_the_time_that_its_model_took(
    model, store, at, sums: Path, tmp_path: Path, decided: str
):
    """The floor put a draft in the aggregate's place or not: an aggregate takes what it took."""
    proxy = Proxy("m", model, store)
    api = Api(decided=decided, aggregates=proxy)
    moot = moot_of(proxy, await at(api))
    records = Records.open(tmp_path / LINES)
    for task in load(sums):
        await draw([proxy], task)
    model.usage = Usage(900, 0, 30, 40.0, 9.0)
    await run(moot, arms_of("M1-k0", 4), load(sums), records)
    by_task = {record.task: record for record in records}
    assert {name: record.right for name, record in by_task.items()} == {"gsm8k/1": True, "gsm8k/2": False, "gsm8k/3": False}  # fmt: skip
    record = by_task["gsm8k/1"]
    assert (record.origin, record.given, record.decisions, record.wall_s) == (
        "ash",
        "4.0",
        ((decided, "so"),),
        0.02,
    )
    assert [(job.inference_s, job.first_token_s) for job in record.jobs] == [(1.5, 0.5), (40.0, 9.0)]
    assert record.latency_s == 41.5


async def test_what_is_there_is_not_asked_again(model, store, at, sums: Path, tmp_path: Path):
    api, arms = Api(), arms_of("single,auto", 4)
    moot = moot_of(Proxy("m", model, store), await at(api))
    heard: list[object] = []
    await run(moot, arms, load(sums, 2), Records.open(tmp_path / LINES), step=heard.append)
    assert (len(api.bodies), len(heard)) == (4, 4)
    records = Records.open(tmp_path / LINES)
    await run(moot, arms, load(sums), records, at_once=2)
    assert (len(api.bodies), len(records)) == (6, 6)
    await run(moot, arms, load(sums), records)
    assert len(api.bodies) == 6


async def test_votes_are_counted_from_the_shared_drafts(model, store, tmp_path: Path):
    model.texts = ("I think it is five.\nAnswer: 5", "Answer: 4", "No idea.", "It is Answer: 4.0")
    proxy = Proxy("m", model, store, at_once=1)
    records = Records.open(tmp_path / LINES)
    arms = arms_of("self-consistency,majority,majority:3", 4)
    moot = moot_of(proxy)
    await run(moot, arms, [task_of()], records)
    one, many, three = records
    assert len(model.asked) == 4
    assert (one.answer, one.right, many.answer, many.right) == ("Answer: 4", True, "Answer: 4", True)
    read_s = one.jobs[0].first_token_s
    assert 0.0 < read_s < 1.5
    assert one.latency_s == pytest.approx(6.0 - 3 * read_s)  # one after another, the question read once
    assert many.latency_s == 1.5  # at the same time
    assert {job.device for job in one.jobs} == {"ash"}
    assert [job.device for job in many.jobs] == [NAMES[seat] for seat in moot.seats(task_of())]
    assert (three.given, three.right, len(three.jobs)) == ("5.0", False, 3)  # of equally many the first
    assert one.decisions == (("the most that give the same", "5.0: 1, 4.0: 2, nothing: 0"),)
    await run(moot, arms_of("self-consistency:2@3", 4), [task_of()], records)
    assert [job.device for job in [*records][-1].jobs] == [NAMES[3]] * 2


async def test_a_device_is_asked_again_until_two_of_its_answers_agree(model, store, tmp_path: Path):
    model.texts = ("Answer: 5", "Answer: 4", "Answer: 4.0", "Answer: 5")
    records = Records.open(tmp_path / LINES)
    await run(
        moot_of(Proxy("m", model, store, at_once=1)), arms_of("again,again:2@1", 4), [task_of()], records
    )
    found, two = records
    assert (found.right, [job.device for job in found.jobs]) == (True, ["ash"] * 3)
    assert (two.right, [job.device for job in two.jobs]) == (False, ["birch"] * 2)


async def test_the_draft_that_the_others_are_most_like_is_selected(model, store, tmp_path: Path):
    model.texts = (
        "Bananas.",
        "It is four, as two and two are four.",
        "Four, as two and two are four.",
        "Plums!",
    )
    records = Records.open(tmp_path / LINES)
    await run(moot_of(Proxy("m", model, store, at_once=1)), arms_of("select", 4), [task_of()], records)
    (found,) = records
    assert found.answer in model.texts[1:3]
    assert len(found.jobs) == 4


async def test_an_answer_of_which_a_job_failed_is_no_record(model, store, at, sums: Path, tmp_path: Path):
    api, records = Api(outcome="failed"), Records.open(tmp_path / LINES)
    await run(moot_of(Proxy("m", model, store), await at(api)), arms_of("single", 4), load(sums), records)
    assert (len(api.bodies), len(records)) == (3, 0)


async def test_a_device_merges_its_own_drafts_in_the_layout_of_the_moot(model, store, tmp_path: Path):
    model.texts = ("<think>hm</think>Five.", "Answer: 4", "No idea.", "Answer: 5", "Together: 4.\nAnswer: 4")
    proxy, records = Proxy("m", model, store, at_once=1), Records.open(tmp_path / LINES)
    await run(moot_of(proxy), arms_of("self-moa,self-moa:4@2,self-consistency", 4), [task_of()], records)
    own, other, voted = records
    assert len(model.asked) == 5  # drafts are shared, and both devices have the same model
    (turn,) = model.asked[4].conversation
    assert turn.content.startswith(f"Two and two?\n\n{SYSTEM_PROMPT}")
    assert [place for place in range(1, 6) if f"\n\nResponse {place}:\n" in turn.content] == [1, 2, 3, 4]
    assert "hm" not in turn.content.partition("Response 1")[2]
    assert model.asked[4].sampling.seed == seed_of(seed_for(task_of().name), 2, 0)
    assert (own.answer, own.right, own.origin, other.origin) == (
        "Together: 4.\nAnswer: 4",
        True,
        "ash",
        "cedar",
    )
    assert [(job.layer, job.stage) for job in own.jobs] == [(1, "propose")] * 4 + [(2, "aggregate")]
    assert own.latency_s == pytest.approx(voted.latency_s + 1.5)


async def test_what_cannot_be_merged_is_wrong_or_left_out(model, store, tmp_path: Path):
    records, arms = Records.open(tmp_path / LINES), arms_of("self-moa:1", 4)
    await run(moot_of(Proxy("m", model, store)), arms_of("self-consistency:1", 4), [task_of()], records)
    await run(moot_of(Proxy("m", None, store)), arms, [task_of()], records, stored=True)
    assert len(records) == 1
    model.fail = PromptTooLong("it is long")
    await run(moot_of(Proxy("m", model, store)), arms, [task_of()], records)
    assert [(record.right, record.error) for record in records][1:] == [(False, "too_long")]


async def test_where_nothing_can_be_compared_the_origins_own_draft_stands(model, store, tmp_path: Path):
    model.texts = ("No idea.", "Who knows?")
    records = Records.open(tmp_path / LINES)
    await run(moot_of(Proxy("m", model, store)), arms_of("majority:2", 4), [task_of()], records)
    (record,) = records
    assert (record.answer, record.given, record.right) == ("No idea.", "", False)


@pytest.mark.parametrize("rate_hz", [0.0, 1_000.0])
async def test_a_second_turn_is_asked_in_each_arm_with_the_answer_that_it_had(
    model, store, at, tmp_path: Path, rate_hz: float
):
    model.texts = ("An oak.", "Because of its leaves.")
    api, records = Api(said="An elm."), Records.open(tmp_path / LINES)
    first = Task("mtbench/1", "roleplay", "Name a tree.", Open(), 1000)
    second = Task("mtbench/1/2", "roleplay", "Why that one?", Open(), 1000, first)
    moot = moot_of(Proxy("m", model, store), await at(api))
    await run(moot, arms_of("majority:1,auto", 4), [first, second], records, rate_hz=rate_hz)
    said = [[turn["content"] for turn in body["messages"]] for body in api.bodies]
    assert said == [["Name a tree."], ["Name a tree.", "An elm.", "Why that one?"]]
    drafts = [[turn.content for turn in each.conversation] for each in model.asked]
    assert drafts == [["Name a tree."], ["Name a tree.", "An oak.", "Why that one?"]]
    assert {record.key: record.answer for record in records} == {
        ("mtbench/1", "majority:1"): "An oak.", ("mtbench/1", "auto"): "An elm.",
        ("mtbench/1/2", "majority:1"): "Because of its leaves.", ("mtbench/1/2", "auto"): "An elm.",
    }  # fmt: skip
    assert {record.right for record in Records.open(tmp_path / LINES)} == {None}


async def test_without_a_first_answer_there_is_no_second_turn(model, store, at, tmp_path: Path):
    api, records, heard = Api(error="too_long"), Records.open(tmp_path / LINES), list[object]()
    first = Task("mtbench/1", "roleplay", "Name a tree.", Open(), 1000)
    second = Task("mtbench/1/2", "roleplay", "Why that one?", Open(), 1000, first)
    moot = moot_of(Proxy("m", model, store), await at(api))
    await run(moot, arms_of("auto", 4), [first, second], records, step=heard.append)
    assert [(record.task, record.right, record.error) for record in records] == [
        ("mtbench/1", None, "too_long")
    ]
    assert (len(api.bodies), heard[1:]) == (1, [None])


async def test_with_the_store_alone_what_it_lacks_is_left_out(model, store, at, tmp_path: Path):
    await run(
        moot_of(Proxy("m", model, store)), arms_of("majority", 4), [task_of()], Records.open(tmp_path / "a")
    )
    records = Records.open(tmp_path / LINES)
    heard: list[object] = []
    moot = moot_of(Proxy("m", None, store))
    await run(moot, arms_of("majority", 4), [task_of(1), task_of(2)], records, stored=True, step=heard.append)
    assert [record.task for record in records] == ["gsm8k/1"]
    assert heard.count(None) == 1


# ---- what goes wrong -----------------------------------------------------------------------------------


async def test_a_run_in_which_nothing_is_answered_ends(model, store, at, tmp_path: Path):
    api, records = Api(error="no_device"), Records.open(tmp_path / LINES)
    moot = moot_of(Proxy("m", model, store), await at(api))
    with pytest.raises(
        EvalError, match=f"{GIVES_UP} prompts after each other had no answer; the last one: arm auto"
    ):
        await run(moot, arms_of("auto", 4), [task_of(number) for number in range(50)], records)
    assert (len(records), len(api.bodies)) == (0, GIVES_UP)


async def test_a_prompt_that_is_too_long_is_an_answer_that_is_wrong(model, store, at, tmp_path: Path):
    records = Records.open(tmp_path / LINES)
    moot = moot_of(Proxy("m", model, store), await at(Api(error="too_long")))
    await run(moot, arms_of("auto", 4), [task_of()], records)
    (record,) = records
    assert (record.right, record.error) == (False, "too_long")


async def test_what_the_device_does_not_take_is_told(model, store, at, tmp_path: Path):
    moot = moot_of(Proxy("m", model, store), await at(Api(error="invalid")))
    with pytest.raises(EvalError, match="arm auto: no"):
        await run(moot, arms_of("auto", 4), [task_of()], Records.open(tmp_path / LINES))


async def test_a_device_that_is_gone_ends_the_run_and_what_was_done_is_kept(model, store, at, tmp_path: Path):
    url = await at(Api())
    devices = (Device("ash", url, "m"), Device("birch", "http://127.0.0.1:9", "m"))
    moot = Moot(devices, {"m": Proxy("m", model, store)})
    with pytest.raises(NodeError, match="device birch is gone"):
        await run(moot, arms_of("single,single:1", 2), [task_of()], Records.open(tmp_path / LINES))
    assert [record.arm for record in Records.open(tmp_path / LINES)] == ["single"]


async def test_a_store_that_fails_ends_the_run_with_what_to_do(model, store, at, sums: Path, tmp_path: Path):
    """Also where it failed behind a device, which says only that it has no answer or answers with less."""
    proxy = Proxy("m", model, store)
    moot, records = moot_of(proxy, await at(Api())), Records.open(tmp_path / LINES)
    proxy.broken = EvalError("make room")
    with pytest.raises(EvalError, match="make room"):
        await run(moot, arms_of("auto", 4), load(sums), records)
    assert len(records) == 0
    store.close()
    with pytest.raises(EvalError, match="cannot be read or kept"):
        await run(moot, arms_of("majority", 4), load(sums), records)


async def test_a_model_that_fails_leaves_the_vote_out_and_nothing_more(model, store, at, tmp_path: Path):
    model.fail = EngineError("it broke")
    records = Records.open(tmp_path / LINES)
    moot = moot_of(Proxy("m", model, store), await at(Api()))
    await run(moot, arms_of("majority,auto", 4), [task_of()], records)
    assert [record.arm for record in records] == ["auto"]


def test_a_body_is_json():
    moot = Moot((Device("ash", "", "m"),), {})
    assert json.dumps(body_of(moot, Arm("auto"), task_of(), [0]))


async def test_at_a_rate_prompts_come_at_random_and_do_not_wait_for_each_other(
    model, store, at, tmp_path: Path, sums: Path
):
    api = Api()
    moot = moot_of(Proxy("m", model, store), await at(api))
    records = Records.open(tmp_path / LINES)
    await run(moot, arms_of("single,M1-k3", 4), load(sums), records, rate_hz=1_000.0)
    times = {arm: [each.at_s for each in records if each.arm == arm] for arm in ("single", "M1-k3")}
    for some in times.values():
        assert min(some) == 0.0
        assert len(set(some)) == len(load(sums))
    assert times["single"] == times["M1-k3"]  # what arms differ by is not when they were asked
    assert {job.queued_s for each in records for job in each.jobs} == {0.25}
    before = len(api.bodies)
    await run(moot, arms_of("single,M1-k3", 4), load(sums), records, rate_hz=1_000.0)
    assert len(api.bodies) == before
    broken = moot_of(Proxy("m", model, store), await at(Api(error="engine_down")))
    with pytest.raises(EvalError, match="had no answer"):
        await run(broken, arms_of("auto", 4), load(sums) * 3, records, rate_hz=1_000.0)
