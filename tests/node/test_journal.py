from __future__ import annotations

import logging
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from folkmoot.errors import ConfigError, JournalError, JournalFull, Overloaded, PromptInvalid
from folkmoot.node.config import JournalConfig
from folkmoot.node.journal import FILE, SCHEMA, Entry, Journal

SECRET = b"what nobody else shall read " * 50


@pytest.fixture
def journal(tmp_path: Path):
    made = Journal(tmp_path, JournalConfig())
    yield made
    made.close()


def entry(name: str, **more) -> Entry:
    return Entry(**{"id": name, "owner": "", "created": 100.0, "request": b"why?"} | more)


def again(tmp_path: Path, **settings) -> Journal:
    return Journal(tmp_path, JournalConfig(**settings))


def test_what_is_accepted_is_there_for_another_process(journal, tmp_path):
    journal.accept(entry("a"))
    other = again(tmp_path)  # and nothing was closed before: so it is after a kill
    assert other.get("a") == entry("a")
    assert other.unanswered() == [("a", "")]
    other.close()


def test_only_the_first_response_is_kept(journal):
    journal.accept(entry("a"))
    assert journal.finish("a", b"because", 101.0)
    assert not journal.finish("a", b"no, because", 102.0)
    assert journal.get("a") == entry("a", response=b"because", ended=101.0)
    assert journal.unanswered() == []
    assert not journal.finish("never heard of", b"", 103.0)


def test_the_oldest_is_answered_first(journal):
    for name, created in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
        journal.accept(entry(name, created=created))
    assert [name for name, _ in journal.unanswered()] == ["early", "middle", "late"]


def test_a_retry_is_the_same_entry(journal):
    first = journal.accept(entry("a"), "key")
    journal.finish("a", b"because", 101.0)
    assert journal.accept(entry("b"), "key") == entry("a", response=b"because", ended=101.0)
    assert journal.get("b") is None
    assert first.id == "a"
    with pytest.raises(PromptInvalid, match="Idempotency-Key"):
        journal.accept(entry("c", request=b"something else"), "key")
    assert journal.accept(entry("d", owner="somebody else"), "key").id == "d"


def test_so_many_may_wait_and_no_more(tmp_path):
    journal = again(tmp_path, max_open=2)
    journal.accept(entry("a"))
    journal.accept(entry("b"))
    with pytest.raises(Overloaded, match="bound is 2"):
        journal.accept(entry("c"))
    journal.accept(entry("kept", response=b"ended already", ended=100.0))
    journal.finish("a", b"", 101.0)
    journal.accept(entry("c"))
    journal.close()


def test_a_key_may_have_half_of_what_may_wait(tmp_path):
    journal = again(tmp_path, max_open=4)
    for name in ("a", "b"):
        journal.accept(entry(name, owner="greedy"))
    with pytest.raises(Overloaded, match="half of 4"):
        journal.accept(entry("c", owner="greedy"))
    journal.accept(entry("c", owner="modest"))
    journal.accept(entry("d"))
    journal.close()


def test_the_devices_own_user_may_have_all_of_it(tmp_path):
    journal = again(tmp_path, max_open=4)
    for name in "abcd":
        journal.accept(entry(name))
    journal.close()


def test_every_commit_waits_for_the_disk(journal):
    db = journal._opened()
    assert [db.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous")] == [
        ("wal",),
        (2,),
    ]


def test_pruning_takes_what_ended_before_and_leaves_the_open(journal):
    for name, ended in (("old", 10.0), ("new", 20.0)):
        journal.accept(entry(name))
        journal.finish(name, b"", ended)
    journal.accept(entry("open", created=1.0))
    assert journal.prune(20.0) == 1
    assert journal.get("old") is None
    assert journal.get("new") is not None
    assert journal.unanswered() == [("open", "")]


