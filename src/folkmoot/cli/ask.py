"""`folkmoot ask`: ask the local device."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from folkmoot.api.schema import MAX_TOKENS
from folkmoot.cli import exits
from folkmoot.cli.console import CUT, console
from folkmoot.cli.options import (
    AGGREGATOR,
    SELECT,
    Finite,
    config_option,
    json_option,
    print_json,
    prompt_of,
    seed_option,
    settings_of,
    shape_options,
)
from folkmoot.core.choice import MAX_PROPOSERS
from folkmoot.errors import AnswerCut, UnknownModel

if TYPE_CHECKING:
    from folkmoot.cli.client import Api, Told

LISTED_BY_THE_API = "GET /v1/models lists them"
"""The remedy of the API's error, which helps nobody who types commands."""


@click.command()
@click.argument("prompt")
@shape_options
@click.option(
    "--mode",
    type=click.Choice(["auto", "fixed", "local"]),
    help="Who settles M and k: the moot, or you; local asks nobody. Giving -M or -k means fixed.",
)
@click.option(
    "--aggregator",
    type=AGGREGATOR,
    metavar="WHO",
    help="Who writes the answer: origin, strongest or fixed:NAME.",
)
@click.option(
    "--select",
    type=SELECT,
    metavar="HOW",
    help="Which peers are asked: uniform, best-of:D (of D drawn those with the least expected delay) or fixed:NAME+NAME.",
)
@click.option("--private", is_flag=True, help="Let the prompt not leave this device.")
@click.option("--quorum", type=click.IntRange(1), help="Answers that complete a layer. [default: all]")
@click.option(
    "--keep",
    type=click.IntRange(1, MAX_PROPOSERS + 1),
    metavar="R",
    help="Let only the R best answers of a layer go on, which one more job of this device picks; with -M and -k.",
)
@click.option(
    "--early-stop",
    is_flag=True,
    help="Let that job also skip the layers that are left, where the answers agree and are good enough; with -M and -k.",
)
@click.option(
    "--deadline", "deadline_s", type=Finite(0.05, 86_400), metavar="SECONDS", help="Give up after so long."
)
@click.option(
    "--model",
    default="moot",
    show_default=True,
    help="moot, local, moot-M1-k3 and so on, a preset, or one device by its name.",
)
@click.option("--max-tokens", type=click.IntRange(1, MAX_TOKENS), help="Longest answer of one job.")
@click.option("--temperature", type=Finite(0, 2), help="How freely each model draws its words.")
@seed_option
@click.option(
    "--explain", is_flag=True, help="Print how the answer came to be, with what each device proposed."
)
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
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt_of(prompt, dash=True)}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "folkmoot": {
            "proposals": explain and not as_json,
            **{name: value for name, value in own.items() if value is not None and value is not False},
        },
    }
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeError:
        raise click.UsageError("a name on the command line is not UTF-8 text") from None
    exits.wait_for(_ask(body, explain, as_json, config_file))


async def _ask(body: dict[str, Any], explain: bool, as_json: bool, config_file: Path | None) -> None:
    from folkmoot.cli.client import Ended, Moved, local_api, plain
    from folkmoot.cli.tree import tree_of
    from folkmoot.cli.view import Progress

    answer: dict[str, Any] | None = None
    cut = False
    screen = console(stderr=True)
    waiting = screen.status("asking") if screen.is_terminal and not as_json else None
    progress = Progress()
    with waiting or nullcontext():
        async with local_api(settings_of(config_file)) as api, aclosing(_told(api, body)) as told:
            async for each in told:
                if isinstance(each, Ended):
                    answer, cut = each.answer, each.cut
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
            screen.print(tree_of(plain(answer)))
        print_json(answer)
        return
    answer = plain(answer)
    click.echo()
    if cut:
        screen.print(CUT, style="dim", markup=False, highlight=False, soft_wrap=True)
    if explain:
        click.echo()
        console().print(tree_of(answer))
    elif answer["mode"] != "auto":
        # Who asked for something shall not find out by chance that the moot did something else.
        for decision in answer["decisions"]:
            note = f"note: {decision['what']} ({decision['why']})"
            screen.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)


async def _told(api: Api, body: dict[str, Any]) -> AsyncGenerator[Told, None]:
    """What the device tells of the prompt; an unknown model is answered with those that there are."""
    try:
        async with aclosing(api.ask(body)) as told:
            async for each in told:
                yield each
    except UnknownModel as error:
        names = ", ".join(await api.models())
        raise UnknownModel(str(error).replace(LISTED_BY_THE_API, f"there are: {names}")) from None
