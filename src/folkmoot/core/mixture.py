"""One prompt's life at its origin: layers of jobs, their answers, the aggregation, the end.

Source: arXiv 2412.21200, Algorithm 1, as PROTOCOL.md decides it. The origin's own jobs take the same
road as its peers': an `Ask` to itself.

    accept → layer 1 → … → layer M → aggregate → answered
       └────────┴───────────┴───────────┴──────→ failed

Between a layer and what comes next a judge may say which of its answers go on, and that no further layer is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from string import ascii_lowercase
from typing import assert_never

from folkmoot.core.choice import Choice, Resolved, asked_last, stage_of
from folkmoot.core.committee import DOUBTED as DOUBTED_VOTE
from folkmoot.core.committee import Count, Vote, count, settled
from folkmoot.core.events import (
    Advanced,
    Announce,
    AnswerText,
    Asked,
    DeadlineTimer,
    Decision,
    DeviceRow,
    Effect,
    Headway,
    JobProgress,
    JobRecord,
    LateTimer,
    PollTimer,
    Prompt,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Proposal,
    Provenance,
    Round,
    Send,
    SetTimer,
)
from folkmoot.core.extract import extract, kind_of
from folkmoot.core.floor import Text, below, faults
from folkmoot.core.ids import DeviceId, JobId, job_id, prompt_of
from folkmoot.core.judge import Brief, brief
from folkmoot.core.layout import most_tokens, prose
from folkmoot.core.medoid import medoid
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Inference,
    Outcome,
    Piece,
    Poll,
    Prepare,
    Queued,
    Sampling,
    Stage,
    Undone,
    Usage,
)
from folkmoot.core.price import enough
from folkmoot.core.repute import harms
from folkmoot.core.screen import Flag, Traits, screen, traits

DOUBTED = 0.8
"""How harmful an answer is that the screen doubts although it agrees with the others (guess): its style may be honest."""

MOST_AHEAD = 256
"""More jobs than a queue's bound are not before ours, whatever its device says."""

TOKEN_CHARACTERS = 4
"""Characters of a token, as English has them (guess): what an answer that broke off leaves of its limit."""

ASKED_TOO, COPY_OF = " is asked as well", " is asked as well as "
"""So a decision ends that asks more devices for their votes, their names before it with commas between; so one goes on about a copy of a job."""
VOTE_STANDS, DRAFT_STANDS = "stands, and nobody aggregates", "stands in place of the aggregate"
"""So a decision ends by which a draft is the answer: by vote, or below the floor."""

BLAMELESS = frozenset(("leaving", "cancelled", "device_gone", "silent"))
"""Failures of a job that its device's breaker does not count: no fault of the device, or counted elsewhere."""


@dataclass(frozen=True, slots=True)
class MixtureConfig:
    """How patiently an origin waits for its jobs, and how much it takes.

    `poll_s`: ask after a job that has been silent this long (guess); `polls`: give it up after so many
    unanswered (guess: 3 × 2 s is a little more than membership needs to know of a death); `patience_s`: give
    it up after so long without a step forward, whatever its device says (guess: the longest inference on the
    slowest device before it in the queue; a prompt as a whole is bounded by its deadline only); `stand_ins`: how many other devices may be tried for one place
    (guess); `max_characters` of one answer (guess: eight times the largest context's text); `answers_bytes`
    of all answers that one job gets (they must fit into one message with the conversation: wire's 4 MiB);
    `prepare_characters`: of a layer's last open answer this device evaluates so much at a time while it is
    still being written (about 32 tokens: fewer make small batches, which cost nearly as much as large ones).
    An answer has at most `token_characters` for each token that was asked for (guess: ten times English).
    In mode auto a draft that others make an answer of ends after `draft_tokens` (0: as late as the answer): what they need of it is its
    result and its reasons. A draft that may be the answer itself is never shortened; so with it no medoid stands.
    `fence` puts a word that nobody can know around the answers, `screen` marks odd ones and lets them go last;
    without the two the layout is the paper's (docs/explanation/liars.md has the figures).
    """

    poll_s: float = 2.0
    polls: int = 3
    patience_s: float = 900.0
    stand_ins: int = 2
    max_characters: int = 1_000_000
    answers_bytes: int = 3 << 20
    prepare_characters: int = 160
    token_characters: int = 64
    draft_tokens: int = 0
    fence: bool = False
    screen: bool = False


_TRIES = 2
"""So often does a device try one job (`QueueConfig.tries`), or an engine that estimates counts a token."""
_OUT_TOKENS = 64
"""What an engine writes beyond the tokens that it was asked for (guess)."""


@dataclass(slots=True)
class _Work:
    """A job as its origin sees it; `slot` 0 is the origin's own place in the layer.

    `heard` is when its device last said anything, `moved` when the job last went forward. `end` has come
    before all of the text that it counts, `gaps` times since the last piece. By its device's own estimate it takes
    `expected_s` from `since` on, 0 where nobody knows; from `late_at` on it is late. `called`: a question that wants a word was sent then,
    None once there was one. `armed`: the timer that looks whether it is late. A `copy` was asked for while another job ran in
    the same place. `row`: who its device was when an earlier try of the prompt got this answer. `again`: an earlier try has
    asked for it already. `most_in`: more tokens than its device can have read, once it was reckoned.
    """

    id: JobId
    device: DeviceId
    slot: int
    stage: Stage
    layer: int
    ask: Ask
    heard: float
    moved: float
    stands_in_for: DeviceId | None
    text: list[str] = field(default_factory=list)
    length: int = 0
    prepared: int = 0
    state: str = "asked"
    ahead: int | None = None
    queued_s: float = 0.0
    unanswered: int = 0
    gaps: int = 0
    end: Answer | None = None
    outcome: Outcome | None = None
    usage: Usage = Usage()
    truncated: bool = False
    error: str | None = None
    copy: bool = False
    asked: float = 0.0
    began: float | None = None
    since: float = 0.0
    expected_s: float = 0.0
    late_at: float = math.inf
    called: float | None = None
    armed: float = math.inf
    unheard: bool = False
    hedged: bool = False
    traits: Traits | None = None
    row: DeviceRow | None = None
    again: bool = False
    most_in: int = 0

    def expect(self, seconds: float, late: float, now: float) -> None:
        """Its device's estimate from now on: it is late after `late` times that."""
        self.since, self.expected_s = now, seconds
        self.late_at = now + late * seconds if seconds else math.inf

    def left_s(self, now: float) -> float:
        """What it is expected to take yet; once it is late, as long as it is late already."""
        return abs(self.expected_s - (now - self.since))

    @property
    def answer(self) -> str:
        return "".join(self.text)

    @property
    def said(self) -> str:
        """What others get to see of it: no thinking."""
        return prose(self.answer)

    def spend(self, usage: Usage) -> None:
        """Take what its device says that it has cost. Nothing is said where it does not know the job any more.

        No device reads or writes more tokens than it was asked for, in `_TRIES` at most: what it says beyond that is no cost.
        """
        if usage != Usage():
            asked = self.ask.inference
            if not self.most_in:
                self.most_in = _TRIES * most_tokens(asked)  # once: every piece of an answer comes with a cost
            tokens_in = min(usage.tokens_in, self.most_in)
            tokens_out = min(usage.tokens_out, _TRIES * (asked.sampling.max_tokens + _OUT_TOKENS))
            cached = min(usage.tokens_cached, tokens_in)
            self.usage = replace(usage, tokens_in=tokens_in, tokens_cached=cached, tokens_out=tokens_out)

    @property
    def useful(self) -> bool:
        return self.outcome is Outcome.OK and bool(self.said.strip())


