"""What every route shares: the device, the configuration, the control token, the desk; and what is in a request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.requests import Request

from folkmoot.api.config import ApiConfig
from folkmoot.api.desk import Desk
from folkmoot.api.faults import BodyTooLarge, FieldInvalid
from folkmoot.node.service import Moot

HOPS = "x-folkmoot-hops"
KEY = "folkmoot.key"
"""Where in a request's scope the guard leaves the name of its API key."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the API needs to answer; `control` is the token that proves a request is the owner's."""

    moot: Moot
    config: ApiConfig
    control: str
    desk: Desk
    since: int = field(default_factory=lambda: int(time.time()))


def room_of(request: Request) -> Room:
    """The room that the app was made with."""
    room: Room = request.app.state.room
    return room


def key_of(request: Request) -> str | None:
    """The name of the API key that the guard has found in the request."""
    name: str | None = request.scope.get(KEY)
    return name


async def read_body(request: Request) -> bytes:
    """The whole body. Raises `BodyTooLarge` once it is told, or turns out, to be above the limit."""
    limit = room_of(request).config.body_bytes
    told = request.headers.get("content-length", "0")
    body = bytearray()
    if not (told.isascii() and told.isdigit() and int(told) > limit):
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise BodyTooLarge(f"the body is larger than {limit} bytes; send a shorter conversation")


def hops_of(request: Request) -> int:
    """How many moots the request has crossed. Raises `FieldInvalid`."""
    value = request.headers.get(HOPS, "0")
    if not value.isascii() or not value.isdigit() or len(value) > 4:
        raise FieldInvalid(
            f"{HOPS} is {value!r}: give the number of moots that the request has crossed", HOPS
        )
    return int(value)
