"""Model servers for tests, which answer as an OpenAI-compatible one does and are no model."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator, Sequence


class Engine(http.server.BaseHTTPRequestHandler):
    """One of them: `model` is what it calls its model, `events` what it streams for what it is asked."""

    model = "engine"

    def events(self, asked: dict[str, object]) -> Sequence[dict[str, object]]:
        raise NotImplementedError

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"data": [{"id": self.model}]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in self.events(asked))
        self._send("text/event-stream", told)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def said(*pieces: str) -> list[dict[str, object]]:
    """An answer in pieces, and its end."""
    events: list[dict[str, object]] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    return [*events, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]


@contextlib.contextmanager
def serving(engine: type[Engine]) -> Iterator[str]:
    """Its SPEC, while the block runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"openai:http://127.0.0.1:{server.server_port}/v1#{engine.model}"
        finally:
            server.shutdown()
            thread.join()
