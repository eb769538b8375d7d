"""Random numbers by name: every draw is a function of (replication, stream, prompt, stage, slot).

So two policies see the same prompts, the same service times and the same peers (common random numbers), and
two implementations that place jobs in another order still draw the same. The generator is SplitMix64 at a
counter; the keys of a replication's streams come from numpy's `SeedSequence.spawn`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from folkmoot.queueing._jit import Word, compiled

ARRIVALS, ORIGINS, ROUTES, SERVICES, POLICY, STOPS = range(6)
"""The streams of a replication."""

STAGES = 1 << 8
"""A prompt has fewer stages."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@compiled()
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(seed: int, replications: int) -> npt.NDArray[np.uint64]:
    """Keys of the streams, shape (replications, 6)."""
    spawned = np.random.SeedSequence(seed).spawn(replications)
    return np.array([one.generate_state(6, np.uint64) for one in spawned], dtype=np.uint64)


@compiled()
def branch(key: np.uint64, prompt: int, stage: int) -> np.uint64:
    """The key of a prompt's stage in a stream."""
    return branch_of(key, np.uint64(prompt) * np.uint64(STAGES) + np.uint64(stage))


@compiled()
def branch_of(key: np.uint64, word: np.uint64) -> np.uint64:
    """The same for a prompt's number times `STAGES`, plus the stage."""
    return _mixed(key + (word + np.uint64(1)) * _GAMMA)


@compiled()
def uniform(key: np.uint64, slot: int) -> float:
    """A number from [0, 1) with 53 bits; `key` is a `branch`."""
    return (
        float(np.int64(_mixed(key + (np.uint64(slot) + np.uint64(1)) * _GAMMA) >> np.uint64(11))) * 2.0**-53
    )


@compiled(into=True)
def subset(key: np.uint64, size: int, count: int, out: npt.NDArray[np.int64]) -> None:
    """`size` distinct numbers below `count` into `out`, each set equally likely (Floyd)."""
    for place in range(np.uint64(size)):
        top = np.int64(count) - np.int64(size) + np.int64(place)
        drawn = np.int64(uniform(key, place) * (top + 1))
        for before in range(place):
            if out[before] == drawn:
                drawn = top
                break
        out[place] = drawn


@compiled()
def shuffle(key: np.uint64, size: Word, out: npt.NDArray[np.int64]) -> None:
    """What `subset` drew with this key, in random order: Floyd's sets are fair, the order that he leaves is not."""
    for step in range(np.uint64(size)):
        last: Word = np.uint64(size) - np.uint64(1) - np.uint64(step)
        other = np.uint64(np.int64(uniform(key, np.uint64(size) + last) * (np.int64(last) + 1)))
        out[last], out[other] = out[other], out[last]
