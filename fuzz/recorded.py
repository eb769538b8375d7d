"""Real messages of a moot, as they stand on the wire: the seeds of the mutations."""

from __future__ import annotations

from random import Random

from folkmoot.core.events import Effect, Event, Plan, Prompt, Send, Stopping, Submitted, Withdrawn
from folkmoot.core.gossip import Card
from folkmoot.core.ids import DeviceId, draw_prompt_id
from folkmoot.core.messages import Turn
from folkmoot.core.peer import Peer, PeerConfig
from folkmoot.sim.engine import Engine, EngineConfig
from folkmoot.sim.links import LinkConfig
from folkmoot.sim.world import Device, World
from folkmoot.wire import encode

DEVICES = tuple(DeviceId(f"{number:02x}" * 32) for number in range(1, 6))


def messages(seed: int, each: int = 300) -> list[bytes]:
    """What five devices say to each other in 40 virtual seconds with prompts, a crash and a partition: at most `each` of a kind."""
    found: dict[int, list[bytes]] = {}

    def record(body: Device, event: Event, effects: list[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.to != body.id:
                data = encode(effect.message)
                kept = found.setdefault(data[0], [])
                if len(kept) < each:
                    kept.append(data)

    rng = Random(f"recorded {seed}")
    world = World(seed, LinkConfig(loss=0.05), check=record)

    def spawn(device: DeviceId, life: int) -> None:
        address = f"{device[:4]} at {life}"
        peer = Peer(
            device,
            Card(device[:4], "tiny", 4096, 1.0, address),
            life,
            PeerConfig(),
            Random(f"{seed} {device}"),
        )
        engine = Engine(
            lambda r: r.uniform(0.02, 0.5), EngineConfig(failure=0.05), Random(f"engine {seed} {device}")
        )
        known = tuple((d, world.devices[d].address) for d in DEVICES if d in world.devices and d != device)
        world.spawn(device, address, peer, known, engine=engine)

    def ask() -> None:
        device = rng.choice(DEVICES)
        if not world.devices[device].alive:
            return
        plan = Plan("fixed", layers=rng.randrange(1, 3), proposers=rng.randrange(1, 4))
        prompt = Prompt(draw_prompt_id(rng), (Turn("system", "Be brief."), Turn("user", "Why?")), plan)
        world.feed(device, Submitted(prompt))
        if rng.random() < 0.2:
            world.at(world.now + rng.random(), lambda: take_back(device, prompt))

    def take_back(device: DeviceId, prompt: Prompt) -> None:
        if world.devices[device].alive:
            world.feed(device, Withdrawn(prompt.id))

    for device in DEVICES:
        spawn(device, 1)
    for _ in range(120):
        world.at(3.0 + rng.random() * 30.0, ask)
    world.at(10.0, lambda: world.crash(DEVICES[1]))
    world.at(20.0, lambda: spawn(DEVICES[1], 2))
    world.at(22.0, lambda: world.links.part({device: number % 2 for number, device in enumerate(DEVICES)}))
    world.at(28.0, world.links.heal)
    world.at(36.0, lambda: world.feed(DEVICES[2], Stopping()))
    world.run(40.0)
    return [data for tag in sorted(found) for data in found[tag]]
