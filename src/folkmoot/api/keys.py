"""API keys: made by `folkmoot key new`, kept as hashes, told once.

A key is 256 random bits, which nobody guesses however fast the hash is; a slow one would only cost every
request its time. So it is BLAKE2b under a salt of the key's own: a copy of `keys.json` opens nothing.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock

from folkmoot.errors import ConfigError, NodeError
from folkmoot.node import storage

FILE = "keys.json"
MAX_KEYS = 1_000
MAX_LIMIT = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_HEX = re.compile("[0-9a-f]{32}")
_REMEDY = "delete it and make new keys with `folkmoot key new`"
_PREFIX = "fm"
_TOKEN = re.compile(_PREFIX + r"-[0-9a-f]{8}-[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key. `made_at` is in seconds since 1970; a limit of 0 is none."""

    id: str
    name: str
    salt: str
    hash: str
    made_at: int
    per_minute: int = 0
    at_once: int = 0


@dataclass(frozen=True, slots=True)
class _Book:
    version: int
    keys: tuple[Key, ...] = field(default=())


class Keys:
    """The keys of one home. What another process changes is seen at the next look. Raises NodeError for a damaged file."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._lock = FileLock(home / "keys.lock", mode=0o600)
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def all(self) -> tuple[Key, ...]:
        """Every key, the oldest first."""
        self._look()
        return tuple(self._keys.values())

    def find(self, token: str) -> Key | None:
        """The key that a token is, if it is one."""
        self._look()
        prefix, _, rest = token.partition("-")
        name, _, secret = rest.partition("-")
        key = self._keys.get(name)
        if key is None or prefix != _PREFIX:
            return None
        found = _hash(secret, bytes.fromhex(key.salt))
        return key if hmac.compare_digest(found, key.hash) else None

    def add(self, name: str, now: float, per_minute: int = 0, at_once: int = 0) -> str:
        """Make a key and give its token, which is not kept. Raises ConfigError for a name that is taken or none."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"a key cannot be called {name!r}: use 1 to 32 letters, digits, dots, dashes or underscores"
            )
        number, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_bytes(16)
        key = Key(number, name, salt.hex(), _hash(secret, salt), int(now), per_minute, at_once)
        with self._lock:
            self._look()
            if any(key.name == name for key in self._keys.values()):
                raise ConfigError(f"there is a key {name!r} already; revoke it first, or choose another name")
            if len(self._keys) >= MAX_KEYS:
                raise ConfigError(f"there are {MAX_KEYS} keys, which is the bound; revoke some")
            self._store({**self._keys, number: key})
        return f"{_PREFIX}-{number}-{secret}"

    def revoke(self, name: str) -> Key:
        """Let a key count no more, by its name or its id. Raises ConfigError where there is none."""
        with self._lock:
            self._look()
            key = next((key for key in self._keys.values() if name in (key.name, key.id)), None)
            if key is None:
                raise ConfigError(f"there is no key {name!r}; `folkmoot key list` shows them")
            self._store({number: each for number, each in self._keys.items() if each is not key})
        return key

    def _store(self, keys: dict[str, Key]) -> None:
        storage.save(self._path, _Book(1, tuple(keys.values())))
        self._keys = keys

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            raise NodeError(f"cannot read {self._path}: {error.strerror}") from error
        if seen == self._seen:
            return
        book = storage.load(self._path, _Book, _REMEDY)
        if book is not None and not all(_HEX.fullmatch(key.salt) for key in book.keys):
            raise storage.StateDamaged(f"{self._path} is damaged; {_REMEDY}")
        self._keys = {key.id: key for key in book.keys} if book is not None else {}
        self._seen = seen


def is_ours(token: str) -> bool:
    """Whether a token was made here by its looks, as nobody else's is: one that counts no more is then told apart."""
    return _TOKEN.fullmatch(token) is not None


def _hash(secret: str, salt: bytes) -> str:
    return blake2b(
        secret.encode(errors="replace"), digest_size=32, salt=salt, person=b"folkmoot api key"
    ).hexdigest()
