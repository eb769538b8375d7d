"""Who may speak to the API: this machine's own programs, or whoever holds a key."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from folkmoot.api.config import ApiConfig, is_loopback, split_address
from folkmoot.api.faults import failure_response

OPEN = ("/healthz", "/openapi.json")
"""Paths that need no key: they tell nothing about the moot or its users."""


class Guard:
    """ASGI middleware: Host and Origin on loopback, keys where any is set.

    A web page that a user visits can send requests to loopback, and with a name that it points there it
    can read the answers too; so only loopback's own names pass as Host, and only its pages as Origin.
    """

    def __init__(self, app: ASGIApp, config: ApiConfig, control: str) -> None:
        self._app = app
        self._keys = [key.encode() for key in config.keys]
        self._control = control.encode()
        self._loopback = is_loopback(split_address(config.listen, "api.listen")[0])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with what is wrong about it."""
        if scope["type"] == "http" and (fault := self._fault(Headers(scope=scope), scope["path"])):
            await failure_response(*fault)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _fault(self, headers: Headers, path: str) -> tuple[str, str] | None:
        if self._loopback and not _is_local(f"//{headers.get('host', '')}"):
            return (
                "foreign",
                "the Host header must be localhost, 127.0.0.1 or [::1], as the API listens there only",
            )
        origin = headers.get("origin")
        if origin is not None and not self._origin_passes(origin, headers.get("host", "")):
            return "foreign", f"a page of {origin} may not use this API"
        if not self._keys or path in OPEN:
            return None
        token = bearer(headers)
        if token is None:
            return "no_key", "this API needs a key; send the header Authorization: Bearer KEY"
        if not any(hmac.compare_digest(token, key) for key in (*self._keys, self._control)):
            return "wrong_key", "this API does not know that key"
        return None

    def _origin_passes(self, origin: str, host: str) -> bool:
        if self._loopback:
            return _is_local(origin)
        try:
            return urlsplit(origin).netloc == host
        except ValueError:
            return False


def bearer(headers: Headers) -> bytes | None:
    """The token of an `Authorization: Bearer` header, if there is one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" and token.strip() else None


def is_owner(headers: Headers, control: str) -> bool:
    """Whether a request carries the control token, which lies where the device's owner alone can read."""
    token = bearer(headers)
    return token is not None and hmac.compare_digest(token, control.encode())


def _is_local(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host in ("localhost", "127.0.0.1", "::1")
