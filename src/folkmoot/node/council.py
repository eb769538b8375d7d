"""What members tell each other about the membership itself, on one-way streams beside the protocol's own.

Each message is a stream: a byte that says what it is, then its content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import iroh

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, NodeError, RemoteProtocolError
from folkmoot.node import decrees
from folkmoot.node.admission import CERTIFICATE_BYTES, Certificate
from folkmoot.node.decrees import Ban, Decree, Rotation
from folkmoot.node.identity import Identity
from folkmoot.node.link import Link

DECREES, RENEW, GRANTED, MINE = b"\x01", b"\x02", b"\x03", b"\x04"
"""Decrees that the sender knows; a member asks for a certificate under the new root; it gets one; the sender has one now."""
BUNDLE = 128
"""Decrees in a message."""
CONTROL_BYTES = BUNDLE * (decrees.DECREE_BYTES + 4)
RENEW_S = 5.0
"""So often a member asks again for its new certificate (guess)."""

log = logging.getLogger(__name__)


class Council:
    """One device's part in bans and in changes of the root key.

    `links` gives all connections, `drop` ends those to a device, `reach` gives one to a device, `on_banned` is told who is
    out, `spawn` runs a task for as long as the network lives.
    """

    def __init__(
        self,
        identity: Identity,
        now: Callable[[], float],
        *,
        links: Callable[[], Iterable[Link]],
        drop: Callable[[DeviceId], None],
        reach: Callable[[DeviceId], asyncio.Future[Link]],
        on_banned: Callable[[DeviceId], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._identity = identity
        self._now = now
        self._links = links
        self._drop = drop
        self._reach = reach
        self._on_banned = on_banned
        self._spawn = spawn
        self._saving = asyncio.Lock()
        self._asked_at = float("-inf")
        self._known = dict.fromkeys(identity.decrees.banned())

    # ---- the founder's -----------------------------------------------------------------------------

    async def ban(self, device: DeviceId) -> None:
        """Ban a device and tell everybody. Raises AdmissionError, NodeError."""
        decree = await asyncio.to_thread(self._identity.ban, device, self._now())
        await self._enact([decree], None)

    async def rotate(self, grace_s: float) -> Rotation:
        """Change the root key and tell everybody. Raises AdmissionError, NodeError."""
        step = await asyncio.to_thread(self._identity.rotate, self._now(), grace_s)
        for link in self._links():
            self.tell(link)
        return step

    # ---- everybody's -------------------------------------------------------------------------------

    def rotations(self) -> tuple[bytes, ...]:
        """What a hello shows before its certificate."""
        return tuple(decrees.to_bytes(step) for step in self._identity.decrees.rotations())

    async def learn(self, raw: Iterable[bytes]) -> None:
        """Take in decrees from whomever. Raises RemoteProtocolError where one is not genuine."""
        await self._enact(self._news(raw), None)

    def tell(self, link: Link) -> None:
        """Tell a peer of all decrees, in the background.

        And of this device's certificate: it may have got a new one since it said hello on this connection.
        """
        membership, known = self._identity.membership, self._identity.decrees
        messages = _bundles(known.all())
        if membership is not None and known.rotations():
            messages.append(MINE + membership.certificate.to_bytes())
        self._post(link, messages)

    async def listen(self, link: Link) -> None:
        """Take what a peer sends until its connection is lost."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                stream = await link.connection.accept_uni()
                data = await stream.read_to_end(CONTROL_BYTES)
                if not link.controls.allow(clock()):
                    raise RemoteProtocolError("too many messages about the membership")
                await self._on_message(link, data)
        except (RemoteProtocolError, AdmissionError) as error:
            link.rubbish(str(error))
        except iroh.IrohError:
            return

    async def tidy(self) -> None:
        """End connections under a root that counts no more, and ask for a new certificate where this device needs one."""
        membership = self._identity.membership
        if membership is None:
            return
        roots = self._identity.decrees.roots(membership.moot, self._now())
        for link in list(self._links()):
            if link.root not in roots:
                log.info("%s has no certificate of the new root key", link.device[:8])
                self._drop(link.device)
        step = self._identity.decrees.successor(membership.moot)
        at = asyncio.get_running_loop().time()
        if step is None or step.founder == self._identity.device or at - self._asked_at < RENEW_S:
            return
        self._asked_at = at
        try:
            self._post(await asyncio.shield(self._reach(step.founder)), [RENEW])
        except NodeError as error:
            log.info("no certificate of the new root key yet: %s", error)

    async def _on_message(self, link: Link, data: bytes) -> None:
        kind, content = data[:1], data[1:]
        match kind:
            case b"\x01":
                await self._enact(self._news(decrees.unpack(content, BUNDLE)), link)
            case b"\x02":
                self._grant(link)
            case b"\x03":
                await self._take(_certificate(content))
            case b"\x04":
                self._update(link, _certificate(content))
            case _:
                raise RemoteProtocolError("a message about the membership of a kind that there is not")

    def _news(self, raw: Iterable[bytes]) -> list[Decree]:
        membership, known = self._identity.membership, self._identity.decrees
        if membership is None:
            return []
        news = []
        for each in raw:
            if not known.knows(each):
                decree = decrees.from_bytes(each)
                if known.believes(decree, membership.moot) and known.add(decree):
                    news.append(decree)
        return news

    async def _enact(self, news: list[Decree], source: Link | None) -> None:
        """Carry out what is new, keep it, and pass it on."""
        if not news:
            return
        for decree in news:
            if isinstance(decree, Ban):
                if decree.member not in self._known:  # a new root key signs each ban anew
                    log.warning("%s is banned from the moot", decree.member[:8])
                    self._known[decree.member] = None
                self._on_banned(decree.member)
                self._drop(decree.member)
            else:
                self._asked_at = float("-inf")
        for link in self._links():
            if link is not source:
                self._post(link, _bundles(news))
        try:
            async with self._saving:
                await asyncio.to_thread(self._identity.decrees.save)
        except NodeError as error:
            log.warning("%s; it is learnt again from others after the next start", error)

    def _grant(self, link: Link) -> None:
        """A member asks for a certificate under the newest root; who is banned has no connection."""
        if self._identity.founder:
            certificate = self._identity.certify(link.device, may_invite=link.may_invite, now=self._now())
            self._post(link, [GRANTED + certificate.to_bytes()])

    def _update(self, link: Link, certificate: Certificate) -> None:
        """A peer shows its new certificate; one that does not count changes nothing."""
        with contextlib.suppress(AdmissionError):
            link.root = self._identity.check(certificate, link.device, self._now())
            link.may_invite = certificate.may_invite

    async def _take(self, certificate: Certificate) -> None:
        """The founder has certified this device under the newest root."""
        membership = self._identity.membership
        if membership is None or self._identity.decrees.successor(membership.moot) is None:
            return
        try:
            await asyncio.to_thread(self._identity.renew, certificate)
        except AdmissionError as error:
            log.info("this is no certificate of the new root key: %s", error)
        else:
            log.info("this device has a certificate of the new root key")
            self._show_mine()

    def _show_mine(self) -> None:
        membership = self._identity.membership
        if membership is not None:
            for link in self._links():
                self._post(link, [MINE + membership.certificate.to_bytes()])

    def _post(self, link: Link, messages: list[bytes]) -> None:
        """Send in the background: a peer that stands still holds up nobody else."""
        if messages:
            self._spawn(_send(link, messages))


def _bundles(some: Sequence[Decree]) -> list[bytes]:
    return [DECREES + decrees.pack(some[start : start + BUNDLE]) for start in range(0, len(some), BUNDLE)]


def _certificate(data: bytes) -> Certificate:
    if len(data) > CERTIFICATE_BYTES:
        raise RemoteProtocolError(f"a certificate of {len(data)} bytes")
    return Certificate.from_bytes(data)


async def _send(link: Link, messages: list[bytes]) -> None:
    """Send messages in order; where the connection is lost, the next one begins with all decrees."""
    try:
        async with link.speaking:
            for data in messages:
                stream = await link.connection.open_uni()
                await stream.write_all(data)
                await stream.finish()
    except iroh.IrohError:
        log.debug("%s is gone and was not told", link.device[:8])
