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
    from folkmoot.queueing.simulate import jobs_per_prompt, mean_service, rho

    loads = rho(asked)
    busiest = float(loads.max())
    rate, alpha, k, layers = asked.rates_hz[0], mean_service(asked), asked.proposers, asked.layers
    alike = len(asked.laws) == 1 and asked.graph is None and not hasattr(asked.laws[0], "columns")
    plain = alike and not asked.skip_aggregation
    latency = beyond = None
    if busiest < 1 and asked.graph is None and not asked.skip_aggregation:
        field = queueing.mean_field([rate] * asked.devices, asked.laws, layers, k)
        latency = {
            "mean": field.mean, "layer": field.layer, "aggregation": field.aggregation,
            "tag": "E" if layers == 0 else "A", "numerical_error": field.grid_error,
        }  # fmt: skip
    if busiest >= 1 and plain:
        stages = [alpha] * layers
        done = queueing.goodput(rate, stages, alpha, k)
        beyond = {
            "tag": "C", "root": queueing.fluid_root(rate, stages, alpha, k),
            "drift": queueing.drift(rate, stages, alpha, k) * alpha,
            "goodput": done, "goodput_of_limit": done * busiest / rate,
        }  # fmt: skip
    exponential = plain and isinstance(asked.laws[0], Exponential) and busiest < 1
    return {
        "n": asked.devices, "layers": layers, "proposers": k, "load": busiest, "rate": rate,
        "jobs_per_prompt": jobs_per_prompt(asked), "rho": [float(value) for value in loads],
        "limit_rate": rate / busiest if busiest else None, "stable": busiest < 1,
        "latency": latency, "overload": beyond,
        "join_buffer": queueing.join_buffer(rate, alpha, layers, k) if exponential else None,
        "best_choice_limit": queueing.best_limit_closed([_mean(asked, d) for d in range(asked.devices)], layers, k)
        if asked.graph is None and layers and not asked.skip_aggregation and min(loads) > 0 else None,
    }  # fmt: skip


def told(found: dict[str, Any]) -> list[str]:
    """The same for people. Every line says how sure it is: [E] exact, [A] approximate, [C] confirmed by simulation."""
    n, load = found["n"], found["load"]
    devices = f"{n} device" + ("" if n == 1 else "s")
    lines = [
        f"{devices}, M={found['layers']} k={found['proposers']}: {found['jobs_per_prompt']:g} jobs a prompt",
        f"[E] load of the busiest device {load:.4g} at {found['rate']:.4g} prompts/s and device: "
        + ("the queues stay bounded" if load < 1 else "its queue grows without bound"),
    ]
    if found["limit_rate"] is not None:
        lines.append(f"[E] limit {found['limit_rate']:.4g} prompts/s and device")
    if found["best_choice_limit"] is not None and found["best_choice_limit"] > found["limit_rate"] * 1.001:
        lines.append(
            f"[E] no choice of peers can raise the limit beyond {found['best_choice_limit']:.4g} prompts/s"
        )
    if latency := found["latency"]:
        error = (
            ""
            if latency["tag"] == "E"
            else ", mean field: −6 to +16 % for exponential service, up to +36 % for fixed"
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
