"""`folkmoot theory`: what the closed forms say of a moot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli.model import model_options, question_of, select_option, tell_columns, tell_neighbours
from folkmoot.cli.options import json_option, print_json

if TYPE_CHECKING:
    from folkmoot.queueing.moot import Question
    from folkmoot.queueing.theory import Figure

NUMERICAL = 1e-2
"""Relative error of the numbers from which on it is told."""


@click.command()
@model_options
@select_option
@json_option
def theory(as_json: bool, **flags: Any) -> None:
    """Say what the theory says of a moot: load, limit, latency, and what happens beyond the limit."""
    asked = question_of(**flags)
    tell_columns(asked)
    tell_neighbours(asked, flags["select"])
    found = facts(asked) | {"select": flags["select"]}
    if as_json:
        print_json(found)
        return
    for line in told(found):
        click.echo(line)


def facts(asked: Question) -> dict[str, Any]:
    """The closed forms that hold for a question; what does not hold is None."""
    from folkmoot.queueing.moot import jobs_per_prompt, judges_per_prompt
    from folkmoot.queueing.theory import choice_limit, theory

    found = theory(asked)
    latency = beyond = None
    if field := found.latency:
        low, high = error_of(field)
        latency = {
            "mean": field.value, "layer": found.layer, "aggregation": found.aggregation,
            "tag": field.tag, "error_low": low, "error_high": high, "numerical_error": field.numerical,
        }  # fmt: skip
    if over := found.overload:
        assert found.limit_rate is not None
        beyond = {
            "tag": over.tag, "root": over.root, "drift": over.drift, "goodput": over.goodput,
            "goodput_of_limit": over.goodput / found.limit_rate, "drifts": list(over.drifts),
            "error_low": over.error and over.error[0], "error_high": over.error and over.error[1],
        }  # fmt: skip
    low, high = error_of(found.joining)
    return {
        "n": asked.devices, "layers": asked.layers, "proposers": asked.proposers, "load": found.load,
        "load_most": found.load_most, "rate": asked.rates_hz[0], "jobs_per_prompt": jobs_per_prompt(asked),
        "quorum": asked.quorum or None,
        "keep": (asked.judge and asked.judge.keep) or None, "early_stop": bool(asked.judge and asked.judge.early_stop),
        "judges_per_prompt": judges_per_prompt(asked),
        "rho": [float(value) if found.load is not None else None for value in found.rho],
        "limit_rate": found.limit_rate, "stable": found.stable, "stable_tag": found.stable_tag,
        "latency": latency, "no_latency": found.no_latency or None, "overload": beyond,
        "join_buffer": found.joining and found.joining.value, "join_buffer_tag": found.joining and found.joining.tag,
        "join_buffer_error_low": low, "join_buffer_error_high": high, "best_choice_limit": choice_limit(asked),
    }  # fmt: skip


def error_of(figure: Figure | None) -> tuple[float | None, float | None]:
    """The least and the largest error that was seen of a figure; None where it is not known."""
    return (figure and figure.error) or (None, None)


def error_told(tag: str, low: float | None, high: float | None) -> str:
    """The same for people, empty for what is exact."""
    if tag == "E":
        return ""
    if low is None or high is None:
        return ", error not known here"
    if low >= 0:
        return f", 0 to {100 * high:.0f} % too high where it was simulated"
    return f", {-100 * low:.0f} % too low to {100 * high:.0f} % too high where it was simulated"


def told(found: dict[str, Any]) -> list[str]:
    """The same for people. Every line says how sure it is: [E] exact, [A] approximate, [C] confirmed by simulation."""
    n, load = found["n"], found["load"]
    devices = f"{n} device" + ("" if n == 1 else "s")
    lines = [
        f"{devices}, M={found['layers']} k={found['proposers']}: {found['jobs_per_prompt']:.6g} job{'' if found['jobs_per_prompt'] == 1 else 's'} a prompt"
        + (f", {found['quorum']} answers end a layer" if found["quorum"] else "")
        + (f", {found['judges_per_prompt']:.6g} of them a judge's" if found["judges_per_prompt"] else "")
    ]
    at = f"at {found['rate']:.4g} prompts/s and device"
    if best := found["select"].startswith("best-of:") and found["limit_rate"] is None:
        at += " with any peers"
    if load is None:
        lines.append(
            f"[E] load of the busiest device at most {found['load_most']:.4g} {at}; what a quorum saves of it is known "
            "for equal devices with exponential service only"
        )
    else:
        lines.append(f"[E] load of the busiest device {load:.4g} {at}")
    if found["stable"] is None and best:
        lines.append(
            f"whether its queues stay bounded with {found['select']} is not known; `folkmoot simulate` shows it"
        )
    elif found["stable"] is not None:
        grows = "queues grow without bound whoever is asked" if best else "its queue grows without bound"
        bounded = "the queues stay bounded" if found["stable"] else grows
        lines.append(f"[{found['stable_tag']}] {bounded}")
    if found["limit_rate"] is not None:
        lines.append(f"[E] limit {found['limit_rate']:.4g} prompts/s and device")
    any_limit = found["rate"] / load if load else None
    if best and any_limit:
        lines.append(f"[E] limit with any peers {any_limit:.4g} prompts/s and device")
    if any_limit and (found["best_choice_limit"] or 0) > any_limit * 1.001:
        lines.append(
            f"[E] no choice of peers can raise the limit beyond {found['best_choice_limit']:.4g} prompts/s and device"
        )
    if latency := found["latency"]:
        error = ", mean field" if latency["tag"] == "A" else ""
        error += error_told(latency["tag"], latency["error_low"], latency["error_high"])
        if latency["numerical_error"] > NUMERICAL:
            error += f"; long tails cost its numbers {100 * latency['numerical_error']:.0f} % more"
        lines.append(f"[{latency['tag']}] mean latency {latency['mean']:.4g} s{error}")
    elif found["stable"] or (found["stable"] is None and best):
        lines.append(f"mean latency: {found['no_latency']}")
    if found["join_buffer"] is not None:
        tag = found["join_buffer_tag"]
        error = error_told(tag, found["join_buffer_error_low"], found["join_buffer_error_high"])
        lines.append(f"[{tag}] {found['join_buffer']:.4g} answers wait in a device's join buffer{error}")
    if (beyond := found["overload"]) and beyond["drift"] > 0:
        drifts, goodput = beyond["drifts"], f"{beyond['goodput']:.4g} prompts/s and device get to their end"
        grows = f"{beyond['drift']:.4g} jobs more wait at each device per service time"
        growing = [device for device, drift in enumerate(drifts) if drift > 0]
        if max(drifts) - min(drifts) > 1e-6 * max(drifts):
            first = max(growing, key=drifts.__getitem__)
            grows = (
                f"{beyond['drift']:.4g} jobs more wait per device and mean service time; they grow at {len(growing)} of {n} "
                f"devices, most at device {first}: {drifts[first]:.4g}"
            )
        tag, low, high = beyond["tag"], beyond["error_low"], beyond["error_high"]
        seen = " (its error is not known here)"
        if low is not None:
            seen = f" (within {100 * max(-low, high):.0f} % where it was simulated)" if tag == "C" else ""
        lines.append(f"[{tag}] first come first served: {grows}{seen}")
        lines.append(f"[{tag}] {goodput}, {100 * beyond['goodput_of_limit']:.0f} % of the limit")
    return lines
