"""Service-time laws (DIST): their text form, their mean and their quantile function.

Sampling is inversion: every draw takes exactly one uniform number from [0, 1), whoever owns the
stream. A trace takes its rows from the caller, since the core opens no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from folkmoot.errors import ConfigError

Table = Sequence[Sequence[str]]
"""A trace file's rows as text, the header first."""

_FORMS = "exp:MEAN, det:MEAN, lognormal:MEAN:CV, weibull:MEAN:SHAPE or trace:FILE[:COLUMNS[:MEAN]]"
_TINY = 2.0**-54
LEAST_S, MOST_S = 1e-15, 1e15
"""Of times that are not 0: what is computed from them is then finite, and not 0."""
MOST_CV = 1e6
LEAST_SHAPE, MOST_SHAPE = 0.05, 1e6


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential with this mean, seconds."""

    mean: float

    def quantile(self, u: float, device: int = 0) -> float:
        """The value that a share `u` of draws stays below, seconds."""
        return -self.mean * math.log(1.0 - u)  # exact: u has 53 bits; three times as fast as log1p


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the mean, seconds; 0 is legal."""

    mean: float

    def quantile(self, u: float, device: int = 0) -> float:
        """The mean, whatever `u`."""
        return self.mean


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Lognormal with this mean in seconds and this coefficient of variation."""

    mean: float
    cv: float

    def quantile(self, u: float, device: int = 0) -> float:
        """The value that a share `u` of draws stays below, seconds."""
        spread = math.sqrt(math.log1p(self.cv**2))
        return self.mean * math.exp(spread * NormalDist().inv_cdf(max(u, _TINY)) - spread**2 / 2)


@dataclass(frozen=True, slots=True)
class Weibull:
    """Weibull with this mean in seconds and this shape (1 is exponential, larger is steadier)."""

    mean: float
    shape: float

    def quantile(self, u: float, device: int = 0) -> float:
        """The value that a share `u` of draws stays below, seconds."""
        scale = self.mean / math.gamma(1 + 1 / self.shape)
        return scale * math.pow(-math.log1p(-u), 1 / self.shape)


@dataclass(frozen=True, slots=True)
class Trace:
    """Measured times: one row a prompt, one column a device (repeated cyclically), seconds.

    The same `u` for all devices of a prompt gives all of them the same row.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """The grand mean of all columns, seconds."""
        return math.fsum(math.fsum(row) for row in self.rows) / (len(self.rows) * len(self.columns))

    def quantile(self, u: float, device: int = 0) -> float:
        """Row number floor(u * rows) in this device's column, seconds."""
        row = self.rows[min(int(u * len(self.rows)), len(self.rows) - 1)]
        return row[device % len(row)]


Law = Exponential | Fixed | Lognormal | Weibull | Trace


def parse_law(text: str, read: Callable[[str], Table] | None = None) -> Law:
    """A DIST as a law. `read` turns a trace's file name into its rows. Raises `ConfigError`."""
    kind, _, rest = text.strip().partition(":")
    fields = rest.split(":") if rest else []
    match kind, fields:
        case "exp", [mean]:
            return Exponential(_number(text, "MEAN", mean, LEAST_S, MOST_S))
        case "det", [mean]:
            return Fixed(_number(text, "MEAN", mean, LEAST_S, MOST_S, zero=True))
        case "lognormal", [mean, cv]:
            return Lognormal(
                _number(text, "MEAN", mean, LEAST_S, MOST_S), _number(text, "CV", cv, 0.0, MOST_CV)
            )
        case "weibull", [mean, shape]:
            return Weibull(
                _number(text, "MEAN", mean, LEAST_S, MOST_S),
                _number(text, "SHAPE", shape, LEAST_SHAPE, MOST_SHAPE),
            )
        case "trace", [file, *more] if file and len(more) <= 2:
            if read is None:
                raise ConfigError(f"{text!r}: no traces here; use {_FORMS.rpartition(' or ')[0]}")
            names = more[0] if more else ""
            mean_s = _number(text, "MEAN", more[1], LEAST_S, MOST_S) if len(more) == 2 else None
            return trace(text, read(file), tuple(names.split("+")) if names else (), mean_s)
        case _:
            raise ConfigError(f"{text!r} is no service-time law; write {_FORMS}")


def parse_laws(text: str, read: Callable[[str], Table] | None = None) -> tuple[Law, ...]:
    """One law for all devices, or one a device, comma-separated. Raises `ConfigError`."""
    return tuple(parse_law(part, read) for part in text.split(","))


def trace(text: str, table: Table, columns: tuple[str, ...] = (), mean_s: float | None = None) -> Trace:
    """A trace from a table; without `columns` all that have numbers, with `mean_s` scaled to that grand mean.

    `text` names the trace in errors. Raises `ConfigError`.
    """
    if len(table) < 2:
        raise ConfigError(f"{text!r}: the file has no rows; it needs a header and at least one row")
    header, body = table[0], [row for row in table[1:] if row]
    if (
        any(header)
        and _numeric([header], 0)
        and all(_numeric([header], place) for place in range(len(header)))
    ):
        raise ConfigError(
            f"{text!r}: its first row holds numbers only; a first row with the columns' names is needed"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ConfigError(f"{text!r}: column {twice[0]!r} stands there twice; give each a name of its own")
    for name in columns:
        if name not in header:
            raise ConfigError(f"{text!r}: no column {name!r}; the file has {', '.join(header)}")
    chosen = columns or tuple(name for name in header if _numeric(body, header.index(name)))
    if not chosen:
        raise ConfigError(
            f"{text!r}: no column holds numbers; the file has {', '.join(header)}"
            + ("" if len(header) > 1 else "; cells are separated by commas")
        )
    places = [header.index(name) for name in chosen]
    rows: list[tuple[float, ...]] = []
    for line, row in enumerate(body, start=1):
        if len(row) > len(header):
            raise ConfigError(
                f"{text!r}: row {line} below the header has {len(row)} cells for {len(header)} columns"
            )
        rows.append(tuple(_time(text, line, header[place], row, place) for place in places))
    plain = Trace(chosen, tuple(rows))
    if mean_s is None:
        return plain
    if plain.mean == 0:
        raise ConfigError(f"{text!r}: all times are 0, so they cannot be scaled to a mean of {mean_s}")
    factor = mean_s / plain.mean
    return Trace(chosen, tuple(tuple(value * factor for value in row) for row in plain.rows))


def _number(text: str, name: str, value: str, least: float, most: float, *, zero: bool = False) -> float:
    number = _read(value)
    if not (least <= number <= most or (zero and number == 0)):
        bound = f"from {least:g} to {most:g}" + (", or 0" if zero else "")
        raise ConfigError(f"{text!r}: {name} is {value!r}; it must be a number {bound}")
    return number


def _time(text: str, line: int, column: str, row: Sequence[str], place: int) -> float:
    cell = row[place] if place < len(row) else ""
    number = _read(cell)
    if not (LEAST_S <= number <= MOST_S or number == 0):
        said = f"{cell!r}, no time" if cell.strip() else "no time"
        raise ConfigError(
            f"{text!r}: row {line} below the header has {said} in column {column!r}; it must be a number of "
            f"seconds from {LEAST_S:g} to {MOST_S:g}, or 0 (which columns are read is said by trace:FILE:COLUMNS)"
        )
    return number


def _read(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _numeric(body: Table, place: int) -> bool:
    """Whether a column is one of times. One that has holes is, so that they are told and not left out."""
    return any(place < len(row) and not math.isnan(_read(row[place])) for row in body)
