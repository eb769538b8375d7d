"""Signatures under cards: whose they are, what they cover, and that one is checked once."""

from __future__ import annotations

from dataclasses import fields, replace

import iroh
import pytest

from folkmoot.core.gossip import SEAL_BYTES, Card, Member, SyncReply, row_bytes
from folkmoot.core.gossip import Standing as At
from folkmoot.core.ids import DeviceId
from folkmoot.node import seals
from folkmoot.node.admission import device_of
from folkmoot.node.seals import CardSeals
from folkmoot.wire import decode, encode

KEYS = [iroh.SecretKey.from_bytes(bytes([n]) * 32) for n in (1, 2)]
ANN, BOB = (device_of(key.public().to_bytes()) for key in KEYS)
PLAIN = Card(
    "ann", "m", 4096, 1.0, "at-ann", 2, False, 7, (12, 8, 0, 0, 0, 0), (12, 8, 0, 0, 0, 0), version=5
)
CARD = replace(PLAIN, seal=CardSeals(KEYS[0]).seal(PLAIN))

OTHERWISE: dict[str, object] = {
    "name": "eve", "model": "n", "context_tokens": 8192, "skill": 1.5, "address": "at-eve", "slots": 3, "closed": True,
    "probes": 8, "right": (11, 8, 0, 0, 0, 0), "total": (13, 8, 0, 0, 0, 0), "version": 6, "seal": bytes(SEAL_BYTES),
}  # fmt: skip


def test_a_card_is_its_device_s_alone() -> None:
    it = CardSeals(KEYS[1])
    assert len(CARD.seal) == SEAL_BYTES
    assert it.genuine(ANN, CARD)
    assert not it.genuine(BOB, CARD)
    assert not it.genuine(ANN, replace(CARD, seal=it.seal(PLAIN)))
    for nobody in (DeviceId("ann"), DeviceId("")):
        assert not it.genuine(nobody, CARD)
    for broken in (b"", CARD.seal[:-1], CARD.seal[:-1] + bytes([CARD.seal[-1] ^ 1])):
        assert not it.genuine(ANN, replace(CARD, seal=broken))


@pytest.mark.parametrize("name", [field.name for field in fields(Card)])
def test_all_of_it_is_signed(name: str) -> None:
    assert not CardSeals(KEYS[1]).genuine(ANN, replace(CARD, **{name: OTHERWISE[name]}))  # type: ignore[arg-type]


def test_what_was_signed_is_what_others_read_from_the_wire() -> None:
    whole = replace(PLAIN, skill=1)  # a whole number where a float is meant
    row = Member(ANN, 5, At.ALIVE, replace(whole, seal=CardSeals(KEYS[0]).seal(whole)))
    data = encode(SyncReply((row,)))
    assert len(data) <= row_bytes(row)
    (read,) = decode(data).members  # type: ignore[union-attr]
    assert CardSeals(KEYS[1]).genuine(ANN, read.card)


def test_one_card_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = list[str]()

    def counted(signer: str, text: bytes, signature: bytes) -> bool:
        checked.append(signer)
        return False

    monkeypatch.setattr(seals, "signed_by", counted)
    monkeypatch.setattr(seals, "MOST", 2)
    it = CardSeals(KEYS[1])
    for version in (5, 5, 6, 5, 7, 7, 5):
        assert not it.genuine(ANN, replace(CARD, version=version))
    assert len(checked) == 4, "the first of three is forgotten, and checked again"
