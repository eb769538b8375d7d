"""`folkmoot eval`: what answers are worth, measured on a live moot of real devices."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.cli import exits
from folkmoot.cli.calls import engine_config, named, store_at
from folkmoot.cli.console import counted
from folkmoot.cli.judge import difficulty_option, judge
from folkmoot.cli.options import Finite, config_option, json_option, print_json
from folkmoot.cli.progress import Progress, span
from folkmoot.cli.signals import ending
from folkmoot.errors import ConfigError, EvalError

if TYPE_CHECKING:
    from folkmoot.engine.config import EngineConfig
    from folkmoot.engine.protocol import Engine
    from folkmoot.evals.arms import Arm
    from folkmoot.evals.proxy import Proxy
    from folkmoot.evals.records import Record, Records
    from folkmoot.evals.run import Device
    from folkmoot.evals.store import Store
    from folkmoot.evals.tasks import Task

F = TypeVar("F", bound=Callable[..., Any])


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


def shared_options(command: F) -> F:
    """What is measured, of whom."""
    for flag in reversed((
        click.option(
            "--model", "--models", "models", multiple=True, required=True, metavar="[NAME=]SPEC,...",
            help="Engines of the devices, in turn: one is a moot of like devices. Another NAME keeps the calls of another model apart.",
        ),
        click.option("--devices", type=click.IntRange(1, 64), default=4, show_default=True, help="So many devices."),
        click.option(
            "--set", "sets", multiple=True, required=True, metavar="SET:FILE",
            help="Tasks: gsm8k:FILE, bbh:FILE or ifeval:FILE (lines of JSON, or the original), whose answers a program checks; "
            "alpaca:FILE, mtbench:FILE or flask:FILE, which `eval judge` has judged. Several are pooled.",
        ),
        click.option("--prompts", type=click.IntRange(1), default=200, show_default=True, metavar="N", help="So many of each set."),
        click.option(
            "--arms", default="", metavar="A,B,...",
            help="single[:DEVICE], self-consistency[:N[@DEVICE]], majority[:N], self-moa[:N[@DEVICE]], MX-kY, strongest, moa, "
            "smoa[:R], smoa-keep[:R], smoa-stop, auto, paper (its seven rows), ablations; each with +SETTING=VALUE for devices that run so. [default: single, self-consistency, majority, auto, M1-k3]",
        ),
        click.option(
            "--calls", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
            help="Where every call of a model is kept and found again; FILE.xz is small enough to be given on. [default: calls.sqlite in --out; for plan the one here]",
        ),
        click.option("--at-once", type=click.IntRange(1, 64), default=4, show_default=True, help="Answers that a model writes at a time."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of the tasks, of which the first are taken."),
    )):  # fmt: skip
        command = flag(command)
    return command


@click.group("eval")
def evaluate() -> None:
    """Measure what a moot's answers are worth: real devices, tasks with known answers, every call of a model paid once."""


@evaluate.command()
@shared_options
@json_option
@config_option
def plan(
    models: tuple[str, ...], devices: int, sets: tuple[str, ...], prompts: int, arms: str, calls: Path | None,
    at_once: int, seed: int, as_json: bool, config_file: Path | None,
) -> None:  # fmt: skip
    """Say what a run will cost: measure the models' speed, and count the jobs that are not made yet."""
    asked = _asked(models, devices, sets, prompts, arms, calls or Path("calls.sqlite"), at_once, seed)
    found = exits.wait_for(_plan(asked, config_file))
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{counted(found['prompts'], 'prompt')}; {found['tokens_per_s']:.1f} tokens/s with {at_once} at a time"
    )
    for row in found["arms"]:
        click.echo(
            f"{row['arm']:<24} {row['jobs']:>3} jobs a prompt, {row['new_jobs']:>6} to be made: {span(row['hours'] * 3600)}"
        )
    click.echo(f"together {span(found['hours'] * 3600)}")


