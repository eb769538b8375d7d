"""Peers in storms: any order, loss and doubling of messages ends each prompt once, in an answer or a typed error."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.properties.storm import Storm

from folkmoot.core.events import CardChanged, Plan, PromptAnswered, ServiceLimited
from folkmoot.core.hedge import HedgeConfig
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.load import jobs_per_prompt
from folkmoot.core.messages import Outcome
from folkmoot.core.mixture import MixtureConfig, jobs_of
from folkmoot.core.peer import PeerConfig
from folkmoot.core.queue import QueueConfig

NAMES = ("ann", "bob", "cid", "dot", "eve", "fay", "gus", "hal")
PATIENCE = MixtureConfig()
GIVEN_UP_S = PATIENCE.poll_s * (PATIENCE.polls + 1)
"""How long a silent device is waited for."""

VERDICTS = ("BEST: 1\n", "BEST: 1\nNEXT: STOP", "NEXT: STOP", "NEXT: GO ON")
"""What a judge may say; whoever is no judge may say it, too."""

SLACK = settings(deadline=None, suppress_health_check=list(HealthCheck))


def bound_s(layers: int) -> float:
    """Each place of each layer is tried on three devices in turn, and each may be silent; so may each layer's one judge."""
    return ((layers + 1) * (PATIENCE.stand_ins + 1) + layers) * GIVEN_UP_S + 1.0


# ---- nothing fails -----------------------------------------------------------------------------------


