"""Finding members of one's own moot on the local network, by DNS service discovery.

What is announced is public: the address and a hash of the moot's id, never an invitation. Whatever is found
is a hint: the handshake decides who somebody is.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import iroh

from folkmoot.core.ids import DeviceId
from folkmoot.errors import NodeError
from folkmoot.node.admission import device_of
from folkmoot.node.memory import MAX_ADDRESS

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE = "_folkmoot._udp.local."
MAX_LOOKUPS = 32
LOOKUP_S = 3.0

_TXT_BYTES = 250

log = logging.getLogger(__name__)


def moot_hint(moot: str) -> str:
    """What members of a moot recognise each other by; its id cannot be had from it."""
    return hashlib.sha256(b"folkmoot lan 1\0" + bytes.fromhex(moot)).hexdigest()[:32]


def is_local_only(listen_host: str) -> bool:
    """Whether a device that listens there can be reached from this machine only, so need not be announced."""
    return ipaddress.ip_address(listen_host.strip("[]")).is_loopback


class Discovery:
    """Announces this device and reports members at (new) addresses, each pair once; an async context.

    `on_found(device, address)` runs on the event loop. `interfaces`: IP addresses to use, all by default.
    """

    def __init__(
        self,
        device: DeviceId,
        moot: str,
        address: str,
        on_found: Callable[[DeviceId, str], None],
        interfaces: list[str] | None = None,
    ) -> None:
        self._device = device
        self._hint = moot_hint(moot)
        self._address = address
        self._on_found = on_found
        self._interfaces = interfaces
        self._found: dict[DeviceId, str] = {}
        self._lookups: dict[asyncio.Task[None], None] = {}
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: AsyncServiceInfo | None = None

    async def __aenter__(self) -> Discovery:
        """Raises NodeError where multicast cannot be used."""
        # A device on loopback never needs it, and its import takes a while.
        from zeroconf import InterfaceChoice, IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        try:
            self._zeroconf = AsyncZeroconf(
                interfaces=self._interfaces or InterfaceChoice.All, ip_version=IPVersion.V4Only
            )
        except OSError as error:
            raise NodeError(
                f"the local network cannot be searched ({error.strerror}); switch discovery off, or name a"
                " member's address by an invitation"
            ) from error
        self._info = self._service()
        await self._zeroconf.async_register_service(self._info, allow_name_change=True)
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._lookups:
            task.cancel()
        if self._lookups:
            await asyncio.wait(list(self._lookups))
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()

    async def announce(self, address: str) -> None:
        """This device's address has changed."""
        self._address = address
        if self._zeroconf is not None:
            self._info = self._service()
            await self._zeroconf.async_update_service(self._info)

    def _service(self) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        target = iroh.EndpointTicket.from_string(self._address).endpoint_addr()
        sockets = [text.rpartition(":") for text in target.direct_addresses()]
        hosts = [host for host, _, _ in sockets if ":" not in host]
        return AsyncServiceInfo(
            SERVICE,
            f"{self._device[:16]}.{SERVICE}",
            port=int(sockets[0][2]) if sockets else 0,
            parsed_addresses=hosts,
            server=f"folkmoot-{self._device[:16]}.local.",
            properties={"moot": self._hint, **_split_text(self._address)},
        )

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        gone = state_change.name == "Removed"
        if gone or name.startswith(self._device[:16]) or len(self._lookups) >= MAX_LOOKUPS:
            return
        task = asyncio.ensure_future(self._look_up(zeroconf, name))
        self._lookups[task] = None
        task.add_done_callback(lambda done: self._lookups.pop(done, None))

    async def _look_up(self, zeroconf: Zeroconf, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zeroconf, LOOKUP_S * 1_000):
            return
        found = read_announcement(info.properties, self._hint)
        if found is None or found[0] == self._device or self._found.get(found[0]) == found[1]:
            return
        self._found[found[0]] = found[1]
        while len(self._found) > 1_000:
            del self._found[next(iter(self._found))]
        log.info("%s was found on the local network", found[0][:8])
        self._on_found(*found)


def read_announcement(properties: dict[bytes, bytes | None], hint: str) -> tuple[DeviceId, str] | None:
    """The member and its address, None for another moot's device or a malformed announcement."""
    if properties.get(b"moot") != hint.encode():
        return None
    parts = [properties.get(b"address%d" % place) or b"" for place in range(3)]
    try:
        address = b"".join(parts).decode("ascii")
        if len(address) > MAX_ADDRESS:
            return None
        target = iroh.EndpointTicket.from_string(address).endpoint_addr()
    except (UnicodeError, iroh.IrohError):
        return None
    return device_of(target.id().to_bytes()), address


def _split_text(address: str) -> dict[str, str]:
    """A TXT entry holds 255 bytes; an address with many hosts is longer."""
    cuts = range(0, len(address), _TXT_BYTES - 16)
    return {f"address{place}": address[at : at + _TXT_BYTES - 16] for place, at in enumerate(cuts)}
