"""`folkmoot key`: the keys of this device's API."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.api.keys import MAX_LIMIT
from folkmoot.cli.console import console
from folkmoot.cli.options import config_option, json_option, print_json, settings_of

if TYPE_CHECKING:
    from folkmoot.api.keys import Keys

LAST = (
    "that was the last key: whoever is on this machine may ask this device without one from now on "
    "(where its API listens to others, nobody but its owner may)"
)


@click.group()
def key() -> None:
    """Make, list and revoke the keys of this device's API. Once there is one, every request needs one."""


@key.command()
@click.argument("name")
@click.option(
    "--per-minute",
    type=click.IntRange(1, MAX_LIMIT),
    metavar="N",
    help="Requests that it allows in a minute.",
)
@click.option(
    "--at-once", type=click.IntRange(1, MAX_LIMIT), metavar="N", help="Requests that it allows at a time."
)
@json_option
@config_option
def new(
    name: str, per_minute: int | None, at_once: int | None, as_json: bool, config_file: Path | None
) -> None:
    """Make a key called NAME and print it, once: only a hash of it is kept."""
    token = _keys(config_file).add(name, time.time(), per_minute or 0, at_once or 0)
    if as_json:
        print_json({"name": name, "key": token, "per_minute": per_minute or 0, "at_once": at_once or 0})
        return
    click.echo(token)
    click.echo("send it as Authorization: Bearer KEY; it is not shown again", err=True)


@key.command("list")
@json_option
@config_option
def list_keys(as_json: bool, config_file: Path | None) -> None:
    """List the keys: their names, ids and limits."""
    found = _keys(config_file).all()
    if as_json:
        rows = [
            {name: getattr(each, name) for name in ("id", "name", "made_at", "per_minute", "at_once")}
            for each in found
        ]
        print_json({"keys": rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "id", "made", "a minute", "at once"):
        table.add_column(title)
    for each in found:
        made = datetime.fromtimestamp(each.made_at, UTC).date().isoformat()
        table.add_row(each.name, each.id, made, str(each.per_minute or "-"), str(each.at_once or "-"))
    console().print(table)


@key.command()
@click.argument("name")
@json_option
@config_option
def revoke(name: str, as_json: bool, config_file: Path | None) -> None:
    """Let a key, by its NAME or id, open nothing any more; a running device knows it at its next request."""
    keys = _keys(config_file)
    gone = keys.revoke(name)
    if as_json:
        print_json({"revoked": gone.name, "id": gone.id})
    else:
        click.echo(f"revoked {gone.name}")
    if not keys.all() and not settings_of(config_file).settings.api.keys:
        click.echo(LAST, err=True)


def _keys(config_file: Path | None) -> Keys:
    from folkmoot.api.keys import Keys
    from folkmoot.node.storage import prepare_home

    home = settings_of(config_file).settings.home
    prepare_home(home)
    return Keys(home)
