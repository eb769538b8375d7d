"""The commands against an API on a real socket, in this process."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from dataclasses import replace

import pytest

from folkmoot.api.control import make_control_token
from folkmoot.cli import exits, group
from folkmoot.cli.client import RUNNING, url_at


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
    for word in ("layer 1", "birch", "cedar", "elm", "aggregate", "tokens/s", "elm says that it is blue."):
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
    assert (await run("ask", "-M", "2", "-k", "3", "--keep", "2", "--early-stop", "Why?"))[0] == 0
    assert (village.prompts[2].plan.keep, village.prompts[2].plan.early_stop) == (2, True)


async def test_a_judge_without_fixed_layers_is_wrong_usage(run, village):
    wrong = (
        ("--keep", "2"),
        ("--early-stop",),
        ("--early-stop", "--mode", "local"),
        ("--keep", "0", "-M", "1"),
    )
    for flags in wrong:
        code, _, err = await run("ask", *flags, "Why?")
        assert (code, village.prompts) == (2, [])
        assert flags[0].removeprefix("--").replace("-", "_") in err


async def test_an_answer_that_was_cut_off_is_told(run, village):
    village.truncated = True
    code, out, err = await run("ask", "Why?")
    assert (code, out) == (0, "The sky is blue.\n")
    assert "cut off where it reached --max-tokens" in err
    assert (await run("ask", "--json", "Why?"))[2] == ""


async def test_ask_fails_in_one_line(run, village):
    assert (await run("ask", "  "))[0] == 2
    for flags in (("--deadline", "nan"), ("--deadline", "0.01"), ("--temperature", "nan")):
        code, _, err = await run("ask", *flags, "Why?")
        assert code == 2
        assert "Traceback" not in err
    _, _, err = await run("ask", "--deadline", "soon", "Why?")
    assert "'soon' is no number in the range 0.05<=x<=86400" in err
    village.fail = "overloaded"
    assert await run("ask", "Why?") == (1, "", "folkmoot: told to fail\n")
    village.fail, village.fail_late = "", "answer_cut"
    assert (await run("ask", "Why?"))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "--aggregator", "best", "Why?"], "'best' is none of origin, strongest or fixed:NAME"),
        (["ask", "--select", "cat", "Why?"], "'cat' is none of uniform, best-of:D or fixed:NAME+NAME"),
        (["ask", "--max-tokens", "999999999", "Why?"], "999999999 is not in the range"),
        (["invite", "--ttl", "0s"], "'0s' is not from 1s to 365d"),
        (["invite", "--ttl", "366d"], "'366d' is not from 1s to 365d"),
        (["ask", "W\udcff?"], "the prompt is not UTF-8 text; convert it first"),
        (["ask", "--model", "\udcff", "Why?"], "a name on the command line is not UTF-8"),
        (["demo", "--engine", "timed:det:0", "W\udcff?"], "the prompt is not UTF-8 text; convert it first"),
        (["demo", "--engine", "timed:det:0", " "], "the prompt is empty"),
        (["demo", "--engine", "none"], "no device has a model"),
        (["demo", "--devices", "1", "--engine", "none", "--engine", "timed:det:0"], "no device has a model"),
        (["demo", "--engine", "magic"], "engine 'magic' is none that exists"),
    ],
)
async def test_what_was_written_wrong_is_told_in_the_commands_own_words(run, village, arguments, said):
    code, out, err = await run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    for foreign in ("regex", "Expected", "Traceback", "$."):
        assert foreign not in err
    assert village.prompts == []


async def test_bytes_on_stdin_that_are_no_text(run, monkeypatch):
    latin = io.TextIOWrapper(io.BytesIO("Größe?".encode("latin1")), "utf-8")
    monkeypatch.setattr("sys.stdin", latin)
    code, _, err = await run("ask", "-")
    assert code == 2
    assert "the prompt is not UTF-8 text" in err


async def test_what_the_moot_decided_is_said_unless_it_was_to_decide(run):
    code, out, err = await run("ask", "-k", "3", "Why?")
    assert (code, out, err) == (0, "The sky is blue.\n", "note: k=3 (it was asked so)\n")
    assert (await run("ask", "Why?"))[2] == ""
    assert (await run("ask", "-k", "3", "--json", "Why?"))[2] == ""
    _, out, err = await run("ask", "-k", "3", "--explain", "Why?")
    assert err == ""
    assert "k=3: it was asked so" in out


async def test_an_unknown_model_is_answered_with_those_that_there_are(run):
    code, _, err = await run("ask", "--model", "nosuch", "Why?")
    assert code == 1
    assert "'nosuch'" in err
    assert "there are: moot, " in err
    assert "birch" in err
    assert "GET" not in err


async def test_status(run, village, make_member):
    village.members.append(make_member("e", "[red]odd", model=""))
    code, out, _ = await run("status")
    assert code == 0
    for word in ("ash (here)", "birch", "[red]odd", "none", "engine ready"):
        assert word in out
    assert json.loads((await run("status", "--json"))[1])["name"] == "ash"
    assert "probes" not in out
    card = village.members[1].card
    probed = replace(card, probes=7, right=(9, 0, 0, 0, 0, 0), total=(12, 0, 0, 0, 0, 0))
    village.members[1] = replace(village.members[1], card=probed)
    assert "birch's model by its probes: arithmetic 9 of 12\n" in (await run("status"))[1]
    village.doubts = ((village.members[1].device, "arithmetic 1 of 9 where its card has 9 of 12"),)
    assert "birch's card is not believed: arithmetic 1 of 9 where" in (await run("status"))[1]


async def test_invite(run, village):
    code, out, err = await run("invite", "--uses", "3", "--ttl", "7d", "--delegate")
    assert (code, out) == (0, "invitation-3-604800-True\n")
    assert "up --join" in err
    assert json.loads((await run("invite", "--json"))[1])["invitation"] == "invitation-1-86400-False"
    assert (await run("invite", "--ttl", "soon"))[0] == 2
    assert json.loads((await run("invite", "--ttl", "1s", "--json"))[1])["ttl_s"] == 1
    village.may_invite = False
    assert (await run("invite"))[0] == 1


async def test_who_may_invite_is_known_by_its_home(run, home):
    url = (home / RUNNING).read_text()
    (home / "control.token").unlink()
    for command in (("invite",), ("rotate",), ("members", "ban", "birch", "--yes")):
        code, out, err = await run(*command)
        assert (code, out) == (1, "")
        assert f"no control token in {home}; set FOLKMOOT_HOME to the home of the device at {url}" in err
    (home / RUNNING).write_text("http://127.0.0.1:1")
    assert "no device answers at http://127.0.0.1:1" in (await run("invite"))[2]


async def test_another_homes_device_is_told(run, home, village, monkeypatch):
    address = (home / RUNNING).read_text().removeprefix("http://")
    second = home / "second"
    second.mkdir(mode=0o700)
    (second / "config.toml").write_text(f'[api]\nlisten = "{address}"\n')
    monkeypatch.setenv("FOLKMOOT_HOME", str(second))
    note = f"no device runs in {second}; another home's answers at http://{address}: set FOLKMOOT_HOME to its home"
    load = ("load", "--rate", "2", "--seconds", "1", "--drain", "0", "--json")

    async def alone(*command):  # it heeds signals, which a thread may not
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    for begin, command in ((run, ("status", "--json")), (run, ("ask", "--json", "Why?")), (alone, load)):
        code, out, err = await begin(*command)
        assert (code, out.count("\n")) == (0, 1)
        assert err.splitlines()[0] == f"folkmoot: {note}"
        assert err.count(note) == 1
    (second / "control.token").write_text("of a device that ran here")
    assert f"no device runs in {second}; set FOLKMOOT_HOME to the home" in (await run("rotate"))[2]
    monkeypatch.setenv("FOLKMOOT_API__LISTEN", address)
    assert (await run("ask", "Why?")) == (0, "The sky is blue.\n", ""), "whoever names it knows of it"


async def test_an_address_that_a_variable_gives_is_the_one_that_is_asked(run, monkeypatch):
    monkeypatch.setenv("FOLKMOOT_API__LISTEN", "127.0.0.1:1")
    code, _, err = await run("status")
    assert code == 1
    assert "http://127.0.0.1:1;" in err
    monkeypatch.setenv("FOLKMOOT_API__LISTEN", "127.0.0.1:0")
    assert (await run("status"))[0] == 0


def test_where_a_client_reaches_an_address():
    assert url_at("0.0.0.0:7") == "http://127.0.0.1:7"
    assert url_at("[::1]:7") == "http://[::1]:7"


async def test_no_device_runs(run, home):
    (home / RUNNING).write_text("http://127.0.0.1:1")
    for command in (["ask", "Why?"], ["status"], ["invite"]):
        code, out, err = await run(*command)
        assert (code, out) == (1, "")
        assert "folkmoot up" in err


@pytest.mark.parametrize("said", [b"418 Teapot", b"200 OK"])
async def test_something_else_answers(run, home, said):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: 3\r\nconnection: close\r\n\r\ntea" % said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        (home / RUNNING).write_text(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        code, _, err = await run("status")
    assert code == 1
    assert "not Folkmoot" in err


async def test_a_device_that_goes_away_in_the_middle(run, home):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\n: \n\n"
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (home / RUNNING).write_text(url)
        found = await run("ask", "Why?")
    told = f"folkmoot: the device at {url} went away in the middle; start it again where it runs no more, and ask again\n"
    assert found == (1, "", told)


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


async def test_doctor_tells_of_a_home_that_is_none(run, home, monkeypatch):
    monkeypatch.setenv("FOLKMOOT_HOME", str(home / RUNNING))
    code, out, _ = await run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 1
    assert checks["home"]["ok"] is False
    assert f"{home / RUNNING} is no folder" in checks["home"]["found"]
    assert "FOLKMOOT_HOME" in checks["home"]["remedy"]
    assert {"python", "cores", "weights", "port"} <= set(checks)
    code, _, err = await run("status")
    assert (code, "is no folder" in err) == (2, True)


async def test_doctor_takes_another_device_for_a_hint(run, home, monkeypatch):
    address = (home / RUNNING).read_text().removeprefix("http://")
    assert f"ok    port: a device of this home serves at http://{address}" in (await run("doctor"))[1]
    monkeypatch.setenv("FOLKMOOT_HOME", str(home / "second"))
    monkeypatch.setenv("FOLKMOOT_API__LISTEN", address)
    code, out, _ = await run("doctor")
    assert code == 0
    assert f"hint  port: {address}: another device runs there; to run one more, give it its own --api" in out


async def test_doctor_takes_a_stranger_for_a_failure(run, home, monkeypatch):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("FOLKMOOT_HOME", str(home / "second"))
        monkeypatch.setenv("FOLKMOOT_API__LISTEN", address)
        code, out, _ = await run("doctor")
    assert code == 1
    assert f"FAIL  port: {address}: Address already in use; choose another with --api" in out


@pytest.mark.parametrize(
    "wrong",
    [
        ["demo", "--devices", "3", "-k", "3"],
        ["demo", "-M", "0", "-k", "1"],
        ["demo", "--devices", "0"],
        ["up", "--dashboard"],
        ["up", "--admission", "maybe"],
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
