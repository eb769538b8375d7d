"""The slow, obvious twin of the kernels: devices with a queue each, one event after another, departures and all.

It shares nothing with them but the random streams and `core/law.py`. At one time views are refreshed first, then
arrivals come, then all departures, then the one prompt with a complete layer that was asked first goes on; then
the departures that are due by now, the next prompt, and so on.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from folkmoot.core.law import Law, Trace
from folkmoot.queueing.moot import Question
from folkmoot.queueing.streams import (
    ARRIVALS,
    ORIGINS,
    POLICY,
    ROUTES,
    SERVICES,
    branch,
    shuffle,
    subset,
    uniform,
)


@dataclass(eq=False)
class Job:
    prompt: int
    stage: int
    slot: int
    device: int
    asked: float
    took: float
    start: float = math.nan
    end: float = math.nan


@dataclass(eq=False)
class Prompt:
    number: int
    origin: int
    stage: int = 1
    open: list[Job] = field(default_factory=list)
    got: int = 0
    turn: int = 0


@dataclass
class World:
    question: Question
    key: np.ndarray
    until: float
    now: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    queues: list[deque[Job]] = field(default_factory=list)
    serving: list[Job | None] = field(default_factory=list)
    departures: list[tuple[float, int, Job]] = field(default_factory=list)
    prompts: dict[int, Prompt] = field(default_factory=dict)
    turns: int = 0
    departed: int = 0
    refused: int = 0
    refreshes: int = 0
    view: list[int] = field(default_factory=list)
    own: dict[tuple[int, int], int] = field(default_factory=dict)

    def run(self) -> list[Job]:
        q = self.question
        rates = list(q.rates_hz) * (q.devices if len(q.rates_hz) == 1 else 1)
        self.queues = [deque() for _ in range(q.devices)]
        self.serving = [None] * q.devices
        arrived, coming = 0, self.gap(0, sum(rates))
        ready: list[Prompt] = []
        while True:
            leaving = self.departures[0][0] if self.departures else math.inf
            if ready and leaving > self.now:
                first = min(ready, key=lambda each: each.turn)
                ready.remove(first)
                self.go_on(first)
                continue
            if q.prompts and arrived == q.prompts:
                coming = math.inf
            self.now = min(coming, leaving)
            if self.now > self.until or math.isinf(self.now):
                return self.jobs
            while q.view_s and self.refreshes * q.view_s <= self.now:
                self.view = [self.here(device) for device in range(q.devices)]
                self.own.clear()
                self.refreshes += 1
            if coming <= leaving:
                prompt = Prompt(arrived, self.origin(arrived, rates))
                if q.admit and len(self.queues[prompt.origin]) >= q.admit:
                    self.refused += 1
                else:
                    self.prompts[arrived] = prompt
                    self.ask(prompt, self.choose(prompt, 1))
                arrived += 1
                coming = self.now + self.gap(arrived, sum(rates))
                continue
            _, _, job = heapq.heappop(self.departures)
            if self.serving[job.device] is not job:
                continue
            self.serving[job.device] = None
            prompt = self.prompts[job.prompt]
            prompt.open.remove(job)
            prompt.got += 1
            whole = not prompt.open
            cut = q.quorum and prompt.stage <= q.layers and prompt.got >= q.quorum
            if (whole or cut) and prompt not in ready:
                ready.append(prompt)
            self.serve(job.device)

    def here(self, device: int) -> int:
        return len(self.queues[device]) + (self.serving[device] is not None)

    def peers(self, origin: int, drawn: list[int]) -> list[int]:
        q = self.question
        if not q.best_of:
            return drawn

        def score(peer: int) -> float:
            law, jobs = q.laws[peer % len(q.laws)], self.here(peer)
            if q.view_s:
                jobs = self.view[peer] + (self.own.get((origin, peer), 0) if q.count_own else 0)
            mean = law.mean
            if isinstance(law, Trace):
                column = [row[peer % len(row)] for row in law.rows]
                mean = math.fsum(column) / len(column)
            return mean * float(jobs + 1)

        best = sorted(drawn, key=score)[: q.proposers]
        for peer in best:
            self.own[origin, peer] = self.own.get((origin, peer), 0) + 1
        return best

    def go_on(self, prompt: Prompt) -> None:
        q = self.question
        stage = prompt.stage + 1
        last = stage > q.layers
        over = stage > q.layers + 1
        if last and not over and q.skip_aggregation:
            over = self.draw(POLICY, prompt.number, 0, 0) < q.skip_aggregation
        # Who is asked next is chosen before the cancels have arrived anywhere.
        places = [] if over else self.choose(prompt, stage)
        for job in list(prompt.open):
            prompt.open.remove(job)
            if job in self.queues[job.device]:
                self.queues[job.device].remove(job)
            else:
                self.serving[job.device] = None
                job.end = self.now
                self.serve(job.device)
        if over:
            del self.prompts[prompt.number]
            return
        prompt.stage = stage
        self.ask(prompt, places)

    def choose(self, prompt: Prompt, stage: int) -> list[int]:
        q, places = self.question, [prompt.origin]
        if stage <= q.layers:
            others = [d for d in range(q.devices) if d != prompt.origin]
            others = others if q.graph is None else list(q.graph[prompt.origin])
            size = min(q.best_of or q.proposers, len(others))
            chosen = np.empty(max(1, size), np.int64)
            key = np.uint64(branch(self.key[ROUTES], prompt.number, stage))
            subset(key, size, len(others), chosen)
            if q.best_of:
                shuffle(key, size, chosen)
            places += self.peers(prompt.origin, [others[place] for place in chosen[:size]])
        return places

    def ask(self, prompt: Prompt, places: list[int]) -> None:
        q = self.question
        prompt.open, prompt.got, prompt.turn = [], 0, self.turns
        self.turns += 1
        for slot, device in enumerate(places):
            law = q.laws[device % len(q.laws)]
            self.jobs.append(
                Job(
                    prompt.number,
                    prompt.stage,
                    slot,
                    device,
                    self.now,
                    self.service(law, prompt, slot, device),
                )
            )
            prompt.open.append(self.jobs[-1])
            self.queues[device].append(self.jobs[-1])
            self.serve(device)

    def serve(self, device: int) -> None:
        if self.serving[device] is None and self.queues[device]:
            queue = self.queues[device]
            job = queue[0] if self.question.discipline == "fcfs" else max(queue, key=lambda each: each.stage)
            queue.remove(job)
            self.serving[device] = job
            job.start, job.end = self.now, self.now + job.took
            self.departed += 1
            heapq.heappush(self.departures, (job.end, self.departed, job))

    def service(self, law: Law, prompt: Prompt, slot: int, device: int) -> float:
        whole = isinstance(law, Trace)
        u = self.draw(SERVICES, prompt.number, 0 if whole else prompt.stage, 0 if whole else slot)
        return law.quantile(u, device)

    def origin(self, prompt: int, rates: list[float]) -> int:
        u = self.draw(ORIGINS, prompt, 0, 0)
        if len(self.question.rates_hz) == 1:
            return int(u * len(rates))
        shares = np.cumsum(rates) / sum(rates)
        return next((device for device, share in enumerate(shares) if u < share), len(rates) - 1)

    def gap(self, prompt: int, rate: float) -> float:
        return -math.log(1.0 - self.draw(ARRIVALS, prompt, 0, 0)) / rate

    def draw(self, stream: int, prompt: int, stage: int, slot: int) -> float:
        return float(uniform(np.uint64(branch(self.key[stream], prompt, stage)), slot))
