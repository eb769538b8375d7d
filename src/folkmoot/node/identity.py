"""Who this device is: its key, made at the first start, and its membership in one moot.

Files under FOLKMOOT_HOME: `device.json` (the key), `moot.json` (the membership), and on the founder's
device `root.json` (the moot's root key). Whoever reads the keys is this device, or admits whom they like.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import iroh

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, NodeError
from folkmoot.node import storage
from folkmoot.node.admission import Certificate, device_of, issue, verify
from folkmoot.node.decrees import MAX_BANS, MAX_GRACE_S, MAX_ROTATIONS, Ban, Decrees, Rotation, refuse_banned
from folkmoot.node.decrees import ban as make_ban
from folkmoot.node.decrees import rotation as make_rotation
from folkmoot.node.invitations import Invitations

_ROOT, _NEXT = "root.json", "root-next.json"

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
        self.decrees = Decrees.load(home)
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
        identity = cls(home, key, _load_membership(home / "moot.json", device), root)
        identity._finish_rotation()
        return identity

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

    def check(self, certificate: Certificate, device: DeviceId, now: float) -> str:
        """The root key that makes `device` a member. Raises AdmissionError where none that counts now does, or it is banned."""
        membership = self.membership
        if membership is None:
            raise AdmissionError("this device belongs to no moot")
        refuse_banned(self.decrees, device)
        if certificate.endorsement is not None:
            # It could date back whatever it signs: whom a banned device has let in needs a fresh invitation.
            refuse_banned(self.decrees, certificate.endorsement.member)
        newest, *others = self.decrees.roots(membership.moot, now)
        for root in others:
            with contextlib.suppress(AdmissionError):
                verify(certificate, root, device)
                return root
        verify(certificate, newest, device)
        return newest

    def ban(self, device: DeviceId, now: float) -> Ban:
        """Ban a device for good; on disk when it returns. Raises AdmissionError where this is not the founder's, NodeError."""
        if not self.founder or self._root is None:
            raise AdmissionError("only the founder may ban a member; ask on the device that founded the moot")
        if device == self.device:
            raise AdmissionError("the founder cannot ban itself; `folkmoot leave` takes it out of the moot")
        decree = make_ban(self._root, device, int(now))
        with self.decrees.kept():
            if not self.decrees.add(decree):
                if self.decrees.is_banned(device):
                    raise AdmissionError(f"{device[:8]} is banned already; nothing more is to be done")
                raise AdmissionError(f"{MAX_BANS} devices are banned, which is the bound; found a new moot")
        return decree

    def rotate(self, now: float, grace_s: float) -> Rotation:
        """A new root key for the moot; certificates of the old one count for `grace_s` more seconds. On disk when it returns.

        Raises AdmissionError where this is not the founder's device, or for an impossible time, NodeError.
        """
        root = self._root
        if not self.founder or root is None:
            raise AdmissionError(
                "only the founder may change the root key; do it on the device that founded the moot"
            )
        if not 0 < grace_s <= MAX_GRACE_S:
            raise AdmissionError(
                f"a grace of {grace_s} s; more than 0 and up to {MAX_GRACE_S} s are possible"
            )
        moot = device_of(root.public().to_bytes())
        if (begun := self.decrees.successor(moot)) is not None:
            self._finish_rotation()  # a full disk has stopped it half-way
            return begun
        successor = _make_key(self.home / _NEXT)
        step = make_rotation(root, successor, self.device, int(now + grace_s) + 1)
        with self.decrees.kept():
            if not self.decrees.add(step):
                raise AdmissionError(
                    f"a moot's root key can be changed {MAX_ROTATIONS} times; found a new moot"
                )
            for banned in self.decrees.banned():
                self.decrees.add(make_ban(successor, banned, int(now)))
        self._succeed(successor, int(now))
        return step

    def renew(self, certificate: Certificate) -> None:
        """Take the certificate under the newest root. Raises AdmissionError for a bad one, NodeError."""
        membership = self.membership
        if membership is None:
            raise AdmissionError("this device belongs to no moot")
        self.adopt(Membership(self.decrees.head(membership.moot), membership.name, certificate))
        # They name the root before, under which nobody can be admitted any more.
        self.invitations.clear()

    def _succeed(self, successor: iroh.SecretKey, issued_at: int) -> None:
        """The second half of a rotation: from here on the successor is the root."""
        membership = self.membership
        assert membership is not None  # a founder is a member
        moot = device_of(successor.public().to_bytes())
        certificate = issue(successor, moot, self.device, may_invite=True, issued_at=issued_at)
        self.invitations.clear()
        self.adopt(Membership(moot, membership.name, certificate))
        self._root = successor
        storage.move(self.home / _NEXT, self.home / _ROOT)

    def _finish_rotation(self) -> None:
        """Go on where a crash in the middle of a rotation has left it, or undo what had not become known."""
        successor = _load_key(self.home / _NEXT, "delete it, and change the root key again")
        membership = self.membership
        if successor is None or membership is None:
            return
        moot = device_of(successor.public().to_bytes())
        step = self.decrees.successor(membership.moot)
        if membership.moot == moot:
            self._root = successor
            storage.move(self.home / _NEXT, self.home / _ROOT)
        elif step is not None and step.new == moot:
            self._succeed(successor, membership.certificate.issued_at)
        else:
            storage.remove(self.home / _NEXT)

    def certify(self, newcomer: DeviceId, *, may_invite: bool, now: float) -> Certificate:
        """Admit a device. Raises AdmissionError where this device may not invite, or not delegate."""
        membership = self.membership
        if membership is None or not self.may_invite:
            raise AdmissionError("this device may not invite; ask the founder for `invite --delegate`")
        refuse_banned(self.decrees, newcomer)
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
        self.decrees.clear()
        storage.remove(self.home / "moot.json")
        if self._root is not None:
            kept = self.home / f"root-{device_of(self._root.public().to_bytes())[:8]}.json"
            storage.move(self.home / _ROOT, kept)
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
