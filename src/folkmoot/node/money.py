"""What a billing engine has cost today, and for whom it may cost more: kept on disk, so that a restart forgets nothing.

Days are those of UTC. Amounts are in whatever currency the prices are in. A budget that is used up stops the next job, not
those in service: what is spent exceeds it by no more than these cost.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from folkmoot.core.events import ServiceLimited
from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Usage
from folkmoot.errors import BudgetSpent, ConfigError
from folkmoot.node import storage

FILE = "spending.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MoneyConfig:
    """What an engine bills, and who may cause it. Without a price nothing is counted and everybody is served.

    `price_in` and `price_out` are for a million tokens read and written; what the server has cached counts in full. Only with
    `serve` does a device whose engine bills serve others: all of them together up to `budget_per_day`, any one of them up to
    `budget_per_origin` (0: as far as the first allows). `budget_own` is for this device's own users (0: no limit).
    """

    price_in: float = 0.0
    price_out: float = 0.0
    serve: bool = False
    budget_per_day: float = 0.0
    budget_per_origin: float = 0.0
    budget_own: float = 0.0

    def __post_init__(self) -> None:
        budgets = self.budget_per_day or self.budget_per_origin or self.budget_own
        if not self.bills and (self.serve or budgets):
            raise ConfigError(
                "money: budgets and serve mean nothing without price_in or price_out; set them too"
            )
        if self.serve and not self.budget_per_day:
            raise ConfigError(
                "money: serve needs budget_per_day, or the first other device could spend all you have"
            )

    @property
    def bills(self) -> bool:
        """Whether jobs cost money here."""
        return bool(self.price_in or self.price_out)

    def cost(self, usage: Usage) -> float:
        """What an inference costs."""
        return (usage.tokens_in * self.price_in + usage.tokens_out * self.price_out) / 1e6


@dataclass(frozen=True, slots=True)
class Spending:
    """What stands in the file: one day's amounts, by the device that asked."""

    version: int
    day: str
    spent: dict[str, float] = field(default_factory=dict)


class Purse:
    """The day's spending of one device. Not thread-safe: `snapshot` belongs on the loop, `write` may run in a thread."""

    def __init__(self, home: Path, me: DeviceId, config: MoneyConfig, now: float) -> None:
        """Take up what was spent before. Raises NodeError where the file is damaged: nothing is spent on a guess."""
        self.config = config
        self._me = me
        self._path = home / FILE
        self._day = _day(now)
        stored = storage.load(self._path, Spending, "delete it; what was spent today then counts as nothing")
        self._spent = dict(stored.spent) if stored is not None and stored.day == self._day else {}

    @property
    def others(self) -> float:
        """What all other devices together have cost today."""
        return sum(amount for device, amount in self._spent.items() if device != self._me)

    @property
    def own(self) -> float:
        """What this device's own users have cost today."""
        return self._spent.get(self._me, 0.0)

    def spend(self, origin: DeviceId, usage: Usage, now: float) -> None:
        """An inference for `origin` has cost so much."""
        self.roll(now)
        self._spent[origin] = self._spent.get(origin, 0.0) + self.config.cost(usage)

    def roll(self, now: float) -> None:
        """Begin a new day where one has begun; `now` in seconds since 1970."""
        if _day(now) > self._day:
            self._day = _day(now)
            self._spent = {}

    def limits(self) -> ServiceLimited:
        """Who is served no more today."""
        config, own = self.config, self._own_is_spent()
        if not config.serve:
            return ServiceLimited(True, (), "not_serving", "this device serves its own users only", own)
        if self.others >= config.budget_per_day:
            why = "this device has spent what it may for others today"
            return ServiceLimited(True, (), BudgetSpent.code, why, own)
        most = config.budget_per_origin or config.budget_per_day
        spent = tuple(
            DeviceId(device)
            for device, amount in self._spent.items()
            if device != self._me and amount >= most
        )
        why = "this device has spent what it may for the asker today"
        return ServiceLimited(False, spent, BudgetSpent.code, why, own)

    def _own_is_spent(self) -> bool:
        return 0.0 < self.config.budget_own <= self.own

    def own_refusal(self, now: float) -> tuple[str, float] | None:
        """Why its own users are served no more today, and in how many seconds they are again."""
        self.roll(now)
        if not self._own_is_spent():
            return None
        wait_s = _midnight(now) - now
        why = (
            f"this device's own budget of {self.config.budget_own:g} a day is used up ({self.own:.4g} spent)"
        )
        return f"{why}; it begins anew at 00:00 UTC, or raise money.budget_own", wait_s

    def snapshot(self) -> Spending:
        """What is spent now."""
        return Spending(1, self._day, dict(self._spent))

    def write(self, snapshot: Spending) -> None:
        """Write it down; may run in a thread. Raises NodeError."""
        storage.save(self._path, snapshot)

    def note(self) -> str:
        """The day in a few words, for people."""
        config = self.config
        own = f"{self.own:.4g}" + (f" of {config.budget_own:g}" if config.budget_own else "")
        others = f"{self.others:.4g} of {config.budget_per_day:g}" if config.serve else "not served"
        return f"spent today: own {own}, others {others}"


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def _midnight(now: float) -> float:
    tomorrow = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow + timedelta(days=1)).timestamp()
