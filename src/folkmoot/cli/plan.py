"""`folkmoot plan`: which M and k may I run at this rate?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli.model import (
    MOST_DEVICES,
    RATE,
    graph_of,
    judge_options,
    question_of,
    reach_options,
    require_sim,
    select_option,
    selected,
    service_option,
    tell_columns,
)
from folkmoot.cli.options import Finite, json_option, print_json
from folkmoot.cli.theory import error_of, error_told
from folkmoot.core.load import judges_at_most

if TYPE_CHECKING:
    from folkmoot.queueing.moot import Question


@click.command()
@click.option(
    "--devices", "-n", type=click.IntRange(1, MOST_DEVICES), default=4, show_default=True, help="Devices, n."
)
@click.option("--rate", type=RATE, required=True, help="Prompts per second and device, λ.")
@service_option
@click.option(
    "--deadline",
    "deadline_s",
    type=Finite(0, 1e9, min_open=True),
    metavar="SECONDS",
    help="Longest expected latency of the choice.",
)
@click.option("--max-layers", type=click.IntRange(0, 8), default=3, show_default=True, help="Largest M.")
@click.option("--max-proposers", type=click.IntRange(0, 64), default=8, show_default=True, help="Largest k.")
@reach_options
@judge_options
@select_option
@json_option
def plan(
    devices: int,
    rate: float,
    service: str,
    deadline_s: float | None,
    max_layers: int,
    max_proposers: int,
    topology: str,
    skip_aggregation: float,
    quorum: int | None,
    keep: int | None,
    early_stop: bool,
    stop_chance: float,
    select: str,
    as_json: bool,
) -> None:
    """Name every M and k that stay stable at a rate, their expected latency, and the best choice.

    The best is the one with most proposals a prompt, (k+1)M on the complete graph, that keeps the deadline; among equals the sooner one.
    That more proposals make better answers is the paper's premise, not something that this command knows. Where none
    keeps the deadline, the soonest is named. The limit of a choice is the rate at which its busiest device has no rest.
    With --quorum no latency is known where it cancels jobs, nor with --select best-of:D, and a deadline leaves such
    choices out; layers with fewer jobs than the quorum are left out, too, and those that ask more peers than D. With --keep or
    --early-stop loads and limits count a judge's jobs where it has something to say, no latency is known there, and
    layers with fewer than R answers are left out.
    """
    require_sim()
    graph = graph_of(topology, devices)
    most = min(max_proposers, devices - 1 if graph is None else max(map(len, graph), default=0))
    best_of, named = selected(select)
    most = min(best_of or most, most)
    if stop_chance and not early_stop:
        raise click.UsageError("--stop-chance belongs to --early-stop")
    flag, least = max(("--quorum", quorum or 0), ("--keep", keep or 0), key=lambda each: each[1])
    fewest = max(least - 1, 0)
    if named:
        most = min(len(named), devices - 1)
        fewest = max(fewest, most)
    if fewest > most and max_layers:
        raise click.UsageError(f"{flag} {least}: a layer has {most + 1} jobs here at most (k + 1)")
    rows: list[dict[str, Any]] = []
    for layers in range(max_layers + 1):
        for proposers in range(fewest, most + 1) if layers else (0,):
            skip, enough = (skip_aggregation, quorum) if layers else (0.0, None)
            heard = judges_at_most(layers, proposers, keep or 0, early_stop)
            judge = (keep, early_stop, stop_chance) if heard else ()
            asked = question_of(
                devices, layers, proposers, rate, None, service, topology, skip, enough, select, *judge
            )
            if not rows:
                tell_columns(asked)
            rows.append(_row(asked))
    stable = [row for row in rows if row["stable"]]
    kept = [row for row in stable if deadline_s is None or _soon(row) <= deadline_s]
    best = max(kept, key=lambda row: (row["proposals"], -_soon(row)), default=None)
    known = [row for row in stable if row["latency"] is not None]
    nearest = None if best else min(known, key=lambda row: row["latency"], default=None)
    if as_json:
        print_json({
            "n": devices, "rate": rate, "deadline_s": deadline_s, "quorum": quorum, "select": select, "keep": keep,
            "early_stop": early_stop, "stop_chance": stop_chance, "choices": rows,
            "best": best, "nearest": nearest,
        })  # fmt: skip
        return
    for row in stable:
        mark = "  <- best" if row is best else ""
        load = (
            f"load {row['load']:.3f}" if row["load"] is not None else f"load at most {row['load_most']:.3f}"
        )
        if best_of and row["limit_rate"] is None:
            load += " with any peers"
        if row["limit_rate"] is not None:
            load += f", limit {row['limit_rate']:.4g} prompts/s and device"
        elif row["best_choice_limit"] is not None:
            load += (
                f", no choice of peers carries more than {row['best_choice_limit']:.4g} prompts/s and device"
            )
        latency = (
            "latency not known"
            if row["latency"] is None
            else f"expected latency {row['latency']:.4g} s [{row['tag']}]"
            + error_told(row["tag"], row["error_low"], row["error_high"])
        )
        click.echo(f"M={row['layers']} k={row['proposers']}: {load}, {latency}{mark}")
    unknown = sum(row["stable"] is None for row in rows)
    click.echo(
        f"{len(rows) - len(stable) - unknown} of {len(rows)} choices are not stable at {rate:g} prompts/s and device"
        + (f"; of {unknown} it is not known" if unknown else "")
    )
    if best is None:
        click.echo(_remedy(rows, stable, nearest))


def _soon(row: dict[str, Any]) -> float:
    """The expected latency, infinite where it is not known."""
    return math.inf if row["latency"] is None else float(row["latency"])


def _remedy(rows: list[dict[str, Any]], stable: list[dict[str, Any]], nearest: dict[str, Any] | None) -> str:
    """What to do where no choice is the best."""
    if nearest:
        return (
            f"no choice keeps the deadline; M={nearest['layers']} k={nearest['proposers']} comes nearest: give "
            f"--deadline {_upwards(nearest['latency'])} or more, lower the rate, or take faster devices"
        )
    if stable:
        return "no choice is known to keep the deadline: no latency is known here; `folkmoot simulate` measures it"
    highest = max((row["limit_rate"] for row in rows if row["limit_rate"]), default=0.0)
    more = f" below {highest:.4g} prompts/s and device, or take faster devices" if highest else ""
    return f"not even M=0 is stable: lower the rate{more}"


def _upwards(value: float) -> str:
    """Three digits, not less than the value."""
    if not value > 0:
        return "0"
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step * (1 - 1e-9)) * step:.4g}"


def _row(asked: Question) -> dict[str, Any]:
    from folkmoot.queueing.moot import jobs_per_prompt
    from folkmoot.queueing.theory import choice_limit, theory

    found = theory(asked, points=1 << 15)
    proposals = jobs_per_prompt(replace(asked, skip_aggregation=0.0, judge=None)) - 1.0
    low, high = error_of(found.latency)
    return {
        "layers": asked.layers,
        "proposers": asked.proposers,
        "proposals": int(proposals) if proposals.is_integer() else proposals,
        "jobs_per_prompt": jobs_per_prompt(asked),
        "load": found.load,
        "load_most": found.load_most,
        "limit_rate": found.limit_rate,
        "best_choice_limit": choice_limit(asked),
        "stable": found.stable,
        "latency": found.latency and found.latency.value,
        "tag": found.latency and found.latency.tag,
        "error_low": low,
        "error_high": high,
    }
