"""Who answers a prompt: from what was asked and who is alive to layers, peers and an aggregator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from random import Random
from typing import Protocol

from folkmoot.core.agreement import Agreements, Ballot
from folkmoot.core.audit import Audits
from folkmoot.core.breaker import BreakerConfig, Breakers, State
from folkmoot.core.committee import Committee, CommitteeConfig
from folkmoot.core.events import Decision, DeviceRow, Headway, Plan, Prompt
from folkmoot.core.extract import Kind, kind_of
from folkmoot.core.gossip import Card, Member, Standing
from folkmoot.core.hedge import HedgeConfig, Hedges
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.load import judges_at_most
from folkmoot.core.membership import Membership
from folkmoot.core.messages import TOLD, Layout, Stage
from folkmoot.core.meter import drained, stage_s
from folkmoot.core.price import Bid, Offer, PriceConfig, best, bids, keeps, pressure, price
from folkmoot.core.repute import Repute
from folkmoot.core.skill import CLASSES, Tally, compared, tally, weights
from folkmoot.errors import DeadlinePassed, NoDevice, Overloaded, PromptInvalid, UnknownModel

AUTO_LAYERS, AUTO_PROPOSERS = 1, 3
"""What `auto` asks for until a policy chooses (PROTOCOL.md, Modes)."""

MAX_LAYERS, MAX_PROPOSERS = 16, 64

_NO_VOTE = "few answers are possible, and those who would vote are not known to be able: their wrong answers agree as often"

SAMPLED = 0.2
"""Up to this temperature a device that is asked again writes much the same (guess; `screen` knows it as well)."""

STAND_INS = 8
"""So many devices are looked at for the one that answers in place of a late one (ADMISSION.md: best of 8)."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A plan made definite. `own` runs the origin's jobs: the origin, or a member in a requester's place.

    `first` are the first layer's peers where they were drawn already, for their prices. With a `committee` its only layer is
    asked in waves: `seats` are who sits in its places, the origin's own first where it is as able as they are, and where enough agree nobody aggregates; nor do they where the last layer's answers are `similar` so much.
    A judge lets the best `keep` answers of a layer go on (0: all) and may end the layers (`early_stop`).
    """

    layers: int
    proposers: int
    own: DeviceId
    aggregator: DeviceId
    fixed: tuple[DeviceId, ...] = ()
    best_of: int = 0
    quorum: int = 0
    deadline_s: float | None = None
    layout: Layout = Layout.SHARED_PREFIX
    private: bool = False
    decisions: tuple[Decision, ...] = ()
    first: tuple[DeviceId, ...] | None = None
    committee: Committee | None = None
    seats: tuple[DeviceId, ...] = ()
    similar: float = 1.0
    keep: int = 0
    early_stop: bool = False


class Draw(Protocol):
    """Where the chance in the choice of peers comes from."""

    def places(self, prompt: PromptId, layer: int, count: int, among: int) -> Sequence[int]:
        """`count` distinct numbers below `among`, in random order, for a prompt's layer."""


