"""Frames come out as they went in, however the bytes are cut; a cut stream is never whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.ids import JobId
from folkmoot.core.messages import Began, Cancel, Message, Piece
from folkmoot.errors import RemoteProtocolError
from folkmoot.wire import END, END_BYTES, Framer, frame, limits

JOB = JobId("a.1.0.0")
SENT: list[Message] = [Began(JOB, 0.5), Piece(JOB, 0, "Hello, "), Piece(JOB, 7, "world" * 100), Cancel(JOB)]
STREAM = b"".join(map(frame, SENT)) + END_BYTES


@pytest.mark.parametrize("step", [1, 3, 7, 4096])
def test_any_cut_of_the_bytes_gives_the_same_messages(step: int) -> None:
    framer = Framer()
    items = [item for at in range(0, len(STREAM), step) for item in framer.feed(STREAM[at : at + step])]
    assert items == [*SENT, END]
    assert framer.ended


def test_a_stream_cut_anywhere_is_not_whole() -> None:
    for size in range(len(STREAM)):
        framer = Framer()
        assert END not in framer.feed(STREAM[:size])
        assert not framer.ended


def test_oversize_is_refused_at_the_head() -> None:
    with pytest.raises(RemoteProtocolError, match="frame"):
        Framer().feed((limits.FRAME_BYTES + 1).to_bytes(4, "big"))


def test_nothing_may_follow_the_end() -> None:
    with pytest.raises(RemoteProtocolError, match="after"):
        Framer().feed(STREAM + b"x")
    framer = Framer()
    framer.feed(STREAM)
    with pytest.raises(RemoteProtocolError, match="after"):
        framer.feed(frame(SENT[0]))


def test_what_waits_is_counted() -> None:
    framer = Framer()
    framer.feed(frame(SENT[2])[:100])
    assert framer.waiting_bytes == 100
    framer.feed(frame(SENT[2])[100:])
    assert framer.waiting_bytes == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_random_bytes_raise_nothing_else(parts: list[bytes]) -> None:
    framer = Framer()
    try:
        for part in parts:
            framer.feed(part)
    except RemoteProtocolError:
        pass
