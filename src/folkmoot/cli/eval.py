"""`folkmoot eval`: what answers are worth, measured on a live moot of real devices."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.cli import exits
from folkmoot.cli.calls import engine_config, named, store_at
from folkmoot.cli.console import counted
from folkmoot.cli.evaluated import Asked, ask, known, models_of
from folkmoot.cli.judge import (
    Pricing,
    baseline_option,
    difficulty_option,
    judge,
    priced,
    same_option,
    what_judging_takes,
)
from folkmoot.cli.options import Finite, config_option, json_option, print_json
from folkmoot.cli.progress import Progress, span
from folkmoot.cli.replay import replay, speeds_of, speeds_option
from folkmoot.cli.signals import ending
from folkmoot.errors import EvalError

if TYPE_CHECKING:
    from folkmoot.evals.arms import Arm
    from folkmoot.evals.records import Record, Records
    from folkmoot.evals.tasks import Task

F = TypeVar("F", bound=Callable[..., Any])


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
        click.option("--skip", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Leave the first N of each set out: what was not looked at when choices were made."),
        click.option(
            "--arms", default="", metavar="A,B,...",
            help="single[:DEVICE], self-consistency[:N[@DEVICE]], again[:N[@DEVICE]] (until two agree), majority[:N], select[:N] (their medoid), self-moa[:N[@DEVICE]], MX-kY, strongest, moa, "
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
@click.option(
    "--judge", "judge_spec", metavar="[NAME=]SPEC", default="",
    help="Say as well what `eval judge` takes with this engine, whose speed is measured.",
)  # fmt: skip
@baseline_option
@same_option
@json_option
@config_option
def plan(
    models: tuple[str, ...], devices: int, sets: tuple[str, ...], prompts: int, skip: int, arms: str, calls: Path | None,
    at_once: int, seed: int, judge_spec: str, baseline: str, same_share: float, as_json: bool, config_file: Path | None,
) -> None:  # fmt: skip
    """Say what a run will cost: measure the models' speed, and count the jobs that are not made yet."""
    here = Path("calls.sqlite")
    kept = calls or (here if here.exists() else Path(":memory:"))  # a plan leaves nothing behind
    asked = _asked(models, devices, sets, prompts, skip, arms, kept, at_once, seed)
    if not judge_spec and baseline:
        raise click.UsageError("--baseline is what a judge compares with: name the --judge")
    pricing = priced(judge_spec, baseline, same_share, asked.tasks, [arm.name for arm in asked.arms])
    found = exits.wait_for(_plan(asked, pricing, config_file))
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{counted(found['prompts'], 'prompt')}; {found['tokens_per_s']:.1f} tokens/s with {at_once} at a time"
    )
    for name, written in found["models"].items():
        click.echo(
            f"{name} reads {found['reads'][name]:.0f} and writes {written:.1f} tokens/s: --speed {name}={found['reads'][name]:.0f},{written:.1f}"
        )
    for row in found["arms"]:
        click.echo(
            f"{row['arm']:<24} {row['jobs']:>3} jobs a prompt, {row['new_jobs']:>6} to be made: {span(row['hours'] * 3600)}"
        )
    if judged := found["judge"]:
        click.echo(
            f"{judged['judge']} judges: {counted(judged['verdicts'], 'verdict')} ({judged['pairs']} of pairs in both orders, "
            f"{judged['same']} of an answer beside itself, {judged['marks']} marks), about {judged['tokens_in']} tokens "
            f"to be read and {judged['tokens_out']} to be written: {span(judged['hours'] * 3600)}"
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
    help="Whose prompts they are, by the device's number; -1: a device is drawn for each task.",
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
    models: tuple[str, ...], devices: int, sets: tuple[str, ...], prompts: int, skip: int, arms: str, calls: Path | None,
    at_once: int, seed: int, out: Path, origin: int, parallel: int, stored: bool, pace: float, speed: tuple[float, float] | None,
    rate: float | None, as_json: bool, config_file: Path | None,
) -> None:  # fmt: skip
    """Ask real devices on this machine every task in every arm, and keep a record of each; run again, it goes on."""
    from folkmoot.evals.records import Setup, begin
    from folkmoot.evals.tasks import digest

    if origin >= devices:
        raise click.UsageError(f"--origin {origin}: there are {counted(devices, 'device')}, numbered from 0")
    asked = _asked(models, devices, sets, prompts, skip, arms, calls or out / "calls.sqlite", at_once, seed)
    if rate and not pace:
        raise click.UsageError("--rate is in the model's time: give --pace, or all answers come at once")
    asked = replace(
        asked, stored=stored, slots=parallel, pace=pace, speed=speed, origin=None if origin < 0 else origin,
        rate=(rate or 0.0) * devices,
    )  # fmt: skip
    names = tuple(known(*each)[0] or each[1] for each in asked.specs)
    parts = [each.partition(":") for each in sets]
    files = tuple(f"{kind}:{Path(file).name}" for kind, _, file in parts)
    digests = tuple(digest(Path(file)) for _, _, file in parts)
    given = [f"--model {shlex.quote(each)}" for each in models] + [
        f"--set {shlex.quote(each)}" for each in sets
    ]
    given += [f"--devices {devices}", f"--prompts {prompts}", f"--seed {seed}", f"--origin {origin}"]
    given += [f"--skip {skip}"] if skip else []
    given += [f"--pace {pace:g}"] if pace else []
    given += [f"--speed {speed[0]:g} {speed[1]:g}"] if speed else []
    given += [f"--rate {rate:g}"] if rate else []
    given += [f"--at-once {at_once}", f"--parallel {parallel}"]
    given += [f"--calls {shlex.quote(str(calls))}"] if calls else []
    command = " ".join(["folkmoot eval run", *given])
    records = begin(
        out,
        Setup(
            names, files, prompts, seed, asked.origin, pace, command, speed or (), digests, asked.rate, skip
        ),
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
evaluate.add_command(replay)


@evaluate.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@difficulty_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="Write it there as Markdown and HTML with figures (extra [eval]), and the records, compressed; that folder can be "
    "reported on again.",
)  # fmt: skip
@speeds_option
@json_option
def report(
    folder: Path, difficulty: Path | None, out: Path | None, speeds: tuple[str, ...], as_json: bool
) -> None:
    """Tables of a run, or of all runs whose folders lie in FOLDER: what each arm got right, what it cost, how sure a difference is, and
    what judges said."""
    from folkmoot.evals.pages import markdown, write
    from folkmoot.evals.report import as_json as whole
    from folkmoot.evals.report import find, tables

    runs, by_model = find(folder), speeds_of(speeds)
    models = dict.fromkeys(model for run in runs for model in run.setup.models)
    for model in by_model:
        if model not in models:
            raise click.UsageError(f"--speed {model}: the runs in {folder} have {', '.join(models)}")
    found = tables(runs, difficulty, by_model)
    try:
        from folkmoot.evals import paper
        from folkmoot.evals.claims import claims
        from folkmoot.evals.paper_pages import blocks, curves, live
    except ImportError:  # without the simulator's libraries there are no queues
        exits.tell("without the paper's tables and claims: pip install folkmoot[eval]")
        rows, claimed, more, pictures = None, [], [], []
    else:
        if any(paper.enough(table) for table in found):
            exits.tell("repeating the recorded jobs for queues: some seconds a table")
        tried = [paper.paper(table) for table in found]
        redone = [each for each in tried if each is not None]
        rows = [() if each is None else paper.as_rows(each) for each in tried]
        claimed = claims(redone)
        more, pictures = [*blocks(redone, claimed), *live(found)], curves(redone)
    if out is not None:
        drawn = write(runs, found, out, more, pictures)
        exits.tell(f"written: {out}{'' if drawn else ' (without figures: pip install folkmoot[eval])'}")
    if as_json:
        print_json(whole(found, rows, [asdict(each) for each in claimed]))
    else:
        click.echo(markdown(found, more), nl=False)


