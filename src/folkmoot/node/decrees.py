"""What the founder decides for the whole moot: who is banned, and which root key comes after this one.

A decree is signed with the root key, so that it does not matter who passes it on. Devices tell each other all that they know
whenever a connection begins, and what is new at once; each keeps them on disk. Decrees only add up and none takes another
back, so an old one that is sent again changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import iroh
import msgspec

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, RemoteProtocolError
from folkmoot.node import storage
from folkmoot.node.admission import device_of, signed_by

FILE = "decrees.json"
MAX_BANS = 4_096
MAX_ROTATIONS = 64
MAX_GRACE_S = 365 * 86_400
DECREE_BYTES = 384
"""No decree is longer."""
SHOWN = 4
"""Rotations, the latest ones, that a device shows before its certificate."""

_BAN = b"folkmoot ban 1\0"
_ROTATION = b"folkmoot rotation 1\0"
_REMEDY = "delete it; members tell this device again whom the founder has banned"


@dataclass(frozen=True, slots=True)
class Ban:
    """The root `moot` says that `member` belongs to it no more. `issued_at` is in seconds since 1970."""

    moot: str
    member: DeviceId
    issued_at: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Rotation:
    """The root `old` says that `new` takes its place: certificates of `old` count until `until` (seconds since 1970).

    `founder` is the device that certifies members under the new one. `consent` is the new root's signature: without it anybody
    could make up a root that this moot would have had before.
    """

    old: str
    new: str
    founder: DeviceId
    until: int
    signature: bytes
    consent: bytes


Decree = Ban | Rotation


def ban(root: iroh.SecretKey, member: DeviceId, issued_at: int) -> Ban:
    """A ban, signed with the root key."""
    moot = device_of(root.public().to_bytes())
    return Ban(moot, member, issued_at, root.sign(_ban_text(moot, member, issued_at)).to_bytes())


def rotation(root: iroh.SecretKey, successor: iroh.SecretKey, founder: DeviceId, until: int) -> Rotation:
    """A change of the root key, signed with the old one and the new one."""
    old, new = device_of(root.public().to_bytes()), device_of(successor.public().to_bytes())
    text = _rotation_text(old, new, founder, until)
    return Rotation(old, new, founder, until, root.sign(text).to_bytes(), successor.sign(text).to_bytes())


def to_bytes(decree: Decree) -> bytes:
    """For the wire and the disk."""
    names: tuple[str, ...]
    signatures: tuple[bytes, ...]
    match decree:
        case Ban():
            names, at, signatures = (decree.moot, decree.member), decree.issued_at, (decree.signature,)
        case Rotation():
            names, at = (decree.old, decree.new, decree.founder), decree.until
            signatures = (decree.signature, decree.consent)
    return msgspec.msgpack.encode(([bytes.fromhex(name) for name in names], at, signatures))


def from_bytes(data: bytes) -> Decree:
    """Parse, and prove the signatures. Raises RemoteProtocolError."""
    if len(data) > DECREE_BYTES:
        raise RemoteProtocolError(f"a decree of {len(data)} bytes")
    try:
        raw, at, signatures = _FIELDS.decode(data)
    except (msgspec.MsgspecError, UnicodeError):
        raise RemoteProtocolError("malformed decree") from None
    sound = all(len(name) == 32 for name in raw) and all(len(each) == 64 for each in signatures)
    if not sound or not 0 <= at < 2**53 or (len(raw), len(signatures)) not in ((2, 1), (3, 2)):
        raise RemoteProtocolError("malformed decree")
    root, subject, *rest = (device_of(name) for name in raw)
    decree: Decree
    if rest:
        decree = Rotation(root, subject, rest[0], at, *signatures)
        text = _rotation_text(root, subject, rest[0], at)
        genuine = signed_by(root, text, signatures[0]) and signed_by(subject, text, signatures[1])
    else:
        decree = Ban(root, subject, at, *signatures)
        genuine = signed_by(root, _ban_text(root, subject, at), signatures[0])
    if not genuine:
        raise RemoteProtocolError("a decree that its root has not signed")
    return decree


_FIELDS = msgspec.msgpack.Decoder(tuple[list[bytes], int, list[bytes]])


def _ban_text(moot: str, member: DeviceId, issued_at: int) -> bytes:
    return _BAN + bytes.fromhex(moot) + bytes.fromhex(member) + issued_at.to_bytes(8, "big")


def _rotation_text(old: str, new: str, founder: DeviceId, until: int) -> bytes:
    names = bytes.fromhex(old) + bytes.fromhex(new) + bytes.fromhex(founder)
    return _ROTATION + names + until.to_bytes(8, "big")


# ---- what one device knows -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Book:
    version: int
    decrees: tuple[str, ...]


class Decrees:
    """The decrees that one device has heard of. `save` waits for the disk: where an event loop runs, in a thread."""

    def __init__(self, path: Path, known: Iterable[Decree]) -> None:
        self._path = path
        self._bans: dict[DeviceId, Ban] = {}
        self._rotations: dict[str, Rotation] = {}
        self._raw: set[bytes] = set()
        for decree in known:
            self.add(decree)

    @classmethod
    def load(cls, home: Path) -> Decrees:
        """Those of earlier starts. Raises NodeError where the file is damaged or too open."""
        path = home / FILE
        book = storage.load(path, _Book, _REMEDY)
        try:
            return cls(path, [from_bytes(bytes.fromhex(each)) for each in book.decrees] if book else ())
        except (RemoteProtocolError, ValueError):
            raise storage.StateDamaged(f"{path} is damaged; {_REMEDY}") from None

    def add(self, decree: Decree) -> bool:
        """Take one in; False where it is known, or where its root has named another successor already."""
        match decree:
            case Ban():
                known = self._bans.get(decree.member)
                if (known is not None and known.moot == decree.moot) or len(self._bans) >= MAX_BANS:
                    return False
                self._bans[decree.member] = decree
            case Rotation():
                if decree.old in self._rotations or len(self._rotations) >= MAX_ROTATIONS:
                    return False
                self._rotations[decree.old] = decree
        self._raw.add(to_bytes(decree))
        return True

    def knows(self, raw: bytes) -> bool:
        """Whether a decree has been taken in before; told by its bytes, without proving its signature once more."""
        return raw in self._raw

    def all(self) -> tuple[Decree, ...]:
        """Every one: rotations first, since bans may be signed by a root that they name."""
        return (*self._rotations.values(), *self._bans.values())

    def rotations(self) -> tuple[Rotation, ...]:
        """The latest ones, in order."""
        return tuple(self._rotations.values())[-SHOWN:]

    def successor(self, moot: str) -> Rotation | None:
        """What takes a root's place, if anything does."""
        return self._rotations.get(moot)

    def is_banned(self, device: DeviceId) -> bool:
        """Whether a device is banned."""
        return device in self._bans

    def banned(self) -> tuple[DeviceId, ...]:
        """All that are."""
        return tuple(self._bans)

    def roots(self, moot: str, now: float) -> tuple[str, ...]:
        """The root keys that count for a member of `moot`: the newest, and those before it for their grace."""
        roots = [self.head(moot)]
        while before := [
            step.old
            for step in tuple(self._rotations.values())
            if step.new == roots[-1] and step.until > now and step.old not in roots
        ]:
            roots.append(before[0])
        return tuple(roots)

    def head(self, moot: str) -> str:
        """The newest root that follows `moot`."""
        seen = [moot]
        while (step := self._rotations.get(seen[-1])) is not None and step.new not in seen:
            seen.append(step.new)
        return seen[-1]

    def believes(self, decree: Decree, moot: str) -> bool:
        """Whether a member of `moot` believes a decree: it is its newest root's, or the new root's of a change before."""
        head = self.head(moot)
        if isinstance(decree, Ban):
            return decree.moot == head
        before = {head} | {step.old for step in tuple(self._rotations.values())}
        return decree.old == head or decree.new in before

    def save(self) -> None:
        """Write them down. Raises NodeError."""
        storage.save(self._path, _Book(1, tuple(to_bytes(decree).hex() for decree in self.all())))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What is added in the block is on disk at its end, or not there at all. Raises NodeError."""
        bans, rotations, raw = dict(self._bans), dict(self._rotations), set(self._raw)
        try:
            yield
            self.save()
        except BaseException:
            # Whole ones in their place: nobody that is banned is let in between.
            self._bans, self._rotations, self._raw = bans, rotations, raw
            raise

    def clear(self) -> None:
        """Forget all of them, as this device has left. Raises NodeError."""
        self._bans.clear()
        self._rotations.clear()
        self._raw.clear()
        storage.remove(self._path)


def pack(decrees: Iterable[Decree]) -> bytes:
    """Some decrees as one message."""
    return msgspec.msgpack.encode([to_bytes(decree) for decree in decrees])


def unpack(data: bytes, most: int) -> list[bytes]:
    """The single decrees of a message, at most so many. Raises RemoteProtocolError."""
    try:
        raw = _BUNDLE.decode(data)
    except (msgspec.MsgspecError, UnicodeError):
        raise RemoteProtocolError("malformed decrees") from None
    if len(raw) > most:
        raise RemoteProtocolError(f"{len(raw)} decrees at once; at most {most} are allowed")
    return raw


_BUNDLE = msgspec.msgpack.Decoder(list[bytes])


def refuse_banned(decrees: Decrees, device: DeviceId) -> None:
    """Raises AdmissionError for a device that is banned."""
    if decrees.is_banned(device):
        raise AdmissionError(f"{device[:8]} is banned from this moot")
