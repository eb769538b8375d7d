"""What devices say to each other about who is there and how each is doing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from folkmoot.core.ids import DeviceId


class Standing(IntEnum):
    """What a device is held to be; at equal incarnation the larger wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Card:
    """What changes rarely about a device. `model` is empty for a requester; `skill` orders models."""

    name: str
    model: str = ""
    context_tokens: int = 0
    skill: float = 0.0
    address: str = ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What changes all the time: jobs waiting and in service, prompts between layers, seconds per job."""

    version: int = 0
    queue: int = 0
    busy: int = 0
    buffer: int = 0
    service_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """One row of the member list. A higher `incarnation` beats all; then the graver `standing`."""

    device: DeviceId
    incarnation: int
    standing: Standing
    card: Card
    pulse: Pulse = Pulse()


@dataclass(frozen=True, slots=True)
class Sync:
    """The sender's whole member list, over a stream; the other side answers with `SyncReply`."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SyncReply:
    """The answer to `Sync`: what the sender did not know or knew less well."""

    members: tuple[Member, ...]


GossipMessage = Sync | SyncReply
