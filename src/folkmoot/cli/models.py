"""`folkmoot models`: the embedded models, and how to get them."""

from __future__ import annotations

from pathlib import Path

import click

from folkmoot.cli.options import config_option, json_option, print_json, settings_of


@click.group(invoke_without_command=True)
@json_option
@config_option
@click.pass_context
def models(context: click.Context, as_json: bool, config_file: Path | None) -> None:
    """List the packaged models and say which are at hand."""
    if context.invoked_subcommand is not None:
        return
    from folkmoot.engine import weights

    folder = settings_of(config_file).settings.engine.models_folder
    found = [(model, weights.at_hand(model, folder)) for model in weights.CATALOGUE.values()]
    if as_json:
        rows = [
            {
                "name": m.name,
                "title": m.title,
                "bytes": m.bytes,
                "at_hand": there,
                "engine": f"embedded:{m.name}",
            }
            for m, there in found
        ]
        print_json({"folder": str(folder), "models": rows})
        return
    for model, there in found:
        state = "at hand" if there else f"get it: folkmoot models get {model.name}"
        click.echo(f"{model.name:<10}  {model.title:<28}  {model.bytes // 10**6:>5} MB  {state}")
    click.echo("any other: --engine embedded:PATH.gguf or embedded:hf:REPO/FILE")


@models.command()
@click.argument("name")
@json_option
@config_option
def get(name: str, as_json: bool, config_file: Path | None) -> None:
    """Fetch, join and verify the model NAME."""
    from folkmoot.cli.fetch import fetch

    path = fetch(name, settings_of(config_file).settings.engine.models_folder)
    if as_json:
        print_json({"name": name, "path": str(path)})
    else:
        click.echo(f"{name} is whole: {path}")
