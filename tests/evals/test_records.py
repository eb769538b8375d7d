"""Records come back as they were, and a run that was killed loses at most its last line."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from folkmoot.errors import EvalError
from folkmoot.evals.jobs import Job
from folkmoot.evals.lines import pack
from folkmoot.evals.records import LINES, PACKED, SETUP, Record, Records, Setup, begin, load

JOB = Job(1, "propose", "ash", "m", "ok", 20, 4, 9, 1.5, 0.5)
ONE = Record("gsm8k/1", "gsm8k", "auto", "ash", "Answer: 4 ✓", "4.0", True, 0.1, (JOB, JOB), (("k=3", "so"),))
SETUP_OF = Setup(("m",), ("gsm8k:g.jsonl",), 10, 0, 0, 0.0, "folkmoot eval run --model m")
OTHERS = [replace(ONE, task=f"gsm8k/{each}", arm=arm) for each in range(2, 30) for arm in ("single", "auto")]


def test_records_come_back_as_they_were(tmp_path: Path):
    kept = Records.open(tmp_path / "run" / LINES)
    for record in (ONE, *OTHERS):
        kept.add(record)
    again = Records.open(tmp_path / "run" / LINES)
    assert list(again) == list(kept) == load(tmp_path / "run") == [ONE, *OTHERS]
    assert ("gsm8k/1", "auto") in again
    assert ("gsm8k/1", "single") not in again
    assert len(again) == 57


def test_packed_they_are_small_and_the_same_in_any_order(tmp_path: Path):
    pack([*OTHERS, ONE], tmp_path / "a" / PACKED)
    pack([ONE, *OTHERS[::-1]], tmp_path / "b" / PACKED)
    assert (tmp_path / "a" / PACKED).read_bytes() == (tmp_path / "b" / PACKED).read_bytes()
    assert sorted(load(tmp_path / "a"), key=str) == sorted([ONE, *OTHERS], key=str)
    assert (tmp_path / "a" / PACKED).stat().st_size < 2_000
    assert [each.name for each in (tmp_path / "a").iterdir()] == [PACKED]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n"])
def test_an_answer_may_hold_whatever_ends_a_line_somewhere(tmp_path: Path, sign: str):
    odd = replace(ONE, answer=f"one{sign}two\nAnswer: 4")
    kept = Records.open(tmp_path / LINES)
    for record in (odd, *OTHERS):
        kept.add(record)
    assert load(tmp_path) == [odd, *OTHERS]
    pack(kept, tmp_path / "packed" / PACKED)
    assert odd in load(tmp_path / "packed")


@pytest.mark.parametrize("left", [1, 20, -1])
def test_what_was_cut_off_in_the_middle_of_a_line_is_run_again(tmp_path: Path, left: int):
    file = tmp_path / LINES
    kept = begin(tmp_path, SETUP_OF)
    kept.add(ONE)
    whole = file.read_bytes()
    kept.add(OTHERS[0])
    file.write_bytes(file.read_bytes()[: len(whole) + left if left > 0 else left])
    again = begin(tmp_path, SETUP_OF)
    assert list(again) == [ONE]
    again.add(OTHERS[1])
    assert load(tmp_path) == [ONE, OTHERS[1]]


def test_who_only_reads_leaves_alone_the_line_that_a_run_is_writing(tmp_path: Path):
    kept = begin(tmp_path, SETUP_OF)
    kept.add(ONE)
    first = (tmp_path / LINES).read_bytes()
    kept.add(OTHERS[0])
    both = (tmp_path / LINES).read_bytes()
    middle = len(first) + 30
    (tmp_path / LINES).write_bytes(both[:middle])
    assert load(tmp_path) == list(Records.open(tmp_path / LINES)) == [ONE]
    with (tmp_path / LINES).open("ab") as file:
        file.write(both[middle:])
    assert load(tmp_path) == [ONE, OTHERS[0]]


def test_what_a_folder_says_of_its_run_is_whole_at_any_time(tmp_path: Path, monkeypatch):
    begin(tmp_path, SETUP_OF)
    before = (tmp_path / SETUP).read_bytes()

    def full(self: Path, text: str, encoding: str) -> int:
        with self.open("w", encoding=encoding) as file:
            file.write(text[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EvalError, match="No space left"):
        begin(tmp_path, replace(SETUP_OF, prompts=50))
    assert (tmp_path / SETUP).read_bytes() == before


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / LINES).write_text('{"task": 5}\n')
    with pytest.raises(EvalError, match=r"records.jsonl, line 1 is no record"):
        load(tmp_path)
    (tmp_path / LINES).write_bytes(b"\xff\xff\n")
    with pytest.raises(EvalError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(EvalError, match="holds no records.jsonl"):
        load(tmp_path / "none")
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / PACKED).write_bytes(b"nothing of the kind")
    with pytest.raises(EvalError, match="holds no records"):
        load(folder)
    with lzma.open(folder / PACKED, "wt") as file:
        file.write("[]\n")
    with pytest.raises(EvalError, match="line 1 is no record"):
        load(folder)
    with pytest.raises(EvalError, match="cannot be written"):
        Records.open(folder / PACKED / LINES).add(ONE)
