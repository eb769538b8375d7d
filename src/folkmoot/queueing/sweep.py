"""Many questions, their rows kept in a Parquet file that a later run goes on with."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folkmoot.errors import ConfigError
from folkmoot.queueing.frames import Row, rows
from folkmoot.queueing.moot import Question, Replication, Result, jobs_per_prompt, runs, simulate, summary

if TYPE_CHECKING:
    import pyarrow

FORMAT = 5
"""Of the rows: it goes up where a question's answer or a column's meaning changes."""


def results(
    questions: Sequence[Question],
    workers: int | None = None,
    progress: Callable[[Question], None] = lambda question: None,
) -> Iterator[Result]:
    """The questions' results in their order, all cores busy across them. `progress` is told of each replication."""
    began, waiting, done = time.perf_counter(), iter(questions), list[Replication]()
    asked = next(waiting, None)
    for one in runs(questions, workers):
        assert asked is not None
        done.append(one)
        progress(asked)
        if len(done) == asked.replications:
            now = time.perf_counter()
            yield replace(summary(asked, done), wall_s=now - began)
            began, asked, done = now, next(waiting, None), []


def key(question: Question) -> str:
    """What tells a question from any other: the format of its row, and a digest of all that it holds."""
    return f"{FORMAT}-{hashlib.sha256(repr(question).encode()).hexdigest()[:32]}"


def work(question: Question) -> float:
    """Inferences of one replication, about: what its time goes with."""
    if question.prompts:
        return question.prompts * jobs_per_prompt(question)
    return question.devices * question.horizon


class Table:
    """The rows of a file by their question's `key`. Each row is on the disk when `add` returns, whole or not at all.

    `like` is a question of the kind that will be added; `names` are columns of text beside those of `rows`. Raises
    `ConfigError` where the file holds something else.
    """

    def __init__(self, path: Path, like: Question, names: Sequence[str] = ()) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigError("pyarrow is not installed; run: pip install 'folkmoot[sim]'") from None
        self._path = path
        short = replace(like, prompts=1, replications=1)
        (first,) = rows([simulate(short, workers=1)])
        self._schema = _schema({"key": "", **first, **dict.fromkeys(names, "")})
        self.rows: dict[str, Row] = {}
        if not path.exists():
            return
        try:
            table = parquet.read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{path} cannot be read as Parquet: {error}; choose another --out") from error
        _refuse_other(path, table.schema, self._schema)
        if any(not str(name).startswith(f"{FORMAT}-") for name in table["key"].to_pylist()):
            raise ConfigError(
                f"{path} has rows of another version of the simulator, which answers some questions otherwise; "
                "choose another --out"
            )
        self.rows = {str(row["key"]): row for row in table.to_pylist()}

    def add(self, result: Result, texts: Mapping[str, str]) -> Row:
        """Keep a result's row, and give it back. Raises `ConfigError` where the disk does not take it."""
        (row,) = rows([result])
        name = key(result.question)
        whole = row | {"key": name, **texts}
        self.rows[name] = {column: whole[column] for column in self._schema.names}
        try:
            self._write()
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error}") from error
        return self.rows[name]

    def _write(self) -> None:
        import pyarrow
        from pyarrow import parquet

        # A reader, or the next run after a kill, finds the old file or the new one.
        new = self._path.with_name(f".{self._path.name}.new")
        with new.open("wb") as file:
            parquet.write_table(pyarrow.Table.from_pylist(list(self.rows.values()), self._schema), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _schema(row: Row) -> pyarrow.Schema:
    """The columns of a row; what is None there is a number."""
    import pyarrow

    kinds: dict[type, Any] = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64()}
    texts = dict.fromkeys(("theory_latency_tag", "theory_queue_size_tag"), pyarrow.string())
    return pyarrow.schema([
        (name, texts.get(name) or kinds.get(type(value), pyarrow.float64())) for name, value in row.items()
    ])  # fmt: skip


def _refuse_other(path: Path, found: pyarrow.Schema, wanted: pyarrow.Schema) -> None:
    if found.equals(wanted):
        return
    lacks = [name for name in wanted.names if name not in found.names]
    more = [name for name in found.names if name not in wanted.names]
    kinds = [
        name
        for name in wanted.names
        if name in found.names and found.field(name).type != wanted.field(name).type
    ]
    said = [f"lacks {', '.join(lacks[:5])}"] if lacks else []
    said += [f"has {', '.join(more[:5])} more"] if more else []
    said += [f"has another kind of {', '.join(kinds[:5])}"] if kinds else []
    raise ConfigError(
        f"{path} is no table of this sweep: it {' and '.join(said) or 'has its columns in another order'}; "
        "choose another --out"
    )
