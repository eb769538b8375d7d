"""`folkmoot load`: an open load on live devices, what was measured, and the theory and simulation beside it."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli import exits
from folkmoot.cli.console import counted
from folkmoot.cli.model import MOST_RATE, question_of, require_sim
from folkmoot.cli.open_loop import Driven, Look, answers, drive, poisson, written
from folkmoot.cli.options import (
    Finite,
    Form,
    config_option,
    json_option,
    print_json,
    settings_of,
    shape_options,
)
from folkmoot.cli.progress import PLAIN_S, TERMINAL_S, Progress, span
from folkmoot.cli.signals import ending
from folkmoot.errors import ConfigError, NodeError

if TYPE_CHECKING:
    from folkmoot.queueing.moot import Question

PROMPT = "Which way is the wind?"
PLAIN = {
    "node.peer.max_prompts": "1000000", "node.peer.queue.max_waiting": "1000000", "node.peer.max_wait_s": "0",
    "node.peer.hedge.share": "0", "node.peer.breaker.failures": "0",
}  # fmt: skip
"""Without admission the moot is the paper's: nothing is refused, and nobody is asked beside those who were drawn."""

ALONE: Mapping[str, None] = {"theory": None, "simulated": None}
"""What stands beside a result where nothing does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of whom: `layers` None means mode auto."""

    urls: tuple[str, ...]
    start: int
    engines: tuple[str, ...]
    rate_hz: float
    seconds: float
    drain_s: float
    layers: int | None
    proposers: int
    discipline: str
    admission: str
    seed: int
    select: str = "uniform"
    arrivals: Path | None = None
    key: str = ""


