"""What two devices say before they trust each other: the first stream of every connection.

Members (`MEMBER`): the dialler sends `Hello`, the other side answers with its own; each proves by its
certificate that the key which QUIC has proven belongs to the moot. Newcomers (`NEWCOMER`): the invitation's
secret goes one way, `Welcome` or `Refusal` comes back. Each side sends one message and finishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import iroh
import msgspec

from folkmoot.core.ids import DeviceId
from folkmoot.errors import RemoteProtocolError
from folkmoot.node.admission import CERTIFICATE_BYTES
from folkmoot.node.decrees import DECREE_BYTES, SHOWN

MEMBER = b"folkmoot/1"
NEWCOMER = b"folkmoot-join/1"
HELLO_BYTES = CERTIFICATE_BYTES + 64 + SHOWN * (DECREE_BYTES + 4)
WELCOME_BYTES = 64 << 10
MAX_CONTACTS = 32
INSTANCE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """`instance` is drawn anew by every process; `clock` counts the links that it has made so far.

    From these two the other side tells a restarted peer and a redial from two dials that crossed. `rotations` are the decrees
    by which the certificate's root has come after those before it.
    """

    certificate: bytes
    instance: bytes
    clock: int
    rotations: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """The newcomer's certificate, the moot's name, and members with their addresses, the inviter first."""

    certificate: bytes
    name: str
    contacts: tuple[tuple[DeviceId, str], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an invitation does not count, for people."""

    reason: str


async def send(stream: iroh.SendStream, value: Hello | Welcome | Refusal) -> None:
    """Send the one message of this side. Raises iroh's error where the connection is lost."""
    await stream.write_all(_pack(value))
    await stream.finish()


async def receive_hello(stream: iroh.RecvStream) -> Hello:
    """The other side's hello. Raises RemoteProtocolError, or iroh's error where the connection is lost."""
    fields = _unpack(_HELLO, await stream.read_to_end(HELLO_BYTES))
    hello = Hello(*fields)
    sound = len(hello.instance) == INSTANCE_BYTES and 0 <= hello.clock < 2**63
    if not sound or len(hello.rotations) > SHOWN:
        raise RemoteProtocolError("malformed hello")
    return hello


async def receive_verdict(stream: iroh.RecvStream) -> Welcome | Refusal:
    """What the inviter says. Raises RemoteProtocolError, or iroh's error where the connection is lost."""
    certificate, text, contacts = _unpack(_VERDICT, await stream.read_to_end(WELCOME_BYTES))
    if len(text) > 200 or not text.isprintable() or len(contacts) > MAX_CONTACTS + 1:
        raise RemoteProtocolError("malformed answer to an invitation")
    if certificate is None:
        return Refusal(text)
    return Welcome(certificate, text, contacts)


_HELLO = msgspec.msgpack.Decoder(tuple[bytes, bytes, int, tuple[bytes, ...]])
_VERDICT = msgspec.msgpack.Decoder(tuple[bytes | None, str, tuple[tuple[DeviceId, str], ...]])


def _pack(value: Hello | Welcome | Refusal) -> bytes:
    match value:
        case Hello(certificate, instance, clock, rotations):
            return msgspec.msgpack.encode((certificate, instance, clock, rotations))
        case Welcome(certificate, name, contacts):
            return msgspec.msgpack.encode((certificate, name, contacts))
        case Refusal(reason):
            return msgspec.msgpack.encode((None, reason, ()))


def _unpack(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError):
        raise RemoteProtocolError("malformed handshake") from None
