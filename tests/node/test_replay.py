"""What was recorded on the way and is sent again: packets, hellos, invitations, questions. Nothing of it counts twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import iroh
import pytest
from tests.node.test_daemon import Home, Odd, ask, told, until
from tests.node.test_hostile import raw, say, still_serves, thrown_out

from folkmoot.core.events import PromptAnswered
from folkmoot.core.ids import JobId, PromptId, job_id
from folkmoot.core.messages import Answer, Ask, Inference, Poll, Stage, Turn, Undone
from folkmoot.errors import AdmissionError
from folkmoot.node import handshake
from folkmoot.node.admission import read_invitation
from folkmoot.node.config import split_address
from folkmoot.node.handshake import NEWCOMER, Hello
from folkmoot.node.link import Close


class Tap(asyncio.DatagramProtocol):
    """A wire that somebody listens to: it carries packets to a server and back, and keeps those to the server."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.packets: list[bytes] = []
        self.client: tuple[str, int] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr == self.server:
            if self.client is not None:
                self.transport.sendto(data, self.client)
            return
        self.client = addr
        self.packets.append(data)
        self.transport.sendto(data, self.server)

    def send_again(self) -> None:
        for packet in list(self.packets):
            self.transport.sendto(packet, self.server)


@contextlib.asynccontextmanager
async def tapped(address: str) -> AsyncIterator[tuple[Tap, str]]:
    """A tap before an address, and the address of the tap."""
    loop = asyncio.get_running_loop()
    target = iroh.EndpointTicket.from_string(address).endpoint_addr()
    host, port = split_address(target.direct_addresses()[0])
    transport, tap = await loop.create_datagram_endpoint(
        lambda: Tap((str(host), port)), local_addr=("127.0.0.1", 0)
    )
    own = transport.get_extra_info("sockname")
    moved = iroh.EndpointAddr(target.id(), None, [f"{own[0]}:{own[1]}"])
    try:
        yield tap, str(iroh.EndpointTicket.from_addr(moved))
    finally:
        transport.close()


async def test_a_recorded_connection_sent_again_is_no_connection(lan: Any) -> None:
    server, client = await lan.found(), await lan.member()
    asked: list[Any] = []

    async def serve(device: Any, stream: Any) -> None:
        async for message in stream:
            asked.append(message)
            await stream.send(message)
        await stream.end()

    server.serve = serve
    async with tapped(lan.book[server.id]) as (tap, address):
        lan.book[server.id] = address
        stream = await client.network.open(server.id)
        await stream.send(Poll(JobId("once"), 1))
        await stream.end()
        assert [message async for message in stream] == [Poll(JobId("once"), 1)]
        lan.book[server.id] = server.network.address
        await client.network.close()
        lan.devices.remove(client)
        await lan.until(lambda: not server.network.linked())
        recorded = len(tap.packets)
        assert recorded > 3
        for _ in range(3):
            tap.send_again()
        async with tapped(server.network.address) as (elsewhere, _):
            elsewhere.packets = tap.packets
            elsewhere.send_again()
            await still_serves(lan, server)
    assert client.id not in server.network.linked()
    assert asked.count(Poll(JobId("once"), 1)) == 1


async def test_a_recorded_entry_sent_again_lets_nobody_in(lan: Any) -> None:
    founder = await lan.found()
    invitation = await founder.network.invite()
    asked = read_invitation(invitation)
    async with tapped(asked.address) as (tap, address):
        newcomer = lan.identity()
        async with raw(newcomer, address, NEWCOMER) as connection:
            await say(connection, asked.secret)
            stranger = await connection.open_bi()
            del stranger
            await lan.until(lambda: founder.identity.invitations.admitted)
        before = (founder.identity.home / "invitations.json").read_text()
        for _ in range(3):
            tap.send_again()
        await still_serves(lan, founder)
    assert (founder.identity.home / "invitations.json").read_text() == before
    other = await lan.device()
    with pytest.raises(AdmissionError, match="used up"):
        await other.network.join(invitation)


async def test_a_member_s_hello_is_of_no_use_to_anybody_else(lan: Any) -> None:
    """Byte for byte as it was said, by a stranger, by another member, and back to who has said it."""
    founder, member = await lan.found(), await lan.member()
    recorded = handshake._pack(Hello(member.identity.membership.certificate.to_bytes(), b"i" * 8, 3))
    for thief, victim in (
        (lan.identity(), founder),
        (lan.enrol(lan.identity()), founder),
        (lan.identity(), member),
    ):
        async with raw(thief, lan.book[victim.id]) as connection:
            await say(connection, recorded)
            assert await thrown_out(connection) == Close.STRANGER
    assert not founder.network.linked()


# ---- jobs ----------------------------------------------------------------------------------------------


class Counting(Odd):
    """Counts what it is asked to write."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    async def generate(self, inference: Inference) -> Any:
        self.written += 1
        async with contextlib.aclosing(super().generate(inference)) as pieces:
            async for piece in pieces:
                yield piece


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path / "homes")
    yield made
    for daemon in list(made.running):
        await made.down(daemon)


def question(number: int) -> Ask:
    prompt = PromptId(f"{number:032x}")
    inference = Inference(prompt, (Turn("user", "why?"),), (), 2)
    return Ask(job_id(prompt, 1, 1), prompt, 1, Stage.PROPOSE, inference)


async def put(daemon: Any, to: str, message: Any) -> list[Any]:
    """Say one thing on a stream of its own, and all that comes back."""
    stream = await daemon._network.open(to)
    try:
        await stream.send(message)
        found = []
        async for reply in stream:
            found.append(reply)
            if isinstance(reply, Answer | Undone):
                break
        return found
    finally:
        await stream.cancel()


async def test_a_question_that_is_sent_again_is_answered_again_and_run_once(home: Home) -> None:
    engine = Counting()
    one, two, three = await home.moot(Odd(), engine, Odd())
    target = two.status().device
    first = await put(one, target, question(1))
    again = await put(one, target, question(1))
    assert isinstance(first[-1], Answer)
    assert first[-1] == again[-1]
    assert engine.written == 1
    # In another member's mouth it is that member's own question, and tells nothing of the first one's answer.
    (told_nothing,) = await put(three, target, Poll(question(1).job, 0))
    assert isinstance(told_nothing, Undone)
    assert told_nothing.code == "unknown_job"


async def test_answers_of_a_prompt_that_has_ended_change_nothing(home: Home) -> None:
    one, two = await home.moot(Odd(), Odd())
    prompt = ask(one, mode="fixed", layers=1, proposers=1)
    heard: list[Any] = []
    handle = one._driver.talk._handle  # type: ignore[union-attr]

    def listen(event: Any) -> None:
        heard.append(event)
        handle(event)

    one._driver.talk._handle = listen  # type: ignore[union-attr]
    end = (await told(one, prompt))[-1]
    assert isinstance(end, PromptAnswered)
    assert any(isinstance(event.message, Answer) for event in heard)
    notices = one.watch()
    later = asyncio.ensure_future(anext(notices))
    await asyncio.sleep(0)
    for event in heard:
        handle(event)
    await until(lambda: not two.status().busy)
    assert not one.status().prompts
    fresh = (await told(one, ask(one, mode="local")))[-1]
    assert isinstance(fresh, PromptAnswered)
    assert (await later).prompt == fresh.provenance.id  # type: ignore[union-attr]
    await notices.aclose()
