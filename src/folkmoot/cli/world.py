"""Flags of the virtual world around a simulated moot, and the setting that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.cli.options import Finite

if TYPE_CHECKING:
    from folkmoot.sim.load import Setting

F = TypeVar("F", bound=Callable[..., Any])

FLAGS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--core", is_flag=True,
        help="Run the real protocol in virtual time, not the compiled model of it: the same figures, ten thousand times "
        "slower. Each of the following flags does so too.",
    ),
    click.option("--slots", type=click.IntRange(1, 1024), metavar="B", help="Jobs that a device serves at a time. [default: 1]"),
    click.option(
        "--batching", metavar="S1,S2,...",
        help="The engine's whole speed with 1, 2, ... jobs in service, as engines have it that batch. [default: B jobs "
        "are served as fast as one]",
    ),
    click.option("--delay", type=Finite(0, 3600), metavar="SECONDS", help="What a message takes one way. [default: 0]"),
    click.option("--jitter", type=Finite(0, 3600), metavar="SECONDS", help="Mean of an exponential delay on top. [default: 0]"),
    click.option("--loss", type=Finite(0, 0.9), metavar="P", help="The chance that a heartbeat is lost. [default: 0]"),
    click.option(
        "--gossip", is_flag=True,
        help="Devices know of each other by heartbeats alone; otherwise they know who lives, and loads as --view-age says.",
    ),
    click.option(
        "--aggregator", metavar="origin|fixed:N", help="Who aggregates: each prompt's origin, or device N for all. [default: origin]",
    ),
    click.option(
        "--stages", metavar="F1,F2,...",
        help="Factors on the service times of each layer's jobs and, the last, of the aggregation: prompts that grow. [default: 1]",
    ),
    click.option(
        "--stops", metavar="P1,P2,...",
        help="The chances that a prompt is asked with 1, 2, ... layers, drawn for each. [default: all with M]",
    ),
    click.option(
        "--mttf", type=Finite(1e-3, 1e12), metavar="SECONDS",
        help="Mean time until a device fails; with --mttr and --gossip.",
    ),
    click.option(
        "--mttr", type=Finite(1e-3, 1e12), metavar="SECONDS", help="Mean time until it is back."
    ),
)  # fmt: skip


WORLD = (
    "core", "slots", "batching", "delay", "jitter", "loss", "gossip", "mttf", "mttr", "aggregator", "stages", "stops",
)  # fmt: skip
"""The names of these flags."""


def world_options(command: F) -> F:
    """The flags of the real protocol in virtual time."""
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


def setting_of(
    core: bool,
    slots: int | None,
    batching: str | None,
    delay: float | None,
    jitter: float | None,
    loss: float | None,
    gossip: bool,
    mttf: float | None,
    mttr: float | None,
    aggregator: str | None,
    stages: str | None,
    stops: str | None,
) -> Setting | None:
    """The flags as a setting, None where the compiled simulator will do. Raises `click.UsageError`."""
    who = _aggregator(aggregator)
    given = (slots, batching, delay, jitter, loss, mttf, mttr, who, stages, stops)
    if not (core or gossip or any(each is not None for each in given)):
        return None
    from folkmoot.sim.links import LinkConfig
    from folkmoot.sim.load import Setting

    if (mttf is None) != (mttr is None):
        raise click.UsageError("--mttf and --mttr go together")
    if mttf is not None and not gossip:
        raise click.UsageError("--mttf needs --gossip, or nobody would hear of a failure")
    links = None
    if gossip or delay is not None or jitter is not None or loss is not None:
        links = LinkConfig(delay_s=delay or 0.0, jitter_s=jitter or 0.0, loss=loss or 0.0)
    speed = _numbers("--batching", batching, "1,1.7,2.2")
    return Setting(
        slots or max(1, len(speed)), speed, links, gossip, mttf or 0.0, mttr or 0.0, who,
        _numbers("--stages", stages, "1,1.5,2"), _numbers("--stops", stops, "0.3,0.7"),
    )  # fmt: skip


def _aggregator(text: str | None) -> int | None:
    kind, _, number = (text or "origin").partition(":")
    if kind == "fixed" and number.isascii() and number.isdecimal() and len(number) < 10:
        return int(number)
    if text in (None, "origin"):
        return None
    raise click.UsageError(f"--aggregator {text}: it is origin, or fixed:N with a device's number from 0 on")


def _numbers(flag: str, text: str | None, example: str) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(map(float, text.split(",")))
    except ValueError:
        raise click.UsageError(f"{flag} {text!r}: it is numbers with commas, such as {example}") from None
