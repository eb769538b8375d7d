"""`folkmoot theory`: what the closed forms say of a moot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli.model import model_options, question_of
from folkmoot.cli.options import json_option, print_json

if TYPE_CHECKING:
    from folkmoot.queueing.simulate import Question


@click.command()
@model_options
@json_option
def theory(as_json: bool, **flags: Any) -> None:
    """Say what the theory says of a moot: load, limit, latency, and what happens beyond the limit."""
    found = facts(question_of(**flags))
    if as_json:
        print_json(found)
        return
    for line in told(found):
        click.echo(line)


def facts(asked: Question) -> dict[str, Any]:
    """The closed forms that hold for a question; what does not hold is None."""
    from folkmoot import queueing
    from folkmoot.core.law import Exponential
    from folkmoot.queueing.simulate import jobs_per_prompt, mean_field_of, mean_service, rho, rho_most

    loads, most = rho(asked), float(rho_most(asked).max())
    busiest = None if math.isnan(loads.max()) else float(loads.max())
    rate, alpha, k, layers = asked.rates_hz[0], mean_service(asked), asked.proposers, asked.layers
    alike = len(asked.laws) == 1 and asked.graph is None and not hasattr(asked.laws[0], "columns")
    whole = asked.quorum in (0, k + 1)
    plain = alike and whole and not asked.skip_aggregation
    exponential = all(isinstance(law, Exponential) for law in asked.laws)
    latency = beyond = None
    if found := mean_field_of(asked):
        field, tag = found
        low, high = queueing.MEAN_FIELD_ERROR[exponential] if tag == "A" else (0.0, 0.0)
        latency = {
            "mean": field.mean, "layer": field.layer, "aggregation": field.aggregation,
            "tag": tag, "error_low": low, "error_high": high, "numerical_error": field.grid_error,
        }  # fmt: skip
    if busiest is not None and busiest >= 1 and plain:
        stages = [alpha] * layers
        done = queueing.goodput(rate, stages, alpha, k)
        beyond = {
            "tag": "C", "root": queueing.fluid_root(rate, stages, alpha, k),
            "drift": queueing.drift(rate, stages, alpha, k) * alpha,
            "goodput": done, "goodput_of_limit": done * busiest / rate,
        }  # fmt: skip
    known = busiest is not None
    return {
        "n": asked.devices, "layers": layers, "proposers": k, "load": busiest, "load_most": most, "rate": rate,
        "jobs_per_prompt": jobs_per_prompt(asked), "quorum": asked.quorum or None,
        "rho": [float(value) if known else None for value in loads],
        "limit_rate": rate / busiest if busiest else None,
        "stable": busiest < 1 if busiest is not None else True if most < 1 else None,
        "latency": latency, "overload": beyond,
        "join_buffer": queueing.join_buffer(rate, alpha, layers, k) if plain and exponential and latency else None,
        "best_choice_limit": queueing.best_limit_closed([_mean(asked, d) for d in range(asked.devices)], layers, k)
        if asked.graph is None and layers and whole and not asked.skip_aggregation and most > 0 else None,
    }  # fmt: skip


def told(found: dict[str, Any]) -> list[str]:
    """The same for people. Every line says how sure it is: [E] exact, [A] approximate, [C] confirmed by simulation."""
    n, load = found["n"], found["load"]
    devices = f"{n} device" + ("" if n == 1 else "s")
    lines = [
        f"{devices}, M={found['layers']} k={found['proposers']}: {found['jobs_per_prompt']:g} jobs a prompt"
        + (f", {found['quorum']} answers end a layer" if found["quorum"] else "")
    ]
    at = f"at {found['rate']:.4g} prompts/s and device"
    if load is None:
        lines.append(
            f"[E] load of the busiest device at most {found['load_most']:.4g} {at}; what a quorum saves of it is known "
            "for equal devices with exponential service only"
        )
    else:
        bounded = "the queues stay bounded" if load < 1 else "its queue grows without bound"
        lines.append(f"[E] load of the busiest device {load:.4g} {at}: {bounded}")
    if found["limit_rate"] is not None:
        lines.append(f"[E] limit {found['limit_rate']:.4g} prompts/s and device")
    if found["best_choice_limit"] is not None and found["best_choice_limit"] > found["limit_rate"] * 1.001:
        lines.append(
            f"[E] no choice of peers can raise the limit beyond {found['best_choice_limit']:.4g} prompts/s"
        )
    if latency := found["latency"]:
        error = ""
        if latency["tag"] == "A":
            error = (
                f", mean field: {-100 * latency['error_low']:.0f} % too low to {100 * latency['error_high']:.0f} % too high "
                "where it was simulated"
            )
        lines.append(f"[{latency['tag']}] mean latency {latency['mean']:.4g} s{error}")
    if found["join_buffer"] is not None:
        lines.append(f"[A] {found['join_buffer']:.4g} answers wait in a device's join buffer")
    if beyond := found["overload"]:
        lines.append(
            f"[C] first come first served: {beyond['drift']:.4g} jobs more wait at each device per service time, "
            f"and {100 * beyond['goodput_of_limit']:.0f} % of the limit's prompts get to their end"
        )
    return lines


def _mean(asked: Question, device: int) -> float:
    from folkmoot.queueing import Moments

    value = Moments.of(asked.laws[device % len(asked.laws)], device).mean
    return value if value > 0 else math.nan
