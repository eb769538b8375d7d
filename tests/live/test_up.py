"""`folkmoot up` as a real process, with an engine that needs no model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

pytestmark = pytest.mark.live

FOLKMOOT = [sys.executable, "-P", "-m", "folkmoot"]


def run(*arguments, **more):
    """A command that ends by itself."""
    return subprocess.run(
        [*FOLKMOOT, *arguments], capture_output=True, text=True, timeout=60, check=False, **more
    )


@pytest.fixture
def start(home):
    """Starts devices with homes of their own; gives (process, ready event)."""
    running = []

    def device(*arguments, at=home):
        command = [*FOLKMOOT, "up", "--json", "--api", "127.0.0.1:0", *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FOLKMOOT_HOME": str(at)},
        )
        running.append(process)
        line = process.stdout.readline()
        assert line, process.stderr.read()
        return process, json.loads(line)

    yield device
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def timed(start, home):
    return start("--name", "ash", "--engine", "timed:det:0")


def test_ready_says_where_it_is(timed, home):
    _, ready = timed
    assert ready["event"] == "ready"
    assert ready["name"] == "ash"
    assert len(ready["device"]) == 64
    assert ready["address"]
    assert ready["invitation"]
    assert httpx.get(f"{ready['api']}/healthz", trust_env=False).json() == {"status": "ready"}
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "control.token").stat().st_mode & 0o777 == 0o600


def test_nothing_that_admits_is_in_the_status(timed):
    _, ready = timed
    assert ready["invitation"] not in httpx.get(f"{ready['api']}/v1/moot", trust_env=False).text


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(timed, home, sent, code):
    process, _ = timed
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said
    assert not (home / "api.url").exists()


def test_commands_find_it(timed):
    answer = run("ask", "--json", "Why?")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["origin"] == "ash"
    assert json.loads(run("status", "--json").stdout)["name"] == "ash"
    invited = run("invite", "--uses", "2")
    assert invited.returncode == 0
    assert invited.stdout.strip()
    private = run("ask", "--private", "--json", "Why?")
    assert len(json.loads(private.stdout)["jobs"]) == 1


def test_a_second_device_in_one_home_is_refused(timed):
    second = run("up", "--engine", "timed:det:0", "--api", "127.0.0.1:0")
    assert second.returncode == 1
    assert "FOLKMOOT_HOME" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_taken_port_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = run("up", "--engine", "timed:det:0", "--api", f"127.0.0.1:{port}")
    assert failed.returncode == 1
    assert str(port) in failed.stderr
    assert "--api" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_used_up_invitation_is_refused(timed, start, home):
    _, ready = timed
    start("--name", "birch", "--engine", "timed:det:0", "--join", ready["invitation"], at=home.with_name("b"))
    environ = {**os.environ, "FOLKMOOT_HOME": str(home.with_name("c"))}
    third = run("up", "--api", "127.0.0.1:0", "--join", ready["invitation"], env=environ)
    assert third.returncode == 1
    assert "Traceback" not in third.stderr


def test_a_later_start_founds_nothing(timed, start):
    process, first = timed
    process.terminate()
    process.communicate(timeout=30)
    _, again = start("--name", "ash", "--engine", "timed:det:0")
    assert again["device"] == first["device"]
    assert "invitation" not in again


def test_it_ends_with_its_parent(home):
    """The parent starts a device, says its pid once it is ready, and is killed."""
    code = (
        "import os, subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-m', 'folkmoot', 'up', '--json', '--engine', 'timed:det:0',"
        " '--api', '127.0.0.1:0', '--with-parent', str(os.getpid())], stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    import psutil

    device = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([device], timeout=30)[1] == []