@evaluate.command()
@shared_options
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
    help="Where the records lie; a run that was stopped goes on there.",
)  # fmt: skip
@click.option(
    "--origin", type=click.IntRange(-1), default=0, show_default=True, metavar="N",
    help="Whose prompts they are, by the device's number; -1: each device's in turn.",
)  # fmt: skip
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Prompts that the moot has at a time.",
)
@click.option("--stored", is_flag=True, help="Start no model: what is not among the calls is left out.")
@click.option(
    "--pace", type=Finite(0.0, 100.0), default=0.0, show_default=True,
    help="Stored answers take so many times as long as they once took; at 0 they come at once.",
)  # fmt: skip
@click.option(
    "--speed", nargs=2, type=Finite(0.001, 1e6), metavar="READ WRITE",
    help="Reckon what an answer takes by its tokens, at so many read and written a second by a quiet device, instead of by what it "
    "took when it was made.",
)  # fmt: skip
@click.option(
    "--rate", type=Finite(1e-9, 1e6), metavar="HZ",
    help="Prompts come at random, so many a second and device in the model's time, and each arm's are measured by themselves; needs --pace. "
    "Without it one prompt follows another.",
)  # fmt: skip
@json_option
@config_option
def run(
    models: tuple[str, ...], devices: int, sets: tuple[str, ...], prompts: int, arms: str, calls: Path | None,
    at_once: int, seed: int, out: Path, origin: int, parallel: int, stored: bool, pace: float, speed: tuple[float, float] | None,
    rate: float | None, as_json: bool, config_file: Path | None,
) -> None:  # fmt: skip
    """Ask real devices on this machine every task in every arm, and keep a record of each; run again, it goes on."""
    from folkmoot.evals.records import Setup, begin
    from folkmoot.evals.tasks import digest

    if origin >= devices:
        raise click.UsageError(f"--origin {origin}: there are {counted(devices, 'device')}, numbered from 0")
    asked = _asked(models, devices, sets, prompts, arms, calls or out / "calls.sqlite", at_once, seed)
    if rate and not pace:
        raise click.UsageError("--rate is in the model's time: give --pace, or all answers come at once")
    asked = replace(
        asked, stored=stored, slots=parallel, pace=pace, speed=speed, origin=None if origin < 0 else origin,
        rate=(rate or 0.0) * devices,
    )  # fmt: skip
    names = tuple(_known(*each)[0] or each[1] for each in asked.specs)
    parts = [each.partition(":") for each in sets]
    files = tuple(f"{kind}:{Path(file).name}" for kind, _, file in parts)
    digests = tuple(digest(Path(file)) for _, _, file in parts)
    given = [f"--model {shlex.quote(each)}" for each in models] + [
        f"--set {shlex.quote(each)}" for each in sets
    ]
    given += [f"--devices {devices}", f"--prompts {prompts}", f"--seed {seed}", f"--origin {origin}"]
    given += [f"--pace {pace:g}"] if pace else []
    given += [f"--speed {speed[0]:g} {speed[1]:g}"] if speed else []
    given += [f"--rate {rate:g}"] if rate else []
    given += [f"--at-once {at_once}", f"--parallel {parallel}", *(["--stored"] if stored else [])]
    given += [f"--calls {shlex.quote(str(calls))}"] if calls else []
    command = " ".join(["folkmoot eval run", *given])
    records = begin(
        out, Setup(names, files, prompts, seed, asked.origin, pace, command, speed or (), digests, asked.rate)
    )
    before = len(records)
    try:
        made, found = exits.wait_for(_run(asked, records, config_file))
    except exits.Interrupted:
        raise exits.Interrupted(
            f"interrupted: {counted(len(records), 'record')} are kept in {out}; the same command goes on"
        ) from None
    told = {
        "out": str(out),
        "records": len(records),
        "new": len(records) - before,
        "made": made,
        "found": found,
    }
    if as_json:
        print_json(told)
    else:
        click.echo(
            f"{counted(len(records), 'record')} in {out}, {told['new']} of them new: {counted(made, 'call')} made, "
            f"{found} found. Next: folkmoot eval report {shlex.quote(str(out))}"
        )


