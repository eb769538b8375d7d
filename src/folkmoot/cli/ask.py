"""`folkmoot ask`: ask the local device."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.console import console
from folkmoot.cli.options import Finite, config_option, json_option, print_json, settings_of, shape_options
from folkmoot.errors import AnswerCut


@click.command()
@click.argument("prompt")
@shape_options
@click.option("--mode", type=click.Choice(["auto", "fixed", "local"]), help="Giving -M or -k means fixed.")
@click.option("--aggregator", metavar="WHO", help="origin, strongest or fixed:NAME.")
@click.option("--select", metavar="HOW", help="uniform or fixed:NAME+NAME.")
@click.option("--private", is_flag=True, help="Let the prompt not leave this device.")
@click.option("--quorum", type=click.IntRange(1), help="Answers that complete a layer. [default: all]")
@click.option(
    "--deadline", "deadline_s", type=Finite(0.05, 86_400), metavar="SECONDS", help="Give up after so long."
)
@click.option(
    "--model", default="moot", show_default=True, help="A model, preset or device of GET /v1/models."
)
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer of one job.")
@click.option("--temperature", type=Finite(0, 2))
@click.option("--seed", type=int)
@click.option("--explain", is_flag=True, help="Print how the answer came to be.")
@json_option
@config_option
def ask(
    prompt: str,
    model: str,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    explain: bool,
    as_json: bool,
    config_file: Path | None,
    **own: Any,
) -> None:
    """Ask PROMPT (- reads stdin) and print the answer as it is written."""
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("the prompt is empty; write what you want to know")
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "folkmoot": {name: value for name, value in own.items() if value is not None and value is not False},
    }
    asyncio.run(_ask(body, explain, as_json, config_file))


async def _ask(body: dict[str, Any], explain: bool, as_json: bool, config_file: Path | None) -> None:
    from folkmoot.cli.client import Ended, Moved, local_api
    from folkmoot.cli.tree import tree_of
    from folkmoot.cli.view import Progress

    answer: dict[str, Any] | None = None
    screen = console(stderr=True)
    waiting = screen.status("asking") if screen.is_terminal and not as_json else None
    progress = Progress()
    with waiting or nullcontext():
        async with local_api(settings_of(config_file).settings) as api, aclosing(api.ask(body)) as told:
            async for each in told:
                if isinstance(each, Ended):
                    answer = each.answer
                elif isinstance(each, Moved):
                    progress.moved(each.what)
                    if waiting is not None:
                        waiting.update(progress.summary())
                elif not as_json:
                    if waiting is not None:
                        waiting.stop()
                    click.echo(each.text, nl=False)
    if answer is None:
        raise AnswerCut("the device's answer broke off; ask again, and see the device's log")
    if as_json:
        if explain:
            screen.print(tree_of(answer))
        print_json(answer)
        return
    click.echo()
    if explain:
        click.echo()
        console().print(tree_of(answer))
