"""`folkmoot simulate`: one question to the compiled simulator, or to the real protocol in virtual time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.cli.cluster import WorkerLost, cluster, cluster_options, cores, watched
from folkmoot.cli.exits import Interrupted, end_line
from folkmoot.cli.model import (
    model_options,
    question_of,
    require_sim,
    select_option,
    tell_columns,
    tell_neighbours,
    with_flags,
)
from folkmoot.cli.options import Finite, json_option, print_json
from folkmoot.cli.progress import Progress
from folkmoot.cli.world import WORLD, setting_of, world_options
from folkmoot.errors import TheoryError

if TYPE_CHECKING:
    from folkmoot.queueing.estimate import Interval
    from folkmoot.queueing.moot import Question, Result
    from folkmoot.sim.load import Setting

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

MOST_REPS = 100_000
MOST_PROMPTS = 1_000_000_000
ERRS = "the verdict errs in one of 25 runs; another --seed, or more --reps, will tell"
HORIZON, CORE_HORIZON = 20_000, 1_500
"""Services per device of a replication. The real protocol does some 3,000 a second and core: the default moot takes 10 s on two."""
RUN: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--seed",
        type=click.IntRange(0, (1 << 63) - 1),
        default=1,
        show_default=True,
        help="The same seed gives the same result.",
    ),
    click.option(
        "--reps",
        type=click.IntRange(1, MOST_REPS),
        default=10,
        show_default=True,
        help="Independent replications.",
    ),
    click.option(
        "--horizon",
        type=Finite(1e-3, 1e9),
        help="How long each lasts, in services per device; the first fifth is not counted. "
        f"[default: {HORIZON}; of the real protocol {CORE_HORIZON}]",
    ),
    click.option(
        "--mode",
        type=click.Choice(["steady", "paper"]),
        default="steady",
        show_default=True,
        help="steady: a long run with intervals; paper: --prompts of them from an empty start, drained to empty.",
    ),
    click.option(
        "--prompts", type=click.IntRange(1, MOST_PROMPTS), help="Prompts of the mode paper. [default: 10]"
    ),
    click.option(
        "--discipline",
        type=click.Choice(["fcfs", "lsf"]),
        default="fcfs",
        show_default=True,
        help="fcfs: first come first served; lsf: the job of the latest stage first.",
    ),
    click.option(
        "--admit",
        type=click.IntRange(1, MOST_PROMPTS),
        metavar="B",
        help="Refuse a prompt where so many jobs wait at its device.",
    ),
    select_option,
    click.option(
        "--view-age",
        type=Finite(0, 1e9),
        metavar="SECONDS",
        help="best-of sees queues as they were at the last multiple of so many seconds, and adds what the origin has "
        "sent since. [default: as they are]",
    ),
)


def run_options(command: F) -> F:
    """How it is simulated: the flags of `simulate` that are not of the moot."""
    return with_flags(RUN, command)


@click.command()
@model_options
@run_options
@world_options
@cluster_options
@json_option
def simulate(
    workers: int | None,
    backend: str,
    address: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Simulate a moot in virtual time, with intervals over replications."""
    require_sim()
    workers = cores(workers, address)
    setting = setting_of(**{name: flags.pop(name) for name in WORLD})
    if setting is not None and flags["horizon"] is None:
        flags["horizon"] = CORE_HORIZON
    asked = asked_of(**flags)
    tell_columns(asked)
    tell_neighbours(asked, flags["select"])
    if setting is not None:
        setting.check(asked)
    if setting is not None and flags["rate"] is None:  # --load is that of the busiest device as it is set
        from folkmoot.queueing.moot import rho_most
        from folkmoot.sim.reference import offered

        if asked.quorum and not setting.plain:
            raise TheoryError(
                "--load: with a quorum and another aggregator, stages or stops it is not known; give --rate"
            )
        more_hz = rho_most(asked).max() / offered(asked, setting).max()
        asked = replace(asked, rates_hz=tuple(float(rate * more_hz) for rate in asked.rates_hz))
    lost: list[WorkerLost] = []
    with cluster(backend, workers, address):
        if setting is None:
            found, more, lines = run(asked, workers, lost), dict[str, Any](), list[str]()
        else:
            found, more, lines = _run_core(asked, setting, workers, lost)
    if as_json:
        from folkmoot.queueing.frames import document

        print_json(document(found) | {"select": flags["select"]} | more)
    else:
        for line in (*told(found), *lines):
            click.echo(line)
    done = found.question.replications
    for error in lost:
        raise WorkerLost(
            f"{error}; the result is of the {done} of {asked.replications} replications that were done"
        )
    if done < asked.replications:
        raise Interrupted(
            f"interrupted: the result is of the {done} of {asked.replications} replications that were done"
        )


def asked_of(
    seed: int,
    reps: int,
    horizon: float | None,
    mode: str,
    prompts: int | None,
    discipline: str,
    admit: int | None,
    select: str,
    view_age: float | None,
    **flags: Any,
) -> Question:
    """The flags as a question. Raises as `question_of` does."""
    if prompts is not None and mode != "paper":
        raise click.UsageError("--prompts belongs to --mode paper")
    if horizon is not None and mode == "paper":
        raise click.UsageError(
            "--horizon belongs to --mode steady; the mode paper lasts as long as its --prompts do"
        )
    if view_age is not None and not select.startswith("best-of:"):
        raise click.UsageError("--view-age belongs to --select best-of:D")
    count = (prompts or 10) if mode == "paper" else 0
    return question_of(
        **flags,
        select=select,
        horizon=HORIZON if horizon is None else horizon,
        prompts=count,
        replications=reps,
        seed=seed,
        discipline=discipline,
        admit=admit or 0,
        view_s=view_age or 0.0,
    )