evaluate.add_command(judge)


@evaluate.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@difficulty_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="Write it there as Markdown and HTML with figures (extra [eval]), and the records, compressed; that folder can be "
    "reported on again.",
)  # fmt: skip
@json_option
def report(folder: Path, difficulty: Path | None, out: Path | None, as_json: bool) -> None:
    """Tables of a run, or of all runs whose folders lie in FOLDER: what each arm got right, what it cost, how sure a difference is, and
    what judges said."""
    from folkmoot.evals.pages import markdown, write
    from folkmoot.evals.report import as_json as whole
    from folkmoot.evals.report import find, tables

    runs = find(folder)
    found = tables(runs, difficulty)
    try:
        from folkmoot.evals import paper
        from folkmoot.evals.claims import claims
        from folkmoot.evals.paper_pages import blocks, curves, live
    except ImportError:  # without the simulator's libraries there are no queues
        exits.tell("without the paper's tables and claims: pip install folkmoot[eval]")
        redone, claimed, more, pictures = [], [], [], []
    else:
        if any(paper.enough(table) for table in found):
            exits.tell("repeating the recorded jobs for queues: some seconds a table")
        redone = [each for each in map(paper.paper, found) if each is not None]
        claimed = claims(redone)
        more, pictures = [*blocks(redone, claimed), *live(found)], curves(redone)
    if out is not None:
        drawn = write(runs, found, out, more, pictures)
        exits.tell(f"written: {out}{'' if drawn else ' (without figures: pip install folkmoot[eval])'}")
    if as_json:
        rows = {each.models: paper.as_rows(each) for each in redone}
        print_json(whole(found, rows, [asdict(each) for each in claimed]))
    else:
        click.echo(markdown(found, more), nl=False)


def _asked(
    models: Sequence[str], devices: int, sets: Sequence[str], prompts: int, arms: str, calls: Path, at_once: int, seed: int
) -> Asked:  # fmt: skip
    from folkmoot.engine.spec import parse_spec
    from folkmoot.evals.arms import arms_of
    from folkmoot.evals.tasks import CHECKED, OPEN, load, pooled
    from folkmoot.settings import child_environ
    from folkmoot.settings import load as load_settings

    turns = [named(part) for each in models for part in each.split(",")]
    for _, spec in turns:
        if parse_spec(spec).kind == "none":
            raise click.UsageError("--model none: each device needs a model that answers")
    specs = tuple(turns[number % len(turns)] for number in range(devices))
    usual = f"single,self-consistency,majority,auto,M1-k{min(3, devices - 1)}"
    chosen = arms_of(arms or usual, devices)
    for arm in chosen:
        load_settings(
            None, environ=child_environ(arm.settings)
        )  # what is wrong with it is told before, not after
    loaded: list[list[Task]] = []
    for each in sets:
        kind, _, file = each.partition(":")
        if kind not in (*CHECKED, *OPEN) or not file:
            forms = ", ".join(f"{name}:FILE" for name in (*CHECKED, *OPEN))
            raise click.UsageError(f"--set {each}: it is one of {forms}")
        some = load(Path(file), prompts, seed=seed)
        if not some or some[0].set != kind:
            raise EvalError(f"--set {each}: the file holds {some[0].set if some else 'nothing'}")
        loaded.append(some)
    return Asked(
        specs,
        tuple(pooled(loaded)),
        chosen,
        calls,
        stored=False,
        at_once=at_once,
        slots=1,
        pace=0.0,
        origin=0,
    )


# ---- models --------------------------------------------------------------------------------------------


