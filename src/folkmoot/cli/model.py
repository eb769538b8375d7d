"""Flags that describe a moot to the theory and the simulator, and the question that they make."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.cli.console import counted
from folkmoot.cli.exits import tell
from folkmoot.cli.options import Finite
from folkmoot.core.choice import MAX_LAYERS, MAX_PROPOSERS
from folkmoot.errors import ConfigError, TheoryError

if TYPE_CHECKING:
    from folkmoot.queueing.moot import Question

F = TypeVar("F", bound=Callable[..., Any])
MOST_DEVICES = 10**12
LEAST_RATE, MOST_RATE = 1e-12, 1e9
LEAST_LOAD = 1e-9
"""What a run's length is divided by, which is then finite."""
RATE = Finite(LEAST_RATE, MOST_RATE)
NAMED_BYTES = 400
"""Of a device's place in a ring or a star while it is made, about."""
SHOWN = 4
"""Columns of a trace that are told by name."""

REACH: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--topology", metavar="GRAPH", default="complete", show_default=True,
        help="Who may ask whom: complete, ring, star, or a FILE with a line of numbers (from 0) a device.",
    ),
    click.option(
        "--skip-aggregation", type=Finite(0, 1), default=0.0, show_default=True, metavar="P",
        help="The chance that a prompt ends with its last layer.",
    ),
    click.option(
        "--quorum", type=click.IntRange(1, MAX_PROPOSERS + 1), metavar="Q", help="Answers that end a layer; the rest is cancelled."
    ),
)  # fmt: skip
service_option = click.option(
    "--service", metavar="DIST", default="exp:1", show_default=True,
    help="exp:MEAN, det:MEAN, lognormal:MEAN:CV, weibull:MEAN:SHAPE or trace:FILE[:COLUMNS[:MEAN]], in seconds; "
    "one for all devices, or one a device with commas. A trace has one row a prompt; COLUMNS are names joined by + "
    "(A+B), which the devices have in turn. [COLUMNS: all that hold numbers]",
)  # fmt: skip
select_option = click.option(
    "--select", metavar="uniform|best-of:D|fixed:N+N", default="uniform", show_default=True,
    help="Which peers are asked: any, of D drawn those with the least mean service times jobs there, or the devices with "
    "these numbers (from 0), each by all others.",
)  # fmt: skip
JUDGE: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--keep", type=click.IntRange(1, MAX_PROPOSERS + 1), metavar="R",
        help="Let a judge, one more job of the origin after each layer, pick the R answers that go on, as `ask` does.",
    ),
    click.option("--early-stop", is_flag=True, help="Let that judge end the layers, too."),
    click.option(
        "--stop-chance", type=Finite(0, 1), default=0.0, show_default=True, metavar="P",
        help="The chance that it does, after each layer where it may.",
    ),
)  # fmt: skip
FLAGS: tuple[Callable[[Any], Any], ...] = (
    click.option("--devices", "-n", type=click.IntRange(1, MOST_DEVICES), default=4, show_default=True, help="Devices, n."),
    click.option(
        "-M", "--layers", "layers", type=click.IntRange(0, MAX_LAYERS), default=1, show_default=True,
        help="Layers before the aggregation.",
    ),
    click.option(
        "-k", "--proposers", "--peers", "proposers", type=click.IntRange(0, MAX_PROPOSERS), metavar="K",
        help="Peers asked per layer; the origin answers as well. [default: 3, or all there are]",
    ),
    click.option("--rate", type=RATE, help="Prompts per second and device, λ."),
    click.option(
        "--load", type=Finite(LEAST_LOAD, 1e3), help="The busiest device's ρ instead of a rate. [default: 0.8]"
    ),
    service_option,
    *REACH,
    *JUDGE,
)  # fmt: skip


def model_options(command: F) -> F:
    """The flags of `theory` and `simulate`."""
    return with_flags(FLAGS, command)


def reach_options(command: F) -> F:
    """Who may be asked, and when a layer or a prompt ends."""
    return with_flags(REACH, command)


def judge_options(command: F) -> F:
    """What is asked of a judge between layers."""
    return with_flags(JUDGE, command)


def with_flags(flags: tuple[Callable[[Any], Any], ...], command: F) -> F:
    """A command with flags, in their order."""
    for flag in reversed(flags):
        command = flag(command)
    return command


def require_sim() -> None:
    """Raise `ConfigError` where the extra `[sim]` is not installed."""
    missing = [
        name for name in ("numpy", "scipy", "numba", "joblib") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} not installed; run: pip install 'folkmoot[sim]'")


