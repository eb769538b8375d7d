"""What a device measures of itself: its service time, the work that comes, and its virtual debt.

Units: seconds, jobs, jobs per second. Source: ADMISSION.md, The policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import TOLD, Stage, Usage

_MOST_SHARES = 256
_PLACES = {stage: place for place, stage in enumerate(TOLD)}


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """How quickly a device believes what it sees.

    `gain` of the mean service time, which is the plain mean of the first 1/`gain` jobs (ADMISSION.md: 0.02 is too slow
    behind a step). A job that took more than `outlier` times the mean counts for that much; as much of the rest as another
    such one has counts when that comes within `recalls`/`gain` jobs, as then such jobs belong to the load (guesses: of
    exponential services one in 3,000 is cut). Rates are means over the last `window` mean services. `slack` is how much slower than the device its debt drains: it holds the load of what is admitted below 1 − slack. Another device may ask
    for `share`/n of this one's time, n the devices of the moot, and `burst` jobs of mean length at once (guesses); what it
    asks for beyond that is its excess. A job counts as one of mean length until its service is over, and then for the time
    that it took. 0 sets no such limit.
    """

    gain: float = 0.05
    outlier: float = 8.0
    recalls: float = 10.0
    window: float = 50.0
    slack: float = 0.05
    share: float = 0.0
    burst: float = 16.0


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


@dataclass(frozen=True, slots=True)
class StageMean:
    """What a stage's jobs are like here: smoothed means of one inference's seconds and tokens, and jobs that come per second.

    `tokens_in` is the whole input, of which `tokens_cached` were not evaluated again.
    """

    stage: Stage
    jobs: int
    service_s: float
    tokens_in: float
    tokens_cached: float
    tokens_out: float
    rate_hz: float


class _Mean:
    """A smoothed mean that one outlier moves little. What was cut is made up for as soon as another one comes."""

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0
        self._cut = 0.0
        self._at = 0

    def add(self, seen: float, config: MeterConfig) -> None:
        self.count += 1
        gain = max(config.gain, 1.0 / self.count)
        most = config.outlier * self.value
        if 0.0 < most < seen:
            over = seen - most
            if (self.count - self._at) * config.gain > config.recalls:
                self._cut = 0.0
            back = min(self._cut, over)
            seen, self._cut, self._at = most + back, self._cut + over - back, self.count
        self.value += gain * (seen - self.value)


class _StageMeter:
    """One stage's means and arrivals; `late` are those of layers after the first."""

    def __init__(self) -> None:
        self.seconds, self.tokens_in, self.cached, self.out = _Mean(), _Mean(), _Mean(), _Mean()
        self.reading = _Mean()
        self.all, self.late = Decayed(), Decayed()

    def served(self, usage: Usage, config: MeterConfig) -> None:
        self.seconds.add(usage.inference_s, config)
        self.reading.add(usage.first_token_s or usage.inference_s, config)
        for mean, seen in (
            (self.tokens_in, usage.tokens_in),
            (self.cached, usage.tokens_cached),
            (self.out, usage.tokens_out),
        ):
            mean.add(float(seen), config)

    def within_s(self, max_tokens: int) -> float:
        """What an inference takes that writes `max_tokens` at most: all of its reading, and a share of its writing."""
        reading = min(self.reading.value, self.seconds.value)
        share = min(1.0, max_tokens / self.out.value) if self.out.value else 1.0
        return reading + share * (self.seconds.value - reading)


