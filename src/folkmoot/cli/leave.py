"""`folkmoot leave`: be in no moot any more."""

from __future__ import annotations

from pathlib import Path

import click

from folkmoot.cli.options import config_option, json_option, print_json, settings_of
from folkmoot.errors import AdmissionError


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
def leave(yes: bool, as_json: bool, config_file: Path | None) -> None:
    """Leave the moot: this device is then free to found or join another. Stop it first."""
    from folkmoot.cli.up import home_of
    from folkmoot.node import ledger
    from folkmoot.node.identity import Identity
    from folkmoot.node.memory import Memory

    home = settings_of(config_file).settings.home
    if not (home / "moot.json").exists():
        raise AdmissionError(f"the device in {home} is in no moot; join one with `folkmoot up --join`")
    with home_of(home):
        identity = Identity.open(home)
        membership, founder = identity.membership, identity.founder
        assert membership is not None  # a moot.json that makes it no member is refused when it is read
        if not yes:
            loss = " It founded that moot: without it nobody but its delegates can let others in." * founder
            click.confirm(f"Leave the moot {membership.name!r}?{loss}", abort=True, err=True)
        identity.leave()
        memory = Memory.load(home)
        for device, _ in memory.contacts():
            memory.forget(device)
        memory.save()
        ledger.forget(home)
    if as_json:
        print_json({"left": membership.name, "moot": membership.moot})
    else:
        click.echo(f"left the moot {membership.name!r}")
