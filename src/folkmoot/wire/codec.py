"""Messages to bytes and back: one tag byte, then msgpack arrays in the order of the fields.

The shapes follow from the dataclasses' annotations and are compiled once, at import; what may be how large
stands in `limits.py`. Reading is typed from the first byte on, so that a hostile message costs no more
memory than an honest one. A message that a peer would refuse is refused here before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from operator import attrgetter
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, NewType, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple

from folkmoot.core.gossip import Heard, Heartbeat, News, Probe, Silence, Sync, SyncReply
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Message,
    Piece,
    Poll,
    Prepare,
    Queued,
    Undone,
)
from folkmoot.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.wire import limits

TAGS: dict[type[Message], int] = {
    Ask: 1,
    Queued: 2,
    Began: 3,
    Piece: 4,
    Answer: 5,
    Undone: 6,
    Cancel: 7,
    Poll: 8,
    Prepare: 9,
    Heartbeat: 32,
    Probe: 33,
    Silence: 34,
    Heard: 35,
    News: 36,
    Sync: 37,
    SyncReply: 38,
}
"""The first byte of each message. A number is never given to another class."""

_Convert: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one annotation travels: the type that msgspec reads, and conversions (None: as it is)."""

    type: Any
    pack: _Convert | None = None
    unpack: _Convert | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    """One entry of the compiled table."""

    tag: bytes
    pack: _Convert
    unpack: _Convert
    reader: msgspec.msgpack.Decoder[Any]


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises LocalProtocolError where a peer would refuse it."""
    kind = _KINDS.get(type(message))
    if kind is None:
        raise LocalProtocolError(f"{type(message).__name__} has no tag: it is no message")
    try:
        body = _WRITER.encode(kind.pack(message))
        kind.reader.decode(body)
    except (msgspec.MsgspecError, OverflowError, UnicodeError, TypeError) as error:
        raise LocalProtocolError(f"{type(message).__name__} is out of bounds: {error}") from error
    if len(body) >= limits.FRAME_BYTES:
        raise LocalProtocolError(
            f"{type(message).__name__} has {len(body) + 1} bytes, at most {limits.FRAME_BYTES} can be sent"
        )
    return kind.tag + body


def decode(data: bytes) -> Message:
    """The message in `data`, all of it. Raises RemoteProtocolError for anything else than one message."""
    if not data or len(data) > limits.FRAME_BYTES:
        raise RemoteProtocolError(f"a message of {len(data)} bytes; 1 to {limits.FRAME_BYTES} are allowed")
    kind = _BY_TAG.get(data[0])
    if kind is None:
        raise RemoteProtocolError(f"no message has the tag {data[0]}")
    try:
        message: Message = kind.unpack(kind.reader.decode(memoryview(data)[1:]))
    except (msgspec.MsgspecError, UnicodeError, _BadName) as error:
        # The text of msgspec's errors names types and bounds, never what was sent.
        detail = str(error) if isinstance(error, msgspec.MsgspecError) else "a text is not UTF-8"
        raise RemoteProtocolError(f"malformed message with the tag {data[0]}: {detail}") from None
    return message


# ---- compiling the shapes --------------------------------------------------------------------------


def _shape(hint: Any, key: str) -> _Shape:
    origin = get_origin(hint)
    if hint is DeviceId:
        return _name_shape(32)
    if hint is PromptId:
        return _name_shape(16)
    if isinstance(hint, NewType):
        return _shape(hint.__supertype__, key)
    if origin in (Union, UnionType):
        return _optional_shape(hint, key)
    if origin is tuple:
        return _tuple_shape(hint, key)
    if hint is bool or (isinstance(hint, type) and issubclass(hint, Enum)):
        return _Shape(hint)
    if hint is str:
        printable = rf"\A[^{limits.CONTROLS}]*\Z" if key in limits.PRINTABLE else None
        return _Shape(Annotated[str, Meta(max_length=limits.TEXTS.get(key, limits.TEXT), pattern=printable)])
    if hint is bytes:
        return _Shape(Annotated[bytes, Meta(max_length=limits.BYTES[key])])
    if hint is int or hint is float:
        low, high = limits.NUMBERS.get(key, limits.WHOLE if hint is int else limits.REAL)
        # Meta holds 64 signed bits; above that msgpack's own 64 unsigned bits are the bound.
        return _Shape(Annotated[hint, Meta(ge=low, le=high if high < 2**63 else None)])
    if is_dataclass(hint) and isinstance(hint, type):
        return _class_shape(hint)
    raise TypeError(f"{key}: {hint} cannot be encoded; teach wire/codec.py")


def _class_shape(cls: type) -> _Shape:
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    shapes = [_shape(hints[name], f"{cls.__name__}.{name}") for name in names]
    struct = msgspec.defstruct(
        cls.__name__,
        [(name, shape.type) for name, shape in zip(names, shapes, strict=True)],
        array_like=True,
        forbid_unknown_fields=True,
        frozen=True,
        gc=False,
    )
    packs = [(place, shape.pack) for place, shape in enumerate(shapes) if shape.pack]
    unpacks = [(place, shape.unpack) for place, shape in enumerate(shapes) if shape.unpack]
    read = attrgetter(*names) if len(names) > 1 else _few(names)

    def pack(value: Any) -> Any:
        row = read(value)
        return _mapped(row, packs) if packs else row

    def unpack(value: Struct) -> Any:
        row = astuple(value)
        return cls(*(_mapped(row, unpacks) if unpacks else row))

    return _Shape(struct, pack, unpack)


def _few(names: list[str]) -> _Convert:
    if not names:
        return lambda value: ()
    (name,) = names
    return lambda value: (getattr(value, name),)


def _mapped(row: tuple[Any, ...], converts: list[tuple[int, _Convert]]) -> list[Any]:
    cells = list(row)
    for place, convert in converts:
        cells[place] = convert(cells[place])
    return cells


def _optional_shape(hint: Any, key: str) -> _Shape:
    inner = [arm for arm in get_args(hint) if arm is not NoneType]
    if len(inner) != 1:
        raise TypeError(f"{key}: of unions only `X | None` can be encoded; teach wire/codec.py")
    shape = _shape(inner[0], key)
    return _Shape(shape.type | None, _unless_none(shape.pack), _unless_none(shape.unpack))


def _unless_none(convert: _Convert | None) -> _Convert | None:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _tuple_shape(hint: Any, key: str) -> _Shape:
    arms = get_args(hint)
    if len(arms) == 2 and arms[1] is Ellipsis:
        shape = _shape(arms[0], key)
        bound = Meta(min_length=limits.LEAST.get(key, 0), max_length=limits.LENGTHS.get(key, limits.ITEMS))
        array: Any = GenericAlias(tuple, (shape.type, ...))
        return _Shape(Annotated[array, bound], _each(shape.pack), _each(shape.unpack))
    raise TypeError(f"{key}: of tuples only `tuple[X, ...]` can be encoded; teach wire/codec.py")


def _each(convert: _Convert | None) -> _Convert | None:
    return None if convert is None else lambda values: tuple(map(convert, values))


# ---- names of devices and prompts ------------------------------------------------------------------

_HEX, _PLAIN = b"\x01", b"\x00"
_NAME = 64


class _BadName(Exception):
    """A device's or prompt's name is neither of the two forms."""


def _name_shape(size: int) -> _Shape:
    """A name of `size` bytes in lower-case hexadecimal travels as these bytes, any other short text as text."""
    digits = frozenset("0123456789abcdef")

    def pack(name: str) -> bytes:
        if len(name) == 2 * size and digits.issuperset(name):
            return _HEX + bytes.fromhex(name)
        return _PLAIN + name.encode()

    def unpack(data: bytes) -> str:
        if data[:1] == _HEX and len(data) == size + 1:
            return data[1:].hex()
        if data[:1] != _PLAIN:
            raise _BadName
        return data[1:].decode()

    return _Shape(Annotated[bytes, Meta(min_length=1, max_length=_NAME + 1)], pack, unpack)


def _compile(cls: type[Message], tag: int) -> _Kind:
    shape = _class_shape(cls)
    assert shape.pack is not None
    assert shape.unpack is not None
    return _Kind(bytes([tag]), shape.pack, shape.unpack, msgspec.msgpack.Decoder(shape.type))


_WRITER = msgspec.msgpack.Encoder()
_KINDS = {cls: _compile(cls, tag) for cls, tag in TAGS.items()}
_BY_TAG = {tag: _KINDS[cls] for cls, tag in TAGS.items()}
