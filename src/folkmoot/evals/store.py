"""Every call of a model, kept by its content: what was asked in just these words is never generated twice.

One SQLite file; it can be written out as lines of JSON, small enough to be committed, and read back anywhere.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folkmoot.errors import EvalError

KEY_FIELDS = ("model", "messages", "max_tokens", "temperature", "top_p", "seed", "stop")
"""What of a request decides its answer; whether it is streamed, say, does not."""

_TABLE = """CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, text TEXT NOT NULL, truncated INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, inference_s REAL NOT NULL, first_token_s REAL NOT NULL
)"""

_COLUMNS = ("key", "request", "text", "truncated", "tokens_in", "tokens_out", "inference_s", "first_token_s")


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second that a device reads and writes. Calls that were made on a busy machine tell their tokens, not its times."""

    read_hz: float
    written_hz: float

    def takes_s(self, tokens_in: int, tokens_out: int) -> tuple[float, float]:
        """Seconds until the first word of so many tokens read and written, and until the last."""
        first_token_s = tokens_in / self.read_hz
        return first_token_s, first_token_s + tokens_out / self.written_hz


@dataclass(frozen=True, slots=True)
class Call:
    """One generation: what was asked (`KEY_FIELDS`), what came back, tokens and seconds it took."""

    request: Mapping[str, Any]
    text: str
    truncated: bool
    tokens_in: int
    tokens_out: int
    inference_s: float
    first_token_s: float

    def at(self, speed: Speed | None) -> Call:
        """The same call as a device of this speed makes it; as it was made where none is given."""
        if speed is None:
            return self
        first_token_s, inference_s = speed.takes_s(self.tokens_in, self.tokens_out)
        return replace(self, first_token_s=first_token_s, inference_s=inference_s)

    @property
    def key(self) -> str:
        """Names the call by its content."""
        return key_of(self.request)


def asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a request that decides its answer."""
    return {name: body[name] for name in KEY_FIELDS if body.get(name) is not None}


def key_of(body: Mapping[str, Any]) -> str:
    """SHA-256 over what decides the answer, in one canonical form."""
    text = json.dumps(asked(body), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The calls in one SQLite file. Raises `EvalError` where the file is none of ours, and from all it does where it cannot do it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(_TABLE)
            self._base.execute(f"SELECT {', '.join(_COLUMNS)} FROM calls LIMIT 0")
        except (sqlite3.Error, OSError) as error:
            raise EvalError(f"{path} is no store of calls ({error}); name another one") from error

    def __len__(self) -> int:
        with self._told():
            return int(self._base.execute("SELECT count(*) FROM calls").fetchone()[0])

    def __iter__(self) -> Iterator[Call]:
        """All calls, in the order in which they were made."""
        with self._told():
            for row in self._base.execute("SELECT * FROM calls ORDER BY rowid"):
                yield _call(row)

    def find(self, body: Mapping[str, Any]) -> Call | None:
        """The call with this content."""
        with self._told():
            row = self._base.execute("SELECT * FROM calls WHERE key = ?", (key_of(body),)).fetchone()
        return None if row is None else replace(_call(row), request=asked(body))

    def keep(self, call: Call) -> None:
        """Keep a call; of two with the same content the first."""
        self._keep(call.key, call)

    def _keep(self, key: str, call: Call) -> None:
        values = (
            key, json.dumps(asked(call.request), ensure_ascii=False), call.text, call.truncated, call.tokens_in,
            call.tokens_out, call.inference_s, call.first_token_s,
        )  # fmt: skip
        with self._told():
            self._base.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def write(self, path: Path) -> int:
        """All calls as lines of JSON, compressed; returns how many. Their keys name what was asked: the words of the tasks, which
        may not be ours to give on, are left out."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with self._told():
            rows = self._base.execute("SELECT * FROM calls ORDER BY rowid").fetchall()
        with lzma.open(part, "wt", encoding="utf-8") as file:
            for row in rows:
                call = asdict(_call(row))
                call["request"].pop("messages", None)
                file.write(json.dumps({"key": row[0], **call}, ensure_ascii=False, sort_keys=True) + "\n")
        part.replace(path)
        return len(rows)

    def read(self, path: Path) -> int:
        """Take in what `write` wrote; returns how many calls there are now. Raises `EvalError` for another file."""
        try:
            with lzma.open(path, "rt", encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    try:
                        row = json.loads(line)
                        self._keep(str(row.pop("key")), Call(**row))
                    except (TypeError, ValueError, KeyError, AttributeError) as error:
                        raise EvalError(f"{path}, line {number} is no call: {error!r}") from error
        except FileNotFoundError:
            raise EvalError(f"{path} is not there: name a file that a store wrote") from None
        except (lzma.LZMAError, OSError, EOFError, UnicodeDecodeError) as error:
            raise EvalError(f"{path} is no file of calls: {error}") from error
        return len(self)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise EvalError(
                f"{self._path}: the calls cannot be read or kept ({error}); make room, end what else has the file open, or name "
                "another one, and run the same again"
            ) from error


def _call(row: tuple[Any, ...]) -> Call:
    return Call(json.loads(row[1]), row[2], bool(row[3]), *row[4:])
