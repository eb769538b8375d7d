"""What a device leaves on disk: readable by its owner alone, and gone when it is told to forget."""

from __future__ import annotations

import json
import signal
import stat

import httpx
import pytest
from tests.live.crowd import Crowd, Device, until

pytestmark = pytest.mark.timeout(120)
WORD = "xylophone-4711"


def background(device: Device) -> str:
    body = {"model": "local", "input": f"what is a {WORD}?", "background": True}
    response = httpx.post(f"{device.api}/v1/responses", json=body, timeout=20, trust_env=False)
    assert response.status_code == 200, response.text
    name: str = response.json()["id"]
    until(lambda: device.get(f"/v1/responses/{name}")["status"] == "completed")
    return name


def holding(device: Device, word: str = WORD) -> list[str]:
    """The files of its home in which a word stands."""
    files = [path for path in device.home.rglob("*") if path.is_file()]
    return [path.name for path in files if word.encode() in path.read_bytes()]


def shown(device: Device) -> list[str]:
    """The files of its home that others may look into, the empty ones too."""
    files = [path for path in device.home.rglob("*") if path.is_file()]
    assert "up.lock" in [path.name for path in files]
    return [path.name for path in files if stat.S_IMODE(path.stat().st_mode) != 0o600]


def forget(device: Device, *what: str) -> int:
    told = device.cli("forget", *what, "--json")
    assert told.returncode == 0, told.stderr
    gone: int = json.loads(told.stdout)["forgotten"]
    return gone


def test_prompts_are_for_the_owner_s_eyes_and_forgotten_when_told(crowd: Crowd) -> None:
    device = crowd.start("ash", "timed:det:0", debug=True)
    first, second, third = (background(device) for _ in range(3))
    assert holding(device)
    assert shown(device) == []
    assert stat.S_IMODE(device.home.stat().st_mode) == 0o700
    assert WORD not in device.log.read_text(), "no log holds a prompt"

    assert forget(device, first) == 1
    assert device.cli("forget", first).returncode == 1
    assert device.get(f"/v1/responses/{second}")["status"] == "completed"
    device.process.send_signal(signal.SIGTERM)
    device.process.wait()
    assert forget(device, second) == 1
    assert device.cli("forget", second).returncode == 1
    assert holding(device), "the third one is still there"
    device = crowd.start("ash", "timed:det:0", home=device.home.name)
    assert device.get(f"/v1/responses/{third}")["status"] == "completed"
    assert forget(device, "--all") == 1
    assert not holding(device)
    assert device.cli("forget").returncode == 2
    assert device.cli("forget", third, "--all").returncode == 2


def test_keys_are_no_longer_good_once_revoked_and_stand_nowhere(crowd: Crowd) -> None:
    device = crowd.start("ash", "timed:det:0", debug=True)

    def status(key: str = "") -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.get(f"{device.api}/v1/models", headers=headers, timeout=20, trust_env=False).status_code

    assert status() == 200
    key = json.loads(device.cli("key", "new", "phone", "--per-minute", "2", "--json").stdout)["key"]
    assert [status(), status("fm-00000000-x"), status(key), status(key), status(key)] == [
        401,
        403,
        200,
        200,
        429,
    ]
    assert device.cli("ask", "--json", "why?").returncode == 0, "its owner's commands need no key"
    assert (device.home / "keys.lock").exists()
    assert shown(device) == []
    assert not holding(device, key)
    assert not holding(device, key.split("-", 2)[2])
    assert key not in device.log.read_text()
    assert device.cli("key", "revoke", "phone").returncode == 0
    assert (status(), status("sk-none"), status(key)) == (200, 200, 403), (
        "as open as before, but not to that key"
    )
    assert device.cli("key", "new", "laptop").returncode == 0
    assert status(key) == 403
