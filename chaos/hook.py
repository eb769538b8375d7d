"""`folkmoot up` with a hook in its transport, for machines that allow no network namespaces.

    CHAOS_HOOK=FILE python -m chaos.hook up …

FILE holds {"cut": [DEVICE, …], "delay_s": S}: nothing goes out to those devices, as if each packet were lost, and whatever goes
out waits so long. Both sides of a cut have it in their files. It is read again whenever it has changed.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import iroh

from folkmoot.cli import main
from folkmoot.core.ids import DeviceId
from folkmoot.node.link import Link, Stream
from folkmoot.node.network import Network

VARIABLE = "CHAOS_HOOK"
LOOK_S = 0.05


class Hook:
    """What the file says now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = -1
        self._cut: frozenset[str] = frozenset()
        self._delay_s = 0.0

    def delay_s(self, device: DeviceId) -> float | None:
        """How long something for a device has to wait; None: it never gets there."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                told = json.loads(self._path.read_text("utf-8"))
                self._cut, self._delay_s, self._changed = frozenset(told["cut"]), told["delay_s"], changed
        except FileNotFoundError:
            return 0.0
        return None if device in self._cut else self._delay_s

    async def passes(self, device: DeviceId) -> None:
        """Wait until something for a device may go out."""
        while (wait_s := self.delay_s(device)) is None:
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(wait_s)


def install(hook: Hook) -> None:
    """Put the hook before all that leaves the device: datagrams, streams and new connections."""
    put, write, reach = Network._put, Stream._write, Network._reach

    def hooked_put(self: Network, link: Link, data: bytes) -> None:
        match hook.delay_s(link.device):
            case None:
                return
            case 0.0:
                put(self, link, data)
            case wait_s:
                asyncio.get_running_loop().call_later(wait_s, put, self, link, data)

    async def hooked_write(self: Stream, data: bytes) -> None:
        await hook.passes(self.device)
        await write(self, data)

    async def hooked_reach(self: Network, endpoint: iroh.Endpoint, device: DeviceId, address: str) -> Any:
        await hook.passes(device)
        return await reach(self, endpoint, device, address)

    Network._put, Stream._write, Network._reach = hooked_put, hooked_write, hooked_reach  # type: ignore[method-assign]


if __name__ == "__main__":
    install(Hook(Path(os.environ[VARIABLE])))
    main()
