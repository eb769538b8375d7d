"""The moot of an evaluation: its models behind proxies, and its devices."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from folkmoot.cli import exits
from folkmoot.errors import ConfigError

if TYPE_CHECKING:
    from folkmoot.engine.config import EngineConfig
    from folkmoot.engine.protocol import Engine
    from folkmoot.evals.arms import Arm
    from folkmoot.evals.proxy import Proxy
    from folkmoot.evals.records import Record, Records
    from folkmoot.evals.run import Device
    from folkmoot.evals.store import Store
    from folkmoot.evals.tasks import Task


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: a SPEC and its name in the store for each device, the tasks, and how they are put."""

    specs: tuple[tuple[str, str], ...]
    tasks: tuple[Task, ...]
    arms: tuple[Arm, ...]
    calls: Path
    stored: bool
    at_once: int
    slots: int
    pace: float
    origin: int | None
    speed: tuple[float, float] | None = None
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """A model behind its proxy, and how skilled it is (0: nobody knows)."""

    proxy: Proxy
    skill: float


def known(name: str, spec: str) -> tuple[str, float]:
    """What a model is called among the calls and its skill, as far as its SPEC alone can tell."""
    from folkmoot.engine.spec import parse_spec
    from folkmoot.engine.weights import CATALOGUE

    parsed = parse_spec(spec)
    if parsed.kind == "embedded" and parsed.model in CATALOGUE:
        return name or CATALOGUE[parsed.model].title, CATALOGUE[parsed.model].skill
    return name or (parsed.model if parsed.kind in ("openai", "ollama") else ""), 0.0


@contextlib.asynccontextmanager
async def models_of(
    asked: Asked, config: EngineConfig, store: Store
) -> AsyncIterator[dict[tuple[str, str], Served]]:
    """A proxy for each model, started unless the store alone shall answer."""
    from folkmoot.engine.spec import build, parse_spec
    from folkmoot.evals.proxy import Proxy
    from folkmoot.evals.store import Speed

    served: dict[tuple[str, str], Served] = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, spec in dict.fromkeys(asked.specs):
            engine: Engine | None = None
            title, skill = known(name, spec)
            if not asked.stored:
                engine = build(parse_spec(spec), config)
                assert engine is not None  # `none` was refused
                stack.push_async_callback(engine.close)
                exits.tell(f"loading {spec}")
                info = await engine.start()
                title, skill = name or info.model, info.skill
            if not title:
                raise ConfigError(
                    f"--stored: what {spec} is called among the calls is not known; write NAME={spec}"
                )
            if any(each.proxy.name == title for each in served.values()):
                raise ConfigError(
                    f"two models are called {title} among the calls; give one another NAME={spec}"
                )
            speed = None if asked.speed is None else Speed(*asked.speed)
            proxy = Proxy(title, engine, store, pace=asked.pace, speed=speed, at_once=asked.at_once)
            stack.push_async_callback(proxy.close)
            served[name, spec] = Served(proxy, skill)
        yield served


@contextlib.asynccontextmanager
async def _on_sockets(proxies: Sequence[Proxy], key: str) -> AsyncIterator[list[str]]:
    """The URLs of the proxies, for who has the key, as long as the block runs."""
    from folkmoot.api.config import ApiConfig
    from folkmoot.api.server import bind, make_server, url_of

    serving = []
    try:
        for proxy in proxies:
            listener = bind(ApiConfig(listen="127.0.0.1:0"))
            server = make_server(proxy.app(key))
            serving.append((server, listener, asyncio.create_task(server.serve(sockets=[listener]))))
        yield [url_of(listener) for _, listener, _ in serving]
    finally:
        for server, _, _ in serving:
            server.should_exit = True
        await asyncio.gather(*(task for _, _, task in serving))
        for _, listener, _ in serving:
            listener.close()


async def ask(
    asked: Asked,
    settings: dict[str, str],
    arms: Sequence[Arm],
    models: dict[tuple[str, str], Served],
    records: Records,
    step: Callable[[Record | None], None],
) -> None:
    """The arms whose devices have the same settings, on one moot; where nobody is asked there is none."""
    from folkmoot.cli.village import name_of, village
    from folkmoot.evals.run import SETTINGS, Device, Moot
    from folkmoot.evals.run import run as run_arms
    from folkmoot.settings import child_environ, variable_of

    by_name = {served.proxy.name: served.proxy for served in models.values()}

    async def on(devices: tuple[Device, ...]) -> None:
        moot = Moot(devices, by_name, asked.origin)
        real_hz = asked.rate / asked.pace if asked.rate else 0.0
        await run_arms(
            moot, arms, asked.tasks, records, at_once=asked.slots, stored=asked.stored, rate_hz=real_hz, step=step
        )  # fmt: skip

    names = [models[each].proxy.name for each in asked.specs]
    if all(arm.votes for arm in arms):
        await on(tuple(Device(f"device {number}", "", name) for number, name in enumerate(names)))
        return
    key = secrets.token_urlsafe(
        24
    )  # a proxy is open to all users of this machine, and to pages that they visit
    async with _on_sockets(list(by_name.values()), key) as urls:
        at = dict(zip(by_name, urls, strict=True))
        # Where no times are measured a device serves the jobs of all prompts at a time, so that its model writes them together.
        at_a_time = {} if asked.pace else {"node.peer.queue.slots": str(asked.slots)}
        environ = child_environ({**SETTINGS, **at_a_time, **settings, "engine.api_key": key})
        async with village(environ, exits.tell) as devices:
            # What an engine's own name does not tell: a server of strangers' models says nothing of their skill.
            devices.own = {
                name_of(number): {variable_of("engine.skill"): str(models[each].skill)}
                for number, each in enumerate(asked.specs)
            }
            await devices.start([f"openai:{at[name]}#{name}" for name in names])
            await on(
                tuple(
                    Device(each.name, each.api, name)
                    for each, name in zip(devices.devices, names, strict=True)
                )
            )
