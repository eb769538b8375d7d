"""What devices say to each other about who is there and how each is doing.

`DATAGRAMS` may be lost, doubled and reordered, and each fits into 1,200 bytes on the wire; `Sync` and
`SyncReply` go over a stream. Ages, never clock times, cross the network: clocks differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar
from zlib import crc32

from folkmoot.core.ids import DeviceId

MAX_INCARNATION = 2**53 - 1
MAX_NAME = 64
MAX_MODEL = 128
MAX_ADDRESS = 512
MAX_CARD_BYTES = 800
"""A card's texts in UTF-8; with it any row fits into one datagram."""
DATAGRAM_BYTES = 1_100
"""What records may fill of a datagram: 1,200 less the message's own fields."""
STREAM_BYTES = 48_000
"""What records may fill of one stream message; longer tables are paged."""
RUMOUR_BYTES = 52
"""An upper bound of an encoded rumour, in bytes."""
MAX_RUMOURS = STREAM_BYTES // RUMOUR_BYTES
MAX_ROWS = 1_024
MAX_HOT = 48
MAX_AGE_MS = 3_600_000
MAX_DEBT = 10_000_000
MAX_LOAD = 1_000
MAX_SLOTS = 4_096
MAX_PROBES = 127
"""Probes of a class on a card: one byte each."""
CLASSES = 6
"""How many classes of questions there are (`skill.SkillClass`)."""
STAGES = 3
"""How many stages of jobs devices tell of (`messages.TOLD`)."""
STAGE_STEPS = 50
"""A stage's mean travels in fiftieths of the mean of all: one byte up to 2.5 times that."""
MAX_STAGE = 1_000
"""A stage takes at most so many times the mean of all."""
SEAL_BYTES = 64
"""A card's seal: an Ed25519 signature, or nothing."""
_SKILL_BYTES = 2 * CLASSES + 4
"""What a card's probes take beyond empty fields, in bytes."""
_BIG = 2**31
_VERSIONS = 2**53


class Standing(IntEnum):
    """What a device is held to be; at equal incarnation the larger wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Card:
    """What changes rarely about a device. `model` is empty for a requester; `skill` orders models; `slots` jobs are served
    at a time. `closed`: it takes jobs of its own users only, for now or for good. Of `total` probes of each class, in the order of
    `SkillClass`, `right` were answered right; `probes` is the checksum of the questions. All three are empty before that.

    `version` is the incarnation under which the device first told this card: of two the higher one counts, whoever brings it.
    `seal` is the device's signature over all the rest (`seal.Seals`).
    """

    name: str
    model: str = ""
    context_tokens: int = 0
    skill: float = 0.0
    address: str = ""
    slots: int = 1
    closed: bool = False
    probes: int = 0
    right: tuple[int, ...] = ()
    total: tuple[int, ...] = ()
    version: int = 0
    seal: bytes = b""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What changes all the time: jobs waiting and in service, prompts between layers, seconds per job.

    `debt` is the virtual debt Z in jobs, `late` the load ρ_hi of layers after the first, and `excess` how many of those that
    wait are beyond the share of who asked for them; `load` is ρ as the device measures it (`meter`). `stages` are seconds per
    job of each stage, in the order of `TOLD`, 0 where none was served; empty where nothing is known.
    """

    version: int = 0
    queue: int = 0
    busy: int = 0
    buffer: int = 0
    service_s: float = 0.0
    debt: float = 0.0
    late: float = 0.0
    excess: int = 0
    load: float = 0.0
    stages: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One row of the member list. A higher `incarnation` beats all; then the graver `standing`."""

    device: DeviceId
    incarnation: int
    standing: Standing
    card: Card
    pulse: Pulse = Pulse()


@dataclass(frozen=True, slots=True)
class Rumour:
    """A row without its card: `card` is the card's checksum, so that whoever lacks it asks for the row."""

    device: DeviceId
    incarnation: int
    standing: Standing
    card: int


