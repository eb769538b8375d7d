"""Calls are kept by their content, and come back as they were."""

from __future__ import annotations

import lzma
import sqlite3
from pathlib import Path

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.store import Call, Store, asked, key_of

ASKED = {"model": "m", "messages": [{"role": "user", "content": "2 + 2 är?"}], "max_tokens": 9, "seed": 5}
CALL = Call(ASKED, "Answer: 4 ✓", True, 12, 6, 1.25, 0.5)


def test_what_is_kept_is_found_by_its_content_alone(store: Store):
    store.keep(CALL)
    assert store.find(ASKED) == CALL
    assert store.find({**ASKED, "stream": True, "stream_options": {"include_usage": True}}) == CALL
    assert store.find({"seed": 5, "max_tokens": 9, "messages": ASKED["messages"], "model": "m"}) == CALL
    assert len(store) == 1


@pytest.mark.parametrize(
    "other",
    [{"seed": 6}, {"seed": None}, {"model": "n"}, {"max_tokens": 8}, {"temperature": 0.0}, {"top_p": 0.9},
     {"stop": ["."]}, {"messages": [{"role": "system", "content": "2 + 2 är?"}]}],
)  # fmt: skip
def test_anything_that_decides_the_answer_makes_another_call(store: Store, other: dict):
    store.keep(CALL)
    assert store.find({**ASKED, **other}) is None


def test_of_two_with_the_same_content_the_first_is_kept(store: Store):
    store.keep(CALL)
    store.keep(Call(ASKED, "another", False, 1, 1, 1.0, 1.0))
    assert [call.text for call in store] == [CALL.text]


def test_what_is_not_set_is_as_if_it_were_not_there():
    assert key_of({**ASKED, "stop": None}) == key_of(ASKED)
    assert asked({**ASKED, "stop": None, "stream": True}) == ASKED
    assert CALL.key == key_of(ASKED)


def test_a_written_store_is_read_back_whole_elsewhere(store: Store, tmp_path: Path):
    others = [Call({**ASKED, "seed": seed}, f"text {seed}", False, 1, 2, 3.5, 0.25) for seed in range(20)]
    for call in others:
        store.keep(call)
    assert store.write(tmp_path / "deep/calls.jsonl.xz") == 20
    assert not list(tmp_path.glob("deep/*.part"))
    elsewhere = Store(tmp_path / "other.sqlite")
    elsewhere.keep(others[3])
    assert elsewhere.read(tmp_path / "deep/calls.jsonl.xz") == 20
    assert [elsewhere.find(call.request) for call in others] == others
    assert "är" not in lzma.decompress((tmp_path / "deep/calls.jsonl.xz").read_bytes()).decode(), (
        "no words of the tasks"
    )
    assert elsewhere.write(tmp_path / "again.xz") == 20
    last = Store(tmp_path / "last.sqlite")
    assert last.read(tmp_path / "again.xz") == 20
    assert [last.find(call.request) for call in others] == others
    last.close()
    elsewhere.close()


@pytest.mark.parametrize("act", [
    lambda store: store.keep(CALL), lambda store: store.find(ASKED), len, list,
])  # fmt: skip
def test_what_the_base_cannot_do_is_told_with_what_to_do(store: Store, tmp_path: Path, act):
    """A full disk, a file that another process holds, one that is damaged."""
    store.close()
    with pytest.raises(EvalError, match=r"calls.sqlite: the calls cannot be read or kept .*; make room"):
        act(store)


def test_a_store_that_another_process_holds_is_told(store: Store, tmp_path: Path):
    store._base.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(tmp_path / "calls.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(EvalError, match="locked"):
        store.keep(CALL)
    other.execute("ROLLBACK")
    other.close()
    store.keep(CALL)
    assert len(store) == 1


def test_a_store_outlives_its_process(tmp_path: Path):
    store = Store(tmp_path / "deep/calls.sqlite")
    store.keep(CALL)
    store.close()
    again = Store(tmp_path / "deep/calls.sqlite")
    assert list(again) == [CALL]
    again.close()


def test_files_of_others_are_refused(tmp_path: Path, store: Store):
    (tmp_path / "text").write_text("no database at all, but some words long enough to be read as one")
    with pytest.raises(EvalError, match="text is no store of calls"):
        Store(tmp_path / "text")
    base = sqlite3.connect(tmp_path / "phone.sqlite")
    base.execute("CREATE TABLE calls (number TEXT)")
    base.close()
    with pytest.raises(EvalError, match=r"phone.sqlite is no store of calls"):
        Store(tmp_path / "phone.sqlite")
    with pytest.raises(EvalError, match="is no store of calls"):
        Store(tmp_path / "text/below")
    with pytest.raises(EvalError, match="is no file of calls"):
        store.read(tmp_path / "text")
    with pytest.raises(EvalError, match="is not there"):
        store.read(tmp_path / "nothing")
    with lzma.open(tmp_path / "odd.xz", "wt") as file:
        file.write('{"text": "half a call"}\n')
    with pytest.raises(EvalError, match=r"odd.xz, line 1 is no call"):
        store.read(tmp_path / "odd.xz")
