"""A digest over all that happened: one seed must give one digest, whatever Python's hash seed is."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b

from folkmoot.core.ids import DeviceId


class Trace:
    """Takes in lines; keeps the last `tail` of them for whoever looks for the cause of a failure."""

    def __init__(self, tail: int = 200) -> None:
        self.lines: deque[str] = deque(maxlen=tail)
        self._hash = blake2b(digest_size=16)

    def note(self, now: float, device: DeviceId, what: object) -> None:
        """One event or effect of a device."""
        line = f"{now:.6f} {device} {what!r}"
        self._hash.update(line.encode())
        self.lines.append(line)

    def digest(self) -> str:
        """32 hexadecimal digits over everything so far."""
        return self._hash.hexdigest()