class RandomDraw:
    """Fresh numbers at every call, from one generator."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def places(self, prompt: PromptId, layer: int, count: int, among: int) -> Sequence[int]:
        """`count` distinct numbers below `among`, every order equally likely."""
        return self._rng.sample(range(among), among)[:count]


class Choice:
    """The devices that can be chosen, as this device's member list has them now.

    It counts the jobs that it has sent to each device since that device last told of its load. `diverse` as in `PeerConfig`.
    `breakers` and `hedges` are what it has seen of its peers. With `max_wait_s` > 0 nobody is asked at a price whose
    first-layer jobs wait longer.
    """

    def __init__(
        self,
        me: DeviceId,
        membership: Membership,
        draw: Draw,
        prices: PriceConfig | None = None,
        diverse: float = 0.0,
        *,
        breakers: Breakers | None = None,
        hedges: Hedges | None = None,
        max_wait_s: float = 0.0,
        repute: Repute | None = None,
        audits: Audits | None = None,
        agreements: Agreements | None = None,
        committee: CommitteeConfig | None = None,
    ) -> None:
        self.me = me
        self._committee = committee or CommitteeConfig()
        self.breakers = breakers or Breakers(BreakerConfig())
        self.hedges = hedges or Hedges(HedgeConfig())
        self.prices = prices or PriceConfig()
        self._membership = membership
        self._draw = draw
        self._diverse = diverse
        self.max_wait_s = max_wait_s
        self.repute = repute or Repute()
        self.audits = audits
        self.agreements = agreements or Agreements()
        self._sent: dict[DeviceId, tuple[int, int]] = {}

    def _member(self, device: DeviceId) -> Member | None:
        return self._membership.members.get(device)

    def serves(self, device: DeviceId) -> bool:
        """Whether a device is not known to be gone and has a model."""
        member = self._member(device)
        if member is None or not member.card.model:
            return False
        return device == self.me or (
            not member.card.closed and member.standing in (Standing.ALIVE, Standing.SUSPECT)
        )

    def _live(self) -> list[Member]:
        """The live devices with a model that serve others, without those that are held harmful."""
        live, shunned = self._membership.live(), self.repute.shunned
        return [m for m in live if m.card.model and not m.card.closed and m.device not in shunned]

    def others(
        self, exclude: tuple[DeviceId, ...], rng: Random, *, silent: bool = True
    ) -> tuple[DeviceId, ...]:
        """The other live devices with a model, in random order; those under suspicion come last.

        Behind them those whose breaker is open; without `silent` those are left out.
        """
        able = [m for m in self._live() if m.device not in exclude]
        live = [m for m in able if self.breakers.admits(m.device)]
        alive = [m.device for m in live if m.standing is Standing.ALIVE and m.device != self.me]
        suspect = [m.device for m in live if m.standing is Standing.SUSPECT and m.device != self.me]
        found = (*rng.sample(alive, len(alive)), *rng.sample(suspect, len(suspect)))
        if len(live) == len(able) or not silent:
            return found
        shut = [m.device for m in able if m not in live and m.device != self.me]
        return (*found, *rng.sample(shut, len(shut)))

    def shut(self) -> tuple[DeviceId, ...]:
        """The live devices with a model that are not drawn, as their breaker is open."""
        return tuple(m.device for m in self._live() if not self.breakers.admits(m.device))

    def peers(
        self,
        plan: Resolved,
        prompt: PromptId,
        layer: int,
        rng: Random,
        among: Sequence[DeviceId] | None = None,
    ) -> tuple[DeviceId, ...]:
        """One layer's peers: the fixed ones that live, or k distinct live ones, `among` those alone where they are given.

        Uniform: every set is equally likely. Best of d: of d that are drawn so those with the least expected
        delay, the least first; among equals the first drawn; with a weight for diversity other models before those that
        the layer has. Suspects are taken only where others are too few, those whose breaker is open not at all.
        """
        if plan.fixed:
            return tuple(d for d in plan.fixed if d != plan.own and self.serves(d))
        live = [m for m in self._live() if m.device not in (plan.own, self.me)]
        if among is not None:
            live = [m for m in live if m.device in among]
        alive = [m for m in live if m.standing is Standing.ALIVE and self.breakers.admits(m.device)]
        count = min(max(plan.proposers, plan.best_of), len(alive))
        drawn = [alive[place] for place in self._draw.places(prompt, layer, count, len(alive))]
        if plan.best_of:
            drawn = self._ordered(drawn, plan, stage_of(layer))
        chosen = tuple(m.device for m in drawn[: plan.proposers])
        if len(chosen) == plan.proposers:
            return chosen
        more = self.others((plan.own, *chosen), rng, silent=False)
        more = more if among is None else tuple(device for device in more if device in among)
        return chosen + more[: plan.proposers - len(chosen)]

    def _ordered(self, drawn: Sequence[Member], plan: Resolved, stage: Stage) -> list[Member]:
        """The sooner first; who has a model that the layer has already counts as slower."""
        left = sorted(zip(self._delays(drawn, stage), range(len(drawn)), strict=True))
        if not self._diverse:
            return [drawn[place] for _, place in left]
        own, found = self._member(plan.own), list[Member]()
        models = Counter([own.card.model] if own is not None else [])
        while left:
            weighed = [
                (delay * (1.0 + self._diverse) ** models[drawn[place].card.model], place)
                for delay, place in left
            ]
            nearest = min(range(len(left)), key=weighed.__getitem__)
            found.append(drawn[left.pop(nearest)[1]])
            models[found[-1].card.model] += 1
        return found

    def shunned(self) -> list[tuple[DeviceId, str]]:
        """Live devices that are asked no more, and why."""
        found = self.repute.shunned
        return [(m.device, found[m.device]) for m in self._membership.live() if m.device in found]

    def disbelieved(self) -> list[tuple[DeviceId, str]]:
        """Live devices whose cards claim more than they can, and what."""
        if self.audits is None:
            return []
        found = [(m.device, self.audits.doubt(m.device, m.card)) for m in self._membership.live()]
        return [(device, why) for device, why in found if why]

    def judged(self, device: DeviceId, harm: float | None, now: float) -> None:
        """An answer of another device was so harmful, 0 to 1; None: nobody can say."""
        if harm is not None and device != self.me:
            self.repute.note(device, harm, now)

    def sent(self, device: DeviceId) -> None:
        """A job goes to a device, which has not told of it yet."""
        self.breakers.asked(device)
        member = self._member(device)
        if member is not None and device != self.me:
            version, count = self._sent.get(device, (-1, 0))
            now = member.pulse.version
            self._sent[device] = (now, count + 1 if version == now else 1)

    def forget(self, device: DeviceId) -> None:
        """It is gone: so are the jobs that were sent to it."""
        self._sent.pop(device, None)

    def delay_s(self, device: DeviceId, stage: Stage) -> float:
        """Expected seconds until a job sent now would be done, 0 where α is not known yet: α max(1, (q + 1)/slots), with the
        stage's own α for the job itself.

        q is what the device last said of its queue and service, and this device's own jobs since then: a view
        that others share and that grows old sends everybody to the same place (SCIENCE.md, Choosing peers).
        """
        member = self._member(device)
        return 0.0 if member is None else self._delay(member, member.pulse.service_s, stage)

    def expected_s(self, device: DeviceId, stage: Stage, now: float, jobs: int | None = None) -> float:
        """What a job takes there by the device's own estimate, α(q + 1)/(1 − ρ_hi); with `jobs` that many inferences.

        The job itself takes the α of its stage, the others that of all. 0 where no α is known.
        """
        offer, member = self.offer(device, now), self._member(device)
        if member is None:
            return 0.0
        turns = max(1.0, offer.queue + 1.0 / member.card.slots if jobs is None else jobs / member.card.slots)
        waits = 1.0 if turns == 1.0 else turns / (1.0 - offer.late_share)
        return offer.service_s * waits + (offer.stage_s(stage) - offer.service_s)

    @property
    def service_s(self) -> float:
        """The mean time of an inference here, or where nothing was served here that of the peers; 0 where nobody knows."""
        return next((m.pulse.service_s for m in self._known() if m.pulse.service_s), 0.0)

    def stand_in(
        self, exclude: tuple[DeviceId, ...], stage: Stage, rng: Random, within_s: float | None
    ) -> DeviceId | None:
        """Who may answer a job of this stage in place of a late device: of a few live ones the one with the least expected delay.

        None where there is nobody else, or the delay is more than `within_s`.
        """
        able = [
            m
            for m in self._live()
            if m.standing is Standing.ALIVE
            and m.device not in (self.me, *exclude)
            and self.breakers.state(m.device) is State.CLOSED
        ]
        some = rng.sample(able, min(STAND_INS, len(able)))
        delay_s, place = min(zip(self._delays(some, stage), range(len(some)), strict=True), default=(0.0, -1))
        if place < 0 or (within_s is not None and delay_s > within_s):
            return None
        return some[place].device

    def offer(self, device: DeviceId, now: float) -> Offer:
        """What is known of another device's load at `now`: what it last said, and this device's own jobs since then.

        What this device has timed itself outweighs a word that says far less (`repute`).
        """
        member = self._member(device)
        if member is None:
            return Offer(0.0, 0.0, 0.0)
        pulse, own, slots = member.pulse, self._own(member), member.card.slots
        drain_hz = slots / pulse.service_s if pulse.service_s else 0.0
        debt = drained(pulse.debt, self._membership.pulse_age(device, now), drain_hz)
        queue = pulse.queue - pulse.excess + pulse.busy
        service_s, waiting = self.repute.floor(device)
        return Offer(
            max((debt + own) / slots, waiting),
            max((queue + own) / slots, waiting),
            max(pulse.service_s, service_s),
            pulse.late,
            tuple(max(each, service_s) if each else 0.0 for each in pulse.stages),
            pulse.load,
        )

    def _ratios(self) -> tuple[float, ...]:
        """How many times as long as its first-layer jobs each stage's take, in the mean of the devices that know; 0: none does."""
        known = [m.pulse.stages for m in self._known() if stage_s(m.pulse.stages, Stage.PROPOSE)]
        ratios = [
            [
                stage_s(stages, stage) / stage_s(stages, Stage.PROPOSE)
                for stages in known
                if stage_s(stages, stage)
            ]
            for stage in TOLD
        ]
        return tuple(sum(each) / len(each) if each else 0.0 for each in ratios)

    def _delays(self, members: Sequence[Member], stage: Stage) -> list[float]:
        """The same for some at once; who has served nothing yet counts as the mean of the others."""
        known = [m.pulse.service_s for m in members if m.pulse.service_s]
        usual = sum(known) / len(known) if known else 1.0
        return [self._delay(m, m.pulse.service_s or usual, stage) for m in members]

    def _delay(self, member: Member, service_s: float, stage: Stage) -> float:
        pulse = member.pulse
        jobs = pulse.queue - pulse.excess + pulse.busy + self._own(member) + 1
        least_s, waiting = self.repute.floor(member.device)
        own_s = stage_s(pulse.stages, stage) or service_s
        told_s = service_s * max(1.0, jobs / member.card.slots) + (own_s - service_s)
        return max(told_s, least_s * (1.0 + waiting))

    def _own(self, member: Member) -> int:
        """Jobs sent to a device that it has not told of yet."""
        version, count = self._sent.get(member.device, (-1, 0))
        return count if version == member.pulse.version else 0

    def row(self, device: DeviceId) -> DeviceRow:
        """A device as people see it; where two have one name, a piece of the id tells them apart."""
        member = self._member(device)
        if member is None:
            return DeviceRow(device, device[:8], "")
        name = member.card.name
        if any(m.card.name == name and m.device != device for m in self._known()):
            name = f"{name}~{device[:6]}"
        return DeviceRow(device, name, member.card.model)

    def rows(self) -> tuple[DeviceRow, ...]:
        """This device and every live one."""
        return tuple(self.row(d) for d in (self.me, *(m.device for m in self._membership.live())))

    def _known(self) -> Iterable[Member]:
        mine = self._member(self.me)
        return [*([mine] if mine else []), *self._membership.live()]

    def find(self, name: str) -> DeviceId:
        """The device of that name or id (also the beginning of an id, of 6 digits or more).

        Raises UnknownModel where none is known and PromptInvalid where several are.
        """
        members = self._membership.members
        if name in members:
            return DeviceId(name)
        found = [device for device, member in members.items() if is_called(name, member)]
        living = [d for d in found if d == self.me or members[d].standing < Standing.DEAD]
        found = living or found
        if len(found) > 1:
            them = ", ".join(f"{name.partition('~')[0]}~{d[:6]}" for d in found)
            raise PromptInvalid(f"{len(found)} devices are called {name!r}: say which one: {them}")
        if not found:
            known = ", ".join(row.name for row in self.rows())
            raise UnknownModel(f"no device is called {name!r}; there are: {known}")
        return found[0]

    # ---- from a plan to a definite one -------------------------------------------------------------

    def resolve(self, prompt: Prompt, rng: Random, now: float, mine: Offer, room: float = 1.0) -> Resolved:
        """Settle layers, peers and aggregator, at the prices of `now` where there are prices.

        `mine` is this device's own load; `room` times as many jobs as usual may wait. A prompt that has come some way
        already goes on with its M and k: it has been found worth them. Raises PromptInvalid, UnknownModel,
        NoDevice, Overloaded where the prompt is not worth what it costs, or DeadlinePassed where its deadline could not be
        kept by idle devices.
        """
        plan = prompt.plan
        _check(plan)
        decisions: list[Decision] = []
        if plan.private:
            plan = Plan(mode="local", deadline_s=plan.deadline_s, private=True, rule=plan.rule)
        if plan.rule:
            decisions.append(Decision("this device alone answers", f"{plan.rule} keeps the prompt here"))
        if prompt.hops and plan.mode != "local":
            why = f"the request has crossed {prompt.hops} moot(s) already: no recursion"
            decisions.append(Decision("this device's own engine answers", why))
            plan = Plan(mode="local", deadline_s=plan.deadline_s)
        private = plan.mode == "local"
        past = None if private else prompt.headway
        names = () if past is not None and past.is_asked else plan.select
        fixed = tuple(self._named(name, past) for name in names)
        own = self._place(private, fixed, rng, decisions, past)
        if self.me in fixed or len(dict.fromkeys(fixed)) < len(fixed):
            raise PromptInvalid("select names peers, each once: the origin answers in any case")
        sizes: list[Decision] = []
        layers, proposers = self._size(plan, own, fixed, sizes, past)
        resolved = Resolved(
            layers,
            proposers,
            own,
            own,
            fixed if layers else (),
            plan.best_of if layers else 0,
            plan.quorum if layers else 0,
            plan.deadline_s,
            plan.layout,
            private,
            keep=plan.keep if layers else 0,
            early_stop=plan.early_stop and layers > 0,
        )
        if resolved.keep > proposers + 1:
            raise PromptInvalid(f"keep is {plan.keep}, but a layer has {proposers + 1} answers (k + 1)")
        if resolved.quorum > proposers + 1:
            raise PromptInvalid(f"quorum is {plan.quorum}, but a layer has {proposers + 1} jobs (k + 1)")
        if 0 < resolved.best_of < proposers:
            raise PromptInvalid(
                f"best-of draws {plan.best_of} peers, but proposers is {proposers}: draw as many"
            )
        may = self._may_vote(plan, resolved)
        wanted = kind_of(asked_last(prompt)) if may or plan.aggregator == "strongest" else Kind.OPEN
        # A draft is written without the user's stop words, so that it could not be the answer where there are any.
        kind = wanted if may and wanted is not Kind.OPEN and not prompt.sampling.stop else None
        alike = self._able(own, wanted) if may else ()
        leader = alike[0] if len(alike) == 1 and self._live_besides(own) else None
        cost = math.inf
        alone = kind is not None and past is None and not self._votes_pay(alike, kind)
        if alone and own not in alike:  # no vote, but nor is it left to a weak origin
            leader = min(alike, key=lambda device: self.delay_s(device, Stage.PROPOSE))
        if leader is None or leader == own:
            self._check_wait(mine if own == self.me else self.offer(own, now))
        if leader is not None and past is None:
            several = None if alone else self._several(prompt, kind)
            why = _NO_VOTE if alone and len(alike) > 1 else ""
            resolved = self._led(resolved, leader, wanted, now, mine, room, sizes, several, why)
        elif leader is not None:
            resolved = self._seated(resolved, leader, self._several(prompt, kind))
        elif alone or (self.prices.enabled and past is None):
            if alone:
                kind = None
                resolved = replace(resolved, layers=0, proposers=0, best_of=0)
            if self.prices.enabled:
                resolved, cost = self._priced(resolved, prompt, rng, now, mine, room, sizes, kind, alike)
            if alone:
                sizes[:] = [Decision("no vote: one answers alone", _NO_VOTE)]
        decisions += sizes
        if kind is not None and leader is None and resolved.layers == 1:
            config = self._committee
            committee = Committee(kind, config.waves_at(cost), config.agree)
            seats = resolved.seats or self._seats(resolved, prompt, rng, alike)
            if past is not None:
                seats = seats[: resolved.proposers + 1]
            resolved = replace(resolved, proposers=max(1, len(seats) - 1), committee=committee, seats=seats)
        if may and not prompt.sampling.stop:
            resolved = replace(resolved, similar=self._committee.similar)
        if leader is None:
            aggregator = own if private else self._aggregator(plan.aggregator, own, wanted, decisions)
            resolved = replace(resolved, aggregator=aggregator)
        return replace(resolved, decisions=tuple(decisions))

    # ---- who votes, and who answers alone ----------------------------------------------------------

    def _may_vote(self, plan: Plan, resolved: Resolved) -> bool:
        """Whether the moot may settle by itself how the answer is found: mode auto, and nothing said that forbids it."""
        asked = plan.select or plan.quorum or plan.aggregator != "origin"
        return self._committee.enabled and plan.mode == "auto" and not asked and resolved.layers > 0

    def _votes_pay(self, devices: Sequence[DeviceId], kind: Kind) -> bool:
        """Whether these answer so often right that a vote of theirs is worth more than one answer; always where wrong answers scatter."""
        config = self._committee
        if kind not in (Kind.LETTER, Kind.YES_NO) or not config.able:
            return True
        if self._probed(devices, kind):
            return all(each >= config.able for each in self.skills(devices, kind))
        sizes = [self._card(device).skill for device in devices]
        return all(size == 0.0 or size >= config.able_size for size in sizes)

    def skills(self, devices: Sequence[DeviceId], kind: Kind) -> list[float]:
        """How able the devices' models are at a kind of question, on one scale; 0 where nobody knows.

        By the means of what their probes say where all of them can be compared so, else by their sizes.
        """
        if self._probed(devices, kind):
            return [tally(self._card(d), CLASSES[kind]).mean for d in devices]
        return [self._card(d).skill for d in devices]

    def weights(self, devices: Sequence[DeviceId], kind: Kind) -> tuple[float, ...]:
        """What the votes of a committee's members weigh, 1 in the mean; all the same where their probes cannot be compared."""
        if self._probed(devices, kind):
            return weights(self.skills(devices, kind), kind)
        return (1.0,) * len(devices)

    def voted(self, said: Sequence[tuple[DeviceId, str | None]], kind: Kind) -> None:
        """A committee has said this, each of its members once or more; None: nothing yet, or nothing that counts."""
        self.agreements.note([Ballot(device, self._believed(device), value) for device, value in said], kind)

    def _card(self, device: DeviceId) -> Card:
        """A device's card as far as it is believed, with what its votes have shown."""
        return self.agreements.added(device, self._believed(device))

    def _believed(self, device: DeviceId) -> Card:
        member = self._member(device)
        if member is None:
            return Card("")
        return member.card if self.audits is None else self.audits.believed(device, member.card)

    def _probed(self, devices: Sequence[DeviceId], kind: Kind) -> bool:
        cards = [self._card(d) for d in devices]
        return bool(cards) and all(compared(cards[0], card, CLASSES[kind]) for card in cards)

    def _alike(self, devices: Sequence[DeviceId], kind: Kind) -> tuple[DeviceId, ...]:
        """Those of them whom no other one leads at a kind of question; all where each is led by one.

        Of two whose probes of its class can be compared one leads where it is the abler for certain (`skill.leads`). Else one
        that is `leader` times as large does, if both tell their sizes.
        """
        skill, ratio = CLASSES[kind], self._committee.leader
        lower, largest = dict[int, float](), dict[int, float]()
        cards = [self._card(device) for device in devices]
        tallies = [tally(card, skill) for card in cards]
        groups = [card.probes if each.known else -1 for card, each in zip(cards, tallies, strict=True)]
        for card, each, group in zip(cards, tallies, groups, strict=True):
            largest[group] = max(largest.get(group, 0.0), card.skill)
            if group >= 0:
                lower[group] = max(lower.get(group, 0.0), each.lower)

        def is_led(card: Card, each: Tally, group: int) -> bool:
            larger = max(
                (size for other, size in largest.items() if other != group or group < 0), default=0.0
            )
            by_size = 0.0 < card.skill <= larger / ratio
            return by_size or (group >= 0 and lower[group] > each.upper)

        led = [is_led(*each) for each in zip(cards, tallies, groups, strict=True)]
        free = tuple(device for device, below in zip(devices, led, strict=True) if not below)
        return free or tuple(devices)

    def _live_besides(self, own: DeviceId) -> list[DeviceId]:
        """Who could be asked besides the device that runs the origin's own jobs."""
        return [
            m.device
            for m in self._live()
            if m.device not in (own, self.me) and self.breakers.admits(m.device)
        ]

    def _able(self, own: DeviceId, kind: Kind) -> tuple[DeviceId, ...]:
        """Of all that could be asked those whom nobody leads at a kind of question."""
        return self._alike((own, *self._live_besides(own)), kind)

    def _seats(
        self, plan: Resolved, prompt: Prompt, rng: Random, alike: Sequence[DeviceId]
    ) -> tuple[DeviceId, ...]:
        """Who sits in a committee's places: the able, the origin first if it is one of them, then by the least expected delay.

        Where they are fewer than its places they sit in it in turn, but only if what they write is drawn by chance: else a
        device would confirm itself.
        """
        most = self._committee.most
        drawn = replace(plan, proposers=most, best_of=max(plan.best_of, self.prices.draw, most), fixed=())
        others = self.peers(drawn, prompt.id, 1, rng, alike)
        ring = (plan.own, *others) if plan.own in alike or not others else others
        return tuple(islice(cycle(ring), most if _by_chance(prompt) else min(most, len(ring))))

    def _several(self, prompt: Prompt, kind: Kind | None) -> Committee | None:
        """A leader's votes with itself, one after another; none where it would write the same each time."""
        config = self._committee
        if kind is None or not _by_chance(prompt):
            return None
        return Committee(kind, (config.agree, *(1,) * (config.most - config.agree)), config.agree)

    def _seated(self, plan: Resolved, leader: DeviceId, votes: Committee | None) -> Resolved:
        """The leader in all places."""
        if votes is None:
            return replace(plan, aggregator=leader)
        return replace(
            plan, layers=1, proposers=votes.most - 1, best_of=0, quorum=0, fixed=(), aggregator=leader,
            seats=(leader,) * votes.most, committee=votes,
        )  # fmt: skip

    def _led(
        self,
        plan: Resolved,
        leader: DeviceId,
        wanted: Kind,
        now: float,
        mine: Offer,
        room: float,
        sizes: list[Decision],
        votes: Committee | None,
        why: str = "",
    ) -> Resolved:
        """The leader at what is wanted answers alone: where it can vote with itself and has the time several times, else once.

        `why` says so, unless it is that it leads. This device answers where the leader has too much to do. Raises Overloaded, DeadlinePassed.
        """
        config, name = self.prices, self.row(leader).name
        alone = replace(plan, layers=0, proposers=0, best_of=0, quorum=0, fixed=(), aggregator=leader)
        several = self._seated(alone, leader, votes)
        card = self._card(leader)
        probed = tally(card, CLASSES[wanted])
        known = f"{probed.right} of {probed.total} probes of {CLASSES[wanted]}, " if probed.known else ""
        why = (
            why
            or f"it is far more skilled than the others ({known}skill {card.skill:.3g}): their votes would do harm"
        )
        if not config.enabled:
            sizes[:] = [Decision(_of_leader(name, several), why)]
            return several
        own = mine if plan.own == self.me else self.offer(plan.own, now)
        theirs = own if leader == plan.own else self.offer(leader, now)
        most = max(worth for layers, _, worth in config.worths if layers <= 1)
        less = most - self._committee.gain(several_jobs(several))
        ways = [(alone, _alone(config, theirs, less, 1, room))]
        if several is not alone:
            ways.insert(0, (several, _alone(config, theirs, most, several_jobs(several), room)))
        if leader != plan.own:
            # Half as skilled is worth half as much (guess).
            mean, whole = self.skills((plan.own, leader), wanted)
            share = min(1.0, mean / whole) if whole else 1.0
            here = _alone(config, own, share * config.worth(0, 0), 1, room)
            ways.append((replace(alone, aggregator=plan.own), here))
        soon = [
            self.max_wait_s <= 0.0
            or (own if way.aggregator == plan.own else theirs).wait_s <= self.max_wait_s
            for way, _ in ways
        ]
        if not any(soon):
            self._check_wait(own)
        ways = [way for way, there in zip(ways, soon, strict=True) if there]
        offered = [bid for _, bid in ways]
        chosen = best(config, offered, plan.deadline_s)
        if chosen is None:
            refusal = _refusal(config, offered, own, plan.deadline_s, room)
            soonest = min(o.idle.stage_s(Stage.PROPOSE) for o in (theirs, own))
            if not keeps(config, Bid(0, 0, most, 0.0, (), soonest), plan.deadline_s):
                raise DeadlinePassed(f"{refusal}, also where nobody has anything else to do")
            raise Overloaded(refusal)
        found = next(way for way, each in ways if each is chosen)
        told = "; ".join(f"worth {each.worth:g}, price {each.price:.1f}" for each in offered)
        if found.aggregator != leader:
            sizes[:] = [
                Decision(_of_leader(self.row(plan.own).name, found), f"{name} has too much to do ({told})")
            ]
        else:
            sizes[:] = [Decision(_of_leader(name, found), f"{why} ({told})")]
        return found

    def _named(self, name: str, past: Headway | None) -> DeviceId:
        """The device of that name, which need not be there where nothing is to be asked of it any more."""
        last = () if past is None else tuple(p.device for p in past.proposals if p.layer == past.layers)
        gone = next((DeviceId(row.id) for row in last if name in (row.name, row.id)), None)
        return gone or self.find(name)

    def _place(
        self,
        private: bool,
        fixed: tuple[DeviceId, ...],
        rng: Random,
        decisions: list[Decision],
        past: Headway | None,
    ) -> DeviceId:
        if self.serves(self.me):
            return self.me
        if private:
            raise NoDevice("this device has no model of its own, so nothing can be kept on it: ask the moot")
        answers = past.proposals if past is not None else ()
        others = tuple(
            DeviceId(p.device.id) for p in answers if p.slot == 0 and self.serves(DeviceId(p.device.id))
        )
        under_way = past.asked if past is not None else ()
        taken = tuple(DeviceId(p.device.id) for p in answers if p.slot)
        taken += tuple(asked.device for asked in under_way if asked.slot)
        others = (
            others or self.others((*fixed, *taken), rng) or self.others(fixed, rng) or self.others((), rng)
        )
        if not others:
            raise NoDevice("no live device has a model: start one with `folkmoot up`, or wait for it to load")
        name = self.row(others[0]).name
        decisions.append(Decision(f"{name} runs the origin's own jobs", "the origin has no model"))
        return others[0]

    def _size(
        self,
        plan: Plan,
        own: DeviceId,
        fixed: tuple[DeviceId, ...],
        decisions: list[Decision],
        past: Headway | None,
    ) -> tuple[int, int]:
        if plan.mode == "local":
            return 0, 0
        if past is not None:
            if plan.mode == "auto":
                what = f"M = {past.layers}, k = {past.proposers}"
                decisions.append(Decision(what, "an earlier try of this prompt was begun so"))
            return past.layers, past.proposers
        there = sum(1 for m in self._live() if m.device not in (own, self.me))
        if plan.mode == "auto":
            proposers = len(fixed) or min(AUTO_PROPOSERS, there)
            if not proposers:
                decisions.append(Decision("no layers: this device answers alone", "no other device is there"))
                return 0, 0
            decisions.append(Decision(f"M = {AUTO_LAYERS}, k = {proposers}", "the default of mode auto"))
            return AUTO_LAYERS, proposers
        if plan.layers == 0:
            return 0, 0
        if fixed:
            if plan.proposers not in (None, len(fixed)):
                raise PromptInvalid(f"proposers is {plan.proposers}, but select names {len(fixed)} peers")
            return plan.layers, len(fixed)
        return plan.layers, min(AUTO_PROPOSERS, there) if plan.proposers is None else plan.proposers

    def _priced(
        self,
        plan: Resolved,
        prompt: Prompt,
        rng: Random,
        now: float,
        mine: Offer,
        room: float,
        sizes: list[Decision],
        kind: Kind | None,
        alike: Sequence[DeviceId],
    ) -> tuple[Resolved, float]:
        """The (M, k) with the most left of its worth, and its price in points; `fixed` and `local` as they are or not at all.

        Answers of a `kind` that is compared are voted on by those that are `alike`: one layer, and no job that aggregates.
        """
        config, free = self.prices, prompt.plan.mode == "auto" and not plan.fixed and plan.layers > 0
        if free:
            most = max(proposers for _, proposers, _ in config.worths)
            plan = replace(plan, layers=1, proposers=most, best_of=max(plan.best_of, config.draw))
        own = mine if plan.own == self.me else self.offer(plan.own, now)
        seats = self._seats(plan, prompt, rng, alike) if kind is not None else ()
        first = self.peers(plan, prompt.id, 1, rng) if plan.layers and kind is None else seats[1:]
        offers = [self.offer(peer, now) for peer in first]
        chair = own if not seats or seats[0] == plan.own else self.offer(seats[0], now)
        if seats:  # who sits in a place again has one more job to do before that
            times = [seats[:place].count(seat) for place, seat in enumerate(seats)]
            offers = [replace(o, queue=o.queue + more) for o, more in zip(offers, times[1:], strict=True)]
        known = [offer.service_s for offer in (own, chair, *offers) if offer.service_s]
        usual = sum(known) / len(known) if known else 0.0
        ratios = self._ratios()
        own, chair, *offers = (
            (o if o.service_s else replace(o, service_s=usual)).filled(ratios) for o in (own, chair, *offers)
        )
        if self.max_wait_s and free:
            soon = [place for place, offer in enumerate(offers) if offer.wait_s <= self.max_wait_s]
            first, offers = tuple(first[place] for place in soon), [offers[place] for place in soon]
        for each in offers:
            self._check_wait(each)
        wanted = [(m, k) for m, k, _ in config.worths] if free else [(plan.layers, len(first))]
        if kind is not None:
            wanted = [(m, k) for m, k in wanted if m <= 1 and k < self._committee.most]
        waves = None if kind is None else self._committee.waves_at
        judges = judges_at_most(plan.layers, len(first), plan.keep, plan.early_stop)

        def offered_by(own: Offer, chair: Offer, offers: Sequence[Offer], room: float = 1.0) -> list[Bid]:
            layered = [each for each in wanted if each[0]]
            found = bids(config, layered, chair, offers, room, waves=waves, judges=judges)
            return found + bids(config, [each for each in wanted if not each[0]], own, (), room)

        offered = offered_by(own, chair, offers, room)
        if kind is not None:
            alone = config.worth(0, 0)
            offered = [
                replace(each, worth=alone + self._committee.gain(each.proposers + 1)) for each in offered
            ]
        bid = best(config, offered, plan.deadline_s)
        if bid is None:
            why = _refusal(config, offered, own, plan.deadline_s, room)
            idle = offered_by(own.idle, chair.idle, [offer.idle for offer in offers])
            if not any(keeps(config, each, plan.deadline_s) for each in idle):
                raise DeadlinePassed(f"{why}, also where nobody has anything else to do")
            raise Overloaded(why)
        if not free:
            return replace(plan, first=first), bid.price
        sizes[:] = [Decision(_named(bid), _why(config, bid, offered, plan.deadline_s))]
        if not bid.layers:
            return replace(plan, layers=0, proposers=0, best_of=0, quorum=0), bid.price
        if seats:
            sat = (seats[0], *first)[: bid.proposers + 1]
            return replace(plan, layers=1, proposers=bid.proposers, seats=sat), bid.price
        chosen = replace(plan, layers=bid.layers, proposers=bid.proposers, first=first[: bid.proposers])
        return chosen, bid.price

    def _check_wait(self, offer: Offer) -> None:
        """Raise Overloaded where a first-layer job at this device is expected to wait for too long."""
        if 0.0 < self.max_wait_s < offer.wait_s:
            raise Overloaded(
                f"a first job is expected to wait {offer.wait_s:.3g} s, the bound max_wait_s is {self.max_wait_s:g} s"
            )

    def _aggregator(self, aggregator: str, own: DeviceId, kind: Kind, decisions: list[Decision]) -> DeviceId:
        if aggregator == "origin":
            return own
        if aggregator == "strongest":
            others = (m.device for m in self._live() if self.breakers.admits(m.device))
            serving = [d for d in (own, *others) if self.serves(d)]
            skills = dict(zip(serving, self.skills(serving, kind), strict=True))
            best = max(serving, key=skills.__getitem__, default=own)
            if best != own:
                tied = [d for d in serving if skills[d] == skills[best]]
                best = min(tied, key=lambda d: self.delay_s(d, Stage.AGGREGATE))
                among = ", and of those the least to do" if len(tied) > 1 else ""
                decisions.append(
                    Decision(f"{self.row(best).name} aggregates", f"it has the strongest model{among}")
                )
            return best
        return self.find(aggregator.removeprefix("fixed:"))


