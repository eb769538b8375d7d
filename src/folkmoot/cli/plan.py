"""`folkmoot plan`: which M and k may I run at this rate?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli.model import question_of
from folkmoot.cli.options import Finite, json_option, print_json

if TYPE_CHECKING:
    from folkmoot.queueing.simulate import Question


@click.command()
@click.option("--devices", "-n", type=click.IntRange(1), default=4, show_default=True, help="Devices, n.")
@click.option(
    "--rate", type=Finite(0, 1e9, min_open=True), required=True, help="Prompts per second and device, λ."
)
@click.option(
    "--service", metavar="DIST", default="exp:1", show_default=True, help="Service times, as in `simulate`."
)
@click.option(
    "--deadline",
    "deadline_s",
    type=Finite(0, 1e9, min_open=True),
    metavar="SECONDS",
    help="Longest expected latency of the choice.",
)
@click.option("--max-layers", type=click.IntRange(0, 8), default=3, show_default=True, help="Largest M.")
@click.option("--max-proposers", type=click.IntRange(0, 64), default=8, show_default=True, help="Largest k.")
@json_option
def plan(
    devices: int,
    rate: float,
    service: str,
    deadline_s: float | None,
    max_layers: int,
    max_proposers: int,
    as_json: bool,
) -> None:
    """Name every M and k that stay stable at a rate, their expected latency, and the best choice.

    The best is the one with most proposals a prompt, (k+1)M, that keeps the deadline; among equals the sooner one.
    That more proposals make better answers is the paper's premise, not something that this command knows.
    """
    rows = []
    for layers in range(max_layers + 1):
        for proposers in range(min(max_proposers, devices - 1) + 1 if layers else 1):
            asked = question_of(devices, layers, proposers, rate, None, service, "complete", 0.0)
            rows.append(_row(asked))
    stable = [row for row in rows if row["stable"]]
    kept = [row for row in stable if deadline_s is None or row["latency"] <= deadline_s]
    best = max(kept, key=lambda row: (row["proposals"], -row["latency"]), default=None)
    if as_json:
        print_json({"n": devices, "rate": rate, "deadline_s": deadline_s, "choices": rows, "best": best})
        return
    for row in stable:
        mark = "  <- best" if row is best else ""
        click.echo(
            f"M={row['layers']} k={row['proposers']}: load {row['load']:.3f}, "
            f"expected latency {row['latency']:.4g} s [{row['tag']}]{mark}"
        )
    click.echo(
        f"{len(rows) - len(stable)} of {len(rows)} choices are not stable at {rate:g} prompts/s and device"
    )
    if best is None:
        click.echo("no choice keeps the deadline" if stable else "not even M=0 is stable: lower the rate")


def _row(asked: Question) -> dict[str, Any]:
    from folkmoot import queueing
    from folkmoot.queueing.simulate import rho

    load = float(rho(asked).max())
    latency = None
    if load < 1:
        rates = [asked.rates_hz[0]] * asked.devices
        latency = queueing.mean_field(rates, asked.laws, asked.layers, asked.proposers, points=1 << 15).mean
    return {
        "layers": asked.layers,
        "proposers": asked.proposers,
        "proposals": (asked.proposers + 1) * asked.layers,
        "load": load,
        "stable": load < 1,
        "latency": latency,
        "tag": "E" if asked.layers == 0 else "A",
    }
