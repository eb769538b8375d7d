"""Real peers whose messages arrive in any order, late, twice or never, and the promises that hold all the same."""

from __future__ import annotations

import heapq

from tests.core.world import Moot

from folkmoot.core.events import (
    Announce,
    AnswerText,
    Effect,
    Event,
    Fired,
    Generate,
    JobProgress,
    Plan,
    Prompt,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Received,
    Send,
    StreamLost,
    Submitted,
    Warmed,
    Withdrawn,
)
from folkmoot.core.ids import DeviceId, JobId, PromptId, draw_prompt_id, prompt_of
from folkmoot.core.messages import Ask, Cancel, Poll, Prepare, Turn
from folkmoot.core.peer import PeerConfig
from folkmoot.errors import PROMPT_ERRORS

Ended = PromptAnswered | PromptFailed


class Storm(Moot):
    """Nothing arrives by itself. Whatever a device does is held against the promises at once."""

    def __init__(self, models: dict[str, str], config: PeerConfig | None = None, seed: int = 1) -> None:
        self.origins: dict[PromptId, str] = {}
        self.plans: dict[PromptId, Prompt] = {}
        self.shown: dict[PromptId, str] = {}
        self.ends: dict[PromptId, Ended] = {}
        self.ended_at: dict[PromptId, float] = {}
        self.called_off: set[tuple[DeviceId, JobId]] = set()
        self.generated: dict[PromptId, int] = {}
        super().__init__(models, config, seed)

    def deliver(self) -> None:
        """Messages stay on their way until they are picked."""

    def tell(self, name: str, event: Event) -> list[Effect]:
        me = DeviceId(name)
        match event:
            case Received(sender=sender, message=Cancel(job=job)) if self.origin_of(job) == sender:
                self.called_off.add((me, job))
        effects = super().tell(name, event)
        for effect in effects:
            self.stays_private(effect)
            match effect:
                case Announce(notice=notice):
                    self.hear(name, notice)
                case Send(message=Ask(prompt=prompt)):
                    self.still_open(name, prompt, effect)
                case Send(message=Poll(job=job) | Cancel(job=job)):
                    self.still_open(name, prompt_of(job), effect)
                case Send(message=Prepare(inference=inference)):
                    self.still_open(name, inference.prompt, effect)
                case Generate(job=job, inference=inference):
                    assert (me, job) not in self.called_off, f"{job} is run on {me} after its cancellation"
                    self.generated[inference.prompt] = self.generated.get(inference.prompt, 0) + 1
        return effects

    def stays_private(self, effect: Effect) -> None:
        """What a device says to itself never leaves the peer: of a private prompt there is nothing else."""
        if isinstance(effect, Send):
            message = effect.message
            job = getattr(message, "job", None)
            inference = getattr(message, "inference", None)
            prompt = (
                inference.prompt if inference is not None else prompt_of(job) if job is not None else None
            )
            known = self.plans.get(prompt) if prompt is not None else None
            assert known is None or not known.plan.private, f"a word of a private prompt to {effect.to}"

    def origin_of(self, job: JobId) -> str | None:
        return self.origins.get(prompt_of(job))

    def still_open(self, name: str, prompt: PromptId, what: object) -> None:
        assert self.origins[prompt] == name, f"{name} speaks of a prompt of {self.origins[prompt]}: {what}"
        assert prompt not in self.ends, f"after the end of its prompt: {what}"

    def hear(self, name: str, notice: object) -> None:
        match notice:
            case PromptAccepted(prompt=prompt) | JobProgress(prompt=prompt):
                self.still_open(name, prompt, notice)
            case AnswerText(prompt=prompt, text=text):
                self.still_open(name, prompt, notice)
                self.shown[prompt] = self.shown.get(prompt, "") + text
            case PromptAnswered(prompt=prompt, answer=answer):
                self.still_open(name, prompt, notice)
                assert not self.plans[prompt].stream or self.shown.get(prompt, "") == answer
                self.end(prompt, notice)
            case PromptFailed(prompt=prompt, code=code):
                self.still_open(name, prompt, notice)
                assert code in PROMPT_ERRORS, f"{code} is no error of a prompt"
                assert code != "answer_cut" or self.shown[prompt]
                self.end(prompt, notice)

    def end(self, prompt: PromptId, notice: Ended) -> None:
        self.ends[prompt] = notice
        self.ended_at[prompt] = self.now

    # ---- what can happen ---------------------------------------------------------------------------

    def submit(self, name: str, plan: Plan, stream: bool = False) -> PromptId:
        prompt = Prompt(draw_prompt_id(self.rng), (Turn("user", "why?"),), plan, stream=stream)
        self.origins[prompt.id], self.plans[prompt.id] = name, prompt
        self.tell(name, Submitted(prompt))
        return prompt.id

    def withdraw(self, prompt: PromptId) -> None:
        if self.origins[prompt] in self.devices:
            self.tell(self.origins[prompt], Withdrawn(prompt))

    def pick(self, number: int, keep: bool = False) -> None:
        """One of the messages on their way arrives; `keep` lets it arrive once more."""
        place = number % len(self.mail)
        sender, to, message = self.mail[place]
        if not keep:
            del self.mail[place]
        if to in self.devices:
            self.tell(to, Received(sender, message))

    def lose(self, number: int) -> None:
        """One of the messages on their way is lost; where `number` is even its stream's end is noticed."""
        place = number % len(self.mail)
        sender, to, message = self.mail[place]
        del self.mail[place]
        job = getattr(message, "job", None)
        if job is not None and number % 2 == 0:
            for device, other in ((sender, to), (to, sender)):
                if device in self.devices:
                    self.tell(device, StreamLost(other, job))

    def step_done(self, name: str, whole: bool) -> None:
        """A prefill step ends."""
        device = self.devices[DeviceId(name)]
        assert device.warming is not None
        prompt, device.warming = device.warming.prompt, None
        self.tell(name, Warmed(prompt, 9 if whole else 4, 9))

    def vanish(self, name: str) -> None:
        """A device dies and nobody hears of it."""
        gone = DeviceId(name)
        del self.devices[gone]
        self.mail = type(self.mail)(m for m in self.mail if gone not in (m[0], m[1]))

    # ---- until all is quiet ------------------------------------------------------------------------

    def open_prompts(self) -> list[PromptId]:
        """Prompts without an end whose origin is there."""
        return [p for p, name in self.origins.items() if p not in self.ends and name in self.devices]

    def settle(self, bound_s: float) -> None:
        """From now on all messages arrive and engines write; every prompt must end within `bound_s`."""
        until = self.now + bound_s
        while True:
            self.clear()
            if not self.open_prompts() or not self.next_timer(until):
                break
        assert not self.open_prompts(), f"no end within {bound_s} s: {self.open_prompts()}"
        self.clear()
        while self.next_timer(self.now + 1_000.0):
            self.clear()
        for name, device in self.devices.items():
            assert device.peer.idle, f"{name} is not idle"
            assert device.running is None
            assert device.warming is None
            assert not device.peer.prompts

    def clear(self) -> None:
        for _ in range(10_000):
            if self.mail:
                self.pick(0)
                continue
            working = [n for n, d in self.devices.items() if d.running is not None]
            warming = [n for n, d in self.devices.items() if d.warming is not None]
            if not working and not warming:
                return
            for name in working:
                if self.devices[name].running is not None:
                    self.write(name, f"{name} says so")
            for name in warming:
                if self.devices[name].warming is not None:
                    self.step_done(name, whole=True)
        raise AssertionError("there is no end to the work")

    def next_timer(self, until: float) -> bool:
        while self.timers and self.timers[0][0] <= until:
            at, _, me, timer = heapq.heappop(self.timers)
            self.now = max(self.now, at)
            if me in self.devices and type(timer).__name__ != "GossipTimer":
                self.tell(me, Fired(timer))
                return True
        return False
