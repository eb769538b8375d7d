"""The control token: whoever can read the device's home is its owner."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from folkmoot.errors import NodeError

FILE = "control.token"


def make_control_token(home: Path) -> str:
    """The home's token, made at the first start; the file is for its owner alone (mode 0600). Raises `NodeError`."""
    path = home / FILE
    try:
        return _make_token(path)
    except OSError as error:
        raise NodeError(
            f"cannot write {path}: {error.strerror}; free some space, or set FOLKMOOT_HOME"
        ) from error


def _make_token(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        if token := read_control_token(path.parent):
            return token
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return token


def read_control_token(home: Path) -> str:
    """The home's token, empty where no device has been started yet."""
    try:
        return (home / FILE).read_text("ascii").strip()
    except FileNotFoundError:
        return ""
