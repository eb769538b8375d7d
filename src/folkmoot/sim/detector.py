"""A failure detector alone in the world, without the rest of a peer: for large and long experiments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from folkmoot.core.events import (
    CardChanged,
    Effect,
    Event,
    Fired,
    GossipTimer,
    LinkLost,
    Received,
    Started,
    Stopping,
)
from folkmoot.core.gossip import Card, GossipMessage, Member, Pulse
from folkmoot.core.ids import DeviceId


class Detector(Protocol):
    """What `core.membership.Membership` and its rivals have in common."""

    members: dict[DeviceId, Member]

    def address_of(self, device: DeviceId) -> str | None:
        """Where to dial."""

    def start(self, contacts: Sequence[tuple[DeviceId, str]], now: float) -> list[Effect]:
        """Begin."""

    def adopt(self, rows: Iterable[Member], now: float) -> list[Effect]:
        """Rows that are known already."""

    def on_message(self, sender: DeviceId, message: GossipMessage, now: float) -> list[Effect]:
        """A message came."""

    def on_timer(self, timer: GossipTimer, now: float) -> list[Effect]:
        """A timer came due."""

    def on_link_lost(self, device: DeviceId, now: float) -> list[Effect]:
        """A hint."""

    def set_card(self, card: Card, now: float) -> list[Effect]:
        """The own card."""

    def set_pulse(self, pulse: Pulse, now: float) -> list[Effect]:
        """The own hot state."""

    def leave(self, now: float) -> list[Effect]:
        """Go."""


class DetectorHost:
    """The least host: passes events on."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def address_of(self, device: DeviceId) -> str | None:
        """As the detector believes."""
        return self.detector.address_of(device)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The only door."""
        detector = self.detector
        match event:
            case Received(sender, message):
                return detector.on_message(sender, cast(GossipMessage, message), now)
            case Fired(timer):
                assert isinstance(timer, GossipTimer), "a detector sets its own timers only"
                return detector.on_timer(timer, now)
            case Started(contacts):
                return detector.start(contacts, now)
            case LinkLost(device):
                return detector.on_link_lost(device, now)
            case CardChanged(card):
                return detector.set_card(card, now)
            case Stopping():
                return detector.leave(now)
            case _:
                return []
