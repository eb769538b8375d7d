"""A moot of real processes gets a new root key under load: no prompt and no job is lost on the way."""

from __future__ import annotations

import json
import threading
import time

import pytest
from tests.live.crowd import Crowd, Device, say, until

pytestmark = pytest.mark.timeout(180)
GRACE_S = 8


def root_of(device: Device) -> str:
    moot: str = json.loads((device.home / "moot.json").read_text())["moot"]
    return moot


class Asker(threading.Thread):
    """Asks one device, one prompt after the other, until it is told to stop; `wrong` is what did not end well."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.done = threading.Event()
        self.answered = 0
        self.wrong: list[object] = []

    def run(self) -> None:
        while not self.done.is_set():
            response = self.device.post(say("why?", folkmoot={"layers": 1, "proposers": 3}))
            if response.status_code != 200:
                self.wrong.append(response.text)
                continue
            jobs = response.json()["folkmoot"]["jobs"]
            # A copy of a late job is cancelled once the first answer is there.
            self.wrong += [job for job in jobs if job["outcome"] not in ("ok", "cancelled")]
            self.answered += 1


def test_a_new_root_key_under_load_loses_nothing_before_and_after_the_old_one_ends(crowd: Crowd) -> None:
    devices = crowd.form({name: "timed:det:0.02" for name in ("ash", "birch", "cedar", "elm")})
    askers = [Asker(device) for device in devices]
    for asker in askers:
        asker.start()
    try:
        until(lambda: all(asker.answered > 3 for asker in askers))
        old = root_of(devices[0])
        told = devices[0].cli("rotate", "--grace", f"{GRACE_S}s", "--json")
        end = json.loads(told.stdout)["until"]
        until(lambda: all(root_of(device) not in ("", old) for device in devices))
        assert len({root_of(device) for device in devices}) == 1
        until(lambda: time.time() > end + 2)
        before = [asker.answered for asker in askers]
        until(lambda: all(asker.answered > count + 3 for asker, count in zip(askers, before, strict=True)))
    finally:
        for asker in askers:
            asker.done.set()
        for asker in askers:
            asker.join()
    assert [asker.wrong for asker in askers] == [[], [], [], []]
    assert all(set(device.standing().values()) == {"alive"} for device in devices)
