"""How often devices were seen to be right, by device, model and class of question: what one origin has seen itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from folkmoot.core.gossip import CLASSES, Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.skill import SkillClass

MOST_DEVICES = 256
MOST_MODELS = 4
"""Models of one device that are known: going back to one before finds what was seen of it."""
_PLACES = {skill: place for place, skill in enumerate(SkillClass)}


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one device's model, by class in the order of `SkillClass`: of `total` answers `right` were right.

    `model` stands for the card's model and its probes, so that neither words nor names are kept.
    """

    device: DeviceId
    model: int
    right: tuple[float, ...]
    total: tuple[float, ...]

    @property
    def plausible(self) -> bool:
        """Whether it can have been seen."""
        counts = tuple(zip(self.right, self.total, strict=False))
        return len(self.right) == len(self.total) == CLASSES and all(
            math.isfinite(total) and 0.0 <= right <= total for right, total in counts
        )


class Record:
    """The rows, those written last at the end. `changes` counts what was written."""

    def __init__(self) -> None:
        self.changes = 0
        self._rows: dict[DeviceId, dict[int, Row]] = {}

    def row(self, device: DeviceId, card: Card) -> Row | None:
        """What was seen of a device with the model of this card."""
        models = self._rows.get(device)
        return models.get(model_of(card)) if models else None

    def seen(self, device: DeviceId, card: Card, skill: SkillClass) -> tuple[float, float]:
        """Of these its answers of one class: how many were right, and how many there were."""
        row = self.row(device, card)
        return (0.0, 0.0) if row is None else (row.right[_PLACES[skill]], row.total[_PLACES[skill]])

    def knows(self, device: DeviceId) -> bool:
        """Whether anything was seen of a device."""
        return device in self._rows

    def note(self, device: DeviceId, card: Card, skill: SkillClass, right: float, most: float) -> None:
        """One answer more, right with this probability. From `most` answers of a class on all before it count half."""
        self.changes += 1
        model, place = model_of(card), _PLACES[skill]
        row = self._rows.get(device, {}).get(model) or Row(device, model, (0.0,) * CLASSES, (0.0,) * CLASSES)
        rights, totals = list(row.right), list(row.total)
        share = 0.5 if totals[place] >= most else 1.0
        rights[place], totals[place] = share * rights[place] + right, share * totals[place] + 1.0
        self._enter(Row(device, model, tuple(rights), tuple(totals)))

    def rows(self) -> tuple[Row, ...]:
        """All that is known, to be taken up again later."""
        return tuple(row for models in self._rows.values() for row in models.values())

    def take_up(self, rows: Iterable[Row]) -> None:
        """Go on with what was known before."""
        for row in rows:
            self._enter(row)

    def _enter(self, row: Row) -> None:
        models = self._rows.pop(row.device, {})
        models.pop(row.model, None)
        models[row.model] = row
        self._rows[row.device] = models
        if len(models) > MOST_MODELS:
            del models[next(iter(models))]
        if len(self._rows) > MOST_DEVICES:
            del self._rows[next(iter(self._rows))]


def model_of(card: Card) -> int:
    """What a card says of its model and of the probes that it was put to, in short."""
    return int.from_bytes(
        blake2b(f"{card.probes}\0{card.model}".encode(errors="replace"), digest_size=6).digest(), "big"
    )