def _known(name: str, spec: str) -> tuple[str, float]:
    """What a model is called among the calls and its skill, as far as its SPEC alone can tell."""
    from folkmoot.engine.spec import parse_spec
    from folkmoot.engine.weights import CATALOGUE

    parsed = parse_spec(spec)
    if parsed.kind == "embedded" and parsed.model in CATALOGUE:
        return name or CATALOGUE[parsed.model].title, CATALOGUE[parsed.model].skill
    return name or (parsed.model if parsed.kind in ("openai", "ollama") else ""), 0.0


@contextlib.asynccontextmanager
async def _models(
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
            known, skill = _known(name, spec)
            if not asked.stored:
                engine = build(parse_spec(spec), config)
                assert engine is not None  # `none` was refused
                stack.push_async_callback(engine.close)
                exits.tell(f"loading {spec}")
                info = await engine.start()
                known, skill = name or info.model, info.skill
            if not known:
                raise ConfigError(
                    f"--stored: what {spec} is called among the calls is not known; write NAME={spec}"
                )
            if any(each.proxy.name == known for each in served.values()):
                raise ConfigError(
                    f"two models are called {known} among the calls; give one another NAME={spec}"
                )
            speed = None if asked.speed is None else Speed(*asked.speed)
            proxy = Proxy(known, engine, store, pace=asked.pace, speed=speed, at_once=asked.at_once)
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


# ---- plan, run -----------------------------------------------------------------------------------------


async def _plan(asked: Asked, config_file: Path | None) -> dict[str, Any]:
    from folkmoot.evals.costs import costs, speed

    with store_at(asked.calls) as store:
        async with _models(asked, engine_config(asked.at_once, config_file), store) as models:
            speeds = dict[tuple[str, str], float]()
            for key, served in models.items():
                assert served.proxy.model is not None  # nothing is stored only here
                speeds[key] = await speed(served.proxy.model, asked.at_once, time.monotonic)
            names = [models[each].proxy.name for each in asked.specs]
            # Models take their turns at the same cores: what they write together is what the slower ones let them.
            mean = len(asked.specs) / sum(1 / speeds[each] for each in asked.specs)
            rows = costs(asked.arms, asked.tasks, names, store, mean)
    return {
        "prompts": len(asked.tasks), "tokens_per_s": mean,
        "models": {models[key].proxy.name: value for key, value in speeds.items()},
        "arms": [
            {"arm": row.arm, "jobs": row.jobs, "new_jobs": row.new_jobs, "hours": row.seconds / 3600} for row in rows
        ],
        "hours": sum(row.seconds for row in rows) / 3600,
    }  # fmt: skip


async def _run(asked: Asked, records: Records, config_file: Path | None) -> tuple[int, int]:
    task = asyncio.current_task()
    assert task is not None  # asyncio.run made one
    for each in ending():
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    apart: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
    for arm in asked.arms:
        # Rows of the paper know no prices: at a rate of their own they are let in, whatever the load.
        let_in = {"node.peer.price.enabled": "false"} if asked.rate and arm.layers is not None else {}
        apart.setdefault(tuple(sorted({**let_in, **arm.settings}.items())), []).append(arm)
    left = sum((task.name, arm.name) not in records for task in asked.tasks for arm in asked.arms)
    lost = 0

    def step(record: Record | None) -> None:
        nonlocal lost
        lost += record is None
        bar.step()

    with store_at(asked.calls) as store:
        async with _models(asked, engine_config(asked.at_once, config_file), store) as models:
            with Progress("answers", left) as bar:
                for settings, arms in apart.items():
                    todo = any((task.name, arm.name) not in records for task in asked.tasks for arm in arms)
                    if todo:
                        await _group(asked, dict(settings), arms, models, records, step)
            if lost:
                exits.tell(
                    f"{counted(lost, 'answer')} came to nothing and are left out; the same command tries them again"
                )
            proxies = [served.proxy for served in models.values()]
            return sum(proxy.made for proxy in proxies), sum(proxy.found for proxy in proxies)


async def _group(
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
