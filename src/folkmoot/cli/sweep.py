"""`folkmoot sweep`: a grid of questions to the simulator, kept row by row."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli.cluster import WorkerLost, cluster, cluster_options, cores, watched
from folkmoot.cli.exits import Interrupted, end_line, tell
from folkmoot.cli.model import (
    LEAST_LOAD,
    LEAST_RATE,
    MOST_RATE,
    reach_options,
    require_sim,
    service_option,
    tell_columns,
)
from folkmoot.cli.options import json_option, print_json
from folkmoot.cli.progress import Progress
from folkmoot.cli.simulate import asked_of, run_options
from folkmoot.core.choice import MAX_LAYERS, MAX_PROPOSERS
from folkmoot.errors import ConfigError

if TYPE_CHECKING:
    from folkmoot.queueing.frames import Row
    from folkmoot.queueing.moot import Question

MOST = 100_000
"""Numbers in a list, so that a slip in a step is told and not computed."""
GRID: dict[str, tuple[float, ...]] = {
    "devices": (4, 16, 64),
    "layers": (1, 2),
    "proposers": (1, 3),
    "load": (0.3, 0.5, 0.7, 0.8, 0.9, 1.1, 1.3, 1.6, 2.0),
}
"""What is swept where no flag says it: a small picture of the stability region."""


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas, and ranges FROM:TO:STEP with both ends (the step of whole numbers may be left out)."""

    name = "list"

    def __init__(self, least: float, most: float, *, whole: bool = False) -> None:
        self.least, self.most, self.whole = least, most, whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """All of them in the order in which they were given, each once."""
        try:
            found = list(itertools.islice(self._all(str(value)), MOST + 1))
        except ValueError:
            example = "1,2,4 or 1:4" if self.whole else "0.5,0.8 or 0.5:1.5:0.1"
            self.fail(f"{value!r} is no list of numbers; write it like {example}", param, ctx)
        if len(found) > MOST:
            self.fail(f"{value!r} has more than {MOST} numbers", param, ctx)
        for number in found:
            if not self.least <= number <= self.most:
                self.fail(f"{number:g} is not at least {self.least:g} and at most {self.most:g}", param, ctx)
        return tuple(dict.fromkeys(found))

    def _all(self, text: str) -> Iterator[float]:
        for part in text.split(","):
            ends = [self._number(field) for field in part.split(":")]
            match ends:
                case [one]:
                    yield one
                case [low, high, *step] if len(step) < 2 and (step or self.whole):
                    by = step[0] if step else 1
                    if by <= 0 or high < low:
                        raise ValueError
                    for place in range(min(MOST, math.floor((high - low) / by * (1 + 1e-12) + 1e-9)) + 1):
                        yield low + place * by if self.whole else float(f"{low + place * by:.12g}")
                case _:
                    raise ValueError

    def _number(self, text: str) -> float:
        number = int(text) if self.whole else float(text)
        if not math.isfinite(number):
            raise ValueError
        return number


def grid_options(command: Any) -> Any:
    """What is swept."""
    for flag in (
        click.option("--load", type=Numbers(LEAST_LOAD, 1e3), metavar="LIST", help="The busiest device's ρ."),
        click.option(
            "--rate", type=Numbers(LEAST_RATE, MOST_RATE), metavar="LIST",
            help="Prompts per second and device, λ, instead of loads.",
        ),
        click.option(
            "-k", "--proposers", "--peers", "proposers", type=Numbers(0, MAX_PROPOSERS, whole=True), metavar="LIST",
            help="Peers asked per layer. [default: 3, or all there are]",
        ),
        click.option(
            "-M", "--layers", "layers", type=Numbers(0, MAX_LAYERS, whole=True), metavar="LIST", help="Layers. [default: 1]"
        ),
        click.option(
            "--devices", "-n", type=Numbers(1, 1e9, whole=True), metavar="LIST", help="Devices. [default: 4]"
        ),
    ):  # fmt: skip
        command = flag(command)
    return command


