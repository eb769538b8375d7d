"""The short routes: models, the moot, its events, health, invitations."""

from __future__ import annotations

from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from folkmoot.api.faults import FieldInvalid
from folkmoot.api.guard import is_owner
from folkmoot.api.models import model_names, parameters, servers
from folkmoot.api.notices import happening_of, moot_status
from folkmoot.api.room import Room, read_body, room_of
from folkmoot.api.schema import (
    Banned,
    BanRequest,
    Forgotten,
    Health,
    Invitation,
    InvitationRequest,
    Model,
    ModelList,
    Rotated,
    RotationRequest,
)
from folkmoot.api.stream import EventWriter, unless_gone
from folkmoot.api.translate import decode
from folkmoot.errors import AdmissionError


def json_response(body: msgspec.Struct, status: int = 200) -> Response:
    """A struct as an HTTP response."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def list_models(request: Request) -> Response:
    """Every name that may stand in a request's `model`."""
    room = room_of(request)
    names = model_names(room.moot.status(), room.config.presets)
    return json_response(ModelList("list", tuple(_model(name, room) for name in names)))


async def get_model(request: Request) -> Response:
    """One model by name; 404 where a chat would say so too."""
    room, name = room_of(request), request.path_params["model"]
    parameters(name, room.moot.status(), room.config.presets)
    return json_response(_model(name, room))


async def get_moot(request: Request) -> Response:
    """The moot as this device sees it."""
    return json_response(moot_status(room_of(request).moot.status()))


async def get_health(request: Request) -> Response:
    """200 while prompts can be served: this device's engine serves, or another device holds a model."""
    room = room_of(request)
    status = room.moot.status()
    others = any(member.device != status.device for member in servers(status))
    ready = status.engine == "ready" or (status.engine != "loading" and others)
    health = Health("ready" if ready else status.engine, room.desk.trouble)
    return json_response(health, 200 if ready else 503)


async def create_invitation(request: Request) -> Response:
    """A fresh invitation, for the device's owner only."""
    room = _owned(request, "invite")
    asked = decode(await read_body(request) or b"{}", InvitationRequest)
    return json_response(Invitation(await room.moot.invite(asked.uses, asked.ttl_s, asked.delegate)), 201)


async def ban_member(request: Request) -> Response:
    """Ban a device, for the founder's owner only."""
    room = _owned(request, "members ban")
    asked = decode(await read_body(request), BanRequest)
    return json_response(Banned(await room.moot.ban(asked.device)), 201)


async def rotate_root(request: Request) -> Response:
    """Change the moot's root key, for the founder's owner only."""
    room = _owned(request, "rotate")
    asked = decode(await read_body(request) or b"{}", RotationRequest)
    return json_response(Rotated(await room.moot.rotate(asked.grace_s)), 201)


async def forget_responses(request: Request) -> Response:
    """Delete every response that is kept, for the device's owner only."""
    room = _owned(request, "forget --all")
    return json_response(Forgotten(await room.desk.forget_all()))


def _owned(request: Request, command: str) -> Room:
    room = room_of(request)
    if not is_owner(request.headers, room.control):
        raise AdmissionError(f"only this device's owner may do that; use `folkmoot {command}` on the device")
    return room


async def watch_moot(request: Request) -> Watch:
    """What happens on this device from now on, as SSE; `?limit=N` ends it after N events."""
    limit = request.query_params.get("limit")
    if limit is not None and not (
        len(limit) <= 10 and limit.isascii() and limit.isdigit() and 1 <= int(limit) <= 10**9
    ):
        raise FieldInvalid(f"limit: {limit!r} is not a whole number from 1 on", "limit")
    return Watch(room_of(request), None if limit is None else int(limit))


class Watch:
    """An ASGI response that follows the device's notices."""

    def __init__(self, room: Room, limit: int | None) -> None:
        self._room = room
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow for as long as the client listens."""
        await unless_gone(receive, self._follow(send))

    async def _follow(self, send: Send) -> None:
        sent = 0
        async with EventWriter(send, self._room.config.keep_alive_s) as writer:
            await writer.open()
            async with aclosing(self._room.moot.watch()) as notices:
                async for notice in notices:
                    if (happening := happening_of(notice)) is None:
                        continue
                    await writer.event(msgspec.json.encode(happening))
                    sent += 1
                    if sent == self._limit:
                        break
            await writer.finish()


def _model(name: str, room: Room) -> Model:
    return Model(id=name, object="model", created=room.since, owned_by="folkmoot")
