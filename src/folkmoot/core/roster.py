"""The member list itself: rows, their order of precedence, and a hash that tells two lists apart."""

from __future__ import annotations

from dataclasses import replace

from folkmoot.core.gossip import (
    MAX_INCARNATION,
    MAX_STAGE,
    STAGE_STEPS,
    Card,
    Hot,
    Member,
    Pulse,
    Standing,
    stamp,
    tag_of,
)
from folkmoot.core.ids import DeviceId

MAX_LEAP = 2**32
"""How far somebody else's incarnation may jump at once: an insider cannot push it to the bound by one lie."""


MAX_PULSE_LEAP = 2**46
"""The same for the number of a load report, which restarts raise by 2^20 a second that has passed: two years of them."""


def beats(incarnation: int, standing: Standing, row: Member) -> bool:
    """Whether a claim outdoes a row: the higher incarnation, then the graver standing."""
    if incarnation != row.incarnation:
        return row.incarnation < incarnation <= row.incarnation + MAX_LEAP
    return standing > row.standing


class Roster:
    """All rows, this device's own and the dead included, in order of arrival.

    `view` is the xor over (device, incarnation) of the live rows. The dead are left out of it, since each
    device forgets them in its own time.
    """

    def __init__(self, me: DeviceId, card: Card, incarnation: int) -> None:
        self.me = me
        self.members: dict[DeviceId, Member] = {}
        self.view = 0
        self.live_count = 0
        self._tags: dict[int, DeviceId] = {}
        # Each life's pulses outdo those of the lives before.
        self.put(Member(me, incarnation, Standing.ALIVE, card, Pulse(min(incarnation, MAX_LEAP) << 20)))

    def live(self) -> list[Member]:
        """Alive and suspect others, in order of arrival."""
        return [
            row for row in self.members.values() if row.standing <= Standing.SUSPECT and row.device != self.me
        ]

    def put(self, row: Member) -> None:
        """Write a row, whatever stood there; of the two pulses the newer one stays."""
        old = self.members.get(row.device)
        if old is not None and not 0 <= row.pulse.version - old.pulse.version <= MAX_PULSE_LEAP:
            row = replace(row, pulse=old.pulse)
        if old is None:
            self._tags[tag_of(row.device)] = row.device
        elif old.standing <= Standing.SUSPECT:
            self.view ^= stamp(old.device, old.incarnation)
            self.live_count -= 1
        if row.standing <= Standing.SUSPECT:
            self.view ^= stamp(row.device, row.incarnation)
            self.live_count += 1
        self.members[row.device] = row

    def forget(self, device: DeviceId) -> None:
        """Drop a dead row."""
        assert self.members[device].standing > Standing.SUSPECT, "the living are not forgotten"
        del self.members[device]
        del self._tags[tag_of(device)]

    def beat(self, hot: Hot) -> tuple[DeviceId | None, bool]:
        """Take in a pulse: the device whose latest it is (None: a stranger's, or old), and if it was news."""
        device = self._tags.get(hot.tag)
        if device is None:
            return None, False
        row = self.members[device]
        if hot.version == row.pulse.version:
            return device, False
        if not 0 <= hot.version - row.pulse.version <= MAX_PULSE_LEAP or device == self.me:
            return None, False
        pulse = Pulse(
            hot.version, hot.queue, hot.busy, hot.buffer,
            hot.service_ms / 1_000, hot.debt / 100, hot.late / 1_000, hot.excess, hot.load / 1_000,
            tuple(hot.service_ms / 1_000 * each / STAGE_STEPS for each in hot.stages),
        )  # fmt: skip
        self.members[device] = Member(device, row.incarnation, row.standing, row.card, pulse)
        return device, True

    def outbid(self, claimed: int, card: Card | None = None) -> Member | None:
        """Raise the own incarnation above a claim; None if it is above already or cannot be raised."""
        mine = self.members[self.me]
        if claimed < mine.incarnation or claimed + 1 >= MAX_INCARNATION:
            return None
        raised = replace(mine, incarnation=claimed + 1, standing=Standing.ALIVE, card=card or mine.card)
        self.put(raised)
        return raised


def hot_of(row: Member) -> Hot:
    """A row's pulse as it travels."""
    pulse = row.pulse
    return Hot(
        tag_of(row.device), pulse.version, pulse.queue, pulse.busy, pulse.buffer,
        int(pulse.service_s * 1_000), int(pulse.debt * 100), int(pulse.late * 1_000), pulse.excess, int(pulse.load * 1_000),
        tuple(_steps(each, pulse.service_s) for each in pulse.stages),
    )  # fmt: skip


def _steps(stage_s: float, service_s: float) -> int:
    """A stage's mean in steps of the mean of all; what is known is never 0."""
    if not (stage_s and service_s):
        return 0
    return min(max(1, round(STAGE_STEPS * stage_s / service_s)), MAX_STAGE * STAGE_STEPS)
