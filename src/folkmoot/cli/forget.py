"""`folkmoot forget`: delete what this device keeps of prompts and answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.cli.options import config_option, json_option, print_json, settings_of

if TYPE_CHECKING:
    from folkmoot.settings import Loaded


@click.command()
@click.argument("response", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="Delete all that is kept.")
@json_option
@config_option
def forget(response: str | None, everything: bool, as_json: bool, config_file: Path | None) -> None:
    """Delete the prompt and the answer of ID (resp_…), or with --all everything that this device keeps.

    What is not answered yet is taken back. Works whether the device runs or not. By itself it forgets what ended
    node.journal.retention_days ago. Other devices keep nothing of a prompt once they have answered. What this device
    has seen of its peers' answers (repute.json: ids and figures, no words) stays: only `folkmoot leave` deletes it.
    """
    if everything == (response is not None):
        raise click.UsageError("say which: an ID, or --all")
    gone = asyncio.run(_forget(response, settings_of(config_file)))
    if as_json:
        print_json({"forgotten": gone})
    else:
        click.echo(f"forgotten: {gone} of what was asked and answered here")


async def _forget(response: str | None, loaded: Loaded) -> int:
    """How many responses are gone: by the running device, or in its file where none runs."""
    from folkmoot.cli.client import local_api
    from folkmoot.cli.up import DeviceRuns, home_of

    home = loaded.settings.home
    if not home.exists():
        return _forgotten(response, 0)
    try:
        with home_of(home):
            return _forgotten(response, await asyncio.to_thread(_offline, response, loaded))
    except DeviceRuns:
        async with local_api(loaded) as api:
            return await api.forget(response)


def _offline(response: str | None, loaded: Loaded) -> int:
    from folkmoot.node.journal import Journal

    journal = Journal(loaded.settings.home, loaded.settings.node.journal)
    try:
        return journal.forget_all() if response is None else int(journal.forget(response))
    finally:
        journal.close()


def _forgotten(response: str | None, gone: int) -> int:
    from folkmoot.api.desk import NotFound

    if response is not None and not gone:
        raise NotFound(f"no response {response!r} is kept here; it may have been deleted, or be too old")
    return gone
