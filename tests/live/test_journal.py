"""Prompts in the background on real processes: killed, stopped, on a full disk, with a damaged journal."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.live.crowd import Crowd, Device, say, until

pytestmark = pytest.mark.live

BENCH = Path(__file__).parents[2] / "bench" / "journal.py"
SECRET = "the treasure lies under the linden tree"


def ask(device: Device, text: str = SECRET, **more: object) -> httpx.Response:
    body = {"model": "local", "input": text, "background": True, **more}
    return httpx.post(device.api + "/v1/responses", json=body, timeout=30, trust_env=False)


def state(device: Device, name: str) -> str:
    return str(device.get(f"/v1/responses/{name}")["status"])


@pytest.mark.timeout(500)
def test_twenty_kills_lose_nothing_and_answer_nothing_twice() -> None:
    command = [sys.executable, str(BENCH), "--quick", "--json", "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])["journal"]
    assert told["kills"] == 20
    assert told["kills_at_work"] > 0
    assert told["accepted"] > 0
    assert [told[name] for name in ("lost", "changed", "twice", "unkept")] == [0, 0, 0, 0]
    assert not told["failed_by"]


def test_a_killed_device_answers_what_it_owes_when_it_is_started_again(crowd: Crowd) -> None:
    ash = crowd.start("ash", "timed:det:600", home="ash", debug=True)
    names = [ask(ash).json()["id"] for _ in range(3)]
    kept = [ask(ash, f"{number}").json()["id"] for number in range(2)]
    taken = httpx.post(f"{ash.api}/v1/responses/{kept[0]}/cancel", timeout=20, trust_env=False)
    assert taken.json()["status"] == "cancelled"
    until(lambda: state(ash, names[0]) == "in_progress")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in ash.home.glob("journal.db*")}
    assert modes == {0o600}
    ash.process.kill()
    ash.process.wait()
    assert "linden" not in ash.log.read_text()
    ash = crowd.start("ash", "timed:det:0", home="ash", debug=True)
    until(lambda: all(state(ash, name) == "completed" for name in (*names, kept[1])))
    assert state(ash, kept[0]) == "cancelled"
    assert "linden" not in ash.log.read_text()


def test_a_device_that_stops_keeps_what_it_could_not_finish(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLKMOOT_NODE__GRACE_S", "0.5")
    ash = crowd.start("ash", "timed:det:600", home="ash")
    name = ask(ash).json()["id"]
    until(lambda: state(ash, name) == "in_progress")
    ash.process.terminate()
    _, said = ash.process.communicate(timeout=30)
    assert ash.process.returncode == 0
    assert "Traceback" not in said
    ash = crowd.start("ash", "timed:det:0", home="ash")
    until(lambda: state(ash, name) == "completed")


def test_the_moot_is_waited_for_after_a_start(crowd: Crowd) -> None:
    """The prompt names a peer, which the device has not met yet when it is started again."""
    ash, birch = crowd.form({"ash": "timed:det:0", "birch": "timed:det:600"})
    name = ask(ash, model="moot", folkmoot={"layers": 1, "select": "fixed:birch"}).json()["id"]
    until(lambda: state(ash, name) == "in_progress")
    ash.process.kill()
    ash.process.wait()
    birch.process.kill()
    birch.process.wait()
    ash = crowd.start("ash", "timed:det:0", home=ash.home.name)
    birch = crowd.start("birch", "timed:det:0", home=birch.home.name)
    told = ended(name, ash, birch)
    assert [each["asked"] for each in told["folkmoot"]["rounds"]] == [["ash", "birch"]]


def ended(name: str, device: Device, *others: Device) -> dict[str, dict[str, list[dict[str, str]]]]:
    """A response once it has ended, which must be with an answer."""
    until(lambda: state(device, name) not in ("queued", "in_progress"))
    told = device.get(f"/v1/responses/{name}")
    seen = {each.name: each.get("/v1/moot")["members"] for each in (device, *others)}
    assert told["status"] == "completed", json.dumps({"response": told, "members": seen}, indent=1)
    return told  # type: ignore[return-value]


def noted(device: Device) -> int:
    """Answers of layers that are in a device's journal."""
    with closing(sqlite3.connect(device.home / "journal.db", timeout=10)) as db:
        return sum(len(json.loads(note)["proposals"]) for (note,) in db.execute("SELECT note FROM notes"))


