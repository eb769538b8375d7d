"""Write the reference pages from the program itself; `--check` says which are out of date instead.

python docs/reference/generate.py [--check]
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
import msgspec

from folkmoot.api.faults import OWN as SAID_BY_THE_API
from folkmoot.api.faults import STATUS
from folkmoot.api.routes import ROUTES
from folkmoot.api.schema import Own
from folkmoot.cli import exits, group
from folkmoot.cli.options import Form
from folkmoot.errors import FolkmootError
from folkmoot.settings import ALIASED, Settings, load, variable_of

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


SETTINGS = """\
Defaults < `config.toml` in the home < environment < flags. `folkmoot config show` prints what holds here, and why.

The home holds a device's identity and state. `FOLKMOOT_HOME` alone says where it is; without it, that is
`~/.local/share/folkmoot` on Linux and `~/Library/Application Support/folkmoot` on macOS. Several devices on
one machine each need a `FOLKMOOT_HOME` and an API port of their own:

```sh
FOLKMOOT_HOME=~/second folkmoot up --api 127.0.0.1:4151
FOLKMOOT_HOME=~/second folkmoot status
```

A home must be its owner's alone: `mkdir -m 700 HOME` before the first start, where a `config.toml` shall be in it by then. Flags hold
for one start; what shall hold for each, such as `device.name` and `device.engine`, belongs into `config.toml`.

In `config.toml` a group is a table and a list is TOML's: `[api]`, then `keys = ["one", "two"]`. In a variable a list is
JSON or stands between commas: `FOLKMOOT_API__KEYS='["one", "two"]'` or `FOLKMOOT_API__KEYS=one,two`; presets are JSON.
"""


PURPOSES = {
    "node.network": "How devices reach each other.",
    "node.peer.membership": "How devices notice who is there and who is gone (docs/explanation/membership.md).",
}
"""Of groups whose docstring tells readers of the code less than users need."""


def settings_page() -> str:
    """Every setting with its variable, by group; values that depend on the machine are left out."""
    parts = ["# Settings\n", NOTE, SETTINGS]
    rows: dict[str, list[str]] = {}
    for origin in load(environ={"FOLKMOOT_HOME": os.devnull + "-home"}).origins:
        varies = origin.name in ALIASED or origin.name in ("device.name", "engine.runtime_folder")
        default = "depends on the machine" if varies else f"`{origin.value!r}`"
        variable = ALIASED.get(origin.name, variable_of(origin.name))
        rows.setdefault(origin.name.rpartition(".")[0], []).append(
            f"| `{origin.name}` | `{variable}` | {default} |"
        )
    configs = dict(groups(Settings, ""))
    for room, lines in rows.items():
        if room:
            said = " ".join(each for each in (PURPOSES.get(room), explained(configs[room])) if each)
            parts.append(f"## {room}\n\n{said}\n")
        parts.append("\n".join(["| setting | variable | default |", "|---|---|---|", *lines]) + "\n")
    return "\n".join(parts)


def groups(kind: Any, prefix: str) -> Iterator[tuple[str, type]]:
    """Every group of settings with its Config class."""
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hint := hints[each.name]) and isinstance(hint, type):
            yield prefix + each.name, hint
            yield from groups(hint, f"{prefix}{each.name}.")


def explained(kind: type) -> str:
    """A Config's docstring, without the sources of its defaults: they are for readers of the code."""
    text = re.sub(r"\s*\((?:[^()]*\bguess\b|[^()]*\.md\b)[^()]*\)", "", inspect.getdoc(kind) or "")
    sentences = re.split(r"(?<=[.:;])(\s+)", text)
    return "".join(each for each in sentences if not re.search(r"\.md\b", each)).strip()


def errors_page() -> str:
    """Every error code with what it means and the HTTP status that it becomes."""
    lines = ["# Errors\n", NOTE, "| code | HTTP | meaning |", "|---|---|---|"]
    for kind in kinds(FolkmootError):
        if kind.__module__ == FolkmootError.__module__:
            lines.append(
                f"| `{kind.code}` | {STATUS.get(kind.code, '')} | {(kind.__doc__ or '').splitlines()[0]} |"
            )
    lines.append("\nThe API says these by itself:\n\n| code | HTTP | meaning |\n|---|---|---|")
    lines += [f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in SAID_BY_THE_API.items()]
    lines += ["\n## Exit codes\n", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in exits.MEANINGS.items()]
    wrong = ", ".join(f"`{kind.code}`" for kind, code in exits.CODES.items() if code == exits.USAGE)
    lines.append(
        f"\nOf the errors above, {wrong} end a command with {exits.USAGE}, all others with {exits.FAILED}."
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
    lines += ["", OWN, "| field | type | values | meaning |", "|---|---|---|---|"]
    flags = {option.name: option for option in group.commands["ask"].params}
    for name, kind in get_type_hints(Own, include_extras=True).items():
        flag = flags.get(name)
        forms = flag.type.forms if flag is not None and isinstance(flag.type, Form) else ""
        meaning = MEANINGS[name] if flag is None else str(getattr(flag, "help", ""))
        held, values = type_of(msgspec.inspect.type_info(kind))
        lines.append(f"| `{name}` | {held} | {forms or values} | {meaning} |")
    return "\n".join(lines) + "\n"


OWN = """\
## Folkmoot's own fields

They ride in `"folkmoot": {…}` of a `POST /v1/chat/completions` (`extra_body` in OpenAI's SDKs), and make up a preset.
All may be left out. A known field of a wrong type or out of range is a 400 that names it; a request's fields that
are not known, here or beside `folkmoot`, are ignored.
"""
MEANINGS = {
    "layout": "Where the models of the later layers find the proposals: after the prompt, which spares them reading "
    "it again, or in the system turn, as in the paper.",
    "progress": "Whether a stream also carries `folkmoot.progress` events: which job is where.",
    "proposals": "Whether the answer's jobs also hold what each of them wrote.",
}
"""Of fields that `folkmoot ask` has no flag for; the others mean what their flag means."""


def type_of(kind: Any) -> tuple[str, str]:
    """A field's type and what it may hold, in words; None is every field's way of being left out."""
    match kind:
        case msgspec.inspect.UnionType(types=types):
            (one,) = (each for each in types if not isinstance(each, msgspec.inspect.NoneType))
            return type_of(one)
        case msgspec.inspect.LiteralType(values=values):
            return "string", ", ".join(str(each) for each in values)
        case msgspec.inspect.BoolType():
            return "boolean", "true, false"
        case msgspec.inspect.IntType(ge=ge, le=le):
            return "integer", f"{ge} or more" if le is None else f"{ge} to {le}"
        case msgspec.inspect.FloatType(ge=ge, le=le):
            return "number", f"{ge} to {le}"
        case msgspec.inspect.StrType(pattern=pattern):
            return "string", f"`{pattern}`" if pattern else ""
        case _:
            raise TypeError(f"no words for {kind}")


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
