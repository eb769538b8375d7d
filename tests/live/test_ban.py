"""Banning and a new root key in a moot of real processes, by the commands that people type."""

from __future__ import annotations

import json
import signal

import pytest
from tests.live.crowd import Crowd, Device, say, until

pytestmark = pytest.mark.timeout(120)


def restarted(crowd: Crowd, device: Device) -> Device:
    device.process.send_signal(signal.SIGTERM)
    device.process.communicate()
    return crowd.start(device.name, "timed:det:0", home=device.home.name)


def wait_for_line(device: Device, text: str) -> None:
    """Read what a device says on stderr until a line says this."""
    assert device.process.stderr is not None
    assert any(text in line for line in device.process.stderr), "it ended without"


def asked(device: Device) -> set[str]:
    answer = device.post(say("why?", folkmoot={"layers": 1, "proposers": 2})).json()
    return {job["device"] for job in answer["folkmoot"]["jobs"] if job["outcome"] == "ok"}


def test_a_banned_member_is_refused_by_all_also_after_restarts_while_the_key_is_changed(crowd: Crowd) -> None:
    ash, birch, cedar = crowd.form({name: "timed:det:0" for name in ("ash", "birch", "cedar")})
    assert asked(birch) == {"ash", "birch", "cedar"}
    refused = birch.cli("members", "ban", "cedar", "--yes")
    assert refused.returncode == 1
    assert "founder" in refused.stderr
    told = ash.cli("members", "ban", "cedar", "--yes", "--json")
    assert json.loads(told.stdout)["banned"] == cedar.ready["device"]
    for device in (ash, birch):
        until(lambda d=device: d.standing()["cedar"] == "banned")
        assert asked(device) == {"ash", "birch"}
    assert asked(cedar) == {"cedar"}
    wait_for_line(cedar, "says that this device is banned from its moot")

    rotated = ash.cli("rotate", "--grace", "1h", "--json")
    assert json.loads(rotated.stdout)["until"] > 0, rotated.stderr
    moots = {json.loads((ash.home / "moot.json").read_text())["moot"]}
    until(lambda: {json.loads((birch.home / "moot.json").read_text())["moot"]} == moots)
    assert asked(birch) == {"ash", "birch"}

    birch, cedar = restarted(crowd, birch), restarted(crowd, cedar)
    until(lambda: birch.standing().get("ash") == "alive")
    until(lambda: asked(birch) == {"ash", "birch"})
    assert asked(cedar) == {"cedar"}
    wait_for_line(cedar, "says that this device is banned from its moot")
    listed = json.loads(birch.cli("members", "--json").stdout)
    assert listed["banned"] == [cedar.ready["device"]]
    assert "cedar" not in [row["name"] for row in listed["members"]
                           if row["standing"] == "alive"]  # fmt: skip
