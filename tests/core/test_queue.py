"""The device's queue, driven through the door of one real peer."""

from __future__ import annotations

import pytest
from tests.core.world import Moot

from folkmoot.core.events import Received, Send
from folkmoot.core.ids import DeviceId, PromptId, job_id
from folkmoot.core.messages import Ask, Cancel, Inference, Message, Outcome, Stage, Turn, Undone

ZED, YON = DeviceId("zed"), DeviceId("yon")


def ask_of(number: int, answers: tuple[str, ...] = (), hops: int = 0) -> Ask:
    prompt = PromptId(f"{number:032x}")
    stage = Stage.REFINE if answers else Stage.PROPOSE
    inference = Inference(prompt, (Turn("user", "x"),), answers, 2)
    return Ask(job_id(prompt, 1, 1), prompt, 1, stage, inference, hops)


def replies(moot: Moot, sender: DeviceId, message: Message) -> list[Message]:
    return [e.message for e in moot.tell("ann", Received(sender, message)) if isinstance(e, Send)]


@pytest.mark.parametrize("waiting", [False, True])
def test_second_copy_of_a_cancelled_question_starts_nothing(waiting: bool) -> None:
    moot = Moot({"ann": "m"})
    if waiting:
        moot.tell("ann", Received(ZED, ask_of(7)))
    moot.tell("ann", Received(ZED, ask_of(1)))
    moot.tell("ann", Received(ZED, Cancel(ask_of(1).job)))
    assert replies(moot, ZED, ask_of(1)) == []
    if waiting:
        moot.write("ann")
    assert moot.devices[DeviceId("ann")].peer.idle


def test_nobody_cancels_in_advance_for_another() -> None:
    moot = Moot({"ann": "m"})
    moot.tell("ann", Received(YON, Cancel(ask_of(1).job)))
    moot.tell("ann", Received(ZED, ask_of(1)))
    assert moot.devices[DeviceId("ann")].running is not None


def test_a_job_that_has_crossed_a_moot_is_refused() -> None:
    moot = Moot({"ann": "m"})
    [refused] = replies(moot, ZED, ask_of(1, hops=1))
    assert isinstance(refused, Undone)
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "recursion")
    assert moot.devices[DeviceId("ann")].peer.idle
