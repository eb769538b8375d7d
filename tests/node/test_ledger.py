"""What was seen of peers' answers, over a restart."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.test_daemon import Home, Odd, until

from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.peer import PeerConfig
from folkmoot.core.record import Row
from folkmoot.core.repute import Books, Judged, Repute, ReputeConfig, Timed
from folkmoot.core.skill import SkillClass
from folkmoot.errors import NodeError
from folkmoot.node import ledger
from folkmoot.node.daemon import Daemon
from folkmoot.node.ledger import FILE, Ledger

ME, BOB = DeviceId("a" * 64), DeviceId("b" * 64)
KEPT = Ledger(
    1,
    ME,
    1_000.0,
    Books((Judged(BOB, 8.0, 0.5),), (Timed(BOB, 1.0, 2.0, 3),)),
    (Row(BOB, 5, (1.0,) * 6, (2.0,) * 6),),
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path)
    yield made
    for daemon in list(made.running):
        await made.down(daemon)


def harmed(daemon: Daemon, times: int) -> Repute:
    """The daemon's books, with so many harmful answers of a device in them."""
    assert daemon._peer is not None
    for _ in range(times):
        daemon._peer.repute.note(BOB, 1.0, asyncio.get_running_loop().time())
    return daemon._peer.repute


def test_what_is_written_is_read_and_for_its_owner_alone(tmp_path: Path) -> None:
    assert ledger.load(tmp_path, ME) is None
    ledger.write(tmp_path, KEPT)
    assert ledger.load(tmp_path, ME) == KEPT
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    ledger.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"x" * 5_000_000,
        {"version": 2},
        {"device": BOB},
        {"at": -1.0},
        {"books": {"judged": [{"device": BOB, "harm": -1.0, "good": 1.0}], "timed": []}},
        {"books": {"judged": "none"}},
        {"hidden": [{"device": BOB, "model": 5, "right": [3.0] * 6, "total": [2.0] * 6}]},
        {"hidden": [{"device": BOB, "model": 5, "right": [1.0], "total": [2.0]}]},
    ],
)
def test_a_damaged_or_foreign_file_is_set_aside_with_one_line(
    tmp_path: Path, wrong: bytes | dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    ledger.write(tmp_path, KEPT)
    path = tmp_path / FILE
    bent = wrong if isinstance(wrong, bytes) else json.dumps(json.loads(path.read_bytes()) | wrong).encode()
    path.write_bytes(bent)
    with caplog.at_level(logging.WARNING):
        assert ledger.load(tmp_path, ME) is None
    assert len(caplog.records) == 1
    assert "repute.json.damaged" in caplog.text
    assert [each.name for each in tmp_path.iterdir()] == ["repute.json.damaged"]
    caplog.clear()
    assert ledger.load(tmp_path, ME) is None
    assert not caplog.records


async def test_a_shunned_device_stays_shunned_over_a_restart(home: Home) -> None:
    first = await home.up(home.make("ash", Odd()))
    harmed(first, 20)
    await home.down(first)
    second = await home.up(home.make("ash", Odd()))
    assert list(harmed(second, 0).shunned) == [BOB]
    written = (home.folder / "ash" / FILE).stat().st_mtime_ns
    await home.down(second)
    assert (home.folder / "ash" / FILE).stat().st_mtime_ns == written, "nothing was added"


async def test_a_card_that_hidden_questions_disproved_is_not_believed_after_a_restart(home: Home) -> None:
    claim = Card("bob", "m", probes=7, right=(12, *(0,) * 5), total=(12, *(0,) * 5))
    first = await home.up(home.make("ash", Odd()))
    assert first._peer is not None
    for _ in range(9):
        first._peer.audits.record.note(BOB, claim, SkillClass.ARITHMETIC, False, 60)
    await home.down(first)
    second = await home.up(home.make("ash", Odd()))
    assert second._peer is not None
    assert second._peer.audits.doubt(BOB, claim) == "arithmetic 0 of 9 where its card has 12 of 12"
    assert not second._peer.audits.doubt(BOB, replace(claim, model="another"))


async def test_what_was_added_is_written_while_the_device_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("folkmoot.node.ledger.KEEP_S", 0.01)
    daemon = await home.up(home.make("ash", Odd()))
    harmed(daemon, 1)
    await until(lambda: ledger.load(home.folder / "ash", daemon.status().device) is not None)


async def test_a_disk_that_is_full_costs_the_books_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise NodeError("cannot write it")

    monkeypatch.setattr("folkmoot.node.ledger.write", fail)
    daemon = await home.up(home.make("ash", Odd()))
    harmed(daemon, 1)
    await home.down(daemon)
    assert "not kept for the next start" in caplog.text


async def test_books_that_are_off_are_neither_read_nor_written(home: Home) -> None:
    off = PeerConfig(repute=ReputeConfig(enabled=False))
    daemon = await home.up(home.make("ash", Odd(), peer=off))
    harmed(daemon, 20)
    await home.down(daemon)
    assert not (home.folder / "ash" / FILE).exists()
