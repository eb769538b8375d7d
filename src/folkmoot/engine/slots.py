"""Which slot of the model server a prompt's work goes to, and what is known to lie in its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from folkmoot.core.ids import PromptId


@dataclass(slots=True)
class Slot:
    """One KV cache of the server. `tokens` is what it holds at least; `held`: its prompt will come back; `busy`: requests at it."""

    number: int
    prompt: PromptId | None = None
    tokens: list[int] = field(default_factory=list)
    held: bool = False
    used: int = 0
    busy: int = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """A request is at it: who has no slot yet takes another one, where it would not have to wait."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


class SlotTable:
    """Gives a prompt the slot that it had before, else the one whose loss hurts least."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._clock = 0

    def take(self, prompt: PromptId, held: bool) -> Slot:
        """The prompt's slot. `held` protects it from other prompts as long as there are unheld slots."""
        self._clock += 1
        mine = [slot for slot in self._slots if slot.prompt == prompt]
        slot = mine[0] if mine else min(self._slots, key=lambda slot: (slot.busy, slot.held, slot.used))
        if slot.prompt != prompt:
            slot.prompt = prompt
        slot.held = held
        slot.used = self._clock
        return slot


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))