@settings(SLACK, max_examples=150)
@given(
    devices=st.integers(1, 8),
    layers=st.integers(0, 4),
    proposers=st.integers(0, 4),
    prompts=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_exactly_the_jobs_of_the_theorem(
    devices: int, layers: int, proposers: int, prompts: int, seed: int
) -> None:
    """(k + 1)·M + 1 inferences a prompt, whatever comes first, also with several prompts at a time."""
    rng = Random(seed)
    storm = Storm(dict.fromkeys(NAMES[:devices], "m"), seed=seed)
    k = proposers if layers else 0
    ids = [storm.submit(rng.choice(NAMES[:devices]), Plan("fixed", layers, k)) for _ in range(prompts)]
    while not all(prompt in storm.ends for prompt in ids):
        running = [name for name, device in storm.devices.items() if device.running is not None]
        warming = [name for name, device in storm.devices.items() if device.warming is not None]
        moves = ["mail"] * bool(storm.mail) + ["write"] * bool(running) + ["warm"] * bool(warming)
        match rng.choice(moves):
            case "mail":
                storm.pick(rng.randrange(len(storm.mail)))
            case "write":
                storm.write(rng.choice(running), "so ", whole=rng.random() < 0.5)
            case "warm":
                storm.step_done(rng.choice(warming), whole=rng.random() < 0.5)
    there = min(k, devices - 1)
    for prompt in ids:
        end = storm.ends[prompt]
        assert isinstance(end, PromptAnswered)
        assert storm.generated[prompt] == jobs_per_prompt(layers, there)
        assert len(jobs_of(end.provenance)) == len(end.provenance.jobs) == jobs_per_prompt(layers, there)
        by_layer = Counter(job.layer for job in end.provenance.jobs)
        assert by_layer == {**dict.fromkeys(range(1, layers + 1), there + 1), layers + 1: 1}
        for row in end.provenance.rounds:
            assert row.asked[0] == storm.origins[prompt]
            assert len(set(row.asked)) == there + 1
            assert sorted(row.answered) == sorted(row.asked)
            assert row.stood_in == {}
        assert (k > there) == any("peers" in each.what for each in end.provenance.decisions)
    storm.settle(0.0)


# ---- everything fails --------------------------------------------------------------------------------


class Weather(RuleBasedStateMachine):
    """Hypothesis decides what arrives, what is lost, what breaks and who dies."""

    storm: Storm
    layers = 0
    prompts: list[PromptId]

    @initialize(
        devices=st.integers(2, 6), requesters=st.integers(0, 1), tight=st.booleans(), seed=st.integers(0, 99)
    )
    def begin(self, devices: int, requesters: int, tight: bool, seed: int) -> None:
        models = {name: "" if i < requesters else "m" * (i + 1) for i, name in enumerate(NAMES[:devices])}
        queue = QueueConfig(max_waiting=2, keep_jobs=2) if tight else QueueConfig()
        self.storm = Storm(models, PeerConfig(queue=queue, max_prompts=3), seed)
        self.prompts = []

    def device(self, number: int) -> str:
        return list(self.storm.devices)[number % len(self.storm.devices)]

    def running(self) -> list[str]:
        return [name for name, device in self.storm.devices.items() if device.running is not None]

    def warming(self) -> list[str]:
        return [name for name, device in self.storm.devices.items() if device.warming is not None]

    @precondition(lambda self: len(self.prompts) < 6)
    @rule(
        number=st.integers(0, 7),
        layers=st.integers(0, 3),
        proposers=st.integers(0, 4),
        quorum=st.sampled_from((0, 0, 1, 2)),
        aggregator=st.sampled_from(("origin", "origin", "strongest", "fixed:bob")),
        select=st.sampled_from(((), (), ("bob",), ("bob", "ann"))),
        deadline_s=st.sampled_from((None, None, None, 3.0)),
        mode=st.sampled_from(("fixed", "fixed", "auto", "local", "private")),
        stream=st.booleans(),
        keep=st.sampled_from((0, 1, 1, 2)),
        early_stop=st.booleans(),
    )
    def ask(
        self,
        number: int,
        layers: int,
        proposers: int,
        quorum: int,
        aggregator: str,
        select: tuple[str, ...],
        deadline_s: float | None,
        mode: str,
        stream: bool,
        keep: int,
        early_stop: bool,
    ) -> None:
        k = None if select else proposers if layers else 0
        plan = Plan(mode, layers, k, select, aggregator, quorum, deadline_s)
        if mode == "private":
            plan = Plan(deadline_s=deadline_s, private=True)
        elif mode == "fixed" and layers:
            plan = replace(plan, keep=keep, early_stop=early_stop)
        self.layers = max(self.layers, layers, 1)
        self.prompts.append(self.storm.submit(self.device(number), plan, stream))

    @precondition(lambda self: self.storm.mail)
    @rule(numbers=st.lists(st.integers(0, 99), min_size=1, max_size=8))
    def arrive(self, numbers: list[int]) -> None:
        for number in numbers:
            if self.storm.mail:
                self.storm.pick(number)

    @precondition(lambda self: self.storm.mail)
    @rule(number=st.integers(0, 99))
    def arrive_and_come_again(self, number: int) -> None:
        self.storm.pick(number, keep=True)

    @precondition(lambda self: self.storm.mail)
    @rule(number=st.integers(0, 99))
    def get_lost(self, number: int) -> None:
        self.storm.lose(number)

    @rule(seconds=st.sampled_from((0.5, 2.0, 5.0, 31.0)))
    def wait(self, seconds: float) -> None:
        self.storm.pass_time(seconds)

    @precondition(lambda self: self.running())
    @rule(
        number=st.integers(0, 7),
        text=st.sampled_from(("", "word ", "w" * 200, *VERDICTS)),
        whole=st.booleans(),
    )
    def write(self, number: int, text: str, whole: bool) -> None:
        names = self.running()
        self.storm.write(names[number % len(names)], text, whole)

    @precondition(lambda self: self.running())
    @rule(number=st.integers(0, 7), code=st.sampled_from(("engine_failed", "engine_unreachable", "too_long")))
    def break_engine(self, number: int, code: str) -> None:
        names = self.running()
        self.storm.break_engine(names[number % len(names)], code)

    @precondition(lambda self: self.warming())
    @rule(number=st.integers(0, 7), whole=st.booleans())
    def step_done(self, number: int, whole: bool) -> None:
        names = self.warming()
        self.storm.step_done(names[number % len(names)], whole)

    @rule(number=st.integers(0, 7), model=st.sampled_from(("", "m")), closed=st.booleans())
    def change_card(self, number: int, model: str, closed: bool) -> None:
        """An engine stops or comes back; a device has spent what it may for others, or may again."""
        name = self.device(number)
        mine = self.storm.devices[DeviceId(name)].peer.membership.members[DeviceId(name)].card
        self.storm.tell(name, CardChanged(replace(mine, model=model, closed=closed)))
        self.storm.tell(name, ServiceLimited(closed, (), "over_budget", "spent"))

    @precondition(lambda self: self.prompts)
    @rule(number=st.integers(0, 5))
    def withdraw(self, number: int) -> None:
        self.storm.withdraw(self.prompts[number % len(self.prompts)])

    @precondition(lambda self: len(self.storm.devices) > 1)
    @rule(number=st.integers(0, 7), known=st.booleans())
    def die(self, number: int, known: bool) -> None:
        name = self.device(number)
        if known:
            self.storm.kill(name)
        else:
            self.storm.vanish(name)

    def teardown(self) -> None:
        self.storm.settle(bound_s(self.layers))
        for prompt, end in self.storm.ends.items():
            if isinstance(end, PromptAnswered):
                last = end.provenance.jobs[-1]
                assert last.outcome is Outcome.OK
                assert last.layer == end.provenance.layers + 1
                skipped = any("skipped" in each.what for each in end.provenance.decisions)
                assert skipped or len(end.provenance.rounds) == end.provenance.layers
            assert prompt in self.storm.origins


TestWeather = Weather.TestCase
TestWeather.settings = settings(SLACK, max_examples=120, stateful_step_count=40)


@settings(SLACK, max_examples=60)
@given(
    devices=st.integers(2, 6),
    layers=st.integers(1, 3),
    proposers=st.integers(1, 4),
    loss=st.sampled_from((0.1, 0.3, 0.6)),
    seed=st.integers(0, 2**32),
)
def test_loss_and_doubling_alone_never_leave_a_prompt_open(
    devices: int, layers: int, proposers: int, loss: float, seed: int
) -> None:
    """The storm never ends: messages go on being lost, doubled and reordered; patience is bounded all the same."""
    rng = Random(seed)
    storm = Storm(dict.fromkeys(NAMES[:devices], "m"), seed=seed)
    prompt = storm.submit("ann", Plan("fixed", layers, proposers), stream=rng.random() < 0.5)
    while prompt not in storm.ends:
        assert storm.now <= bound_s(layers) + 20.0 * layers
        while storm.mail:
            fate = rng.random()
            if fate < loss:
                storm.lose(rng.randrange(len(storm.mail) * 2))
            else:
                storm.pick(rng.randrange(len(storm.mail)), keep=fate > 0.9)
        for name, device in list(storm.devices.items()):
            if device.running is not None:
                storm.write(name, "so ", whole=rng.random() < 0.5)
            if device.warming is not None:
                storm.step_done(name, whole=True)
        if not storm.mail and not any(d.running for d in storm.devices.values()):
            storm.next_timer(storm.now + 100.0)
    storm.settle(0.0)
    assert DeviceId("ann") in storm.devices


@settings(SLACK, max_examples=80)
@given(devices=st.integers(2, 5), seed=st.integers(0, 2**32))
def test_whatever_fails_no_word_of_a_private_prompt_leaves_its_device(devices: int, seed: int) -> None:
    """Engines break before and after the first word, lose their model and come back; the storm looks at each message."""
    rng = Random(seed)
    storm = Storm(dict.fromkeys(NAMES[:devices], "m"), PeerConfig(hedge=HedgeConfig(share=0.5)), seed)
    private = [storm.submit(rng.choice(NAMES[:devices]), Plan(private=True)) for _ in range(4)]
    for _ in range(3):
        storm.submit(rng.choice(NAMES[:devices]), Plan("fixed", rng.randrange(1, 3), rng.randrange(1, 4)))
    while not all(prompt in storm.ends for prompt in private):
        running = [name for name, device in storm.devices.items() if device.running is not None]
        warming = [name for name, device in storm.devices.items() if device.warming is not None]
        moves = ["card", "time"] + 4 * (["mail"] * bool(storm.mail) + ["warm"] * bool(warming))
        moves += (["write"] * 2 + ["break"] * 2) * bool(running)
        match rng.choice(moves):
            case "mail":
                storm.pick(rng.randrange(len(storm.mail)), keep=rng.random() < 0.1)
            case "write":
                storm.write(rng.choice(running), "so ", whole=rng.random() < 0.3)
            case "break":
                storm.break_engine(rng.choice(running), rng.choice(("engine_failed", "engine_unreachable")))
            case "warm":
                storm.step_done(rng.choice(warming), whole=rng.random() < 0.5)
            case "card":
                name = DeviceId(rng.choice(NAMES[:devices]))
                mine = storm.devices[name].peer.membership.members[name].card
                storm.tell(name, CardChanged(replace(mine, model=rng.choice(("", "m")))))
            case "time":
                storm.pass_time(rng.choice((0.5, 3.0)))
    for prompt in private:
        end = storm.ends[prompt]
        how = end.provenance
        assert how is None or {job.device for job in how.jobs} <= {storm.origins[prompt]}
