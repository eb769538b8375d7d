"""Flags that several commands share, and the settings behind them."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.core.choice import MAX_LAYERS, MAX_PROPOSERS

if TYPE_CHECKING:
    from folkmoot.settings import Loaded

F = TypeVar("F", bound=Callable[..., Any])
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Duration(click.ParamType[float]):
    """A span of time such as 90s, 30m, 24h or 7d, in a range; a bare number is seconds."""

    name = "duration"

    def __init__(self, least_s: float, most_s: float) -> None:
        self.least_s, self.most_s = least_s, most_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The span in seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write it like 90s, 30m, 24h or 7d", param, ctx)
        span_s = float(match[1]) * _UNITS[match[2] or "s"]
        if not self.least_s <= span_s <= self.most_s:
            self.fail(f"{value!r} is not from {self.least_s:.0f}s to {self.most_s / 86_400:.0f}d", param, ctx)
        return span_s


class Form(click.ParamType[str]):
    """A text of one of a few forms, which `metavar` spells out."""

    name = "form"

    def __init__(self, pattern: str, forms: str) -> None:
        self.pattern, self.forms = pattern, forms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        if re.fullmatch(self.pattern, str(value)) is None:
            self.fail(f"{value!r} is none of {self.forms}", param, ctx)
        return str(value)


AGGREGATOR = Form(r"origin|strongest|fixed:.+", "origin, strongest or fixed:NAME")
SELECT = Form(r"uniform|best-of:[1-9][0-9]{0,3}|fixed:.+", "uniform, best-of:D or fixed:NAME+NAME")


class Finite(click.FloatRange):
    """A number in a range; click lets NaN through, which is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            # Its own name for this type is no word for people.
            self.fail(f"{value!r} is no number in the range {self._describe_range()}", param, ctx)
        return float(super().convert(number, param, ctx))


seed_option = click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Repeats each model's draws; who is asked and in which order answers arrive still varies.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read settings from this TOML file instead of the home's config.toml.",
)


def shape_options(command: F) -> F:
    """The paper's M and k."""
    command = click.option(
        "-k", "--proposers", "--peers", "proposers", type=click.IntRange(0, MAX_PROPOSERS), metavar="K",
        help="Peers asked per layer; this device answers as well. [default: 3, or all there are]",
    )(command)  # fmt: skip
    return click.option(
        "-M",
        "--layers",
        "layers",
        type=click.IntRange(0, MAX_LAYERS),
        metavar="M",
        help="Layers before the aggregation.",
    )(command)


def prompt_of(argument: str, *, dash: bool = False) -> str:
    """The prompt that an argument gives, with `dash` out of stdin for `-`. Raises `click.UsageError`."""
    try:
        text = sys.stdin.read() if dash and argument == "-" else argument
        # What Python could not decode stands in the text as half a surrogate pair.
        text.encode()
    except UnicodeError:
        raise click.UsageError(
            "the prompt is not UTF-8 text; convert it first, for example with: iconv -f latin1 -t utf-8"
        ) from None
    if not text.strip():
        raise click.UsageError("the prompt is empty; write what you want to know")
    return text


def settings_of(config_file: Path | None, flags: Mapping[str, str | None] | None = None) -> Loaded:
    """The settings with this command's flags on top. Raises `ConfigError`."""
    from folkmoot.settings import load

    return load(config_file, flags)


def print_json(value: object) -> None:
    """One JSON object on a line of stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