def is_called(name: str, member: Member) -> bool:
    """Whether a device has that name, alone or with `~` and the beginning of its id, or that id (6 digits of it or more)."""
    plain, _, piece = name.partition("~")
    by_id = len(name) >= 6 and member.device.startswith(name)
    return by_id or (member.card.name == plain and member.device.startswith(piece))


def asked_last(prompt: Prompt) -> str:
    """The last words of the user."""
    return next((turn.content for turn in reversed(prompt.conversation) if turn.role == "user"), "")


def stage_of(layer: int) -> Stage:
    """What a layer's jobs are (1 the first)."""
    return Stage.PROPOSE if layer == 1 else Stage.REFINE


def _check(plan: Plan) -> None:
    """Raise PromptInvalid for what is out of range whoever is alive."""
    if plan.mode not in ("auto", "fixed", "local"):
        raise PromptInvalid(f"mode is {plan.mode!r}; it is one of auto, fixed, local")
    if not 0 <= plan.layers <= MAX_LAYERS:
        raise PromptInvalid(f"layers is {plan.layers}; it lies in 0..{MAX_LAYERS}")
    if plan.proposers is not None and not 0 <= plan.proposers <= MAX_PROPOSERS:
        raise PromptInvalid(f"proposers is {plan.proposers}; it lies in 0..{MAX_PROPOSERS}")
    if plan.mode == "fixed" and plan.layers == 0 and plan.proposers:
        raise PromptInvalid(
            f"proposers is {plan.proposers}, but with layers = 0 nobody is asked: leave it out"
        )
    if plan.best_of < 0 or (plan.best_of and plan.select):
        raise PromptInvalid("select is best-of:D with D of 1 or more, or names peers; not both")
    if plan.quorum < 0:
        raise PromptInvalid(f"quorum is {plan.quorum}; it is 1 or more, at most k + 1")
    if plan.keep < 0:
        raise PromptInvalid(f"keep is {plan.keep}; it is 1 or more, at most k + 1")
    if (plan.keep or plan.early_stop) and (plan.mode != "fixed" or not plan.layers):
        raise PromptInvalid(
            "keep and early_stop judge the answers of fixed layers: give layers of 1 or more and proposers with them"
        )
    if plan.deadline_s is not None and not plan.deadline_s >= 0.05:
        raise PromptInvalid(f"deadline_s is {plan.deadline_s}; it is at least 0.05")
    if plan.private and (plan.mode == "fixed" or plan.select or plan.best_of or plan.aggregator != "origin"):
        raise PromptInvalid(
            "a private prompt stays on this device: it can ask no peer, and none can aggregate"
        )
    known = ("origin", "strongest")
    if plan.aggregator not in known and not plan.aggregator.startswith("fixed:"):
        raise PromptInvalid(f"aggregator is {plan.aggregator!r}; it is origin, strongest or fixed:NAME")


