from __future__ import annotations

import asyncio
import errno
import io
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from folkmoot.__main__ import main
from folkmoot.cli import exits
from folkmoot.cli.signals import ending
from folkmoot.errors import ConfigError, DeadlinePassed, NodeError, Overloaded, PromptInvalid


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NodeError("no port\nat all"), 1, "folkmoot: no port at all\n"),
        (Overloaded("full"), 1, "folkmoot: full\n"),
        (ConfigError("api.listen is 3"), 2, "folkmoot: api.listen is 3\n"),
        (PromptInvalid("n"), 2, "folkmoot: n\n"),
        (click.UsageError("which?"), 2, "folkmoot: which?\n"),
        (click.ClickException("no"), 1, "folkmoot: no\n"),
        (
            DeadlinePassed("it has passed"),
            1,
            "folkmoot: it has passed; raise --deadline, or ask fewer devices with -M or -k\n",
        ),
        (KeyboardInterrupt(), 130, "folkmoot: cancelled\n"),
        (exits.Interrupted("stopped"), 130, "folkmoot: stopped\n"),
        (click.Abort(), 130, "folkmoot: cancelled\n"),
        (asyncio.CancelledError(), 130, "folkmoot: cancelled\n"),
        (click.exceptions.Exit(3), 3, ""),
    ],
)
def test_each_failure_has_its_code_and_one_line(capsys, error, code, said):
    assert exits.run(failing(error), debug=False) == code
    assert capsys.readouterr().err == said


def test_success():
    assert exits.run(lambda: None, debug=False) == 0


def test_debug_shows_where():
    with pytest.raises(NodeError):
        exits.run(failing(NodeError("x")), debug=True)


@pytest.mark.parametrize("end", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interruption_is_told_once(capsys, end):
    """click writes an empty line of its own where it sees KeyboardInterrupt."""

    async def work():
        raise end

    command = click.Command("work", callback=lambda: exits.wait_for(work()))
    assert exits.run(lambda: command.main([], standalone_mode=False), debug=False) == 130
    assert capsys.readouterr().err == "folkmoot: cancelled\n"


def test_an_interruption_while_the_commands_are_loaded_is_one_line_too(capsys, monkeypatch):
    class Loading(types.ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "folkmoot.cli", Loading("folkmoot.cli"))
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().err) == (130, "folkmoot: cancelled\n")


@pytest.mark.parametrize(
    ("unbuffered", "arguments"),
    [
        ("1", ["theory"]),
        ("", ["models", "--json"]),
        ("", ["--help"]),
        ("", ["up", "--engine", "none", "--api", "127.0.0.1:0"]),
    ],
)
def test_a_full_disk_under_what_is_printed_is_one_line(home, monkeypatch, arguments, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "folkmoot", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "folkmoot: what it prints cannot be written: No space left on device; make room, or write elsewhere\n"
    )


def test_a_full_disk_elsewhere_is_not_what_is_printed(capsys):
    with pytest.raises(OSError, match="elsewhere"):
        exits.run(failing(OSError(errno.ENOSPC, "elsewhere")), debug=False)


def test_nobody_is_left_to_tell(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stderr", Closed())
    assert exits.run(failing(exits.Interrupted("stopped")), debug=False) == 130


def test_every_exit_code_has_its_meaning():
    assert set(exits.MEANINGS) == {exits.DONE, exits.INTERRUPTED, *exits.CODES.values()}


def test_a_closed_terminal_ends_a_command_unless_it_is_to_outlive_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert ending() == (signal.SIGTERM, signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert ending() == (signal.SIGTERM,)
    finally:
        signal.signal(signal.SIGHUP, before)
