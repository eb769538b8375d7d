"""What an origin has seen of its peers' answers: who agrees with the others, whose words survive, who harms.

Each origin keeps its own books; nothing of it is gossiped, so nobody can be slandered. Two decayed counters a
device, as of a Beta distribution: answers that did harm, and answers that did not. And what the origin has timed
itself of a device's jobs, which bounds what the device says of its load.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from folkmoot.core.ids import DeviceId
from folkmoot.errors import ConfigError

MOST_DEVICES = 4_096
_GONE = 0.01
"""Of answers: a record of less is as good as forgotten, and not kept."""
_LOOKED_AT = 20_000
"""Characters of an answer that are compared."""
_TERM = re.compile(r"[^\W_]+")
_LEAST_TERM = 4
"""Letters of a word that says something; shorter ones must hold a digit or be of a script without spaces."""
_LEAST = 3
"""Answers below which nobody is judged: of two that differ either may be wrong."""
_AGREED = 0.2
"""The agreement of a layer's answers, pair by pair, below which the question has no common answer and nobody is judged."""
_GAIN = 0.3
"""Of what is timed (guess): ten jobs make an estimate."""
_HARM, _NONE = 0.25, 0.5
"""A share of what the others reach: below the first an answer did harm, from the second on none."""


@dataclass(frozen=True, slots=True)
class ReputeConfig:
    """When a device is asked no more for its answers. All values are guesses.

    `prior` harmless answers are credited to everybody. A device whose harmful answers are more than `harmful` of all is
    asked no more. Half of what was seen is forgotten after `half_life_s` seconds, and no more than `most` answers count:
    so the way back is open to everybody. After `timed` jobs a device's word on its load is believed down to 1/`claims` of
    what was timed, its queue as it drains since.
    """

    enabled: bool = False
    prior: float = 3.0
    harmful: float = 0.7
    half_life_s: float = 3_600.0
    most: float = 32.0
    timed: int = 3
    claims: float = 2.0

    def __post_init__(self) -> None:
        if not (self.prior > 0.0 and 0.0 < self.harmful < 1.0 and self.half_life_s > 0.0 and self.most > 0.0):
            raise ConfigError(
                "repute: prior, half_life_s and most are more than 0, harmful lies between 0 and 1"
            )
        if not self.claims >= 1.0:
            raise ConfigError(f"repute.claims is {self.claims}; it is 1 or more")


@dataclass(frozen=True, slots=True)
class Judged:
    """What is left of a device's answers at a moment: those that did harm and those that did not, as counts."""

    device: DeviceId
    harm: float
    good: float


@dataclass(frozen=True, slots=True)
class Timed:
    """What a device's jobs took: seconds that a new one would wait, seconds of a service, and how many were timed."""

    device: DeviceId
    wait_s: float
    service_s: float
    jobs: int


@dataclass(frozen=True, slots=True)
class Books:
    """All that an origin has seen of its peers, as of one moment; in both lists those seen last stand last."""

    judged: tuple[Judged, ...] = ()
    timed: tuple[Timed, ...] = ()

    @property
    def plausible(self) -> bool:
        """Whether these can be anybody's books: finite counts and times, none of them negative."""
        figures = [figure for each in self.judged for figure in (each.harm, each.good)]
        figures += [figure for each in self.timed for figure in (each.wait_s, each.service_s, each.jobs)]
        return all(math.isfinite(figure) and figure >= 0.0 for figure in figures)


@dataclass(slots=True)
class _Record:
    harm: float
    good: float
    at: float


@dataclass(slots=True)
class _Times:
    wait_s: float
    service_s: float
    at: float
    jobs: int = 1


