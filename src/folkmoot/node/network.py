"""The network of one device, on iroh: connections to members, datagrams and streams on them, admission.

Everything runs on one event loop and nothing blocks it. Who is held dead is decided elsewhere: this module
reports lost connections as hints and redials at the newest address when something is to be sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any

import iroh

from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Message
from folkmoot.errors import AdmissionError, LocalProtocolError, NodeError, RemoteProtocolError
from folkmoot.node import handshake
from folkmoot.node.admission import Certificate, device_of, read_invitation
from folkmoot.node.bugs import way_of
from folkmoot.node.config import Host, NetworkConfig, join_address, parse_listen, split_address
from folkmoot.node.council import Council
from folkmoot.node.handshake import MEMBER, NEWCOMER, Hello
from folkmoot.node.identity import Identity
from folkmoot.node.joining import Door, ask_for_entry, membership_from
from folkmoot.node.link import (
    Close,
    Link,
    PeerUnreachable,
    Stream,
    Traffic,
    check_sender,
    close_code,
    read_datagrams,
    serve,
)
from folkmoot.node.memory import Memory
from folkmoot.wire import decode, encode, limits

DATAGRAM_OVERHEAD = 60
"""Bytes of IP, UDP and QUIC around a datagram, as the virtual world counts them."""
CLOSE_S = 1.0
"""How long closing waits for confirmations; iroh would wait 3 s for a peer that is dead."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Failure:
    """A dead address: how often it was tried in vain, and when it may be tried again."""

    address: str
    times: int
    until: float


def _nobody() -> Iterable[tuple[DeviceId, str]]:
    return ()


