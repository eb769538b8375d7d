"""`folkmoot members`: who is in the moot, and who shall be no more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.console import console
from folkmoot.cli.options import config_option, json_option, print_json, settings_of


@click.group(invoke_without_command=True)
@json_option
@config_option
@click.pass_context
def members(context: click.Context, as_json: bool, config_file: Path | None) -> None:
    """List the devices that this one knows of, and those that are banned."""
    if context.invoked_subcommand is not None:
        return
    found = asyncio.run(_found(config_file))
    rows, banned = found["members"], found["banned"]
    if as_json:
        print_json({"members": rows, "banned": banned})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("device", "standing", "model", "id"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(escape(row["name"]), row["standing"], escape(row["model"]) or "none", row["id"])
    listed = {row["id"] for row in rows}
    for device in [each for each in banned if each not in listed]:
        table.add_row("", "banned", "", device)
    console().print(table)


@members.command()
@click.argument("device")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
def ban(device: str, yes: bool, as_json: bool, config_file: Path | None) -> None:
    """Ban DEVICE, by its name or id, from the moot, for good. On the founder's device only.

    Every member refuses it from then on, also after a restart, and whomever it has let in.
    """
    if not yes:
        click.confirm(f"Ban {device}? That cannot be taken back.", abort=True, err=True)
    banned = asyncio.run(_ban(device, config_file))
    if as_json:
        print_json({"banned": banned})
    else:
        click.echo(f"banned {banned}")


async def _found(config_file: Path | None) -> dict[str, Any]:
    from folkmoot.cli.client import local_api

    async with local_api(settings_of(config_file)) as api:
        return await api.moot()


async def _ban(device: str, config_file: Path | None) -> str:
    from folkmoot.cli.client import local_api

    loaded = settings_of(config_file)
    async with local_api(loaded) as api:
        await api.own(loaded.settings.home)
        return await api.ban(device)
