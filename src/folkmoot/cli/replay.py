"""`folkmoot eval replay`: the recorded jobs of a run on live devices, at any load."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.cli import exits
from folkmoot.cli.console import counted
from folkmoot.cli.evaluated import Asked, Served, ask
from folkmoot.cli.options import Finite, json_option, print_json
from folkmoot.cli.progress import Progress
from folkmoot.cli.signals import ending

if TYPE_CHECKING:
    from folkmoot.evals.arms import Arm
    from folkmoot.evals.records import Record, Records, Setup
    from folkmoot.evals.store import Speed

_HANGS_ON_NONE = {"mode", "layers", "proposers"}
"""What may stand in the request of an arm whose course hangs on no answer."""

speeds_option = click.option(
    "--speed", "speeds", multiple=True, metavar="MODEL=READ,WRITE",
    help="Reckon what the jobs of this model took by their tokens, at so many read and written a second, instead of by what they took when "
    "they were made. Once for each model.",
)  # fmt: skip


def speeds_of(given: Sequence[str]) -> dict[str, Speed]:
    """The speeds by model. Raises `click.UsageError`."""
    from folkmoot.evals.store import Speed

    found = {}
    for each in given:
        model, _, numbers = each.rpartition("=")
        try:
            read, written = map(float, numbers.split(","))
        except ValueError:
            read = written = 0.0
        if not model or not (0.001 <= read <= 1e6 and 0.001 <= written <= 1e6):
            raise click.UsageError(
                f"--speed {each}: it is MODEL=READ,WRITE, in tokens a second, such as SmolLM2-135M-Instruct=400,100"
            )
        found[model] = Speed(read, written)
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--arms",
    default="paper",
    show_default=True,
    metavar="A,B,...",
    help="single, MX-kY, or paper: those of its seven rows that are recorded.",
)
@click.option(
    "--prompts",
    type=click.IntRange(1),
    metavar="N",
    help="So many prompts of each arm. [default: all that they share]",
)
@click.option(
    "--load", type=Finite(1e-3, 100.0), metavar="SHARE",
    help="Prompts come at random, so often that the busiest device of the heaviest arm has so much to do; at 1 it has no rest. The same rate for all "
    "arms. [default: 0.7]",
)  # fmt: skip
@click.option(
    "--rate",
    type=Finite(1e-9, 1e6),
    metavar="HZ",
    help="Instead of --load: so many a second and device, in the model's time.",
)
@click.option(
    "--pace", type=Finite(1e-4, 100.0), default=0.02, show_default=True,
    help="Everything takes so many times what it once took.",
)  # fmt: skip
@speeds_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
    help="Where the new records lie; a replay that was stopped goes on there, arm by arm.",
)  # fmt: skip
@json_option
def replay(
    folder: Path, arms: str, prompts: int | None, load: float | None, rate: float | None, pace: float, speeds: tuple[str, ...], out: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Give the recorded jobs of the run in FOLDER to real devices again, each in the time that it took: latency and queues at a load.

    No model and no task is needed, only the records. Prompts come at random and meet each other at the devices' queues; peers of a single layer are
    those of the record. `folkmoot eval report` shows what was measured beside what is reckoned of the same prompts and times.
    """
    from folkmoot.evals.arms import PAPER, arms_of
    from folkmoot.evals.queues import work_of
    from folkmoot.evals.records import begin, read_setup
    from folkmoot.evals.records import load as load_records
    from folkmoot.evals.replay import shared

    if load is not None and rate is not None:
        raise click.UsageError("--load and --rate both say how often prompts come: give one of them")
    setup, records = read_setup(folder), load_records(folder)
    at = speeds_of(speeds)
    for model in at:
        if model not in setup.models:
            raise click.UsageError(
                f"--speed {model}: the run in {folder} has {', '.join(dict.fromkeys(setup.models))}"
            )
    there = {record.arm for record in records}
    rows = ["single", *(f"M{layers}-k{peers}" for layers, peers in PAPER)]
    paper = [name for name in rows if name in there]
    chosen = arms_of(",".join(paper) if arms == "paper" else arms, len(setup.models))
    for arm in chosen:
        if arm.layers is None or not {*arm.own} <= _HANGS_ON_NONE:
            raise click.UsageError(
                f"--arms {arm.name}: what is asked there hangs on answers, which a replay does not have; give single or MX-kY"
            )
    some = {
        arm: [each.at(at) for each in found]
        for arm, found in shared(records, [arm.name for arm in chosen], prompts).items()
    }
    devices = len(setup.models)
    least_hz = min(work_of(found, devices).limit_hz for found in some.values())
    all_hz = rate * devices if rate is not None else (0.7 if load is None else load) * least_hz
    command = " ".join(
        [
            "folkmoot eval replay",
            shlex.quote(str(folder)),
            f"--rate {all_hz / devices:.6g}",
            f"--pace {pace:g}",
        ]
        + ([f"--prompts {prompts}"] if prompts else [])
        + [f"--speed {shlex.quote(each)}" for each in speeds]
    )
    told = begin(out, replace(setup, pace=pace, speed=(), rate=all_hz, command=command))
    before = len(told)
    try:
        exits.wait_for(_replay(chosen, some, setup, pace, all_hz, told))
    except exits.Interrupted:
        raise exits.Interrupted(
            f"interrupted: {counted(len(told), 'record')} are kept in {out}; the same command goes on"
        ) from None
    if as_json:
        print_json(
            {"out": str(out), "records": len(told), "new": len(told) - before, "rate": all_hz / devices}
        )
    else:
        click.echo(
            f"{counted(len(told), 'record')} in {out}, {len(told) - before} of them new, at a prompt each {1 / all_hz:.1f} s. "
            f"Next: folkmoot eval report {shlex.quote(str(out))}"
        )


async def _replay(
    arms: Sequence[Arm], some: Mapping[str, Sequence[Record]], setup: Setup, pace: float, all_hz: float, told: Records
) -> None:  # fmt: skip
    from folkmoot.evals.proxy import Proxy
    from folkmoot.evals.replay import Recorded, replayed

    task = asyncio.current_task()
    assert task is not None  # asyncio.run made one
    for each in ending():
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    calls = Recorded(record for found in some.values() for record in found)
    served = {
        ("", name): Served(Proxy(name, None, calls, pace=pace), 0.0) for name in dict.fromkeys(setup.models)
    }
    left = [arm for arm in arms if any(record.key not in told for record in some[arm.name])]
    with Progress("prompts", sum(len(some[arm.name]) for arm in left)) as bar:
        for arm in left:
            asked = Asked(
                tuple(("", name) for name in setup.models), tuple(replayed(some[arm.name])), (arm,), Path(), stored=True, at_once=1, slots=1,
                pace=pace, origin=setup.origin, rate=all_hz,
            )  # fmt: skip
            # Rows of the paper know no prices: they are let in, whatever the load.
            await ask(asked, {"node.peer.price.enabled": "false"}, [arm], served, told, lambda _: bar.step())
