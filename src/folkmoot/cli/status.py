"""`folkmoot status`: the moot as this device sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.console import console
from folkmoot.cli.options import config_option, json_option, print_json, settings_of


@click.command()
@json_option
@config_option
def status(as_json: bool, config_file: Path | None) -> None:
    """Show the moot as this device sees it."""
    found = asyncio.run(_status(config_file))
    if as_json:
        print_json(found)
    else:
        _show(found)


async def _status(config_file: Path | None) -> dict[str, Any]:
    from folkmoot.cli.client import local_api

    async with local_api(settings_of(config_file)) as api:
        return await api.moot()


def _show(found: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in (
        "device", "model", "context", "standing", "waiting", "in service", "s/job", "load", "limit", "room", "id",
    ):  # fmt: skip
        table.add_column(title, overflow="fold")
    for row in found["members"]:
        table.add_row(
            escape(row["name"]) + (" (here)" if row["id"] == found["device"] else ""),
            escape(row["model"]) or "none",
            str(row["context_tokens"] or ""),
            row["standing"] + ", closed" * row["closed"],
            str(row["queue"]),
            f"{row['busy']} of {row['slots']}",
            f"{row['service_s']:.1f}",
            f"{row['load']:.2f}",
            _per_second(row["limit"]),
            _per_second(row["headroom"]),
            row["id"][:12],
        )
    screen = console()
    screen.print(
        f"{escape(found['name'])}: engine {found['engine']}"
        + (f" ({escape(found['engine_note'])})" if found["engine_note"] else "")
        + f", {found['prompts']} prompts, up for {found['uptime_s']:.0f} s"
    )
    screen.print(table)
    for row in found["members"]:
        if row["skills"]:
            known = ", ".join(f"{each['skill']} {each['right']} of {each['total']}" for each in row["skills"])
            screen.print(f"{escape(row['name'])}'s model by its probes: {known}")
        if row["doubt"]:
            screen.print(f"{escape(row['name'])}'s card is not believed: {row['doubt']}")
    for stage in found["stages"]:
        screen.print(
            f"{stage['stage']}: {stage['service_s']:.3g} s a job, {stage['tokens_in']:.0f} tokens in "
            f"({stage['tokens_cached']:.0f} cached), {stage['tokens_out']:.0f} out, {_per_second(stage['rate'])}"
        )


def _per_second(jobs: float | None) -> str:
    return "" if jobs is None else f"{jobs:.2g} jobs/s"
