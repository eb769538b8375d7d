"""What a device remembers between starts: its incarnation, its port and where it last met the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from folkmoot.core.ids import DeviceId
from folkmoot.node import storage

MAX_PEERS = 512
MAX_ADDRESS = 512
MAX_INCARNATION = 2**53 - 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Peer:
    device: DeviceId
    address: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stands in the file."""

    version: int
    incarnation: int
    port: int
    peers: tuple[_Peer, ...]


class Memory:
    """Kept in `memory.json`. Changes reach the disk with `save`; the incarnation's at once.

    Not thread-safe: where an event loop changes it, `snapshot` belongs on the loop and `write` in a thread.
    """

    def __init__(self, path: Path, stored: Snapshot) -> None:
        self._path = path
        self._peers = {peer.device: peer.address for peer in stored.peers[-MAX_PEERS:]}
        self.incarnation = stored.incarnation
        self.port = stored.port

    @classmethod
    def load(cls, home: Path) -> Memory:
        """What is remembered. Nothing in it is precious: a damaged file is set aside with a warning.

        Raises NodeError where the file cannot be read or is open to other users.
        """
        path = home / "memory.json"
        empty = Snapshot(1, 0, 0, ())
        try:
            stored = storage.load(path, Snapshot, "it is set aside")
        except storage.StateDamaged as error:
            log.warning("%s as memory.json.damaged; remembered addresses are lost", error)
            path.replace(path.with_suffix(".json.damaged"))
            stored = None
        if stored is None or not _plausible(stored):
            stored = empty
        return cls(path, stored)

    def next_incarnation(self, now: float) -> int:
        """A number higher than at any earlier start, on disk when it returns. Raises NodeError.

        For the start, when nobody has been met yet: nothing else may change the memory meanwhile.

        It follows the clock (`now`, seconds since 1970) where it can: so it is higher than before even if
        the file was lost, or if the number was raised many times while the device ran.
        """
        self.incarnation = min(max(self.incarnation + 1, int(now)), MAX_INCARNATION - 1)
        self.save()
        return self.incarnation

    def contacts(self) -> tuple[tuple[DeviceId, str], ...]:
        """Devices and their addresses, those met last first."""
        return tuple(reversed(self._peers.items()))

    def address_of(self, device: DeviceId) -> str | None:
        """Where a device was last."""
        return self._peers.get(device)

    def remember(self, device: DeviceId, address: str) -> bool:
        """Note where a device is; of more than `MAX_PEERS` the oldest are forgotten. True if it is news."""
        if not address or len(address) > MAX_ADDRESS:
            return False
        news = self._peers.pop(device, None) != address
        self._peers[device] = address
        while len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        return news

    def forget(self, device: DeviceId) -> None:
        """Drop a device that is gone for good."""
        self._peers.pop(device, None)

    def snapshot(self) -> Snapshot:
        """What is remembered now; changes that come later are not in it."""
        peers = tuple(_Peer(device, address) for device, address in self._peers.items())
        return Snapshot(1, self.incarnation, self.port, peers)

    def write(self, snapshot: Snapshot) -> None:
        """Write it down; may run in a thread. Raises NodeError; what was on disk before is kept then."""
        storage.save(self._path, snapshot)

    def save(self) -> None:
        """Write down what is remembered now, where nothing else changes it meanwhile. Raises NodeError."""
        self.write(self.snapshot())


def _plausible(stored: Snapshot) -> bool:
    return (
        0 <= stored.incarnation < MAX_INCARNATION
        and 0 <= stored.port < 65_536
        and all(len(peer.address) <= MAX_ADDRESS for peer in stored.peers)
    )
