"""What the virtual network does to messages: delay, loss, doubling, partitions, cuts of one direction."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from folkmoot.core.ids import DeviceId


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Times in seconds, the rest are probabilities.

    The delay of one way is `delay_s` + an exponential of mean `jitter_s` (MEMBERSHIP.md, Model). Datagrams
    are lost and doubled; streams keep the order of a job's messages and lose none, unless `torture`, or
    they break: `breakage` a message. Dialling costs one round trip and `dial_packets`; what cannot be
    reached fails after `dial_timeout_s` (node gives a dial as long). A killed device's connections are
    seen to break after `loss_seen_s` (iroh: 2.3 s, ENGINES.md), None: never.
    """

    delay_s: float = 0.001
    jitter_s: float = 0.020
    loss: float = 0.02
    doubling: float = 0.0
    breakage: float = 0.0
    torture: bool = False
    dial_timeout_s: float = 3.0
    dial_packets: int = 4
    dial_bytes: int = 4_000
    loss_seen_s: float | None = None


class Links:
    """Draws what becomes of a message. `sides` and `cuts` say who cannot reach whom."""

    def __init__(self, config: LinkConfig, rng: Random) -> None:
        self.config = config
        self._rng = rng
        self._sides: dict[DeviceId, int] = {}
        self._cuts: dict[tuple[DeviceId, DeviceId], None] = {}
        self._whole = True

    def part(self, sides: dict[DeviceId, int]) -> None:
        """Only devices on one side reach each other; who is not named is on side 0."""
        self._sides = dict(sides)
        self._whole = not self._sides and not self._cuts

    def cut(self, source: DeviceId, target: DeviceId) -> None:
        """Nothing gets from source to target any more; the other direction works."""
        self._cuts[source, target] = None
        self._whole = False

    def heal(self) -> None:
        """Everybody reaches everybody."""
        self._sides, self._cuts, self._whole = {}, {}, True

    def reaches(self, source: DeviceId, target: DeviceId) -> bool:
        """Whether anything gets from source to target."""
        return self._whole or (
            self._sides.get(source, 0) == self._sides.get(target, 0) and (source, target) not in self._cuts
        )

    def delay(self) -> float:
        """One way, in seconds."""
        return self.config.delay_s + self._rng.expovariate(1.0) * self.config.jitter_s

    def datagram(self) -> tuple[float, ...]:
        """The delays after which copies of a datagram arrive: none, one or two."""
        config, rng = self.config, self._rng
        if rng.random() < config.loss:
            return ()
        if config.doubling and rng.random() < config.doubling:
            return self.delay(), self.delay()
        return (config.delay_s + rng.expovariate(1.0) * config.jitter_s,)

    def breaks(self) -> bool:
        """Whether a stream breaks at this message."""
        return self.config.breakage > 0.0 and self._rng.random() < self.config.breakage

    def patience(self) -> float:
        """After how many seconds a broken stream is noticed."""
        return self._rng.random() * self.config.dial_timeout_s
