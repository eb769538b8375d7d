"""Core messages to bytes and back: one codec, one tag table, one table of limits."""

from folkmoot.wire.codec import TAGS as TAGS
from folkmoot.wire.codec import decode as decode
from folkmoot.wire.codec import encode as encode
from folkmoot.wire.framing import END as END
from folkmoot.wire.framing import END_BYTES as END_BYTES
from folkmoot.wire.framing import Framer as Framer
from folkmoot.wire.framing import frame as frame

__all__ = ["END", "END_BYTES", "TAGS", "Framer", "decode", "encode", "frame"]
