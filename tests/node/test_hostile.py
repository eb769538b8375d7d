"""Strangers cost little, and a member that sends rubbish is disconnected, without a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import iroh
import pytest

from folkmoot.core.gossip import Card, Heard, Member, Standing, Sync
from folkmoot.core.ids import JobId
from folkmoot.core.messages import Poll
from folkmoot.node import handshake
from folkmoot.node.config import LinkLimits
from folkmoot.node.handshake import MEMBER, Hello
from folkmoot.node.identity import Identity
from folkmoot.node.link import Close, PeerUnreachable, StreamCut, close_code
from folkmoot.wire import encode, frame, limits

SECRET_TEXT = b"nobody-may-log-this"


@asynccontextmanager
async def raw(
    identity: Identity | None, address: str, alpn: bytes = MEMBER
) -> AsyncIterator[iroh.Connection]:
    """A connection made by hand, as a hostile program would."""
    key = identity.key if identity is not None else iroh.SecretKey.generate()
    endpoint = await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr="127.0.0.1:0",
            secret_key=key.to_bytes(),
            relay_mode=iroh.RelayMode.disabled(),
        )
    )
    try:
        yield await endpoint.connect(iroh.EndpointTicket.from_string(address).endpoint_addr(), alpn)
    finally:
        await endpoint.close()


async def say(connection: iroh.Connection, data: bytes) -> iroh.BiStream:
    stream = await connection.open_bi()
    try:
        await stream.send().write_all(data)
        await stream.send().finish()
    except iroh.IrohError:
        # Thrown out already, which is what the tests then look at.
        return stream
    return stream


async def greet(connection: iroh.Connection, identity: Identity) -> None:
    """Pass the handshake with the identity's own, valid certificate."""
    assert identity.membership is not None
    stream = await connection.open_bi()
    hello = Hello(identity.membership.certificate.to_bytes(), b"i" * 8, 0)
    await handshake.send(stream.send(), hello)
    await handshake.receive_hello(stream.recv())


async def thrown_out(connection: iroh.Connection) -> int | None:
    await connection.closed()
    return close_code(connection)


async def still_serves(lan: Any, one: Any) -> None:
    two = await lan.member()
    stream = await two.network.open(one.id)
    await stream.send(Poll(JobId("j"), 1))
    await stream.end()
    assert [message async for message in stream] == [Poll(JobId("j"), 1)]


def hello_of(identity: Identity, certificate_of: Identity) -> bytes:
    assert certificate_of.membership is not None
    return handshake._pack(Hello(certificate_of.membership.certificate.to_bytes(), b"i" * 8, 0))


# ---- strangers -------------------------------------------------------------------------------------


