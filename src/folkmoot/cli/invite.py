"""`folkmoot invite`: let another device in."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from folkmoot.cli.options import Duration, config_option, json_option, print_json, settings_of


@click.command()
@click.option(
    "--uses", type=click.IntRange(1, 1000), default=1, show_default=True, help="Devices that it admits."
)
@click.option(
    "--ttl",
    "ttl_s",
    type=Duration(1.0, 365 * 86_400.0),
    default="24h",
    show_default=True,
    help="How long it is good, such as 30m, 24h or 7d.",
)
@click.option("--delegate", is_flag=True, help="Let those whom it admits invite others.")
@json_option
@config_option
def invite(uses: int, ttl_s: float, delegate: bool, as_json: bool, config_file: Path | None) -> None:
    """Print an invitation. It is a secret: whoever holds it gets in."""
    invitation, local_only = asyncio.run(_invite(uses, ttl_s, delegate, config_file))
    if as_json:
        print_json({"invitation": invitation, "uses": uses, "ttl_s": ttl_s, "delegate": delegate})
        return
    click.echo(invitation)
    if sys.stdout.isatty():
        import segno

        segno.make(invitation, error="l").terminal(compact=True)
    click.echo(f"on the other device: folkmoot up --join {invitation[:12]}…  (all of it)", err=True)
    if local_only:
        click.echo(
            "only devices on this machine can join: to let others in, start it with --listen 0.0.0.0:0",
            err=True,
        )


async def _invite(uses: int, ttl_s: float, delegate: bool, config_file: Path | None) -> tuple[str, bool]:
    from folkmoot.cli.client import local_api

    loaded = settings_of(config_file)
    async with local_api(loaded) as api:
        await api.own(loaded.settings.home)
        invitation = await api.invite(uses, ttl_s, delegate=delegate)
        return invitation, bool((await api.moot())["local_only"])
