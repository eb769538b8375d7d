"""What a client sees while the moot works: progress, keep-alives, and words as they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from tests.live.crowd import Crowd, Device, say, until

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("four")]


def lines(device: Device, body: dict[str, object]) -> Iterator[str]:
    with httpx.stream(
        "POST", device.api + "/v1/chat/completions", json=body, timeout=60, trust_env=False
    ) as reply:
        assert reply.status_code == 200
        yield from reply.iter_lines()


def test_words_of_the_aggregate_come_while_it_is_written(four: list[Device]) -> None:
    """By order alone: each of several words comes before the job that writes them has ended."""
    seen: list[str] = []
    pieces: list[str] = []
    told: dict[str, object] = {}
    own = {"layers": 1, "proposers": 2, "progress": True}
    for line in lines(four[0], say("well?", stream=True, folkmoot=own)):
        if not line.startswith("data: {"):
            continue
        data = json.loads(line.removeprefix("data: "))
        if data.get("stage") == "aggregate":
            seen.append(data["state"])
        elif data.get("choices") and (text := data["choices"][0]["delta"].get("content")):
            seen.append("words")
            pieces.append(text)
        if "folkmoot" in data:
            told = data["folkmoot"]
    assert seen.index("began") < seen.index("words")
    assert len(seen[: seen.index("ok")]) - seen.index("words") >= 4
    assert seen.count("words") >= 4
    assert "words" not in seen[seen.index("ok") :]
    assert "".join(pieces) == told["answer"]
    final = told["jobs"][-1]
    assert final["first_token_s"] < final["inference_s"]
    assert told["first_token_s"] < told["latency_s"]


def test_progress_tells_every_job_up_to_its_end(four: list[Device]) -> None:
    states: dict[str, list[str]] = {}
    own = {"layers": 2, "proposers": 1, "progress": True}
    event = ""
    for line in lines(four[1], say("well?", stream=True, folkmoot=own)):
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif not line:
            event = ""
        elif event == "folkmoot.progress":
            data = json.loads(line.removeprefix("data: "))
            if "job" in data:
                states.setdefault(data["job"], []).append(data["state"])
    assert len(states) == 5
    for moved in states.values():
        order = list(dict.fromkeys(moved))
        assert order[0] == "asked"
        assert order[-3:] == ["began", "writing", "ok"]


def test_a_quiet_client_gets_comments_while_the_layers_work(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLKMOOT_API__KEEP_ALIVE_S", "0.1")
    ash, _ = crowd.form({"ash": "timed:det:0.6", "birch": "timed:det:0.6"})
    got = list(lines(ash, say("well?", stream=True, folkmoot={"layers": 1, "proposers": 1})))
    first = next(n for n, line in enumerate(got) if line.startswith("data: "))
    assert [line[0] for line in got[:first] if line] == [":"] * (first // 2)
    assert first >= 4
    assert got[-2:] == ["data: [DONE]", ""]


def test_usage_is_the_sum_over_all_jobs(four: list[Device]) -> None:
    with openai.OpenAI(base_url=four[3].api + "/v1", api_key="none", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model="moot-M2-k2",
                messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "well?"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    (told,) = [chunk.model_extra["folkmoot"] for chunk in chunks if "folkmoot" in (chunk.model_extra or {})]
    assert len(told["jobs"]) == 7
    assert usage.completion_tokens == sum(job["tokens_out"] for job in told["jobs"])
    assert usage.prompt_tokens == sum(job["tokens_in"] for job in told["jobs"])
    assert told["final"]["completion_tokens"] == told["jobs"][-1]["tokens_out"] < usage.completion_tokens


def test_a_client_that_leaves_frees_all_devices(crowd: Crowd) -> None:
    devices = crowd.form({name: "timed:det:600" for name in ("ash", "birch", "elm")})
    reading = lines(
        devices[0], say("hold on", stream=True, folkmoot={"layers": 1, "proposers": 2, "progress": True})
    )
    writing: set[str] = set()
    while len(writing) < 3:
        line = next(reading)
        if '"writing"' in line:
            writing.add(json.loads(line.removeprefix("data: "))["name"])
    assert [device.get("/v1/moot")["busy"] for device in devices] == [1, 1, 1]
    reading.close()
    for device in devices:
        until(lambda d=device: d.get("/v1/moot")["busy"] == 0)
    assert devices[0].get("/v1/moot")["prompts"] == 0
