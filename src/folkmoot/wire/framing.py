"""Messages on a stream: a length in four bytes, big end first, then the message; length 0 is the end marker.

A stream that stops without the marker was cut. No I/O here: bytes go in, messages come out.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

from folkmoot.core.messages import Message
from folkmoot.errors import RemoteProtocolError
from folkmoot.wire import limits
from folkmoot.wire.codec import decode, encode

_HEAD = 4


class End(Enum):
    """The end marker, as `Framer.feed` yields it."""

    END = "end"


END: Final = End.END
Item: TypeAlias = Message | Literal[End.END]

END_BYTES = bytes(_HEAD)


def frame(message: Message) -> bytes:
    """A message as it stands on a stream. Raises LocalProtocolError, see `encode`."""
    body = encode(message)
    return len(body).to_bytes(_HEAD, "big") + body


class Framer:
    """Cuts what a stream delivers into messages.

    Holds at most one incomplete frame, so at most `limits.FRAME_BYTES` + 4 bytes and what is fed.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the end marker was read: only then is the stream whole."""
        return self._ended

    @property
    def waiting_bytes(self) -> int:
        """Bytes held of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Item]:
        """What `data` completes, in order. Raises RemoteProtocolError; the framer is useless after that."""
        self._buffer += data
        items: list[Item] = []
        start = 0
        while len(self._buffer) - start >= _HEAD and not self._ended:
            size = int.from_bytes(self._buffer[start : start + _HEAD], "big")
            if size > limits.FRAME_BYTES:
                raise RemoteProtocolError(f"a frame of {size} bytes; {limits.FRAME_BYTES} are allowed")
            stop = start + _HEAD + size
            if len(self._buffer) < stop:
                break
            if size == 0:
                self._ended = True
                items.append(END)
            else:
                items.append(decode(bytes(self._buffer[start + _HEAD : stop])))
            start = stop
        del self._buffer[:start]
        if self._ended and self._buffer:
            raise RemoteProtocolError("bytes after the end marker")
        return items
