"""The commands against an API on a real socket, in this process."""

from __future__ import annotations

import asyncio
import io
import json
import re

import pytest

from folkmoot.api.control import make_control_token
from folkmoot.cli import exits, group
from folkmoot.cli.client import RUNNING


@pytest.fixture
async def run(serve, home, control, capsys):
    """Runs a command line against the village; gives (exit code, stdout, stderr)."""
    home.mkdir(mode=0o700)
    (home / RUNNING).write_text(await serve())
    (home / "control.token").write_text(control)
    (home / "control.token").chmod(0o600)

    async def command(*arguments):
        code = await asyncio.to_thread(
            exits.run, lambda: group.main(arguments, prog_name="folkmoot", standalone_mode=False), debug=False
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


async def test_ask_prints_the_answer(run, village):
    assert await run("ask", "Why?") == (0, "The sky is blue.\n", "")
    assert village.prompts[0].plan.mode == "auto"
    assert village.prompts[0].stream


async def test_ask_json_is_one_object(run):
    code, out, err = await run("ask", "--json", "-M", "2", "-k", "2", "Why?")
    answer = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert answer["answer"] == "The sky is blue."
    assert len(answer["jobs"]) == 7
    assert (answer["layers"], answer["proposers"], answer["mode"]) == (2, 2, "fixed")


async def test_ask_explains(run):
    code, out, _ = await run("ask", "--explain", "Why?")
    assert code == 0
    assert "The sky is blue." in out
    for word in ("layer 1", "birch", "cedar", "elm", "aggregate", "tokens/s"):
        assert word in out


async def test_ask_reads_stdin(run, village, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is\na moot?"))
    assert (await run("ask", "-"))[0] == 0
    assert village.prompts[0].conversation[0].content == "What is\na moot?"


async def test_ask_hands_its_flags_on(run, village):
    flags = ["--peers", "2", "--select", "fixed:birch+elm", "--aggregator", "fixed:cedar", "--quorum", "2"]
    assert (await run("ask", *flags, "--deadline", "9", "--max-tokens", "7", "--seed", "1", "Why?"))[0] == 0
    plan = village.prompts[0].plan
    assert (plan.layers, plan.proposers, plan.select) == (1, 2, ("birch", "elm"))
    assert (plan.aggregator, plan.quorum, plan.deadline_s) == ("fixed:cedar", 2, 9.0)
    assert village.prompts[0].sampling.max_tokens == 7
    assert (await run("ask", "--private", "Why?"))[0] == 0
    assert village.prompts[1].plan.mode == "local"


async def test_ask_fails_in_one_line(run, village):
    code, out, err = await run("ask", "--aggregator", "best", "Why?")
    assert (code, out) == (2, "")
    assert err.startswith("folkmoot: folkmoot.aggregator: ")
    assert (await run("ask", "  "))[0] == 2
    for flags in (("--deadline", "nan"), ("--deadline", "0.01"), ("--temperature", "nan")):
        code, _, err = await run("ask", *flags, "Why?")
        assert code == 2
        assert "Traceback" not in err
    village.fail = "overloaded"
    assert await run("ask", "Why?") == (1, "", "folkmoot: told to fail\n")
    village.fail, village.fail_late = "", "answer_cut"
    assert (await run("ask", "Why?"))[0] == 1


async def test_status(run, village, make_member):
    village.members.append(make_member("e", "[red]odd", model=""))
    code, out, _ = await run("status")
    assert code == 0
    for word in ("ash (here)", "birch", "[red]odd", "none", "engine ready"):
        assert word in out
    assert json.loads((await run("status", "--json"))[1])["name"] == "ash"


async def test_invite(run, village):
    code, out, err = await run("invite", "--uses", "3", "--ttl", "7d", "--delegate")
    assert (code, out) == (0, "invitation-3-604800-True\n")
    assert "up --join" in err
    assert json.loads((await run("invite", "--json"))[1])["invitation"] == "invitation-1-86400-False"
    assert (await run("invite", "--ttl", "soon"))[0] == 2
    village.may_invite = False
    assert (await run("invite"))[0] == 1


async def test_no_device_runs(run, home):
    (home / RUNNING).write_text("http://127.0.0.1:1")
    for command in (["ask", "Why?"], ["status"], ["invite"]):
        code, out, err = await run(*command)
        assert (code, out) == (1, "")
        assert "folkmoot up" in err


async def test_something_else_answers(run, home):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 Teapot\r\ncontent-length: 3\r\nconnection: close\r\n\r\ntea")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        (home / RUNNING).write_text(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        code, _, err = await run("status")
    assert code == 1
    assert "not Folkmoot" in err


async def test_config_show(run, home):
    code, out, _ = await run("config", "show")
    assert code == 0
    assert re.search(rf'^home +"{re.escape(str(home))}"  # environment FOLKMOOT_HOME$', out, re.MULTILINE)
    shown = json.loads((await run("config", "show", "--json"))[1])["settings"]
    assert {"name": "api.listen", "value": "127.0.0.1:4150", "origin": "default"} in shown


async def test_models(run):
    code, out, _ = await run("models")
    assert code == 0
    assert "smollm2" in out
    assert {row["name"] for row in json.loads((await run("models", "--json"))[1])["models"]} >= {"smollm2"}
    code, _, err = await run("models", "get", "gpt-9")
    assert (code, "no packaged model" in err) == (2, True)


async def test_doctor(run, home):
    code, out, _ = await run("doctor", "--json")
    found = json.loads(out)
    assert code == 0, out
    assert {check["name"] for check in found["checks"]} >= {
        "python",
        "iroh",
        "cpu",
        "cores",
        "weights",
        "home",
        "port",
    }
    home.chmod(0o755)
    code, out, err = await run("doctor")
    assert code == 1
    assert f"chmod 700 {home}" in out
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ["demo", "--devices", "3", "-k", "3"],
        ["demo", "-M", "0", "-k", "1"],
        ["demo", "--devices", "0"],
        ["up", "--dashboard"],
        ["up", "--admission", "on"],
        ["up", "--api", "nowhere"],
        ["up", "--engine", "magic"],
        ["up", "--name", "moot"],
        ["ask"],
        ["dance"],
    ],
)
async def test_wrong_usage_is_2(run, wrong):
    code, out, err = await run(*wrong)
    assert code == 2, err
    assert err


def test_the_control_token_is_private(tmp_path):
    token = make_control_token(tmp_path)
    assert (tmp_path / "control.token").stat().st_mode & 0o777 == 0o600
    assert make_control_token(tmp_path) == token
    (tmp_path / "control.token").write_text("")
    assert len(make_control_token(tmp_path)) > 30
