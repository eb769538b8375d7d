"""The drafts that are drawn ahead are those that the live moot asks for."""

from __future__ import annotations

from contextlib import aclosing

from tests.evals.conftest import KEY

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn
from folkmoot.core.mixture import seed_of
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.errors import EngineError
from folkmoot.evals.draws import TEMPERATURE, asked_at, draw, seed_for
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.tasks import Task, load


def test_a_tasks_seed_is_its_names():
    tasks = [Task(f"gsm8k/{number}", "gsm8k", "", "1", 256) for number in range(1_000)]
    assert len({seed_for(task.name) for task in tasks}) > 990
    assert seed_for(tasks[0].name) == seed_for(tasks[0].name) < 2**20


async def test_each_place_is_drawn_once_by_its_own_model(model, store, sums):
    task = load(sums)[0]
    one, two = Proxy("m", model, store), Proxy("n", model, store)
    calls = await draw([one, two, one], task)
    assert [call and call.request["model"] for call in calls] == ["m", "n", "m"]
    seeds = [call and call.request["seed"] for call in calls]
    assert seeds == [seed_of(seed_for(task.name), 1, place) for place in range(3)]
    assert await draw([one, two, one], task) == calls
    assert (one.made, one.found, two.made, len(model.asked)) == (2, 2, 1, 3)


async def test_what_cannot_be_had_is_none(model, store, sums):
    task = load(sums)[0]
    await draw([Proxy("m", model, store)], task)
    found = await draw([Proxy("m", None, store)] * 2, task)
    assert [call is None for call in found] == [False, True]
    model.fail = EngineError("it broke")
    assert await draw([Proxy("n", model, store)], task) == [None]


async def test_a_devices_engine_asks_for_them_in_the_same_words(model, store, serve_proxy, sums):
    """What is drawn ahead for a place is found when a device asks for its job in that place, and not made again."""
    task = load(sums)[0]
    proxy = Proxy("m", model, store)
    await draw([proxy, proxy], task)
    engine = OpenAIEngine(await serve_proxy(proxy), "m", EngineConfig(api_key=KEY))
    sampling = Sampling(task.max_tokens, TEMPERATURE, seed=asked_at("m", task, 1)["seed"])
    asked = Inference(PromptId("0" * 32), (Turn("user", task.question),), sampling=sampling)
    try:
        async with aclosing(engine.generate(asked)) as pieces:
            async for _ in pieces:
                pass
    finally:
        await engine.close()
    assert (proxy.made, proxy.found) == (2, 1)