@click.command()
@grid_options
@service_option
@reach_options
@run_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("sweep"),
    show_default=True,
    metavar="FOLDER|FILE.parquet",
    help="Where the rows are kept, and the figures beside them.",
)
@click.option(
    "--plot", "kind", type=click.Choice(["png", "svg", "none"]), help="Figures. [default: png, where matplotlib is]"
)  # fmt: skip
@cluster_options
@json_option
def sweep(
    devices: tuple[int, ...] | None,
    layers: tuple[int, ...] | None,
    proposers: tuple[int, ...] | None,
    rate: tuple[float, ...] | None,
    load: tuple[float, ...] | None,
    out: Path,
    kind: str | None,
    workers: int | None,
    backend: str,
    address: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Simulate a grid of moots, and keep a row for each in a Parquet file beside what the theory says of it.

    A LIST is numbers with commas and ranges FROM:TO:STEP. Run again with the same --out, a sweep does only what is not
    there yet, and tells what was there first: whatever ended it, at most the questions under way are lost. Without lists a small grid about
    the limit of stability is swept, in about a minute on two cores.
    """
    if rate is not None and load is not None:
        raise click.UsageError("--rate and --load say the same thing; give one of them")
    if out.suffix in (".csv", ".json", ".txt", ".xlsx"):
        raise click.UsageError(f"--out {out}: it is a folder, or a file that ends in .parquet")
    require_sim()
    given = {"devices": devices, "layers": layers, "proposers": proposers, "load": load, "rate": rate}
    asked = _questions(given, flags)
    tell_columns(asked[0])
    file, stem = (
        (out, out.with_suffix("")) if out.suffix == ".parquet" else (out / "sweep.parquet", out / "sweep")
    )
    _make_folder(file.parent)
    rows, skipped = _simulate(asked, file, flags, (backend, cores(workers, address), address), as_json)
    whole = len(rows) == len(asked)
    try:
        files = [file, *(_drawn(rows, stem, kind) if whole else [])]
    except KeyboardInterrupt:
        end_line()
        raise Interrupted(
            f"interrupted while it drew: all {len(rows)} rows are in {file}; the same command draws them"
        ) from None
    if as_json:
        print_json({"rows": rows, "skipped": skipped, "files": [str(each) for each in files]})
    else:
        before = f" ({skipped} from the file)" if skipped else ""
        click.echo(f"{len(rows)} rows{before}: {', '.join(map(str, files))}")
    if not whole:
        raise Interrupted(
            f"interrupted: {len(rows)} of {len(asked)} questions are in {file}; the same command does the rest"
        )


def _questions(given: dict[str, Any], flags: dict[str, Any]) -> list[Question]:
    """Each point of the grid once. With M = 0 nobody is asked: k is 0 there, and no layer ends with a quorum or is the last."""
    grid = GRID if all(values is None for values in given.values()) else given
    names = ("devices", "layers", "proposers", "load", "rate")
    usual: dict[str, tuple[float | None, ...]] = {"devices": (4,), "layers": (1,)}
    axes = [grid.get(name) or usual.get(name, (None,)) for name in names]
    found: dict[Question, None] = {}
    for point in itertools.product(*axes):
        at = dict(zip(names, point, strict=True))
        lone = {"proposers": 0, "quorum": None, "skip_aggregation": 0.0} if not at["layers"] else {}
        found[asked_of(**flags | at | lone)] = None
    return list(found)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {folder} cannot be made: {error}") from error


def _simulate(
    asked: list[Question],
    file: Path,
    flags: dict[str, Any],
    where: tuple[str, int | None, str | None],
    as_json: bool,
) -> tuple[list[Row], int]:
    """The rows that are there in the end, and how many were before. Ctrl-C ends it early."""
    from filelock import FileLock, Timeout

    from folkmoot.queueing.sweep import Table, key, results, work

    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another sweep writes to {file}; wait for it, or choose another --out") from None
    except OSError as error:
        raise ConfigError(f"--out: {file.parent} cannot be written: {error}") from error
    with lock, contextlib.ExitStack() as ending:
        # Gone before it is let go: who opened it in between finds that it has no name any more (filelock), and takes a new one.
        ending.callback(Path(lock.lock_file).unlink, missing_ok=True)
        texts = {name: flags[name] for name in ("service", "topology", "select")}
        table = Table(file, asked[0], tuple(texts))
        todo = [each for each in asked if key(each) not in table.rows]
        skipped = len(asked) - len(todo)
        if skipped:
            tell(f"{skipped} of {len(asked)} questions are in {file} already")
        for each in () if as_json else asked:
            if row := table.rows.get(key(each)):
                click.echo(f"{told(row)} (from the file)")
        count, total = (
            sum(each.replications for each in todo),
            sum(each.replications * work(each) for each in todo),
        )
        bar = Progress("replications", count, total)
        try:
            with cluster(*where), bar:
                for found in watched(results(todo, where[1], lambda each: bar.step(work(each)))):
                    row = table.add(found, texts)
                    if not as_json:
                        bar.say(told(row))
        except KeyboardInterrupt:
            end_line()
        except WorkerLost as lost:
            raise WorkerLost(
                f"{lost}; {sum(key(each) in table.rows for each in asked)} of {len(asked)} questions are in {file}; "
                "the same command does the rest"
            ) from lost
        return [table.rows[key(each)] for each in asked if key(each) in table.rows], skipped


def told(row: Row) -> str:
    """A row for people."""
    load = "" if row["load"] is None else f" load {row['load']:.4g}"
    latency, drift = row["latency_mean"], row["drift_value"]
    said = f"n={row['n']} M={row['layers']} k={row['proposers']}{load}"
    said += f": {row['verdict']}" if row["mode"] == "steady" else f": {row['prompts']} prompts"
    if drift is not None:
        said += f", drift {drift:.3g}{_theory(row['theory_drift'])}"
    if latency is None:
        return f"{said}, no prompt ended that is counted"
    return f"{said}, latency {latency:.4g} s{_theory(row['theory_latency'])}"


def _theory(value: object) -> str:
    return f" (theory {value:.4g})" if isinstance(value, float) else ""


def _drawn(rows: list[Row], stem: Path, kind: str | None) -> list[Path]:
    if kind == "none":
        return []
    if kind is None and importlib.util.find_spec("matplotlib") is None:
        tell("no figures: matplotlib is not installed; run: pip install 'folkmoot[sim]'")
        return []
    from folkmoot.queueing.plots import draw

    return draw(rows, stem, kind or "png")
