"""A device of the moot: the only door into the core.

`Peer.handle(event, now) -> effects` joins three machines that know nothing of each other: the member
list (`membership`), the device's queue (`queue`) and the prompts asked here (`mixture`). A message to
this device itself never leaves: it is handled in the same step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import assert_never

from folkmoot.core.agreement import Agreements
from folkmoot.core.audit import AuditConfig, Audits
from folkmoot.core.breaker import BreakerConfig, Breakers
from folkmoot.core.choice import Choice, Draw, RandomDraw
from folkmoot.core.committee import CommitteeConfig
from folkmoot.core.door import Door
from folkmoot.core.events import (
    Announce,
    Banned,
    BreakTimer,
    CardChanged,
    DeadlineTimer,
    Effect,
    EngineFailed,
    Event,
    Finished,
    Fired,
    ForgetTimer,
    Generated,
    GossipTimer,
    LateTimer,
    Leaving,
    LinkLost,
    MemberChanged,
    PollTimer,
    Prompt,
    PromptFailed,
    Received,
    Send,
    ServiceLimited,
    Started,
    Stopping,
    StreamLost,
    Submitted,
    Timer,
    WaitTimer,
    Warmed,
    Withdrawn,
)
from folkmoot.core.gossip import Card, Member, Pulse, Standing
from folkmoot.core.hedge import HedgeConfig, Hedges
from folkmoot.core.ids import DeviceId, JobId, PromptId, prompt_of
from folkmoot.core.membership import Membership, MembershipConfig
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Message,
    Piece,
    Poll,
    Prepare,
    Queued,
    Stage,
    Undone,
)
from folkmoot.core.mixture import Mixture, MixtureConfig
from folkmoot.core.price import PriceConfig
from folkmoot.core.queue import Queue, QueueConfig
from folkmoot.core.repute import Repute, ReputeConfig
from folkmoot.core.seal import Seals
from folkmoot.errors import ConfigError, LocalProtocolError, Overloaded, PromptError


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """The core's configuration, nested per machine. `max_prompts` asked here at a time (guess).

    `admit_waiting` B > 0 refuses a prompt asked here while B or more jobs wait in this device's own queue, 0 never:
    with first come first served this keeps the goodput beyond the limit (SCIENCE.md, Stability). `diverse` w: where the
    best of d are asked, a device whose model c others of the layer have already counts as (1 + w)^c times as slow; 0 looks at
    no models, 0.25 costs 1 to 8 % of mean latency and 1 up to 110 % (docs/explanation/overload.md). With `max_wait_s` > 0 a first-layer
    job that is expected to wait longer is refused, here and for others, and one that has waited so long is dropped.
    """

    membership: MembershipConfig = field(default_factory=MembershipConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    max_prompts: int = 256
    admit_waiting: int = 0
    max_wait_s: float = 0.0
    price: PriceConfig = field(default_factory=PriceConfig)
    diverse: float = 0.0
    hedge: HedgeConfig = field(default_factory=HedgeConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    repute: ReputeConfig = field(default_factory=ReputeConfig)
    committee: CommitteeConfig = field(default_factory=CommitteeConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.diverse <= 1e3:
            raise ConfigError(f"diverse is {self.diverse!r}; it is a weight from 0 to 1000")


class Peer:
    """One device. `incarnation` must rise at every start; `rng` is the only source of chance.

    `draw` takes the drawing of peers from it, so that a simulation can name its random numbers. Without `seals` everybody's cards
    are believed.
    """

    def __init__(
        self,
        me: DeviceId,
        card: Card,
        incarnation: int,
        config: PeerConfig,
        rng: Random,
        draw: Draw | None = None,
        seals: Seals | None = None,
    ) -> None:
        self.me = me
        self.config = config
        self._rng = rng
        self.membership = Membership(me, card, incarnation, config.membership, rng, seals)
        self.queue = Queue(me, config.queue, bool(card.model), config.max_wait_s)
        self._breakers = Breakers(config.breaker)
        self.hedges = Hedges(config.hedge)
        self.repute = Repute(config.repute)
        self.audits = Audits(config.audit, rng)
        self.agreements = Agreements(config.committee.agreement)
        self._choice = Choice(
            me,
            self.membership,
            draw or RandomDraw(rng),
            config.price,
            config.diverse,
            breakers=self._breakers,
            hedges=self.hedges,
            max_wait_s=config.max_wait_s,
            repute=self.repute,
            committee=config.committee,
            audits=self.audits,
            agreements=self.agreements,
        )
        self._door = Door()
        self._mixtures: dict[PromptId, Mixture] = {}
        self._between: set[PromptId] = set()
        self._taken_up: dict[PromptId, PromptId] = {}
        self._shown = (0,) * 6
        """What others were told last, and are told at once when it changes: the debt in whole jobs, the load in tenths."""
        self._leaving = False

    # ---- what others may read ----------------------------------------------------------------------

    def address_of(self, device: DeviceId) -> str | None:
        """Where a device was last known to listen."""
        return self.membership.address_of(device)

    def find(self, name: str) -> DeviceId:
        """The device of that name or id. Raises UnknownModel where none is known and PromptInvalid where several are."""
        return self._choice.find(name)

    @property
    def prompts(self) -> Sequence[PromptId]:
        """Prompts asked here that have not ended."""
        return tuple(self._mixtures)

    @property
    def buffer(self) -> int:
        """Prompts in the join buffer: some of a layer's answers are back, not yet all."""
        return len(self._between)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, in service or under way here."""
        return not (self._mixtures or self.queue.waiting or self.queue.busy)

    # ---- the door ----------------------------------------------------------------------------------

    def handle(self, event: Event, now: float, *, loopback: bool = True) -> list[Effect]:
        """Take one event at time `now` (seconds, never falling); returns effects to carry out in order.

        Messages to this device itself are handled in the same step; without `loopback` they are among the effects,
        for a driver that settles the order of all that happens at one time.
        """
        pending = deque(self._on_event(event, now))
        effects: list[Effect] = []
        while pending or (pending := deque(self._on_breakers(now))):
            effect = pending.popleft()
            match effect:
                case Send(to=to, message=message) if to == self.me and loopback:
                    # At the end: what stands before it was decided before it. A prefill step that was
                    # begun must reach the engine before the job that stops it.
                    pending.extend(self._on_message(self.me, message, now))
                case Announce(notice=MemberChanged(member=member)):
                    effects.append(effect)
                    pending.extend(self._on_member(member, now))
                case _:
                    effects.append(effect)
        if self.config.audit.share:
            effects += self._on_asked(effects, now)
        return effects + self._on_pulse(now)

    def _on_event(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Received(sender=sender, message=message):
                return self._on_message(sender, message, now)
            case Fired(timer=timer):
                return self._on_timer(timer, now)
            case Submitted(prompt=prompt):
                return self._on_prompt(prompt, now)
            case Withdrawn(prompt=prompt_id):
                return self._end(prompt_id, "cancelled", "its user took it back", now)
            case Generated():
                return self.queue.on_generated(event)
            case Finished():
                return self.queue.on_finished(event, now)
            case EngineFailed():
                return self.queue.on_engine_failed(event, now)
            case Warmed():
                return self.queue.on_warmed(event, now)
            case StreamLost(device=device, job=job):
                self.audits.lost(device, job)
                mixture = self._mixture_of(job)
                return self._settle(mixture, mixture.on_stream_lost(device, job, now)) if mixture else []
            case LinkLost(device=device):
                return self.membership.on_link_lost(device, now)
            case Started(contacts=contacts):
                return self.membership.start(contacts, now)
            case CardChanged(card=card):
                self.queue.has_engine = bool(card.model)
                return self.membership.set_card(card, now)
            case Banned(device=device):
                return self.membership.ban(device, now)
            case ServiceLimited():
                return self.queue.limit(event, now)
            case Leaving():
                self._leaving = True
                return self.queue.hand_back()
            case Stopping():
                return self._stop(now)
            case _:
                assert_never(event)

    def _on_message(self, sender: DeviceId, message: Message, now: float) -> list[Effect]:
        match message:
            case Ask():
                self.queue.devices = self.membership.devices
                return self.queue.on_ask(sender, message, now)
            case Cancel():
                return self.queue.on_cancel(sender, message, now)
            case Poll():
                return self.queue.on_poll(sender, message)
            case Prepare(inference=inference):
                return self.queue.warm(sender, inference, now)
            case Queued() | Began() | Piece() | Answer() | Undone():
                self._breakers.word(sender)
                self.audits.on_message(sender, message)
                mixture = self._mixture_of(message.job)
                return self._settle(mixture, mixture.on_message(sender, message, now)) if mixture else []
            case _:
                return self.membership.on_message(sender, message, now)

    def _on_timer(self, timer: Timer, now: float) -> list[Effect]:
        match timer:
            case GossipTimer():
                return self.membership.on_timer(timer, now)
            case PollTimer(job=job):
                mixture = self._mixture_of(job)
                return self._settle(mixture, mixture.on_poll_timer(timer, now)) if mixture else []
            case LateTimer(job=job):
                mixture = self._mixture_of(job)
                return self._settle(mixture, mixture.on_late_timer(timer, now)) if mixture else []
            case BreakTimer():
                self._breakers.on_timer(timer)
                return []
            case WaitTimer():
                return self.queue.on_wait_timer(timer, now)
            case DeadlineTimer(prompt=prompt):
                return self._end(prompt, "deadline", "its deadline has passed", now)
            case ForgetTimer():
                self.queue.on_forget(timer)
                return []
            case _:
                assert_never(timer)

    # ---- prompts asked here ------------------------------------------------------------------------

    def _on_prompt(self, prompt: Prompt, now: float) -> list[Effect]:
        if prompt.id in self._mixtures:
            raise LocalProtocolError(f"prompt {prompt.id} was submitted twice: draw a fresh id")
        if self._leaving:
            return [_refused(prompt, "no_device", "this device is shutting down")]
        if len(self._mixtures) >= self.config.max_prompts:
            bound = (
                f"{len(self._mixtures)} prompts are under way here, the bound is {self.config.max_prompts}"
            )
            return [_refused(prompt, "overloaded", bound)]
        if 0 < self.config.admit_waiting <= self.queue.waiting:
            bound = f"{self.queue.waiting} jobs wait at this device, the bound for new prompts is {self.config.admit_waiting}"
            return [_refused(prompt, "overloaded", bound)]
        self.repute.look(now)
        meter, priced = self.queue.meter, self.config.price
        window_s = meter.config.window * meter.service_s
        room = priced.returning if priced.enabled and self._door.returns(prompt) else 1.0
        try:
            mine = self.queue.offer(now, prompt.sampling.max_tokens)
            plan = self._choice.resolve(prompt, self._rng, now, mine, room)
        except Overloaded as error:
            retry_s, before, rate = self._door.refuse(prompt, now, window_s)
            again = (
                f"; retry in {retry_s:.3g} s ({before} before you, {rate:.3g} admitted/s)" if retry_s else ""
            )
            return [_refused(prompt, error.code, f"{error}{again}", retry_s)]
        except PromptError as error:
            return [_refused(prompt, error.code, str(error))]
        if priced.enabled:
            self._door.admit(prompt, now, window_s)
        mixture = Mixture(prompt, plan, self._choice, self.config.mixture, self._rng, now)
        self._mixtures[prompt.id] = mixture
        for old in _earlier(prompt):
            self._taken_up[old] = prompt.id
        return self._settle(mixture, mixture.start(now))

    def _mixture_of(self, job: JobId) -> Mixture | None:
        """The prompt that a job belongs to: a job that was taken up again bears the id of an earlier try."""
        prompt = prompt_of(job)
        return self._mixtures.get(self._taken_up.get(prompt, prompt))

    def _settle(self, mixture: Mixture, effects: list[Effect]) -> list[Effect]:
        """Note whether a prompt is between layers, as after all that happens to it; forget one that has ended, and what
        was evaluated ahead for it."""
        if mixture.between_layers and not mixture.ended:
            self._between.add(mixture.prompt.id)
        else:
            self._between.discard(mixture.prompt.id)
        if mixture.ended and self._mixtures.pop(mixture.prompt.id, None) is not None:
            for old in _earlier(mixture.prompt):
                self._taken_up.pop(old, None)
            return self.queue.cool(self.me, mixture.prompt.id) + effects
        return effects

    def _end(self, prompt: PromptId, code: str, detail: str, now: float) -> list[Effect]:
        mixture = self._mixtures.get(prompt)
        return self._settle(mixture, mixture.fail(code, detail, now)) if mixture else []

    # ---- the moot ----------------------------------------------------------------------------------

    def _on_member(self, member: Member, now: float) -> list[Effect]:
        if member.standing < Standing.DEAD or member.device == self.me:
            return []
        why = "it has left the moot" if member.standing is Standing.LEFT else "it is held dead"
        effects = self.queue.on_origin_gone(member.device, now)
        self._breakers.forget(member.device)
        self.hedges.forget(member.device)
        self._choice.forget(member.device)
        self.audits.lost(member.device)
        for mixture in list(self._mixtures.values()):
            effects += self._settle(mixture, mixture.on_device_gone(member.device, why, now))
        return effects

    def _on_breakers(self, now: float) -> list[Effect]:
        """A breaker has opened: no prompt goes on waiting for a first word from that device."""
        effects: list[Effect] = []
        for device, timer in self._breakers.opened(now):
            effects.append(timer)
            for mixture in list(self._mixtures.values()):
                effects += self._settle(mixture, mixture.on_device_silent(device, now))
        return effects

    def _on_asked(self, effects: list[Effect], now: float) -> list[Effect]:
        """Note the jobs that go out, after which hidden questions follow; put one that is due, if both ends have the time for it."""
        for effect in effects:
            match effect:
                case Send(to=to, message=Ask(layer=1, stage=Stage.PROPOSE) as ask) if to != self.me:
                    self.audits.sent(ask, to, now)
                case _:
                    pass
        device = self.audits.due(now)
        if device is None:
            return []
        member = self.membership.members.get(device)
        card = Card("") if member is None else member.card
        free = (
            member is not None
            and member.standing is Standing.ALIVE
            and not member.pulse.queue
            and member.pulse.busy < card.slots
            and not (self.queue.waiting or self._leaving)
        )
        asked = list(self.audits.ask(card, free, now))
        if any(isinstance(each, Send) and isinstance(each.message, Ask) for each in asked):
            self._choice.sent(device)
        return asked

    def _on_pulse(self, now: float) -> list[Effect]:
        """Tell the membership when this device's load has changed."""
        queue, meter, buffer = self.queue, self.queue.meter, self.buffer
        debt, load = meter.debt(now), meter.load(now)
        shown = queue.waiting, queue.busy, buffer, queue.excess, round(debt), round(10.0 * load)
        if shown == self._shown:
            return []
        self._shown = shown
        fresh = Pulse(
            0, queue.waiting, queue.busy, buffer, meter.service_s,
            debt, meter.late_load(now), queue.excess, load, meter.each_stage_s,
        )  # fmt: skip
        return self.membership.set_pulse(fresh, now)

    def _stop(self, now: float) -> list[Effect]:
        self._leaving = True
        effects: list[Effect] = []
        for prompt in list(self._mixtures):
            effects += self._end(prompt, "no_device", "this device is shutting down", now)
        effects += self.queue.hand_back() + self.queue.stop()
        return effects + self.membership.leave(now)


def _earlier(prompt: Prompt) -> list[PromptId]:
    """The ids of earlier tries of a prompt whose jobs it may take up again."""
    return [prompt_of(asked.job) for asked in prompt.headway.asked] if prompt.headway is not None else []


def _refused(prompt: Prompt, code: str, detail: str, retry_s: float = 0.0) -> Effect:
    return Announce(PromptFailed(prompt.id, code, detail, retry_s=retry_s))