async def test_a_stranger_is_refused_in_both_directions(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    other = await lan.found()
    with pytest.raises(PeerUnreachable, match="does not accept this device"):
        await other.network.open(two.id)
    with pytest.raises(PeerUnreachable, match="does not accept this device"):
        await two.network.open(other.id)
    assert not one.network.linked() + two.network.linked() + other.network.linked()


@pytest.mark.parametrize("kind", ["nothing", "noise", "too long", "no certificate", "another's certificate"])
async def test_bad_hellos_are_answered_with_7(lan: Any, kind: str) -> None:
    one = await lan.found()
    stranger = lan.identity()
    data = {
        "nothing": b"",
        "noise": bytes(range(256)),
        "too long": b"x" * 100_000,
        "no certificate": handshake._pack(Hello(b"", b"i" * 8, 0)),
        "another's certificate": hello_of(stranger, one.identity),
    }[kind]
    async with raw(stranger, lan.book[one.id]) as connection:
        await say(connection, data)
        assert await thrown_out(connection) == Close.STRANGER
    assert one.network.linked() == ()
    await still_serves(lan, one)


async def test_a_false_server_is_not_believed(lan: Any) -> None:
    """At the right address and with the right key, but with a certificate of another moot."""
    one, other = await lan.found(), await lan.found()
    member = await lan.member()
    other.identity.membership, genuine = member.identity.membership, other.identity.membership
    with pytest.raises(PeerUnreachable, match="does not accept|no member"):
        await one.network.open(other.id)
    other.identity.membership = genuine
    assert one.network.linked() == ()


async def test_silent_strangers_are_timed_out(lan: Any) -> None:
    one = await lan.found(handshake_s=0.2)
    async with raw(None, lan.book[one.id]) as connection:
        assert await thrown_out(connection) == Close.STRANGER
    assert not one.network._strangers


async def test_many_silent_strangers_do_not_keep_members_out(lan: Any) -> None:
    one = await lan.found(handshake_s=60.0, strangers=4)
    async with raw(None, lan.book[one.id]) as first:
        others = [raw(None, lan.book[one.id]) for _ in range(6)]
        connections = [await other.__aenter__() for other in others]
        assert await thrown_out(first) == Close.STRANGER
        assert len(one.network._strangers) <= 4
        await still_serves(lan, one)
        for other in others:
            await other.__aexit__(None, None, None)
        assert len(connections) == 6


async def test_an_unknown_protocol_is_refused(lan: Any) -> None:
    one = await lan.found()
    with pytest.raises(iroh.IrohError):
        async with raw(None, lan.book[one.id], b"folkmoot/99"):
            pytest.fail("connected")
    await still_serves(lan, one)


# ---- members that break the protocol ---------------------------------------------------------------

BIG_HEAD = (limits.FRAME_BYTES + 1).to_bytes(4, "big")
RUBBISH = {
    "noise": b"\x00\x00\x00\x20" + SECRET_TEXT + b"\xff" * 20,
    "oversized": BIG_HEAD + SECRET_TEXT,
    "after the end": b"\x00\x00\x00\x00" + SECRET_TEXT,
    "text in a number": b"\x00\x00\x00\x19" + b"\x08\x92\xa1j\xb3" + SECRET_TEXT + b"x",
}


@pytest.mark.parametrize("kind", RUBBISH)
async def test_rubbish_on_a_stream_ends_the_connection(
    lan: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = await lan.found()
    bad = lan.enrol(lan.identity())
    async with raw(bad, lan.book[one.id]) as connection:
        await greet(connection, bad)
        await say(connection, RUBBISH[kind])
        assert await thrown_out(connection) == Close.RUBBISH
    assert one.network.linked() == ()
    assert await one.lost.get() == bad.device
    assert "is disconnected" in caplog.text
    assert SECRET_TEXT.decode() not in caplog.text
    assert "Traceback" not in caplog.text
    # For a while it is not let in again.
    async with raw(bad, lan.book[one.id]) as connection:
        assert await thrown_out(connection) == Close.STRANGER
    lan.book[bad.device] = lan.book[one.id]
    with pytest.raises(PeerUnreachable, match="broke the protocol"):
        await one.network.open(bad.device)
    await still_serves(lan, one)


@pytest.mark.parametrize(
    "data", [b"", SECRET_TEXT, encode(Heard("d", 1)) + b"\x00", encode(Heard("d", 1))[:-1]]
)  # type: ignore[arg-type]
async def test_rubbish_datagrams_end_the_connection(
    lan: Any, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one = await lan.found()
    bad = lan.enrol(lan.identity())
    async with raw(bad, lan.book[one.id]) as connection:
        await greet(connection, bad)
        connection.send_datagram(data)
        assert await thrown_out(connection) == Close.RUBBISH
    assert one.heard.empty()
    assert SECRET_TEXT.decode() not in caplog.text


async def test_nobody_speaks_in_anothers_name(lan: Any) -> None:
    one, two, bad = await lan.found(), await lan.member(), lan.enrol(lan.identity())
    truth = Sync(Member(two.id, 1, Standing.ALIVE, Card("two")), ())
    heard: list[Any] = []

    async def hear(device: Any, stream: Any) -> None:
        heard.extend([message async for message in stream])
        await stream.end()

    one.serve = hear
    stream = await two.network.open(one.id)
    await stream.send(truth)
    await stream.end()
    assert [message async for message in stream] == []
    assert heard == [truth]
    for as_datagram in (True, False):
        one.network._penalties.clear()
        async with raw(bad, lan.book[one.id]) as connection:
            await greet(connection, bad)
            if as_datagram:
                connection.send_datagram(encode(truth))
            else:
                await say(connection, frame(truth))
            assert await thrown_out(connection) == Close.RUBBISH
    assert heard == [truth]


async def test_a_stream_without_an_end_is_ended(lan: Any) -> None:
    one = await lan.found(peer=LinkLimits(stream_bytes=300_000, messages_hz=1e6))

    async def drain(device: Any, stream: Any) -> None:
        async for _ in stream:
            pass

    one.serve = drain
    bad = lan.enrol(lan.identity())
    async with raw(bad, lan.book[one.id]) as connection:
        await greet(connection, bad)
        sender = (await connection.open_bi()).send()
        flood = frame(Poll(JobId("j"), 1)) * 1_000
        flooding = asyncio.ensure_future(endlessly(sender, flood))
        with pytest.raises(iroh.IrohError):
            await flooding
        assert await thrown_out(connection) == Close.RUBBISH


async def endlessly(sender: iroh.SendStream, data: bytes) -> None:
    while True:
        await sender.write_all(data)


async def test_unfinished_messages_are_bounded_over_all_streams(lan: Any) -> None:
    one = await lan.found(peer=LinkLimits(waiting_bytes=1_000_000))
    bad = lan.enrol(lan.identity())
    async with raw(bad, lan.book[one.id]) as connection:
        await greet(connection, bad)
        part = (4_000_000).to_bytes(4, "big") + b"x" * 300_000
        kept = [await say_unfinished(connection, part) for _ in range(5)]
        assert await thrown_out(connection) == Close.RUBBISH
        assert len(kept) == 5


async def say_unfinished(connection: iroh.Connection, data: bytes) -> iroh.BiStream:
    stream = await connection.open_bi()
    try:
        await stream.send().write_all(data)
    except iroh.IrohError:
        return stream
    return stream


async def test_too_many_datagrams_are_dropped_not_punished(lan: Any) -> None:
    one = await lan.found(peer=LinkLimits(datagrams_hz=2.0))
    two = await lan.member()
    await (await two.network.open(one.id)).cancel()
    for age in range(50):
        two.network.send_datagram(one.id, Heard(two.id, age))
    got = [(await one.heard.get())[1] for _ in range(4)]
    assert got == [Heard(two.id, age) for age in range(4)]
    await still_serves(lan, one)
    assert one.heard.qsize() < 40
    assert two.id in one.network.linked()


async def test_a_fast_sender_is_slowed_down(lan: Any) -> None:
    one, two = await lan.found(peer=LinkLimits(messages_hz=200.0)), await lan.member()
    loop = asyncio.get_running_loop()
    stream = await two.network.open(one.id)
    start = loop.time()
    for have in range(450):
        await stream.send(Poll(JobId("j"), have))
    await stream.end()
    assert len([message async for message in stream]) == 450
    # 400 may come at once, the others at 200 per second.
    assert loop.time() - start > 0.2


async def test_a_cut_by_a_raw_peer_is_no_end(lan: Any) -> None:
    """It finishes its stream properly, but without the end marker."""
    one = await lan.found()
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read(device: Any, stream: Any) -> None:
        assert await anext(stream) == Poll(JobId("j"), 1)
        with pytest.raises(StreamCut, match="end marker"):
            await anext(stream)
        seen.set_result("cut")

    one.serve = read
    bad = lan.enrol(lan.identity())
    async with raw(bad, lan.book[one.id]) as connection:
        await greet(connection, bad)
        await say(connection, frame(Poll(JobId("j"), 1)) + frame(Poll(JobId("j"), 2))[:-1])
        assert await seen == "cut"
