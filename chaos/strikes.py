"""What a fault does, from its beginning to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import iroh

from chaos.clients import Clients
from chaos.devices import Device
from chaos.history import History
from chaos.plan import Fault
from chaos.wires import Wires
from folkmoot.node.handshake import MEMBER

BURST = 40
STRANGERS = 8
CONNECTIONS = 150
FILLER = "filler"
DAMAGES = (b"", b"{", b"\x00" * 400, b'{"version":1,"incarnation":-1}', b"\xff\xfe" * 64, b"[]")

Up = Callable[[Device], None]


class Strikes:
    """Carries faults out; `up` is called with each device that was started again."""

    def __init__(
        self, devices: Sequence[Device], wires: Wires, clients: Clients, history: History, seed: int, up: Up
    ) -> None:
        self._devices = devices
        self._wires = wires
        self._clients = clients
        self._history = history
        self._rng = Random(f"strikes {seed}")
        self._up = up

    async def strike(self, fault: Fault) -> None:
        """Carry one fault out, and what ends it."""
        doing: dict[str, Callable[[Fault, Device], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "corrupt": self._corrupt,
            "freeze": self._freeze,
            "fill": self._fill,
            "slow": self._slow,
            "garbage": self._garbage,
            "flood": self._flood,
            "burst": self._burst,
        }
        if fault.kind == "part":
            self._note(fault)
            self._wires.part(fault.devices)
            await asyncio.sleep(fault.seconds)
            self._wires.part(())
        else:
            device = self._devices[fault.devices[0]]
            async with (
                device.turn if fault.kind not in ("garbage", "flood", "burst") else contextlib.nullcontext()
            ):
                self._note(fault)
                await doing[fault.kind](fault, device)
        self._history.note("over", kind=fault.kind, devices=fault.devices)

    async def rehearse(self, device: Device) -> None:
        """The worst of its surroundings once, before anything counts: noise and a flood while it stands still."""
        await asyncio.gather(
            *(each(Fault(0.0, "", (), 1.0), device) for each in (self._freeze, self._garbage, self._flood))
        )

    def _note(self, fault: Fault) -> None:
        self._history.note(
            "fault",
            kind=fault.kind,
            devices=fault.devices,
            seconds=round(fault.seconds, 3),
            due=round(fault.at, 3),
        )

    # ---- a device goes and comes -------------------------------------------------------------------

    async def _kill(self, fault: Fault, device: Device) -> None:
        await device.kill()
        await asyncio.sleep(fault.seconds)
        await self._start(device)

    async def _stop(self, fault: Fault, device: Device) -> None:
        await device.stop()
        await asyncio.sleep(fault.seconds)
        await self._start(device)

    async def _corrupt(self, fault: Fault, device: Device) -> None:
        """What it remembers of the others is damaged while it is down."""
        await device.kill()
        damage = self._rng.choice(DAMAGES)
        (device.home / "memory.json").write_bytes(damage)
        await asyncio.sleep(fault.seconds)
        await self._start(device)

    async def _start(self, device: Device) -> None:
        await device.start()
        self._up(device)

    async def _freeze(self, fault: Fault, device: Device) -> None:
        device.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            device.signal(signal.SIGCONT)

    # ---- its surroundings --------------------------------------------------------------------------

    async def _fill(self, fault: Fault, device: Device) -> None:
        filler = device.home / FILLER
        try:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            await asyncio.sleep(fault.seconds)
        finally:
            filler.unlink(missing_ok=True)

    async def _slow(self, fault: Fault, device: Device) -> None:
        self._wires.slow(device.number, on=True)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._wires.slow(device.number, on=False)

    # ---- what strangers send -----------------------------------------------------------------------

    async def _garbage(self, fault: Fault, device: Device) -> None:
        """Noise in both ports: datagrams that are none of QUIC's or look like its first one, and bad HTTP."""
        for _ in range(10):
            self._datagrams(device, 20)
            await asyncio.gather(*(self._say(device, self._bad_request()) for _ in range(5)))
            await asyncio.sleep(fault.seconds / 10)

    async def _flood(self, fault: Fault, device: Device) -> None:
        """Many connections that say half a request and wait; strangers that knock and say nothing; datagrams without end."""
        held = [asyncio.ensure_future(self._hold(device, fault.seconds)) for _ in range(CONNECTIONS)]
        held += [asyncio.ensure_future(self._knock(device, fault.seconds)) for _ in range(STRANGERS)]
        for _ in range(20):
            self._datagrams(device, 150)
            await asyncio.sleep(fault.seconds / 20)
        await asyncio.gather(*held, return_exceptions=True)

    async def _burst(self, fault: Fault, device: Device) -> None:
        for _ in range(BURST):
            self._clients.ask(device.number)

    def _datagrams(self, device: Device, count: int) -> None:
        host, _, port = self._wires.listen(device.number).rpartition(":")
        rng = self._rng
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            for _ in range(count):
                head = rng.choice((b"", b"\xc3\x00\x00\x00\x01\x08", b"\x40", b"\xe0\x00\x00\x00\x00"))
                with contextlib.suppress(OSError):
                    out.sendto(head + rng.randbytes(rng.choice((0, 1, 20, 1_194))), (host, int(port)))

    def _bad_request(self) -> bytes:
        rng = self._rng
        return rng.choice(
            (
                rng.randbytes(200),
                b"GET / HTTP/9.9\r\n\r\n",
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(100),
            )
        )

    async def _say(self, device: Device, data: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                reader, writer = await self._connect(device)
                try:
                    writer.write(data)
                    await writer.drain()
                    await reader.read(200)
                finally:
                    writer.close()

    async def _hold(self, device: Device, seconds: float) -> None:
        with contextlib.suppress(OSError):
            _, writer = await self._connect(device)
            try:
                writer.write(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
                )
                await asyncio.sleep(seconds)
            finally:
                writer.close()

    async def _connect(self, device: Device) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._wires.api(device.number).rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _knock(self, device: Device, seconds: float) -> None:
        """A stranger's connection, with a key that no member has."""
        async with device.client(5.0) as http:
            address = (await http.get("/v1/moot")).json()["address"]
        endpoint = await iroh.Endpoint.bind(
            iroh.EndpointOptions(
                preset=iroh.preset_minimal(),
                bind_addr="0.0.0.0:0",
                secret_key=iroh.SecretKey.from_bytes(os.urandom(32)).to_bytes(),
                relay_mode=iroh.RelayMode.disabled(),
            )
        )
        try:
            async with asyncio.timeout(seconds):
                await endpoint.connect(iroh.EndpointTicket.from_string(address).endpoint_addr(), MEMBER)
                await asyncio.sleep(seconds)
        except (TimeoutError, iroh.IrohError):
            return
        finally:
            await endpoint.close()
