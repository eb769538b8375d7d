"""The journal: prompts accepted in the background and the answers that are kept, on disk before anybody is told.

One SQLite file in the home, written ahead and synced at every commit. An open entry may have notes: what has been
done for it so far, gone with its end. What is in a request, a response and a note is the API's business: here
they are bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from folkmoot.errors import JournalError, JournalFull, Overloaded, PromptInvalid
from folkmoot.node.config import JournalConfig

FILE = "journal.db"
VERSION = 2
EVICTABLE_S = 3_600.0
"""An answer that ended less long ago is not dropped for want of room (guess)."""
EVICTED = 64
"""Answers that are dropped at a time for want of room (guess)."""
LEAST_BYTES = 65_536
"""A disk with less left is full: so much SQLite takes at a time for its index of what is written ahead."""
BUSY_S = 5.0
"""How long a command that deletes from the same file is waited for (guess)."""

SCHEMA = """
CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    request BLOB NOT NULL,
    ended REAL,
    response BLOB,
    retry_key TEXT UNIQUE
);
CREATE INDEX responses_ended ON responses (ended);
CREATE INDEX responses_open ON responses (owner) WHERE response IS NULL;
"""
NOTES = """
CREATE TABLE notes (
    entry TEXT NOT NULL,
    note BLOB NOT NULL
);
CREATE INDEX notes_entry ON notes (entry);
"""
"""What version 2 added."""

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Corrupt(sqlite3.DatabaseError):
    """A check found damage."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True, slots=True)
class Entry:
    """A request and, once it has ended, its response. Times in seconds since 1970; `owner` says whose it is."""

    id: str
    owner: str
    created: float
    request: bytes
    ended: float | None = None
    response: bytes | None = None


