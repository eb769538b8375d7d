"""Lines of a streamed HTTP body, for server-sent events and NDJSON.

httpx's own line iterator also breaks at U+2028 and U+0085, which JSON may hold unescaped.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from folkmoot.errors import EngineError

MAX_LINE = 8 * 1024 * 1024


async def body_lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body's lines without their ends, as they come. Raises `EngineError` for one that never ends."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")
        if len(rest) > MAX_LINE:
            raise EngineError(
                f"{response.url}: a line of more than {MAX_LINE} bytes; this is no model server"
            )
    if rest:
        yield rest.rstrip(b"\r")


async def sse_objects(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an event stream, up to `[DONE]` or its end."""
    async for line in body_lines(response):
        if not line.startswith(b"data:"):
            if line.startswith(b"error:"):
                yield {"error": parse_object(line[len(b"error:") :], response)}
            continue
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            return
        yield parse_object(data, response)


def parse_object(data: bytes, response: httpx.Response) -> dict[str, Any]:
    """One JSON object. Raises `EngineError` for anything else."""
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EngineError(
            f"{response.url} sent {data[:80]!r} where a JSON object belongs; is it a model server?"
        )
    return value
