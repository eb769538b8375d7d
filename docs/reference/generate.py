"""Write the reference pages from the program itself; `--check` says which are out of date instead.

python docs/reference/generate.py [--check]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from folkmoot.api.faults import STATUS
from folkmoot.api.routes import ROUTES
from folkmoot.cli import group
from folkmoot.errors import FolkmootError
from folkmoot.settings import load, variable_of

HERE = Path(__file__).parent
NOTE = "<!-- Written by generate.py; run `make docs` after a change. -->\n"


def cli_page() -> str:
    """Every command with its help."""
    parts = ["# Commands\n", NOTE]
    shown = {"help_option_names": group.context_settings["help_option_names"]}
    for path, command in commands(group, ("folkmoot",)):
        with click.Context(command, info_name=" ".join(path), terminal_width=100, **shown) as context:
            parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], (*path, name))


def settings_page() -> str:
    """Every setting with its variable; values that depend on the machine are left out."""
    lines = ["# Settings\n", NOTE, "Defaults < `config.toml` in FOLKMOOT_HOME < environment < flags.\n"]
    lines += ["| setting | variable | default |", "|---|---|---|"]
    for origin in load(environ={}).origins:
        own = {"home": "FOLKMOOT_HOME", "engine.models_folder": "FOLKMOOT_MODELS"}.get(origin.name)
        varies = own or origin.name in ("device.name", "engine.runtime_folder")
        default = "depends on the machine" if varies else f"`{origin.value!r}`"
        lines.append(f"| `{origin.name}` | `{own or variable_of(origin.name)}` | {default} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """Every error code with what it means and the HTTP status that it becomes."""
    lines = ["# Errors\n", NOTE, "| code | HTTP | meaning |", "|---|---|---|"]
    for kind in kinds(FolkmootError):
        if kind.__module__ == FolkmootError.__module__:
            lines.append(
                f"| `{kind.code}` | {STATUS.get(kind.code, '')} | {(kind.__doc__ or '').splitlines()[0]} |"
            )
    return "\n".join(lines) + "\n"


def kinds(kind: type[FolkmootError]) -> Iterator[type[FolkmootError]]:
    """An error class and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def http_page() -> str:
    """Every route with what it sends."""
    lines = ["# HTTP\n", NOTE, "`GET /openapi.json` on a running device says the same for programs.\n"]
    lines += ["| route | | sends |", "|---|---|---|"]
    for spec in ROUTES:
        sends = ", ".join(f"{status} {' or '.join(content)}" for status, content in spec.responses().items())
        lines.append(f"| `{spec.method} {spec.path}` | {spec.summary} | {sends} |")
    return "\n".join(lines) + "\n"


PAGES = {"cli.md": cli_page, "settings.md": settings_page, "errors.md": errors_page, "http.md": http_page}


def main() -> None:
    """Write all pages, or with `--check` exit 1 where one is out of date."""
    os.environ["COLUMNS"] = "100"
    stale = []
    for name, page in PAGES.items():
        text = page()
        if "--check" not in sys.argv:
            (HERE / name).write_text(text, "utf-8")
        elif not (HERE / name).is_file() or (HERE / name).read_text("utf-8") != text:
            stale.append(name)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")


main()