class Network:
    """This device's side of all connections. The callbacks run on the event loop and must not block.

    `address_of` gives a member's newest address; `contacts` what a newcomer is told. `on_link_lost` is called
    when the last connection to a device broke by itself.
    """

    def __init__(
        self,
        identity: Identity,
        config: NetworkConfig,
        *,
        address_of: Callable[[DeviceId], str | None],
        on_datagram: Callable[[DeviceId, Message], None],
        on_stream: Callable[[DeviceId, Stream], Awaitable[None]],
        on_link_lost: Callable[[DeviceId], None] = lambda device: None,
        on_address: Callable[[str], None] = lambda address: None,
        on_banned: Callable[[DeviceId], None] = lambda device: None,
        contacts: Callable[[], Iterable[tuple[DeviceId, str]]] = _nobody,
        memory: Memory | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.identity = identity
        self.address = ""
        self._config = config
        self._listen = parse_listen(config.listen)
        self._address_of = address_of
        self._on_datagram = on_datagram
        self._on_stream = on_stream
        self._on_link_lost = on_link_lost
        self._on_address = on_address
        self._contacts = contacts
        self._memory = memory
        self._now = now
        self._door = Door(identity)
        self.council = Council(
            identity,
            now,
            links=self._all_links,
            drop=lambda device: self._cut(device, self._why_not(device)),
            reach=self._reached,
            on_banned=on_banned,
            spawn=self._spawn,
        )
        self._traffic = Traffic()
        self._instance = secrets.token_bytes(handshake.INSTANCE_BYTES)
        self._clock = 0
        self._endpoint: iroh.Endpoint | None = None
        self._links: dict[DeviceId, Link] = {}
        self._surplus: dict[Link, None] = {}
        self._dials: dict[tuple[DeviceId, str], asyncio.Future[Link]] = {}
        self._failures: dict[DeviceId, _Failure] = {}
        self._penalties: dict[DeviceId, float] = {}
        self._waiting: dict[DeviceId, deque[bytes]] = {}
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._told_of_ban = False

    # ---- life --------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Bind and listen; this device's address. Raises NodeError where the port is taken."""
        self._endpoint = await self._bind()
        self.address = self._current_address()
        if self._memory is not None and self._memory.port != self.port:
            self._memory.port = self.port
            await asyncio.to_thread(self._memory.write, self._memory.snapshot())
        self._spawn(self._accept(self._endpoint))
        self._spawn(self._tidy())
        return self.address

    @property
    def port(self) -> int:
        """The UDP port that others dial."""
        assert self._endpoint is not None
        family = self._listen[0].version
        sockets = [split_address(text) for text in self._endpoint.bound_sockets()]
        return next(port for host, port in sockets if host.version == family)

    def linked(self) -> tuple[DeviceId, ...]:
        """The devices to which there is a connection."""
        return tuple(self._links)

    def traffic(self) -> Traffic:
        """What was sent to peers since the start."""
        sent = replace(self._traffic)
        for link in self._all_links():
            sent.carried(link.connection)
        return sent

    async def close(self) -> None:
        """End all connections and give the port back. Nothing runs any more when it returns."""
        endpoint, self._endpoint = self._endpoint, None
        for link in self._all_links():
            link.close(Close.BYE)
        self._links.clear()
        self._surplus.clear()
        for attempt in self._dials.values():
            if not attempt.done():
                attempt.set_exception(PeerUnreachable("the network is closed"))
        while running := [*self._tasks, *self._strangers]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            # A task leaves its table by a callback, in the loop's next round.
            await asyncio.sleep(0)
        if endpoint is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await endpoint.close()
            except TimeoutError:
                log.debug("not everybody has confirmed the end of their connection")

    async def _bind(self) -> iroh.Endpoint:
        host, port = self._listen
        remembered = self._memory.port if self._memory is not None and port == 0 else 0
        if remembered:
            try:
                return await self._bind_to(host, remembered)
            except iroh.IrohError:
                log.info("the last UDP port %d is taken; another one is used", remembered)
        try:
            return await self._bind_to(host, port)
        except iroh.IrohError as error:
            if "in use" in error.message():
                raise NodeError(
                    f"UDP port {port} on {host} is taken; stop the program that holds it, or choose another"
                    " with --listen HOST:PORT"
                ) from None
            raise NodeError(f"cannot listen on {self._config.listen}: {_last_line(error)}") from None

    async def _bind_to(self, host: Host, port: int) -> iroh.Endpoint:
        relays = self._config.relays
        mode = iroh.RelayMode.custom_from_urls(list(relays)) if relays else iroh.RelayMode.disabled()
        return await iroh.Endpoint.bind(
            iroh.EndpointOptions(
                preset=iroh.preset_minimal(),
                bind_addr=join_address(host, port),
                secret_key=self.identity.key.to_bytes(),
                alpns=[MEMBER, NEWCOMER],
                relay_mode=mode,
            )
        )

    def _current_address(self) -> str:
        """This device's ticket: addresses at which it accepts anybody, as many of them as a card holds."""
        assert self._endpoint is not None
        own = self._endpoint.addr()
        reachable = [text for text in own.direct_addresses() if self._accepts(split_address(text)[0])]
        if not reachable:
            host = self._listen[0]
            fallback = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
            reachable = [join_address(fallback if host.is_unspecified else host, self.port)]
        for count in range(len(reachable), 0, -1):
            addr = iroh.EndpointAddr(own.id(), own.relay_url(), reachable[:count])
            ticket = str(iroh.EndpointTicket.from_addr(addr))
            if len(ticket) <= limits.TEXTS["Card.address"]:
                break
        return ticket

    def _accepts(self, host: Host) -> bool:
        """Whether somebody at `host` is within what `listen` says.

        iroh also opens a socket on all IPv6 addresses where only an IPv4 one was asked for.
        """
        listen = self._listen[0]
        plain = getattr(host, "ipv4_mapped", None) or host
        return bool(plain.version == listen.version and (plain.is_loopback or not listen.is_loopback))

    # ---- sending -----------------------------------------------------------------------------------

    def send_datagram(self, to: DeviceId, message: Message) -> None:
        """Send if it can be sent; dials in the background. Never waits; what cannot go out is dropped.

        Raises LocalProtocolError for a message out of bounds or larger than a datagram.
        """
        data = encode(message)
        if len(data) > limits.DATAGRAM_BYTES:
            raise LocalProtocolError(
                f"{type(message).__name__} has {len(data)} bytes; a datagram holds {limits.DATAGRAM_BYTES}"
            )
        link = self._links.get(to)
        if link is not None:
            self._put(link, data)
            return
        try:
            self._dial(to)
        except PeerUnreachable:
            return
        self._waiting.setdefault(to, deque(maxlen=self._config.datagrams_waiting)).append(data)

    async def open(self, to: DeviceId) -> Stream:
        """A new stream to a member. Raises PeerUnreachable within `dial_s`."""
        try:
            async with asyncio.timeout(self._config.dial_s):
                link = self._links.get(to)
                if link is None:
                    link = await asyncio.shield(self._dial(to))
                return await link.open()
        except TimeoutError:
            raise PeerUnreachable(f"{to[:8]} did not answer within {self._config.dial_s} s") from None

    def disconnect(self, device: DeviceId) -> None:
        """Close all connections to a device, which ends their streams; `on_link_lost` is not called."""
        self._cut(device, Close.DEAD)

    def _cut(self, device: DeviceId, code: Close) -> None:
        self._waiting.pop(device, None)
        for link in self._all_links():
            if link.device == device:
                self._drop(link, code)

    def _reached(self, device: DeviceId) -> asyncio.Future[Link]:
        """The connection to a device, or the attempt to get one. Raises PeerUnreachable."""
        link = self._links.get(device)
        if link is None:
            return self._dial(device)
        there: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        there.set_result(link)
        return there

    def _put(self, link: Link, data: bytes) -> None:
        try:
            link.connection.send_datagram(data)
        except iroh.IrohError:
            # Closed this instant, or too large for the path as yet: a datagram may be lost.
            return
        self._traffic.sent(len(data), DATAGRAM_OVERHEAD)
        link.touch()

    # ---- dialling ----------------------------------------------------------------------------------

    def _dial(self, device: DeviceId) -> asyncio.Future[Link]:
        """The attempt to reach a device that is under way, or a new one; shared by all who wait.

        Raises PeerUnreachable where it makes no sense to try now.
        """
        clock = asyncio.get_running_loop().time
        if self._endpoint is None:
            raise PeerUnreachable("the network is closed")
        if self._penalties.get(device, 0.0) > clock():
            raise PeerUnreachable(f"{device[:8]} broke the protocol a moment ago")
        if self.identity.decrees.is_banned(device):
            raise PeerUnreachable(f"{device[:8]} is banned from this moot")
        address = self._address_of(device)
        if not address:
            raise PeerUnreachable(f"no address of {device[:8]} is known")
        attempt = self._dials.get((device, address))
        if attempt is not None:
            return attempt
        failure = self._failures.get(device)
        if failure is not None and failure.address == address and failure.until > clock():
            wait_s = failure.until - clock()
            raise PeerUnreachable(f"{device[:8]} did not answer; the next try is possible in {wait_s:.1f} s")
        if len(self._dials) >= self._config.dials:
            raise PeerUnreachable(f"{len(self._dials)} peers are being dialled already")
        attempt = asyncio.get_running_loop().create_future()
        # Nobody may be waiting for it: look at the result, so that it does not count as overlooked.
        attempt.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._dials[device, address] = attempt
        self._spawn(self._attempt(self._endpoint, device, address, attempt))
        return attempt

    async def _attempt(
        self, endpoint: iroh.Endpoint, device: DeviceId, address: str, attempt: asyncio.Future[Link]
    ) -> None:
        clock = asyncio.get_running_loop().time
        error: PeerUnreachable | None = None
        try:
            async with asyncio.timeout(self._config.dial_s):
                link = await self._reach(endpoint, device, address)
            if not attempt.done():
                attempt.set_result(link)
        except TimeoutError:
            error = PeerUnreachable(f"{device[:8]} did not answer within {self._config.dial_s} s")
        except PeerUnreachable as refusal:
            error = refusal
        finally:
            self._dials.pop((device, address), None)
        if error is None or device in self._links:
            return
        before = self._failures.get(device)
        times = before.times + 1 if before is not None and before.address == address else 1
        pause_s = min(self._config.backoff_first_s * 2 ** (times - 1), self._config.backoff_most_s)
        self._failures[device] = _Failure(address, times, clock() + pause_s)
        self._waiting.pop(device, None)
        if not attempt.done():
            attempt.set_exception(error)

    async def _reach(self, endpoint: iroh.Endpoint, device: DeviceId, address: str) -> Link:
        """Connect and swap certificates. Raises PeerUnreachable."""
        target = self._target(device, address)
        try:
            connection = await endpoint.connect(target, MEMBER)
        except iroh.IrohError:
            raise PeerUnreachable(f"{device[:8]} refuses connections at its address") from None
        kept = False
        try:
            link = await self._greet(connection, device)
            kept = link.connection is connection
            return link
        except iroh.IrohError:
            code = close_code(connection)
            if code == Close.BANNED:
                self._hear_of_ban(device)
            refused = code in (Close.STRANGER, Close.RUBBISH, Close.BANNED)
            why = "does not accept this device as a member" if refused else "broke off the handshake"
            raise PeerUnreachable(f"{device[:8]} {why}") from None
        except (AdmissionError, RemoteProtocolError) as error:
            connection.close(int(Close.STRANGER), b"not a member")
            log.info("%s is no member: %s", device[:8], error)
            raise PeerUnreachable(f"{device[:8]} is no member of this moot") from None
        finally:
            if not kept:
                connection.close(int(Close.DUPLICATE), b"")

    async def _greet(self, connection: iroh.Connection, device: DeviceId) -> Link:
        membership = self.identity.membership
        if membership is None:
            raise AdmissionError("this device belongs to no moot")
        stream = await connection.open_bi()
        # Nothing may be awaited between this look and the hello, which means: I have no connection with you.
        existing = self._links.get(device)
        if existing is not None:
            return existing
        await handshake.send(stream.send(), self._hello(membership.certificate))
        hello = await handshake.receive_hello(stream.recv())
        await self.council.learn(hello.rotations)
        return self._welcome(connection, device, hello, dialled=True)

    def _target(self, device: DeviceId, address: str) -> iroh.EndpointAddr:
        try:
            target = iroh.EndpointTicket.from_string(address).endpoint_addr()
        except iroh.IrohError:
            raise PeerUnreachable(f"the address of {device[:8]} is malformed") from None
        if device_of(target.id().to_bytes()) != device:
            raise PeerUnreachable(f"the address of {device[:8]} belongs to another device")
        hosts = [split_address(text)[0] for text in target.direct_addresses()]
        if self._listen[0].is_loopback and hosts and not any(host.is_loopback for host in hosts):
            raise PeerUnreachable(
                f"{device[:8]} is on another machine ({hosts[0]}), but this device listens on"
                f" {self._listen[0]} only; start it with --listen 0.0.0.0:0"
            )
        return target

    def _hello(self, certificate: Certificate) -> Hello:
        return Hello(certificate.to_bytes(), self._instance, self._clock, self.council.rotations())

    # ---- being dialled -----------------------------------------------------------------------------

    async def _accept(self, endpoint: iroh.Endpoint) -> None:
        while (incoming := await endpoint.accept_next()) is not None:
            if len(self._strangers) >= self._config.strangers:
                # Members need milliseconds for their handshake: whoever is longest at it is none.
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                self._tasks[oldest] = None
                oldest.cancel()
            self._spawn(self._receive(incoming), self._strangers)

    async def _receive(self, incoming: iroh.Incoming) -> None:
        """Everything up to the point where a connection is a member's, a newcomer's, or closed."""
        connection: iroh.Connection | None = None
        code = Close.STRANGER
        try:
            async with asyncio.timeout(self._config.handshake_s):
                source = await incoming.remote_addr()
                if isinstance(source, iroh.IncomingAddr.IP) and not self._accepts(
                    split_address(source.addr)[0]
                ):
                    await incoming.ignore()
                    return
                accepting = await incoming.accept()
                connection = await accepting.connect()
                if connection.alpn() == NEWCOMER:
                    await self._admit(connection)
                    code = Close.BYE
                else:
                    await self._check(connection)
                    connection = None
        except (AdmissionError, RemoteProtocolError) as error:
            # While the error holds the stream: dropping that first would look like an empty answer.
            if connection is not None:
                sender = device_of(connection.remote_id().to_bytes())
                connection.close(int(self._why_not(sender)), b"not a member")
            log.info("a connection was refused: %s", error)
        except (TimeoutError, iroh.IrohError):
            log.debug("a connection ended before its handshake did")
        finally:
            if connection is not None:
                connection.close(int(code), b"not a member" if code == Close.STRANGER else b"")

    async def _check(self, connection: iroh.Connection) -> None:
        """Swap certificates with a dialler. Raises AdmissionError, RemoteProtocolError, iroh's error."""
        device = device_of(connection.remote_id().to_bytes())
        membership = self.identity.membership
        if membership is None:
            raise AdmissionError("this device belongs to no moot")
        if self._penalties.get(device, 0.0) > asyncio.get_running_loop().time():
            raise RemoteProtocolError(f"{device[:8]} broke the protocol a moment ago")
        stream = await connection.accept_bi()
        hello = await handshake.receive_hello(stream.recv())
        await self.council.learn(hello.rotations)
        link = self._welcome(connection, device, hello, dialled=False)
        try:
            await handshake.send(stream.send(), self._hello(membership.certificate))
        except iroh.IrohError:
            self._drop(link, Close.BYE)
            raise

    async def _admit(self, connection: iroh.Connection) -> None:
        others = (pair for pair in self._contacts() if pair[1] and pair[0] != self.identity.device)
        known = [(self.identity.device, self.address), *others]
        await self._door.admit(connection, known, self._now())

    # ---- connections -------------------------------------------------------------------------------

    def _welcome(self, connection: iroh.Connection, device: DeviceId, hello: Hello, *, dialled: bool) -> Link:
        """Take a connection into use, if the other side proves to be a member; which one sends is settled here.

        Raises AdmissionError for anybody else.

        Two devices that dial each other at once get two connections. Both serve; both sides send on the one
        that the smaller id dialled, and the other one is closed when nothing has used it for a while.
        """
        certificate = Certificate.from_bytes(hello.certificate)
        root = self.identity.check(certificate, device, self._now())
        link = Link(
            connection,
            device,
            dialled=dialled,
            instance=hello.instance,
            clock=hello.clock,
            root=root,
            may_invite=certificate.may_invite,
            limits=self._config.peer,
            on_rubbish=self._punish,
            traffic=self._traffic,
        )
        self._clock += 1
        self._failures.pop(device, None)
        current = self._links.get(device)
        if current is not None and self._is_stale(current, link):
            self._drop(current, Close.REPLACED)
            current = None
        if current is None or self._is_preferred(link, current):
            self._links[device] = link
            if current is not None:
                self._surplus[current] = None
        else:
            self._surplus[link] = None
        connection.set_max_concurrent_uni_streams(1)
        self._spawn(self._serve(link))
        self._spawn(self.council.listen(link))
        self.council.tell(link)
        self._spawn(read_datagrams(link, lambda data: self._take(link, data)))
        for key, attempt in self._dials.items():
            if key[0] == device and not attempt.done():
                attempt.set_result(self._links[device])
        for data in self._waiting.pop(device, ()):
            self._put(self._links[device], data)
        return link

    def _is_stale(self, current: Link, link: Link) -> bool:
        """Whether the other side has lost the current connection, as its hello on the new one proves.

        It says hello only without a connection. So if it said so after it had taken the current one into
        use (we dialled that, and its answer told its clock), that one is gone for it.
        """
        if current.instance != link.instance:
            return True
        return current.dialled and not link.dialled and link.clock >= current.clock

    def _is_preferred(self, link: Link, current: Link) -> bool:
        if link.dialled == current.dialled:
            return True
        return link.dialled == (self.identity.device < link.device)

    async def _serve(self, link: Link) -> None:
        await serve(link, lambda stream: self._on_stream(link.device, stream), lambda: self._lose(link))

    def _lose(self, link: Link) -> None:
        if not self._forget(link) or link.device in self._links:
            return
        code = close_code(link.connection)
        if code == Close.BANNED:
            self._hear_of_ban(link.device)
        # Whoever hangs up in peace says so; the member list then has nothing to learn from it.
        if code not in (Close.BYE, Close.DUPLICATE):
            self._on_link_lost(link.device)

    def _why_not(self, device: DeviceId) -> Close:
        """What is said to a device that is none of the moot: a banned one is told so, or its user would never know."""
        return Close.BANNED if self.identity.decrees.is_banned(device) else Close.STRANGER

    def _hear_of_ban(self, source: DeviceId) -> None:
        """A member says so by how it hangs up, which proves nothing: it is told to the user, once, and changes nothing."""
        if not self._told_of_ban:
            self._told_of_ban = True
            log.warning(
                "%s says that this device is banned from its moot, and takes no more part in anything with it; ask the "
                "founder, or stop the device and take it out of the moot with `folkmoot leave`",
                source[:8],
            )

    def _take(self, link: Link, data: bytes) -> None:
        try:
            if len(data) > limits.DATAGRAM_BYTES:
                raise RemoteProtocolError(f"a datagram of {len(data)} bytes")
            message = decode(data)
            check_sender(message, link.device)
        except RemoteProtocolError as error:
            link.rubbish(str(error))
            return
        self._on_datagram(link.device, message)

    def _punish(self, link: Link, what: str) -> None:
        log.warning("%s is disconnected: %s", link.device[:8], what)
        self._penalties[link.device] = asyncio.get_running_loop().time() + self._config.penalty_s
        lost = link.device in self._links
        for other in self._all_links():
            if other.device == link.device:
                self._drop(other, Close.RUBBISH)
        if lost:
            self._on_link_lost(link.device)

    def _drop(self, link: Link, code: Close) -> None:
        self._forget(link)
        link.close(code)

    def _forget(self, link: Link) -> bool:
        """Take a connection out of use; False where it was already. A surplus one steps in for it."""
        if link in self._surplus:
            del self._surplus[link]
            self._traffic.carried(link.connection)
            return True
        if self._links.get(link.device) is not link:
            return False
        del self._links[link.device]
        self._traffic.carried(link.connection)
        for other in self._surplus:
            if other.device == link.device:
                del self._surplus[other]
                self._links[link.device] = other
                break
        return True

    def _all_links(self) -> list[Link]:
        return [*self._links.values(), *self._surplus]

    async def _tidy(self) -> None:
        """Close what nobody uses, forget what is over, and notice when this device's address changes."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(1.0)
            at = clock()
            for link in self._all_links():
                rest_s = self._config.surplus_s if link in self._surplus else self._config.idle_s
                idle = not link.streams and at - link.used_at > rest_s
                if idle and (link.dialled or link in self._surplus):
                    self._drop(link, Close.DUPLICATE if link in self._surplus else Close.BYE)
            self._penalties = {device: until for device, until in self._penalties.items() if until > at}
            self._failures = {
                device: failure
                for device, failure in self._failures.items()
                if failure.until + self._config.backoff_most_s > at
            }
            self._spawn(self.council.tidy())
            address = self._current_address()
            if address != self.address:
                self.address = address
                self._on_address(address)

    # ---- admission ---------------------------------------------------------------------------------

    async def invite(self, *, uses: int = 1, ttl_s: float = 86_400.0, delegate: bool = False) -> str:
        """A fresh invitation, a secret. Raises AdmissionError where this device may not, NodeError."""
        return await self._door.invite(
            self.address, uses=uses, ttl_s=ttl_s, delegate=delegate, now=self._now()
        )

    async def join(self, invitation: str) -> list[tuple[DeviceId, str]]:
        """Redeem an invitation at its inviter and become a member; members to begin with, and addresses.

        Inside that moot already, it only names the inviter. A moot of its own that nobody has joined is left
        for it. Raises AdmissionError (no invitation, damaged, forged, expired, spent, another moot),
        PeerUnreachable, NodeError.
        """
        asked = read_invitation(invitation)
        membership = self.identity.membership
        if membership is not None and membership.moot == asked.moot:
            return [(asked.inviter, asked.address)]
        if membership is not None and not self._is_alone():
            raise AdmissionError(
                f"this device is in the moot {membership.name!r}; leave it first: stop the device, then `folkmoot leave`"
            )
        if self._endpoint is None:
            raise PeerUnreachable("the network is closed")
        target = self._target(asked.inviter, asked.address)
        welcome = None
        # Redeeming twice is redeeming once, and an inviter at which many knock may be slow to answer.
        for _ in range(self._config.join_tries):
            try:
                async with asyncio.timeout(self._config.dial_s):
                    connection = await self._endpoint.connect(target, NEWCOMER)
                    try:
                        welcome = await ask_for_entry(connection, asked)
                    finally:
                        connection.close(int(Close.BYE), b"")
                break
            except (TimeoutError, iroh.IrohError):
                log.debug("the inviter did not answer")
        if welcome is None:
            raise PeerUnreachable(
                f"the inviter {asked.inviter[:8]} does not answer; it must be running to admit you"
                + _only_local(target)
            )
        granted = membership_from(welcome, asked, self.identity.device)
        if membership is not None:
            void = self.identity.invitations.usable(self._now())
            await asyncio.to_thread(self.identity.leave)
            if void:
                log.warning(
                    "%d invitation(s) to %r that this device gave out are void, since it has left for another moot",
                    void,
                    membership.name,
                )
        await asyncio.to_thread(self.identity.adopt, granted)
        return [(asked.inviter, asked.address), *(c for c in welcome.contacts if c[0] != asked.inviter)]

    def _is_alone(self) -> bool:
        """Whether this device's moot is one that it has founded by being started, and that nobody has joined."""
        met = self._memory is not None and bool(self._memory.contacts())
        return self.identity.founder and not self.identity.invitations.admitted and not met

    # ---- tasks -------------------------------------------------------------------------------------

    def _spawn(
        self, work: Coroutine[Any, Any, None], table: dict[asyncio.Task[None], None] | None = None
    ) -> None:
        tasks = self._tasks if table is None else table
        task = asyncio.ensure_future(work)
        tasks[task] = None

        def done(task: asyncio.Task[None]) -> None:
            tasks.pop(task, None)
            self._tasks.pop(task, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a task of the network failed: %s", way_of(error))

        task.add_done_callback(done)


def _only_local(target: iroh.EndpointAddr) -> str:
    """What to say of an inviter that can be reached from its own machine only."""
    hosts = [split_address(text)[0] for text in target.direct_addresses()]
    if not hosts or not all(host.is_loopback for host in hosts):
        return ""
    return (
        f", and the invitation names {hosts[0]} only, which is the inviter's own machine: from another one, "
        "start the inviter with --listen 0.0.0.0:0 and take a fresh invitation"
    )


def _last_line(error: iroh.IrohError) -> str:
    return str(error.message()).strip().splitlines()[-1].strip()