@click.command()
@click.option(
    "--rate", type=Finite(1e-6, MOST_RATE), metavar="R",
    help="Prompts per second that each device is asked, at random moments that wait for nobody.",
)  # fmt: skip
@click.option(
    "--arrivals", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Moments instead of a rate: a line each, seconds from the beginning, and after a comma the device's number, from 0.",
)  # fmt: skip
@shape_options
@click.option(
    "--select", type=Form(r"uniform|best-of:[1-9][0-9]{0,3}", "uniform or best-of:D"), metavar="uniform|best-of:D",
    default="uniform", show_default=True,
    help="Which peers are asked where -M is given: any, or of D drawn those with the least expected delay.",
)  # fmt: skip
@click.option(
    "--seconds", type=Finite(1.0, 86_400.0),
    help="So long prompts come. [default: 60, or to the last of the --arrivals]",
)  # fmt: skip
@click.option(
    "--drain", "drain_s", type=Finite(0.0, 86_400.0), default=30.0, show_default=True,
    help="So long it waits then for those that are open.",
)  # fmt: skip
@click.option(
    "--at", "urls", multiple=True, metavar="URL",
    help="A device's API; give each of the moot's devices. [default: the one that runs here]",
)  # fmt: skip
@click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="It holds the API key of the devices of --at. [the device that runs here needs none]",
)  # fmt: skip
@click.option(
    "--start", type=click.IntRange(1, 64), metavar="N",
    help="Start so many devices on this machine for it, and take them down again.",
)  # fmt: skip
@click.option(
    "--engine", "engines", multiple=True, metavar="SPEC",
    help="Engines of --start, in turn. [default: timed:exp:0.2]",
)  # fmt: skip
@click.option(
    "--discipline", type=click.Choice(["fcfs", "lsf"]), default="lsf", show_default=True,
    help="Which job is served next: of the devices of --start, and of the simulation beside the others.",
)  # fmt: skip
@click.option(
    "--admission", type=click.Choice(["on", "off"]), default="on", show_default=True,
    help="Of the devices of --start: at a price per job, or whatever is asked for.",
)  # fmt: skip
@click.option(
    "--service", metavar="DIST",
    help="Service times for the theory. [default: exponential with the mean that the devices measured]",
)  # fmt: skip
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw it: .png, .svg or .pdf.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the moments and who is asked."
)
@json_option
@config_option
def load(
    rate: float | None,
    arrivals: Path | None,
    layers: int | None,
    proposers: int | None,
    select: str,
    seconds: float | None,
    drain_s: float,
    urls: tuple[str, ...],
    key_file: Path | None,
    start: int | None,
    engines: tuple[str, ...],
    discipline: str,
    admission: str,
    service: str | None,
    plot: Path | None,
    seed: int,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Load live devices with prompts at random moments, and say what came of it beside what the theory says.

    With -M the prompts are asked in mode fixed, else auto. Each prompt's latency counts from the moment when it was due.
    """
    require_sim()
    if start and urls:
        raise click.UsageError("--start brings devices of its own, and --at names others; give one of them")
    if key_file is not None and not urls:
        raise click.UsageError("--key-file belongs to --at")
    if engines and not start:
        raise click.UsageError("--engine belongs to --start")
    if proposers and not layers:
        raise click.UsageError(f"-k {proposers} needs a layer; give -M 1 or more")
    if start and proposers is not None and proposers > start - 1:
        raise click.UsageError(
            f"-k {proposers} asks more peers than the {start - 1} that --start {start} leaves"
        )
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise click.UsageError(f"--plot {plot}: it ends in .png, .svg or .pdf")
    if plot is not None and not plot.parent.is_dir():
        raise click.UsageError(f"--plot {plot}: there is no folder {plot.parent}; make it first")
    if select != "uniform" and not layers:
        raise click.UsageError(f"--select {select} needs a layer; give -M 1 or more")
    if (rate is None) == (arrivals is None):
        raise click.UsageError("how many prompts come? Give --rate or --arrivals, one of them")
    if arrivals is not None:
        moments = written(arrivals, start or max(1, len(urls)), seed)
        seconds = seconds or max(1.0, moments[-1][0])
        rate = sum(at < seconds for at, _ in moments) / seconds / (start or max(1, len(urls)))
    assert rate is not None  # one of the two was given
    asked = Asked(
        urls, start or 0, engines or ("timed:exp:0.2",), rate, seconds or 60.0, drain_s, layers,
        (3 if proposers is None else proposers) if layers else 0, discipline, admission, seed, select, arrivals,
        "" if key_file is None else _key_of(key_file),
    )  # fmt: skip
    if service is not None:
        _question(
            asked, max(2, asked.start, len(urls)), service
        )  # what is wrong with it is told before, not after
    names, driven = exits.wait_for(_run(asked, config_file))
    found, interrupted = {**measured(asked, names, driven), **ALONE}, False
    try:
        found.update(_beside(asked, names, driven, service))
    except KeyboardInterrupt:
        exits.end_line()
        interrupted = True
    if plot is not None:
        _draw(found, driven, plot)
    if as_json:
        print_json(found)
    else:
        for line in told(found):
            click.echo(line)
        if plot is not None:
            click.echo(f"drawn: {plot}")
    if interrupted:
        raise exits.Interrupted("interrupted: the result is without theory and simulation")


def _key_of(file: Path) -> str:
    try:
        key = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--key-file {file} cannot be read: {error}") from None
    if not key.isprintable() or not key or " " in key:
        raise ConfigError(f"--key-file {file}: it holds an API key and nothing else")
    return key


async def _run(asked: Asked, config_file: Path | None) -> tuple[list[str], Driven]:
    from folkmoot.cli.client import local_api
    from folkmoot.cli.village import village
    from folkmoot.settings import child_environ

    task = asyncio.current_task()
    assert task is not None  # asyncio.run made one
    for each in ending():
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    if asked.start:
        environ = child_environ(
            {
                "engine.threads": "1",
                "node.peer.queue.discipline": asked.discipline,
                "node.peer.price.enabled": "true" if asked.admission == "on" else "false",
                "node.peer.repute.enabled": "false",  # texts without a meaning agree by chance
                **({} if asked.admission == "on" else PLAIN),
            }
        )
        async with village(environ, exits.tell) as moot:
            await moot.start([asked.engines[index % len(asked.engines)] for index in range(asked.start)])
            return [each.name for each in moot.devices], await _driven(
                [each.api for each in moot.devices], asked
            )
    if asked.urls:
        return list(asked.urls), await _driven(asked.urls, asked)
    here = local_api(settings_of(config_file))
    return [here.url], await _driven([here.url], replace(asked, key=here.token), here.say_note)


async def _driven(urls: Sequence[str], asked: Asked, answered: Callable[[], None] = lambda: None) -> Driven:
    if not any(await asyncio.gather(*(answers(url, asked.key) for url in urls))):
        raise NodeError(f"no device answers at {', '.join(urls)}; start one with `folkmoot up`")
    answered()
    model = "moot" if asked.layers is None else f"moot-M{asked.layers}-k{asked.proposers}"
    body: dict[str, Any] = {
        "model": "local" if asked.layers == 0 else model,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    if asked.select != "uniform":
        body["folkmoot"] = {"select": asked.select}
    if asked.arrivals is None:
        moments = list(poisson(len(urls), asked.rate_hz, asked.seconds, asked.seed))
    else:
        moments = [each for each in written(asked.arrivals, len(urls), asked.seed) if each[0] < asked.seconds]
    progress = _Told(asked)
    driven = await drive(urls, asked.key, moments, body, asked.seconds, asked.drain_s, progress)
    progress.clear()
    if not any(sent.code != "unreachable" for sent in driven.sent):
        raise NodeError(
            f"none of {len(driven.sent)} prompts reached a device at {', '.join(urls)}; start one with `folkmoot up`"
            if driven.sent
            else f"no prompt came in {asked.seconds:g} s at {asked.rate_hz:g} a second; raise --rate or --seconds"
        )
    if not driven.looks:
        raise NodeError(f"no device at {', '.join(urls)} told what waits at it")
    return driven


class _Told:
    """How far it is, on stderr, now and then."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._said = 0.0

    def __call__(self, driven: Driven, now: float) -> None:
        if now - self._said < (TERMINAL_S if sys.stderr.isatty() else PLAIN_S):
            return
        self._said = now
        codes = Counter(sent.code for sent in driven.sent if sent.due <= now)
        text = f"{codes.total()} prompts, {codes['']} answered, {codes['overloaded']} refused; "
        if (left_s := self._asked.seconds - now) > 0:
            waiting = [look.queue for look in driven.looks if look.at > now - 1.0]
            text += f"{sum(waiting) / max(1, len(waiting)):.1f} jobs wait at each device; {span(left_s)} left"
        else:
            text += f"{codes['open']} open, waited for {span(max(0.0, left_s + self._asked.drain_s))} more at most"
        click.echo(f"\r{text}\x1b[K" if sys.stderr.isatty() else text, err=True, nl=not sys.stderr.isatty())

    def clear(self) -> None:
        """Leave an empty line where a terminal showed how far it is."""
        if sys.stderr.isatty() and self._said:
            click.echo("\r\x1b[K", err=True, nl=False)


# ---- what came of it ---------------------------------------------------------------------------------


def measured(asked: Asked, names: Sequence[str], driven: Driven) -> dict[str, Any]:
    """What was seen after the warm-up. Rates per second and device, times in seconds, queues in jobs per device.

    `drift` is the growth of the number waiting over the second half, in jobs per service time: the mean over the
    devices and its 95 % interval, which holds as far as devices are independent of each other. A device that told nothing of
    itself has None. `longest_first_wait_s`: that a first layer's job of an answered prompt waited. `went_in`: of the `due`
    prompts after the warm-up, how many were answered from how many answers in the layer that had the fewest.
    """
    import numpy as np

    from folkmoot.queueing.estimate import interval
    from folkmoot.queueing.moot import WARM_UP

    start, n = WARM_UP * asked.seconds, len(names)
    looks = [[look for look in driven.looks if look.device == device] for device in range(n)]
    settled = [[look for look in some if look.at >= start] for some in looks]
    late = [[look for look in some if look.at >= asked.seconds / 2] for some in looks]
    service_s = float(np.mean([some[-1].service_s for some in looks if some]))
    due = [sent for sent in driven.sent if sent.due >= start]
    took = [sent.latency_s for sent in due if not sent.code]
    ended = sum(not sent.code and start <= sent.ended < asked.seconds for sent in driven.sent)
    codes = Counter(sent.code for sent in driven.sent)
    slopes = [_growth(some) if len(some) > 1 else math.nan for some in late]
    drift = interval([each * service_s for each in slopes])
    plans = Counter((sent.layers, sent.proposers) for sent in due if not sent.code)
    answers = Counter((sent.layers, sent.answers) for sent in due if not sent.code)
    p50, p90, p99 = np.quantile(took, [0.5, 0.9, 0.99]).tolist() if took else (None, None, None)
    return {
        "n": n, "devices": list(names), "rate": asked.rate_hz, "seconds": asked.seconds,
        "mode": "auto" if asked.layers is None else "fixed", "layers": asked.layers,
        "proposers": None if asked.layers is None else asked.proposers, "discipline": asked.discipline, "select": asked.select,
        "prompts": len(driven.sent), "answered": codes[""], "refused": codes["overloaded"], "open": codes["open"],
        "failed": {code: count for code, count in sorted(codes.items()) if code not in ("", "overloaded", "open")},
        "goodput": ended / (asked.seconds - start) / n,
        "latency": {"mean": float(np.mean(took)) if took else None, "p50": p50, "p90": p90, "p99": p99},
        "longest_first_wait_s": max((sent.first_wait_s for sent in due if not sent.code), default=None),
        "queue_size": float(np.mean([look.queue for some in settled for look in some])) if any(settled) else None,
        "in_service": [float(np.mean([look.busy for look in some])) if some else None for some in settled],
        "utilisation": [_share(some) for some in settled],
        "drift": {"value": _known(drift.value), "low": _known(drift.low), "high": _known(drift.high)},
        "drifts": [_known(each * service_s) for each in slopes],
        "service_s": service_s,
        "plans": [{"layers": m, "proposers": k, "prompts": count} for (m, k), count in sorted(plans.items())],
        "due": len(due), "went_in": [{"layers": m, "answers": a, "prompts": count} for (m, a), count in sorted(answers.items())],
        "seed": asked.seed,
    }  # fmt: skip


def _growth(looks: Sequence[Look]) -> float:
    """Jobs a second by which the number waiting grows: least squares, at the moments when it was seen, two at least."""
    middle = sum(look.at for look in looks) / len(looks)
    spread = sum((look.at - middle) ** 2 for look in looks)
    return sum((look.at - middle) * look.queue for look in looks) / spread if spread else math.nan


def _share(looks: Sequence[Look]) -> float | None:
    """Seconds of service a second, as the device itself counts them when a job ends."""
    span = looks[-1].at - looks[0].at if looks else 0.0
    return (looks[-1].busy_s - looks[0].busy_s) / span if span > 0 else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _question(asked: Asked, devices: int, service: str) -> Question:
    """The same load as a question to theory and simulator."""
    layers = asked.layers or 0
    found = question_of(
        devices, layers, asked.proposers if layers else None, asked.rate_hz, None, service, "complete", 0.0,
        select=asked.select, replications=8, seed=asked.seed, discipline=asked.discipline,
    )  # fmt: skip
    jobs = (found.proposers + 1) * layers + 1
    return replace(found, horizon=max(1.0, asked.seconds * asked.rate_hz * jobs))


def _beside(asked: Asked, names: Sequence[str], driven: Driven, service: str | None) -> Mapping[str, Any]:
    """Theory and simulation of the same load where M and k are fixed; why there are none is told on stderr."""
    looks = [look.service_s for look in driven.looks[-len(names) :] if look.service_s]
    if why := _alone(asked, len(names), bool(service or looks)):
        exits.tell(f"no theory and no simulation beside it: {why}")
        return ALONE
    from folkmoot.cli.theory import facts
    from folkmoot.queueing.frames import document
    from folkmoot.queueing.moot import replications, summary

    question = _question(asked, len(names), service or f"exp:{sum(looks) / len(looks):.6g}")
    exits.tell(
        "simulating the same load; for the first time on a machine this compiles, which takes a minute or two"
    )
    done = []
    with Progress("replications of the simulation", question.replications) as bar:
        for one in replications(question):
            done.append(one)
            bar.step()
    keep = ("verdict", "drift", "latency", "queue_size", "goodput", "goodput_of_limit", "utilisation")
    seen = summary(question, done)
    simulated = document(seen)
    told = {name: simulated[name] for name in keep}
    told |= {"goodput_low": _known(seen.goodput.low), "goodput_high": _known(seen.goodput.high)}
    return {"theory": facts(question), "simulated": told}


def _alone(asked: Asked, devices: int, service: bool) -> str:
    """Why there is nothing to put beside what was measured; empty where there is."""
    if asked.layers is None:
        return "in mode auto the moot chooses M and k for each prompt; give -M and -k"
    if asked.proposers >= devices:
        loaded = f"of {counted(devices, 'device')} none can ask {asked.proposers} others"
        return f"{loaded}; name each of the moot's devices with --at, or give a smaller -k"
    return "" if service else "no device told how long a job takes; give --service"


def told(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    latency, drift, theory, simulated = (found[name] for name in ("latency", "drift", "theory", "simulated"))
    lines = [
        f"{found['prompts']} prompts in {found['seconds']:g} s at {counted(found['n'], 'device')}: {found['answered']} answered, "
        f"{found['refused']} refused, {found['open']} open at the end"
        + "".join(f", {count} {code}" for code, count in found["failed"].items()),
        f"goodput {found['goodput']:.4g} prompts/s and device"
        + (f", {found['goodput'] / theory['limit_rate']:.3g} of the limit" if theory else ""),
    ]
    if latency["mean"] is not None:
        beside = (
            f" (simulated {simulated['latency']['mean']:.4g})"
            if simulated and simulated["latency"]["mean"]
            else ""
        )
        lines.append(
            f"latency {latency['mean']:.4g} s{beside}; half below {latency['p50']:.4g}, 99 % below {latency['p99']:.4g}"
        )
        lines.append(f"a job of a first layer waited for {found['longest_first_wait_s']:.4g} s at most")
    beside = f" (simulated {simulated['queue_size']['mean']:.4g})" if simulated else ""
    if found["queue_size"] is None or drift["value"] is None:
        lines.append("no device told for long enough what waits at it")
    else:
        lines.append(f"{found['queue_size']:.4g} jobs wait at each device{beside}")
        bounds = "" if drift["low"] is None else f" ({drift['low']:.3g} to {drift['high']:.3g})"
        beside = f"; theory {theory['overload']['drift']:.3g}" if theory and theory["overload"] else ""
        lines.append(f"which grows by {drift['value']:.3g}{bounds} jobs per service time{beside}")
    if found["mode"] == "auto":
        plans = ", ".join(f"M={p['layers']} k={p['proposers']}: {p['prompts']}" for p in found["plans"])
        lines.append(f"chosen, of prompts that count (after the warm-up): {plans or 'none was answered'}")
    return lines


def _draw(found: Mapping[str, Any], driven: Driven, path: Path) -> None:
    """Jobs waiting, latency and prompts that ended, over time; the theory as dashes, the simulation's intervals as bands."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("matplotlib is not installed; run: pip install 'folkmoot[sim]'") from None
    figure = Figure(figsize=(8, 11), layout="constrained")
    FigureCanvasAgg(figure)
    waiting, latency, ended = figure.subplots(3, 1, sharex=True)
    seconds, theory, simulated = found["seconds"], found["theory"], found["simulated"]
    over = theory and theory["overload"]
    for device, name in enumerate(found["devices"]):
        some = [look for look in driven.looks if look.device == device]
        waiting.plot([each.at for each in some], [each.queue for each in some], linewidth=0.8, label=name)
    done = sorted((sent.ended, sent) for sent in driven.sent if not sent.code)
    latency.plot([sent.due for _, sent in done], [sent.latency_s for _, sent in done], ".", markersize=3)
    ended.plot([at for at, _ in done], [(place + 1) / found["n"] for place in range(len(done))], linewidth=1)
    if simulated:
        queue, span = simulated["queue_size"], simulated["latency"]
        waiting.axhspan(queue["low"], queue["high"], color="0.8", label="simulated, time average")
        if span["mean_low"] is not None:
            latency.axhspan(span["mean_low"], span["mean_high"], color="0.8", label="simulated mean")
        low, high = (simulated[name] or simulated["goodput"] for name in ("goodput_low", "goodput_high"))
        ended.fill_between(
            [0, seconds], [0, low * seconds], [0, high * seconds], color="0.7", label="simulated"
        )
    if over:
        grows = over["drift"] / found["service_s"]
        waiting.plot([0, seconds], [0, grows * seconds], "k--", label="theory")
    if theory and theory["latency"]:
        latency.axhline(theory["latency"]["mean"], color="k", linestyle="--", label="theory's mean")
    if theory:
        rate = over["goodput"] if over else found["rate"]
        ended.plot([0, seconds], [0, rate * seconds], "k--", label="theory")
    waiting.set_ylabel("jobs waiting")
    latency.set_ylabel("latency, s")
    ended.set_ylabel("prompts ended per device")
    ended.set_xlabel("seconds")
    for axes in (waiting, latency, ended):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plot {path} cannot be written: {error}") from error