def _by_chance(prompt: Prompt) -> bool:
    """Whether a device that is asked again writes something else."""
    return prompt.sampling.temperature > SAMPLED


def _alone(config: PriceConfig, offer: Offer, worth: float, jobs: int, room: float) -> Bid:
    """So many jobs of one device, one after another."""
    cost = jobs * price(config, offer, room)
    return Bid(0, 0, worth, cost, (), offer.wait_s + jobs * offer.stage_s(Stage.PROPOSE))


def several_jobs(plan: Resolved) -> int:
    """Jobs of a plan whose leader answers alone, at most."""
    return 1 if plan.committee is None else plan.committee.most


# ---- what a decision says ------------------------------------------------------------------------------


def _of_leader(name: str, plan: Resolved) -> str:
    times = f", up to {several_jobs(plan)} times" if plan.committee is not None else ""
    return f"{name} answers alone{times}"


def _named(bid: Bid) -> str:
    return f"M = {bid.layers}, k = {bid.proposers}" if bid.layers else "M = 0: the origin answers alone"


def _why(config: PriceConfig, bid: Bid, offered: Sequence[Bid], deadline_s: float | None) -> str:
    peers = " + ".join(f"{each:.1f}" for each in bid.peers)
    asked = f", peers {bid.layers} x ({peers})" if bid.peers else ""
    parts = [f"worth {bid.worth:g}, price {bid.price:.1f} (own {bid.own_jobs} x {bid.own:.1f}{asked})"]
    others = [each for each in offered if each is not bid and keeps(config, each, deadline_s)]
    if others:
        second = max(others, key=lambda each: each.score)
        parts.append(f"runner-up {_named(second)}: worth {second.worth:g}, price {second.price:.1f}")
    late = [each for each in offered if each.score > bid.score and not keeps(config, each, deadline_s)]
    if late:
        first = max(late, key=lambda each: each.score)
        parts.append(
            f"the deadline of {deadline_s:g} s excludes {_named(first)} ({config.factor(first.layers):g} x {first.expected_s:.3g} s)"
        )
    return "; ".join(parts)


def _refusal(
    config: PriceConfig, offered: Sequence[Bid], own: Offer, deadline_s: float | None, room: float
) -> str:
    in_time = [bid for bid in offered if keeps(config, bid, deadline_s)]
    if not in_time:
        soonest = min(offered, key=lambda bid: bid.expected_s)
        return (
            f"the deadline of {deadline_s:g} s cannot be kept: {_named(soonest)} is expected to take "
            f"{soonest.expected_s:.3g} s, and {config.factor(soonest.layers):g} times as long must fit"
        )
    if not any(bid.layers for bid in offered):
        return f"pressure {pressure(config, own):.1f} of {config.pressure * room:g} on this device"
    bid = max(in_time, key=lambda each: each.score)
    return f"{_named(bid)} is worth {bid.worth:g} and costs {bid.price:.1f}: the devices have too much to do"
