"""Who this device is: its key, made at the first start, and its membership in one moot.

Files under FOLKMOOT_HOME: `device.json` (the key), `moot.json` (the membership), and on the founder's
device `root.json` (the moot's root key). Whoever reads the keys is this device, or admits whom they like.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import iroh

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, NodeError
from folkmoot.node import storage
from folkmoot.node.admission import Certificate, device_of, issue, verify
from folkmoot.node.invitations import Invitations

MAX_NAME = 64
"""Characters of a moot's name."""


@dataclass(frozen=True, slots=True)
class _Key:
    version: int
    secret: str
    public: str


@dataclass(frozen=True, slots=True)
class _Moot:
    version: int
    moot: str
    name: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Membership:
    """`moot` is the root public key in hexadecimal, `name` is for people."""

    moot: str
    name: str
    certificate: Certificate


class Identity:
    """This device's key and membership. Its repr shows no secret."""

    def __init__(
        self,
        home: Path,
        key: iroh.SecretKey,
        membership: Membership | None,
        root: iroh.SecretKey | None,
    ) -> None:
        self.home = home
        self.key = key
        self.device = device_of(key.public().to_bytes())
        self.membership = membership
        self.invitations = Invitations.load(home)
        self._root = root

    def __repr__(self) -> str:
        return f"Identity({self.device[:8]}, moot={self.membership.moot[:8] if self.membership else None})"

    @classmethod
    def open(cls, home: Path) -> Identity:
        """The identity in `home`; a fresh home gets a fresh key.

        Raises NodeError, with a remedy, where a file is damaged, of another device, or open to others.
        """
        storage.prepare_home(home)
        path = home / "device.json"
        key = _load_key(path, "restore it from a backup; without it this device is a new one")
        if key is None:
            _refuse_orphans(home)
            key = _make_key(path)
        root = _load_key(home / "root.json", "restore it from a backup; without it nobody can be admitted")
        device = device_of(key.public().to_bytes())
        return cls(home, key, _load_membership(home / "moot.json", device), root)

    @property
    def founder(self) -> bool:
        """Whether this device holds the root key of its moot."""
        root = self._root
        return (
            root is not None
            and self.membership is not None
            and device_of(root.public().to_bytes()) == self.membership.moot
        )

    @property
    def may_invite(self) -> bool:
        """Whether this device may admit others."""
        return self.founder or (self.membership is not None and self.membership.certificate.may_invite)

    def found(self, name: str, now: float) -> Membership:
        """Found a moot. `now` in seconds since 1970. Raises AdmissionError inside another moot, NodeError."""
        if self.membership is not None:
            raise AdmissionError(f"this device is in the moot {self.membership.name!r} already")
        # A root key without a membership is what a crash in the middle of founding leaves.
        root = self._root or _make_key(self.home / "root.json")
        self._root = root
        moot = device_of(root.public().to_bytes())
        certificate = issue(root, moot, self.device, may_invite=True, issued_at=int(now))
        return self.adopt(Membership(moot, name[:MAX_NAME], certificate))

    def adopt(self, membership: Membership) -> Membership:
        """Become a member; on disk when it returns. Raises AdmissionError for a bad certificate, NodeError."""
        verify(membership.certificate, membership.moot, self.device)
        certificate = membership.certificate.to_bytes().hex()
        storage.save(self.home / "moot.json", _Moot(1, membership.moot, membership.name, certificate))
        self.membership = membership
        return membership

    def certify(self, newcomer: DeviceId, *, may_invite: bool, now: float) -> Certificate:
        """Admit a device. Raises AdmissionError where this device may not invite, or not delegate."""
        membership = self.membership
        if membership is None or not self.may_invite:
            raise AdmissionError("this device may not invite; ask the founder for `invite --delegate`")
        if self.founder and self._root is not None:
            return issue(self._root, membership.moot, newcomer, may_invite=may_invite, issued_at=int(now))
        if may_invite:
            raise AdmissionError("only the founder may pass on the right to invite")
        return issue(
            self.key,
            membership.moot,
            newcomer,
            may_invite=False,
            issued_at=int(now),
            endorsement=membership.certificate,
        )

    def leave(self) -> None:
        """Forget the membership and all open invitations. A founder's root key is kept under another name."""
        self.invitations.clear()
        storage.remove(self.home / "moot.json")
        if self._root is not None:
            kept = self.home / f"root-{device_of(self._root.public().to_bytes())[:8]}.json"
            try:
                (self.home / "root.json").replace(kept)
            except OSError as error:
                raise NodeError(f"cannot rename root.json to {kept}: {error.strerror}") from error
        self.membership = None
        self._root = None


def _load_key(path: Path, remedy: str) -> iroh.SecretKey | None:
    stored = storage.load(path, _Key, remedy)
    if stored is None:
        return None
    try:
        key = iroh.SecretKey.from_bytes(bytes.fromhex(stored.secret))
    except (iroh.IrohError, ValueError):
        raise NodeError(f"{path} is damaged; {remedy}") from None
    # A single wrong digit would make another, valid key: another device, in silence.
    if device_of(key.public().to_bytes()) != stored.public:
        raise NodeError(f"{path} is damaged (the two halves of the key do not match); {remedy}")
    return key


def _make_key(path: Path) -> iroh.SecretKey:
    key = iroh.SecretKey.generate()
    storage.save(path, _Key(1, key.to_bytes().hex(), key.public().to_bytes().hex()))
    return key


def _refuse_orphans(home: Path) -> None:
    if (home / "moot.json").exists():
        raise NodeError(
            f"{home / 'device.json'} is missing, but {home / 'moot.json'} is there: restore the key from a"
            " backup, or delete moot.json and join again"
        )


def _load_membership(path: Path, device: DeviceId) -> Membership | None:
    remedy = "delete it and join again with a fresh invitation"
    stored = storage.load(path, _Moot, remedy)
    if stored is None:
        return None
    try:
        certificate = Certificate.from_bytes(bytes.fromhex(stored.certificate))
        verify(certificate, stored.moot, device)
    except (AdmissionError, ValueError):
        raise NodeError(f"{path} does not make this device a member; {remedy}") from None
    return Membership(stored.moot, stored.name, certificate)
