"""A moot of four real processes on loopback: asked on each device, by foreign clients, and while devices die."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import openai
import pytest
from tests.live.crowd import FOLKMOOT, Crowd, Device, say, until

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("four")]


def test_each_device_in_turn_is_asked_and_answers(four: list[Device]) -> None:
    for device in four:
        told = device.post(say("who is there?", folkmoot={"layers": 1, "proposers": 3})).json()
        jobs = told["folkmoot"]["jobs"]
        assert told["folkmoot"]["origin"] == device.name
        assert [job["outcome"] for job in jobs] == ["ok"] * 5
        assert {job["device"] for job in jobs} == {"ash", "birch", "cedar", "elm"}
        assert told["usage"]["completion_tokens"] == sum(job["tokens_out"] for job in jobs)
        assert told["folkmoot"]["final"]["completion_tokens"] == jobs[-1]["tokens_out"]
        assert told["usage"]["prompt_tokens"] == sum(job["tokens_in"] for job in jobs)


def test_same_model_gives_different_proposals(four: list[Device]) -> None:
    texts = {
        device.post(say("speak", model="local", seed=number)).json()["choices"][0]["message"]["content"]
        for number, device in enumerate(four)
    }
    assert len(texts) == 4


def test_original_mixture_of_agents_by_the_command_line(four: list[Device]) -> None:
    asked = four[0].cli(
        *("ask", "--json", "-M", "3", "-k", "2", "--select", "fixed:birch+cedar"),
        *("--aggregator", "fixed:elm", "what is it?"),
    )
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout.splitlines()[-1])
    places = [(job["layer"], job["stage"], job["device"]) for job in told["jobs"]]
    three = ("ash", "birch", "cedar")
    stages = {1: "propose", 2: "refine", 3: "refine"}
    assert places == [(j, stages[j], d) for j in (1, 2, 3) for d in three] + [(4, "aggregate", "elm")]
    assert {job["outcome"] for job in told["jobs"]} == {"ok"}


def test_official_client(four: list[Device]) -> None:
    with openai.OpenAI(base_url=four[1].api + "/v1", api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(model="moot-M1-k2", messages=messages)
        assert whole.choices[0].message.content
        assert whole.choices[0].finish_reason in ("stop", "length")
        stream = client.chat.completions.create(
            model="moot-M1-k2", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        deltas = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
        assert len(deltas) >= 2  # 0.3 s of writing in several pieces, not one
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens > 0
        assert "moot" in {model.id for model in client.models.list()}
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-9", messages=messages)


@pytest.mark.parametrize("stream", [False, True])
def test_curl(four: list[Device], stream: bool) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is needed: apt install curl"
    body = json.dumps(say("hello", stream=stream, folkmoot={"layers": 1, "proposers": 1}))
    done = subprocess.run(
        [
            curl,
            "-sN",
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
            four[2].api + "/v1/chat/completions",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if stream:
        lines = [line for line in done.stdout.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        assert len(lines) > 4
    else:
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_bad_requests_and_long_prompts(four: list[Device]) -> None:
    url = four[0].api + "/v1/chat/completions"
    headers = {"Content-Type": "application/json"}
    broken = httpx.post(url, content=b'{"model":', headers=headers, trust_env=False)
    assert broken.status_code == 400
    wrong = four[0].post(say("x", temperature="hot"))
    assert wrong.status_code == 400
    assert "temperature" in wrong.json()["error"]["message"]
    long = four[0].post(say("word " * 6000))
    assert long.status_code == 413
    unknown = four[0].post(say("x", folkmoot={"select": "fixed:nobody", "layers": 1}))
    assert unknown.status_code == 404


# ---- faults ------------------------------------------------------------------------------------------


def slow_moot(crowd: Crowd, more: int = 0) -> list[Device]:
    names = ("ash", "birch", "cedar", "elm")[: 3 + more]
    return crowd.form({name: "timed:det:0.3" if name != "birch" else "timed:det:600" for name in names})


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_peer_that_dies_or_freezes_while_it_writes(crowd: Crowd, sign: signal.Signals) -> None:
    ash, birch, cedar = slow_moot(crowd)
    body = say(
        "hold on",
        stream=True,
        folkmoot={"layers": 1, "proposers": 1, "select": "fixed:birch", "progress": True},
    )
    told: dict[str, object] = {}
    with httpx.stream(
        "POST", ash.api + "/v1/chat/completions", json=body, timeout=90, trust_env=False
    ) as reply:
        struck = False
        for line in reply.iter_lines():
            if not struck and "birch" in line and '"writing"' in line:
                birch.process.send_signal(sign)
                struck = True
            if line.startswith("data: {") and '"jobs"' in line:
                told = json.loads(line[6:])["folkmoot"]
    assert struck
    outcomes = {(job["device"], job["outcome"]) for job in told["jobs"]}
    assert outcomes & {("birch", "late"), ("birch", "failed")}, "cedar is asked before the death is known"
    assert told["rounds"][0]["stood_in"] == {"birch": "cedar"}
    until(lambda: cedar.standing()["birch"] != "alive")
    if sign is signal.SIGSTOP:
        birch.process.send_signal(signal.SIGCONT)
        until(lambda: cedar.standing()["birch"] == "alive" and ash.standing()["birch"] == "alive")
        until(lambda: birch.get("/v1/moot")["busy"] == 0)  # nobody waits for that job any more


def test_a_job_that_a_quorum_cuts_off_is_paid_for_too(crowd: Crowd) -> None:
    ash, birch, _ = slow_moot(crowd)
    answer = ash.post(say("what does it cost?", folkmoot={"layers": 1, "proposers": 2, "quorum": 2})).json()
    jobs = answer["folkmoot"]["jobs"]
    (late,) = [job for job in jobs if job["outcome"] == "late"]
    assert late["device"] == "birch"
    assert late["tokens_in"] == 4, "it had read the question, and wrote its first word a second later"
    assert answer["usage"]["prompt_tokens"] == sum(job["tokens_in"] for job in jobs)
    until(lambda: birch.get("/v1/moot")["busy"] == 0)


def test_client_that_goes_away_cancels_everywhere(crowd: Crowd) -> None:
    ash, birch, _ = slow_moot(crowd)
    body = say(
        "hold on",
        stream=True,
        folkmoot={"layers": 1, "proposers": 1, "select": "fixed:birch", "progress": True},
    )
    with httpx.stream(
        "POST", ash.api + "/v1/chat/completions", json=body, timeout=90, trust_env=False
    ) as reply:
        for line in reply.iter_lines():
            if "birch" in line and '"writing"' in line:
                break
    until(lambda: birch.get("/v1/moot")["busy"] == 0 and ash.get("/v1/moot")["prompts"] == 0)


def test_origin_that_dies_leaves_no_work_behind(crowd: Crowd) -> None:
    ash, birch, _ = slow_moot(crowd)
    body = say(
        "hold on",
        stream=True,
        folkmoot={"layers": 1, "proposers": 1, "select": "fixed:birch", "progress": True},
    )
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream(
            "POST", ash.api + "/v1/chat/completions", json=body, timeout=90, trust_env=False
        ) as reply,
    ):
        for line in reply.iter_lines():
            if "birch" in line and '"writing"' in line:
                ash.process.kill()
    until(lambda: birch.get("/v1/moot")["busy"] == 0)


def test_restart_at_a_new_port_finds_the_moot_without_an_invitation(crowd: Crowd) -> None:
    ash, birch, cedar = slow_moot(crowd)
    cedar.process.send_signal(signal.SIGTERM)
    cedar.process.communicate(timeout=30)
    until(lambda: ash.standing().get("cedar") != "alive")
    memory = cedar.home / "memory.json"
    stored = json.loads(memory.read_text())
    memory.write_text(json.dumps({**stored, "port": 0}))
    again = crowd.start("cedar", "timed:det:0", home=cedar.home.name)
    assert "invitation" not in again.ready
    assert again.ready["address"] != cedar.ready["address"]
    for device in (ash, birch):
        until(lambda d=device: d.knows() == (3, 3))
    told = ash.post(say("again", folkmoot={"layers": 1, "select": "fixed:cedar"})).json()
    assert {job["device"] for job in told["folkmoot"]["jobs"]} == {"ash", "cedar"}


def test_two_devices_of_one_name(crowd: Crowd) -> None:
    ash = crowd.start("ash", "timed:det:0")
    told = json.loads(ash.cli("invite", "--uses", "2", "--json").stdout.splitlines()[-1])
    for _ in range(2):
        crowd.start("twin", "timed:det:0", told["invitation"])
    until(lambda: len([m for m in ash.get("/v1/moot")["members"] if m["standing"] == "alive"]) == 3)
    asked = ash.cli("ask", "--select", "fixed:twin", "who?")
    assert asked.returncode == 2
    assert asked.stderr.count("twin~") == 2
    assert len(asked.stderr.strip().splitlines()) == 1


def test_requester_asks_and_is_answered(crowd: Crowd) -> None:
    devices = crowd.form({"ash": "timed:det:0", "req": "none", "elm": "timed:det:0"})
    told = devices[1].post(say("who?", folkmoot={"layers": 1, "proposers": 1})).json()["folkmoot"]
    assert told["origin"] == "req"
    assert "req" not in {job["device"] for job in told["jobs"]}
    assert [job["stands_in_for"] for job in told["jobs"] if "stands_in_for" in job] == ["req", "req"]


def test_unreachable_engine_is_told_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*FOLKMOOT, "up", "--engine", "openai:http://127.0.0.1:9/v1#m", "--api", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FOLKMOOT_HOME": str(tmp_path / "home")},
        check=False,
    )
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