@pytest.mark.parametrize("how", ["one", "all", "pruned"])
def test_forgotten_text_is_in_no_file(journal, tmp_path, how):
    journal.accept(entry("a", request=SECRET))
    journal.note([("a", SECRET)])
    journal.finish("a", SECRET, 1.0)
    journal.accept(entry("b", request=SECRET))
    journal.note([("b", SECRET)])
    journal.forget("b")
    assert any(SECRET[:20] in path.read_bytes() for path in tmp_path.iterdir())
    match how:
        case "one":
            assert journal.forget("a")
        case "all":
            assert journal.forget_all() == 1
        case "pruned":
            assert journal.prune(2.0) == 1
    assert not any(SECRET[:20] in path.read_bytes() for path in tmp_path.iterdir())
    assert not journal.forget("a")


def test_an_answer_that_is_forgotten_meanwhile_stays_forgotten(journal, tmp_path):
    journal.accept(entry("a"))
    other = again(tmp_path)
    assert other.forget_all() == 1
    other.close()
    assert not journal.finish("a", b"because", 101.0)
    assert journal.get("a") is None


def test_forgetting_where_nothing_is_makes_no_file(journal, tmp_path):
    assert journal.forget_all() == 0
    assert journal.prune(1.0) == 0
    assert list(tmp_path.iterdir()) == []


def test_notes_are_there_for_another_process_in_their_order_until_the_end(journal, tmp_path):
    for name in "ab":
        journal.accept(entry(name))
    journal.note([("a", b"first"), ("b", b"other"), ("a", b"second")])
    journal.note([("a", b"third")])
    other = again(tmp_path)
    assert other.notes("a") == [b"first", b"second", b"third"]
    other.close()
    journal.finish("a", b"because", 101.0)
    assert journal.notes("a") == []
    assert journal.notes("b") == [b"other"]


def test_nothing_is_noted_of_what_has_ended_or_is_gone(journal):
    for name in "ab":
        journal.accept(entry(name))
    journal.finish("a", b"because", 101.0)
    journal.forget("b")
    journal.note([(name, SECRET) for name in ("a", "b", "never heard of")])
    assert [journal.notes(name) for name in ("a", "b", "never heard of")] == [[], [], []]


def test_notes_take_no_answers_place(tmp_path):
    journal = again(tmp_path, max_bytes=400_000)
    journal.accept(entry("old", response=b"x" * 50_000, ended=1.0))
    journal.accept(entry("a"))
    for _ in range(10):
        journal.note([("a", b"x" * 20_000)])
    assert 0 < len(journal.notes("a")) < 10
    assert journal.get("old") is not None
    journal.accept(entry("b", request=b"x" * 100_000))
    journal.close()


