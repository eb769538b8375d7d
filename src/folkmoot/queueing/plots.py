"""A sweep's figures: the theory as a line, the simulation as points with their intervals. Drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from folkmoot.errors import ConfigError
from folkmoot.queueing.frames import Row
from folkmoot.queueing.overload import drift

_LOADS = 400


def draw(rows: Sequence[Row], stem: Path, kind: str) -> list[Path]:
    """Write what figures the rows can fill, `STEM-stability.KIND` and so on. Raises `ConfigError`.

    stability: drift against load. latency: mean latency against load below the limit. queue: jobs waiting per device
    against n. One colour each (M, k); one mark each n, or each load.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("matplotlib is not installed; run: pip install 'folkmoot[sim]'") from None
    paths = []
    for name, fill in (("stability", _stability), ("latency", _latency), ("queue", _queue)):
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
        if not fill(rows, figure.add_subplot()):
            continue
        path = stem.with_name(f"{stem.name}-{name}.{kind}")
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _stability(rows: Sequence[Row], axes: Any) -> bool:
    shown = [row for row in rows if row["load"] is not None and row["drift_value"] is not None]
    for colour, (pair, some) in enumerate(_by(shown, "layers", "proposers")):
        loads = [_number(row["load"]) for row in some]
        alike = all(_equals_fluid(row, *pair) for row in some)
        if alike and len(set(loads)) > 1:
            low, high = min(loads), max(loads)
            line = [low + (high - low) * step / _LOADS for step in range(_LOADS + 1)]
            axes.plot(line, [_fluid(load, *pair) for load in line], color=f"C{colour % 10}", linewidth=1)
        for mark, ((n,), each) in enumerate(_by(some, "n")):
            if not alike:  # each device has its own fluid, and a moot no formula of its load
                known = sorted(
                    (_number(row["load"]), row["theory_drift"])
                    for row in each
                    if row["theory_drift"] is not None
                )
                axes.plot(
                    *zip(*known, strict=True) if known else ([], []), color=f"C{colour % 10}", linewidth=1
                )
            _points(
                axes,
                each,
                "load",
                ("drift_value", "drift_low", "drift_high"),
                colour,
                mark,
                f"{_pair(pair)}, n={n}",
            )
    axes.axvline(1.0, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="load of the busiest device, ρ",
        ylabel="growth of the number waiting per device and service time",
    )
    axes.set_title("Stability region: the fluid root [C] as lines, 95 % intervals")
    return _legend(axes, shown)


def _latency(rows: Sequence[Row], axes: Any) -> bool:
    shown = [row for row in rows if row["latency_mean"] is not None and _below(row)]
    for colour, (pair, some) in enumerate(_by(shown, "layers", "proposers")):
        for mark, ((n,), each) in enumerate(_by(some, "n")):
            known = [row for row in each if row["theory_latency"] is not None]
            axes.plot(
                [row["load"] for row in known], [row["theory_latency"] for row in known],
                color=f"C{colour % 10}", linewidth=1, linestyle=_style(mark),
            )  # fmt: skip
            names = ("latency_mean", "latency_mean_low", "latency_mean_high")
            _points(axes, each, "load", names, colour, mark, f"{_pair(pair)}, n={n}")
    lines = [row for row in shown if row["theory_latency"] is not None]
    ranges = [(row["theory_latency_error_low"], row["theory_latency_error_high"]) for row in lines]
    error = "theory [E]"
    if any((None, None) == one for one in ranges):
        error = "mean field (its error not known for all) [A]"
    elif any(row["theory_latency_tag"] == "A" for row in lines):
        low, high = (
            pick(map(_number, each)) for pick, each in zip((min, max), zip(*ranges, strict=True), strict=True)
        )
        error = f"mean field ({100 * low:+.0f} to {100 * high:+.0f} %) [A]"
    axes.set(
        xlabel="load of the busiest device, ρ", ylabel="mean latency, s", yscale=_scale(shown, "latency_mean")
    )
    axes.set_title(f"Latency: {error} as lines, 95 % intervals")
    return _legend(axes, shown)


def _queue(rows: Sequence[Row], axes: Any) -> bool:
    shown = [row for row in rows if row["queue_size_mean"] is not None and _below(row)]
    if len({row["n"] for row in shown}) < 2:
        return False
    for colour, (pair, some) in enumerate(_by(shown, "layers", "proposers")):
        for mark, ((load,), each) in enumerate(_by(some, "load")):
            known = [row for row in each if row["theory_queue_size"] is not None]
            axes.plot(
                [row["n"] for row in known], [row["theory_queue_size"] for row in known],
                color=f"C{colour % 10}", linewidth=1, linestyle=_style(mark),
            )  # fmt: skip
            names = ("queue_size_mean", "queue_size_low", "queue_size_high")
            _points(axes, each, "n", names, colour, mark, f"{_pair(pair)}, ρ={_number(load):.3g}")
    axes.set(
        xlabel="devices, n",
        ylabel="jobs waiting per device",
        xscale="log",
        yscale=_scale(shown, "queue_size_mean"),
    )
    axes.set_title("Queue size: M/G/1 at the device's load [A] as lines, 95 % intervals")
    return _legend(axes, shown)


def _points(
    axes: Any, rows: list[Row], x: str, names: tuple[str, str, str], colour: int, mark: int, label: str
) -> None:
    value, low, high = ([_number(row[name]) for row in rows] for name in names)
    spread = [
        [0.0 if math.isnan(end) else abs(at - end) for at, end in zip(value, ends, strict=True)]
        for ends in (low, high)
    ]
    axes.errorbar(
        [row[x] for row in rows], value, yerr=spread, label=label, color=f"C{colour % 10}",
        fmt="os^Dv<>Pxd*"[mark % 11], markersize=4, capsize=2, linestyle="none",
    )  # fmt: skip


def _scale(rows: list[Row], name: str) -> str:
    """Logarithmic where there is something to draw on it."""
    return "log" if any(_number(row[name]) > 0 for row in rows) else "linear"


def _legend(axes: Any, shown: list[Row]) -> bool:
    if shown:
        axes.figure.legend(fontsize=7, loc="outside right upper")
    return bool(shown)


def _by(rows: Iterable[Row], *names: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """The rows in groups of equal values, in order."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        # Loads that differ by rounding are one: they were given as text, and came back through a rate.
        place = tuple(round(value, 9) if isinstance(value := row[name], float) else value for name in names)
        groups.setdefault(place, []).append(row)
    return sorted(groups.items())


def _fluid(load: float, layers: int, proposers: int) -> float:
    """Drift in jobs per service time, whatever the service: only the load counts."""
    jobs = (proposers + 1) * layers + 1
    if not load > 0:  # a trace of zeros
        return 0.0
    return drift(load / jobs, [1.0] * layers, 1.0, proposers)


def _equals_fluid(row: Row, layers: int, proposers: int) -> bool:
    expected = _fluid(_number(row["load"]), layers, proposers)
    return math.isclose(_number(row["theory_drift"]), expected, rel_tol=1e-6, abs_tol=1e-9)


def _below(row: Row) -> bool:
    return row["load"] is not None and _number(row["load"]) < 1


def _pair(pair: tuple[Any, ...]) -> str:
    return f"M={pair[0]} k={pair[1]}"


def _style(mark: int) -> str:
    return ("-", "--", ":", "-.")[mark % 4]


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) else math.nan
