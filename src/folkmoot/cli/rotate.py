"""`folkmoot rotate`: a new root key for the moot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click

from folkmoot.cli.options import Duration, config_option, json_option, print_json, settings_of


@click.command()
@click.option(
    "--grace",
    "grace_s",
    type=Duration(1.0, 365 * 86_400.0),
    default="7d",
    show_default=True,
    help="How long certificates under the old key still count, such as 30m, 24h or 7d.",
)
@json_option
@config_option
def rotate(grace_s: float, as_json: bool, config_file: Path | None) -> None:
    """Change the moot's root key while it runs. On the founder's device only, which must run.

    Members get certificates under the new key by themselves when they meet the founder within the grace; who does not needs a
    fresh invitation. Open invitations become void.
    """
    until = asyncio.run(_rotate(grace_s, config_file))
    if as_json:
        print_json({"until": until})
        return
    end = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    click.echo(f"the moot has a new root key; the old one counts until {end}")


async def _rotate(grace_s: float, config_file: Path | None) -> int:
    from folkmoot.cli.client import local_api

    loaded = settings_of(config_file)
    async with local_api(loaded) as api:
        await api.own(loaded.settings.home)
        return await api.rotate(grace_s)
