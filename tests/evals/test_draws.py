"""The drafts that are drawn ahead are those that the live moot asks for."""

from __future__ import annotations

from folkmoot.core.mixture import seed_of
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.openai import OpenAIEngine
from folkmoot.evals.draws import TEMPERATURE, draw, seed_for
from folkmoot.evals.proxy import Proxy
from folkmoot.evals.tasks import load


def test_a_tasks_seed_is_its_names():
    assert len({seed_for(task) for task in map(_named, range(1_000))}) > 990
    assert seed_for(_named(1)) == seed_for(_named(1)) < 2**20


def _named(number: int):
    from folkmoot.evals.tasks import Task

    return Task(f"gsm8k/{number}", "gsm8k", "", "1", 256)


async def test_each_place_of_each_task_is_drawn_once(model, store, serve_proxy, sums):
    tasks = load(sums)
    proxy = Proxy("m", model, store)
    engine = OpenAIEngine(await serve_proxy(proxy), "m", EngineConfig())
    told: list[int] = []
    try:
        await draw(engine, tasks, 2, 2, told.append)
        await draw(engine, tasks, 3, 2, told.append)
    finally:
        await engine.close()
    assert told == [1, 2, 3, 1, 2, 3]
    assert (proxy.made, proxy.found) == (9, 6)
    seeds = {call.request["seed"] for call in store}
    assert seeds == {seed_of(seed_for(task), 1, place) for task in tasks for place in range(3)}
    assert {call.request["temperature"] for call in store} == {TEMPERATURE}
    assert {call.request["max_tokens"] for call in store} == {256}
