"""The script of a run: drawn from its seed alone, fair to all kinds, and over when it says so."""

from __future__ import annotations

from collections import Counter

import pytest
from chaos.plan import ALONE, LASTING, SPARED, Fault, faults

KINDS = tuple(LASTING)


def drawn(seed: int, seconds: float = 250.0) -> list[Fault]:
    return faults(seed, 5, 20.0, 20.0 + seconds, KINDS, 4)


def test_one_seed_gives_one_script() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes(seed: int) -> None:
    counts = Counter(fault.kind for fault in drawn(seed))
    assert set(counts) == set(KINDS)
    assert max(counts.values()) <= 2 * min(counts.values()) + 8


@pytest.mark.parametrize("seed", range(20))
def test_a_device_has_one_fault_of_its_own_at_a_time_and_all_are_over(seed: int) -> None:
    free = dict.fromkeys(range(5), 0.0)
    for fault in drawn(seed):
        assert 20.0 <= fault.at
        assert fault.at + fault.seconds <= 270.0
        if fault.kind in ALONE:
            (device,) = fault.devices
            assert free[device] <= fault.at
            free[device] = fault.at + fault.seconds
            assert not (device == SPARED and fault.kind in ("kill", "stop", "corrupt"))
        if fault.kind == "fill":
            assert fault.devices == (4,)
        if fault.kind == "part":
            assert 1 <= len(fault.devices) <= 2
