"""`folkmoot members` and `folkmoot rotate` against an API in this process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from folkmoot.api.control import FILE
from folkmoot.cli.client import RUNNING
from folkmoot.core.ids import DeviceId


def settle(home: Path, url: str, token: str) -> None:
    home.mkdir(mode=0o700)
    (home / RUNNING).write_text(url)
    (home / FILE).write_text(token)


@pytest.fixture
async def run(serve, home: Path, control):
    """Runs a command against the village; its exit code, stdout and stderr."""
    settle(home, await serve(), control)

    async def command(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "FOLKMOOT_HOME": str(home)},
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    return command


async def test_who_is_in_and_who_shall_be_no_more(run, village):
    code, out, _ = await run("members", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["members"]] == ["ash", "birch", "cedar", "elm"]
    code, out, _ = await run("members", "ban", "birch", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"banned": "b" * 64})
    assert (await run("members", "ban", "birch"))[0] != 0, "nobody has said yes"
    village.banned = (DeviceId("b" * 64), DeviceId("e" * 64))
    found = json.loads((await run("members", "--json"))[1])
    assert [row["standing"] for row in found["members"]] == ["alive", "banned", "alive", "alive"]
    assert found["banned"] == ["b" * 64, "e" * 64]
    _, out, _ = await run("members")
    assert out.count("banned") == 2, "one of them is in the member list, the other is not"
    village.may_invite = False
    code, _, err = await run("members", "ban", "birch", "--yes")
    assert code == 1
    assert "founder" in err


async def test_a_new_root_key(run):
    code, out, _ = await run("rotate", "--grace", "2m", "--json")
    assert (code, json.loads(out)) == (0, {"until": 1_120})
    code, out, _ = await run("rotate")
    assert code == 0
    assert "1970-01-08" in out
    assert (await run("rotate", "--grace", "0"))[0] == 2
