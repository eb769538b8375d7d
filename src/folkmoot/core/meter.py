"""What a device measures of itself: its service time, the work that comes, and its virtual debt.

Units: seconds, jobs, jobs per second. Source: ADMISSION.md, The policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from folkmoot.core.ids import DeviceId


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """How quickly a device believes what it sees.

    `gain` of the mean service time, which is the plain mean of the first 1/`gain` jobs (ADMISSION.md: 0.02 is too slow
    behind a step). A job that took `outlier` times the mean counts for that much, unless the one before it did too (guess:
    of exponential services one in 3,000 is cut). Rates are means over the last `window` mean services. `slack` is how much
    slower than the device its debt drains: it holds the load of what is admitted below 1 − slack. Another device may ask
    for `share`/n of this one's time, n the devices of the moot, and `burst` jobs at once (guesses); what it asks for beyond
    that is its excess. 0 sets no such limit.
    """

    gain: float = 0.05
    outlier: float = 8.0
    window: float = 50.0
    slack: float = 0.05
    share: float = 0.0
    burst: float = 8.0


class Decayed:
    """Events per second, those of `window_s` ago counting 1/e of those of now."""

    def __init__(self) -> None:
        self._count = 0.0
        self._at = 0.0

    def add(self, now: float, window_s: float, count: float = 1.0) -> None:
        """`count` events at `now`."""
        self._count = self._left(now, window_s) + count
        self._at = now

    def rate(self, now: float, window_s: float) -> float:
        """Events per second; 0 where there is no window yet."""
        return self._left(now, window_s) / window_s if window_s else 0.0

    def _left(self, now: float, window_s: float) -> float:
        return self._count * math.exp((self._at - now) / window_s) if window_s else self._count


class Meter:
    """The measurements of one device whose engine serves `slots` jobs at a time.

    `service_s` is the smoothed mean of what inferences took here, 0 before the first.
    """

    def __init__(self, config: MeterConfig, slots: int = 1) -> None:
        self.config = config
        self.service_s = 0.0
        self._slots = slots
        self._served = 0
        self._cut = False
        self._debt = 0.0
        self._at = 0.0
        self._all = Decayed()
        self._late = Decayed()
        self._shares: dict[DeviceId, tuple[float, float]] = {}

    def exceeds(self, origin: DeviceId, devices: int, now: float) -> bool:
        """Whether one more job is beyond the share of a device; else it is taken from its share."""
        if not self.config.share:
            return False
        drain_hz = self.drain_hz * self.config.share / max(1, devices)
        used, at = self._shares.get(origin, (0.0, now))
        used = drained(used, now - at, drain_hz)
        if used + 1.0 > self.config.burst:
            return True
        self._shares[origin] = used + 1.0, now
        return False

    def forget(self, origin: DeviceId) -> None:
        """A device is gone for good."""
        self._shares.pop(origin, None)

    def joined(self, layer: int, now: float, *, excess: bool = False) -> None:
        """A job of this layer (1 the first) joins the queue; of an excess nobody else has to wait for it."""
        if not excess:
            self._debt = self.debt(now) + 1.0
            self._at = now
        self._all.add(now, self._window_s)
        if layer > 1:
            self._late.add(now, self._window_s)

    def gone(self, now: float) -> None:
        """A job that had joined leaves without having been served."""
        self._debt = max(0.0, self.debt(now) - 1.0)
        self._at = now

    def served(self, seconds: float, now: float) -> None:
        """An inference took so long."""
        self._debt, self._at = self.debt(now), now  # what has drained has drained at the old mean
        most = self.config.outlier * self.service_s
        cut, self._cut = 0.0 < most < seconds and not self._cut, 0.0 < most < seconds
        self._served += 1
        gain = max(self.config.gain, 1.0 / self._served)
        self.service_s += gain * ((most if cut else seconds) - self.service_s)

    def debt(self, now: float) -> float:
        """Z, jobs: the queue of a device that is `slack` slower than this one and has the same jobs to do."""
        return drained(self._debt, now - self._at, self.drain_hz)

    @property
    def drain_hz(self) -> float:
        """Jobs per second by which the debt falls; none before a first job was served."""
        return (1.0 - self.config.slack) * self._slots / self.service_s if self.service_s else 0.0

    def load(self, now: float) -> float:
        """ρ, measured: the work that comes per second of all slots."""
        return self._share(self._all, now)

    def late_load(self, now: float) -> float:
        """ρ_hi: the part of it that comes for layers after the first, aggregations among them."""
        return self._share(self._late, now)

    def _share(self, counted: Decayed, now: float) -> float:
        return counted.rate(now, self._window_s) * self.service_s / self._slots

    @property
    def _window_s(self) -> float:
        return self.config.window * self.service_s


def drained(debt: float, seconds: float, drain_hz: float) -> float:
    """What is left of a debt."""
    return max(0.0, debt - seconds * drain_hz)
