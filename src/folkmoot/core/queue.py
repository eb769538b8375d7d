"""A device's queue: who is served next, how many at a time, and what is done while it is empty.

The device serves its own prompts' jobs and its peers' alike; replies go to the origin as messages,
and the peer loops those to itself back. A finished job's text is kept for a while, so that an origin
that missed something can ask again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from folkmoot.core.events import (
    Abort,
    Chill,
    Effect,
    EngineFailed,
    Finished,
    ForgetTimer,
    Generate,
    Generated,
    Send,
    ServiceLimited,
    SetTimer,
    WaitTimer,
    Warm,
    Warmed,
)
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.messages import (
    Answer,
    Ask,
    Began,
    Cancel,
    Inference,
    Outcome,
    Piece,
    Poll,
    Queued,
    Undone,
    Usage,
)
from folkmoot.core.meter import Meter, MeterConfig
from folkmoot.core.price import Offer
from folkmoot.errors import BudgetSpent, ConfigError

DISCIPLINES = ("fcfs", "lsf")
"""First come first served; later stage first: of the jobs of the latest layer the first come."""


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A device's queue: its order and its bounds.

    `discipline` is one of `DISCIPLINES`, `slots` how many jobs the engine serves at a time (more than one is for
    servers that batch). `max_waiting` jobs and `max_characters` of all their texts together (guesses; a single question may
    have four million); another device's jobs may take up half of either, all others' three quarters.
    `tries` of one job on this engine while nothing was written (guess), `keep_s` seconds and `keep_jobs`
    finished texts for origins that ask again (guess), `warm_prompts` prompts prefilled ahead (one: each holds
    an engine slot, ENGINES.md trap 4), each given up for another one after `keep_s` seconds without news of
    it, since its asker may have withdrawn it; `declined_kept` remembered cancellations and refusals (a cancel
    may overtake its ask, and an ask may come twice).
    """

    discipline: str = "fcfs"
    slots: int = 1
    max_waiting: int = 256
    max_characters: int = 32_000_000
    tries: int = 2
    keep_s: float = 30.0
    keep_jobs: int = 64
    warm_prompts: int = 1
    declined_kept: int = 1024
    meter: MeterConfig = field(default_factory=MeterConfig)

    def validate(self) -> None:
        """Raises ConfigError where a value is none that a queue can work with."""
        if self.discipline not in DISCIPLINES:
            raise ConfigError(f"discipline is {self.discipline!r}; it is one of {', '.join(DISCIPLINES)}")
        if self.slots < 1:
            raise ConfigError(f"slots is {self.slots}; a device serves at least 1 job at a time")


_LEAVING = "this device is shutting down"

_TO_OTHERS = {"too_long": "the prompt is longer than its context", "no_engine": "it has no model"}
"""What other devices are told of an engine's failure: its own words may hold paths, addresses or keys."""

_Key = tuple[DeviceId, JobId]
"""Who asked, and its name for the job: ids are no secret, and nobody may take another's."""


@dataclass(slots=True)
class _Job:
    """A job here; its device's share has paid for `counted_s` of service. `usage` is this try's, `spent` that of tries that failed."""

    ask: Ask
    origin: DeviceId
    waits_since: float
    characters: int
    excess: bool = False
    counted_s: float = 0.0
    began: float | None = None
    queued_s: float = 0.0
    tries: int = 0
    text: list[str] = field(default_factory=list)
    length: int = 0
    spent: Usage = Usage()
    usage: Usage = Usage()
    dropped: bool = False
    end: Answer | Undone | None = None

    @property
    def cost(self) -> Usage:
        return self.spent.then(self.usage) if self.tries else self.usage

    def after(self, have: int) -> str:
        return "".join(self.text)[have:]


_Line = dict[int, deque[_Key]]
"""Jobs by layer, under first come first served all in one."""