class Meter:
    """The measurements of one device whose engine serves `slots` jobs at a time.

    `jobs` have been served here; with those that came to nothing they took `busy_s` seconds of its slots together.
    Stages have means of their own, as later ones read more; what has not been served here yet counts as the mean of all.
    """

    def __init__(self, config: MeterConfig, slots: int = 1) -> None:
        self.config = config
        self.slots = slots
        self.jobs = 0
        self.busy_s = 0.0
        self._seconds = _Mean()
        self._debt = 0.0
        self._at = 0.0
        self._stages = {stage: _StageMeter() for stage in Stage}
        self._shares: dict[DeviceId, tuple[float, float]] = {}

    @property
    def service_s(self) -> float:
        """The smoothed mean of what inferences took here, all stages together, 0 before the first."""
        return self._seconds.value

    def stages(self, now: float) -> Sequence[StageMean]:
        """What is known of each stage of which a job has been served here."""
        return [
            StageMean(
                stage, one.seconds.count, one.seconds.value, one.tokens_in.value, one.cached.value, one.out.value,
                one.all.rate(now, self._window_s),
            )
            for stage, one in self._stages.items()
            if one.seconds.count
        ]  # fmt: skip

    @property
    def each_stage_s(self) -> tuple[float, ...]:
        """The smoothed mean of what inferences of each stage took here, in the order of `TOLD`; 0 before a first."""
        return tuple(self._stages[stage].seconds.value for stage in TOLD)

    def stages_within_s(self, max_tokens: int) -> tuple[float, ...]:
        """The same of inferences that may write so many tokens at most."""
        return tuple(self._stages[stage].within_s(max_tokens) for stage in TOLD)

    def take(self, origin: DeviceId, devices: int, here: int, now: float) -> float | None:
        """Seconds that one more job of a device is counted for until it is known what it takes; None beyond its share.

        `here` of its jobs are here already: before a first one was served they alone count.
        """
        config, service_s = self.config, self.service_s
        if not config.share:
            return 0.0
        if not service_s:
            return 0.0 if here < config.burst else None
        if len(self._shares) >= _MOST_SHARES:  # who has nothing to give back needs no entry
            self._shares = {o: s for o, s in self._shares.items() if self._used(o, devices, now)}
        used = self._used(origin, devices, now) + service_s
        if used > config.burst * service_s:
            return None
        self._shares[origin] = used, now
        return service_s

    def settle(self, origin: DeviceId, more_s: float, devices: int, now: float) -> None:
        """A job within a device's share has ended: it took so many seconds more than it was counted for."""
        if self.config.share:
            self._shares[origin] = max(0.0, self._used(origin, devices, now) + more_s), now

    def _used(self, origin: DeviceId, devices: int, now: float) -> float:
        """Seconds that a device has taken of its share and time has not given back."""
        used, at = self._shares.get(origin, (0.0, now))
        drain = (1.0 - self.config.slack) * self.slots * self.config.share / max(1, devices)
        return drained(used, now - at, drain)

    def joined(self, stage: Stage, layer: int, now: float, *, excess: bool = False) -> None:
        """A job of this stage and layer (1 the first) joins the queue; of an excess nobody else has to wait for it."""
        if not excess:
            self._debt = self.debt(now) + 1.0
            self._at = now
        one = self._stages[stage]
        one.all.add(now, self._window_s)
        if layer > 1 and not excess:
            one.late.add(now, self._window_s)

    def gone(self, now: float) -> None:
        """A job that had joined leaves without having been served."""
        self._debt = max(0.0, self.debt(now) - 1.0)
        self._at = now

    def served(self, stage: Stage, usage: Usage, now: float) -> None:
        """An inference has cost so much."""
        self._debt, self._at = self.debt(now), now  # what has drained has drained at the old mean
        self.jobs += 1
        self.busy_s += usage.inference_s
        self._seconds.add(usage.inference_s, self.config)
        self._stages[stage].served(usage, self.config)

    def wasted(self, seconds: float) -> None:
        """So many seconds of a slot went into a job that came to nothing."""
        self.busy_s += seconds

    def cut(self, stage: Stage, seconds: float, *, own: bool) -> None:
        """An inference was taken back after so long. Without it only the short ones would count where many end at a deadline.

        One for this device's `own` prompts counts as what it would have taken, the mean more than that with exponential
        service (too much where services vary less); another device's as what it has taken, where that is above the mean:
        nobody makes a stage seem slower than what their jobs have cost.
        """
        one = self._stages[stage].seconds
        usual = one.value or self.service_s
        if usual and (own or seconds > usual):
            one.add(seconds + usual if own else seconds, self.config)

    def debt(self, now: float) -> float:
        """Z, jobs: the queue of a device that is `slack` slower than this one and has the same jobs to do."""
        return drained(self._debt, now - self._at, self.drain_hz)

    @property
    def drain_hz(self) -> float:
        """Jobs per second by which the debt falls; none before a first job was served."""
        return (1.0 - self.config.slack) * self.slots / self.service_s if self.service_s else 0.0

    def load(self, now: float) -> float:
        """ρ, measured: the work that comes per second of all slots, Σ λ_stage α_stage / slots."""
        return self._work([(one, one.all) for one in self._stages.values()], now)

    def late_load(self, now: float) -> float:
        """ρ_hi: the part of it that comes for layers after the first, aggregations among them."""
        return self._work([(one, one.late) for one in self._stages.values()], now)

    def _work(self, stages: Iterable[tuple[_StageMeter, Decayed]], now: float) -> float:
        total, mean_s, window_s = 0.0, self.service_s, self._window_s
        if not window_s:
            return total
        for one, counted in stages:
            service_s = one.seconds.value if one.seconds.count else mean_s
            total += counted.rate(now, window_s) * service_s / self.slots
        return total

    @property
    def _window_s(self) -> float:
        return self.config.window * self.service_s


def stage_s(stages: Sequence[float], stage: Stage) -> float:
    """The mean of a stage out of `Meter.each_stage_s`; 0 where it is not known."""
    return stages[_PLACES[stage]] if stages and stage in _PLACES else 0.0


def drained(debt: float, seconds: float, drain: float) -> float:
    """What is left of a debt that falls by `drain` a second."""
    return max(0.0, debt - seconds * drain)
