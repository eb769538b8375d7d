"""The arms of an evaluation: what is asked of the moot, and what is counted from the shared drafts without asking it.

An arm that asks is a name and Folkmoot's own parameters of an API request; with settings it is an ablation, and has a moot of
its own whose devices run with these. An arm that votes takes the drafts that the others share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from folkmoot.core.load import jobs_per_prompt, judged_jobs
from folkmoot.errors import EvalError

PAPER = ((0, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))
"""The rows (M, k) of both tables of arXiv 2412.21200."""

ABLATIONS: dict[str, dict[str, str]] = {
    "auto-no-committee": {"node.peer.committee.enabled": "false"},
    "auto-no-medoid": {"node.peer.committee.similar": "1"},
    "auto-no-leader": {"node.peer.committee.leader": "1e9"},
    "auto-no-rush": {"node.peer.committee.rush": "0"},
    "auto-no-able": {"node.peer.committee.able": "0"},
    "auto-no-price": {"node.peer.price.enabled": "false"},
    "auto-no-haste": {"node.peer.price.haste": "0"},
    "auto-no-fence": {"node.peer.mixture.fence": "false"},
    "auto-no-screen": {"node.peer.mixture.screen": "false"},
    "auto-no-repute": {"node.peer.repute.enabled": "false"},
}
"""`auto` with one part of it switched off by one setting of the devices; without a committee there is no vote, medoid or leader.

Skill cards are off in all arms: devices that share a machine do not probe.
"""

GROUPS = {"paper": tuple(f"M{layers}-k{peers}" for layers, peers in PAPER), "ablations": tuple(ABLATIONS)}

FORMS = (
    "single[:DEVICE], self-consistency[:N[@DEVICE]], again[:N[@DEVICE]], majority[:N], select[:N], self-moa[:N[@DEVICE]], MX-kY, strongest, "
    "moa, smoa[:R], smoa-keep[:R], smoa-stop, auto, paper, ablations, "
    "each with +SETTING=VALUE for devices that run so"
)

_OWN_VOTES, _MOOT_VOTES = ("self-consistency", "again", "self-moa"), ("majority", "select")
"""Arms that count a device's own drafts, and those of the moot."""

_COMMA = re.compile(r",(?![^\[]*\])")
_SHAPE = re.compile(r"M(\d)-k(\d)")


@dataclass(frozen=True, slots=True)
class Arm:
    """`own` is what stands under `"folkmoot"` in the request, `settings` are the devices'.

    `votes` > 0: nothing is asked, so many drafts vote, of one device one after another (`self-consistency`) or of as many
    devices at once (`majority`). `until` > 0: one is asked for after another until so many give the same. `alike`: the draft stands that the others are most like. `device` is asked, or drafts, instead of the prompt's origin, by its number. `layers` and `proposers` are
    M and k, where they are fixed. `draft`: the answer is the origin's own draft, the one that the others share. `merges`: the drafts
    do not vote, their own device makes one answer of them.
    """

    name: str
    own: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    votes: int = 0
    voters: Literal["", "device", "moot"] = ""
    device: int | None = None
    layers: int | None = None
    proposers: int | None = None
    draft: bool = False
    merges: bool = False
    until: int = 0
    alike: bool = False

    def most_jobs(self, devices: int) -> int:
        """Jobs of a prompt, at most where `auto` chooses how many: a layer of all its peers, and an aggregation."""
        if self.votes:
            return self.votes + self.merges
        if self.layers is not None and self.proposers is not None:
            judged = self.own.get("keep", 0), self.own.get("early_stop", False)
            return int(judged_jobs(self.layers, self.proposers, *judged))
        return jobs_per_prompt(1, min(3, devices - 1))

    def drafts(self, devices: int) -> int:
        """How many of its jobs are drafts that other arms share."""
        if self.votes or self.layers == 0:
            return self.votes or 1
        return 1 + (min(3, devices - 1) if self.proposers is None else self.proposers)


def arms_of(text: str, devices: int) -> tuple[Arm, ...]:
    """The arms that a text names, with commas, for a moot of so many devices; in brackets a comma is a setting's own.

    Raises `EvalError`.
    """
    found: dict[str, Arm] = {}
    for part in filter(None, (each.strip() for each in _COMMA.split(text))):
        for name in GROUPS.get(part, (part,)):
            found[name] = _arm(name, devices)
    if not found:
        raise EvalError(f"no arm is named; give some of {FORMS}")
    return tuple(found.values())


