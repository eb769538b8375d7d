"""The compiled simulator against the real core in virtual time: every job's start and end, to the bit.

The two share the random streams, `core/law.py` and the question; all else is written twice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from folkmoot.core.law import Fixed, Law
from folkmoot.queueing.moot import Question, end_s, replication
from folkmoot.queueing.streams import keys
from folkmoot.sim.load import Load

from .test_calendar import policy

CASES = 52
POLICIES = ["plain", "lsf", "quorum", "admission", "best", "all"]


def asked_of(kind: str, seed: int) -> Question:
    """A question that the protocol can be asked: it aggregates always, and counts what it sends itself."""
    asked = replace(policy(kind, seed), skip_aggregation=0.0, count_own=True)
    return replace(asked, laws=tuple(map(told, asked.laws))) if asked.best_of else asked


def told(law: Law) -> Law:
    """A mean service of 0 says that nothing was served yet, and another device's stands in for it."""
    return Fixed(0.5) if law == Fixed(0.0) else law


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("seed", range(CASES))
def test_every_job_to_the_bit(kind: str, seed: int) -> None:
    asked = asked_of(kind, seed)
    key, end = keys(asked.seed, 1)[0], end_s(asked)
    seen = Load(asked, key, end).run()
    run = replication(asked, key, log=len(seen.jobs) + 1, events=True)
    assert run.counts.totals[3] == len(seen.jobs)
    assert run.counts.totals[5] == sum(prompt.code == "overloaded" for prompt in seen.prompts)
    assert run.counts.totals[1] == sum(not prompt.code for prompt in seen.prompts)
    for line, job in zip(run.counts.log, seen.jobs, strict=False):
        told = (job.prompt, job.stage, job.slot, job.device, job.asked, job.start, job.end)
        np.testing.assert_array_equal(line, told)
    if kind == "plain":
        fast = replication(asked, key, log=len(seen.jobs))
        for line, job in zip(fast.counts.log, seen.jobs, strict=True):
            assert tuple(line[:5]) == (job.prompt, job.stage, job.slot, job.device, job.asked)
            assert line[5] == job.start or line[5] > end
            assert line[6] == job.end or line[6] > end
