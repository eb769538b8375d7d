"""How a newcomer becomes a member: the two sides of redeeming an invitation."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable

import iroh

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, FolkmootError
from folkmoot.node import handshake
from folkmoot.node.admission import (
    SECRET_BYTES,
    Certificate,
    Invitation,
    device_of,
    verify,
    write_invitation,
)
from folkmoot.node.identity import Identity, Membership
from folkmoot.node.invitations import Open, expiry

_Verdict = asyncio.Future[Open | AdmissionError]

log = logging.getLogger(__name__)


class Door:
    """Gives out invitations and honours them."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._turn = asyncio.Lock()
        self._turns: dict[asyncio.Task[None], None] = {}
        self._shown: dict[_Verdict, tuple[bytes, DeviceId]] = {}

    async def invite(self, address: str, *, uses: int, ttl_s: float, delegate: bool, now: float) -> str:
        """A fresh invitation to `address`, this device's own. Raises AdmissionError, NodeError on a full disk."""
        identity = self._identity
        membership = identity.membership
        if membership is None or not identity.may_invite:
            raise AdmissionError("this device may not invite; ask the founder for `invite --delegate`")
        if delegate and not identity.founder:
            raise AdmissionError("only the founder may pass on the right to invite")
        secret, expires_at = secrets.token_bytes(SECRET_BYTES), expiry(now, ttl_s)
        async with self._turn:
            await asyncio.to_thread(
                identity.invitations.add,
                secret,
                uses=uses,
                expires_at=expires_at,
                delegate=delegate,
                now=now,
            )
        return write_invitation(identity.key, address, membership.moot, secret, expires_at)

    async def admit(
        self,
        connection: iroh.Connection,
        contacts: Iterable[tuple[DeviceId, str]],
        now: float,
    ) -> None:
        """Answer a newcomer who shows a secret; one that becomes a member is told of `contacts`.

        Raises iroh's error where the connection is lost; may wait for ever, so set a time limit.
        """
        newcomer = device_of(connection.remote_id().to_bytes())
        stream = await connection.accept_bi()
        secret = await stream.recv().read_to_end(SECRET_BYTES)
        verdict: handshake.Welcome | handshake.Refusal
        try:
            certificate = await self._redeem(secret, newcomer, now)
        except FolkmootError as error:
            log.info("%s was not admitted: %s", newcomer[:8], error)
            reason = str(error) if isinstance(error, AdmissionError) else "the inviter cannot record it now"
            verdict = handshake.Refusal(reason[:200])
        else:
            log.info("%s has joined by an invitation of this device", newcomer[:8])
            membership = self._identity.membership
            name = membership.name if membership else ""
            known = tuple(contacts)[: handshake.MAX_CONTACTS]
            verdict = handshake.Welcome(certificate.to_bytes(), name, known)
        await handshake.send(stream.send(), verdict)
        # Closing from here could overtake the answer: the newcomer closes when it has read it.
        await connection.closed()

    async def _redeem(self, secret: bytes, newcomer: DeviceId, now: float) -> Certificate:
        """Redeem an invitation; all who show one while the disk is busy are admitted by one write."""
        verdict: _Verdict = asyncio.get_running_loop().create_future()
        self._shown[verdict] = (secret, newcomer)
        try:
            turn = asyncio.ensure_future(self._take_turn(verdict, now))
            self._turns[turn] = None
            turn.add_done_callback(self._turn_over)
            # A newcomer that gives up must not free the turn while its write goes on: the next one would start
            # from what was written before, and spend an invitation a second time.
            await asyncio.shield(turn)
        finally:
            self._shown.pop(verdict, None)
        entry = verdict.result()
        if isinstance(entry, AdmissionError):
            raise entry
        return self._identity.certify(newcomer, may_invite=entry.delegate, now=now)

    async def _take_turn(self, verdict: _Verdict, now: float) -> None:
        async with self._turn:
            if not verdict.done():
                await self._redeem_shown(now)

    def _turn_over(self, turn: asyncio.Task[None]) -> None:
        del self._turns[turn]
        if not turn.cancelled():
            turn.exception()  # the newcomer that waits for it hears of it; if it has gone, nobody need

    async def _redeem_shown(self, now: float) -> None:
        waiting = dict(self._shown)
        entries = await asyncio.to_thread(self._identity.invitations.redeem_all, waiting.values(), now)
        for verdict, entry in zip(waiting, entries, strict=True):
            if not verdict.done():
                verdict.set_result(entry)


async def ask_for_entry(connection: iroh.Connection, invitation: Invitation) -> handshake.Welcome:
    """Show the secret to its inviter. Raises AdmissionError, RemoteProtocolError, iroh's error."""
    stream = await connection.open_bi()
    sender = stream.send()
    await sender.write_all(invitation.secret)
    await sender.finish()
    match await handshake.receive_verdict(stream.recv()):
        case handshake.Refusal(reason):
            raise AdmissionError(f"the inviter refuses: {reason}")
        case handshake.Welcome() as welcome:
            return welcome


def membership_from(welcome: handshake.Welcome, invitation: Invitation, device: DeviceId) -> Membership:
    """The membership that the inviter granted. Raises AdmissionError where it is not genuine."""
    certificate = Certificate.from_bytes(welcome.certificate)
    verify(certificate, invitation.moot, device)
    return Membership(invitation.moot, welcome.name, certificate)
