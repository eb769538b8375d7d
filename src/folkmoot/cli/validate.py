"""`folkmoot validate`: the theory's exact statements against the simulators."""

from __future__ import annotations

from typing import Any

import click

from folkmoot.cli.cluster import MOST_WORKERS, cores
from folkmoot.cli.model import require_sim
from folkmoot.cli.options import json_option, print_json
from folkmoot.cli.progress import Progress
from folkmoot.errors import TheoryMismatch


@click.command()
@click.option("--quick", is_flag=True, help="Shorter runs, wider intervals: within 50 s.")
@click.option(
    "--beyond",
    is_flag=True,
    help="Also what is known by simulation only: drift and goodput beyond the limit.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    help="Cores to use, at most all there are. [default: all]",
)
@json_option
def validate(quick: bool, beyond: bool, workers: int | None, as_json: bool) -> None:
    """Check every exact statement of the theory against a simulator; 1 % that any fails by luck."""
    require_sim()
    workers = cores(workers, None)
    from folkmoot.queueing import validate as compiled
    from folkmoot.sim import exact as core

    stated = [*compiled.cases(beyond=beyond), *core.cases(beyond=beyond)]
    rows, failed = list[dict[str, Any]](), 0
    with Progress("cases", len(stated)) as bar:
        for outcome in compiled.validate(stated, quick=quick, workers=workers):
            case, seen = outcome.case, outcome.simulation
            failed += outcome.verdict != "ok"
            rows.append(
                {
                    "name": case.name,
                    "tag": case.tag,
                    "theory": case.theory,
                    "simulation": seen.value,
                    "low": seen.low,
                    "high": seen.high,
                    "verdict": outcome.verdict,
                }
            )
            if not as_json:
                limit = {-1: "at most ", 0: "", 1: "at least "}[case.bound]
                bar.say(
                    f"{outcome.verdict:<8}  [{case.tag}] {case.name}: {limit}{case.theory:.5g}, "
                    f"simulated {seen.value:.5g} ({seen.low:.5g} to {seen.high:.5g})"
                )
            bar.step()
    if as_json:
        print_json({"cases": rows, "failed": failed})
    else:
        click.echo(f"{len(rows) - failed} of {len(rows)} statements hold")
    if failed:
        raise TheoryMismatch(
            f"{failed} of {len(rows)} statements do not hold; their lines begin with mismatch, or too wide"
        )