class _Lines:
    """The jobs that wait: one line, or under later stage first a line a layer, the latest one before the others.

    What a device asks for beyond its share waits behind all else, in lines of its own. There the devices take turns: who
    asks for a little too much does not wait for all that another one asks for. `held` counts jobs and characters of each
    device that asks.
    """

    def __init__(self, by_layer: bool) -> None:
        self.count = 0
        self.characters = 0
        self.excess = 0
        self.held: dict[DeviceId, tuple[int, int]] = {}
        self._by_layer = by_layer
        self._within: _Line = {}
        self._beyond: dict[DeviceId, _Line] = {}

    def __iter__(self) -> Iterator[_Key]:
        yield from _in_order(self._within)
        for turn in zip_longest(*map(_in_order, self._beyond.values())):
            yield from (key for key in turn if key is not None)

    def put(self, key: _Key, job: _Job, *, first: bool = False) -> None:
        """Let a job in, at the end of its line or at its head."""
        lines = self._beyond.setdefault(job.origin, {}) if job.excess else self._within
        line = lines.setdefault(self._number(job), deque())
        if first:
            line.appendleft(key)
        else:
            line.append(key)
        self._hold(key, job, 1)

    def take(self, key: _Key, job: _Job) -> None:
        """A job leaves, to be served or for good."""
        number = self._number(job)
        lines = self._beyond.pop(job.origin) if job.excess else self._within
        lines[number].remove(key)
        if not lines[number]:
            del lines[number]
        if job.excess and lines:
            self._beyond[job.origin] = lines  # it has had its turn
        self._hold(key, job, -1)

    def ahead(self, key: _Key, job: _Job) -> int:
        """How many are served before a job that waits, as things stand."""
        if job.excess:
            return next(place for place, other in enumerate(self) if other == key)
        number = self._number(job)
        later = sum(len(line) for other, line in self._within.items() if other > number)
        return later + self._within[number].index(key)

    def _number(self, job: _Job) -> int:
        return job.ask.layer if self._by_layer else 0

    def _hold(self, key: _Key, job: _Job, sign: int) -> None:
        jobs, characters = self.held.get(key[0], (0, 0))
        self.count += sign
        self.excess += sign * job.excess
        self.characters += sign * job.characters
        if jobs + sign:
            self.held[key[0]] = (jobs + sign, characters + sign * job.characters)
        else:
            del self.held[key[0]]


def _in_order(lines: _Line) -> Iterator[_Key]:
    return (key for number in sorted(lines, reverse=True) for key in lines[number])


@dataclass(slots=True)
class _Warming:
    inference: Inference
    heard: float
    dirty: bool = True


