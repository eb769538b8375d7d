"""Who may speak to the API, and how often: this machine's own programs, or whoever holds a key."""

from __future__ import annotations

import hmac
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from folkmoot.api.config import ApiConfig, is_loopback, split_address
from folkmoot.api.faults import failure_response
from folkmoot.api.keys import Key, Keys, is_ours
from folkmoot.api.room import KEY
from folkmoot.errors import NodeError
from folkmoot.node.rates import Bucket

OPEN = ("/healthz", "/openapi.json")
"""Paths that need no key: they tell nothing about the moot or its users."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a request is not passed on; `retry_s` where it may come again."""

    code: str
    message: str
    retry_s: float | None = None


@dataclass(slots=True)
class _Use:
    """How a key is used: its limit in requests a minute, and its requests under way."""

    key: Key
    bucket: Bucket
    running: int = 0


class Guard:
    """ASGI middleware: Host and Origin on loopback, keys where any is set, and each key's own limits.

    A web page that a user visits can send requests to loopback, and with a name that it points there it
    can read the answers too; so only loopback's own names pass as Host, and only its pages as Origin.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ApiConfig,
        control: str,
        keys: Keys | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._plain = [key.encode() for key in config.keys]
        self._control = control.encode()
        self._keys = keys
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._loopback = is_loopback(split_address(config.listen, "api.listen")[0])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with what is wrong about it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key = self._check(Headers(scope=scope), scope["path"])
        use: _Use | _Fault | None = key if isinstance(key, _Fault) else None
        if isinstance(key, Key):
            scope[KEY] = key.name
            use = self._used(key)
        if isinstance(use, _Fault):
            retry = {} if use.retry_s is None else {"Retry-After": str(max(1, math.ceil(use.retry_s)))}
            await failure_response(use.code, use.message, headers=retry)(scope, receive, send)
            return
        if use is None:
            await self._app(scope, receive, send)
            return
        use.running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            use.running -= 1

    def _check(self, headers: Headers, path: str) -> Key | _Fault | None:
        """The key of a request that is passed on, None where it needs none, or why it is not."""
        if self._loopback and not _is_local(f"//{headers.get('host', '')}"):
            return _Fault(
                "foreign",
                "the Host header must be localhost, 127.0.0.1 or [::1], as the API listens there only",
            )
        origin = headers.get("origin")
        if origin is not None and not self._origin_passes(origin, headers.get("host", "")):
            return _Fault("foreign", f"a page of {origin} may not use this API")
        if path in OPEN:
            return None
        token = bearer(headers)
        if token is not None and any(
            hmac.compare_digest(token, key) for key in (*self._plain, self._control)
        ):
            return None
        said = token.decode(errors="replace") if token else ""
        try:
            key = self._keys.find(said) if self._keys and said else None
            # Where no key is needed clients may send any, as OpenAI's want one, but none that was revoked.
            keyed = bool(
                self._plain or not self._loopback or is_ours(said) or (self._keys and self._keys.all())
            )
        except NodeError as error:
            log.error("the API lets nobody in: %s", error)
            return _Fault("node", "this device cannot read its API keys; its log says more")
        if key is not None or not keyed:
            return key
        if token is None:
            return _Fault("no_key", "this API needs a key; send the header Authorization: Bearer KEY")
        return _Fault("wrong_key", "this API does not know that key")

    def _used(self, key: Key) -> _Use | _Fault | None:
        """Count a request with this key; the fault where that is one too many."""
        if not (key.per_minute or key.at_once):
            return None
        now = self._clock()
        use = self._uses.get(key.id)
        if use is None or use.key != key:
            known = {each.id for each in self._keys.all()} if self._keys else set()
            self._uses = {name: each for name, each in self._uses.items() if each.running or name in known}
            rate_hz = key.per_minute / 60.0
            use = self._uses[key.id] = _Use(key, Bucket(rate_hz, float(key.per_minute), now))
        if key.at_once and use.running >= key.at_once:
            bound = f"{use.running} requests with the key {key.name!r} are under way, which is its limit"
            return _Fault("key_limit", bound, 1.0)
        if key.per_minute and not use.bucket.allow(now):
            bound = f"the key {key.name!r} has used up its {key.per_minute} requests a minute"
            return _Fault("key_limit", bound, use.bucket.due_s(now))
        return use

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
