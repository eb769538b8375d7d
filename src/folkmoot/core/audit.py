"""Whether cards are true: now and then a peer gets a question of the origin's own making, as one more job like any other.

A card's figures are its device's word. Where enough answers to such questions show less than the card claims, for certain, its
figures are believed no more. Nothing of it is told to anybody: each origin knows what it has seen itself, by device and model: a device
that changes its model begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from folkmoot.core.decoys import draw
from folkmoot.core.events import Effect, Send
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId, JobId, draw_prompt_id, job_id
from folkmoot.core.messages import Answer, Ask, Cancel, Message, Piece, Stage, Turn, Undone
from folkmoot.core.record import MOST_DEVICES, Record
from folkmoot.core.skill import Probe, SkillClass, Tally, passed, tally
from folkmoot.errors import ConfigError

AUDITED = (SkillClass.ARITHMETIC, SkillClass.EXTRACTION)
"""The classes whose questions can be drawn anew."""
CERTAIN = 0.99
"""How sure it must be that a device is less able than so (guess): it is looked at again after each answer, and
its answers are drawn at a user's temperature, while its card was earned at 0."""
MOST_ANSWERS = 60
"""Answers of a class that count: beyond them all count half, so that a better model is seen as one in time (guess)."""
MOST_TEMPERATURE = 1.0
"""Above it answers are drawn so wildly that they say little of the model (guess)."""
MOST_TEXT = 16_384
"""Characters of an answer that are read (guess)."""


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Hidden questions to peers. So large a `share` of the first-layer jobs that go to others brings one to the same device, within
    `within_s` seconds (guess: its moment says nothing); 0: none.

    None goes to a device that has another one of them, has something to do, or claims nothing; none goes out while jobs wait
    here. An answer that is not there after `patience_s` seconds (guess) is waited for no more.
    """

    share: float = 0.0
    within_s: float = 120.0
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 0.1:
            raise ConfigError(f"audit.share is {self.share}; it is a share of the jobs from 0 to 0.1")
        if not 0.0 <= self.within_s <= 86_400.0:
            raise ConfigError(f"audit.within_s is {self.within_s}; it is from 0 to 86400 seconds")
        if not 1.0 <= self.patience_s <= 86_400.0:
            raise ConfigError(f"audit.patience_s is {self.patience_s}; it is from 1 to 86400 seconds")


@dataclass(slots=True)
class _Open:
    """A question that is not answered yet, and the card as it was when it was put."""

    job: JobId
    card: Card
    probe: Probe
    until: float
    text: str = ""


@dataclass
class Audits:
    """The questions of one origin, and what came of them."""

    config: AuditConfig
    rng: Random
    asked: int = 0
    _planned: tuple[DeviceId, Ask, float] | None = None
    _open: dict[DeviceId, _Open] = field(default_factory=dict)
    record: Record = field(default_factory=Record)

    def sent(self, ask: Ask, to: DeviceId, now: float) -> None:
        """A first-layer job has gone out: perhaps a question to the same device will follow, asked as that job was."""
        if self._planned is None and self.rng.random() < self.config.share:
            self._planned = to, ask, now + self.config.within_s * self.rng.random()

    def due(self, now: float) -> DeviceId | None:
        """Whose question should go out by now."""
        return self._planned[0] if self._planned is not None and self._planned[2] <= now else None

    def ask(self, card: Card, free: bool, now: float) -> Iterator[Effect]:
        """What was due goes to the device with this card, or is dropped where the time is not `free` for it."""
        assert self._planned is not None
        to, like, _ = self._planned
        self._planned = None
        old = self._open.get(to)
        claimed = [skill for skill in AUDITED if tally(card, skill).known]
        if not free or not claimed or (old is not None and now < old.until):
            return
        probe = draw(self.rng.choice(claimed), self.rng)
        sampling = like.inference.sampling
        if sampling.max_tokens < probe.tokens or sampling.temperature > MOST_TEMPERATURE:
            return
        if old is not None:
            yield Send(to, Cancel(self._open.pop(to).job))
        prompt = draw_prompt_id(self.rng)
        job = job_id(prompt, 1, self.rng.randint(1, max(1, like.inference.expected - 1)))
        inference = replace(
            like.inference,
            prompt=prompt,
            conversation=(Turn("user", probe.question),),
            sampling=replace(sampling, seed=self.rng.getrandbits(31)),
            begun="",
        )
        self._open[to] = _Open(job, card, probe, now + self.config.patience_s)
        while len(self._open) > MOST_DEVICES:
            del self._open[next(iter(self._open))]
        self.asked += 1
        yield Send(to, Ask(job, prompt, 1, Stage.PROPOSE, inference))

    def on_message(self, sender: DeviceId, message: Message) -> None:
        """A word about a job that may be a question's; an answer with a hole, or none, says nothing."""
        open_ = self._open.get(sender)
        if open_ is None or getattr(message, "job", None) != open_.job:
            return
        match message:
            case Piece(offset=offset, text=text) if offset <= len(open_.text):
                open_.text = (open_.text[:offset] + text)[:MOST_TEXT]
            case Answer(length=length, truncated=truncated):
                del self._open[sender]
                if len(open_.text) == min(length, MOST_TEXT):
                    right = passed(open_.probe, open_.text, truncated)
                    self.record.note(sender, open_.card, open_.probe.skill, right, MOST_ANSWERS)
            case Undone():
                del self._open[sender]
            case _:
                pass

    def lost(self, device: DeviceId, job: JobId | None = None) -> None:
        """Nothing more will come about a job, or from a device at all."""
        open_ = self._open.get(device)
        if open_ is not None and job in (None, open_.job):
            del self._open[device]

    def seen(self, device: DeviceId, card: Card, skill: SkillClass) -> Tally:
        """How a device, with the model of this card, has answered the questions of a class."""
        right, total = self.record.seen(device, card, skill)
        return Tally(int(right), int(total))

    def disproved(self, device: DeviceId, card: Card) -> list[SkillClass]:
        """The classes of which the card claims for certain more than what was seen for certain."""
        if not self.record.knows(device):
            return []
        return [
            skill
            for skill in AUDITED
            if (seen := self.seen(device, card, skill)).known
            and (claimed := tally(card, skill)).known
            and claimed.lower > seen.quantile(CERTAIN)
        ]

    def believed(self, device: DeviceId, card: Card) -> Card:
        """The card as far as it is believed: of one that claims too much what was seen itself, and nothing of other classes."""
        if not self.disproved(device, card):
            return card
        tallies = [self.seen(device, card, skill) for skill in SkillClass]
        return replace(card, right=tuple(t.right for t in tallies), total=tuple(t.total for t in tallies))

    def doubt(self, device: DeviceId, card: Card) -> str:
        """What is wrong with a card, for people; empty where nothing is known to be."""
        said = [
            f"{skill.value} {seen.right} of {seen.total} where its card has {claimed.right} of {claimed.total}"
            for skill in self.disproved(device, card)
            for seen, claimed in [(self.seen(device, card, skill), tally(card, skill))]
        ]
        return ", ".join(said)