def run(asked: Question, workers: int | None, lost: list[WorkerLost]) -> Result:
    """The answer with progress on stderr. Ctrl-C ends it early: it is then of the replications that are done.

    So does the loss of a worker, which is put into `lost`.
    """
    from folkmoot.queueing.moot import replications, summary

    began = time.perf_counter()
    done = _collected(replications(asked, workers), asked.replications, lost)
    found = summary(replace(asked, replications=len(done)), done)
    return replace(found, wall_s=time.perf_counter() - began)


def _run_core(
    asked: Question, setting: Setting, workers: int | None, lost: list[WorkerLost]
) -> tuple[Result, dict[str, Any], list[str]]:
    """The same by the real protocol: the result, what its JSON has besides, and more lines for people."""
    from folkmoot.sim.reference import replications, summed

    began = time.perf_counter()
    done = _collected(replications(asked, setting, workers), asked.replications, lost)
    seen = summed(replace(asked, replications=len(done)), setting, done)
    ends = {code or "answered": count for code, count in sorted(seen.ends.items())}
    more = {"core": True, "ends": ends, "availability": seen.availability, "failures": seen.failures}
    lines = [
        f"the real protocol in virtual time: {', '.join(f'{count} {code}' for code, count in ends.items())}"
    ]
    if seen.failures:
        lines.append(
            f"{seen.failures} failures; {100 * seen.availability:.2f} % of the prompts were answered"
        )
    return replace(seen.result, wall_s=time.perf_counter() - began), more, lines


def _collected(runs: Iterator[T], count: int, lost: list[WorkerLost]) -> list[T]:
    done: list[T] = []
    with Progress("replications", count) as bar:
        try:
            for one in watched(runs):
                done.append(one)
                bar.step()
        except (KeyboardInterrupt, WorkerLost) as end:
            if not done:
                raise
            if isinstance(end, WorkerLost):
                lost.append(end)
            else:
                end_line()
    return done


def told(found: Result) -> list[str]:
    """The result for people, the theory beside it."""
    from folkmoot.queueing.moot import any_peers

    asked, rates = found.question, found.inferences / max(found.kernel_s, 1e-9)
    most = max(found.rho) if any_peers(asked) else math.inf
    busiest = f"{max(found.rho):.4g}"
    if math.isnan(max(found.rho)):
        busiest = f"at most {max(found.rho_most):.4g} (how much less with this quorum is not known)"
    lines = [
        f"{asked.devices} device{'' if asked.devices == 1 else 's'}, M={asked.layers} k={asked.proposers}, {asked.rates_hz[0]:.4g} prompts/s and device, "
        f"load of the busiest{' with any peers' if asked.best_of else ''} {busiest}"
    ]
    if asked.prompts:
        lines.append(f"{asked.prompts} prompts from empty to empty, {asked.replications} times")
    else:
        lines.append(
            f"{found.verdict}: the number waiting grows by {_text(found.drift)} jobs per service time and device"
        )
        if found.growing:
            first = max(range(asked.devices), key=lambda device: found.per_device[device].drift)
            lines.append(
                f"it grows at {found.growing} of {asked.devices} devices, most at device {first}: "
                f"{found.per_device[first].drift:.4g}"
            )
    names = ("half below", "nine in ten below", "99 % below")
    known = [f"{name} {each:.4g}" for name, each in zip(names, found.quantiles, strict=True) if each == each]
    lines += [
        "no prompt ended that is counted, so no latency is known"
        if math.isnan(found.latency.value)
        else f"latency {_text(found.latency)} s{';' if known else ''} {', '.join(known)}".rstrip(),
        *(
            [
                f"the load says that it is stable, and so small a growth that it is chance: {ERRS}"
                if most < 1.0 and found.drift.value < 0.01
                else "an unstable moot has no mean latency: this one grows with the horizon"
            ]
            if found.verdict == "unstable"
            else []
        ),
        f"waiting per device {_text(found.queue_size)}; in service {found.utilisation:.4g}",
        f"goodput {found.goodput.value:.4g} prompts/s and device" + _of_limit(found),
        *([f"{100 * found.refused:.1f} % of the prompts were refused"] if found.refused else []),
        f"{found.inferences:,} inferences, {rates:,.0f} a second and core",
    ]
    if not math.isnan(found.queue_size_script.value):
        lines.insert(-2, f"the paper's published script would say {_text(found.queue_size_script)} waiting")
    worst = max(range(asked.devices), key=lambda device: found.per_device[device].queue_size)
    if asked.devices > 1 and found.per_device[worst].queue_size > 2 * found.queue_size.value > 0:
        one = found.per_device[worst]
        lines.append(
            f"device {worst} waits most: {one.queue_size:.4g} jobs, {one.utilisation:.4g} in service"
        )
    return lines


def _of_limit(found: Result) -> str:
    if math.isnan(found.limit_rate) or found.question.prompts:
        return ""
    return f", {100 * found.goodput_of_limit:.1f} % of the rate at which the busiest device has no rest"


def _text(found: Interval) -> str:
    bounds = "" if math.isnan(found.low) else f" ({found.low:.4g} to {found.high:.4g})"
    return f"{found.value:.4g}{bounds}"