def question_of(
    devices: int,
    layers: int,
    proposers: int | None,
    rate: float | None,
    load: float | None,
    service: str,
    topology: str,
    skip_aggregation: float,
    quorum: int | None = None,
    select: str = "uniform",
    keep: int | None = None,
    early_stop: bool = False,
    stop_chance: float = 0.0,
    **more: Any,
) -> Question:
    """The flags as a question. Raises `ConfigError`, `TheoryError`, `click.UsageError`."""
    from dataclasses import replace

    require_sim()
    from folkmoot.core.law import parse_laws
    from folkmoot.engine.timed import read_table
    from folkmoot.queueing.moot import Question, rho
    from folkmoot.queueing.stability import Judge

    if rate is not None and load is not None:
        raise click.UsageError("--rate and --load say the same thing; give one of them")
    best_of, named = selected(select)
    graph = graph_of(topology, devices)
    if named:
        graph = _asking(named, devices, topology)
        asked_most = min(len(named), devices - 1)
        if layers and proposers not in (None, asked_most):
            raise click.UsageError(f"-k is {proposers}, but --select names {asked_most} peers; leave it out")
        graph, proposers = (graph, asked_most) if layers else (None, proposers)
    if proposers is None:
        most = devices - 1 if graph is None else max(map(len, graph), default=0)
        proposers = min(3, most) if layers else 0
    laws = parse_laws(service, read_table)
    if len(laws) not in (1, devices):
        raise ConfigError(f"--service has {len(laws)} laws for {devices} devices; give 1, or one a device")
    more |= {"quorum": quorum or 0, "best_of": best_of}
    if keep or early_stop or stop_chance:
        more["judge"] = Judge(keep or 0, early_stop, stop_chance)
    asked = Question(devices, layers, proposers, (rate or 1.0,), laws, graph, skip_aggregation, **more)
    if rate is None:
        busiest = float(max(rho(asked)))
        if math.isnan(busiest):
            raise TheoryError(
                "--load: with a quorum the load is known for equal devices with exponential service only; give --rate"
            )
        if busiest <= 0:
            raise TheoryError("--load needs a service that takes time; give --rate")
        asked = replace(asked, rates_hz=((0.8 if load is None else load) / busiest,))
    return asked


def selected(select: str) -> tuple[int, tuple[int, ...]]:
    """D of `best-of:D`, and the devices of `fixed:N+N`; 0 and none for `uniform`. Raises `click.UsageError`."""
    kind, _, rest = select.partition(":")
    numbers = rest.split("+")
    if select == "uniform":
        return 0, ()
    if all(each.isascii() and each.isdecimal() and len(each) < 10 for each in numbers):
        if kind == "fixed":
            return 0, tuple(map(int, numbers))
        if kind == "best-of" and len(numbers) == 1 and int(rest):
            return int(rest), ()
    raise click.UsageError(
        f"--select {select}: it is uniform, best-of:D with a whole number D from 1 on, or fixed:N+N with the numbers of devices"
    )


def tell_columns(asked: Question) -> None:
    """Say on stderr which device has which column of a trace, where there are several."""
    from folkmoot.core.law import Trace

    for law in dict.fromkeys(asked.laws):
        if isinstance(law, Trace) and len(law.columns) > 1:
            first = ", ".join(f"{device} has {name}" for device, name in enumerate(law.columns[:SHOWN]))
            more = ", ..." if len(law.columns) > SHOWN else ""
            tell(
                f"the trace's {len(law.columns)} columns are dealt to the devices in turn: {first}{more}; "
                "trace:FILE:A+B takes the columns A and B only"
            )


def tell_neighbours(asked: Question, select: str) -> None:
    """Say on stderr where a topology leaves devices fewer peers than k, which then ask all that they have."""
    if asked.graph is None or not asked.layers or select.startswith("fixed:"):
        return
    few = [len(peers) for peers in asked.graph if len(peers) < asked.proposers]
    if few:
        tell(
            f"k is {asked.proposers}, but {len(few)} of {counted(asked.devices, 'device')} may ask fewer by this --topology "
            f"({min(few)} at least) and ask all of these"
        )


def _asking(named: tuple[int, ...], devices: int, topology: str) -> tuple[tuple[int, ...], ...]:
    """Who may ask whom where the same devices are asked by all: each of these the others, as nobody asks itself."""
    from folkmoot.queueing.memory import check

    text = f"--select fixed:{'+'.join(map(str, named))}"
    if topology.strip() != "complete":
        raise click.UsageError(f"{text}: it says who is asked, and so does --topology; give one of them")
    for each in named:
        if each >= devices:
            raise click.UsageError(f"{text}: no device {each}; they are numbered 0 to {devices - 1}")
        if named.count(each) > 1:
            raise click.UsageError(f"{text}: device {each} stands there twice")
    if len(named) > MAX_PROPOSERS:
        raise click.UsageError(f"{text}: {len(named)} devices, and {MAX_PROPOSERS} can be asked")
    if len(named) == 1:
        raise click.UsageError(f"{text}: device {named[0]} would have nobody to ask; name two or more")
    check(16 * (1 + len(named)) * devices)
    others = {each: tuple(other for other in named if other != each) for each in named}
    return tuple(others.get(device, named) for device in range(devices))


def graph_of(topology: str, devices: int) -> tuple[tuple[int, ...], ...] | None:
    """A topology by name or from a file; None is the complete graph. Raises `ConfigError`, `TheoryError`."""
    from folkmoot.queueing.memory import check

    if topology in ("ring", "star"):
        check(NAMED_BYTES * devices)
    match topology.strip():
        case "":
            raise ConfigError("--topology is empty; it is complete, ring, star, or a file")
        case "complete":
            return None
        case "ring":
            around = [{(device + step) % devices for step in (-1, 1)} - {device} for device in range(devices)]
            return tuple(tuple(sorted(each)) for each in around)
        case "star":
            return (tuple(range(1, devices)), *((0,) for _ in range(1, devices)))
        case _:
            return _read_graph(Path(topology), devices)


def _read_graph(path: Path, devices: int) -> tuple[tuple[int, ...], ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--topology {path}: it is no name (complete, ring, star), and no file that can be read: {error}"
        ) from None
    while len(lines) > devices and not lines[-1].strip():
        lines.pop()  # an empty line elsewhere is a device that may ask nobody
    try:
        return tuple(tuple(map(int, line.split())) for line in lines)
    except ValueError:
        raise ConfigError(
            f"--topology {path}: every line must hold the numbers of the devices it may ask"
        ) from None
