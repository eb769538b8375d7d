"""Device processes for tests: started, asked, watched and taken down."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

FOLKMOOT = [sys.executable, "-P", "-m", "folkmoot"]
STRACE = "strace -D -f -qq -yy -s 0 -e signal=none -e trace=connect,sendto,sendmsg,sendmmsg".split()
"""With -D the device stays our own child; with -yy the other end of a connected socket is shown."""
PATIENCE_S = 40.0


@dataclass
class Device:
    name: str
    home: Path
    process: subprocess.Popen[str]
    ready: dict[str, str]

    @property
    def log(self) -> Path:
        """Its stderr, where it runs with --debug."""
        return self.home.with_suffix(".log")

    @property
    def trace(self) -> Path:
        """What it sends, where its crowd is traced."""
        return self.home.with_suffix(".trace")

    @property
    def api(self) -> str:
        return self.ready["api"]

    def get(self, path: str) -> dict[str, object]:
        return httpx.get(self.api + path, timeout=20, trust_env=False).json()

    def post(self, body: dict[str, object]) -> httpx.Response:
        return httpx.post(self.api + "/v1/chat/completions", json=body, timeout=60, trust_env=False)

    def standing(self) -> dict[str, str]:
        return {row["name"]: row["standing"] for row in self.get("/v1/moot")["members"]}

    def knows(self) -> tuple[int, int]:
        """Devices alive, and those of them with a model."""
        alive = [row for row in self.get("/v1/moot")["members"] if row["standing"] == "alive"]
        return len(alive), sum(1 for row in alive if row["model"])

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "FOLKMOOT_HOME": str(self.home)}
        command = [*FOLKMOOT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


@dataclass
class Crowd:
    """Devices below `root`. Where they are `traced`, strace writes down each call that may send something."""

    root: Path
    traced: bool = False
    devices: list[Device] = field(default_factory=list)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, name: str, engine: str, join: str | None = None, home: str = "", *, debug: bool = False
    ) -> Device:
        return self._ready(name, *self._launch(name, engine, join, home, debug=debug))

    def _launch(
        self, name: str, engine: str, join: str | None, home: str = "", *, debug: bool = False
    ) -> tuple[Path, subprocess.Popen[str]]:
        at = self.root / (home or f"{name}{len(self._processes)}")
        strace = [*STRACE, "-o", str(at.with_suffix(".trace"))] if self.traced else []
        command = [*strace, *FOLKMOOT, *(["--debug"] if debug else []), "up", "--json", "--name", name]
        command += ["--engine", engine, "--api", "127.0.0.1:0", *(["--join", join] if join else [])]
        with contextlib.ExitStack() as files:
            log = files.enter_context(at.with_suffix(".log").open("w")) if debug else subprocess.PIPE
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={"FOLKMOOT_NODE__SKILL__ENABLED": "false", **os.environ, "FOLKMOOT_HOME": str(at)},
            )
        self._processes.append(process)
        return at, process

    def _ready(self, name: str, at: Path, process: subprocess.Popen[str]) -> Device:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (
            process.stderr.read() if process.stderr is not None else at.with_suffix(".log").read_text()
        )
        self.devices.append(Device(name, at, process, json.loads(line)))
        return self.devices[-1]

    def form(self, engines: dict[str, str]) -> list[Device]:
        first, *others = engines.items()
        founder = self.start(*first)
        told = founder.cli("invite", "--uses", str(max(1, len(others))), "--json")
        invitation = json.loads(told.stdout.splitlines()[-1])["invitation"]
        launched = [(name, *self._launch(name, engine, invitation)) for name, engine in others]
        made = [founder, *(self._ready(*each) for each in launched)]
        models = sum(1 for engine in engines.values() if engine != "none")
        for device in made:
            until(lambda d=device: d.knows() == (len(engines), models))
        return made

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()


def until(what: Callable[[], bool]) -> None:
    """Look again until it is so; the pause between looks is no measure of anything."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        with contextlib.suppress(TimeoutError):
            time.sleep(0.05)


def say(text: str, **more: object) -> dict[str, object]:
    return {"model": "moot", "messages": [{"role": "user", "content": text}], **more}
