"""The API on a socket: uvicorn inside the device's own event loop, which keeps the signals to itself."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from folkmoot.api.config import ApiConfig, split_address
from folkmoot.errors import NodeError

KNOCK_S = 0.25
"""So long a connection whose request was not read yet is waited for when the server ends (guess)."""


class Server(uvicorn.Server):
    """uvicorn without signal handlers: whoever runs the device decides when it stops."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, once those are let in who knocked before: what still waits at a socket that is closed is thrown away."""
        await asyncio.sleep(KNOCK_S)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Http(H11Protocol):
    """uvicorn's HTTP, but a request that turns into noise is over for whoever answers it as well.

    Else the answer is sent after the 400, which h11 refuses with an error that uvicorn logs as a bug of ours.
    """

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong where nothing was said yet, and close."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """Close the connection in a moment, if nothing is asked on it: what has arrived may not have been read yet."""
        self.loop.call_later(KNOCK_S, self._end)

    def _end(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()


def bind(config: ApiConfig) -> socket.socket:
    """The listening socket. Raises `NodeError` when the port is taken or the address is not ours."""
    host, port = split_address(config.listen, "api.listen")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise NodeError(
            f"cannot listen on {config.listen}: {error}; choose another with --api HOST:PORT"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise NodeError(
            f"cannot listen on {config.listen}: {error.strerror}; "
            "another program, perhaps another `folkmoot up`, may have the port. Choose one with --api HOST:PORT"
        ) from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The base URL of the API on a bound socket, as a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp, grace_s: float = 0.0) -> Server:
    """A server for `Server.serve(sockets=[bind(...)])`; set `should_exit` to end it.

    What is being answered then has `grace_s` to end, and two seconds more to be sent.
    """
    config = uvicorn.Config(
        app,
        http=Http,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(grace_s) + 2,
        ws="none",
    )
    return Server(config)
