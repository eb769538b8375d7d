"""What a prompt takes by its jobs, counted by hand."""

from __future__ import annotations

import pytest

from folkmoot.evals.jobs import Job, latency_s
from folkmoot.evals.records import Record

AS_WELL = ("elm is asked as well", "those asked so far do not agree")


def job(device: str, seconds: float = 10.0, layer: int = 1, outcome: str = "ok") -> Job:
    return Job(layer, "propose", device, "m", outcome, 1, 0, 1, seconds, 1.0)


def jobs(names: str) -> list[Job]:
    return [job(name) for name in names]


def test_layers_come_after_one_another_and_their_jobs_beside_each_other():
    some = [
        job("ash", 3.0),
        job("birch", 5.0),
        job("elm", 9.0, outcome="cancelled"),
        job("ash", 2.0, layer=2),
    ]
    assert latency_s(some, []) == 7.0
    assert latency_s([job("ash", 2.0)], []) == 2.0
    assert latency_s([], [AS_WELL]) == 0.0


def test_the_jobs_of_one_device_add_up_and_it_reads_the_question_once():
    assert latency_s(jobs("bbbb"), []) == 10.0 + 3 * 9.0
    assert latency_s(jobs("abab"), []) == 10.0 + 9.0


def test_a_wave_begins_when_the_one_before_it_has_ended():
    assert latency_s(jobs("abcd"), [AS_WELL]) == 20.0
    assert latency_s(jobs("aba"), [AS_WELL]) == 10.0 + 9.0  # the third finds the question read
    assert latency_s(jobs("abcd"), [AS_WELL, AS_WELL]) == 30.0
    assert latency_s(jobs("abcd"), [("cid, dot is asked as well", "they do not agree")]) == 20.0
    assert latency_s([*jobs("abcd"), job("a", 5.0, layer=2)], [AS_WELL]) == 25.0


def test_a_judge_comes_behind_its_layer_and_reads_its_answers():
    judge = Job(1, "judge", "a", "m", "ok", 1, 0, 1, 4.0, 3.0)
    assert latency_s([*jobs("abc"), judge, job("a", 5.0, layer=2)], []) == 10.0 + 4.0 + 5.0
    assert latency_s([*jobs("abcd"), judge], [AS_WELL]) == 20.0 + 4.0


def test_a_hedge_is_no_wave():
    hedge = ("elm is asked as well as ash in layer 1", "it has taken 9 s")
    assert latency_s(jobs("abc"), [hedge]) == 10.0


@pytest.mark.parametrize("device", ["a", "b"])
def test_a_record_tells_it_by_its_jobs(device: str):
    record = Record("t/1", "t", "auto", "a", "", "", False, 0.1, (*jobs("a"), *jobs(device)), ())
    assert record.latency_s == (19.0 if device == "a" else 10.0)
