"""The engine of a load: service times by name, several jobs at a time, text in one piece at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from folkmoot.core.events import (
    Abort,
    Chill,
    EngineFailed,
    Finished,
    Generate,
    Generated,
    Warm,
    Warmed,
)
from folkmoot.core.ids import JobId
from folkmoot.core.messages import Usage
from folkmoot.sim.engine import ANYWAY, Reports


@dataclass(slots=True)
class _Served:
    run: int
    took_s: float
    left: float
    began: float


class Server:
    """Serves what it is given; `speed[b-1]` is φ(b), its whole speed with b jobs in service.

    Without `speed` jobs do not disturb each other (φ(b) = b, as many servers as slots): each ends `took_s(job)` seconds
    after it began. Otherwise each of b jobs goes on at φ(b)/b, as engines do that batch; beyond the last
    value φ stays as it is. `clock` tells the world's time; a job that is aborted leaves at once.
    """

    def __init__(
        self, clock: Callable[[], float], took_s: Callable[[JobId], float], speed: Sequence[float] = ()
    ) -> None:
        self._clock = clock
        self._took_s = took_s
        self._speed = tuple(speed)
        self._runs = 0
        self._served: dict[JobId, _Served] = {}
        self._since = 0.0
        self._unsettled = False

    def generate(self, effect: Generate) -> Reports:
        """Begin a job beside those in service."""
        assert effect.job not in self._served, f"{effect.job} began twice"
        self._pass()
        took = self._took_s(effect.job)
        self._served[effect.job] = _Served(self._run(), took, took, self._clock())
        return self._reports(effect.job) if not self._speed else self._again()

    def abort(self, effect: Abort) -> Reports:
        """Stop a job at once."""
        served = self._served.get(effect.job)
        if served is None:
            return []
        self._pass()
        served.run = self._run()
        cost = Usage(0, 0, 0, self._clock() - served.began)
        return [(0.0, served.run, EngineFailed(effect.job, "cancelled", "aborted", cost))]

    def warm(self, effect: Warm) -> Reports:
        """No prefill ahead: it is done at once."""
        return [(0.0, ANYWAY, Warmed(effect.inference.prompt, 1, 1))]

    def chill(self, effect: Chill) -> Reports:
        """Nothing runs."""
        return []

    def current(self, run: int, event: object) -> bool:
        """Whether an event of this run still counts; an end frees the job's slot."""
        if run == ANYWAY:
            return True
        assert isinstance(event, Generated | Finished | EngineFailed), event
        served = self._served.get(event.job)
        if served is None or served.run != run:
            return False
        if not isinstance(event, Generated):
            self._pass()
            del self._served[event.job]
            self._unsettled = bool(self._speed)
        return True

    def settle(self) -> Reports:
        """Those that stay go on at another speed."""
        return self._again() if self._unsettled else []

    def _run(self) -> int:
        self._runs += 1
        return self._runs

    def _pass(self) -> None:
        """Take off what was done since the last change."""
        now = self._clock()
        if self._speed and self._served:
            done = (now - self._since) * self._each()
            for served in self._served.values():
                served.left = max(0.0, served.left - done)
        self._since = now

    def _each(self) -> float:
        together = len(self._served)
        return self._speed[min(together, len(self._speed)) - 1] / together

    def _again(self) -> Reports:
        self._unsettled = False
        reports: Reports = []
        for job, served in self._served.items():
            served.run = self._run()
            reports += self._reports(job)
        return reports

    def _reports(self, job: JobId) -> Reports:
        served = self._served[job]
        after = served.left / self._each() if self._speed else served.took_s
        spent = self._clock() + after - served.began
        end = Finished(job, Usage(0, 0, 1, spent, spent))
        return [(after, served.run, Generated(job, "x", end.usage)), (after, served.run, end)]