class Queue:
    """The jobs of one device and its engine's time, which `meter` measures. `devices` are in the moot.

    With `max_wait_s` > 0 no first-layer job waits here for longer than so many seconds.
    """

    def __init__(self, me: DeviceId, config: QueueConfig, has_engine: bool, max_wait_s: float = 0.0) -> None:
        config.validate()
        self.config = config
        self._max_wait_s = max_wait_s
        self._me = me
        self.has_engine = has_engine
        self.closing = False
        self._limited = ServiceLimited(False, (), "", "")
        self.devices = 1
        self.meter = Meter(config.meter, config.slots)
        self._jobs: dict[_Key, _Job] = {}
        self._waiting = _Lines(config.discipline == "lsf")
        self._serving: dict[JobId, _Key] = {}
        self._kept: dict[_Key, None] = {}
        self._declined: dict[_Key, Undone] = {}
        self._warming: dict[tuple[DeviceId, PromptId], _Warming] = {}
        self._step: Inference | None = None

    @property
    def waiting(self) -> int:
        """Jobs waiting, not counting the one in service (the paper's queue size)."""
        return self._waiting.count

    @property
    def excess(self) -> int:
        """Those of them that are beyond the share of the device that asked, and wait behind all others."""
        return self._waiting.excess

    @property
    def busy(self) -> int:
        """Jobs in service."""
        return len(self._serving)

    def offer(self, now: float, max_tokens: int | None = None) -> Offer:
        """What this device knows of its own load, and of jobs that may write `max_tokens` where a bound is known."""
        meter = self.meter
        stages = meter.each_stage_s if max_tokens is None else meter.stages_within_s(max_tokens)
        ahead = (self.waiting - self.excess + self.busy) / meter.slots
        return Offer(
            meter.debt(now) / meter.slots,
            ahead,
            meter.service_s,
            meter.late_load(now),
            stages,
            meter.load(now),
        )

    def origin_of(self, job: JobId) -> DeviceId:
        """Who asked for a job in service. Raises KeyError for any other."""
        return self._serving[job][0]

    # ---- what origins say --------------------------------------------------------------------------

    def on_ask(self, origin: DeviceId, ask: Ask, now: float) -> list[Effect]:
        """Put a job into the queue; a job that is already known only says again where it stands."""
        key = (origin, ask.job)
        if key in self._declined:
            return [Send(origin, self._declined[key])]
        if key in self._jobs:
            return self.on_poll(origin, Poll(ask.job, 0))
        characters = _characters(ask.inference)
        refusal = self._refusal(origin, ask, characters, now)
        if refusal is not None:
            return [self._decline(origin, Undone(ask.job, Outcome.REFUSED, *refusal))]
        here = self._waiting.held.get(origin, (0, 0))[0] + sum(k[0] == origin for k in self._serving.values())
        counted_s = 0.0 if origin == self._me else self.meter.take(origin, self.devices, here, now)
        excess = counted_s is None
        job = self._jobs[key] = _Job(ask, origin, now, characters, excess, counted_s or 0.0)
        self._waiting.put(key, job)
        self.meter.joined(ask.kind, ask.layer, now, excess=excess)
        ahead = self._waiting.ahead(key, job) + self.busy
        effects: list[Effect] = [Send(origin, Queued(ask.job, ahead)), *self._next(now)]
        if self._max_wait_s and ask.layer == 1 and job.began is None:
            effects.append(SetTimer(now + self._max_wait_s, WaitTimer(ask.job, origin)))
        return effects

    def on_wait_timer(self, timer: WaitTimer, now: float) -> list[Effect]:
        """A first-layer job that has waited for too long is dropped. Nobody is served sooner because they waited longer."""
        key = (timer.origin, timer.job)
        job = self._jobs.get(key)
        if job is None or job.end is not None or job.began is not None or job.tries:
            return []
        told = f"it waited {self._max_wait_s:g} s for its turn, which is the bound max_wait_s"
        effects = self._drop(key, now)
        return [self._decline(timer.origin, Undone(timer.job, Outcome.REFUSED, "waited", told)), *effects]

    def _decline(self, origin: DeviceId, end: Undone) -> Effect:
        """Say that a job is not run, and say the same should it be asked again."""
        self._declined[origin, end.job] = end
        if len(self._declined) > self.config.declined_kept:
            del self._declined[next(iter(self._declined))]
        return Send(origin, end)

    def _refusal(self, origin: DeviceId, ask: Ask, characters: int, now: float) -> tuple[str, str] | None:
        if not self.has_engine:
            return "no_engine", "this device has no model"
        if self.closing and origin != self._me:
            return "leaving", _LEAVING
        if self._is_limited(origin):
            return self._told(origin)
        if ask.hops:
            return "recursion", f"the job has crossed {ask.hops} moot(s) already: no recursion"
        jobs, texts = self.config.max_waiting, self.config.max_characters
        held, count, text = self._waiting.held, self._waiting.count, self._waiting.characters
        if full := _over(count, text, characters, jobs, texts):
            return "overloaded", f"{full} here"
        if origin == self._me:
            return None
        if self._max_wait_s and ask.layer == 1:
            wait_s = self.offer(now).wait_s
            if wait_s > self._max_wait_s:
                wait = f"a first job is expected to wait {wait_s:.3g} s here"
                return "overloaded", f"{wait}, the bound max_wait_s is {self._max_wait_s:g} s"
        if full := _over(*held.get(origin, (0, 0)), characters, max(1, jobs // 2), texts // 2):
            return "overloaded", f"{full} from the device that asks"
        mine = held.get(self._me, (0, 0))
        count, text = count - mine[0], text - mine[1]
        if full := _over(count, text, characters, max(1, jobs * 3 // 4), texts * 3 // 4):
            return "overloaded", f"{full} from other devices"
        return None

    def on_cancel(self, origin: DeviceId, cancel: Cancel, now: float) -> list[Effect]:
        """Drop a job of this origin, also one that has not arrived yet or arrives once more."""
        key = (origin, cancel.job)
        job = self._jobs.get(key)
        if job is not None and (job.dropped or job.end is not None):
            return []  # what is done is kept for its while: an origin that lost its connection may ask again
        told = self._decline(origin, _cancelled(cancel.job, job))
        if job is None:
            return []
        effects: list[Effect] = []
        if job.ask.inference.answers:
            effects += self.cool(origin, job.ask.prompt)  # of a layer that goes on without this job
        if job.began is None:
            effects.append(told)
        return effects + self._drop(key, now)

    def _drop(self, key: _Key, now: float) -> list[Effect]:
        job = self._jobs[key]
        if key == self._serving.get(key[1]):
            job.dropped = True
            return [Abort(key[1])]
        if job.end is None:
            self._waiting.take(key, job)
            self._gone(job, now)
            del self._jobs[key]
            return self._next(now)
        return []

    def on_poll(self, origin: DeviceId, poll: Poll) -> list[Effect]:
        """Say again where a job of this origin stands, from character `have` on."""
        key = (origin, poll.job)
        job = self._jobs.get(key)
        if job is None or job.dropped:
            return [Send(origin, Undone(poll.job, Outcome.FAILED, "unknown_job", "no such job here"))]
        if job.began is None:
            return [Send(origin, Queued(poll.job, self._waiting.ahead(key, job) + self.busy))]
        effects: list[Effect] = [Send(origin, Began(poll.job, job.queued_s))]
        missing = job.after(poll.have)
        if missing:
            effects.append(Send(origin, Piece(poll.job, poll.have, missing, job.cost)))
        if job.end is not None:
            effects.append(Send(origin, job.end))
        return effects

    def on_origin_gone(self, origin: DeviceId, now: float) -> list[Effect]:
        """An origin is dead: nobody waits for its jobs."""
        effects: list[Effect] = []
        for key in [key for key, job in self._jobs.items() if key[0] == origin and not job.dropped]:
            effects += self._drop(key, now)
        for prompt in [prompt for asker, prompt in self._warming if asker == origin]:
            effects += self.cool(origin, prompt)
        return effects

    # ---- what the engine says ----------------------------------------------------------------------

    def on_generated(self, event: Generated) -> list[Effect]:
        """Pass the next words on."""
        key = self._serving.get(event.job)
        if key is None:
            return []
        job = self._jobs[key]
        job.usage = event.usage
        if job.dropped or not event.text:
            return []
        offset = job.length
        job.text.append(event.text)
        job.length += len(event.text)
        return [Send(job.origin, Piece(event.job, offset, event.text, job.cost))]

    def on_finished(self, event: Finished, now: float) -> list[Effect]:
        """The engine is free; the answer is whole."""
        key = self._serving.pop(event.job, None)
        if key is None:
            return []
        job = self._jobs[key]
        job.usage = event.usage
        self._settle(job, now)
        self.meter.served(job.ask.kind, event.usage, now)
        if job.dropped:
            return self._end_dropped(key, now)
        end = Answer(event.job, job.length, job.queued_s, job.cost, event.truncated)
        return [*self._end(key, end, now), *self._next(now)]

    def on_engine_failed(self, event: EngineFailed, now: float) -> list[Effect]:
        """The engine gave the job up: repeat it while nothing was written, else say so to its origin."""
        key = self._serving.pop(event.job, None)
        if key is None:
            return []
        job = self._jobs[key]
        job.usage = event.usage
        spent_s = 0.0 if job.began is None else now - job.began
        self.meter.wasted(spent_s)
        if job.dropped:
            self.meter.cut(job.ask.kind, spent_s, own=job.origin == self._me)
            self._settle(job, now)
            return self._end_dropped(key, now)
        again = event.code in ("engine_failed", "engine_unreachable") and not job.length
        if again and job.tries + 1 < self.config.tries:
            job.spent, job.usage = job.cost, Usage()
            job.tries += 1
            job.began, job.waits_since = None, now
            self._waiting.put(key, job, first=True)
            return self._next(now)
        self._settle(job, now)
        outcome = Outcome.REFUSED if event.code == "too_long" else Outcome.FAILED
        detail = event.detail if job.origin == self._me else _TO_OTHERS.get(event.code, "its engine failed")
        end = Undone(event.job, outcome, event.code, detail, job.queued_s, job.cost)
        return [*self._end(key, end, now), *self._next(now)]

    def _gone(self, job: _Job, now: float) -> None:
        """A job leaves without having been served."""
        if not job.excess:
            self.meter.gone(now)
        self._settle(job, now)

    def _settle(self, job: _Job, now: float) -> None:
        """Its device's share has paid for a job of mean length: let it pay for what this one took."""
        if not job.excess and job.origin != self._me:
            # By this device's own clock: an engine that is told to stop may not say what it has cost.
            seconds = 0.0 if job.began is None else now - job.began
            took_s = job.spent.inference_s + seconds
            self.meter.settle(job.origin, took_s - job.counted_s, self.devices, now)

    def _end_dropped(self, key: _Key, now: float) -> list[Effect]:
        """The engine has let go of a job that nobody wants any more: say what it cost."""
        job = self._jobs.pop(key)
        return [Send(job.origin, _cancelled(key[1], job)), *self._next(now)]

    def _end(self, key: _Key, end: Answer | Undone, now: float) -> list[Effect]:
        job = self._jobs[key]
        job.end = end
        # Its text may be asked for again, its question no more.
        job.ask = replace(job.ask, inference=Inference(job.ask.prompt, ()))
        self._kept[key] = None
        if len(self._kept) > self.config.keep_jobs:
            # Whoever has most kept here loses its oldest: nobody drives out the others' answers.
            most, _ = Counter(origin for origin, _ in self._kept).most_common(1)[0]
            oldest = next(kept for kept in self._kept if kept[0] == most)
            del self._kept[oldest], self._jobs[oldest]
        return [Send(job.origin, end), SetTimer(now + self.config.keep_s, ForgetTimer(key[1], key[0]))]

    def on_forget(self, timer: ForgetTimer) -> None:
        """A finished job's text has been kept long enough."""
        key = (timer.origin, timer.job)
        if key in self._kept:
            del self._kept[key], self._jobs[key]

    # ---- prefill -----------------------------------------------------------------------------------

    def warm(self, asker: DeviceId, inference: Inference, now: float) -> list[Effect]:
        """Evaluate this inference's open prefix whenever the engine has nothing else to do."""
        key = (asker, inference.prompt)
        known = self._warming.get(key)
        if known is not None:
            if len(inference.answers) < len(known.inference.answers):
                return []
            known.inference, known.heard, known.dirty = inference, now, True
            return self._warm_step()
        if not self.has_engine or self.closing or self._is_limited(asker):
            return []
        effects: list[Effect] = []
        if len(self._warming) >= self.config.warm_prompts:
            # This device's own prompts go before those of others, who may say what they like.
            mine = asker == self._me
            for old in [
                known
                for known, warming in self._warming.items()
                if now - warming.heard > self.config.keep_s or (mine and known[0] != self._me)
            ][:1]:
                effects += self.cool(*old)
        if len(self._warming) < self.config.warm_prompts:
            self._warming[key] = _Warming(inference, now)
        return effects + self._warm_step()

    def cool(self, asker: DeviceId, prompt: PromptId) -> list[Effect]:
        """Prefill nothing more of this device's prompt."""
        warming = self._warming.pop((asker, prompt), None)
        under_way = warming is not None and self._step is not None and self._step.prompt == prompt
        return [Chill(prompt)] if under_way else []

    def on_warmed(self, event: Warmed, now: float) -> list[Effect]:
        """A prefill step is over."""
        if self._step is None or event.prompt != self._step.prompt:
            return []
        for warming in self._warming.values():
            if warming.inference is self._step and event.evaluated >= event.total:
                warming.dirty = False
        self._step = None
        return self._next(now)

    def _warm_step(self) -> list[Effect]:
        if self._serving or self.waiting or self._step is not None:
            return []
        for warming in self._warming.values():
            if warming.dirty:
                self._step = warming.inference
                return [Warm(warming.inference)]
        return []

    # ---- the discipline ----------------------------------------------------------------------------

    def _next(self, now: float) -> list[Effect]:
        """Begin with as many jobs as there are free slots for."""
        effects: list[Effect] = []
        while len(self._serving) < self.config.slots and (key := self._first()) is not None:
            if self._step is not None and not effects:
                effects.append(Chill(self._step.prompt))
            job = self._jobs[key]
            self._waiting.take(key, job)
            self._serving[key[1]] = key
            job.began = now
            job.queued_s += now - job.waits_since
            if job.ask.inference.answers:
                self._warming.pop((job.origin, job.ask.prompt), None)
            effects += [Generate(key[1], job.ask.inference), Send(job.origin, Began(key[1], job.queued_s))]
        return effects or self._warm_step()

    def _first(self) -> _Key | None:
        """Who is served next. The engine knows jobs by their ids: of two that bear one, the other waits."""
        return next((key for key in self._waiting if key[1] not in self._serving), None)

    def limit(self, limited: ServiceLimited, now: float) -> list[Effect]:
        """Serve some devices no more: what waits of theirs is handed back, what is in service is finished."""
        self._limited = limited
        effects: list[Effect] = []
        for key in [key for key in self._waiting if self._is_limited(key[0])]:
            job = self._jobs.pop(key)
            self._waiting.take(key, job)
            self._gone(job, now)
            effects.append(Send(key[0], Undone(key[1], Outcome.REFUSED, *self._told(key[0]))))
        for asker, prompt in [known for known in self._warming if self._is_limited(known[0])]:
            effects += self.cool(asker, prompt)
        return effects

    def _told(self, origin: DeviceId) -> tuple[str, str]:
        """What somebody hears who is served no more."""
        if origin == self._me:
            return BudgetSpent.code, "this device's own budget is used up for today"
        return self._limited.code, self._limited.detail

    def _is_limited(self, origin: DeviceId) -> bool:
        limited = self._limited
        return limited.own if origin == self._me else limited.others or origin in limited.origins

    def hand_back(self) -> list[Effect]:
        """Shutting down: give every waiting job of another origin back; take none any more."""
        self.closing = True
        effects: list[Effect] = []
        for key in [key for key in self._waiting if key[0] != self._me]:
            self._waiting.take(key, self._jobs[key])
            del self._jobs[key]
            effects.append(Send(key[0], Undone(key[1], Outcome.REFUSED, "leaving", _LEAVING)))
        for asker, prompt in list(self._warming):
            effects += self.cool(asker, prompt)
        return effects

    def stop(self) -> list[Effect]:
        """Stop at once: the jobs in service are given up too."""
        self.closing = True
        effects: list[Effect] = []
        for origin, job_id in self._serving.values():
            job = self._jobs[origin, job_id]
            if not job.dropped:
                job.dropped = True
                gone = Undone(job_id, Outcome.FAILED, "leaving", _LEAVING, job.queued_s, job.cost)
                effects += [Abort(job_id), Send(origin, gone)]
        return effects


def _characters(inference: Inference) -> int:
    return sum(len(turn.content) for turn in inference.conversation) + sum(map(len, inference.answers))


def _over(waiting: int, characters: int, more: int, jobs: int, texts: int) -> str | None:
    """What is full, should one more job with `more` characters join those that wait."""
    if waiting >= jobs:
        return f"{waiting} jobs are waiting, the bound is {jobs},"
    if waiting and characters + more > texts:
        return f"the waiting jobs have more than {texts} characters, which is the bound,"
    return None


def _cancelled(job_id: JobId, job: _Job | None) -> Undone:
    detail = "its origin took it back"
    if job is None:
        return Undone(job_id, Outcome.CANCELLED, "cancelled", detail)
    return Undone(job_id, Outcome.CANCELLED, "cancelled", detail, job.queued_s, job.cost)
