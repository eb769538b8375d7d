from __future__ import annotations

import io

from rich.console import Console

from folkmoot.cli.view import Progress


def job(state, characters=0, ahead=0):
    return {
        "type": "job", "id": "p", "job": "p.1.0.0", "layer": 1, "stage": "propose", "device": "a" * 64,
        "name": "ash", "model": "tiny", "state": state, "ahead": ahead, "characters": characters,
    }  # fmt: skip


def test_lines_tell_changes_only():
    now = [0.0]
    progress = Progress(lambda: now[0])
    assert (
        progress.moved({"type": "accepted", "id": "p", "layers": 1, "proposers": 3}) == "asked with M=1 k=3"
    )
    assert progress.moved(job("queued", ahead=2)) == "layer 1 propose ash (tiny): queued, 2 before it"
    assert progress.moved(job("began")) == "layer 1 propose ash (tiny): began"
    now[0] = 8.0
    assert progress.moved(job("writing", 40)) == "layer 1 propose ash (tiny): writing"
    now[0] = 10.0
    assert progress.moved(job("writing", 80)) == ""
    assert progress.moved(job("ok", 80)) == "layer 1 propose ash (tiny): ok after 10.0 s, about 10 tokens/s"


def test_the_aggregation_is_no_layer():
    progress = Progress(lambda: 0.0)
    last = job("began") | {"stage": "aggregate", "layer": 2}
    assert progress.moved(last) == "aggregate ash (tiny): began"
    console = Console(file=io.StringIO(), width=100)
    console.print(progress.render())
    assert "2" not in console.file.getvalue()


def test_one_line_says_who_is_at_work():
    progress = Progress(lambda: 1.0)
    progress.moved(job("asked"))
    assert progress.summary() == "0 of 1 jobs done, waiting for ash"
    progress.moved(job("ok"))
    assert progress.summary() == "1 of 1 jobs done, waiting for the next layer"


def test_the_table_shows_each_job_and_the_answers_end():
    progress = Progress(lambda: 1.0)
    progress.moved(job("queued", ahead=1))
    progress.answer = "The sky\nis blue."
    console = Console(file=io.StringIO(), width=100)
    console.print(progress.render())
    text = console.file.getvalue()
    for word in ("ash", "tiny", "1 before it", "The sky is blue."):
        assert word in text
