"""This device's signature under its own card, and those under the cards of others."""

from __future__ import annotations

from dataclasses import fields
from hashlib import blake2b

import iroh
import msgspec

from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.node.admission import device_of, signed_by

_CARD = b"folkmoot card 1\0"
_FIELDS = tuple(field.name for field in fields(Card) if field.name != "seal")
_SKILL = _FIELDS.index("skill")
MOST = 8_192
"""Verdicts that are kept: as many as a moot may have members (guess)."""


class CardSeals:
    """Satisfies `core.seal.Seals` with the key that is the device. A signature is checked once, and its verdict kept."""

    def __init__(self, key: iroh.SecretKey) -> None:
        self._key = key
        self._device = device_of(key.public().to_bytes())
        self._verdicts: dict[bytes, bool] = {}

    def seal(self, card: Card) -> bytes:
        """This device's signature over its card."""
        return self._key.sign(card_text(self._device, card)).to_bytes()

    def genuine(self, device: DeviceId, card: Card) -> bool:
        """Whether `device` has signed this card, in this version."""
        try:
            text = card_text(device, card)
        except ValueError:
            return False
        digest = blake2b(card.seal + text, digest_size=16).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None:
            verdict = self._verdicts[digest] = signed_by(device, text, card.seal)
            if len(self._verdicts) > MOST:
                del self._verdicts[next(iter(self._verdicts))]
        return verdict


def card_text(device: DeviceId, card: Card) -> bytes:
    """What is signed: whose card it is, and all of it but the seal. Raises ValueError where the device is no key."""
    values = [getattr(card, name) for name in _FIELDS]
    values[_SKILL] = float(card.skill)  # as whoever reads it from the wire has it
    return _CARD + bytes.fromhex(device) + msgspec.msgpack.encode(values)