def _asked(
    models: Sequence[str], devices: int, sets: Sequence[str], prompts: int, skip: int, arms: str, calls: Path, at_once: int, seed: int
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
    try:
        chosen = arms_of(arms or usual, devices)
    except EvalError as error:
        raise click.UsageError(f"--arms: {error}") from None
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
        some = load(Path(file), prompts, seed=seed, skip=skip)
        if not some or some[0].set != kind:
            there = some[0].set if some else f"no prompt behind the first {skip}" if skip else "nothing"
            raise EvalError(f"--set {each}: the file holds {there}")
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


# ---- plan, run -----------------------------------------------------------------------------------------


async def _plan(asked: Asked, pricing: Pricing | None, config_file: Path | None) -> dict[str, Any]:
    from folkmoot.evals.costs import costs, reading, speed

    config, judged = engine_config(asked.at_once, config_file), None
    with store_at(asked.calls) as store:
        async with models_of(asked, config, store) as models:
            speeds, reads = dict[tuple[str, str], float](), dict[str, float]()
            for key, served in models.items():
                assert served.proxy.model is not None  # nothing is stored only here
                speeds[key] = await speed(served.proxy.model, asked.at_once, time.monotonic)
                reads[served.proxy.name] = await reading(served.proxy.model, asked.at_once, time.monotonic)
            names = [models[each].proxy.name for each in asked.specs]
            # Models take their turns at the same cores: what they write together is what the slower ones let them.
            mean = len(asked.specs) / sum(1 / speeds[each] for each in asked.specs)
            rows = costs(asked.arms, asked.tasks, names, store, mean)
        if pricing is not None:  # the devices' models are gone by now, as they are when it judges
            judged = await what_judging_takes(
                pricing, config, asked.at_once, asked.arms, asked.tasks, names, store
            )
    return {
        "prompts": len(asked.tasks), "tokens_per_s": mean,
        "models": {models[key].proxy.name: value for key, value in speeds.items()}, "reads": reads,
        "arms": [
            {"arm": row.arm, "jobs": row.jobs, "new_jobs": row.new_jobs, "hours": row.seconds / 3600} for row in rows
        ],
        "judge": judged, "hours": sum(row.seconds for row in rows) / 3600 + (judged["hours"] if judged else 0.0),
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
        async with models_of(asked, engine_config(asked.at_once, config_file), store) as models:
            with Progress("answers", left) as bar:
                for settings, arms in apart.items():
                    todo = any((task.name, arm.name) not in records for task in asked.tasks for arm in arms)
                    if todo:
                        await ask(asked, dict(settings), arms, models, records, step)
            if lost:
                exits.tell(
                    f"{counted(lost, 'answer')} came to nothing and are left out; the same command tries them again"
                )
            proxies = [served.proxy for served in models.values()]
            return sum(proxy.made for proxy in proxies), sum(proxy.found for proxy in proxies)
