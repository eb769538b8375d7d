"""What may stand in a request's `model`, and which parameters each name stands for."""

from __future__ import annotations

import re
from collections import Counter

import msgspec

from folkmoot.api.faults import FieldInvalid
from folkmoot.api.schema import Own
from folkmoot.core.gossip import Member, Standing
from folkmoot.errors import UnknownModel
from folkmoot.node.service import Status

AUTO = "moot"
LOCAL = "local"
LISTED = ((1, 1), (1, 3), (2, 2))
"""The (M, k) of the fixed names that are listed; every other `moot-M…-k…` is accepted as well."""

_FIXED = re.compile(r"moot-M(\d{1,2})(?:-k(\d{1,3}))?")


def is_reserved(name: str) -> bool:
    """Whether a device of this name would hide a model of that name."""
    return name == LOCAL or name == AUTO or name.startswith("moot-")


def servers(status: Status) -> list[Member]:
    """The live devices that hold a model and serve this one, this one first."""
    there = [m for m in status.members if m.card.model and m.standing in (Standing.ALIVE, Standing.SUSPECT)]
    return [m for m in there if m.device == status.device or not m.card.closed]


def device_names(status: Status) -> dict[str, Member]:
    """Each serving device under its name; where two share it, a piece of the id tells them apart, as in the core."""
    members = servers(status)
    count = Counter(member.card.name for member in members)
    return {m.card.name if count[m.card.name] == 1 else f"{m.card.name}~{m.device[:6]}": m for m in members}


def model_names(status: Status, presets: dict[str, Own]) -> list[str]:
    """Every name that `GET /v1/models` lists, each once."""
    fixed = [f"moot-M{layers}-k{proposers}" for layers, proposers in LISTED]
    return list(dict.fromkeys([AUTO, *fixed, LOCAL, *presets, *device_names(status)]))


def parameters(model: str, status: Status, presets: dict[str, Own]) -> Own:
    """What a model's name asks for. Raises `UnknownModel`, `FieldInvalid`."""
    if model == AUTO:
        return Own()
    if model == LOCAL:
        return Own(mode="local")
    if model in presets:
        return presets[model]
    if match := _FIXED.fullmatch(model):
        layers, proposers = int(match[1]), None if match[2] is None else int(match[2])
        try:
            return msgspec.convert({"layers": layers, "proposers": proposers}, Own)
        except msgspec.ValidationError as error:
            raise FieldInvalid(f"model: {model!r}: {error}", "model") from None
    return _device(model, status)


def _device(model: str, status: Status) -> Own:
    names = device_names(status)
    found = [member for name, member in names.items() if model in (name, member.device)]
    if not found:
        twins = [name for name, member in names.items() if member.card.name == model]
        if twins:
            raise UnknownModel(f"{len(twins)} devices are called {model!r}; say which: {', '.join(twins)}")
        raise UnknownModel(f"no model, preset or live device is called {model!r}; GET /v1/models lists them")
    if found[0].device == status.device:
        return Own(mode="local")
    return Own(layers=0, aggregator=f"fixed:{found[0].device}")
