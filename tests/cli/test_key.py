"""`folkmoot key`, on a home of its own."""

from __future__ import annotations

import json

from folkmoot.api.keys import Keys
from folkmoot.cli import exits, group


def run(*arguments: str) -> int:
    return exits.run(lambda: group.main(arguments, prog_name="folkmoot", standalone_mode=False), debug=False)


def test_made_listed_and_revoked(home, capsys):
    assert run("key", "new", "phone", "--per-minute", "30", "--at-once", "2", "--json") == 0
    token = json.loads(capsys.readouterr().out)["key"]
    found = Keys(home).find(token)
    assert (found.name, found.per_minute, found.at_once) == ("phone", 30, 2)
    assert run("key", "list", "--json") == 0
    told = capsys.readouterr().out
    assert [each["name"] for each in json.loads(told)["keys"]] == ["phone"]
    assert found.hash not in told
    assert run("key", "list") == 0
    assert "phone" in capsys.readouterr().out
    assert run("key", "revoke", found.id, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"revoked": "phone", "id": found.id}
    assert Keys(home).find(token) is None


def test_revoking_the_last_key_says_who_may_ask_now(home, capsys, monkeypatch):
    for name in ("phone", "laptop"):
        assert run("key", "new", name) == 0
    capsys.readouterr()
    assert run("key", "revoke", "phone") == 0
    assert capsys.readouterr().err == ""
    assert run("key", "revoke", "laptop") == 0
    told = capsys.readouterr()
    assert told.out == "revoked laptop\n"
    assert "that was the last key: whoever is on this machine may ask" in told.err
    assert run("key", "new", "phone") == 0
    capsys.readouterr()
    monkeypatch.setenv("FOLKMOOT_API__KEYS", "one,two")
    assert run("key", "revoke", "phone") == 0
    assert capsys.readouterr().err == ""


def test_the_key_alone_is_on_stdout(home, capsys):
    assert run("key", "new", "laptop") == 0
    told = capsys.readouterr()
    assert Keys(home).find(told.out.strip()) is not None
    assert "not shown again" in told.err


def test_wrong_names_are_wrong_usage(home, capsys):
    assert run("key", "revoke", "nobody") == 2
    assert "folkmoot key list" in capsys.readouterr().err
    assert run("key", "new", "a b") == 2