class Mixture:
    """A prompt between its acceptance and its end. `ended` is final: no effect comes after it."""

    def __init__(
        self, prompt: Prompt, plan: Resolved, choice: Choice, config: MixtureConfig, rng: Random, now: float
    ) -> None:
        self.prompt = prompt
        self.plan = plan
        self.ended = False
        self._choice = choice
        self._config = config
        self._rng = rng
        self._accepted = now
        self._first_text: float | None = None
        self._begun = ""  # what the user has seen of a final answer whose device broke off
        self._layer = 0
        self._answers: tuple[str, ...] = ()
        self._suspect = 0
        self._fence = self._next_fence = ""
        self._question: Traits | None = None
        self._works: dict[JobId, _Work] = {}
        self._open: dict[JobId, _Work] = {}
        self._arrived: list[_Work] = []
        self._before: list[_Work] = []  # the answers of the layer before
        self._ordered: list[_Work] = []  # this layer's, as the next stage reads them
        self._brief: Brief | None = None  # what a judge is to say at present
        self._rounds: list[Round] = []
        self._decisions: list[Decision] = list(plan.decisions)
        self._served: dict[DeviceId, None] = {}
        self._next_peers: tuple[DeviceId, ...] | None = None
        self._later: list[tuple[int, DeviceId]] = []  # places of a committee's later waves
        self._wave = 0
        self._counted = 0
        self._seen: dict[DeviceId, DeviceRow] = {}

    @property
    def between_layers(self) -> bool:
        """Whether the prompt sits in the origin's join buffer: something has come back, not yet all."""
        return bool(self._arrived) and bool(self._open) and self._brief is None

    # ---- the way through the layers ----------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Accept the prompt and ask its first layer."""
        plan = self.plan
        effects: list[Effect] = [Announce(PromptAccepted(self.prompt.id, plan.layers, plan.proposers))]
        if plan.deadline_s is not None:
            effects.append(SetTimer(now + plan.deadline_s, DeadlineTimer(self.prompt.id)))
        for row in (*self._choice.rows(), *self._earlier()):
            self._seen.setdefault(DeviceId(row.id), row)
        for device, why in self._choice.shunned():
            self._decide(f"{self._name(device)} is not asked", why)
        for device, why in self._choice.disbelieved():
            self._decide(f"the card of {self._name(device)} is not believed", why)
        return effects + self._advance(now)

    def _advance(self, now: float) -> list[Effect]:
        self._layer += 1
        self._before, self._arrived = self._arrived, []
        # A fence for each layer: who writes in the next one has seen this one's.
        self._fence, self._next_fence = self._next_fence, self._draw_fence()
        effects = self._tell() if self._layer > 1 else []
        if self._layer > self.plan.layers:
            return effects + (self._select(now) or self._aggregate(now))
        self._recall(now)
        if self._suffices():
            return effects + self._step(now)
        self._keep_place()
        peers = () if self.plan.seats else self._draw()
        self._next_peers = None
        if self._layer < self.plan.layers and not self.plan.best_of:
            self._next_peers = self._peers(self._layer + 1)
        stage = stage_of(self._layer)
        under_way = self._under_way()
        free = [slot for slot in self._free() if slot not in under_way]
        busy = [asked.device for asked in under_way.values()]
        fresh = [peer for peer in peers if peer not in busy]
        places = list(zip(free[1:] if 0 in free else free, fresh, strict=False))
        if 0 in free and not self.plan.seats and self._mine_or_serving(self.plan.own):
            places.insert(0, (0, self.plan.own))
        if self.plan.committee is not None:
            places = [
                (slot, seat)
                for slot, seat in enumerate(self.plan.seats)
                if slot in free and self._mine_or_serving(seat)
            ]
            room = max(0, self.plan.committee.waves[0] - len(self._arrived) - len(under_way))
            places, self._later = places[:room], places[room:]
        for asked in under_way.values():
            self._asked_before(asked.device, asked.stands_in_for)
        self._asked(device for _, device in places)
        for asked in under_way.values():
            effects += self._ask(stage, asked.slot, asked.device, now, asked.stands_in_for, again=asked.job)
        for slot, device in places:
            effects += self._ask(stage, slot, device, now, self._away(slot, device))
        return effects + (self._prepare() if places or under_way else self._step(now))

    # ---- what an earlier try has got ---------------------------------------------------------------

    def _earlier(self) -> list[DeviceRow]:
        """Those whose answers are there already, and in whose place."""
        past = self.prompt.headway
        rows = [row for p in past.proposals for row in (p.device, p.stands_in_for)] if past else []
        return [row for row in rows if row is not None]

    def _recall(self, now: float) -> None:
        """Take this layer's answers that an earlier try of the prompt has got."""
        self._rounds.append(Round(self._layer, ()))
        past = self.prompt.headway
        for proposal in past.proposals if past is not None else ():
            if proposal.layer == self._layer and proposal.slot in self._free():
                self._take(proposal, now)
        if self._arrived:
            names = ", ".join(self._name(work.device) for work in self._arrived)
            self._decide(
                f"the answers of {names} in layer {self._layer} are not asked for again",
                "an earlier try of this prompt had got them, and they were kept",
            )

    def _under_way(self) -> dict[int, Asked]:
        """By its place, what an earlier try has asked for in this layer and got no answer to, of devices that are there.

        They are asked for the same job again: who has it still, or its answer, has nothing to do for that.
        """
        found: dict[int, Asked] = {}
        devices = [work.device for work in self._arrived]
        for asked in self.prompt.headway.asked if self.prompt.headway is not None else ():
            # In a committee one device may sit in several places.
            there = self._choice.serves(asked.device) and (
                asked.device not in devices or bool(self.plan.seats)
            )
            if (
                asked.layer == self._layer
                and asked.slot in self._free()
                and asked.slot not in found
                and there
            ):
                found[asked.slot] = asked
                devices.append(asked.device)
        if found:
            names = ", ".join(self._name(asked.device) for asked in found.values())
            self._decide(
                f"{names} is asked for the same job again in layer {self._layer}",
                "an earlier try of this prompt was cut off before the answer came",
            )
        return found

    def _take(self, proposal: Proposal, now: float) -> None:
        device = DeviceId(proposal.device.id)
        job = job_id(self.prompt.id, self._layer, proposal.slot)
        stage = stage_of(self._layer)
        ask = Ask(job, self.prompt.id, self._layer, stage, Inference(self.prompt.id, ()))
        absent = None if proposal.stands_in_for is None else DeviceId(proposal.stands_in_for.id)
        work = _Work(
            job, device, proposal.slot, stage, self._layer, ask, now, now, absent,
            text=[proposal.text], length=len(proposal.text), state=Outcome.OK.value, queued_s=proposal.queued_s,
            outcome=Outcome.OK, usage=proposal.usage, asked=now, row=proposal.device,
        )  # fmt: skip
        self._works[job] = work
        self._arrived.append(work)
        self._asked_before(device, absent)
        self._note_answer(work)

    def _suffices(self) -> bool:
        """Whether nothing more of this layer is to be asked: it is whole, or the earlier try has gone on without the rest."""
        past, quorum = self.prompt.headway, self.plan.quorum
        if not self._arrived or past is None:
            return False
        return not self._free() or 0 < quorum <= len(self._arrived) or past.layer > self._layer

    def _free(self) -> list[int]:
        """The places in this layer whose answers are not there yet."""
        there = [work.slot for work in self._arrived]
        return [slot for slot in range(self.plan.proposers + 1) if slot not in there]

    def _tell(self, *proposals: Proposal, asked: tuple[Asked, ...] = ()) -> list[Effect]:
        """Let the step be kept, where the prompt is."""
        if not self.prompt.keep:
            return []
        headway = Headway(self.plan.layers, self.plan.proposers, self._layer, proposals, asked)
        return [Announce(Advanced(self.prompt.id, headway))]

    def _proposal(self, work: _Work) -> Proposal:
        absent = None if work.stands_in_for is None else self._row(work.stands_in_for)
        row = self._row(work.device)
        return Proposal(work.layer, work.slot, row, work.answer, work.usage, work.queued_s, absent)

    # ---- whom it asks ------------------------------------------------------------------------------

    def _asked_before(self, device: DeviceId, absent: DeviceId | None) -> None:
        stood_in = None if absent == self._choice.me != self.plan.own else absent
        self._asked([stood_in or device])
        if stood_in is not None:
            self._stood_in(stood_in, device)

    def _asked(self, devices: Iterable[DeviceId]) -> None:
        last = self._rounds[-1]
        self._rounds[-1] = replace(last, asked=(*last.asked, *map(self._name, devices)))

    def _mine_or_serving(self, device: DeviceId) -> bool:
        return device == self._choice.me or self._choice.serves(device)

    def _keep_place(self) -> None:
        """Where the device in a requester's place is gone, another takes the place for good."""
        plan = self.plan
        if self._mine_or_serving(plan.own) and self._choice.breakers.admits(plan.own):
            return
        others = self._choice.others((plan.own, *(self._next_peers or ())), self._rng)
        others = others or self._choice.others((plan.own,), self._rng)
        if others:
            aggregator = others[0] if plan.aggregator == plan.own else plan.aggregator
            self.plan = replace(plan, own=others[0], aggregator=aggregator)
            self._decide(
                f"{self._name(others[0])} runs the origin's own jobs in place of {self._name(plan.own)}",
                "it is not alive, does not answer, has no model now, or serves no others",
            )

    def _draw(self) -> tuple[DeviceId, ...]:
        """This layer's peers: those drawn ahead while they live, and others in place of those that do not.

        Of the first layer those whose prices were asked. Nobody whose place is taken already, and no more than are missing.
        """
        if self._layer == 1 and self.plan.first is not None:
            peers = self.plan.first
        elif self._next_peers is None or self.plan.fixed:
            peers = self._peers(self._layer)
        else:
            peers = tuple(p for p in self._next_peers if p != self.plan.own and self._choice.serves(p))
            more = self._choice.others(exclude=(self.plan.own, *peers), rng=self._rng)
            peers += more[: self.plan.proposers - len(peers)]
        taken = {device for work in self._arrived for device in (work.device, work.stands_in_for)}
        missing = sum(1 for slot in self._free() if slot)
        peers = tuple(p for p in peers if p not in taken)[:missing]
        if len(peers) < missing:
            absent = ", ".join(self._name(d) for d in self.plan.fixed if d not in (*peers, *taken))
            why = (
                f"{absent}: not alive, no model, or serves no others"
                if absent
                else "no more devices with a model are alive"
            )
            self._decide(
                f"layer {self._layer} asks {len(peers)} of {missing} peers", "; ".join((why, *self._shut()))
            )
        return peers

    def _shut(self) -> list[str]:
        """Whom this device does not ask at present, and why."""
        breakers = self._choice.breakers
        return [f"{self._name(d)} is not asked: {breakers.why(d)}" for d in self._choice.shut()]

    def _peers(self, layer: int) -> tuple[DeviceId, ...]:
        peers = self._choice.peers(self.plan, self.prompt.id, layer, self._rng)
        if self.plan.best_of and peers:
            told = ", ".join(
                f"{self._name(peer)} {self._choice.delay_s(peer, stage_of(layer)):.3g} s" for peer in peers
            )
            why = f"least expected delay of {self.plan.best_of} drawn: {told}"
            self._decide(f"layer {layer} asks {', '.join(map(self._name, peers))}", why)
        return peers

    def _away(self, slot: int, device: DeviceId) -> DeviceId | None:
        """For whom a job stands in from the start: a requester's own jobs are another device's."""
        if self.plan.seats and self.plan.seats[0] != self.plan.own:
            return None  # who sits there was chosen, and stands in for nobody
        return self._choice.me if slot == 0 and device != self._choice.me else None

    def _aggregate(self, now: float) -> list[Effect]:
        device = self.plan.aggregator
        stand_in: DeviceId | None = None
        if self.plan.private and not self._choice.serves(device):
            return self.fail(
                "no_device", "this device has no model now, and the prompt may not leave it", now
            )
        if not self._choice.serves(device):
            stand_in, device = device, self.plan.own
            if not self._choice.serves(device):
                others = self._choice.others(exclude=(device,), rng=self._rng)
                if not others:
                    return self.fail("no_device", "no live device is left to aggregate", now)
                device = others[0]
            self._decide(
                f"{self._name(device)} aggregates in place of {self._name(stand_in)}",
                "it is not alive, has no model now, or serves no others",
            )
        elif device == self.plan.own:
            stand_in = self._away(0, device)
        return self._ask(Stage.AGGREGATE, 0, device, now, stand_in)

    def _ask(
        self,
        stage: Stage,
        slot: int,
        device: DeviceId,
        now: float,
        stand_in: DeviceId | None,
        *,
        copy: bool = False,
        again: JobId | None = None,
    ) -> list[Effect]:
        assert device == self._choice.me or not self.plan.private, "a private prompt would leave its device"
        attempt = sum(1 for w in self._works.values() if w.layer == self._layer and w.slot == slot)
        job = again or job_id(self.prompt.id, self._layer, slot, attempt)
        judges = stage is Stage.JUDGE
        inference = self._verdict(slot) if judges else self._inference(stage, slot, attempt)
        ask = Ask(job, prompt_of(job), self._layer + judges, stage, inference)
        work = _Work(
            job, device, slot, stage, self._layer, ask, now, now, stand_in,
            copy=copy, asked=now, again=again is not None, hedged=judges,
        )  # fmt: skip
        self._works[job] = self._open[job] = work
        self._served[device] = None
        hedges = self._choice.hedges
        if not copy:
            hedges.asked()
        work.expect(self._choice.expected_s(device, ask.kind, now), hedges.config.late, now)
        self._choice.sent(device)
        effects: list[Effect] = [Send(device, ask), self._progress(work)]
        if device != self._choice.me:
            effects.append(SetTimer(now + self._config.poll_s, PollTimer(job)))
            effects += self._call(work, now)
            if stage not in (Stage.AGGREGATE, Stage.JUDGE):
                effects += self._tell(asked=(Asked(job, self._layer, slot, device, stand_in),))
        return effects

    def _call(self, work: _Work, now: float) -> list[Effect]:
        """A question was sent that wants a word."""
        work.called = now
        return self._look(work, now + self._patience_s(work))

    def _patience_s(self, work: _Work) -> float:
        inference = work.ask.inference
        asked = sum(len(turn.content) for turn in inference.conversation) + sum(map(len, inference.answers))
        characters = asked if work.state == "asked" else 0
        return self._choice.hedges.patience_s(work.device, characters)

    def _look(self, work: _Work, at: float) -> list[Effect]:
        """Look at this moment whether it is late."""
        if not self._choice.hedges.enabled or at in (math.inf, work.armed):
            return []
        work.armed = at
        return [SetTimer(at, LateTimer(work.id))]

    def _inference(self, stage: Stage, slot: int, attempt: int) -> Inference:
        final = stage is Stage.AGGREGATE
        sampling = self.prompt.sampling
        if not final:
            sampling = replace(sampling, stop=())
            if self._shortens():
                sampling = replace(sampling, max_tokens=min(sampling.max_tokens, self._config.draft_tokens))
        # Alone in mode auto it is the draft that it would have been in a layer: what the moot settles changes nothing in it.
        if self.plan.layers or (self.prompt.plan.mode == "auto" and sampling.seed is not None):
            sampling = replace(sampling, seed=self._seed(sampling, slot, attempt))
        if self._begun:
            left = sampling.max_tokens - len(self._begun) // TOKEN_CHARACTERS
            sampling = replace(sampling, max_tokens=max(1, left))
        return Inference(
            self.prompt.id,
            self.prompt.conversation,
            self._answers,
            self.plan.proposers + 1 if self.plan.layers else 0,
            sampling,
            self.plan.layout,
            self._fence,
            self._suspect,
            self._begun,
        )

    def _verdict(self, slot: int) -> Inference:
        """A judge's work: what the next stage will read, and behind it what is asked of the judge."""
        assert self._brief is not None
        sampling = Sampling(self._brief.max_tokens, 0.0)
        return Inference(
            self.prompt.id,
            self.prompt.conversation,
            self._answers,
            self.plan.proposers + 1,
            replace(sampling, seed=self._seed(self.prompt.sampling, slot, 0)),
            self.plan.layout,
            self._next_fence,
            self._suspect,
            task=self._brief.words,
        )

    def _shortens(self) -> bool:
        """Whether drafts end early: in mode auto, where they are material and no answers."""
        plan = self.plan
        return self._config.draft_tokens > 0 and self.prompt.plan.mode == "auto" and plan.committee is None

    def _draw_fence(self) -> str:
        """Ten different letters, one of 2·10¹³ words; empty where the layout is to be the paper's."""
        return "".join(self._rng.sample(ascii_lowercase, 10)) if self._config.fence else ""

    def _seed(self, sampling: Sampling, slot: int, attempt: int) -> int:
        """A seed per job: at temperature 0.7 devices with the same model must not write the same text."""
        if sampling.seed is None:
            return self._rng.getrandbits(31)
        return seed_of(sampling.seed, self._layer, slot, attempt)

    def _prepare(self) -> list[Effect]:
        """Let those who will run a next job of this prompt evaluate what is known of it already.

        A committee seldom has a next job.
        """
        if self._layer > self.plan.layers or self.plan.committee is not None:
            return []
        inference = self._known(self._plain())
        # Who is still writing an answer of its own does not get to see the others': it could say them once more.
        writing = {w.device for w in self._open.values()} - {self._choice.me}
        nexts = [
            d for d in self._nexts() if d in self._served and d not in writing and self._choice.serves(d)
        ]
        return [Send(d, Prepare(inference)) for d in nexts]

    def _prepare_written(self, work: _Work) -> list[Effect]:
        """Let this device evaluate what is written of a layer's last open answer, whose place is settled.

        Other devices get whole answers only: for them every beginning would cross the network again.
        """
        me = self._choice.me
        if work.length - work.prepared < self._config.prepare_characters or len(self._open) > 1:
            return []
        if self.plan.committee is not None:
            return []
        if work.device == me or me not in self._nexts() or me not in self._served:
            return []
        work.prepared = work.length
        inference = self._known((*self._plain(), work.said))
        return [Send(me, Prepare(inference))]

    def _nexts(self) -> tuple[DeviceId, ...]:
        """Who will run the next stage's jobs, as far as it is settled."""
        if self._layer >= self.plan.layers:
            return (self.plan.aggregator,)
        return (self.plan.own, *(self._next_peers or ()))

    def _known(self, answers: tuple[str, ...]) -> Inference:
        """The next stage's work with the answers that are there."""
        return Inference(
            self.prompt.id,
            self.prompt.conversation,
            self._fitted(answers),
            self.plan.proposers + 1,
            self.prompt.sampling,
            self.plan.layout,
            self._next_fence,
        )

    # ---- what is odd about answers -----------------------------------------------------------------

    def _flags(self, works: Sequence[_Work]) -> list[tuple[Flag, ...]]:
        """What the screen says of a layer's answers, in order of arrival."""
        if not self._config.screen:
            return [()] * len(works)
        if self._question is None:
            self._question = traits("\n".join(turn.content for turn in self.prompt.conversation))
        for work in works:
            work.traits = work.traits or traits(work.said)
        seen = [work.traits for work in works if work.traits is not None]
        return list(screen(self._question, seen, sampled=self.prompt.sampling.temperature > 0.2))

    def _plain(self) -> tuple[str, ...]:
        """The answers so far that nothing is odd about: the others go last, and are evaluated last."""
        flags = self._flags(self._arrived)
        return tuple(w.said for w, odd in zip(self._arrived, flags, strict=True) if not odd)

    def _weigh(self) -> None:
        """Order a layer's answers for the next stage: those that nothing is odd about first. None is left out.

        Where something is odd about all of them nobody is marked; a marked one is no longer than twice the others.
        """
        flags = self._flags(self._arrived)
        plain = [w.said for w, odd in zip(self._arrived, flags, strict=True) if not odd]
        if not plain or len(plain) == len(self._arrived):
            self._ordered = self._arrived
            self._answers, self._suspect = self._fitted(tuple(w.said for w in self._arrived)), 0
            return
        marks = zip(self._arrived, flags, strict=True)
        self._ordered = [w for w, _ in sorted(marks, key=lambda each: bool(each[1]))]
        most = 2 * max(200, *map(len, plain))
        marked = []
        for work, odd in zip(self._arrived, flags, strict=True):
            if odd:
                marked.append(work.said.strip()[:most])
                what = f"the answer of {self._name(work.device)} in layer {self._layer} goes last, called unverified"
                self._decide(what, "it " + ", ".join(odd))
        self._answers, self._suspect = self._fitted((*plain, *marked)), len(marked)

    def _judge(self, aggregator: DeviceId, final: str, now: float) -> None:
        """Let the prompt's answers, of which `final` was made, count for and against those who wrote them.

        What another device has made of them says nothing for its own proposals, and is judged by them.
        """
        if not self._choice.repute.enabled:
            return
        question = "\n".join(turn.content for turn in self.prompt.conversation if turn.role == "user")
        done = [w for w in self._works.values() if w.outcome is Outcome.OK and w.stage is not Stage.JUDGE]
        last = self._rounds[-1].layer if self._rounds else 0
        for layer in range(1, last + 1):
            works = [w for w in done if w.layer == layer]
            said = [w for w in works if w.useful]
            texts, flags = [w.said for w in said], self._flags(said)
            own = next((w.said for w in said if w.device == self._choice.me), "")
            heard, unheard = harms(question, own, texts, final), harms(question, own, texts, "")
            for place, work in enumerate(said):
                odd = any(flag is not Flag.COPY for flag in flags[place])
                harm = (unheard if work.device == aggregator else heard)[place]
                if odd and len(said) > 1:
                    harm = DOUBTED if harm == 0.0 else 1.0
                self._choice.judged(work.device, harm, now)
            for work in works:
                if not work.useful and said:
                    self._choice.judged(work.device, 1.0, now)
            if layer == last:
                rest = [w.said for w in said if w.device != aggregator]
                self._choice.judged(aggregator, harms(question, own, [*rest, final], "")[-1], now)

    def _fitted(self, answers: tuple[str, ...]) -> tuple[str, ...]:
        """The answers, each cut to its share where all of them would not fit into one message."""
        room = self._config.answers_bytes
        if 4 * sum(map(len, answers)) <= room:  # a character is at most four bytes
            return answers
        most = room // (self.plan.proposers + 1)
        # The space in front goes first: an answer that is cut to nothing else would be left out, and shift the others' numbers.
        return tuple(answer.strip().encode()[:most].decode(errors="ignore") for answer in answers)

    # ---- what devices say --------------------------------------------------------------------------

    def on_message(
        self, sender: DeviceId, message: Queued | Began | Piece | Answer | Undone, now: float
    ) -> list[Effect]:
        """A reply about a job; from anybody but the device that was asked it counts for nothing."""
        work = self._works.get(message.job)
        if work is None or work.device != sender or self.ended:
            return []
        if isinstance(message, Piece | Answer | Undone):
            work.spend(message.usage)
        if work.id not in self._open:
            return []  # cut off or given up: it counts for nothing but its cost
        unknown = isinstance(message, Undone) and message.code == "unknown_job"
        if unknown and work.state == "asked" and sender != self._choice.me:
            return []  # our question has not arrived yet; the poll timer asks it again, not for ever
        self._hear(work, now)
        match message:
            case Queued(ahead=ahead):
                if work.state not in ("asked", "queued"):
                    return []
                ahead = min(ahead, MOST_AHEAD)
                if work.ahead is None or ahead < work.ahead:
                    work.moved, work.ahead = now, ahead
                    self._expect(work, ahead + 1, now)
                work.state = "queued"
                return [self._progress(work, ahead), *self._look(work, work.late_at)]
            case Began(queued_s=queued_s):
                work.queued_s = queued_s
                if work.state not in ("asked", "queued"):
                    return []
                work.state, work.moved, work.began = "began", now, now
                self._expect(work, 1, now)
                return [self._progress(work), *self._look(work, work.late_at)]
            case Piece():
                return self._on_piece(work, message, now)
            case Answer():
                return self._on_answer(work, message, now)
            case Undone():
                return self._on_undone(work, message, now)
            case _:
                assert_never(message)

    def _hear(self, work: _Work, now: float) -> None:
        """Its device has said something."""
        work.heard, work.unanswered = now, 0
        if work.device == self._choice.me:
            return
        if work.called is not None and work.called == work.asked:
            self._choice.hedges.word(work.device, now - work.called)
        work.called = None

    def _expect(self, work: _Work, jobs: int, now: float) -> None:
        """It is to take so many inferences of its device from now on."""
        seconds = self._choice.expected_s(work.device, work.ask.kind, now, jobs)
        work.expect(seconds, self._choice.hedges.config.late, now)

    def _on_piece(self, work: _Work, piece: Piece, now: float) -> list[Effect]:
        fresh = piece.text[max(0, work.length - piece.offset) :]
        if piece.offset > work.length or not fresh:
            return []
        tokens = max(self.prompt.sampling.max_tokens, work.ask.inference.sampling.max_tokens)
        most = min(self._config.max_characters, self._config.token_characters * tokens)
        if len(work.ask.inference.begun) + work.length + len(fresh) > most:
            bound = f"an answer may have {most} characters"
            return [Send(work.device, Cancel(work.id)), *self._fail(work, "remote_protocol", bound, now)]
        rivals = [] if work.length or work.stage is not Stage.AGGREGATE else self._beat(work)
        work.text.append(fresh)
        work.length += len(fresh)
        work.state, work.moved, work.gaps = "writing", now, 0
        effects: list[Effect] = [self._progress(work), *rivals]
        if work.stage is Stage.AGGREGATE:
            if self._first_text is None:
                self._first_text = now
            if self.prompt.stream:
                effects.append(Announce(AnswerText(self.prompt.id, fresh)))
        if work.end is not None and work.end.length <= work.length:
            return effects + self._on_answer(work, work.end, now)
        return effects if work.stage is Stage.AGGREGATE else effects + self._prepare_written(work)

    def _on_answer(self, work: _Work, answer: Answer, now: float) -> list[Effect]:
        if answer.length > work.length:
            work.end = answer
            work.gaps += 1
            return [Send(work.device, Poll(work.id, work.length))] if work.gaps <= self._config.polls else []
        if answer.length < work.length:
            return self._fail(work, "remote_protocol", "the answer's length is less than its text", now)
        work.queued_s, work.truncated = answer.queued_s, answer.truncated
        if work.device != self._choice.me and work.began is not None:
            self._choice.repute.time(work.device, work.began - work.asked, now - work.began, now)
        if work.stage is Stage.AGGREGATE:
            if not (work.length or self._begun or self.prompt.sampling.stop) and self.plan.layers:
                return self._fail(work, "empty_answer", "it wrote nothing", now)
            self._close(work, Outcome.OK, None)
            return [self._progress(work), *self._answered(self._floor(work), now)]
        if work.stage is Stage.JUDGE:
            self._close(work, Outcome.OK, None)
            return [self._progress(work), *self._heed(work, now)]
        self._close(work, Outcome.OK, None if work.text else "the answer is empty")
        rivals: list[Effect] = []
        if work.useful:
            self._arrived.append(work)
            self._note_answer(work)
            rivals = [*self._beat(work), *self._tell(self._proposal(work))]
        effects: list[Effect] = [self._progress(work), *rivals]
        step = self._step(now)
        return effects + (step or self._prepare())

    def _rivals(self, work: _Work) -> list[_Work]:
        """Other jobs under way for the same place: of them the first answer counts."""
        return [w for w in self._open.values() if w.slot == work.slot and w is not work]

    def _beat(self, work: _Work) -> list[Effect]:
        """This job's answer counts, so that of its rivals is not wanted any more."""
        effects: list[Effect] = []
        for rival in self._rivals(work):
            self._close(rival, Outcome.CANCELLED if rival.copy else Outcome.LATE, None)
            if work.copy and not rival.copy and not rival.unheard:
                self._choice.breakers.failed(rival.device)
            effects += [Send(rival.device, Cancel(rival.id)), self._progress(rival)]
        if work.copy and work.stage is not Stage.AGGREGATE and work.stands_in_for is not None:
            self._stood_in(work.stands_in_for, work.device)
        return effects

    def _stood_in(self, absent: DeviceId, device: DeviceId) -> None:
        last = self._rounds[-1]
        self._rounds[-1] = replace(last, stood_in={**last.stood_in, self._name(absent): self._name(device)})

    def _on_undone(self, work: _Work, undone: Undone, now: float) -> list[Effect]:
        work.queued_s = undone.queued_s
        if work.again and undone.code == "cancelled":  # what was asked before is over there: then anew
            self._close(work, Outcome.CANCELLED, None)
            anew = self._ask(work.stage, work.slot, work.device, now, work.stands_in_for)
            return [self._progress(work), *anew]
        outcome = Outcome.REFUSED if undone.outcome is Outcome.REFUSED else Outcome.FAILED
        return self._fail(work, undone.code, undone.detail, now, outcome)

    def _fail(
        self, work: _Work, code: str, detail: str, now: float, outcome: Outcome = Outcome.FAILED
    ) -> list[Effect]:
        """A job is lost: let another device stand in for it where one is there."""
        self._close(work, outcome, f"{code}: {detail}")
        if outcome is Outcome.FAILED and code not in BLAMELESS and work.device != self._choice.me:
            self._choice.breakers.failed(work.device)
        if code == "remote_protocol":
            self._choice.judged(work.device, 1.0, now)
        effects: list[Effect] = [self._progress(work)]
        if work.stage is Stage.JUDGE:
            return effects + self._all_go_on(f"the judge {self._name(work.device)} failed: {code}", now)
        if work.stage is Stage.AGGREGATE and self.prompt.stream and (work.length or self._begun):
            return effects + self._go_on(work, code, detail, now)
        if code == "too_long" and work.device == self._choice.me:  # nobody else ends a prompt by a word
            return effects + self.fail("too_long", detail, now)
        if self._rivals(work):
            return effects
        if code == "waited" and self._has_waited(work, now):
            return effects + self.fail(code, f"{self._name(work.device)}: {detail}", now)
        stand_in = self._stand_in(work)
        if stand_in is not None:
            self._decide(
                f"{self._name(stand_in)} stands in for {self._name(work.device)} in layer {work.layer}", code
            )
            if work.stage is not Stage.AGGREGATE:
                self._stood_in(work.device, stand_in)
            else:
                self._first_text = None
            asked = work.stands_in_for or work.device
            return effects + self._ask(work.stage, work.slot, stand_in, now, asked)
        if work.stage is Stage.AGGREGATE:
            mine = code == "over_budget" and work.device == self._choice.me
            tried = [w for w in self._works.values() if w.stage is Stage.AGGREGATE]
            all_so = code == "too_long" and all((w.error or "").startswith(code) for w in tried)
            known = code if mine or all_so or code in ("overloaded", "deadline") else "no_device"
            reasons = "; ".join(f"{self._name(w.device)}: {w.error}" for w in tried)
            return effects + self.fail(known, f"no device could aggregate ({reasons})", now)
        if code == "overloaded" and not self._may_shrink():
            return effects + self.fail(code, f"{self._name(work.device)} refused it: {detail}", now)
        return effects + self._step(now)

    def _go_on(self, work: _Work, code: str, detail: str, now: float) -> list[Effect]:
        """The final answer broke off while the user watched: another device goes on from what was shown."""
        if not work.length and self._rivals(work):
            return []
        broke_off = f"{self._name(work.device)} broke off: {detail}"
        # Whoever writes without an end has shown all that an answer may have.
        stand_in = None if code == "remote_protocol" else self._stand_in(work)
        if stand_in is None:
            return self.fail("answer_cut", broke_off, now)
        self._begun += work.answer
        self._decide(
            f"{self._name(stand_in)} goes on with the answer of {self._name(work.device)}", broke_off
        )
        return self._ask(work.stage, work.slot, stand_in, now, work.stands_in_for or work.device)

    def _may_shrink(self) -> bool:
        """Whether load may cost this layer an answer: never in mode fixed, but for what a quorum leaves out."""
        quorum, places = self.plan.quorum, {w.slot for w in self._open.values()}
        return self.prompt.plan.mode != "fixed" or 0 < quorum <= len(places) + len(self._arrived)

    def _has_waited(self, work: _Work, now: float) -> bool:
        """Whether a job was in a queue for as long as it is said: nobody ends a prompt by a word."""
        return work.device == self._choice.me or 0.0 < self._choice.max_wait_s <= now - work.asked

    def _tried(self, work: _Work) -> tuple[DeviceId, ...] | None:
        """Whom this layer has asked already; None where enough were tried for this place."""
        attempts = sum(1 for w in self._works.values() if w.layer == work.layer and w.slot == work.slot)
        if attempts > self._config.stand_ins or self.plan.private:
            return None
        return tuple(w.device for w in self._works.values() if w.layer == work.layer)

    def _stand_in(self, work: _Work) -> DeviceId | None:
        tried = self._tried(work)
        if tried is None:
            return None
        seats = set(self.plan.seats)
        left_out = bool(seats) and self.plan.own not in seats
        if (
            (work.stage is Stage.AGGREGATE or left_out)
            and self.plan.own not in tried
            and self._choice.serves(self.plan.own)
        ):
            return self.plan.own
        if len(seats) == 1 and work.stage is not Stage.AGGREGATE:
            return None  # nobody else is as able as the one who led them
        others = self._choice.others(exclude=tried, rng=self._rng, silent=work.stage is Stage.AGGREGATE)
        return others[0] if others else None

    def _step(self, now: float) -> list[Effect]:
        """Go on to the next layer when this one is complete, or its quorum is."""
        if self._layer > self.plan.layers or self._brief is not None:
            return []
        if self.plan.committee is not None and self._layer == 1:
            voted = self._vote(now)
            if voted is not None:
                return voted
        quorum = self.plan.quorum
        if self._open and not (quorum and len(self._arrived) >= quorum) and not self._enough(now):
            return []
        effects: list[Effect] = []
        for work in list(self._open.values()):
            self._close(work, Outcome.LATE, None)
            effects += [Send(work.device, Cancel(work.id)), self._progress(work)]
        if self._arrived:
            self._weigh()
            judge = self._ask_judge(now)
            if judge:
                return effects + judge
        else:
            self._decide(f"layer {self._layer} is left out", "none of its jobs gave an answer")
        return effects + self._advance(now)

    # ---- a judge between layers ---------------------------------------------------------------------

    def _ask_judge(self, now: float) -> list[Effect]:
        """Ask which answers of this layer go on and whether it is the last one, where that was asked for.

        The origin judges, or who aggregates where it has no model. Of an earlier try no verdict is kept: it is asked again.
        """
        plan = self.plan
        asked = brief(len(self._answers), self._layer, plan.layers, plan.keep, plan.early_stop)
        if asked is None:
            return []
        device = plan.own if plan.own == self._choice.me else plan.aggregator
        if not self._choice.serves(device):
            return self._all_go_on(f"{self._name(device)}, who would judge, has no model now", now)
        self._brief = asked
        stand_in = None if device == self._choice.me else self._choice.me
        return self._ask(Stage.JUDGE, plan.proposers + 1, device, now, stand_in)

    def _heed(self, work: _Work, now: float) -> list[Effect]:
        """Go on as the judge says."""
        assert self._brief is not None
        asked, judge = self._brief, self._name(work.device)
        found = asked.read(work.said)
        if found is None:
            return self._all_go_on(
                f"nothing that was asked for could be read in what the judge {judge} says", now
            )
        if asked.keep:
            self._decide(
                f"{len(found.kept)} of {asked.count} answers of layer {self._layer} go on: "
                + ", ".join(self._name(self._ordered[place].device) for place in found.kept),
                f"the judge {judge} holds them for the best",
            )
            plain = asked.count - self._suspect
            self._suspect = sum(1 for place in found.kept if place >= plain)
            self._answers = tuple(self._answers[place] for place in found.kept)
        if found.stop:
            first, last = self._layer + 1, self.plan.layers
            left = f"layer {last} is" if first == last else f"layers {first} to {last} are"
            self._decide(f"{left} skipped", f"the judge {judge} holds the answers for good enough")
            self._layer = self.plan.layers
        self._brief = None
        return self._advance(now)

    def _all_go_on(self, why: str, now: float) -> list[Effect]:
        """Go on with all answers."""
        self._decide(f"all {len(self._answers)} answers of layer {self._layer} go on", why)
        self._brief = None
        return self._advance(now)

    # ---- a committee's vote ------------------------------------------------------------------------

    def _vote(self, now: float) -> list[Effect] | None:
        """Answer where enough of the committee agree, ask its next wave where they do not, wait while some still write.

        None where all were asked and of the answers fewer than half can be compared: then the layer goes on to its aggregation.
        """
        committee = self.plan.committee
        assert committee is not None
        if self._open and len(self._arrived) == self._counted:
            return []  # timers look as well, and nothing has come since
        self._counted = len(self._arrived)
        odd = dict(zip([w.id for w in self._arrived], self._flags(self._arrived), strict=True))
        # The origin's own first: among equals its answer stands.
        works = sorted(self._arrived, key=lambda work: work.slot)
        question = asked_last(self.prompt)
        members = [*(w.device for w in (*works, *self._open.values())), *(d for _, d in self._later)]
        weights = self._choice.weights(members, committee.kind)
        votes = [
            Vote(
                extract(committee.kind, work.said, work.truncated, question),
                DOUBTED_VOTE if odd[work.id] else 1.0,
                weight,
            )
            for work, weight in zip(works, weights, strict=False)
        ]
        found = settled(committee, votes)
        if found is None and self._open:
            return []
        if found is None and self._later:
            return self._ask_more(now)
        found = found or count(votes)
        said = [vote.value if vote.trust == 1.0 else None for vote in votes]
        silent = [None] * (len(members) - len(said))
        self._choice.voted(list(zip(members, [*said, *silent], strict=True)), committee.kind)
        if found is None or 2 * found.read < len(works):
            return None
        best = works[found.best]
        same = [work for work, vote in zip(works, votes, strict=True) if vote.value == found.value]
        # Of texts that say the same a whole one goes before one that is cut off or otherwise at fault.
        whole = [w for w in same if not faults(committee.kind, question, Text(w.said, w.truncated))]
        return self._elect(best if best in whole or not whole else whole[0], found, now)

    def _ask_more(self, now: float) -> list[Effect]:
        committee = self.plan.committee
        assert committee is not None
        self._wave += 1
        more = committee.waves[min(self._wave, len(committee.waves) - 1)]
        places, self._later = self._later[:more], self._later[more:]
        places = [(slot, device) for slot, device in places if self._mine_or_serving(device)]
        if not places:
            return self._step(now)
        names = ", ".join(self._name(device) for _, device in places)
        there = len(self._arrived)
        why = "those asked so far do not agree" if there > 1 else f"of those asked so far {there} answered"
        self._decide(f"{names}{ASKED_TOO}", why)
        self._asked(device for _, device in places)
        effects: list[Effect] = []
        for slot, device in places:
            effects += self._ask(stage_of(1), slot, device, now, self._away(slot, device))
        return effects

    def _elect(self, work: _Work, found: Count, now: float) -> list[Effect]:
        """The best voter's own text is the answer; who still writes need not."""
        effects: list[Effect] = []
        for other in list(self._open.values()):
            self._close(other, Outcome.CANCELLED, None)
            effects += [Send(other.device, Cancel(other.id)), self._progress(other)]
        why = f"{found.votes} of {found.read} answers that could be compared say the same"
        return effects + self._stands(work, why, now)

    def _stands(self, work: _Work, why: str, now: float) -> list[Effect]:
        """A draft is the answer, all of it at once."""
        self._decide(f"the answer of {self._name(work.device)} {VOTE_STANDS}", why)
        if self._first_text is None:
            self._first_text = now
        shown: list[Effect] = [Announce(AnswerText(self.prompt.id, work.said))] if self.prompt.stream else []
        return shown + self._answered(work, now)

    def _select(self, now: float) -> list[Effect]:
        """Answer with the last layer's medoid where its answers are alike enough."""
        if self.plan.similar >= 1.0 or len(self._before) < 2 or self._shortens():
            return []
        skills = self._choice.weights([w.device for w in self._before], kind_of(asked_last(self.prompt)))
        flags = self._flags(self._before)
        weights = [skill * (DOUBTED_VOTE if odd else 1.0) for skill, odd in zip(skills, flags, strict=True)]
        found = medoid([work.said for work in self._before], weights)
        if found.agreement < self.plan.similar:
            return []
        work = self._before[found.place]
        question = asked_last(self.prompt)
        if faults(kind_of(question), question, Text(work.said, work.truncated)):
            return []
        why = f"the others are most like it; mean similarity {found.agreement:.2f}, {self.plan.similar:g} or more will do"
        return self._stands(work, why, now)

    def _floor(self, work: _Work) -> _Work:
        """The aggregate, or in mode auto the draft that is better for certain, where nobody has seen the aggregate yet."""
        if self.prompt.plan.mode != "auto" or self.prompt.stream or self.prompt.sampling.stop:
            return work
        question = asked_last(self.prompt)
        kind = kind_of(question)
        drafts = [w for w in self._works.values() if w.layer == self.plan.layers and w.useful]
        skills = self._choice.skills([w.device for w in drafts], kind)
        drafts = [drafts[place] for place in sorted(range(len(drafts)), key=lambda place: -skills[place])]
        final = Text(prose(self._begun + work.answer), work.truncated)
        found = below(kind, question, final, [Text(w.said, w.truncated) for w in drafts])
        if found is None:
            return work
        place, why = found
        draft = drafts[place]
        self._decide(f"the draft of {self._name(draft.device)} {DRAFT_STANDS}", why)
        self._begun = ""
        return draft

    def _enough(self, now: float) -> bool:
        """Whether what is still missing is not worth the wait, in mode auto and at the prices of this device."""
        prices, service_s = self._choice.prices, self._choice.service_s
        if self.prompt.plan.mode != "auto" or not (prices.enabled and prices.haste and service_s):
            return False
        if not self._arrived or self.plan.quorum:
            return False
        left: dict[int, float] = {}
        for work in self._open.values():
            left[work.slot] = min(left.get(work.slot, math.inf), work.left_s(now) / service_s)
        there = len(self._arrived)
        if not enough(prices, self.plan.layers, there, list(left.values())):
            return False
        worths = [prices.worth(self.plan.layers, each - 1) for each in (there, there + len(left))]
        told = ", ".join(f"{each * service_s:.3g} s" for each in sorted(left.values()))
        self._decide(
            f"layer {self._layer} goes on with {there} of {there + len(left)} answers",
            f"the others are expected in {told} and worth {worths[1] - worths[0]:.3g} points",
        )
        return True

    # ---- time and fate -----------------------------------------------------------------------------

    def on_late_timer(self, timer: LateTimer, now: float) -> list[Effect]:
        """A remote job may be late by its device's own estimate: ask another one for the same answer."""
        work = self._open.get(timer.job)
        if work is None or self.ended or now < work.armed:
            return []
        work.armed = math.inf
        effects: list[Effect] = []
        silent_at = math.inf if work.called is None else work.called + self._patience_s(work)
        if now >= silent_at:
            work.called = None
            work.unheard = True
            self._choice.breakers.silent(work.device)
            why = f"nothing was heard of it for {now - work.heard:.2g} s"
            effects = self._hedge(work, why, None, now)
        elif now >= work.late_at:
            took = now - work.asked
            why = f"it has taken {took:.2g} s, {work.expected_s:.2g} s were expected from the last {now - work.since:.2g}"
            late_s = self._choice.hedges.config.late * work.expected_s
            effects = self._hedge(work, why, late_s, now)
            # A peer may say that a job takes it no time at all: then nothing would be done but to look again.
            again_s = max(work.expected_s, self._choice.hedges.config.word_s)
            work.late_at = math.inf if work.hedged else now + again_s
        else:
            return self._look(work, min(silent_at, work.late_at))
        return [*effects, *self._look(work, work.late_at), *self._step(now)]

    def _hedge(self, work: _Work, why: str, within_s: float | None, now: float) -> list[Effect]:
        """Ask one more device for a late job's answer, where the budget has room; the first answer counts."""
        if work.hedged or (work.stage is Stage.AGGREGATE and work.length):
            return []
        tried = self._tried(work)
        if tried is None:
            return []
        own = self.plan.own
        if work.stage is Stage.AGGREGATE and own not in tried and self._choice.serves(own):
            stand_in: DeviceId | None = own
        else:
            stand_in = self._choice.stand_in((*tried, own), work.ask.kind, self._rng, within_s)
        if stand_in is None or not self._choice.hedges.take(silent=within_s is None):
            return []
        work.hedged = True
        self._decide(f"{self._name(stand_in)}{COPY_OF}{self._name(work.device)} in layer {work.layer}", why)
        asked = work.stands_in_for or work.device
        return self._ask(work.stage, work.slot, stand_in, now, asked, copy=True)

    def on_device_silent(self, device: DeviceId, now: float) -> list[Effect]:
        """A device is not asked any more, as it does not answer: what it never said a word about is lost."""
        effects: list[Effect] = []
        for work in [w for w in self._open.values() if w.device == device and w.state == "asked"]:
            if not self.ended and work.id in self._open:
                lost = f"nothing was heard for {now - work.heard:.2g} s, nor of others there"
                effects += [Send(device, Cancel(work.id)), *self._fail(work, "silent", lost, now)]
        return effects

    def on_poll_timer(self, timer: PollTimer, now: float) -> list[Effect]:
        """A remote job may have been silent for too long."""
        work = self._open.get(timer.job)
        if work is None or self.ended:
            return []
        due = work.heard + self._config.poll_s * (1 + work.unanswered)
        if now - work.moved > self._config.patience_s:
            stuck = f"it has not gone forward for {now - work.moved:.0f} s"
            return [Send(work.device, Cancel(work.id)), *self._fail(work, "stuck", stuck, now)]
        if now < due:
            return [SetTimer(due, timer), *self._step(now)]
        if work.unanswered >= self._config.polls:
            silent = f"nothing was heard for {now - work.heard:.1f} s"
            return [Send(work.device, Cancel(work.id)), *self._fail(work, "silent", silent, now)]
        work.unanswered += 1
        called = [self._ask_after(work), SetTimer(now + self._config.poll_s, timer), *self._call(work, now)]
        return [*called, *self._step(now)]

    def on_stream_lost(self, device: DeviceId, job: JobId, now: float) -> list[Effect]:
        """A job's stream broke: ask after the job on a new one, a bounded number of times."""
        work = self._open.get(job)
        if work is None or work.device != device or self.ended:
            return []
        if work.unanswered >= self._config.polls:
            return self._fail(work, "unreachable", "its stream broke and could not be opened again", now)
        work.unanswered += 1
        return [self._ask_after(work)]

    def _ask_after(self, work: _Work) -> Effect:
        return Send(work.device, work.ask if work.state == "asked" else Poll(work.id, work.length))

    def on_device_gone(self, device: DeviceId, why: str, now: float) -> list[Effect]:
        """A device is held dead or has left: its jobs are lost."""
        effects: list[Effect] = []
        for work in [w for w in self._open.values() if w.device == device]:
            if not self.ended and work.id in self._open:
                effects += self._fail(work, "device_gone", why, now)
        return effects

    def fail(self, code: str, detail: str, now: float) -> list[Effect]:
        """End the prompt without an answer; cancel everything that runs for it."""
        if self.ended:
            return []
        effects: list[Effect] = []
        for work in list(self._open.values()):
            self._close(work, Outcome.CANCELLED, None)
            effects += [Send(work.device, Cancel(work.id)), self._progress(work)]
        self.ended = True
        effects.append(Announce(PromptFailed(self.prompt.id, code, detail, self._provenance(now))))
        return effects

    def _answered(self, work: _Work, now: float) -> list[Effect]:
        self.ended = True
        # A draft that stands is what others would have seen of it.
        answer = self._begun + (work.answer if work.stage is Stage.AGGREGATE else work.said)
        self._judge(work.device, answer, now)
        provenance = self._provenance(now)
        return [Announce(PromptAnswered(self.prompt.id, answer, work.truncated, work.usage, provenance))]

    # ---- what is told ------------------------------------------------------------------------------

    def _close(self, work: _Work, outcome: Outcome, error: str | None) -> None:
        work.outcome, work.error, work.state = outcome, error, outcome.value
        del self._open[work.id]
        if outcome is Outcome.OK:
            self._choice.breakers.answered(work.device)
        else:
            self._choice.breakers.let_go(work.device)

    def _decide(self, what: str, why: str) -> None:
        self._decisions.append(Decision(what, why))

    def _note_answer(self, work: _Work) -> None:
        last = self._rounds[-1]
        self._rounds[-1] = replace(last, answered=(*last.answered, self._name(work.device)))

    def _row(self, device: DeviceId) -> DeviceRow:
        if device not in self._seen:
            self._seen[device] = self._choice.row(device)
        return self._seen[device]

    def _name(self, device: DeviceId) -> str:
        return self._row(device).name

    def _progress(self, work: _Work, ahead: int = 0) -> Effect:
        row = self._row(work.device)
        return Announce(
            JobProgress(
                self.prompt.id,
                work.id,
                work.layer,
                work.stage,
                work.device,
                row.name,
                row.model,
                work.state,
                ahead,
                work.length,
            )
        )

    def _provenance(self, now: float) -> Provenance:
        first = self._first_text
        return Provenance(
            self.prompt.id,
            self.prompt.plan.mode,
            self.plan.layers,
            self.plan.proposers,
            now - self._accepted,
            (now if first is None else first) - self._accepted,
            self._name(self._choice.me),
            self._choice.rows(),
            tuple(self._record(w) for w in self._works.values()),
            tuple(self._rounds),
            tuple(self._decisions),
        )

    def _record(self, work: _Work) -> JobRecord:
        row = work.row or self._row(work.device)
        stands_in = work.stands_in_for
        return JobRecord(
            work.layer,
            work.stage,
            row.name,
            row.model,
            work.outcome or Outcome.CANCELLED,
            work.queued_s,
            work.usage.inference_s,
            work.usage.first_token_s,
            work.usage.tokens_in,
            work.usage.tokens_cached,
            work.usage.tokens_out,
            None if stands_in is None else self._name(stands_in),
            work.error,
            "" if work.stage is Stage.AGGREGATE else work.answer,
        )


def seed_of(seed: int, layer: int, slot: int, attempt: int = 0) -> int:
    """The seed of a job of a prompt with this seed: of the place in the layer, not of who takes it (31 bits)."""
    return (seed * 1_000_003 + layer * 8_191 + slot * 131 + attempt) & 0x7FFFFFFF


def jobs_of(provenance: Provenance, outcome: Outcome = Outcome.OK) -> Sequence[JobRecord]:
    """The jobs of an answer that ended so."""
    return [job for job in provenance.jobs if job.outcome is outcome]