def test_a_journal_without_notes_gets_them(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as db:
        db.executescript(f"{SCHEMA} PRAGMA user_version = 1;")
        db.execute("INSERT INTO responses (id, owner, created, request) VALUES ('a', '', 100.0, 'why?')")
    db.close()
    journal = again(tmp_path)
    assert journal.unanswered() == [("a", "")]
    journal.note([("a", b"first")])
    journal.close()
    journal = again(tmp_path)
    assert journal.notes("a") == [b"first"]
    journal.close()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_all_files_are_for_their_owner_alone(journal, tmp_path):
    before = os.umask(0)
    try:
        journal.accept(entry("a"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys((FILE, f"{FILE}-wal", f"{FILE}-shm"), 0o600)
    (tmp_path / FILE).chmod(0o644)
    again(tmp_path).open()
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


# ---- bounds and troubles ---------------------------------------------------------------------------


def test_old_answers_make_room_and_young_ones_do_not(tmp_path):
    journal = again(tmp_path, max_bytes=400_000)
    for number in range(40):
        name = f"old{number:02d}"
        more = {"created": 10_000.0, "ended": float(number)}
        journal.accept(entry(name, request=b"x" * 20_000, response=b"", **more))
    first = journal.get("old00")
    journal.accept(entry("now", created=10_000.0, request=b"x" * 20_000, response=b"", ended=9_999.0))
    assert first is None

    def fill() -> None:
        for number in range(40):
            name = f"young{number:02d}"
            journal.accept(entry(name, created=10_000.0, request=b"x" * 20_000, response=b"", ended=9_999.0))

    with pytest.raises(JournalFull, match="bound is 400000"):
        fill()
    assert journal.get("now") is not None
    assert journal.trouble == ""
    journal.close()


def test_a_full_disk_is_told_and_passes(journal, caplog):
    journal.accept(entry("a"))
    db = journal._opened()
    [[pages]] = db.execute("PRAGMA page_count").fetchall()
    db.execute(f"PRAGMA max_page_count = {pages}")
    for name in ("b", "c"):
        with pytest.raises(JournalFull, match="free some space"):
            journal.accept(entry(name, request=SECRET * 20))
    assert journal.trouble == "full"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "nobody else" not in caplog.text
    assert journal.get("a") == entry("a")
    assert journal.trouble == "full"
    db.execute("PRAGMA max_page_count = 1000000")
    assert journal.accept(entry("b", request=SECRET * 20)).id == "b"
    assert journal.trouble == ""


def test_a_damaged_file_is_set_aside_and_the_next_start_makes_a_fresh_one(journal, tmp_path, caplog):
    for number in range(50):
        journal.accept(entry(f"{number}", request=SECRET))
    journal.close()
    data = bytearray((tmp_path / FILE).read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (tmp_path / FILE).write_bytes(data)
    damaged = again(tmp_path)
    for _ in range(2):
        with pytest.raises(JournalError, match="damaged and was set aside"):
            damaged.open()
    with pytest.raises(JournalError):
        damaged.accept(entry("a"))
    assert damaged.trouble == "damaged"
    assert len(caplog.records) == 1
    assert f"{FILE}.damaged1" in caplog.text
    assert "nobody else" not in caplog.text
    assert (tmp_path / f"{FILE}.damaged1").read_bytes() == bytes(data)
    fresh = again(tmp_path)
    assert fresh.accept(entry("a")).id == "a"
    assert fresh.prune(0.0) == 0
    assert (tmp_path / f"{FILE}.damaged1").exists()
    fresh.forget_all()
    assert not (tmp_path / f"{FILE}.damaged1").exists()
    fresh.close()


def test_a_file_that_is_no_journal_is_damage(tmp_path):
    (tmp_path / FILE).write_bytes(b"this is a letter, not a database" * 200)
    with pytest.raises(JournalError, match="damaged"):
        again(tmp_path).open()
    assert (tmp_path / f"{FILE}.damaged1").exists()


def test_forgetting_all_takes_a_damaged_file_along(tmp_path):
    (tmp_path / FILE).write_bytes(SECRET * 10)
    assert again(tmp_path).forget_all() == 0
    assert list(tmp_path.iterdir()) == []


def test_damage_that_is_met_later_is_told_too(tmp_path):
    journal = again(tmp_path)
    for number in range(50):
        journal.accept(entry(f"{number}", request=SECRET))
    journal._opened().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_000)
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("PRAGMA user_version = 1")  # a change, so that the first one reads its pages anew
    other.commit()
    other.close()
    with pytest.raises(JournalError, match="damaged"):
        assert all([journal.get(f"{number}") for number in range(50)])
    assert journal.damaged


def test_a_later_version_is_left_alone(journal, tmp_path, caplog):
    journal.accept(entry("a"))
    journal._opened().execute("PRAGMA user_version = 99")
    journal.close()
    with pytest.raises(JournalError):
        again(tmp_path).open()
    assert "version 99" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_cannot_be_opened_is_told_and_tried_again(journal, tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    with pytest.raises(JournalError, match="cannot be used"):
        journal.open()
    assert journal.trouble == "unusable"
    assert "cannot be written" in caplog.text
    (tmp_path / FILE).rmdir()
    assert journal.accept(entry("a")).id == "a"
    assert journal.trouble == ""


@pytest.mark.parametrize("name", ["retention_days", "max_bytes", "max_open"])
def test_bounds_are_above_nothing(name):
    with pytest.raises(ConfigError, match=name):
        JournalConfig(**{name: 0})
