"""Recorded jobs, found again by what a live moot asks of its engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from folkmoot.core.mixture import seed_of
from folkmoot.errors import EvalError
from folkmoot.evals.draws import seed_for
from folkmoot.evals.jobs import Job
from folkmoot.evals.records import Record
from folkmoot.evals.replay import Recorded, replayed, shared
from folkmoot.evals.store import Call, Speed

NAMES = ("ash", "birch", "cedar", "elm")
MODELS = ("large", "middling", "small", "small")


def record(task: str = "gsm8k/1", arm: str = "M2-k1") -> Record:
    """Layers of two; each job's seconds are its own."""
    jobs = [(1, "propose", 3), (1, "propose", 0), (2, "refine", 3), (2, "refine", 1), (3, "aggregate", 3)]
    made = tuple(
        Job(layer, stage, NAMES[device], MODELS[device], "ok", 20, 0, 5, float(10 * layer + device), 1.0)
        for layer, stage, device in jobs
    )
    return Record(task, "gsm8k", arm, "elm", "4", "4", True, 0.0, made)


def asks(model: str, layer: int, place: int, some: Record) -> Mapping[str, Any]:
    (task,) = replayed([some])
    seed = seed_of(seed_for(some.task), layer, place)
    before = {"role": "system", "content": "You are given answers."}
    return {
        "model": model,
        "messages": [before, {"role": "user", "content": f"x {task.question} y"}],
        "seed": seed,
    }


def seconds(calls: Recorded, model: str, layer: int, place: int, some: Record) -> float:
    call = calls.find(asks(model, layer, place, some))
    assert call is not None
    return call.inference_s


def test_a_job_takes_what_the_one_in_its_place_of_its_layer_took():
    some = record()
    calls = Recorded([some, record("gsm8k/2")])
    assert [
        seconds(calls, "small", 1, 0, some),
        seconds(calls, "large", 1, 1, some),
        seconds(calls, "small", 2, 0, some),
        seconds(calls, "middling", 2, 1, some),
        seconds(calls, "small", 3, 0, some),
    ] == [13.0, 10.0, 23.0, 21.0, 33.0]


def test_where_peers_were_drawn_anew_a_job_takes_what_its_model_took_in_that_layer():
    some, other = record(), record("gsm8k/2")
    jobs = tuple(
        replace(job, model="large", inference_s=77.0) if job.layer == 2 else job for job in other.jobs
    )
    calls = Recorded([some, replace(other, jobs=jobs)])
    assert seconds(calls, "small", 2, 1, some) == 23.0
    # In this prompt the large one had nothing to do in the second layer, in the other one it had.
    assert seconds(calls, "large", 2, 1, some) == 77.0
    with pytest.raises(EvalError, match="no recorded job of layer 2"):
        calls.find(asks("unheard-of", 2, 1, some))
    # A device alone has the seed of its own draft.
    alone = record(arm="single")
    assert seconds(Recorded([alone]), "small", 9, 9, alone) == 33.0


def test_words_are_of_the_recorded_length_and_never_the_same_and_nothing_else_is_answered():
    some = record()
    calls = Recorded([some])
    bodies = [asks("small", 1, 0, some), asks("small", 2, 0, some)]
    texts = [call.text for call in map(calls.find, bodies) if call is not None]
    assert [len(text.split()) for text in texts] == [5, 5]
    assert texts[0] != texts[1]
    assert calls.find(asks("small", 1, 0, record("gsm8k/3"))) is None
    assert calls.find({"model": "small", "messages": [{"role": "user", "content": "Who are you?"}]}) is None
    with pytest.raises(EvalError):
        calls.keep(Call({}, "", False, 0, 0, 0.0, 0.0))


def test_arms_are_replayed_on_the_prompts_that_all_of_them_answered():
    one = [record(f"gsm8k/{n}", "single") for n in range(5)]
    other = [record(f"gsm8k/{n}", "M1-k1") for n in (4, 3, 2, 9)]
    failed = Record("gsm8k/1", "gsm8k", "M1-k1", "elm", "", "", False, 0.0, error="too_long")
    found = shared([*one, *other, failed], ["single", "M1-k1"], None)
    assert {arm: [each.task for each in some] for arm, some in found.items()} == {
        "single": ["gsm8k/2", "gsm8k/3", "gsm8k/4"],
        "M1-k1": ["gsm8k/2", "gsm8k/3", "gsm8k/4"],
    }
    assert len(shared([*one, *other], ["single"], 2)["single"]) == 2
    with pytest.raises(EvalError, match="M1-k1, single"):
        shared([*one, *other], ["M1-k3"], None)
    with pytest.raises(EvalError, match="no prompt"):
        shared([*one, record("bbh/1", "M1-k1")], ["single", "M1-k1"], None)


def test_a_record_at_a_speed_takes_what_its_tokens_take():
    some = record().at({"small": Speed(10.0, 5.0)})
    assert [(job.first_token_s, job.inference_s) for job in some.jobs[:2]] == [(2.0, 3.0), (1.0, 10.0)]
    assert record().at({}) == record()
