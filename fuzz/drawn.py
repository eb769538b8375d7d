"""Requests drawn from the API's own document, /openapi.json: some as it says, most of them bent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote

MOST_BYTES = 5 << 20
"""More than a body may have."""
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
NUMBERS = (
    0,
    1,
    -1,
    2,
    16,
    255,
    1_000,
    2**31,
    2**53,
    2**63,
    2**64,
    10**400,
    0.5,
    -0.0,
    1e-9,
    1e308,
    math.inf,
    math.nan,
)
TEXTS = (
    "", " ", "moot", "local", "auto", "moot-M1-k3", "moot-M99-k99", "moot-", "d0", "fixed:", "fixed:d0+d0", "best-of:9", "a" * 300,
    "\x00", "\x1b[2J", "\ud800", "\u202e", "\U0001f600", "../../etc/passwd", "%00", "{}", "null", "-1", "1e9", "0x10", "\u0661",
)  # fmt: skip
BODIES = (
    b"", b"{", b"null", b"[]", b"0", b'""', b"\xff\xfe", b"[" * 5_000, b'{"a":' * 5_000, b'{"model":"moot","model":1}', b"\x00" * 64,
    b'{"model": "\\ud800"}', b"{" + b'"k":1,' * 2_000 + b'"k":1}', b"9" * 5_000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawn:
    """One request. `path` as the server gets it, `route` as the document names it, empty where it names none."""

    method: str
    path: str
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    route: str


class Requests:
    """Draws from one seed; `keys` are those that may stand in an Authorization header, real or not."""

    def __init__(self, document: Mapping[str, Any], seed: int, keys: Sequence[str]) -> None:
        self._document = document
        self._rng = Random(f"requests {seed}")
        self._keys = keys
        self._operations = [
            (method.upper(), path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            for _ in range(4 if "requestBody" in operation else 1)
        ]

    def draw(self) -> Drawn:
        """A request, bent or not."""
        rng = self._rng
        method, route, operation = rng.choice(self._operations)
        path, query = route, b""
        headers: list[tuple[bytes, bytes]] = [(b"host", rng.choice((b"127.0.0.1", b"localhost", b"[::1]:9")))]
        for parameter in operation.get("parameters", ()):
            value = self._text(self._value(parameter["schema"]))
            match parameter["in"]:
                case "path":
                    path = path.replace("{" + parameter["name"] + "}", value)
                case "query" if rng.random() < 0.7:
                    query = f"{parameter['name']}={quote(value, errors='replace')}".encode()
                case "header" if rng.random() < 0.4:
                    headers.append((parameter["name"].lower().encode(), value.encode("latin-1", "replace")))
                case _:
                    pass
        while "{" in path:
            path = path[: path.index("{")] + self._text(rng.choice(TEXTS)) + path[path.index("}") + 1 :]
        if key := rng.choice(self._keys):
            headers.append((b"authorization", key.encode()))
        body = self._body(operation)
        match rng.randrange(40):
            case 0:
                method = rng.choice(METHODS)
            case 1:
                path, route = path + rng.choice(("/", "x", "//", "%2e%2e", "?a", "\x00")), ""
            case 2:
                headers[0] = (
                    b"host",
                    rng.choice((b"evil.example", b"", b"127.0.0.1.evil.example", b"[", b"\xff")),
                )
            case 3:
                headers.append(
                    (b"origin", rng.choice((b"http://evil.example", b"null", b"http://localhost:1", b"[")))
                )
            case 4:
                headers.append(
                    (b"content-length", rng.choice((b"-1", b"abc", b"99999999999", b"\xb2", b"0")))
                )
            case 5:
                headers += [
                    (b"x-noise", rng.randbytes(20).replace(b"\r", b"").replace(b"\n", b""))
                ] * rng.randrange(1, 50)
            case _:
                pass
        path = path.encode(errors="replace").decode()  # what a server makes of any bytes in a request line
        return Drawn(method, path, query, headers, body, route)

    def _body(self, operation: Mapping[str, Any]) -> bytes:
        rng = self._rng
        wanted = operation.get("requestBody")
        if wanted is None:
            return rng.choice(BODIES) if rng.random() < 0.05 else b""
        if rng.random() < 0.05:
            return rng.choice(BODIES)
        value = self._value(wanted["content"]["application/json"]["schema"])
        for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
            value = self._bent(value)
        try:
            body = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
        except ValueError:
            return b"{}"
        body = body[:MOST_BYTES]
        if rng.random() < 0.05 and body:
            place = rng.randrange(len(body))
            body = body[:place] + rng.choice((b"", rng.randbytes(3), b",", b'"', b"\\")) + body[place + 1 :]
        return body

    def _value(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """A value that a schema allows, often at its bounds."""
        rng = self._rng
        if "$ref" in schema:
            return self._value(
                self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], depth
            )
        if "anyOf" in schema:
            return self._value(rng.choice(schema["anyOf"]), depth)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        match schema.get("type"):
            case "object":
                wanted = set(schema.get("required", ()))
                return {
                    name: self._value(each, depth + 1)
                    for name, each in schema.get("properties", {}).items()
                    if name in wanted or rng.random() < 0.3
                }
            case "array":
                low = schema.get("minItems", 0)
                return [self._value(schema["items"], depth + 1) for _ in range(rng.randrange(low, low + 3))]
            case "string":
                if rng.random() < 0.5:
                    return rng.choice(("moot", "user", "d0", "Why is the sky blue?", "origin", "uniform"))
                return rng.choice(TEXTS)
            case "integer":
                low = schema.get("minimum", 0)
                return rng.choice((low, low + 1, low + 2, min(schema.get("maximum", 9), 40)))
            case "number":
                low = float(schema.get("minimum", 0))
                return rng.choice((low, low + 0.1, float(schema.get("maximum", 5.0))))
            case "boolean":
                return rng.random() < 0.5
            case _:
                return None

    def _bent(self, value: Any) -> Any:
        """A value with one thing in it that is not as it should be."""
        rng = self._rng
        if isinstance(value, dict) and value and rng.random() < 0.85:
            name = rng.choice(list(value))
            match rng.randrange(8):
                case 0:
                    return {key: each for key, each in value.items() if key != name}
                case 1:
                    return {**value, rng.choice(TEXTS): value[name]}
                case _:
                    return {**value, name: self._bent(value[name])}
        if isinstance(value, list) and value and rng.random() < 0.85:
            place = rng.randrange(len(value))
            match rng.randrange(6):
                case 0:
                    return value * rng.choice((0, 2, 300))
                case 1:
                    return value[:place]
                case _:
                    return [*value[:place], self._bent(value[place]), *value[place + 1 :]]
        return rng.choice((None, True, {}, [], [value], {"a": value}, rng.choice(NUMBERS), rng.choice(TEXTS)))

    def _text(self, value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)
