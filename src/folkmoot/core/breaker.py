"""A circuit breaker for each peer: whoever does not answer again and again is not asked for a while.

    closed → open → half-open → probing
       ↑       └──────←──────────┘ │        one more failure: open again, for twice as long
       └───────────────────────────┘        an answer

Silence and failure are counted apart. A word about any job ends silence, an answer alone ends failures. It
knows no time: an opened breaker asks for a timer, which makes it half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from folkmoot.core.events import BreakTimer, Effect, SetTimer
from folkmoot.core.ids import DeviceId
from folkmoot.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a peer is asked no more, and for how long.

    It opens after `silences` questions in a row without a word, or `failures` jobs in a row without an answer (guesses: one
    of either happens to a healthy device); 0 failures: never. It stays open for `open_s` seconds, each time in a row
    twice as long, `most_s` at most (guesses: a device that is dead is held so after 4.5 s, so this is for those that live).
    """

    silences: int = 2
    failures: int = 0
    open_s: float = 5.0
    most_s: float = 80.0

    def __post_init__(self) -> None:
        if not (self.silences >= 1 and self.failures >= 0 and 0.0 < self.open_s <= self.most_s):
            raise ConfigError(
                "breaker: silences is 1 or more, failures 0 or more, open_s more than 0 and at most most_s"
            )


class State(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    PROBING = "probing"


@dataclass(slots=True)
class _Breaker:
    state: State = State.CLOSED
    silences: int = 0
    failures: int = 0
    trips: int = 0


class Breakers:
    """All of one device's breakers. Peers of whom nothing bad is known have none."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._rows: dict[DeviceId, _Breaker] = {}
        self._opened: list[DeviceId] = []

    def state(self, device: DeviceId) -> State:
        """Where a peer's breaker stands."""
        row = self._rows.get(device)
        return State.CLOSED if row is None else row.state

    def admits(self, device: DeviceId) -> bool:
        """Whether a peer may be drawn."""
        return self.state(device) in (State.CLOSED, State.HALF_OPEN)

    def why(self, device: DeviceId) -> str:
        """What a peer that may not be drawn has done."""
        row = self._rows[device]
        told = [
            f"{row.silences} questions without a word" if row.silences else "",
            f"{row.failures} jobs without an answer" if row.failures else "",
        ]
        return " and ".join(filter(None, told)) or "it is being tried again"

    # ---- what is seen of a peer --------------------------------------------------------------------

    def asked(self, device: DeviceId) -> None:
        """A job goes to a peer; where its breaker is half open this is the one that tries it."""
        row = self._rows.get(device)
        if row is not None and row.state is State.HALF_OPEN:
            row.state = State.PROBING

    def word(self, device: DeviceId) -> None:
        """It said something about a job: it is there."""
        row = self._rows.get(device)
        if row is None or not row.silences:
            return
        row.silences = 0
        if row.failures < self._config.failures:
            row.state = State.CLOSED

    def answered(self, device: DeviceId) -> None:
        """It gave an answer: all is well."""
        self._rows.pop(device, None)

    def let_go(self, device: DeviceId) -> None:
        """A job there ended by no fault and no merit of its own."""
        row = self._rows.get(device)
        if row is not None and row.state is State.PROBING:
            row.state = State.HALF_OPEN

    def silent(self, device: DeviceId) -> None:
        """A question got no word in time."""
        if self._config.failures:
            row = self._rows.setdefault(device, _Breaker())
            row.silences += 1
            self._judge(device, row, row.silences >= self._config.silences)

    def failed(self, device: DeviceId) -> None:
        """A job there came to nothing, or was beaten by another device that was asked much later."""
        if self._config.failures:
            row = self._rows.setdefault(device, _Breaker())
            row.failures += 1
            self._judge(device, row, row.failures >= self._config.failures)

    def forget(self, device: DeviceId) -> None:
        """It is held dead, or has left: should it come back, it begins anew."""
        self._rows.pop(device, None)

    def _judge(self, device: DeviceId, row: _Breaker, enough: bool) -> None:
        trying = row.state in (State.PROBING, State.HALF_OPEN)
        if trying or (row.state is State.CLOSED and enough):
            row.state = State.OPEN
            row.trips += 1
            self._opened.append(device)

    # ---- time --------------------------------------------------------------------------------------

    def opened(self, now: float) -> list[tuple[DeviceId, Effect]]:
        """Peers whose breaker has opened since this was last asked, each with the timer that makes it half-open."""
        opened, self._opened = self._opened, []
        return [(each, SetTimer(now + self._open_s(each), BreakTimer(each))) for each in opened]

    def _open_s(self, device: DeviceId) -> float:
        row = self._rows.get(device)
        trips = row.trips if row is not None else 1
        return min(self._config.most_s, self._config.open_s * 2.0 ** min(trips - 1, 30))

    def on_timer(self, timer: BreakTimer) -> None:
        """It has been open long enough: one job may try."""
        row = self._rows.get(timer.device)
        if row is not None and row.state is State.OPEN:
            row.state = State.HALF_OPEN
