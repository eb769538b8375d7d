"""Real processes that are told to end: by Ctrl-C, by whoever manages them, by a terminal that is closed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from folkmoot.cli import exits, group

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
        process = subprocess.Popen(
            [*FOLKMOOT, *arguments], stdout=pipe, stderr=pipe, text=True, process_group=0
        )
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


def simulated(said: str) -> dict:
    """What `simulate --json` printed, without its two times."""
    found = json.loads(said)
    return {name: value for name, value in found.items() if name not in ("wall_s", "inferences_per_s")}


def wait_for_the_first(process) -> None:
    for line in process.stderr:
        if re.match(r"[1-9]\d* of ", line):
            return
    pytest.fail("it ended before it had anything to say")


def let_in(port: int) -> bool:
    """Whether a server takes somebody without a certificate; a page that is not there says nothing."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            if plain.recv(100).startswith(b"HTTP/1.1 404 "):
                return False
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            anyone.wrap_socket(plain) as asking,
        ):
            asking.recv(1)
    except ssl.SSLError as error:
        return error.reason != "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    return True


@pytest.mark.xdist_group("clusters")
@pytest.mark.parametrize(
    ("backend", "sent"),
    [("threads", signal.SIGTERM), ("ray", signal.SIGINT), ("dask", signal.SIGTERM)],
)
def test_a_simulation_keeps_what_is_done_and_leaves_nothing(
    start, tmp_path, monkeypatch, capsys, backend, sent
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = ["simulate", "--load", "0.5", "--horizon", "100000", "--workers", "2", "--json"]
    process = start(*asked, "--reps", "2000", "--backend", backend)
    wait_for_the_first(process)
    workers = psutil.Process(process.pid).children(recursive=True)
    serving = [worker for worker in workers if worker.name().startswith("ray::PoolActor")]
    assert len(serving) == (2 if backend == "ray" else 0)
    lines = " ".join(part for worker in workers for part in worker.cmdline())
    folders = set(re.findall(r"/tmp/folkmoot-ray-\w+", lines))
    assert len(folders) == (backend == "ray")
    for each in (psutil.Process(process.pid), *workers):
        for connection in each.net_connections("inet"):
            assert connection.laddr.ip.removeprefix("::ffff:") in ("127.0.0.1", "::1")
            if backend == "dask" and connection.status == psutil.CONN_LISTEN:
                assert not let_in(connection.laddr.port)
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    found = simulated(out)
    assert 1 <= found["reps"] < 2000
    last = f"folkmoot: interrupted: the result is of the {found['reps']} of 2000 replications that were done"
    assert last in said.splitlines()  # Ray may say more
    assert "Traceback" not in said
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(folder).exists() for folder in folders)
    again = [*asked, "--reps", str(found["reps"])]
    exits.run(lambda: group.main(again, standalone_mode=False), debug=True)
    assert simulated(capsys.readouterr().out) == found


@pytest.mark.xdist_group("clusters")
def test_where_a_worker_dies_what_is_done_is_kept(start):
    asked = ["simulate", "--load", "0.5", "--horizon", "100000", "--reps", "2000", "--workers", "2", "--json"]
    process = start(*asked, "--backend", "ray")
    wait_for_the_first(process)
    workers = psutil.Process(process.pid).children(recursive=True)
    next(each for each in workers if each.name().startswith("ray::PoolActor")).kill()
    out, said = process.communicate(timeout=60)
    assert process.returncode == 1
    done = simulated(out)["reps"]  # Ray tells it on stdout if it is let
    assert 1 <= done < 2000
    assert [line for line in said.splitlines() if line.startswith("folkmoot: ")] == [
        "folkmoot: a worker of the cluster died, or cannot be reached; "
        f"the result is of the {done} of 2000 replications that were done"
    ]
    assert "Traceback" not in said
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@pytest.mark.xdist_group("clusters")
def test_dask_s_workers_find_the_same(start, capsys):
    asked = ["simulate", "--load", "0.5", "--horizon", "500", "--reps", "4", "--workers", "2", "--json"]
    out, said = start(*asked, "--backend", "dask").communicate()
    assert [line for line in said.splitlines() if "replications" not in line] == []
    exits.run(lambda: group.main(asked, standalone_mode=False), debug=True)
    assert simulated(capsys.readouterr().out) == simulated(out)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_sweep_keeps_every_row_that_it_told(start, tmp_path, capsys, sent, code):
    from pyarrow import parquet

    asked = ["sweep", "-k", "1", "--out", str(tmp_path), "--plot", "none", "--reps", "2", "--load", "0.5"]
    process = start(*asked, "-n", "2,3,20000")
    told = [process.stdout.readline() for _ in range(2)]
    process.send_signal(sent)
    out, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert [line[:3] for line in told] == ["n=2", "n=3"]
    assert parquet.read_table(tmp_path / "sweep.parquet")["n"].to_pylist() == [2, 3]
    if sent is signal.SIGINT:
        assert out == f"2 rows: {tmp_path}/sweep.parquet\n"
        assert said.splitlines()[-1].endswith(
            f"2 of 3 questions are in {tmp_path}/sweep.parquet; the same command does the rest"
        )
    assert exits.run(lambda: group.main([*asked, "-n", "3,2"], standalone_mode=False), debug=True) == 0
    again = capsys.readouterr()
    assert again.err.count("2 of 2 questions are in") == 1
    assert again.out.splitlines() == [
        *(f"{line.rstrip()} (from the file)" for line in reversed(told)),
        f"2 rows (2 from the file): {tmp_path}/sweep.parquet",
    ]
