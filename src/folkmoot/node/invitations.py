"""The invitations that this device has given out and that are still open.

Only hashes of their secrets are kept, in `invitations.json`, so that a restart does not lose them and a
copy of the file admits nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError
from folkmoot.node import storage
from folkmoot.node.admission import SECRET_BYTES

MAX_OPEN = 1_000
"""Invitations at a time."""
MAX_USES = 1_000
MAX_PLACES = 10_000
"""Uses of all of them together: their file must stay readable."""
MAX_TTL_S = 365 * 86_400.0

_KEEP_S = 7 * 86_400
"""How long an expired invitation is remembered, so that its bearer learns why it is refused."""
_REMEDY = "delete it: the invitations given out become void, members stay members"


@dataclass(frozen=True, slots=True)
class Open:
    """One invitation. `redeemed` are the devices that it has admitted."""

    hash: str
    uses: int
    delegate: bool
    expires_at: int
    redeemed: tuple[DeviceId, ...] = ()


@dataclass(frozen=True, slots=True)
class _Book:
    version: int
    invitations: tuple[Open, ...]


class Invitations:
    """The open invitations of one home. Not thread-safe; each change is on disk before it returns."""

    def __init__(self, path: Path, invitations: tuple[Open, ...]) -> None:
        self._path = path
        self._open = {entry.hash: entry for entry in invitations}

    @classmethod
    def load(cls, home: Path) -> Invitations:
        """Those of earlier starts. Raises NodeError where the file is damaged or too open."""
        path = home / "invitations.json"
        book = storage.load(path, _Book, _REMEDY)
        return cls(path, book.invitations if book else ())

    def add(self, secret: bytes, *, uses: int, expires_at: int, delegate: bool, now: float) -> None:
        """Open an invitation. Raises AdmissionError for too many uses or invitations, NodeError on a full disk."""
        if not 1 <= uses <= MAX_USES:
            raise AdmissionError(f"an invitation for {uses} uses; 1 to {MAX_USES} are possible")
        if len(secret) != SECRET_BYTES:
            raise AdmissionError(f"a secret of {len(secret)} bytes; it must have {SECRET_BYTES}")
        kept = {key: entry for key, entry in self._open.items() if entry.expires_at + _KEEP_S > now}
        if len(kept) >= MAX_OPEN:
            raise AdmissionError(f"{MAX_OPEN} invitations are open; wait until some expire")
        places = sum(each.uses for each in kept.values())
        if places + uses > MAX_PLACES:
            raise AdmissionError(
                f"the open invitations are for {places} devices; at most {MAX_PLACES} are possible together"
            )
        entry = Open(_hash(secret), uses, delegate, expires_at)
        self._store({**kept, entry.hash: entry})

    def redeem_all(self, shown: Iterable[tuple[bytes, DeviceId]], now: float) -> list[Open | AdmissionError]:
        """For each secret and who shows it, in order: its invitation, marked as used, or why it is refused.

        Refused are unknown, expired and spent ones; using one twice for one device is using it once. All are
        written to disk at once. Raises NodeError where that fails.
        """
        entries = dict(self._open)
        found: list[Open | AdmissionError] = []
        for secret, newcomer in shown:
            try:
                entry = _redeemed(entries.get(_hash(secret)), newcomer, now)
            except AdmissionError as refusal:
                found.append(refusal)
            else:
                entries[entry.hash] = entry
                found.append(entry)
        if entries != self._open:
            self._store(entries)
        return found

    def usable(self, now: float) -> int:
        """How many of them still admit somebody."""
        return sum(now < each.expires_at and len(each.redeemed) < each.uses for each in self._open.values())

    @property
    def admitted(self) -> bool:
        """Whether a device has come in by one of those that are remembered."""
        return any(entry.redeemed for entry in self._open.values())

    def clear(self) -> None:
        """Void all of them."""
        self._open = {}
        storage.remove(self._path)

    def _store(self, entries: dict[str, Open]) -> None:
        storage.save(self._path, _Book(1, tuple(entries.values())))
        self._open = entries


def expiry(now: float, ttl_s: float) -> int:
    """When an invitation of `ttl_s` seconds ends. Raises AdmissionError for an impossible time."""
    if not 0 < ttl_s <= MAX_TTL_S:
        raise AdmissionError(
            f"an invitation for {ttl_s} s; more than 0 and up to {MAX_TTL_S:.0f} s are possible"
        )
    return int(now + ttl_s) + 1


def _redeemed(entry: Open | None, newcomer: DeviceId, now: float) -> Open:
    if entry is None:
        raise AdmissionError(
            "the invitation is unknown here: withdrawn, or from before a new root key or a reset; ask for a new one"
        )
    if newcomer in entry.redeemed:
        return entry
    if now >= entry.expires_at:
        raise AdmissionError("the invitation has expired; ask for a new one")
    if len(entry.redeemed) >= entry.uses:
        raise AdmissionError("the invitation has been used up; ask for a new one")
    return replace(entry, redeemed=(*entry.redeemed, newcomer))


def _hash(secret: bytes) -> str:
    return hashlib.sha256(b"folkmoot invitation\0" + secret).hexdigest()
