"""`folkmoot demo`: a whole moot on this machine, one prompt, and how its answer came to be."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from folkmoot.api.schema import MAX_TOKENS
from folkmoot.cli import exits
from folkmoot.cli.console import CUT, console
from folkmoot.cli.options import (
    config_option,
    json_option,
    print_json,
    prompt_of,
    seed_option,
    settings_of,
    shape_options,
)
from folkmoot.cli.signals import ending
from folkmoot.errors import AnswerCut

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from folkmoot.cli.client import Ended
    from folkmoot.cli.view import Progress
    from folkmoot.cli.village import Village

PROMPT = "Explain in two or three sentences why the sky is blue in the day and red in the evening."
FAMILIES = ("qwen-0.5b", "smollm2")
SMALL = ("smollm2",)
REFRESH_HZ = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """What the demo is to do."""

    prompt: str
    engines: tuple[str, ...]
    layers: int
    proposers: int
    max_tokens: int
    seed: int | None
    as_json: bool


@click.command()
@click.argument("prompt", default=PROMPT)
@click.option("--devices", type=click.IntRange(1, 64), default=4, show_default=True)
@shape_options
@click.option("--same", is_flag=True, help="The same model on every device.")
@click.option("--small", is_flag=True, help="The smallest model only (SmolLM2-135M).")
@click.option(
    "--engine",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="Engines instead of the packaged models, in turn.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1, MAX_TOKENS),
    default=160,
    show_default=True,
    help="Longest answer of one job.",
)
@seed_option
@click.option("--yes", is_flag=True, help="Fetch missing weights without a terminal too.")
@json_option
@config_option
def demo(
    prompt: str,
    devices: int,
    layers: int | None,
    proposers: int | None,
    same: bool,
    small: bool,
    specs: tuple[str, ...],
    max_tokens: int,
    seed: int | None,
    yes: bool,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Start devices on this machine, ask them PROMPT together, and take them down again."""
    layers = (1 if devices > 1 else 0) if layers is None else layers
    proposers = (min(3, devices - 1) if layers else 0) if proposers is None else proposers
    if proposers > devices - 1:
        raise click.UsageError(
            f"-k {proposers} asks more peers than the {devices - 1} that --devices {devices} leaves"
        )
    if proposers and not layers:
        raise click.UsageError(f"-k {proposers} needs a layer; give -M 1 or more")
    prompt = prompt_of(prompt)
    models = SMALL if small else FAMILIES[:1] if same else FAMILIES
    folder = settings_of(config_file).settings.engine.models_folder
    turns = specs or tuple(f"embedded:{model}" for model in models)
    engines = tuple(turns[index % len(turns)] for index in range(devices))
    _check(engines)
    if not specs:
        from folkmoot.cli.fetch import make_ready

        make_ready(models, folder, ask_first=not (yes or sys.stderr.isatty()))
    asked = Asked(prompt, engines, layers, proposers, max_tokens, seed, as_json)
    exits.wait_for(_demo(asked, folder))


def _check(engines: tuple[str, ...]) -> None:
    """Refuse what cannot answer before anything is started. Raises `ConfigError`, `click.UsageError`."""
    from folkmoot.engine.spec import parse_spec

    if all(parse_spec(engine).kind == "none" for engine in engines):
        raise click.UsageError("no device has a model; give one of them another --engine than none")


async def _demo(asked: Asked, models_folder: Path) -> None:
    from folkmoot.cli.client import plain
    from folkmoot.cli.tree import tree_of
    from folkmoot.cli.village import village
    from folkmoot.settings import child_environ

    task = asyncio.current_task()
    assert task is not None  # asyncio.run made one
    for each in ending():
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    screen = console(stderr=asked.as_json)
    # One thread an engine where engines outnumber cores: more spin against each other (README, Engines).
    threads = max(1, (os.cpu_count() or 1) // len(asked.engines))
    environ = child_environ({"engine.threads": str(threads), "engine.models_folder": str(models_folder)})
    async with village(
        environ, lambda line: screen.print(line, style="dim", markup=False, highlight=False)
    ) as moot:
        await moot.start(list(asked.engines))
        end = await _ask(moot, asked, screen)
    if asked.as_json:
        print_json(end.answer)
        return
    answer = plain(end.answer)
    _show(answer, screen)
    if end.cut:
        screen.print(CUT, style="dim", markup=False, highlight=False, soft_wrap=True)
    screen.print(tree_of(answer))


def _show(answer: dict[str, Any], screen: Console) -> None:
    """The answer between two empty lines: wrapped for who reads it, as it is for a file or a pipe."""
    screen.print()
    if sys.stdout.isatty():
        screen.print(answer["answer"], markup=False, highlight=False)
    else:
        click.echo(answer["answer"])
    screen.print()


async def _ask(moot: Village, asked: Asked, screen: Console) -> Ended:
    from folkmoot.cli.client import Ended, Moved
    from folkmoot.cli.view import Progress

    body = {
        "model": "moot",
        "messages": [{"role": "user", "content": asked.prompt}],
        "max_tokens": asked.max_tokens,
        "seed": asked.seed,
        "folkmoot": {
            "layers": asked.layers,
            "proposers": asked.proposers,
            "proposals": not asked.as_json,
        },
    }
    question = f"asking {moot.devices[0].name}: {asked.prompt}"
    screen.print(question, markup=False, highlight=False, soft_wrap=True)
    progress = Progress()
    async with moot.devices[0].client() as api, aclosing(api.ask(body)) as told:
        with _live(progress, screen) as live:
            async for each in told:
                if isinstance(each, Ended):
                    # It is printed whole in a moment, and the last frame stays on the screen.
                    progress.answer = ""
                    return each
                if isinstance(each, Moved):
                    _tell(progress.moved(each.what), live, screen)
                else:
                    progress.answer += each.text
    raise AnswerCut("the answer broke off; run the demo again")


def _live(progress: Progress, screen: Console) -> AbstractContextManager[Live | None]:
    from rich.live import Live

    if not screen.is_terminal:
        return nullcontext()
    return Live(get_renderable=progress.render, console=screen, refresh_per_second=REFRESH_HZ)


def _tell(line: str, live: Live | None, screen: Console) -> None:
    if line and live is None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)
