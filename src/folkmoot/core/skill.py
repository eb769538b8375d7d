"""How able a device's model is, by class of question: what the probes say, how sure that is, and what a vote weighs.

A probe is right or wrong, so a class is known as a Beta distribution: with the prior Beta(1, 1), which holds every skill to be
equally likely, r right and w wrong ones leave Beta(1 + r, 1 + w).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from folkmoot.core.extract import Kind, extract
from folkmoot.core.gossip import Card

SURE = 0.9
"""How sure a bound is, on its side (guess): of two that are equal one seems to lead in at most 8 of 100 cases, by 6 to 24 probes."""

LEAST = 5
"""Probes of a class below which nothing is said of it (guess): then the models' sizes say more."""

LIGHTEST, HEAVIEST = 0.25, 6.0
"""Bounds of a vote's log-odds: no probes make a vote worthless, or worth any number of others."""


class SkillClass(StrEnum):
    """What is probed apart. The order is that of a card's figures."""

    ARITHMETIC = "arithmetic"
    EXTRACTION = "extraction"
    CHOICE = "choice"
    INSTRUCTIONS = "instructions"
    CODE = "code"
    OPEN = "open"


CLASSES: dict[Kind, SkillClass] = {
    Kind.NUMBER: SkillClass.ARITHMETIC,
    Kind.LETTER: SkillClass.CHOICE,
    Kind.YES_NO: SkillClass.CHOICE,
    Kind.JSON: SkillClass.INSTRUCTIONS,
    Kind.CODE: SkillClass.CODE,
    Kind.SHORT: SkillClass.EXTRACTION,
    Kind.OPEN: SkillClass.OPEN,
}
"""Which class a question belongs to, by what it wants."""

CHANCE: dict[Kind, float] = {Kind.LETTER: 0.25, Kind.YES_NO: 0.5}
"""How often somebody who knows nothing is right."""
FREE_CHANCE = 0.05
"""The same where anything can be said (guess): it also says how often two that are wrong say the same."""

TOKENS: dict[SkillClass, int] = {SkillClass.ARITHMETIC: 256, SkillClass.CODE: 96}
"""Tokens of an answer to a probe of a class; of the others `FEW_TOKENS` (a guess). At 128 tokens Qwen 0.5B had not come to the end of its
working in most of arithmetic, and was wrong for its length alone."""
FEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Tally:
    """Of `total` probes `right` were answered right."""

    right: int = 0
    total: int = 0

    @property
    def known(self) -> bool:
        """Whether there are enough of them to say something."""
        return self.total >= LEAST

    @property
    def mean(self) -> float:
        """The mean of the skill's distribution: between 0 and 1, neither of them reached."""
        return (self.right + 1) / (self.total + 2)

    @property
    def lower(self) -> float:
        """The skill is above this with the probability `SURE`."""
        return self.quantile(1.0 - SURE)

    @property
    def upper(self) -> float:
        """The skill is below this with the probability `SURE`."""
        return self.quantile(SURE)

    def quantile(self, share: float) -> float:
        """The skill is below this with the probability `share`."""
        return _quantile(self.right, self.total, share)


@lru_cache(maxsize=1 << 12)
def _quantile(right: int, total: int, share: float) -> float:
    """The value below which `share` of Beta(1 + right, 1 + total − right) lies, within 1e-9.

    With whole numbers its distribution is a binomial's tail: P(X <= x) = P(Bin(total + 1, x) >= right + 1).
    """
    low, high = 0.0, 1.0
    for _ in range(30):
        x = (low + high) / 2.0
        tail = sum(
            math.comb(total + 1, k) * x**k * (1.0 - x) ** (total + 1 - k) for k in range(right + 1, total + 2)
        )
        low, high = (x, high) if tail < share else (low, x)
    return (low + high) / 2.0


def leads(one: Tally, other: Tally) -> bool:
    """Whether one is the abler for certain: its lower bound lies above the other's upper bound. Else they are alike."""
    return one.lower > other.upper


def tally(card: Card, skill: SkillClass) -> Tally:
    """What a card says of a class."""
    place = list(SkillClass).index(skill)
    return Tally(card.right[place], card.total[place]) if card.total else Tally()


def compared(one: Card, other: Card, skill: SkillClass) -> bool:
    """Whether two cards can be compared in a class: both were asked the same, and enough."""
    return one.probes == other.probes and tally(one, skill).known and tally(other, skill).known


def log_odds(skill: float, kind: Kind) -> float:
    """What a vote says, in nats: the log-odds of its voter's skill (between 0 and 1) over those of chance, within bounds.

    Voters that err independently, and to each wrong answer alike, are best added up so: log(p (K − 1) / (1 − p)) with
    K = 1/chance answers to choose from (Nitzan and Paroush 1982 for K = 2).
    """
    chance = CHANCE.get(kind, FREE_CHANCE)
    odds = math.log(skill / (1.0 - skill)) - math.log(chance / (1.0 - chance))
    return min(max(odds, LIGHTEST), HEAVIEST)


def weights(skills: Sequence[float], kind: Kind) -> tuple[float, ...]:
    """What the votes of a committee's members weigh: their log-odds, with the mean 1."""
    odds = [log_odds(skill, kind) for skill in skills]
    mean = math.fsum(odds) / len(odds) if odds else 1.0
    return tuple(each / mean for each in odds)


# ---- probes --------------------------------------------------------------------------------------------


class How(StrEnum):
    """How an answer to a probe is compared with what is right: as `extract` reads it, or as it is.

    `HOLDS`: that stands in it as words of their own, in any case. `EXACTLY`: it is that and nothing else.
    """

    NUMBER = Kind.NUMBER.value
    LETTER = Kind.LETTER.value
    YES_NO = Kind.YES_NO.value
    JSON = Kind.JSON.value
    HOLDS = "holds"
    EXACTLY = "exactly"


@dataclass(frozen=True, slots=True)
class Probe:
    """A question whose answer can be checked. Any of `answers` is right; what has to hold it may hold none of `lacks`."""

    id: str
    skill: SkillClass
    question: str
    answers: tuple[str, ...]
    how: How
    lacks: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """How long its answer may be."""
        return TOKENS.get(self.skill, FEW_TOKENS)


def passed(probe: Probe, answer: str, truncated: bool = False) -> bool:
    """Whether an answer to a probe is right."""
    match probe.how:
        case How.HOLDS:
            said = " ".join(answer.casefold().split())
            right = any(_stands_in(each, said) for each in probe.answers)
            return right and not any(_stands_in(each, said) for each in probe.lacks)
        case How.EXACTLY:
            return " ".join(answer.split()).strip("\"'`") in probe.answers
        case _:
            return extract(Kind(probe.how.value), answer, truncated) in probe.answers


def _stands_in(words: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text) is not None