class Repute:
    """The books of one origin. `shunned`: who is asked no more, with the reason, as of the last look.

    `changes` counts what was written into them.
    """

    def __init__(self, config: ReputeConfig | None = None) -> None:
        self.config = config or ReputeConfig()
        self.shunned: dict[DeviceId, str] = {}
        self.changes = 0
        self._records: dict[DeviceId, _Record] = {}
        self._times: dict[DeviceId, _Times] = {}
        self._now = 0.0

    @property
    def enabled(self) -> bool:
        """Whether books are kept at all."""
        return self.config.enabled

    def note(self, device: DeviceId, harm: float, now: float) -> None:
        """An answer of a device was so harmful, 0 to 1, seen at `now` seconds."""
        if not self.enabled:
            return
        self.changes += 1
        record = self._records.pop(device, None) or _Record(0.0, 0.0, now)
        self._age(record, now)
        record.harm += harm
        record.good += 1.0 - harm
        self._enter(device, record)

    def _enter(self, device: DeviceId, record: _Record) -> None:
        over = (record.harm + record.good) / self.config.most
        if over > 1.0:
            record.harm, record.good = record.harm / over, record.good / over
        self._records[device] = record  # the one judged last stands last
        if len(self._records) > MOST_DEVICES:
            oldest = next(iter(self._records))
            del self._records[oldest]
            self.shunned.pop(oldest, None)
        self._judge(device, record)

    def books(self, now: float) -> Books:
        """What stands in the books at `now`, to be taken up again later; what is forgotten is left out."""
        judged = []
        for device, record in self._records.items():
            self._age(record, now)
            if record.harm + record.good >= _GONE:
                judged.append(Judged(device, record.harm, record.good))
        timed = [
            Timed(device, max(0.0, times.wait_s - (now - times.at)), times.service_s, times.jobs)
            for device, times in self._times.items()
        ]
        return Books(tuple(judged), tuple(timed))

    def take_up(self, books: Books, age_s: float, now: float) -> None:
        """Go on, at `now`, with books that were taken out `age_s` seconds ago: so long they were forgotten further."""
        if not self.enabled:
            return
        age_s = max(0.0, age_s)
        for judged in books.judged:
            record = _Record(judged.harm, judged.good, now - age_s)
            self._age(record, now)
            self._enter(judged.device, record)
        for timed in books.timed:
            self._times[timed.device] = _Times(timed.wait_s, timed.service_s, now - age_s, timed.jobs)
        self._trim()
        self._now = max(self._now, now)

    def time(self, device: DeviceId, wait_s: float, service_s: float, now: float) -> None:
        """A job of a device waited and was served so long by this origin's clock, as of now."""
        if not self.enabled:
            return
        self._now = now
        self.changes += 1
        old = self._times.pop(device, None)
        if old is None:
            self._times[device] = _Times(wait_s, service_s, now)
        else:
            wait_s = old.wait_s + _GAIN * (wait_s - old.wait_s)
            service_s = old.service_s + _GAIN * (service_s - old.service_s)
            self._times[device] = _Times(wait_s, service_s, now, old.jobs + 1)
        self._trim()

    def _trim(self) -> None:
        while len(self._times) > MOST_DEVICES:
            del self._times[next(iter(self._times))]

    def floor(self, device: DeviceId) -> tuple[float, float]:
        """What a device's word is not believed below: seconds of a service, and jobs that wait before a new one."""
        times = self._times.get(device)
        if times is None or times.jobs < self.config.timed or not times.service_s:
            return 0.0, 0.0
        waiting = max(0.0, times.wait_s - (self._now - times.at)) / times.service_s
        return times.service_s / self.config.claims, waiting / self.config.claims

    def look(self, now: float) -> None:
        """Forget what is long ago: who was held harmful may be asked again."""
        self._now = now
        for device in list(self.shunned):
            record = self._records[device]
            self._age(record, now)
            self._judge(device, record)

    def harm(self, device: DeviceId) -> float:
        """The share of a device's answers that did harm, 0 to 1; 0 where nothing was seen."""
        record = self._records.get(device)
        if record is None:
            return 0.0
        return record.harm / (record.harm + record.good + self.config.prior)

    def _age(self, record: _Record, now: float) -> None:
        left = 0.5 ** (max(0.0, now - record.at) / self.config.half_life_s)
        record.harm, record.good, record.at = record.harm * left, record.good * left, now

    def _judge(self, device: DeviceId, record: _Record) -> None:
        if self.harm(device) > self.config.harmful:
            whole = record.harm + record.good
            self.shunned[device] = f"{record.harm:.1f} of its last {whole:.1f} answers did harm"
        else:
            self.shunned.pop(device, None)


def harms(question: str, own: str, answers: Sequence[str], final: str) -> list[float | None]:
    """How harmful each answer of a layer was, 0 to 1; None where nobody can say.

    An answer is held against what the others reach among themselves: its agreement with the origin's `own` answer or,
    if that is more, with all others, and the share of it that is in the `final` answer. The better of the two counts: one
    who is right against all others and is heard did no harm. Fewer than three answers, or such as do not agree,
    judge nobody.
    """
    asked = terms(question)
    said = [terms(answer) - asked for answer in answers]
    mine, end = terms(own) - asked, terms(final) - asked
    # One measure for the whole layer: judged each by the others alone, those who differ would be judged more often than
    # those who agree, and answers of a word or two that agree by chance would condemn the honest.
    pairs = {pair: alike(said[pair[0]], said[pair[1]]) for pair in combinations(range(len(said)), 2)}
    if len(said) < _LEAST or fmean(pairs.values()) < _AGREED:
        return [None] * len(said)
    within = [_within(each, end) for each in said]
    found: list[float | None] = []
    for place, each in enumerate(said):
        others = [at for at, other in enumerate(said) if at != place and other]
        reach = fmean([pairs[pair] for pair in combinations(others, 2)] or [0.0])
        if not each or not reach:
            found.append(None)
            continue
        agrees = max(alike(each, mine), fmean(pairs[min(place, at), max(place, at)] for at in others)) / reach
        stays = fmean(within[at] for at in others)
        lives = within[place] / stays if stays else float(bool(each & end))
        found.append(min(1.0, max(0.0, (_NONE - max(agrees, lives)) / (_NONE - _HARM))))
    return found


def terms(text: str) -> frozenset[str]:
    """The words of a text that say something: long ones, numbers, and pairs of signs where no spaces are written."""
    found: set[str] = set()
    for word in _TERM.findall(text[:_LOOKED_AT].casefold()):
        if ord(word[0]) >= 0x2E80:
            found.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) >= _LEAST_TERM or any(sign.isdigit() for sign in word):
            found.add(word)
    return frozenset(found)


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    """How much of the shorter of two sets is in the other, 0 to 1."""
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0


def _within(one: frozenset[str], whole: frozenset[str]) -> float:
    return len(one & whole) / len(one) if one else 0.0
