"""`folkmoot demo` with engines that need no model: real processes, the real network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.live

DEMO = [sys.executable, "-P", "-m", "folkmoot", "demo", "--engine", "timed:det:0"]


def demo(*arguments, command=DEMO):
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Where demos put their homes: nothing may be left there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("layers", "proposers"), [(1, 3), (2, 2), (1, 0)])
def test_the_jobs_are_those_of_the_paper(roots, layers, proposers):
    done = demo("--json", "-M", str(layers), "-k", str(proposers))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (answer["layers"], answer["proposers"], answer["mode"]) == (layers, proposers, "fixed")
    assert len(answer["jobs"]) == (proposers + 1) * layers + 1
    assert {job["outcome"] for job in answer["jobs"]} == {"ok"}
    assert len(answer["devices"]) == 4
    assert [len(each["asked"]) for each in answer["rounds"]] == [proposers + 1] * layers
    assert list(roots.iterdir()) == []


def test_plain_lines_where_there_is_no_terminal(roots):
    done = demo("--devices", "2")
    assert done.returncode == 0, done.stderr
    assert "asked with M=1 k=1" in done.stdout
    assert "layer 1" in done.stdout
    assert "\x1b" not in done.stdout


def test_what_lies_in_the_folder_is_not_run(roots, monkeypatch, tmp_path):
    for module in ("json", "httpx", "folkmoot"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('a file of the folder was run')")
    monkeypatch.chdir(tmp_path)
    done = demo("--devices", "2", "--json")
    assert done.returncode == 0, done.stderr


def test_one_device_answers_alone(roots):
    done = demo("--devices", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["jobs"]) == 1


@pytest.fixture
def interruptible():
    """A shell that runs tests in the background has them ignore SIGINT, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(roots, interruptible, sent):
    process = subprocess.Popen([*DEMO, "--devices", "2"], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "are one moot" in line:
            break
    devices = psutil.Process(process.pid).children(recursive=True)
    assert len(devices) >= 2
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if sent == signal.SIGKILL else 130)
    assert psutil.wait_procs(devices, timeout=30)[1] == []
    if sent != signal.SIGKILL:
        assert list(roots.iterdir()) == []


def test_a_device_that_cannot_start_is_told(roots):
    done = demo("--engine", "openai:http://127.0.0.1:1#none", command=DEMO[:5])
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("folkmoot: ")
    assert "Traceback" not in done.stderr
    assert os.listdir(roots) == []


def test_real_models(roots):
    """Four processes with SmolLM2: all of the paper's jobs, each with words of its own count."""
    done = demo("--small", "--json", "-k", "3", "--max-tokens", "8", "--seed", "1", command=DEMO[:5])
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [job["outcome"] for job in answer["jobs"]] == ["ok"] * 5
    assert {job["model"] for job in answer["jobs"]} == {"SmolLM2-135M-Instruct"}
    assert all(1 <= job["tokens_out"] <= 8 for job in answer["jobs"])
    assert answer["answer"].strip()
    assert list(roots.glob("folkmoot-*")) == []


def test_a_killed_demo_takes_its_models_along(roots):
    process = subprocess.Popen(
        [*DEMO[:5], "--small", "--devices", "2", "--max-tokens", "400"], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "are one moot" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    models = [each for each in family if "folkmoot.engine._child" in each.cmdline()]
    assert len(models) == 2
    process.kill()
    process.communicate(timeout=60)
    assert psutil.wait_procs(family, timeout=30)[1] == []
