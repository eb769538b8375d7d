"""What a real moot hands to the network while private prompts are asked: not a word of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import iroh
import pytest
from tests.node.test_daemon import Home, Odd, ask, told, until

from folkmoot.api import ApiConfig, Desk, create_app
from folkmoot.api.privacy import PrivacyConfig
from folkmoot.core.events import PromptAnswered, PromptFailed
from folkmoot.core.messages import Inference
from folkmoot.engine.protocol import Done, EngineInfo, Text
from folkmoot.errors import EngineError
from folkmoot.node.config import JournalConfig
from folkmoot.node.journal import Journal, retention_s

SECRET = "xylophone-4711"
PUBLIC = "ocarina-1147"


class Broken(Odd):
    """Fails at every job, before or after its first word."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.tried = 0

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        self.tried += 1
        for _ in range(self.after):
            yield Text(inference.conversation[-1].content)
        raise EngineError("out of memory")


class Away(Odd):
    """Runs on another machine."""

    async def start(self) -> EngineInfo:
        info = await super().start()
        return EngineInfo(info.model, info.context_tokens, info.skill, info.note, "api.example")


class Wire:
    """All that this process gave to QUIC, of every device in it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def carries(self, text: str) -> bool:
        return any(text.encode() in data for data in self.sent)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    watched = Wire()
    write_all, send_datagram = iroh.SendStream.write_all, iroh.Connection.send_datagram

    async def write(self: iroh.SendStream, data: bytes) -> None:
        watched.sent.append(bytes(data))
        await write_all(self, data)

    def send(self: iroh.Connection, data: bytes) -> None:
        watched.sent.append(bytes(data))
        send_datagram(self, data)

    monkeypatch.setattr(iroh.SendStream, "write_all", write)
    monkeypatch.setattr(iroh.Connection, "send_datagram", send)
    return watched


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path / "homes")
    yield made
    for daemon in list(made.running):
        await made.down(daemon)


async def test_a_private_prompt_is_answered_here_while_others_cross_the_network(
    home: Home, wire: Wire
) -> None:
    daemon, *_ = await home.moot(Odd(), Odd(), Odd(), Odd())
    public = [told(daemon, ask(daemon, PUBLIC, mode="fixed", layers=2, proposers=3)) for _ in range(2)]
    private = [told(daemon, ask(daemon, SECRET, mode="local", private=True)) for _ in range(3)]
    for notices in await asyncio.gather(*public, *private):
        assert isinstance(notices[-1], PromptAnswered)
    assert wire.carries(PUBLIC)
    assert not wire.carries(SECRET)


@pytest.mark.parametrize("after", [0, 1])
async def test_neither_a_retry_nor_a_stand_in_takes_it_away(home: Home, wire: Wire, after: int) -> None:
    engine = Broken(after)
    daemon, *_ = await home.moot(engine, Odd(), Odd(), Odd())
    end = (await told(daemon, ask(daemon, SECRET, mode="local", private=True)))[-1]
    assert isinstance(end, PromptFailed)
    assert end.code == "no_device"
    assert end.provenance is not None
    assert {job.device for job in end.provenance.jobs} == {"d0"}
    assert engine.tried == (1 if after else 2)
    # The same failure does take a prompt away that may go.
    assert isinstance((await told(daemon, ask(daemon, PUBLIC)))[-1], PromptAnswered)
    assert wire.carries(PUBLIC)
    assert not wire.carries(SECRET)


async def test_an_engine_that_is_down_makes_no_exception(home: Home, wire: Wire) -> None:
    engine = Odd()
    daemon, *_ = await home.moot(engine, Odd(), engine_check_s=0.01)
    engine.trouble = "nothing answers at its URL"
    await until(lambda: not daemon.status().model)
    end = (await told(daemon, ask(daemon, SECRET, mode="local", private=True)))[-1]
    assert isinstance(end, PromptFailed)
    assert end.code == "no_device"
    assert not wire.carries(SECRET)


async def test_an_engine_on_another_machine_gets_no_private_prompt(home: Home, wire: Wire) -> None:
    daemon, *_ = await home.moot(Away(), Odd())
    end = (await told(daemon, ask(daemon, SECRET, mode="local", private=True)))[-1]
    assert isinstance(end, PromptFailed)
    assert end.code == "no_device"
    assert "api.example" in end.detail
    assert isinstance((await told(daemon, ask(daemon, PUBLIC, mode="local")))[-1], PromptAnswered)
    assert not wire.carries(SECRET)


@pytest.mark.parametrize(
    "rules",
    [
        PrivacyConfig(patterns=(r"xylo\w+",)),
        PrivacyConfig(models=("moot",)),
    ],
)
async def test_a_rule_of_the_configuration_keeps_it_here(
    home: Home, wire: Wire, rules: PrivacyConfig, tmp_path: Path
) -> None:
    daemon, *_ = await home.moot(Odd(), Odd(), Odd())
    config, kept = ApiConfig(privacy=rules), JournalConfig()
    desk = Desk(daemon, Journal(tmp_path, kept), config, retention_s(kept))
    app = create_app(daemon, config, "owner-token", desk)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:

        async def post(text: str, **more: Any) -> dict[str, Any]:
            body = {"model": "moot", "messages": [{"role": "user", "content": text}], **more}
            answer: dict[str, Any] = (await client.post("/v1/chat/completions", json=body)).json()
            return answer

        private = (await post(f"what is {SECRET}?"))["folkmoot"]
        asked = (await post(PUBLIC, model="moot-M1-k2"))["folkmoot"]
        refused = await post(SECRET, folkmoot={"layers": 1, "proposers": 2, "private": True})
    desk.close()
    assert [job["device"] for job in private["jobs"]] == ["d0"]
    assert "api.privacy." in private["decisions"][0]["why"]
    assert len({job["device"] for job in asked["jobs"]}) == 3
    assert refused["error"]["code"] == "invalid"
    assert wire.carries(PUBLIC)
    assert not wire.carries(SECRET)


async def test_a_requester_keeps_nothing_and_asks_nobody_instead(home: Home, wire: Wire) -> None:
    _, requester = await home.moot(Odd(), None)
    end = (await told(requester, ask(requester, SECRET, private=True)))[-1]
    assert isinstance(end, PromptFailed)
    assert end.code == "no_device"
    assert not wire.carries(SECRET)