@dataclass(frozen=True, slots=True)
class Hot:
    """A pulse on its way, small: `tag` is short for the device, times are in milliseconds, the debt in hundredths of a
    job, loads in thousandths, stages in fiftieths of the mean time."""

    tag: int
    version: int
    queue: int
    busy: int
    buffer: int
    service_ms: int
    debt: int = 0
    late: int = 0
    excess: int = 0
    load: int = 0
    stages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The sender lives. `view` is the xor over its live rows; equal views mean equal member lists."""

    incarnation: int
    view: int
    rumours: tuple[Rumour, ...] = ()
    hot: tuple[Hot, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """The sender has not heard from you for long: answer with a `Heartbeat`."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Watcher → watcher: I have not heard from `device` for `age_ms` milliseconds."""

    device: DeviceId
    age_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """Watcher → watcher: against your `Silence`, I heard from `device` `age_ms` milliseconds ago."""

    device: DeviceId
    age_ms: int


@dataclass(frozen=True, slots=True)
class News:
    """What must reach everybody soon: deaths, departures, joins, resurrections. Passed on to all neighbours."""

    rumours: tuple[Rumour, ...] = ()
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Sync:
    """Compare member lists: the sender's own row, and a page of its list.

    The page holds all its rows with `first` <= device <= `last` (an empty `last` means no end).
    """

    me: Member
    claims: tuple[Rumour, ...]
    first: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True)
class SyncReply:
    """What the other side knew less well; `wants` are the devices whose rows it should send in turn."""

    members: tuple[Member, ...]
    wants: tuple[DeviceId, ...] = ()


Datagram = Heartbeat | Probe | Silence | Heard | News
GossipMessage = Heartbeat | Probe | Silence | Heard | News | Sync | SyncReply
DATAGRAMS = (Heartbeat, Probe, Silence, Heard, News)

# ---- short names and checksums ---------------------------------------------------------------------


@lru_cache(maxsize=1 << 17)
def stamp(device: DeviceId, salt: int) -> int:
    """64 bits that depend on both: ring places, short ids and view hashes are made of it."""
    return int.from_bytes(blake2b(f"{salt}:{device}".encode(), digest_size=8).digest(), "big")


def tag_of(device: DeviceId) -> int:
    """The device's short id in `Hot` records."""
    return stamp(device, -1)


@lru_cache(maxsize=1 << 14)
def checksum(card: Card) -> int:
    """32 bits over a card, its seal left out."""
    text = (
        f"{card.name}\0{card.model}\0{card.context_tokens}\0{card.skill!r}\0{card.address}\0{card.slots}\0{card.closed:d}"
        f"\0{card.probes}\0{card.right}\0{card.total}\0{card.version}"
    )
    return crc32(text.encode(errors="surrogatepass"))


def rumour_of(row: Member) -> Rumour:
    """A row without its card."""
    return Rumour(row.device, row.incarnation, row.standing, checksum(row.card))


# ---- sizes -----------------------------------------------------------------------------------------


def row_bytes(row: Member) -> int:
    """An upper bound of a row's encoded size, in bytes."""
    return _card_bytes(row.card) + 204 + _SKILL_BYTES * bool(row.card.total) + len(row.card.seal)


def hot_bytes(hot: Hot) -> int:
    """A pulse's encoded size, in bytes: a head, the tag, nine whole numbers, the stages."""
    numbers = (
        hot.version, hot.queue, hot.busy, hot.buffer, hot.service_ms, hot.debt, hot.late, hot.excess, hot.load,
        *hot.stages,
    )  # fmt: skip
    size = 11
    for number in numbers:
        size += 1 if number < 128 else 3 if number < 1 << 16 else 5 if number < 1 << 32 else 9
    return size


T = TypeVar("T")


def pack(items: Iterable[T], size_of: Callable[[T], int], budget: int) -> list[tuple[T, ...]]:
    """Cut items, in order, into groups of at most `budget` bytes (and at most `MAX_ROWS` items)."""
    groups: list[tuple[T, ...]] = []
    group: list[T] = []
    room = budget
    for item in items:
        size = size_of(item)
        if group and (size > room or len(group) == MAX_ROWS):
            groups.append(tuple(group))
            group, room = [], budget
        group.append(item)
        room -= size
    if group:
        groups.append(tuple(group))
    return groups


# ---- bounds: whoever breaks them is ignored --------------------------------------------------------


def _card_bytes(card: Card) -> int:
    texts = card.name + card.model + card.address
    return len(texts) if texts.isascii() else len(texts.encode(errors="replace"))