@pytest.mark.parametrize("quorum", [0, 2])
def test_jobs_that_peers_have_done_are_not_asked_of_them_again(crowd: Crowd, quorum: int) -> None:
    """Killed while its own job of layer 1 runs or, with a quorum of the two peers, while it aggregates."""
    ash, *peers = crowd.form({"ash": "timed:det:600", "birch": "timed:det:0", "cedar": "timed:det:0"})
    own = {"layers": 1, "proposers": 2, **({"quorum": quorum} if quorum else {})}
    name = ask(ash, model="moot", folkmoot=own).json()["id"]
    until(lambda: noted(ash) == 2)
    assert [peer.get("/v1/moot")["jobs"] for peer in peers] == [1, 1]
    ash.process.kill()
    ash.process.wait()
    ash = crowd.start("ash", "timed:det:0", home=ash.home.name)
    told = ended(name, ash, *peers)["folkmoot"]
    assert [peer.get("/v1/moot")["jobs"] for peer in peers] == [1, 1]
    jobs = [(job["layer"], job["device"], job["outcome"]) for job in told["jobs"]]
    assert sorted(jobs[:2]) == [(1, "birch", "ok"), (1, "cedar", "ok")]
    assert jobs[2:] == [*([] if quorum else [(1, "ash", "ok")]), (2, "ash", "ok")]
    assert any("not asked for again" in each["what"] for each in told["decisions"])
    assert noted(ash) == 0


def test_a_peer_that_was_at_work_when_its_origin_was_killed_does_it_once(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is there before it holds the origin dead, and is kept until that asks again."""
    monkeypatch.setenv("FOLKMOOT_NODE__PEER__QUEUE__KEEP_S", "300")
    ash, birch = crowd.form({"ash": "timed:det:0", "birch": "timed:det:2"})
    name = ask(ash, model="moot", folkmoot={"layers": 1, "select": "fixed:birch"}).json()["id"]
    until(lambda: birch.get("/v1/moot")["busy"] == 1 and noted(ash) == 1)
    ash.process.kill()
    ash.process.wait()
    until(lambda: birch.get("/v1/moot")["busy"] == 0)
    assert birch.get("/v1/moot")["jobs"] == 1
    ash = crowd.start("ash", "timed:det:0", home=ash.home.name)
    told = ended(name, ash, birch)["folkmoot"]
    assert birch.get("/v1/moot")["jobs"] == 1
    assert sorted((job["layer"], job["device"]) for job in told["jobs"]) == [
        (1, "ash"),
        (1, "birch"),
        (2, "ash"),
    ]
    assert any("asked for the same job again" in each["what"] for each in told["decisions"])


def test_a_damaged_journal_is_told_and_everything_else_goes_on(crowd: Crowd) -> None:
    ash = crowd.start("ash", "timed:det:0", home="ash")
    name = ask(ash).json()["id"]
    until(lambda: state(ash, name) == "completed")
    ash.process.kill()
    ash.process.wait()
    for path in ash.home.glob("journal.db-*"):
        path.unlink()
    (ash.home / "journal.db").write_bytes(b"\0" * 5_000)
    ash = crowd.start("ash", "timed:det:0", home="ash", debug=True)
    assert ash.get("/healthz") == {"status": "ready", "journal": "damaged"}
    refused = ask(ash)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "journal")
    assert httpx.get(f"{ash.api}/v1/responses/{name}", timeout=20, trust_env=False).status_code == 503
    assert ash.post(say("and you?", model="local")).status_code == 200
    told = [line for line in ash.log.read_text().splitlines() if "journal.db.damaged1" in line]
    assert len(told) == 1
    assert told[0].startswith("ERROR")
    ash.process.terminate()
    ash.process.wait(timeout=30)
    ash = crowd.start("ash", "timed:det:0", home="ash")
    assert ash.get("/healthz") == {"status": "ready"}
    name = ask(ash).json()["id"]
    until(lambda: state(ash, name) == "completed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    at = tmp_path / "small"
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(at)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a file system can be mounted by root alone: {mounted.stderr.strip()}")
    yield at
    subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_is_told_and_passes(small_disk: Path) -> None:
    crowd = Crowd(small_disk)
    try:
        ash = crowd.start("ash", "timed:det:2", home="ash")
        early = ask(ash).json()["id"]
        until(lambda: state(ash, early) == "in_progress")
        filler = fill(small_disk)
        refused = [ask(ash, "x" * 100_000) for _ in range(3)]
        assert {reply.status_code for reply in refused} == {507}
        assert {reply.json()["error"]["code"] for reply in refused} == {"journal_full"}
        assert ash.get("/healthz") == {"status": "ready", "journal": "full"}
        assert ash.post(say("and you?", model="local")).status_code == 200
        filler.unlink()
        until(lambda: state(ash, early) == "completed")
        late = ask(ash).json()["id"]
        assert ash.get("/healthz") == {"status": "ready"}
        until(lambda: state(ash, late) == "completed")
        ash.process.terminate()
        _, said = ash.process.communicate(timeout=30)
        assert "Traceback" not in said
        assert said.count("the journal") >= 1
    finally:
        crowd.stop()
