"""`folkmoot leave`, on a home of its own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from folkmoot.cli import exits, group
from folkmoot.cli.up import home_of
from folkmoot.core.ids import DeviceId
from folkmoot.core.repute import Books
from folkmoot.node import ledger
from folkmoot.node.identity import Identity
from folkmoot.node.memory import Memory


@pytest.fixture
def founded(home: Path) -> Identity:
    identity = Identity.open(home)
    identity.found("ash's moot", 1_000.0)
    identity.invitations.add(b"x" * 16, uses=1, expires_at=2_000, delegate=False, now=1_000.0)
    memory = Memory.load(home)
    memory.remember(DeviceId("b" * 64), "somewhere")
    memory.save()
    ledger.write(home, ledger.Ledger(1, identity.device, 1_000.0, Books()))
    return identity


def run(*arguments: str) -> int:
    return exits.run(lambda: group.main(arguments, prog_name="folkmoot", standalone_mode=False), debug=False)


def test_a_device_that_has_left_is_free_and_itself(founded, home, capsys):
    assert run("leave", "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left"] == "ash's moot"
    after = Identity.open(home)
    assert after.device == founded.device
    assert after.membership is None
    assert not after.invitations.admitted
    assert Memory.load(home).contacts() == ()
    assert ledger.load(home, after.device) is None
    after.found("another", 2_000.0)
    assert after.membership.moot != founded.membership.moot


def test_leaving_is_asked_for_and_may_be_refused(founded, home, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run("leave") == 130
    assert Identity.open(home).membership is not None


def test_a_running_device_does_not_leave(founded, home, capsys):
    with home_of(home):
        assert run("leave", "--yes") == 1
    assert "stop it" in capsys.readouterr().err
    assert Identity.open(home).membership is not None


def test_leaving_makes_no_device_where_none_is(home, capsys):
    assert run("leave", "--yes") == 1
    assert "in no moot" in capsys.readouterr().err
    assert not home.exists()


def test_who_is_in_no_moot_cannot_leave_one(home, capsys):
    Identity.open(home)
    assert run("leave", "--yes") == 1
    assert "in no moot" in capsys.readouterr().err
