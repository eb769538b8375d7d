"""The queue statistic of the paper's published script, which is not the time average of a queue.

The script looks once at each job, when it places it: it counts the prompts whose next stage will ask the same
device after this job was asked and before it ends, weighs the count by the job's service time, and divides the
sum by the end of the aggregation that was asked last. So it counts what a job leaves behind, and of a prompt only
the stage that is known when the job is placed. Source: the script beside arXiv 2412.21200, read, not copied.
"""

from __future__ import annotations

import numpy as np

from folkmoot.queueing._check import Floats, number, stable
from folkmoot.queueing._jit import compiled
from folkmoot.queueing.fcfs import FIELDS, Whole
from folkmoot.queueing.latency import Moments, mg1_wait
from folkmoot.queueing.streams import STAGES

_PROMPT, _STAGE, _, _DEVICE, _ASKED, _START, _END = range(len(FIELDS))


def script_queue(log: Floats, devices: int) -> float:
    """The script's average queue of a run that was drained, from its log of jobs (columns `fcfs.FIELDS`).

    First come first served, every job to its end. NaN for a log without jobs.
    """
    if not len(log):
        return float("nan")
    # When the layer before was asked; −1 for first stages, which the script knows from the start.
    order = np.lexsort((log[:, _STAGE], log[:, _PROMPT]))
    begins = np.flatnonzero(np.diff(log[order, _PROMPT] * STAGES + log[order, _STAGE], prepend=-1.0))
    before = np.concatenate([[-1.0], log[order[begins[:-1]], _ASKED]])
    before[log[order[begins], _STAGE] == 1] = -1.0
    known = np.empty(len(log))
    known[order] = np.repeat(before, np.diff(np.append(begins, len(log))))
    by_device = np.lexsort((log[:, _ASKED], log[:, _DEVICE]))
    jobs = np.ascontiguousarray(log[by_device])
    edges = np.searchsorted(jobs[:, _DEVICE], np.arange(devices + 1))
    area = _area(jobs, known[by_device], edges)
    last = jobs[:, _ASKED].max()
    return float(area / jobs[jobs[:, _ASKED] == last, _END].max() / devices)


@compiled()
def _area(jobs: Floats, known: Floats, edges: Whole) -> float:
    """Σ counts × service, jobs sorted by device and time asked."""
    area = 0.0
    for device in range(edges.size - 1):
        for place in range(edges[device], edges[device + 1]):
            asked, end = jobs[place, _ASKED], jobs[place, _END]
            later = place + 1
            count = 0
            while later < edges[device + 1] and jobs[later, _ASKED] <= end:
                count += known[later] <= asked and jobs[later, _PROMPT] != jobs[place, _PROMPT]
                later += 1
            area += count * (end - jobs[place, _START])
    return area


def script_queue_alone(rate_hz: float, service: Moments) -> float:
    """[E] (2 − ρ) L_q, what the script's statistic tends to for M = 0 and many prompts; L_q is λ times the mean wait of M/G/1.

    A job leaves λ(W + B) jobs behind on average, weighted by its own B: λ²(E[W]E[B] + E[B²]) = ρL_q + 2(1 − ρ)L_q.
    Any service law, first come first served, ρ < 1. Source: derived here; Pollaczek and Khinchine for L_q.
    """
    rho = stable(number("rate_hz", rate_hz) * service.mean)
    return (2.0 - rho) * rate_hz * mg1_wait(rate_hz, service)
