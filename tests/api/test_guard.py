from __future__ import annotations

import httpx
import pytest

from folkmoot.api import ApiConfig, create_app
from folkmoot.api.config import is_loopback, split_address
from folkmoot.api.keys import Keys
from folkmoot.errors import ConfigError

OPEN_TO_ALL = {"listen": "0.0.0.0:4150", "keys": ("secret", "other")}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:4150", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:4150", "LOCALHOST"]
)
async def test_loopback_names_pass(client, host):
    assert (await client.get("/v1/moot", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4150", "127.0.0.1.evil.example", "192.168.0.1", "", "[", "a@evil"]
)
async def test_a_rebound_name_is_refused(client, host):
    response = await client.get("/v1/moot", headers={"host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "foreign"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:4150", 200),
        ("http://[::1]:9", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
    ],
)
async def test_a_foreign_page_is_refused(client, origin, status):
    assert (await client.get("/v1/models", headers={"origin": origin})).status_code == status


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "no_key"),
        ({"authorization": "Basic secret"}, 401, "no_key"),
        ({"authorization": "Bearer "}, 401, "no_key"),
        ({"authorization": "Bearer wrong"}, 403, "wrong_key"),
        ({"authorization": "Bearer secret"}, 200, None),
        ({"authorization": "bearer other"}, 200, None),
        ({"authorization": "Bearer owner-token"}, 200, None),
        ({"authorization": "Bearer secret", "origin": "https://evil.example"}, 403, "foreign"),
        ({"authorization": "Bearer secret", "origin": "http://[half"}, 403, "foreign"),
        ({"authorization": "Bearer secret", "origin": "http://moot.example"}, 200, None),
    ],
)
async def test_keys(connect, headers, status, code):
    client = connect("http://moot.example", **OPEN_TO_ALL)
    response = await client.get("/v1/models", headers=headers)
    assert response.status_code == status
    if code:
        assert response.json()["error"]["code"] == code


async def test_health_and_the_document_need_no_key(connect):
    client = connect("http://moot.example", **OPEN_TO_ALL)
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/openapi.json")).status_code == 200


async def test_a_key_on_loopback_counts_too(connect):
    client = connect(keys=("secret",))
    assert (await client.get("/v1/models")).status_code == 401


async def test_a_key_that_was_revoked_opens_nothing_where_none_is_needed(
    village, control, tmp_path, make_desk
):
    config, keys = ApiConfig(), Keys(tmp_path)
    token = keys.add("phone", 0.0)
    keys.revoke("phone")
    transport = httpx.ASGITransport(create_app(village, config, control, make_desk(config), keys))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4150") as client:
        for bearer, status in ((token, 403), ("sk-none", 200), ("fm-local", 200), (control, 200)):
            told = await client.get("/v1/models", headers={"authorization": f"Bearer {bearer}"})
            assert (bearer, told.status_code) == (bearer, status)
            if status == 403:
                assert told.json()["error"]["code"] == "wrong_key"
        assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:4150", "192.168.1.2:4150", "[::]:4150", "moot.example:1"])
async def test_listening_to_others_needs_a_key(village, control, tmp_path, listen, make_desk):
    config, keys = ApiConfig(listen=listen), Keys(tmp_path)
    with pytest.raises(ConfigError, match="folkmoot key new"):
        create_app(village, config, control, make_desk(config), keys)
    create_app(village, ApiConfig(listen=listen, keys=("secret",)), control, make_desk(config))
    keys.add("phone", 0.0)
    create_app(village, config, control, make_desk(config), keys)


@pytest.mark.parametrize(
    "wrong", ["4150", "localhost", ":1", "localhost:", "localhost:x", "h:65536", "h:-1", "h:²"]
)
def test_a_wrong_address_is_named(wrong):
    with pytest.raises(ConfigError, match=r"api\.listen"):
        ApiConfig(listen=wrong)


def test_addresses():
    assert split_address("[::1]:80", "x") == ("::1", 80)
    assert is_loopback("127.8.8.8")
    assert is_loopback("::1")
    assert not is_loopback("localhost.example")


async def test_a_large_body_is_413(connect):
    client = connect(body_bytes=1000)
    response = await client.post("/v1/chat/completions", content=b"x" * 1001)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


async def test_a_large_body_without_a_length_is_413(connect):
    async def chunks():
        for _ in range(11):
            yield b"x" * 100

    response = await connect(body_bytes=1000).post("/v1/chat/completions", content=chunks())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