class Journal:
    """The journal of a home. Not thread-safe: all calls belong into one thread, as each waits for the disk.

    A journal that cannot be used is no reason to stop: it says so in the log and in `trouble`, and every call
    raises `JournalError`. A damaged one is set aside; the next start makes a fresh one. For other troubles the
    next call tries again.
    """

    def __init__(self, home: Path, config: JournalConfig) -> None:
        self._path = home / FILE
        self._config = config
        self._db: sqlite3.Connection | None = None
        self.damaged = False
        self.trouble = ""
        """What is wrong: `damaged`, `full` or `unusable`; empty where nothing is."""

    def open(self) -> None:
        """Open the file, or make it; harmless when repeated. Raises `JournalError`."""
        self._opened()

    def accept(self, entry: Entry, retry_key: str = "") -> Entry:
        """Put an entry on disk; what stands there is given back.

        Where the owner has used `retry_key` before, that is the earlier entry, and nothing is written.
        Raises `PromptInvalid` where that one's request was another, `Overloaded`, `JournalFull`, `JournalError`.
        """
        digest = _digest(entry.owner, retry_key) if retry_key else None
        with self._transaction() as db:
            if digest is not None and (known := self._select(db, "retry_key", digest)) is not None:
                if known.request != entry.request:
                    raise PromptInvalid(
                        "this Idempotency-Key came with another request before; use a fresh one"
                    )
                return known
            if entry.response is None:
                self._check_open(db, entry.owner)
            self._make_room(db, len(entry.request) + len(entry.response or b""), entry.created)
            db.execute(
                "INSERT INTO responses (id, owner, created, request, ended, response, retry_key)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (entry.id, entry.owner, entry.created, entry.request, entry.ended, entry.response, digest),
            )
        return entry

    def finish(self, entry: str, response: bytes, now: float) -> bool:
        """End an open entry; False where it has ended or is gone: only the first response is ever kept."""
        with self._transaction() as db:
            done = db.execute(
                "UPDATE responses SET response = ?, ended = ? WHERE id = ? AND response IS NULL",
                (response, now, entry),
            )
            db.execute("DELETE FROM notes WHERE entry = ?", (entry,))
            return done.rowcount == 1

    def note(self, notes: Sequence[tuple[str, bytes]]) -> None:
        """Keep notes of open entries, each with its entry's id, all in one commit; of any other entry nothing is kept.

        Nor is anything kept where the journal is half full: notes take no answer's place. Raises `JournalError`.
        """
        with self._transaction() as db:
            if _used(db) + sum(len(note) for _, note in notes) <= self._config.max_bytes // 2:
                db.executemany(
                    "INSERT INTO notes (entry, note)"
                    " SELECT id, ?2 FROM responses WHERE id = ?1 AND response IS NULL",
                    notes,
                )

    def notes(self, entry: str) -> list[bytes]:
        """The notes of an entry, oldest first. Raises `JournalError`."""
        with self._transaction() as db:
            rows = db.execute("SELECT note FROM notes WHERE entry = ? ORDER BY rowid", (entry,))
            return [note for (note,) in rows]

    def get(self, entry: str) -> Entry | None:
        """An entry by its id."""
        with self._transaction() as db:
            return self._select(db, "id", entry)

    def unanswered(self) -> list[tuple[str, str]]:
        """The open entries, oldest first: the id and the owner of each."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id, owner FROM responses WHERE response IS NULL ORDER BY created, rowid"
            )
            return rows.fetchall()

    def prune(self, before: float) -> int:
        """Delete what ended before a time, seconds since 1970; an open entry stays. Gives the number deleted."""
        for path in self._set_aside():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
        return self._delete("ended < ?", before)

    def forget(self, entry: str) -> bool:
        """Delete an entry, open or not; False where there is none."""
        return self._delete("id = ?", entry) == 1

    def forget_all(self) -> int:
        """Delete every entry, open or not, and what was set aside as damaged. Gives the number of entries."""
        try:
            gone = self._delete("TRUE")
        except JournalError:
            if not self.damaged:
                raise
            gone = 0  # it was set aside just now, and goes with the others
        with self._named():
            for path in self._set_aside():
                path.unlink(missing_ok=True)
        return gone

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    # ---- inside ------------------------------------------------------------------------------------

    def _delete(self, which: str, *values: object) -> int:
        if not self._path.exists():
            return 0
        with self._transaction() as db:
            db.execute(f"DELETE FROM notes WHERE entry IN (SELECT id FROM responses WHERE {which})", values)
            gone = db.execute(f"DELETE FROM responses WHERE {which}", values).rowcount
        if gone:
            with self._named():
                self._opened().execute(
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                )  # deleted text leaves the log as well
        return gone

    def _select(self, db: sqlite3.Connection, column: str, value: str) -> Entry | None:
        row = db.execute(
            f"SELECT id, owner, created, request, ended, response FROM responses WHERE {column} = ?", (value,)
        ).fetchone()
        return None if row is None else Entry(*row)

    def _check_open(self, db: sqlite3.Connection, owner: str) -> None:
        most = self._config.max_open
        waiting = _number(db, "SELECT COUNT(*) FROM responses WHERE response IS NULL")
        if waiting >= most:
            raise Overloaded(
                f"{waiting} prompts in the background are not answered yet, the bound is {most}; "
                "come again when some are"
            )
        theirs = _number(db, "SELECT COUNT(*) FROM responses WHERE response IS NULL AND owner = ?", owner)
        if owner and theirs >= (most + 1) // 2:
            raise Overloaded(
                f"{theirs} prompts of this key in the background are not answered yet, "
                f"a key may have half of {most}; come again when some are"
            )

    def _make_room(self, db: sqlite3.Connection, more: int, now: float) -> None:
        """Drop the oldest answers until `more` bytes fit below the bound."""
        room = self._config.max_bytes - more
        while _used(db) > room:
            gone = db.execute(
                "DELETE FROM responses WHERE id IN"
                " (SELECT id FROM responses WHERE ended < ? ORDER BY ended LIMIT ?)",
                (now - EVICTABLE_S, EVICTED),
            ).rowcount
            if not gone:
                raise JournalFull(
                    f"the journal holds {_used(db)} bytes, the bound is {self._config.max_bytes}; "
                    "raise node.journal.max_bytes, or delete answers"
                )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on disk at the end."""
        with self._named():
            db = self._opened()
            before = db.total_changes
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
            if db.total_changes > before:
                self.trouble = ""  # that it can be read says nothing of whether it can be written

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from None

    def _fault(self, error: sqlite3.Error | OSError) -> JournalError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damage(str(error))
        full = code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno in _FULL)
        full = full or (code == sqlite3.SQLITE_IOERR and self._left() < LEAST_BYTES)
        trouble = "full" if full else "unusable"
        if self.trouble != trouble:
            log.error(
                "the journal %s cannot be written (%s): nothing is accepted in the background",
                self._path,
                error,
            )
        self.trouble = trouble
        if full:
            return JournalFull(
                "the disk of this device's journal is full; free some space there and ask again"
            )
        self.close()
        return JournalError(
            "this device's journal cannot be used, its log says why; what is not in the background is answered"
        )

    def _left(self) -> int:
        """Bytes that are free on the journal's disk: of a full one SQLite does not always tell what is wrong."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self._path.parent).free
        return LEAST_BYTES

    def _damage(self, what: str) -> JournalError:
        """Set the file aside; this process goes on without a journal."""
        if not self.damaged:
            self.damaged, self.trouble = True, "damaged"
            self.close()
            aside = self._aside()
            with contextlib.suppress(OSError):
                for suffix in ("-wal", "-shm", ""):
                    if (part := self._path.with_name(FILE + suffix)).exists():
                        part.replace(aside.with_name(aside.name + suffix))
            log.error(
                "the journal %s is damaged (%s); it is set aside as %s, what was accepted in the background and not "
                "answered may be lost; start this device again for a fresh one",
                self._path, what, aside.name,
            )  # fmt: skip
        return _damaged()

    def _aside(self) -> Path:
        number = 1
        while (path := self._path.with_name(f"{FILE}.damaged{number}")).exists():
            number += 1
        return path

    def _set_aside(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{FILE}.damaged*"))

    def _opened(self) -> sqlite3.Connection:
        if self.damaged:
            raise _damaged()
        if self._db is None:
            with self._named():
                self._db = self._connect()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        # Made here, so that it is for its owner alone from the first moment; SQLite's other files follow it.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "secure_delete = ON",
                "trusted_schema = OFF",
            ):
                db.execute(f"PRAGMA {pragma}")
            _prepare(db)
        except BaseException:
            db.close()
            raise
        return db


def retention_s(config: JournalConfig) -> float:
    """How long an answer is kept, seconds."""
    return config.retention_days * 86_400.0


def _prepare(db: sqlite3.Connection) -> None:
    """Check what is there; make the tables where nothing is."""
    [found] = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise _Corrupt(found)
    version = _number(db, "PRAGMA user_version")
    if version in (0, 1):
        missing = NOTES if version else SCHEMA + NOTES
        db.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise sqlite3.DatabaseError(
            f"it is of version {version} and this Folkmoot knows {VERSION}: update Folkmoot, or move the file away"
        )


def _number(db: sqlite3.Connection, query: str, *values: str) -> int:
    return int(db.execute(query, values).fetchone()[0])


def _used(db: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages = _number(db, "PRAGMA page_count") - _number(db, "PRAGMA freelist_count")
    return pages * _number(db, "PRAGMA page_size")


def _digest(owner: str, retry_key: str) -> str:
    return hashlib.sha256(f"{owner}\0{retry_key}".encode()).hexdigest()


def _damaged() -> JournalError:
    return JournalError(
        "this device's journal is damaged and was set aside; nothing is accepted in the background until the device "
        "is started again"
    )
