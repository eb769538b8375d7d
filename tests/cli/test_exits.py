from __future__ import annotations

import asyncio

import click
import pytest

from folkmoot.cli import exits
from folkmoot.errors import ConfigError, NodeError, Overloaded, PromptInvalid


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
        (click.UsageError("which?"), 2, "Error: which?\n"),
        (click.ClickException("no"), 1, "folkmoot: no\n"),
        (KeyboardInterrupt(), 130, ""),
        (exits.Interrupted(), 130, ""),
        (click.Abort(), 130, ""),
        (asyncio.CancelledError(), 130, ""),
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
