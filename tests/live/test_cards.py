"""A skill card that was made up, among real processes: told, found out by hidden questions, and not forgotten over a restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.live.crowd import Crowd, Device, say, until
from tests.live.engines import Engine, said, serving

from folkmoot.node.skill import load_probes

pytestmark = [pytest.mark.live, pytest.mark.long]

ANSWERS = {probe.question: probe.answers[0] for probe in load_probes().all}
ENOUGH = 400
"""Prompts: a tenth of them brings a hidden question, and nine that are answered wrongly are enough."""


class Crammer(Engine):
    """It has learnt the probes by heart, and knows nothing else."""

    model = "crammer"
    protocol_version = "HTTP/1.1"

    def events(self, asked: dict[str, Any]) -> Sequence[dict[str, object]]:
        return said(ANSWERS.get(asked["messages"][-1]["content"], "I do not know."))


@pytest.fixture
def crammer() -> Iterator[str]:
    with serving(Crammer) as spec:
        yield spec


def row(device: Device, name: str) -> dict[str, object]:
    return next(each for each in device.get("/v1/moot")["members"] if each["name"] == name)


def test_a_device_that_knows_the_probes_by_heart_is_found_out_and_stays_so_over_a_restart(
    crowd: Crowd, crammer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {
        "SKILL__ENABLED": "true",
        "SKILL__QUIET_S": "0.05",
        "PEER__AUDIT__SHARE": "0.1",
        "PEER__AUDIT__WITHIN_S": "0.001",
        "PEER__QUEUE__SLOTS": "4",
    }.items():
        monkeypatch.setenv(f"FOLKMOOT_NODE__{key}", value)
    ash, _ = crowd.form({"ash": "timed:det:0", "birch": crammer})
    until(lambda: len(row(ash, "birch")["skills"]) == 6)
    assert all(each["right"] == each["total"] for each in row(ash, "birch")["skills"])
    asked = say("which way?", max_tokens=300, folkmoot={"layers": 1, "select": "fixed:birch"})
    with httpx.Client(base_url=ash.api, timeout=60, trust_env=False) as client, ThreadPoolExecutor(4) as four:
        for _ in range(ENOUGH // 16):
            answers = four.map(lambda _: client.post("/v1/chat/completions", json=asked), range(16))
            assert {answer.status_code for answer in answers} == {200}
            if row(ash, "birch")["doubt"]:
                break
    doubt = row(ash, "birch")["doubt"]
    assert " 0 of " in doubt
    assert f"birch's card is not believed: {doubt}" in " ".join(ash.cli("status").stdout.split())
    told = ash.post(asked).json()["folkmoot"]["decisions"]
    assert any("birch is not believed" in each["what"] for each in told)
    ash.process.send_signal(signal.SIGTERM)
    assert ash.process.wait(30) == 0
    again = crowd.start("ash", "timed:det:0", home=ash.home.name)
    until(lambda: again.knows() == (2, 2))
    assert row(again, "birch")["doubt"]
