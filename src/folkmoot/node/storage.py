"""A device's small files: private, replaced as a whole or not at all, with errors that name a remedy."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from folkmoot.errors import NodeError

STATE_BYTES = 4 << 20
"""No state file is larger: a longer one is damaged."""

T = TypeVar("T")


class StateDamaged(NodeError):
    """A state file does not hold what was written; the message says what can be done."""


def prepare_home(home: Path) -> None:
    """Make the folder, mode 0700, where it is missing. Raises NodeError where others may look into it."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = home.stat().st_mode
    except OSError as error:
        raise NodeError(f"cannot use {home} as FOLKMOOT_HOME: {error.strerror}") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise NodeError(f"{home} is open to other users; close it with: chmod 700 {home}")


def load(path: Path, cls: type[T], remedy: str) -> T | None:
    """The state in `path`, None where there is no such file.

    Raises StateDamaged with `remedy`, NodeError where the file is open to other users or unreadable.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(STATE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NodeError(f"cannot read {path}: {error.strerror}") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise NodeError(f"{path} is open to other users; close it with: chmod 600 {path}")
    if len(data) > STATE_BYTES:
        raise StateDamaged(f"{path} is damaged (larger than {STATE_BYTES} bytes); {remedy}")
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.MsgspecError, UnicodeError):
        raise StateDamaged(f"{path} is damaged; {remedy}") from None


def save(path: Path, value: Any) -> None:
    """Replace the state in `path`: after a crash it holds the old or the new one. Raises NodeError.

    Waits for the disk: call it in a thread where an event loop runs.
    """
    data = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
    temporary = ""
    try:
        # mkstemp gives mode 0600 from the start, so that a secret is never readable for a moment.
        number, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = ""
        _sync_folder(path.parent)
    except OSError as error:
        raise NodeError(f"cannot write {path}: {error.strerror}; what was there before is kept") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a state file; one that is missing is no error. Raises NodeError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise NodeError(f"cannot delete {path}: {error.strerror}") from error


def move(path: Path, to: Path) -> None:
    """Give a state file another name, in place of what bears it. Raises NodeError."""
    try:
        path.replace(to)
        _sync_folder(to.parent)
    except OSError as error:
        raise NodeError(f"cannot rename {path} to {to}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
