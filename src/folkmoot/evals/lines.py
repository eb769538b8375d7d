"""Lines of JSON that grow while work goes on, are taken up again after it stops, and are packed small enough to be committed."""

from __future__ import annotations

import json
import lzma
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from folkmoot.errors import EvalError

Key = tuple[str, ...]


class Keyed(Protocol):
    """A dataclass that is known by its `key` among its like."""

    @property
    def key(self) -> Key:
        """What no other one has."""


Row = TypeVar("Row", bound=Keyed)


@dataclass
class Lines(Generic[Row]):
    """The rows of one file; of two with the same key the last one. `path` is the file."""

    path: Path
    _there: dict[Key, Row] = field(default_factory=dict)

    @staticmethod
    @abstractmethod
    def parse(row: Mapping[str, Any]) -> Row:
        """A row of what a line holds. Raises `TypeError`, `ValueError` or `KeyError` where it is none."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take up what is there. Raises `EvalError` where it holds something else.

        What was cut off in the middle of a line is left out here and stays there: a run that is under way may be writing it.
        """
        found = cls(path)
        try:
            text = _whole(path)[0].decode()
        except UnicodeDecodeError as error:
            raise EvalError(f"{path} cannot be read: {error}") from error
        # An answer may hold signs that `splitlines` takes for the end of a line.
        found._take(text.split("\n")[:-1])
        return found

    @classmethod
    def unpack(cls, path: Path) -> Self:
        """What `pack` wrote. Raises `EvalError` for another file, `FileNotFoundError` where there is none."""
        found = cls(path)
        try:
            with lzma.open(path, "rt", encoding="utf-8") as file:
                found._take(file)
        except FileNotFoundError:
            raise
        except (lzma.LZMAError, OSError, EOFError, UnicodeDecodeError) as error:
            raise EvalError(f"{path} holds no records: {error}") from error
        return found

    def _take(self, lines: Iterable[str]) -> None:
        for number, line in enumerate(lines, start=1):
            try:
                row = self.parse(json.loads(line))
            except (TypeError, ValueError, KeyError) as error:
                raise EvalError(f"{self.path}, line {number} is no record: {error}") from error
            self._there[row.key] = row

    def mend(self) -> None:
        """Drop what was cut off in the middle of a line; for who is about to add. Raises `EvalError`."""
        whole, cut = _whole(self.path)
        if cut:
            try:
                with self.path.open("r+b") as file:
                    file.truncate(len(whole))
            except OSError as error:
                raise EvalError(f"{self.path} cannot be mended: {error.strerror}") from error

    def __contains__(self, key: Key) -> bool:
        return key in self._there

    def __iter__(self) -> Iterator[Row]:
        return iter(self._there.values())

    def __len__(self) -> int:
        return len(self._there)

    def get(self, key: Key) -> Row | None:
        """The row with this key."""
        return self._there.get(key)

    def add(self, row: Row) -> None:
        """Keep one more, at once. Raises `EvalError`."""
        line = json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise EvalError(
                f"{self.path} cannot be written: {error.strerror}; make room, or name another folder"
            ) from error
        self._there[row.key] = row


def pack(rows: Iterable[Row], path: Path) -> None:
    """Write rows compressed, in the order of their keys, so that the same rows are the same file. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with lzma.open(part, "wt", encoding="utf-8") as file:
        for row in sorted(rows, key=lambda each: each.key):
            file.write(json.dumps(_plain(row), ensure_ascii=False, sort_keys=True) + "\n")
    part.replace(path)


def _plain(row: Any) -> dict[str, Any]:
    return asdict(row)


def _whole(path: Path) -> tuple[bytes, bytes]:
    """A file's whole lines, and what stands behind them; nothing where it is not there."""
    try:
        text = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise EvalError(f"{path} cannot be read: {error}") from error
    end = text.rfind(b"\n") + 1
    return text[:end], text[end:]
