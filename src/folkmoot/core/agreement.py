"""What votes say of their voters: an answer that the others share was probably right, one that stands against them was not.

Probes are few and easier than much that is asked, so where members vote on an answer that can be compared their agreement is counted
beside the probes, as a fraction of one each. Only where at least `SURE_MEMBERS` are better than chance for certain, by their probes: from
agreement alone the wrong member comes out as the best where most are weak. It stays where it was seen: gossiped, it would let a
member talk another one's skill down.

How sure a vote makes an answer is reckoned with one and the same skill for all who vote, the mean of what their probes say. So nobody
confirms itself by what it claims, and the sum over many votes is that skill where all have it, whenever the vote was ended: a
committee stops as soon as two agree, and to count those who agree as right and the others as wrong would find too many right. (Dawid
and Skene 1979 go on with each member's own skill, in rounds: with two or three answers a prompt that would be to believe the claims.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from folkmoot.core.extract import Kind
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId
from folkmoot.core.record import Record
from folkmoot.core.skill import CHANCE, CLASSES, FREE_CHANCE, SkillClass, Tally, tally

SURE_MEMBERS = 3
MOST_VOTES = 60
"""Votes of a class that count: beyond them all count half, so that what changes is seen (guess)."""
MOST_SHARE = 0.5
"""Votes count for so many of a card's probes at most (guess): two who lie together win some votes, and sink nobody by it."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one member said: None where nothing could be read or it is in doubt, and nobody's vote is to be known by it."""

    device: DeviceId
    card: Card
    value: str | None


def better_than_chance(known: Tally, kind: Kind) -> bool:
    """Whether a member's probes show for certain that it knows more than somebody who guesses."""
    return known.known and known.lower > CHANCE.get(kind, FREE_CHANCE)


def likely(values: Sequence[str], skill: float, kind: Kind) -> list[float]:
    """How likely each of the answers is right where all who gave them are right as often, `skill`, and err independently.

    With K = 1/chance possible answers, wrong ones equally likely, and o = skill (K − 1) / (1 − skill): what c of them say is right with
    o^c against o^d of another one, and 1 for each of the answers that nobody gave. Empty where two answers with two voters or more
    have the same number: two parties, and nothing tells which is right.
    """
    answers = 1.0 / CHANCE.get(kind, FREE_CHANCE)
    odds = skill * (answers - 1.0) / (1.0 - skill)
    counts = Counter(values)
    first = counts.most_common(2)
    if len(values) < 2 or (len(first) == 2 and first[0][1] == first[1][1] >= 2):
        return []
    weights = {value: odds**count for value, count in counts.items()}
    whole = sum(weights.values()) + max(0.0, answers - len(counts))
    return [weights[value] / whole for value in values]


@dataclass
class Agreements:
    """What one origin has seen of its committees. A vote counts `share` of a probe; 0: nothing is seen, and nothing added."""

    share: float = 0.0
    record: Record = field(default_factory=Record)

    def note(self, ballots: Sequence[Ballot], kind: Kind) -> None:
        """A committee has voted. Of a device that voted several times the first vote counts; who has none yet stands there without."""
        if not self.share:
            return
        skill = CLASSES[kind]
        members = {each.device: each for each in reversed(ballots)}
        known = {device: tally(each.card, skill) for device, each in members.items()}
        sure = [each for device, each in members.items() if better_than_chance(known[device], kind)]
        if len(sure) < SURE_MEMBERS:
            return
        mean = fmean(known[each.device].mean for each in sure)
        votes = [(each, each.value) for each in sure if each.value is not None]
        for (each, _), right in zip(votes, likely([value for _, value in votes], mean, kind), strict=False):
            self.record.note(each.device, each.card, skill, right, MOST_VOTES)

    def added(self, device: DeviceId, card: Card) -> Card:
        """A card with what was seen of its device's votes beside its probes; one without probes stays as it is."""
        row = self.record.row(device, card) if card.total else None
        if row is None:
            return card
        both = [
            _with(tally(card, skill), right, votes, self.share)
            for skill, right, votes in zip(SkillClass, row.right, row.total, strict=True)
        ]
        return replace(
            card, right=tuple(each.right for each in both), total=tuple(each.total for each in both)
        )


def _with(probes: Tally, right: float, votes: float, share: float) -> Tally:
    """Probes and votes together, in whole probes."""
    count = min(share * votes, MOST_SHARE * probes.total)
    more = int(count)
    return Tally(probes.right + round(more * right / votes), probes.total + more) if more else probes
