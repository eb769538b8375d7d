"""What the tests of more than one command share."""

from __future__ import annotations

import pytest

from folkmoot.cli import exits, group


@pytest.fixture
def run(home, capsys):
    """`folkmoot eval …` in this process: its exit code and what it wrote to stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = exits.run(lambda: group.main(["eval", *arguments], standalone_mode=False), debug=False)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command
