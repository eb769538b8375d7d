"""When another device is asked for the same answer: what is late, and how many such copies there may be.

Pure bookkeeping of one origin. How long a peer takes to say its first word is smoothed as TCP does it
(RFC 6298); what a job should take is the peer's own estimate, α(q + 1)/(1 − ρ_hi) when it is asked, and less
or more by what it has said since.
"""

from __future__ import annotations

from dataclasses import dataclass

from folkmoot.core.ids import DeviceId
from folkmoot.errors import ConfigError

MOST_WORD_S = 60.0
"""RFC 6298 lets the wait for a first word grow to this."""


@dataclass(frozen=True, slots=True)
class HedgeConfig:
    """How many copies there may be, and when one is asked for.

    `share` extra jobs for each other job, 0 for none; `burst` of them are saved up at most (guess), and a device starts with
    one. Half of them are kept for peers that are silent. A job is late after `late` times its peer's own estimate
    (docs/explanation/faults.md has the figures), or when its peer says no first word: `word_s` is the least patience for
    that and `first_word_s` that with a peer who has never said one (RFC 6298: 1 s), both longer by a question's length at
    `characters_hz` (guess: a link of 1 Mbit/s).
    """

    share: float = 0.0
    burst: float = 4.0
    late: float = 3.0
    word_s: float = 0.5
    first_word_s: float = 1.0
    characters_hz: float = 100_000.0

    def __post_init__(self) -> None:
        floors = (self.burst >= 1.0, self.late >= 1.0, self.word_s > 0.0, self.first_word_s > 0.0)
        if not 0.0 <= self.share <= 1.0 or not all(floors) or not self.characters_hz > 0.0:
            raise ConfigError(
                "hedge: share lies between 0 and 1, burst and late are 1 or more, all else is more than 0"
            )


class Hedges:
    """The budget of copies, and the peers' first words."""

    def __init__(self, config: HedgeConfig) -> None:
        self.config = config
        self._saved = 1.0
        self._words: dict[DeviceId, tuple[float, float]] = {}

    @property
    def enabled(self) -> bool:
        """Whether any copy may ever be asked for."""
        return self.config.share > 0.0

    def asked(self) -> None:
        """A job that is no copy is asked for: a share of a copy is saved up."""
        self._saved = min(self.config.burst, self._saved + self.config.share)

    def take(self, *, silent: bool) -> bool:
        """Whether a copy of a job may be asked for now, whose peer is silent or slow; if so it is counted."""
        if self._saved < (1.0 if silent else 1.0 + self.config.burst / 2.0):
            return False
        self._saved -= 1.0
        return True

    def word(self, device: DeviceId, seconds: float) -> None:
        """A peer's first word came so long after its question."""
        known = self._words.get(device)
        if known is None:
            self._words[device] = seconds, seconds / 2.0
        else:
            mean, spread = known
            spread += (abs(seconds - mean) - spread) / 4.0
            self._words[device] = mean + (seconds - mean) / 8.0, spread

    def patience_s(self, device: DeviceId, characters: int) -> float:
        """How long to wait for a first word about a question of so many characters."""
        config, known = self.config, self._words.get(device)
        usual = config.first_word_s if known is None else known[0] + 4.0 * known[1]
        return min(MOST_WORD_S, max(config.word_s, usual) + characters / config.characters_hz)

    def forget(self, device: DeviceId) -> None:
        """It is held dead, or has left."""
        self._words.pop(device, None)