def shape_of(arm: str) -> tuple[int, int] | None:
    """M and k of an arm that is one of the paper's rows; a device alone is M = 0."""
    found = _SHAPE.fullmatch("M0-k0" if arm == "single" else arm)
    return (int(found[1]), int(found[2])) if found else None


def _arm(text: str, devices: int) -> Arm:
    name, *changes = text.split("+")
    settings = dict(ABLATIONS.get(name, {}))
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise EvalError(f"arm {text}: {change!r} is no SETTING=VALUE")
        settings[key] = value
    return replace(_plain(name, devices), name=text, settings=settings)


def _plain(name: str, devices: int) -> Arm:
    kind, colon, number = name.partition(":")
    number, at, own = number.partition("@")
    for each in ([number] if colon else []) + ([own] if at else []):
        if not (each.isascii() and each.isdecimal() and len(each) < 4):
            raise EvalError(f"arm {name}: {each!r} is no number")
    if at and kind not in _OWN_VOTES:
        raise EvalError(
            f"arm {name}: only self-consistency:N@DEVICE, again:N@DEVICE and self-moa:N@DEVICE name a device so"
        )
    shape = shape_of(name)
    if kind == "single":
        device = _device(name, int(number), devices) if colon else None
        return Arm(name, {"mode": "local"}, device=device, layers=0, proposers=0, draft=True)
    if kind in (*_OWN_VOTES, *_MOOT_VOTES):
        votes = int(number) if colon else devices
        if votes < 1 or (kind in _MOOT_VOTES and votes > devices):
            raise EvalError(f"arm {name}: {votes} cannot vote in a moot of {devices}")
        device = _device(name, int(own), devices) if at else None
        voters: Literal["device", "moot"] = "moot" if kind in _MOOT_VOTES else "device"
        return Arm(
            name, votes=votes, voters=voters, device=device, merges=kind == "self-moa",
            until=2 if kind == "again" else 0, alike=kind == "select",
        )  # fmt: skip
    if name == "auto" or name in ABLATIONS:
        return Arm(name)
    if shape is not None:
        return _fixed(name, *shape, devices)
    if name == "strongest":
        return _fixed(name, 1, min(3, devices - 1), devices, aggregator="strongest")
    if name == "moa":
        # Three layers of three proposers (k = 2) and an aggregator, which is always the same device: 10 jobs.
        return _fixed(name, 3, min(2, devices - 1), devices, aggregator="strongest")
    if kind in ("smoa", "smoa-keep") or name == "smoa-stop":
        keep = {} if name == "smoa-stop" else {"keep": int(number) if colon else min(2, devices)}
        if not 0 < keep.get("keep", 1) <= min(4, devices):
            raise EvalError(f"arm {name}: of {min(4, devices)} answers {number} cannot go on")
        stop = {} if kind == "smoa-keep" else {"early_stop": True}
        return _fixed(name, 2, min(3, devices - 1), devices, **keep, **stop)
    raise EvalError(f"{name!r} is no arm; there are {FORMS}")


def _device(name: str, device: int, devices: int) -> int:
    if device >= devices:
        raise EvalError(f"arm {name}: there is no device {device}; they are numbered 0 to {devices - 1}")
    return device


def _fixed(name: str, layers: int, proposers: int, devices: int, **own: Any) -> Arm:
    if proposers > devices - 1:
        raise EvalError(f"arm {name} asks {proposers} peers, and a moot of {devices} has {devices - 1}")
    if not layers:
        if proposers:
            raise EvalError(f"arm {name}: with no layer there are no peers; it is M0-k0")
        return Arm(name, {"mode": "local"}, layers=0, proposers=0, draft=True)
    return Arm(name, {"layers": layers, "proposers": proposers, **own}, layers=layers, proposers=proposers)


def needed(arms: Sequence[Arm], devices: int) -> int:
    """How many shared drafts of a task these arms take for certain: `auto` asks for its own as it goes."""
    return max((arm.drafts(devices) for arm in arms if arm.votes or arm.layers is not None), default=0)
