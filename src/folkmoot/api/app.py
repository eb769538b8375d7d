"""The ASGI app: the table of routes behind the guard, with every failure as OpenAI's error object."""

from __future__ import annotations

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from folkmoot.api.config import ApiConfig, is_loopback, split_address
from folkmoot.api.desk import Desk
from folkmoot.api.faults import error_response, failure_response
from folkmoot.api.guard import Guard
from folkmoot.api.keys import Keys
from folkmoot.api.openapi import document
from folkmoot.api.room import Room, room_of
from folkmoot.api.routes import ROUTES
from folkmoot.errors import ConfigError, FolkmootError
from folkmoot.node.service import Moot


def create_app(
    moot: Moot, config: ApiConfig, control: str, desk: Desk, keys: Keys | None = None
) -> Starlette:
    """The HTTP API of one device; `control` is the token that its owner's commands send, `keys` are its home's,
    `desk` keeps its responses.

    Raises `ConfigError` where others can reach it and there is no key.
    """
    host, _ = split_address(config.listen, "api.listen")
    if not is_loopback(host) and not config.keys and not (keys and keys.all()):
        raise ConfigError(
            f"api.listen is {config.listen}: whoever reaches it could ask this moot. "
            "Make a key with `folkmoot key new NAME` (or set api.keys), or listen on 127.0.0.1"
        )
    routes = [Route(spec.path, spec.endpoint, methods=[spec.method]) for spec in ROUTES]
    app = Starlette(
        routes=[*routes, Route("/openapi.json", _openapi, methods=["GET"])],
        middleware=[Middleware(Guard, config=config, control=control, keys=keys)],
        exception_handlers={
            FolkmootError: _on_error,
            HTTPException: _on_http,
            ClientDisconnect: _on_gone,
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False  # a redirect is none of the answers that the document knows
    app.state.room = Room(moot, config, control, desk)
    app.state.openapi = msgspec.json.encode(document(ROUTES))
    return app


async def _openapi(request: Request) -> Response:
    return Response(request.app.state.openapi, media_type="application/json")


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FolkmootError)  # registered for it alone
    return error_response(error, room_of(request).moot.status())


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # registered for it alone
    if error.status_code == 405:
        message = f"{request.method} is not for {request.url.path}"
        return failure_response("wrong_method", message, headers={"Allow": ", ".join(_allowed(request))})
    if error.status_code == 404:
        return failure_response("not_found", f"nothing is at {request.url.path}; see /openapi.json")
    return failure_response("invalid", error.detail)


def _allowed(request: Request) -> list[str]:
    """Every method that the path of a request knows: its routes have one each, and name that one only."""
    here = [route for route in request.app.routes if route.path_regex.match(request.url.path)]
    return sorted({method for route in here for method in route.methods})


async def _on_gone(request: Request, error: Exception) -> Response:
    return failure_response("cancelled", "the client went away before its request was whole")


async def _on_bug(request: Request, error: Exception) -> Response:
    return failure_response("internal", "a bug in Folkmoot; its log says more")
