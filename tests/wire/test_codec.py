"""Every message survives the way to bytes and back; nothing else gets through."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import NoneType
from typing import Any, NewType, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from folkmoot.core.gossip import Card, Heartbeat, Hot, Member, Rumour, Standing, Sync, SyncReply
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.messages import (
    Answer,
    Ask,
    Inference,
    Message,
    Outcome,
    Piece,
    Poll,
    Sampling,
    Stage,
    Turn,
    Undone,
    Usage,
)
from folkmoot.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.wire import TAGS, decode, encode, limits

DEVICE = DeviceId("3f" * 32)
PROMPT = PromptId("a0" * 16)
JOB = JobId(f"{PROMPT}.1.2.0")
ASK = Ask(JOB, PROMPT, 1, Stage.PROPOSE, Inference(PROMPT, (Turn("user", "Why is the sky blue?"),)))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


def values(hint: Any, key: str) -> st.SearchStrategy[Any]:
    """Values of an annotation within the limits, small ones and the bounds themselves."""
    if hint is DeviceId or hint is PromptId:
        size = 32 if hint is DeviceId else 16
        return st.one_of(st.binary(min_size=size, max_size=size).map(bytes.hex), texts)
    if isinstance(hint, NewType):
        return values(hint.__supertype__, key)
    if get_origin(hint) is tuple:
        least = limits.LEAST.get(key, 0)
        return st.lists(values(get_args(hint)[0], key), min_size=least, max_size=3).map(tuple)
    if NoneType in get_args(hint):
        return st.none() | values(next(a for a in get_args(hint) if a is not NoneType), key)
    if is_dataclass(hint):
        return messages_of(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    if hint is bool:
        return st.booleans()
    if hint is bytes:
        return st.binary(max_size=limits.BYTES[key])
    if hint is str:
        return names if key in limits.PRINTABLE else texts
    low, high = limits.NUMBERS.get(key, limits.WHOLE if hint is int else limits.REAL)
    if hint is int:
        return st.one_of(st.integers(int(low), int(high)), st.sampled_from([int(low), int(high)]))
    return st.floats(low, high)


def messages_of(cls: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    return st.builds(cls, **{f.name: values(hints[f.name], f"{cls.__name__}.{f.name}") for f in fields(cls)})


messages = st.sampled_from(sorted(TAGS, key=lambda cls: TAGS[cls])).flatmap(messages_of)


def test_the_tag_table_holds_every_message_once() -> None:
    assert set(TAGS) == set(get_args(Message))
    assert len(set(TAGS.values())) == len(TAGS)
    assert all(0 < tag < 256 for tag in TAGS.values())


def test_every_limit_names_a_field_of_the_right_kind() -> None:
    seen: dict[str, Any] = {}

    def walk(hint: Any) -> None:
        if is_dataclass(hint):
            for name, inner in get_type_hints(hint).items():
                seen[f"{hint.__name__}.{name}"] = inner
                walk(inner)
        for inner in get_args(hint):
            walk(inner)

    walk(Message)
    assert (
        limits.TEXTS.keys()
        | limits.LENGTHS.keys()
        | limits.LEAST.keys()
        | limits.NUMBERS.keys()
        | limits.PRINTABLE
    ) <= seen.keys()
    assert all(get_origin(seen[key]) is tuple for key in limits.LENGTHS)


@pytest.mark.parametrize("cls", sorted(TAGS, key=lambda cls: TAGS[cls]), ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_round_trip(cls: Any, data: st.DataObject) -> None:
    message = data.draw(messages_of(cls))
    assert decode(encode(message)) == message


@settings(max_examples=60, deadline=None)
@given(messages)
def test_a_cut_at_any_byte_is_refused(message: Message) -> None:
    whole = encode(message)
    for size in range(len(whole)):
        with pytest.raises(RemoteProtocolError):
            decode(whole[:size])


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x01" + b"\x91" * 5_000)
@example(bytes([TAGS[Piece]]) + b"\xdd\xff\xff\xff\xff")
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteProtocolError:
        return
    assert decode(encode(message)) == message


@settings(max_examples=150, deadline=None)
@given(messages, st.data())
def test_a_damaged_message_is_refused_or_is_another_valid_one(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(encode(message))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] = data.draw(st.integers(0, 255))
    try:
        other = decode(bytes(damaged))
    except RemoteProtocolError:
        return
    assert decode(encode(other)) == other


def sampled(**change: Any) -> Ask:
    return replace(ASK, inference=replace(ASK.inference, sampling=replace(Sampling(), **change)))


OUT_OF_BOUNDS = [
    sampled(temperature=2.1),
    sampled(temperature=math.nan),
    sampled(temperature=-0.1),
    sampled(max_tokens=0),
    sampled(max_tokens=131_073),
    sampled(top_p=1.01),
    sampled(seed=2**63),
    sampled(stop=("x",) * 17),
    replace(ASK, hops=-1),
    replace(ASK, job=JobId("x" * 257)),
    replace(ASK, inference=Inference(PROMPT, ())),
    replace(ASK, inference=Inference(PROMPT, (Turn("user", "x"),) * 1_001)),
    replace(ASK, inference=replace(ASK.inference, answers=("x",) * 65)),
    replace(ASK, inference=Inference(PROMPT, (Turn("user", "x" * ((1 << 20) + 1)),))),
    Poll(JOB, -1),
    Poll(JOB, 2**53),
    Piece(JOB, 0, "\ud800"),
    Answer(JOB, 1, math.inf, Usage()),
    Answer(JOB, 1, 0.0, Usage(tokens_in=-1)),
    SyncReply((Member(DEVICE, 2**53, Standing.ALIVE, Card("a")),)),
    SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card("a" * 65)),)),
    SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card("a", probes=2**32)),)),
    SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card("a", seal=bytes(65))),)),
    SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card("a", right=(0,) * 7, total=(1,) * 7)),)),
    SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card("a", right=(0,) * 6, total=(128,) * 6)),)),
    SyncReply((), (DEVICE,) * 2_001),
]


@pytest.mark.parametrize("message", OUT_OF_BOUNDS, ids=lambda m: type(m).__name__)
def test_out_of_bounds_neither_leaves_nor_comes_in(message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


@pytest.mark.parametrize("sign", ["\x00", "\t", "\n", "\x1b", "\x1f", "\x7f", "\x80", "\x9b", "\x9f"])
def test_names_hold_nothing_that_steers_a_terminal(sign: str) -> None:
    raw = msgspec.msgpack.encode
    for text in (sign, f"a{sign}b", f"ab{sign}"):
        for name, model in ((text, "m"), ("n", text)):
            sent = SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card(name, model)),))
            with pytest.raises(LocalProtocolError):
                encode(sent)
            fair = encode(SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card("N" * 3, "M" * 3)),)))
            for old, new in (("N" * 3, name), ("M" * 3, model)):
                fair = fair.replace(raw(old), raw(new))
            with pytest.raises(RemoteProtocolError):
                decode(fair)
        with pytest.raises(LocalProtocolError):
            encode(Undone(JOB, Outcome.FAILED, text, "why"))
    for text in ("Größe 3 — ß\u2028", "\xa0", ""):
        sent = SyncReply((Member(DEVICE, 1, Standing.ALIVE, Card(text, text)),))
        assert decode(encode(sent)) == sent
    assert decode(encode(Undone(JOB, Outcome.FAILED, "no", f"why{sign}"))) == Undone(
        JOB, Outcome.FAILED, "no", f"why{sign}"
    )


def test_a_peer_that_does_not_check_is_refused_as_well() -> None:
    tag = bytes([TAGS[Poll]])
    raw = msgspec.msgpack.encode
    assert decode(tag + raw([JOB, 3])) == Poll(JOB, 3)
    for body in (
        [JOB, -1],
        [JOB, 2**53],
        [JOB, 1.5],
        [JOB, "3"],
        [JOB, True],
        [JOB],
        [JOB, 3, 3],
        {"job": JOB},
    ):
        with pytest.raises(RemoteProtocolError):
            decode(tag + raw(body))
    with pytest.raises(RemoteProtocolError):
        decode(tag + raw([JOB, 3]) + b"\x00")
    with pytest.raises(RemoteProtocolError):
        decode(bytes([250]) + raw([JOB, 3]))


def test_too_large_a_message_neither_leaves_nor_comes_in() -> None:
    turns = (Turn("user", "x" * (1 << 20)),) * 4
    with pytest.raises(LocalProtocolError, match="bytes"):
        encode(replace(ASK, inference=Inference(PROMPT, turns)))
    with pytest.raises(RemoteProtocolError):
        decode(b"\x01" * (limits.FRAME_BYTES + 1))


def test_what_is_no_message_cannot_be_sent() -> None:
    with pytest.raises(LocalProtocolError):
        encode(Turn("user", "x"))  # type: ignore[arg-type]


def test_an_error_never_repeats_what_was_sent() -> None:
    secret = "do-not-log-me"
    with pytest.raises(RemoteProtocolError) as caught:
        decode(bytes([TAGS[Poll]]) + msgspec.msgpack.encode([JOB, secret]))
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_names_travel_short() -> None:
    assert len(encode(Poll(JOB, 0))) == 1 + 1 + 2 + len(JOB) + 1
    assert len(encode(SyncReply((), (DEVICE,)))) == 1 + 1 + 1 + 1 + 2 + 1 + 32


def test_a_full_heartbeat_fits_into_a_datagram() -> None:
    rumour = Rumour(DEVICE, 2**53 - 1, Standing.SUSPECT, 2**32 - 1)
    hot = Hot(2**64 - 1, 2**40, 5, 1, 2, 30_000)
    beat = Heartbeat(2**53 - 1, 2**64 - 1, (rumour,) * 12, (hot,) * 15)
    assert len(encode(beat)) <= limits.DATAGRAM_BYTES


def test_sync_pages_hold_many_members() -> None:
    me = Member(DEVICE, 1, Standing.ALIVE, Card("a"))
    claims = (Rumour(DEVICE, 1, Standing.ALIVE, 7),) * 1_024
    assert decode(encode(Sync(me, claims))) == Sync(me, claims)
