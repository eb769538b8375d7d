"""What a demo shows, on a terminal and off it."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest
from rich.console import Console

from folkmoot.cli.client import Api
from folkmoot.cli.console import console, counted
from folkmoot.cli.demo import Asked, _ask, _show
from folkmoot.cli.village import DeviceProcess
from folkmoot.errors import NodeError

ANSWER = "a  word\tof [markup] and " + "very " * 100 + "many more"


class OneDevice:
    """As much of a village as a prompt needs."""

    name = "ash"

    def __init__(self, url):
        self.url = url
        self.devices = [self]

    def client(self):
        return Api(self.url, "")


def asked(prompt="Why?"):
    return Asked(prompt, ("timed:det:0",), 1, 3, 16, None, as_json=False)


async def test_the_last_frame_does_not_hold_the_answer(serve):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    end = await _ask(OneDevice(await serve()), asked(), screen)
    assert end.answer["answer"] == "The sky is blue."
    frames = screen.file.getvalue().split("\x1b[2K")
    assert "aggregate" in frames[-1] or "propose" in frames[-1]
    assert "The sky" not in frames[-1]


async def test_lines_off_a_terminal_are_not_wrapped(serve):
    screen = Console(file=io.StringIO(), width=40)
    await _ask(OneDevice(await serve()), asked("Why? " * 40), screen)
    assert screen.file.getvalue().splitlines()[0] == "asking ash: " + "Why? " * 40


def test_a_pipe_gets_the_answer_as_it_is(capsys):
    _show({"answer": ANSWER}, console())
    assert capsys.readouterr().out == f"\n{ANSWER}\n\n"


def test_a_terminal_gets_it_between_its_margins(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _show({"answer": ANSWER}, Console(width=60))
    said = capsys.readouterr().out
    assert "[markup]" in said
    assert max(len(line) for line in said.splitlines()) <= 60


@pytest.mark.parametrize(("log", "said"), [("folkmoot: no engine\n", "no engine"), ("", "it said nothing")])
async def test_a_device_that_did_not_start_is_told_once(tmp_path, log, said):
    process = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
    device = DeviceProcess("ash", tmp_path / "ash", "none", process)
    device.log.write_text(log)
    with pytest.raises(NodeError, match=f"^device ash did not start: {said}$"):
        await device.ready()
    await process.wait()


def test_one_is_not_many():
    assert [counted(number, "device") for number in (0, 1, 2)] == ["0 devices", "1 device", "2 devices"]
