"""The network of the devices: a namespace each, on a bridge that can be cut; or loopback, where that is not allowed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from chaos.hook import VARIABLE

ROOT = Path(__file__).parent.parent
DELAY_S = 0.15
INSIDE = "--inside"
_PORT, _API = 4151, 4150


class Wires(Protocol):
    """Where devices listen, and what can be done to what runs between them."""

    faults: tuple[str, ...]
    delay: str
    module: str
    """What a device runs."""

    def command(self, device: int) -> list[str]:
        """What stands before a device's own command."""
        ...

    def met(self, device: int, name: str) -> None:
        """A device has told its id."""
        ...

    def listen(self, device: int) -> str:
        """HOST:PORT for its peers."""
        ...

    def api(self, device: int) -> str:
        """HOST:PORT for its users."""
        ...

    def part(self, devices: tuple[int, ...]) -> None:
        """Cut these devices off from the others, not from each other; nobody: everybody reaches everybody again."""
        ...

    def slow(self, device: int, *, on: bool) -> None:
        """Let what a device sends take its time, or no longer."""
        ...

    def small_disk(self, home: Path) -> None:
        """Put a home onto a disk of its own that is soon full."""
        ...

    def close(self) -> None:
        """Take that disk away."""
        ...


class Namespaces:
    """A network namespace a device, which dies with this process, as does every mount.

    One wire leads to a bridge, for its peers; a second one to this process alone, for its user. A device that is cut off
    hangs on a second bridge. Its user reaches it all the while.
    """

    faults: tuple[str, ...] = ("part", "slow", "fill")
    module = "folkmoot"

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._disks: list[Path] = []
        for bridge in ("bridge0", "bridge1"):
            _ip("link", "add", bridge, "type", "bridge")
            _ip("link", "set", bridge, "up")
        _ip("addr", "add", "10.77.0.1/24", "dev", "bridge0")
        for number in range(devices):
            self._wire(number)
        self.delay = "netem" if self._qdisc(0, "netem", "delay", "1ms") else "tbf"
        self.slow(0, on=False)

    def _wire(self, number: int) -> None:
        name = f"device{number}"
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        for kind, address in (("peer", f"10.77.0.{10 + number}/24"), ("user", f"10.78.{number}.2/30")):
            _ip("link", "add", f"{kind}{number}", "type", "veth", "peer", "name", kind, "netns", name)
            _ip("-n", name, "addr", "add", address, "dev", kind)
            _ip("-n", name, "link", "set", kind, "up")
        _ip("link", "set", f"peer{number}", "master", "bridge0", "up")
        _ip("addr", "add", f"10.78.{number}.1/30", "dev", f"user{number}")
        _ip("link", "set", f"user{number}", "up")

    def command(self, device: int) -> list[str]:
        return ["nsenter", f"--net=/run/netns/device{device}"]

    def met(self, device: int, name: str) -> None:
        return

    def listen(self, device: int) -> str:
        return f"10.77.0.{10 + device}:{_PORT}"

    def api(self, device: int) -> str:
        return f"10.78.{device}.2:{_API}"

    def part(self, devices: tuple[int, ...]) -> None:
        for number in range(self._devices):
            _ip("link", "set", f"peer{number}", "master", "bridge1" if number in devices else "bridge0")

    def slow(self, device: int, *, on: bool) -> None:
        if not on:
            command = [
                "nsenter",
                f"--net=/run/netns/device{device}",
                "tc",
                "qdisc",
                "del",
                "dev",
                "peer",
                "root",
            ]
            subprocess.run(command, capture_output=True, check=False)
        elif self.delay == "netem":
            self._qdisc(device, "netem", "delay", "150ms", "50ms", "loss", "2%")
        else:  # a line of 300 kbit/s on which a packet may wait for half a second
            self._qdisc(device, "tbf", "rate", "300kbit", "burst", "4kb", "latency", "500ms")

    def _qdisc(self, device: int, *arguments: str) -> bool:
        command = [
            "nsenter",
            f"--net=/run/netns/device{device}",
            "tc",
            "qdisc",
            "replace",
            "dev",
            "peer",
            "root",
        ]
        return subprocess.run([*command, *arguments], capture_output=True, check=False).returncode == 0

    def small_disk(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(home)],
            check=True,
            capture_output=True,
        )
        self._disks.append(home)

    def close(self) -> None:
        for disk in self._disks:
            subprocess.run(["umount", "--lazy", str(disk)], check=False, capture_output=True)


class Loopback:
    """All on 127.0.0.1, with a hook in each device's transport; no disk can be filled here."""

    faults: tuple[str, ...] = ("part", "slow")
    delay = "hook"
    module = "chaos.hook"

    def __init__(self, devices: int, folder: Path) -> None:
        self._folder = folder
        self._ports = _free_ports(2 * devices)
        self._ids: dict[int, str] = {}
        self._cut: tuple[int, ...] = ()
        self._slow: set[int] = set()
        for number in range(devices):
            self._tell(number)

    def command(self, device: int) -> list[str]:
        return ["env", f"{VARIABLE}={self._file(device)}", f"PYTHONPATH={ROOT}{os.pathsep}{ROOT / 'src'}"]

    def met(self, device: int, name: str) -> None:
        self._ids[device] = name

    def listen(self, device: int) -> str:
        return f"127.0.0.1:{self._ports[2 * device]}"

    def api(self, device: int) -> str:
        return f"127.0.0.1:{self._ports[2 * device + 1]}"

    def part(self, devices: tuple[int, ...]) -> None:
        self._cut = devices
        for number in self._ids:
            self._tell(number)

    def slow(self, device: int, *, on: bool) -> None:
        (self._slow.add if on else self._slow.discard)(device)
        self._tell(device)

    def small_disk(self, home: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        return

    def _file(self, device: int) -> Path:
        return self._folder / f"hook{device}.json"

    def _tell(self, device: int) -> None:
        away = device in self._cut
        cut = [name for number, name in self._ids.items() if (number in self._cut) != away]
        fresh = self._file(device).with_suffix(".new")
        fresh.write_text(json.dumps({"cut": cut, "delay_s": DELAY_S if device in self._slow else 0.0}))
        fresh.replace(self._file(device))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def can_have_namespaces() -> bool:
    """Whether this user may have network namespaces and mounts of their own, as root or by a namespace of users."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip", "tc", "mount"))):
        return False
    probe = "mount -t tmpfs tmpfs /run && ip netns add probe && ip link add bridge9 type bridge"
    tried = subprocess.run([*_unshare(), "sh", "-c", probe], capture_output=True, check=False)
    return tried.returncode == 0


def go_inside(arguments: list[str]) -> None:
    """Become the same program in namespaces of its own, of which nothing is left when it ends."""
    again = [*_unshare(), sys.executable, "-m", "chaos", INSIDE, *arguments]
    os.execvp(again[0], again)


def make_namespaces(devices: int) -> Namespaces:
    """The network, inside. `ip` keeps its names below /run, which nobody else need see."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    _ip("link", "set", "lo", "up")
    return Namespaces(devices)


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--net"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
