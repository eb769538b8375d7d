"""Members find, hear and ask each other over real connections on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import iroh
import pytest

from folkmoot.core.gossip import Heard
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.messages import Ask, Cancel, Inference, Piece, Poll, Stage, Turn
from folkmoot.errors import ConfigError, LocalProtocolError, NodeError
from folkmoot.node.config import LinkLimits, NetworkConfig, parse_listen
from folkmoot.node.identity import Identity
from folkmoot.node.link import PeerUnreachable, Stream, StreamCut
from folkmoot.node.memory import Memory
from folkmoot.node.network import Network
from folkmoot.wire import limits

PROMPT = PromptId("a0" * 16)
JOB = JobId(f"{PROMPT}.1.1.0")
ASK = Ask(JOB, PROMPT, 1, Stage.PROPOSE, Inference(PROMPT, (Turn("user", "x" * 2_000),)))
BIG = Piece(JOB, 0, "x" * 200_000)


async def collect(stream: Stream) -> list[Any]:
    return [message async for message in stream]


async def ask(network: Network, to: DeviceId, count: int = 1) -> list[Any]:
    stream = await network.open(to)
    for have in range(count):
        await stream.send(Poll(JOB, have))
    await stream.end()
    return await collect(stream)


# ---- streams and datagrams -------------------------------------------------------------------------


async def test_a_stream_carries_messages_both_ways_in_order(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    assert await ask(two.network, one.id, 200) == [Poll(JOB, have) for have in range(200)]
    # The connection that was dialled serves the other direction as well.
    del lan.book[two.id]
    assert await ask(one.network, two.id) == [Poll(JOB, 0)]


async def test_the_server_knows_who_asks(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    seen: list[DeviceId] = []

    async def note(device: DeviceId, stream: Stream) -> None:
        seen.extend([device, stream.device])
        await stream.end()

    one.serve = note
    assert await ask(two.network, one.id) == []
    assert seen == [two.id, two.id]


async def test_large_messages_arrive_whole(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    stream = await two.network.open(one.id)
    large = Piece(JOB, 0, "ß" * (1 << 19))
    await stream.send(large)
    await stream.end()
    assert await collect(stream) == [large]


async def test_too_large_a_message_leaves_the_connection_alone(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    stream = await two.network.open(one.id)
    with pytest.raises(LocalProtocolError):
        await stream.send(Piece(JOB, 0, "x" * ((1 << 20) + 1)))
    await stream.send(Poll(JOB, 1))
    await stream.end()
    assert await collect(stream) == [Poll(JOB, 1)]
    with pytest.raises(LocalProtocolError, match="ended"):
        await stream.send(ASK)


async def test_datagrams_dial_by_themselves_and_go_both_ways(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    two.network.send_datagram(one.id, Heard(two.id, 7))
    assert await one.heard.get() == (two.id, Heard(two.id, 7))
    one.network.send_datagram(two.id, Heard(one.id, 8))
    assert await two.heard.get() == (one.id, Heard(one.id, 8))
    with pytest.raises(LocalProtocolError, match="1200"):
        two.network.send_datagram(one.id, ASK)


async def test_datagrams_to_nobody_are_dropped_in_silence(lan: Any) -> None:
    one = await lan.found(datagrams_waiting=4)
    one.network.send_datagram(DeviceId("ab" * 32), Heard(one.id, 1))
    silent = lan.identity()
    lan.book[silent.device] = ticket(silent, free_udp_port())
    for age in range(100):
        one.network.send_datagram(silent.device, Heard(one.id, age))
    assert len(one.network._waiting[silent.device]) == 4


async def test_a_reader_that_waits_stops_the_sender(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    go = asyncio.Event()
    read = 0

    async def slow(device: DeviceId, stream: Stream) -> None:
        nonlocal read
        await go.wait()
        async for _ in stream:
            read += 1
        await stream.end()

    one.serve = slow
    sent = 0
    stream = await two.network.open(one.id)

    async def send() -> None:
        nonlocal sent
        for _ in range(40):
            await stream.send(BIG)
            sent += 1
        await stream.end()

    sending = asyncio.ensure_future(send())
    before = -1
    while before != sent:
        before = sent
        await asyncio.wait((sending,), timeout=0.3)
    assert sent * 200_000 < 4_000_000
    go.set()
    await sending
    assert await collect(stream) == []
    assert read == 40


# ---- the end of streams ----------------------------------------------------------------------------


async def test_cancel_reaches_the_server_at_once(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work(device: DeviceId, stream: Stream) -> None:
        await stream.cancelled()
        with pytest.raises(StreamCut):
            await stream.send(ASK)
        with pytest.raises(StreamCut):
            await collect(stream)
        told.set_result("cancelled")

    one.serve = work
    stream = await two.network.open(one.id)
    await stream.send(ASK)
    await stream.cancel()
    assert await told == "cancelled"
    await stream.cancel()
    with pytest.raises(StreamCut):
        await stream.send(ASK)
    assert await ask_nothing(two.network, one) == []


async def ask_nothing(network: Network, one: Any) -> list[Any]:
    """The connection still works after whatever happened to one stream."""

    async def end(device: DeviceId, stream: Stream) -> None:
        await stream.end()

    one.serve = end
    return await ask(network, one.id)


async def test_cancel_ends_a_read_and_a_write_that_are_waiting(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    over = asyncio.Event()

    async def mute(device: DeviceId, stream: Stream) -> None:
        await stream.cancelled()
        over.set()

    one.serve = mute
    stream = await two.network.open(one.id)

    async def flood() -> None:
        while True:
            await stream.send(BIG)

    reading = asyncio.ensure_future(collect(stream))
    writing = asyncio.ensure_future(flood())
    await asyncio.wait((reading, writing), timeout=0.2)
    await stream.cancel()
    for task in (reading, writing):
        with pytest.raises(StreamCut):
            await task
    await over.wait()


async def test_the_server_may_cancel_as_well(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()

    async def refuse(device: DeviceId, stream: Stream) -> None:
        await stream.send(Poll(JOB, 1))
        await stream.cancel()

    one.serve = refuse
    stream = await two.network.open(one.id)
    await stream.send(ASK)
    await stream.cancelled()
    with pytest.raises(StreamCut):
        await collect(stream)


async def test_a_stream_without_its_end_marker_is_not_whole(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()

    async def stop_halfway(device: DeviceId, stream: Stream) -> None:
        await stream.send(Poll(JOB, 1))
        await stream._guard(stream._sender.finish())
        async for _ in stream:
            pass

    one.serve = stop_halfway
    stream = await two.network.open(one.id)
    await stream.send(ASK)
    assert await anext(stream) == Poll(JOB, 1)
    with pytest.raises(StreamCut, match="end marker"):
        await anext(stream)
    await stream.cancel()


async def test_ended_streams_do_not_count_as_cancelled(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    watching: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    async def answer(device: DeviceId, stream: Stream) -> None:
        watch = asyncio.ensure_future(stream.cancelled())
        watching.set_result(watch)
        await collect(stream)
        await stream.send(Poll(JOB, 1))
        await stream.end()
        done, _ = await asyncio.wait((watch,), timeout=0.2)
        assert not done
        watch.cancel()

    one.serve = answer
    assert await ask(two.network, one.id) == [Poll(JOB, 1)]
    with pytest.raises(asyncio.CancelledError):
        await (await watching)


async def test_a_fault_of_ours_cuts_one_stream_only(lan: Any, caplog: pytest.LogCaptureFixture) -> None:
    one, two = await lan.found(), await lan.member()

    async def crash(device: DeviceId, stream: Stream) -> None:
        raise ZeroDivisionError

    one.serve = crash
    with pytest.raises(StreamCut):
        await ask(two.network, one.id)
    await lan.until(lambda: "fault of ours" in caplog.text)
    assert await ask_nothing(two.network, one) == []


async def test_streams_leave_nothing_behind(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    for _ in range(150):
        assert len(await ask(two.network, one.id)) == 1
    assert not two.network._links[one.id].streams
    # The server's last handler may still be on its way out.
    assert len(one.network._links[two.id].streams) <= 1


async def test_streams_at_a_time_are_bounded(lan: Any) -> None:
    one, two = await lan.found(peer=LinkLimits(streams=3)), await lan.member()
    go, running, most = asyncio.Event(), 0, 0

    async def hold(device: DeviceId, stream: Stream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        await stream.end()
        running -= 1

    one.serve = hold
    asks = [asyncio.ensure_future(ask(two.network, one.id)) for _ in range(10)]
    await asyncio.wait(asks, timeout=0.2)
    go.set()
    await asyncio.gather(*asks)
    assert most == 3


# ---- connections -----------------------------------------------------------------------------------


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ticket(identity: Identity, port: int) -> str:
    address = iroh.EndpointAddr(identity.key.public(), None, [f"127.0.0.1:{port}"])
    return str(iroh.EndpointTicket.from_addr(address))


async def test_a_dead_peer_is_given_up_and_not_tried_at_once_again(lan: Any) -> None:
    one = await lan.found(dial_s=0.3)
    dead = lan.enrol(lan.identity())
    lan.book[dead.device] = ticket(dead, free_udp_port())
    attempts = await asyncio.gather(
        *(one.network.open(dead.device) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(error, PeerUnreachable) for error in attempts)
    assert one.network._failures[dead.device].times == 1
    with pytest.raises(PeerUnreachable, match="next try"):
        await one.network.open(dead.device)
    # A new address is tried at once.
    alive = await lan.device(dead)
    assert await ask(one.network, alive.id) == [Poll(JOB, 0)]


async def test_concurrent_dials_share_one_connection(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    answers = await asyncio.gather(*(ask(two.network, one.id) for _ in range(20)))
    assert all(len(answer) == 1 for answer in answers)
    assert len(two.network._all_links()) == len(one.network._all_links()) == 1


@pytest.mark.parametrize("round_number", range(5))
async def test_dials_that_cross_lose_no_stream(lan: Any, round_number: int) -> None:
    one, two = await lan.found(surplus_s=0.0), await lan.member(surplus_s=0.0)
    pairs = [(one.network, two.id), (two.network, one.id)] * 5
    answers = await asyncio.gather(*(ask(network, to, 3) for network, to in pairs))
    assert answers == [[Poll(JOB, have) for have in range(3)]] * 10
    ours, theirs = one.network._links[two.id], two.network._links[one.id]
    assert ours.dialled != theirs.dialled
    assert await ask(one.network, two.id) == await ask(two.network, one.id) == [Poll(JOB, 0)]


async def test_crossed_dials_settle_on_one_connection(lan: Any) -> None:
    one, two = await lan.found(surplus_s=0.0), await lan.member(surplus_s=0.0)
    # Now and then one dial is early enough to make the other one needless.
    while not (one.network._surplus and two.network._surplus):
        one.network.disconnect(two.id)
        await lan.until(lambda: not two.network._all_links())
        await asyncio.gather(ask(one.network, two.id), ask(two.network, one.id))
    await lan.until(lambda: not one.network._surplus and not two.network._surplus)
    assert one.network._links[two.id].dialled != two.network._links[one.id].dialled
    assert await ask(one.network, two.id) == await ask(two.network, one.id) == [Poll(JOB, 0)]
    assert one.lost.empty()


async def test_a_peer_is_found_at_its_new_address(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    assert await ask(one.network, two.id) == [Poll(JOB, 0)]
    before = lan.book[two.id]
    await two.network.close()
    again = await lan.device(two.identity)
    assert lan.book[two.id] != before
    assert await ask(one.network, again.id) == [Poll(JOB, 0)]


async def test_a_restarted_peer_replaces_its_old_connection(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    await ask(one.network, two.id)
    old = one.network._links[two.id]
    # As if by a second process with the same key, while the first one's connection looks alive.
    again = await lan.device(two.identity)
    await ask(again.network, one.id)
    assert one.network._links[two.id] is not old
    assert old.connection.close_reason() is not None


async def test_disconnect_ends_streams_and_is_no_loss_here(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    stream = await two.network.open(one.id)
    await stream.send(ASK)
    assert await anext(stream) == ASK
    one.network.disconnect(two.id)
    with pytest.raises(StreamCut):
        await collect(stream)
    assert await two.lost.get() == one.id
    assert one.lost.empty()
    assert await ask(two.network, one.id) == [Poll(JOB, 0)]


async def test_a_peer_that_goes_in_peace_is_no_loss(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    await ask(two.network, one.id)
    link = one.network._links[two.id]
    await two.network.close()
    await link.connection.closed()
    await lan.until(lambda: not one.network.linked())
    assert one.lost.empty()


async def test_idle_connections_are_closed_by_their_dialler(lan: Any) -> None:
    one, two = await lan.found(), await lan.member(idle_s=0.0)
    await ask(two.network, one.id)
    await one.network._links[two.id].connection.closed()
    await lan.until(lambda: not one.network.linked() and not two.network.linked())
    assert one.lost.empty()
    assert two.lost.empty()


async def test_closing_ends_a_dial_under_way(lan: Any) -> None:
    one = await lan.found(dial_s=30.0)
    dead = lan.identity()
    lan.book[dead.device] = ticket(dead, free_udp_port())
    opening = asyncio.ensure_future(one.network.open(dead.device))
    await asyncio.sleep(0)
    await one.network.close()
    with pytest.raises(PeerUnreachable, match="closed"):
        await opening
    with pytest.raises(PeerUnreachable, match="closed"):
        await one.network.open(dead.device)


async def test_addresses_that_cannot_be_right_are_not_dialled(lan: Any) -> None:
    one, two = await lan.found(), await lan.member()
    address = lan.book[two.id]
    other = lan.identity()
    for text, why in (
        (None, "no address"),
        ("nonsense", "malformed"),
        (lan.book[one.id], "another device"),
        (address.replace(address, str(remote_ticket(two.identity))), "--listen 0.0.0.0:0"),
    ):
        lan.book[two.id] = text
        with pytest.raises(PeerUnreachable, match=why):
            await one.network.open(two.id)
    # The right name at somebody else's address: the key gives it away.
    lan.book[other.device] = ticket(other, two.network.port)
    with pytest.raises(PeerUnreachable):
        await one.network.open(other.device)


def remote_ticket(identity: Identity) -> iroh.EndpointTicket:
    return iroh.EndpointTicket.from_addr(iroh.EndpointAddr(identity.key.public(), None, ["192.0.2.7:4151"]))


# ---- ports and addresses ---------------------------------------------------------------------------


async def test_a_taken_port_is_named(lan: Any) -> None:
    one = await lan.found()
    with pytest.raises(NodeError, match=f"{one.network.port} on 127.0.0.1 is taken.*--listen"):
        await lan.device(listen=f"127.0.0.1:{one.network.port}")


async def test_the_last_port_is_taken_again_if_it_is_free(lan: Any, tmp_path: Path) -> None:
    identity = lan.identity()
    first = await lan.device(identity, memory=Memory.load(identity.home))
    port = first.network.port
    await first.network.close()
    memory = Memory.load(identity.home)
    assert memory.port == port
    second = await lan.device(identity, memory=memory)
    assert second.network.port == port
    third = await lan.device(identity, memory=Memory.load(identity.home))
    assert third.network.port != port
    assert Memory.load(identity.home).port == third.network.port


async def test_a_device_on_loopback_answers_on_loopback_only(lan: Any) -> None:
    one = await lan.found()
    addresses = iroh.EndpointTicket.from_string(lan.book[one.id]).endpoint_addr()
    assert addresses.direct_addresses() == [f"127.0.0.1:{one.network.port}"]
    assert addresses.relay_url() is None
    accepts = one.network._accepts
    assert accepts(parse_listen("127.0.0.9:0")[0])
    assert not any(accepts(parse_listen(text)[0]) for text in ("192.0.2.1:0", "[::1]:0", "[2001:db8::1]:0"))


async def test_a_device_on_the_lan_names_no_address_of_another_family(lan: Any) -> None:
    one = await lan.found(listen="0.0.0.0:0")
    for text in iroh.EndpointTicket.from_string(lan.book[one.id]).endpoint_addr().direct_addresses():
        host, port = parse_listen(text)
        assert host.version == 4
        assert port == one.network.port


async def test_a_device_with_very_many_addresses_names_as_many_as_a_card_holds(lan: Any) -> None:
    one = await lan.found(listen="0.0.0.0:0")
    mine = iroh.EndpointTicket.from_string(lan.book[one.id]).endpoint_addr().id()
    many = [f"192.0.2.{number}:45678" for number in range(1, 100)]

    class Busy:
        def addr(self) -> iroh.EndpointAddr:
            return iroh.EndpointAddr(mine, None, many)

    endpoint, one.network._endpoint = one.network._endpoint, Busy()
    address = one.network._current_address()
    one.network._endpoint = endpoint
    assert len(address) <= limits.TEXTS["Card.address"] < len(address) + 20
    told = iroh.EndpointTicket.from_string(address).endpoint_addr()
    assert set(told.direct_addresses()) == set(
        Busy().addr().direct_addresses()[: len(told.direct_addresses())]
    )


@pytest.mark.parametrize("text", ["", "4151", "host:4151", "127.0.0.1:70000", "127.0.0.1:", "::1:x"])
def test_a_wrong_listen_setting_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_listen(text)


def test_defaults_reach_nobody_else() -> None:
    config = NetworkConfig()
    assert parse_listen(config.listen)[0].is_loopback
    assert config.relays == ()


# ---- a process that dies ---------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from pathlib import Path
from folkmoot.core.messages import Poll
from folkmoot.node.identity import Identity
from folkmoot.node.network import Network, NetworkConfig

async def main(home, parent, address):
    async def serve(device, stream):
        have = 0
        while True:
            await stream.send(Poll("endless", have))
            have += 1
    network = Network(Identity.open(Path(home)), NetworkConfig(), address_of={parent: address}.get,
                      on_datagram=print, on_stream=serve)
    print(await network.start(), flush=True)
    asking = await network.open(parent)
    await asking.send(Poll("asked by the child", 0))
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_process_is_no_end_but_a_cut(lan: Any) -> None:
    """SIGKILL: who asked it sees the cut, and whoever works for it is told to stop."""
    one = await lan.found(dial_s=0.3)
    orphan = lan.enrol(lan.identity())
    asked, stopped = asyncio.Event(), asyncio.Event()

    async def work(device: DeviceId, stream: Stream) -> None:
        asked.set()
        await stream.cancelled()
        stopped.set()

    one.serve = work
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(orphan.home), one.id, lan.book[one.id],
        stdout=asyncio.subprocess.PIPE, env={**os.environ},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        lan.book[orphan.device] = (await child.stdout.readline()).decode().strip()
        await asked.wait()
        stream = await one.network.open(orphan.device)
        await stream.send(Cancel(JOB))
        assert await anext(stream) == Poll(JobId("endless"), 0)
    finally:
        child.kill()
        await child.wait()
    reading = asyncio.ensure_future(collect(stream))
    # Without its process a connection is silent: QUIC would wait 30 s, the member list decides sooner.
    one.network.disconnect(orphan.device)
    with pytest.raises(StreamCut):
        await reading
    await stopped.wait()
    with pytest.raises(PeerUnreachable):
        await one.network.open(orphan.device)
