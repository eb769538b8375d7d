from __future__ import annotations

import io

import click
import pytest

from folkmoot.cli.up import _announce, _met_others, beginning, exposed, invitation_of
from folkmoot.core.gossip import Standing
from folkmoot.engine.spec import parse_spec
from folkmoot.node.daemon import Ready
from folkmoot.node.identity import Identity


def test_an_invitation_comes_as_an_argument_or_on_stdin(monkeypatch, capsys):
    assert invitation_of("folkmoot1abc") == "folkmoot1abc"
    monkeypatch.setattr("sys.stdin", io.StringIO(" folkmoot1abc \nand more\n"))
    assert invitation_of("-") == "folkmoot1abc"
    for nothing in (io.StringIO("\n"), io.TextIOWrapper(io.BytesIO(b"\xff\n"), "utf-8")):
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(click.UsageError, match="folkmoot invite"):
            invitation_of("-")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("engine", "join", "said"),
    [
        ("embedded:qwen-0.5b", None, "loading qwen-0.5b …"),
        ("embedded", None, "loading the model …"),
        ("embedded:a/b.gguf", "x", "joining the moot of the invitation, then loading a/b.gguf …"),
        ("openai:http://127.0.0.1:1#m", None, "connecting to openai:http://127.0.0.1:1#m …"),
        ("none", "x", "joining the moot of the invitation …"),
        ("timed:det:0", None, ""),
    ],
)
def test_what_takes_a_while_is_said_before(tmp_path, monkeypatch, engine, join, said):
    monkeypatch.setattr("folkmoot.engine.weights.installed", lambda model: None)
    assert beginning(parse_spec(engine), tmp_path, join) == said


def test_the_model_that_will_be_taken_is_named(tmp_path):
    assert beginning(parse_spec("embedded"), tmp_path, None) == "loading qwen-0.5b …"


@pytest.mark.parametrize(
    ("listen", "where"),
    [
        ("127.0.0.1:4150", ""),
        ("localhost:0", ""),
        ("[::1]:4150", ""),
        ("0.0.0.0:4150", "all addresses of this machine"),
        ("[::]:4150", "all addresses of this machine"),
        ("10.0.0.7:4150", "10.0.0.7"),
    ],
)
def test_an_api_that_others_reach_is_told(listen, where):
    said = exposed(listen)
    assert said.startswith(f"the API listens on {where}, by plain HTTP") if where else not said


@pytest.fixture
def announce(village, home, capsys):
    """Has the village's first device say that it is up; gives its stdout."""

    def say(invitation: str | None = None, *, as_json: bool = False, joined: bool = False) -> str:
        _announce(village, Ready("quic:a", invitation), "http://here", as_json, home, joined=joined)
        return capsys.readouterr().out

    return say


def test_a_newcomer_says_where_it_is(announce, village, make_member):
    village.members[1:] = [
        make_member("b", "birch", standing=Standing.SUSPECT),
        make_member("c", "cedar", standing=Standing.DEAD),
    ]
    said = announce(joined=True).splitlines()
    assert said[0] == f"joined {'f' * 32}, 2 devices"
    assert said[1].startswith("ash is up")
    del village.members[1:]
    assert announce(joined=True).startswith(f"joined {'f' * 32}, 1 device\n")


def test_who_may_invite_is_reminded_of_it(announce, home):
    assert "folkmoot invite" not in announce()
    Identity.open(home).found("a moot", 0.0)
    assert "let another device in with: folkmoot invite" in announce()
    assert "let another device in" not in announce("folkmoot1abc")
    assert "let another" not in announce(as_json=True)


async def test_a_newcomer_waits_until_it_has_met_somebody(village, make_member):
    others = village.members[1:]
    del village.members[1:]

    async def watch():
        for other in others:
            village.members.append(other)
            yield other

    village.watch = watch
    await _met_others(village)
    assert len(village.members) == 2
