"""Who is a member: certificates under the moot's root key, and the invitations that lead to one.

The founder's root key signs members' device keys. A member whose certificate says `may_invite` signs
newcomers itself, and attaches its own certificate; nobody that it admits may invite in turn, so a chain
has at most two links. A moot's id is its root public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

import iroh
import msgspec

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError

CERTIFICATE_BYTES = 512
"""No certificate is longer."""
INVITATION_CHARACTERS = 4_096
"""No invitation is longer."""
SECRET_BYTES = 16

_PREFIX = "folkmoot1"
_CHECK_BYTES = 4
_CERTIFICATE = b"folkmoot certificate 1\0"
_INVITATION = b"folkmoot invitation 1\0"


# ---- keys ------------------------------------------------------------------------------------------


def device_of(public: bytes) -> DeviceId:
    """The name of a public key (32 bytes)."""
    return DeviceId(public.hex())


def signed_by(signer: str, text: bytes, signature: bytes) -> bool:
    """Whether `signer` (a public key in hexadecimal) signed `text`."""
    try:
        key = iroh.EndpointId.from_bytes(bytes.fromhex(signer))
        key.verify(text, iroh.Signature.from_bytes(signature))
    except (iroh.IrohError, ValueError):
        return False
    return True


# ---- certificates ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """`issuer` says that `member` belongs to the moot. `issued_at` is in seconds since 1970.

    `endorsement` is the issuer's own certificate where the issuer is not the root.
    """

    member: DeviceId
    issuer: str
    may_invite: bool
    issued_at: int
    signature: bytes
    endorsement: Certificate | None = None

    def to_bytes(self) -> bytes:
        """For the wire and the disk."""
        links: list[_Link] = []
        link: Certificate | None = self
        while link is not None:
            links.append(
                (
                    bytes.fromhex(link.member),
                    bytes.fromhex(link.issuer),
                    link.may_invite,
                    link.issued_at,
                    link.signature,
                )
            )
            link = link.endorsement
        return msgspec.msgpack.encode(links)

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Parse; proves nothing, see `verify`. Raises AdmissionError."""
        try:
            links = _LINKS.decode(data)
        except msgspec.MsgspecError:
            raise AdmissionError("the certificate is malformed") from None
        certificate: Certificate | None = None
        for member, issuer, may_invite, issued_at, signature in reversed(links):
            if len(member) != 32 or len(issuer) != 32 or len(signature) != 64 or issued_at < 0:
                raise AdmissionError("the certificate is malformed")
            certificate = cls(device_of(member), issuer.hex(), may_invite, issued_at, signature, certificate)
        if certificate is None or len(links) > 2:
            raise AdmissionError("the certificate is malformed")
        return certificate


_Link = tuple[bytes, bytes, bool, int, bytes]
_LINKS = msgspec.msgpack.Decoder(list[_Link])


def issue(
    key: iroh.SecretKey,
    moot: str,
    member: DeviceId,
    *,
    may_invite: bool,
    issued_at: int,
    endorsement: Certificate | None = None,
) -> Certificate:
    """A certificate for `member`, signed with `key`: the root's, or a device's with its `endorsement`."""
    issuer = device_of(key.public().to_bytes())
    text = _certificate_text(moot, member, issuer, may_invite, issued_at)
    return Certificate(member, issuer, may_invite, issued_at, key.sign(text).to_bytes(), endorsement)


def verify(certificate: Certificate, moot: str, member: DeviceId) -> None:
    """Raises AdmissionError unless the certificate makes `member` a member of `moot`."""
    if certificate.member != member:
        raise AdmissionError("the certificate belongs to another device")
    endorsement = certificate.endorsement
    if endorsement is None:
        _verify_link(certificate, moot, moot)
        return
    _verify_link(certificate, moot, endorsement.member)
    _verify_link(endorsement, moot, moot)
    if endorsement.endorsement is not None or not endorsement.may_invite:
        raise AdmissionError("the certificate was issued by a device that may not invite")
    if certificate.may_invite:
        raise AdmissionError("only the founder may pass on the right to invite")


def _verify_link(link: Certificate, moot: str, issuer: str) -> None:
    text = _certificate_text(moot, link.member, link.issuer, link.may_invite, link.issued_at)
    if link.issuer != issuer or not signed_by(issuer, text, link.signature):
        raise AdmissionError("the certificate is not signed by this moot")


def _certificate_text(moot: str, member: str, issuer: str, may_invite: bool, issued_at: int) -> bytes:
    names = bytes.fromhex(moot) + bytes.fromhex(member) + bytes.fromhex(issuer)
    return _CERTIFICATE + names + bytes([may_invite]) + issued_at.to_bytes(8, "big")


# ---- invitations -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Invitation:
    """Whoever holds `secret` may become a member, at `inviter`, until `expires_at` (seconds since 1970)."""

    address: str
    inviter: DeviceId
    moot: str
    expires_at: int
    secret: bytes = field(repr=False)


def write_invitation(key: iroh.SecretKey, address: str, moot: str, secret: bytes, expires_at: int) -> str:
    """The text to hand over, in lower-case letters and digits; signed with the inviter's device key."""
    fields = msgspec.msgpack.encode((address, bytes.fromhex(moot), expires_at, secret))
    signature = key.sign(_INVITATION + fields).to_bytes()
    body = signature + fields
    text = base64.b32encode(body + _check(body)).decode().rstrip("=").lower()
    return _PREFIX + text


def read_invitation(text: str) -> Invitation:
    """Parse an invitation; blanks, line breaks and capitals don't matter.

    Raises AdmissionError: no invitation at all, damaged on the way, or not signed by its inviter.
    """
    plain = "".join(text.split()).lower()
    if not plain.startswith(_PREFIX):
        raise AdmissionError(f"this is no invitation: one begins with {_PREFIX}")
    damaged = "the invitation is damaged: a character is wrong or missing; copy it again as a whole"
    if len(plain) > INVITATION_CHARACTERS:
        raise AdmissionError(damaged)
    digits = plain[len(_PREFIX) :].upper()
    try:
        data = base64.b32decode(digits + "=" * (-len(digits) % 8))
    except (binascii.Error, ValueError):
        raise AdmissionError(damaged) from None
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if _check(body) != check:
        raise AdmissionError(damaged)
    signature, fields = body[:64], body[64:]
    forged = "the invitation is not genuine: its inviter did not sign it"
    try:
        address, moot, expires_at, secret = _FIELDS.decode(fields)
        inviter = device_of(iroh.EndpointTicket.from_string(address).endpoint_addr().id().to_bytes())
    except (msgspec.MsgspecError, iroh.IrohError):
        raise AdmissionError(forged) from None
    if not signed_by(inviter, _INVITATION + fields, signature):
        raise AdmissionError(forged)
    if len(moot) != 32 or len(secret) != SECRET_BYTES:
        raise AdmissionError(forged)
    return Invitation(address, inviter, moot.hex(), expires_at, secret)


_FIELDS = msgspec.msgpack.Decoder(tuple[str, bytes, int, bytes])


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]
