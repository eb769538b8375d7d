"""Peers that are slow, silent or too busy, as real processes."""

from __future__ import annotations

import contextlib
import json
import signal
import threading

import httpx
import pytest
from tests.live.crowd import Crowd, say, until

pytestmark = pytest.mark.live


def test_a_frozen_peer_is_stood_in_for_before_its_death_is_known_and_then_not_asked(crowd: Crowd) -> None:
    ash, birch, cedar, elm = crowd.form({name: "timed:det:0.1" for name in ("ash", "birch", "cedar", "elm")})
    asked = say("which way?", folkmoot={"layers": 1, "select": "fixed:birch"})
    assert ash.post(asked).status_code == 200  # how soon birch says a word is known now
    birch.process.send_signal(signal.SIGSTOP)
    told = ash.post(asked).json()["folkmoot"]
    stood_in = told["rounds"][0]["stood_in"]["birch"]
    assert stood_in in ("cedar", "elm")
    by_device = {job["device"]: job for job in told["jobs"] if job["stage"] == "propose"}
    assert by_device["birch"]["outcome"] in ("late", "failed")
    assert by_device[stood_in]["stands_in_for"] == "birch"
    what = [decision["what"] for decision in told["decisions"]]
    assert f"{stood_in} is asked as well as birch in layer 1" in what
    assert ash.standing()["birch"] != "dead", "nobody had to wait for that"
    birch.process.send_signal(signal.SIGCONT)
    until(lambda: {each.standing()["birch"] for each in (ash, cedar, elm)} == {"alive"})
    until(lambda: birch.get("/v1/moot")["busy"] == 0)
    again = ash.post(asked).json()["folkmoot"]
    assert again["rounds"][0]["answered"].count("birch") == 1


def test_a_prompt_that_waits_too_long_for_its_turn_ends_with_a_typed_error(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLKMOOT_NODE__PEER__MAX_WAIT_S", "1.5")
    ash, birch = crowd.form({"ash": "timed:det:0", "birch": "timed:det:600"})

    def ask_birch() -> None:
        with contextlib.suppress(httpx.HTTPError):  # it is taken down while it answers
            birch.post(say("hold on", model="local"))

    threading.Thread(target=ask_birch, daemon=True).start()
    until(lambda: birch.get("/v1/moot")["busy"] == 1)
    refused = ash.post(say("and this?", folkmoot={"layers": 1, "select": "fixed:birch"}))
    assert refused.status_code == 504
    assert refused.json()["error"]["code"] == "waited"
    assert "max_wait_s" in refused.json()["error"]["message"]
    until(lambda: (birch.get("/v1/moot")["queue"], birch.get("/v1/moot")["busy"]) == (0, 1))


def test_an_aggregator_that_dies_while_it_streams_loses_nothing(crowd: Crowd) -> None:
    """Another device goes on from the words that the user has seen."""
    ash, _, cedar = crowd.form({"ash": "timed:det:0", "birch": "timed:det:0", "cedar": "timed:det:600"})
    own = {"layers": 1, "select": "fixed:birch", "aggregator": "fixed:cedar"}
    asked = say("which way?", stream=True, folkmoot=own)
    shown, told = list[str](), dict[str, object]()
    with httpx.stream(
        "POST", ash.api + "/v1/chat/completions", json=asked, timeout=60, trust_env=False
    ) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            assert "error" not in chunk, chunk
            shown += [each["delta"].get("content") or "" for each in chunk["choices"]]
            if any(shown) and cedar.process.poll() is None:
                cedar.process.kill()
                cedar.process.wait()
            told = chunk.get("folkmoot", told)
    first, second = told["jobs"][-2:]
    assert (first["device"], first["outcome"]) == ("cedar", "failed")
    assert (second["outcome"], second["stands_in_for"]) == ("ok", "cedar")
    assert any("goes on with the answer of cedar" in each["what"] for each in told["decisions"])
    assert len([text for text in shown if text]) > 1
