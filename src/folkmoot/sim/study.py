"""Measures a failure detector in the virtual world: how fast deaths are known, how many are false."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from random import Random

from folkmoot.core.events import MemberChanged, Notice
from folkmoot.core.gossip import DATAGRAMS, SEAL_BYTES, Card, Pulse, Standing
from folkmoot.core.ids import DeviceId
from folkmoot.core.membership import Membership, MembershipConfig
from folkmoot.core.messages import Message
from folkmoot.core.seal import Unsealed
from folkmoot.sim.detector import Detector, DetectorHost
from folkmoot.sim.faults import freeze_now_and_then, stall_for_ever
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.swim import SWIM_DATAGRAMS, Swim, SwimConfig, swim_size
from folkmoot.sim.world import Device, World, wire_size


@dataclass(frozen=True, slots=True)
class Protocol:
    """A detector under study: how one is made, how large its messages are, which of them may be lost."""

    name: str
    make: Callable[[DeviceId, Card, int, Random], Detector]
    size_of: Callable[[Message], int] = wire_size
    datagrams: tuple[type, ...] = DATAGRAMS


def watcher_rings(config: MembershipConfig | None = None) -> Protocol:
    """The shipped detector."""
    chosen = config or MembershipConfig()
    seals = Unsealed(SEAL_BYTES)
    return Protocol("rings", lambda me, card, life, rng: Membership(me, card, life, chosen, rng, seals))


def swim(config: SwimConfig | None = None) -> Protocol:
    """SWIM with Lifeguard's refinements."""
    chosen = config or SwimConfig()
    return Protocol(
        "swim",
        lambda me, card, life, rng: Swim(me, card, life, chosen, rng),
        swim_size,
        (*DATAGRAMS, *SWIM_DATAGRAMS),
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens in a study. Times in seconds; `crash_every_s` 0 means no crashes.

    `whole`: the devices know each other from the start; else they join through the first one at once.
    `pulse_every_s`: how often each device's hot state changes.
    """

    devices: int
    horizon_s: float
    seed: int = 1
    slow_share: float = 0.1
    freezes_per_hour: float = 0.0
    freeze_s: float = 3.0
    crash_every_s: float = 0.0
    back_after_s: float = 9.0
    pulse_every_s: float = 5.0
    whole: bool = True
    settle_s: float = 3.0
    links: LinkConfig = LinkConfig()


@dataclass(slots=True)
class Crash:
    """One death, and when (seconds after it) which device knew."""

    device: DeviceId
    at: float
    observers: dict[DeviceId, None]
    known: dict[DeviceId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """Times in seconds. `pairs_*` over (crash, healthy device), `healthy_*` and `all_*` over crashes until
    the last healthy device, or the last of all, knew. Healthy: neither slow nor frozen meanwhile.
    `false_of_chains`: those of the false deaths whose device had two freezes run into one longer one.
    """

    crashes: int
    pairs_p50_s: float
    pairs_p99_s: float
    healthy_p50_s: float
    healthy_max_s: float
    all_max_s: float
    unknown: int
    false_deaths: int
    false_of_chains: int
    device_hours: float
    packets_per_s: float
    bytes_per_s: float
    state_p50_s: float
    state_p99_s: float
    form_s: float
    back_p99_s: float
    events: int
    by_kind: dict[str, float]


class Study:
    """A moot in the world, with crashes, freezes, stalls and changing pulses, and what came of it."""

    def __init__(self, scenario: Scenario, protocol: Protocol) -> None:
        self.scenario = scenario
        self._make = protocol.make
        self.world = World(
            scenario.seed,
            scenario.links,
            observe=self._observe,
            size_of=protocol.size_of,
            datagrams=protocol.datagrams,
        )
        self._rng = Random(f"study {scenario.seed}")
        self.ids = [_device_id(number, scenario.seed) for number in range(scenario.devices)]
        slow = round(scenario.slow_share * scenario.devices)
        self.slow = dict.fromkeys(self._rng.sample(self.ids, slow))
        self.incarnations = dict.fromkeys(self.ids, 1)
        self.crashes: list[Crash] = []
        self._open: dict[DeviceId, Crash] = {}
        self._false: dict[tuple[DeviceId, int], bool] = {}
        self._back: dict[DeviceId, tuple[float, int, dict[DeviceId, float]]] = {}
        self._back_s: list[float] = []
        self._froze: dict[DeviceId, float] = {}
        self._frozen: dict[DeviceId, float] = {}
        """When the latest freeze, or chain of freezes, of a device began and ends."""
        self._pulse_s: list[float] = []
        self._form_s = 0.0

    def run(self) -> Findings:
        """Form, settle, then let things happen up to the horizon."""
        scenario, world = self.scenario, self.world
        self._form()
        world.run(world.now + scenario.settle_s)
        start, packets, octets = world.now, world.traffic.packets, world.traffic.bytes
        kinds = dict(world.traffic.by_kind)
        for number, device in enumerate(self.slow):
            stall_for_ever(world, device, Random(f"stall {scenario.seed} {number}"))
        if scenario.freezes_per_hour:
            self._freeze()
        if scenario.pulse_every_s:
            for device in self.ids:
                world.at(start + self._rng.random() * scenario.pulse_every_s, partial(self._pulse, device))
            self._probe_state()
        if scenario.crash_every_s:
            world.at(start + 1.0, self._crash)
        world.run(start + scenario.horizon_s)
        share = scenario.devices * scenario.horizon_s
        return self._findings(
            share / 3_600,
            (world.traffic.packets - packets) / share,
            (world.traffic.bytes - octets) / share,
            {kind: (count - kinds.get(kind, 0)) / share for kind, count in world.traffic.by_kind.items()},
        )

    # ---- what happens ------------------------------------------------------------------------------

    def _host(self, device: DeviceId, address: str) -> DetectorHost:
        incarnation = self.incarnations[device]
        rng = Random(f"{self.scenario.seed} {device} {incarnation}")
        return DetectorHost(self._make(device, self._card(device, address), incarnation, rng))

    def _card(self, device: DeviceId, address: str) -> Card:
        return Card(f"device-{device[:6]}", "qwen2.5-coder-0.5b-instruct-q4_k_m", 4_096, 1.5, address)

    def _form(self) -> None:
        scenario, world = self.scenario, self.world
        addresses = {device: _address(device, 1) for device in self.ids}
        hosts = {device: self._host(device, addresses[device]) for device in self.ids}
        seed = self.ids[0]
        contacts = () if scenario.whole else ((seed, addresses[seed]),)
        for device, host in hosts.items():
            world.spawn(device, addresses[device], host, contacts if device != seed else ())
        if scenario.whole:
            rows = [replace(hosts[d].detector.members[d], pulse=Pulse()) for d in self.ids]
            for device in self.ids:
                hosts[device].detector.adopt(rows, 0.0)
            return
        while any(len(host.detector.members) < scenario.devices for host in hosts.values()):
            world.run(world.now + 0.1)
            if world.now > 120.0:
                raise RuntimeError(f"{scenario.devices} devices did not form a moot in 120 s")
        self._form_s = world.now

    def _freeze(self) -> None:
        def noted(device: DeviceId) -> None:
            now = self.world.now
            if self._frozen.get(device, 0.0) < now:
                self._froze[device] = now
            self._frozen[device] = now + self.scenario.freeze_s
            for crash in self._open.values():
                crash.observers.pop(device, None)

        freeze_now_and_then(
            self.world,
            self.ids,
            Random(f"freeze {self.scenario.seed}"),
            per_hour=self.scenario.freezes_per_hour,
            seconds=self.scenario.freeze_s,
            noted=noted,
        )

    def _crash(self) -> None:
        world, scenario = self.world, self.scenario
        if world.now + scenario.back_after_s > scenario.settle_s + scenario.horizon_s + self._form_s:
            return
        device = self._rng.choice([d for d in self.ids if world.devices[d].alive])
        healthy = [d for d in self.ids if d != device and d not in self.slow and world.devices[d].alive]
        awake = [d for d in healthy if self._frozen.get(d, 0.0) <= world.now]
        crash = Crash(device, world.now, dict.fromkeys(awake))
        for other in self._open.values():
            other.observers.pop(device, None)
        self.crashes.append(crash)
        self._open[device] = crash
        world.crash(device)
        world.at(world.now + scenario.back_after_s, lambda: self._restart(device))
        world.at(world.now + scenario.crash_every_s, self._crash)

    def _restart(self, device: DeviceId) -> None:
        """Back, under a higher incarnation, at a new address, with a few remembered contacts."""
        self._open.pop(device, None)
        # It kept its incarnation on disk, the raises by refutation included.
        last = _detector(self.world.devices[device]).members[device].incarnation
        self.incarnations[device] = last + 1
        address = _address(device, self.incarnations[device])
        others = [d for d in self.ids if d != device and self.world.devices[d].alive]
        known = self._rng.sample(others, min(3, len(others)))
        contacts = tuple((d, self.world.devices[d].address) for d in known)
        self._back[device] = (self.world.now, self.incarnations[device], {})
        self.world.spawn(device, address, self._host(device, address), contacts)

    def _pulse(self, device: DeviceId) -> None:
        world = self.world
        body = world.devices[device]
        if body.alive and body.asleep_until <= world.now:
            pulse = Pulse(queue=self._rng.randrange(20), busy=1, buffer=2, service_s=self._rng.random() * 20)
            world.carry_out(device, _detector(body).set_pulse(pulse, world.now))
        world.at(world.now + self.scenario.pulse_every_s, lambda: self._pulse(device))

    def _probe_state(self) -> None:
        """Now and then look how old everybody's knowledge of one healthy device's fresh pulse is."""
        world, mark = self.world, 1_000 + len(self._pulse_s)
        device = self._rng.choice([d for d in self.ids if world.devices[d].alive and d not in self.slow])
        body = world.devices[device]
        if body.asleep_until <= world.now:
            world.carry_out(device, _detector(body).set_pulse(Pulse(queue=mark), world.now))
            others = [d for d in self.ids if d != device and d not in self.slow and world.devices[d].alive]
            some = self._rng.sample(others, min(100, len(others)))
            version = _detector(body).members[device].pulse.version
            self._look(body, version, world.now, {d: world.devices[d] for d in some})
        world.at(world.now + 5.0, self._probe_state)

    def _look(self, body: Device, version: int, since: float, waiting: dict[DeviceId, Device]) -> None:
        world = self.world
        if not body.alive:
            return
        for other in list(waiting.values()):
            row = _detector(other).members.get(body.id)
            if not other.alive or other.asleep_until > since:
                del waiting[other.id]
            elif row is not None and row.pulse.version >= version:
                self._pulse_s.append(world.now - since)
                del waiting[other.id]
        if world.now - since > 20.0:
            self._pulse_s.extend([world.now - since] * len(waiting))
        elif waiting:
            world.at(world.now + 0.05, lambda: self._look(body, version, since, waiting))

    # ---- what is seen ------------------------------------------------------------------------------

    def _observe(self, body: Device, notice: Notice, now: float) -> None:
        if not isinstance(notice, MemberChanged) or notice.member.device == body.id:
            return
        row = notice.member
        if row.standing == Standing.DEAD:
            crash = self._open.get(row.device)
            if crash is not None:
                crash.known.setdefault(body.id, now - crash.at)
            elif self.world.devices[row.device].alive and row.incarnation >= self.incarnations[row.device]:
                chain = self._frozen.get(row.device, 0.0) - self._froze.get(row.device, 0.0)
                long = chain > self.scenario.freeze_s and now < self._frozen[row.device] + 2.0
                self._false.setdefault((row.device, row.incarnation), long)
        elif row.device in self._back:
            since, incarnation, seen = self._back[row.device]
            if row.incarnation >= incarnation and body.id not in seen:
                seen[body.id] = now - since
                self._back_s.append(now - since)

    def _findings(
        self, device_hours: float, packets: float, octets: float, kinds: dict[str, float]
    ) -> Findings:
        pairs: list[float] = []
        healthy: list[float] = []
        everybody: list[float] = []
        unknown = 0
        for crash in self.crashes:
            times = [crash.known[d] for d in crash.observers if d in crash.known]
            unknown += len(crash.observers) - len(times)
            pairs += times
            healthy += [max(times)] if times else []
            everybody += [max(crash.known.values())] if crash.known else []
        return Findings(
            len(self.crashes),
            quantile(pairs, 0.5),
            quantile(pairs, 0.99),
            quantile(healthy, 0.5),
            max(healthy, default=0.0),
            max(everybody, default=0.0),
            unknown,
            len(self._false),
            sum(self._false.values()),
            device_hours,
            packets,
            octets,
            quantile(self._pulse_s, 0.5),
            quantile(self._pulse_s, 0.99),
            self._form_s,
            quantile(self._back_s, 0.99),
            self.world.events,
            kinds,
        )


def quantile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _detector(body: Device) -> Detector:
    assert isinstance(body.host, DetectorHost)
    return body.host.detector


def _device_id(number: int, seed: int) -> DeviceId:
    return DeviceId(blake2b(f"{seed}:{number}".encode(), digest_size=32).hexdigest())


def _address(device: DeviceId, life: int) -> str:
    """As long as a real one: a key and two socket addresses in base 32."""
    return f"endpoint{device}{life:04d}{'a' * 40}"
