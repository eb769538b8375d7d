"""Keys: told once, kept as hashes, each with its own limits."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from folkmoot.api import ApiConfig, create_app
from folkmoot.api.guard import Guard
from folkmoot.api.keys import Keys
from folkmoot.api.privacy import PrivacyConfig
from folkmoot.errors import ConfigError, NodeError


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_key_is_found_by_its_token_alone_and_kept_as_a_hash(keys: Keys, tmp_path: Path) -> None:
    token, other = keys.add("phone", 5.0, 3, 2), keys.add("laptop", 6.0)
    found = keys.find(token)
    assert found is not None
    assert (found.name, found.made_at, found.per_minute, found.at_once) == ("phone", 5, 3, 2)
    path = tmp_path / "keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys.lock").stat().st_mode) == 0o600
    secret = token.split("-", 2)[2]
    assert secret not in path.read_text()
    for wrong in (
        token[:-1],
        f"{token}x",
        other.replace("fm-", "", 1),
        f"fm-{found.id}-",
        "fm--",
        "",
        secret,
    ):
        assert keys.find(wrong) is None
    # A hash under one key's salt is of no use under another's.
    assert keys.find(f"fm-{other.split('-', 2)[1]}-{secret}") is None


def test_another_process_s_changes_are_seen(keys: Keys, tmp_path: Path) -> None:
    beside = Keys(tmp_path)
    token = keys.add("phone", 0.0)
    assert beside.find(token) is not None
    assert keys.revoke("phone").name == "phone"
    assert beside.find(token) is None
    assert beside.all() == ()


def test_names_and_a_damaged_file(keys: Keys, tmp_path: Path) -> None:
    keys.add("phone", 0.0)
    for wrong in ("phone", "", "-x", "a b", "x" * 33):
        with pytest.raises(ConfigError):
            keys.add(wrong, 0.0)
    with pytest.raises(ConfigError, match="no key 'laptop'"):
        keys.revoke("laptop")
    path = tmp_path / "keys.json"
    for damage in ("{", path.read_text().replace(json.loads(path.read_text())["keys"][0]["salt"], "zz")):
        path.write_text(damage)
        with pytest.raises(NodeError, match="damaged"):
            Keys(tmp_path).all()


async def test_once_there_is_a_key_every_request_needs_one(
    village, control, make_desk, keys: Keys, tmp_path: Path
) -> None:
    app = create_app(village, ApiConfig(), control, make_desk(ApiConfig()), keys)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:

        async def status(token: str = "") -> tuple[int, str]:
            response = await client.get("/v1/models", headers=bearing(token) if token else {})
            code = response.json()["error"]["code"] if response.status_code != 200 else ""
            return response.status_code, code

        assert await status() == (200, "")
        token = keys.add("phone", 0.0)
        assert await status() == (401, "no_key")
        assert await status("fm-00000000-x") == (403, "wrong_key")
        assert await status(token) == (200, "")
        assert await status(control) == (200, "")
        (tmp_path / "keys.json").write_text("{")
        assert await status(token) == (500, "node")
        assert await status() == (500, "node")
        (tmp_path / "keys.json").unlink()
        assert await status() == (200, "")


async def test_a_key_asks_no_more_often_than_it_may(village, control, make_desk, keys: Keys) -> None:
    app = create_app(village, ApiConfig(), control, make_desk(ApiConfig()), keys)
    few, many = keys.add("few", 0.0, per_minute=2), keys.add("many", 0.0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        got = [await client.get("/v1/models", headers=bearing(few)) for _ in range(3)]
        assert [each.status_code for each in got] == [200, 200, 429]
        assert got[-1].json()["error"]["code"] == "key_limit"
        assert 1 <= int(got[-1].headers["retry-after"]) <= 30
        assert (await client.get("/v1/models", headers=bearing(many))).status_code == 200
        assert (await client.get("/v1/models", headers=bearing(control))).status_code == 200


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def call(app: Callable[..., object], token: str) -> int:
    """The status of one request."""
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "path": "/v1/models", "headers": headers}
    sent: list[int] = []

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            sent.append(int(str(message["status"])))

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    await app(scope, receive, send)  # type: ignore[misc]
    return sent[0]


async def test_its_requests_come_back_with_time_and_with_the_end_of_others(keys: Keys) -> None:
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    clock, token = Clock(), keys.add("phone", 0.0, per_minute=60, at_once=1)
    guard = Guard(slow, ApiConfig(), "owner", keys, clock)
    first = asyncio.create_task(call(guard, token))
    await asyncio.sleep(0)
    assert await call(guard, token) == 429
    release.set()
    assert await first == 204
    assert [await call(guard, token) for _ in range(60)] == [204] * 59 + [429]
    clock.now += 1.0
    assert [await call(guard, token) for _ in range(2)] == [204, 429]
    cancelled = asyncio.create_task(call(guard, token))
    clock.now += 5.0
    release.clear()
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    release.set()
    assert await call(guard, token) == 204


async def test_a_key_can_keep_its_prompts_here(village, control, make_desk, keys: Keys) -> None:
    config = ApiConfig(privacy=PrivacyConfig(keys=("phone",)))
    app = create_app(village, config, control, make_desk(config), keys)
    phone, laptop = keys.add("phone", 0.0), keys.add("laptop", 0.0)
    body = {"model": "moot", "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for token in (phone, laptop, control):
            await client.post("/v1/chat/completions", json=body, headers=bearing(token))
    assert [prompt.plan.private for prompt in village.prompts] == [True, False, False]
    assert village.prompts[0].plan.rule == "api.privacy.keys[0]"