def trimmed(card: Card) -> Card:
    """Our own card within the bounds: texts that are too long are cut, probes beyond them left out."""
    name, model, address = card.name[:MAX_NAME], card.model[:MAX_MODEL], card.address[:MAX_ADDRESS]
    while len((name + model + address).encode(errors="replace")) > MAX_CARD_BYTES and (name or model):
        name, model = (name, model[:-1]) if len(model) > len(name) else (name[:-1], model)
    context_tokens = min(max(card.context_tokens, 0), _BIG - 1)
    fair = replace(card, name=name, model=model, context_tokens=context_tokens, address=address)
    return fair if _probes_ok(card) else replace(fair, probes=0, right=(), total=())


@lru_cache(maxsize=1 << 14)
def _card_ok(card: Card) -> bool:
    return (
        len(card.name) <= MAX_NAME
        and len(card.model) <= MAX_MODEL
        and len(card.address) <= MAX_ADDRESS
        and _card_bytes(card) <= MAX_CARD_BYTES
        and 0 <= card.context_tokens < _BIG
        and -1e9 <= card.skill <= 1e9
        and 1 <= card.slots <= MAX_SLOTS
        and _probes_ok(card)
        and 0 <= card.version < MAX_INCARNATION
        and len(card.seal) <= SEAL_BYTES
    )


def _probes_ok(card: Card) -> bool:
    return (
        0 <= card.probes < 2**32
        and len(card.right) == len(card.total)
        and len(card.total) in (0, CLASSES)
        and all(0 <= r <= t <= MAX_PROBES for r, t in zip(card.right, card.total, strict=True))
    )


def _pulse_ok(pulse: Pulse) -> bool:
    return (
        0 <= pulse.version < _VERSIONS
        and 0 <= pulse.queue < _BIG
        and 0 <= pulse.busy < _BIG
        and 0 <= pulse.buffer < _BIG
        and 0 <= pulse.service_s < 1e6
        and 0 <= pulse.debt < MAX_DEBT
        and 0 <= pulse.late < MAX_LOAD
        and 0 <= pulse.excess <= pulse.queue
        and 0 <= pulse.load < MAX_LOAD
        and len(pulse.stages) in (0, STAGES)
        and all(0 <= each < 1e6 for each in pulse.stages)
    )


def _row_ok(row: Member) -> bool:
    return (
        row.card.version <= row.incarnation < MAX_INCARNATION and _card_ok(row.card) and _pulse_ok(row.pulse)
    )


def _rumour_ok(rumour: Rumour) -> bool:
    return 0 <= rumour.incarnation < MAX_INCARNATION and 0 <= rumour.card < 2**32


def _hot_ok(hot: Hot) -> bool:
    return (
        0 <= hot.version < _VERSIONS
        and 0 <= hot.queue < _BIG
        and 0 <= hot.busy < _BIG
        and 0 <= hot.buffer < _BIG
        and 0 <= hot.service_ms < 1_000_000_000
        and 0 <= hot.debt < MAX_DEBT * 100
        and 0 <= hot.late < MAX_LOAD * 1_000
        and 0 <= hot.excess <= hot.queue
        and 0 <= hot.load < MAX_LOAD * 1_000
        and len(hot.stages) in (0, STAGES)
        and all(0 <= each <= MAX_STAGE * STAGE_STEPS for each in hot.stages)
    )


def well_formed(message: GossipMessage) -> bool:
    """Whether everything in it lies within the bounds of this module."""
    match message:
        case Heartbeat():
            return (
                0 <= message.incarnation < MAX_INCARNATION
                and (not message.rumours or _all_ok(message.rumours, _rumour_ok))
                and (not message.hot or _all_ok(message.hot, _hot_ok))
            )
        case Probe():
            return True
        case Silence() | Heard():
            return 0 <= message.age_ms <= MAX_AGE_MS
        case News():
            return _all_ok(message.rumours, _rumour_ok) and _all_ok(message.members, _row_ok)
        case Sync():
            return _row_ok(message.me) and _all_ok(message.claims, _rumour_ok)
        case SyncReply():
            return _all_ok(message.members, _row_ok) and len(message.wants) <= MAX_ROWS


def _all_ok(items: tuple[T, ...], ok: Callable[[T], bool]) -> bool:
    return len(items) <= MAX_ROWS and all(map(ok, items))
