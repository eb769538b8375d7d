"""Real processes that are told to end: by Ctrl-C, by whoever manages them, by a terminal that is closed."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest
from filelock import FileLock

pytestmark = pytest.mark.live

FOLKMOOT = [sys.executable, "-m", "folkmoot"]
TIMED = ["--engine", "timed:det:0"]


@pytest.fixture(autouse=True)
def signals():
    """A shell that runs tests in the background has them ignore these, and children inherit that."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def start():
    running = []

    def command(*arguments):
        pipe = subprocess.PIPE
        process = subprocess.Popen([*FOLKMOOT, *arguments], stdout=pipe, stderr=pipe, text=True)
        running.append(process)
        return process

    yield command
    for process in running:
        process.kill()
        process.communicate()


def test_a_device_whose_output_nobody_reads_goes_on(start, home):
    process = start("up", *TIMED, "--api", "127.0.0.1:0")
    process.stdout.close()
    process.stdout = None
    while not (home / "moot.json").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("sent", "code", "last"),
    [(signal.SIGHUP, 0, "folkmoot: stopping; "), (signal.SIGINT, 130, "folkmoot: stopped\n")],
)
def test_a_device_leaves_its_home_in_order(start, home, sent, code, last):
    process = start("up", *TIMED, "--api", "127.0.0.1:0")
    for line in process.stderr:
        if "who reads a prompt" in line:
            break
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "stopping" in said
    assert said.splitlines(keepends=True)[-1].startswith(last)
    assert not (home / "api.url").exists()
    with FileLock(home / "up.lock", timeout=0):
        pass


@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGINT])
def test_a_demo_leaves_nothing(start, tmp_path, monkeypatch, sent):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = start("demo", "--devices", "2", "--engine", "timed:det:60")
    for line in process.stdout:
        if "asked with" in line:
            break
    devices = psutil.Process(process.pid).children(recursive=True)
    assert [each.cmdline()[-2:] for each in devices if "birch" in each.cmdline()] == [["--join", "-"]]
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "folkmoot: cancelled\n")
    assert psutil.wait_procs(devices, timeout=30)[1] == []
    assert list(tmp_path.iterdir()) == []
