"""`folkmoot config show`: every setting with its origin."""

from __future__ import annotations

import json
from pathlib import Path

import click

from folkmoot.cli.options import config_option, json_option, print_json, settings_of


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@json_option
@config_option
def show(as_json: bool, config_file: Path | None) -> None:
    """Print every setting, its value and where it came from."""
    origins = settings_of(config_file).origins
    if as_json:
        print_json({"settings": [{"name": o.name, "value": o.value, "origin": o.origin} for o in origins]})
        return
    width = max(len(origin.name) for origin in origins)
    for origin in origins:
        value = json.dumps(origin.value, ensure_ascii=False)
        click.echo(f"{origin.name:<{width}}  {value}  # {origin.origin}")
