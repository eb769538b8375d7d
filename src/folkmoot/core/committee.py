"""When answers that can be compared need no aggregation: ask a few, and stop where enough of them say the same.

Source of the defaults: four drafts of one 1.5B model on GSM8K (`bench/waves.py`; docs/log.md has its figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.core.extract import Kind
from folkmoot.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CommitteeConfig:
    """Voting in mode auto. `waves` are how many are asked at first and then, while they disagree, how many more. All are asked
    at once where that costs less than `rush` points by the prices: at rest a job less is worth less than the time that it takes to wait
    for the others (0.37 times that of four votes one after another instead of 0.56, `bench/waves.py`). 0: never.

    `agree` votes for the same end it. Of two devices one leads where its probes prove it (`core.skill`) or, where those cannot be
    compared, its model is `leader` times as large, if both tell a size. Members are alike where none leads another one; one that
    leads all others answers alone.

    So many points more than one answer (M = 0) are 1, 2, 3, … votes worth (`gains`; those of a 1.5B model on
    121 questions of GSM8K, `bench/waves.py`): by them the prices settle how many may be asked. A leader answers several times, one more after another
    until `agree` of its answers say the same, where it has the time.
    Where few answers are possible (a letter, yes or no) wrong ones agree as well: votes are held there by members that are right in
    a share `able` of their probes or more or, where these tell nothing, whose models are of `able_size` (guess) or tell no size; else one
    answers alone. Right in 22 % of BIG-Bench-Hard
    votes of a 1.5B model gained 2 points there, and 1 on its letters (`bench/waves.py --kind letter`), and from about 45 % on voting pays
    (arXiv 2508.02209). 0: they are always held.
    Open answers cannot be voted on: from a mean similarity of `similar` on (`medoid`) the one that the others are most like stands and
    nobody aggregates; 0 means always, 1 or more never. 0.75 is passed by one prompt in twenty of AlpacaEval
    with the paper's four models (`bench/questions.py`).
    What a vote on an answer that can be compared says of its voters is added to what their cards say, for this device alone (`agreement`): each
    vote counts `agreement` of a probe (guess: members of one moot err together more often than those who vote independently would). 0: nothing is added.
    """

    enabled: bool = False
    waves: tuple[int, ...] = (3, 1)
    agree: int = 2
    rush: float = 1.0
    leader: float = 1.5
    similar: float = 0.75
    able: float = 0.45
    able_size: float = 3.0
    gains: tuple[float, ...] = (0.0, 0.0, 5.8, 9.0)
    agreement: float = 0.25

    def __post_init__(self) -> None:
        if not self.waves or any(not 1 <= each <= 64 for each in self.waves) or self.waves[0] < self.agree:
            raise ConfigError(
                f"committee.waves is {self.waves}: each is 1 to 64, the first at least agree = {self.agree}"
            )
        if not self.rush >= 0.0:
            raise ConfigError(f"committee.rush is {self.rush}: it is points, 0 or more")
        if self.agree < 2:
            raise ConfigError(f"committee.agree is {self.agree}: one vote agrees with nobody, 2 or more do")
        if not self.similar >= 0.0:
            raise ConfigError(f"committee.similar is {self.similar}: it is a similarity, 0 or more")
        if not self.gains or not all(0.0 <= each < 1e6 for each in self.gains):
            raise ConfigError(f"committee.gains is {self.gains}: points of 1, 2, … votes, 0 or more each")
        if not 0.0 <= self.able <= 1.0 or not self.able_size >= 0.0:
            raise ConfigError(
                f"committee.able is {self.able}, a share from 0 to 1, and able_size {self.able_size}, 0 or more"
            )
        if not 0.0 <= self.agreement <= 1.0:
            raise ConfigError(
                f"committee.agreement is {self.agreement}: it is a share of a probe from 0 to 1"
            )
        if not self.leader >= 1.0:
            raise ConfigError(f"committee.leader is {self.leader}: it is a ratio of skills, 1 or more")

    @property
    def most(self) -> int:
        """How many are asked at most."""
        return sum(self.waves)

    def waves_at(self, cost: float) -> tuple[int, ...]:
        """How many are asked one after another where all of them cost so many points."""
        return (self.most,) if cost < self.rush else self.waves

    def gain(self, votes: int) -> float:
        """Points that so many votes are worth more than one."""
        return self.gains[min(votes, len(self.gains)) - 1]


@dataclass(frozen=True, slots=True)
class Committee:
    """A prompt's committee: what is compared, how many are asked in each wave, how many must agree."""

    kind: Kind
    waves: tuple[int, ...]
    agree: int

    @property
    def most(self) -> int:
        """How many are asked at most."""
        return sum(self.waves)


LIGHT = 0.75
"""Votes that agree are enough where they weigh so much of what as many of mean skill do (guess): alike members differ a little
in their probes, and two of them that weigh 0.97 each need no third."""

DOUBTED = 0.5
"""What a vote weighs that the screen doubts (guess): a copy of another answer confirms nothing."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one answer says; None where nothing could be read in it. `trust` is 1 unless there is a doubt; `skill` what is known of
    its voter's, 1 in the mean of a committee's members. It counts as much as their product."""

    value: str | None
    trust: float = 1.0
    skill: float = 1.0

    @property
    def weight(self) -> float:
        """How much it counts."""
        return self.trust * self.skill


@dataclass(frozen=True, slots=True)
class Count:
    """Who won: the value, the place of the vote whose text is the answer, its votes, all that could be read, its weight."""

    value: str
    best: int
    votes: int
    read: int
    weight: float


def count(votes: Sequence[Vote]) -> Count | None:
    """The value with the most weight, among equals the one that was there first; None where nothing could be read.

    Its answer is that of the heaviest vote for it, among equals the first.
    """
    sums: dict[str, float] = {}
    for vote in votes:
        if vote.value is not None:
            sums[vote.value] = sums.get(vote.value, 0.0) + vote.weight
    if not sums:
        return None
    value = max(sums, key=sums.__getitem__)
    places = [place for place, vote in enumerate(votes) if vote.value == value]
    best = max(places, key=lambda place: votes[place].weight)
    return Count(value, best, len(places), sum(1 for vote in votes if vote.value is not None), sums[value])


def settled(committee: Committee, votes: Sequence[Vote]) -> Count | None:
    """The result where enough votes agree on it, a doubted one being half a vote, and not the unskilled alone; else None."""
    found = count(votes)
    if found is None:
        return None
    agree = sum(vote.trust for vote in votes if vote.value == found.value)
    enough = agree >= committee.agree and found.weight >= LIGHT * committee.agree
    return found if enough else None


def jobs(waves: Sequence[int], undecided: Sequence[float]) -> float:
    """[E] Jobs per prompt: w₀ + Σ wᵢ uᵢ₋₁, where after wave i a share uᵢ of prompts is not decided.

    `undecided` has one share for each wave but the last. There is no aggregation; with one it would be one more.
    """
    if len(undecided) != len(waves) - 1:
        raise ValueError(f"{len(waves)} waves need {len(waves) - 1} shares, not {len(undecided)}")
    return waves[0] + sum(w * u for w, u in zip(waves[1:], undecided, strict=True))
