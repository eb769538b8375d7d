"""A peer's circuit breaker: what opens it, who may try it, what closes it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from folkmoot.core.breaker import BreakerConfig, Breakers, State
from folkmoot.core.events import BreakTimer, SetTimer
from folkmoot.core.ids import DeviceId

BOB = DeviceId("bob")
CONFIG = BreakerConfig(silences=2, failures=3, open_s=5.0, most_s=15.0)


def opened(breakers: Breakers, now: float = 0.0) -> list[float]:
    """When the breakers that have just opened are to be tried."""
    timers = [timer for _, timer in breakers.opened(now)]
    assert all(isinstance(timer, SetTimer) for timer in timers)
    return [timer.at for timer in timers if isinstance(timer, SetTimer)]


def test_failures_in_a_row_open_it() -> None:
    breakers = Breakers(CONFIG)
    breakers.failed(BOB)
    breakers.failed(BOB)
    breakers.answered(BOB)
    for _ in range(2):
        breakers.failed(BOB)
        assert breakers.admits(BOB)
    breakers.failed(BOB)
    assert breakers.state(BOB) is State.OPEN
    assert not breakers.admits(BOB)
    assert "3 jobs without an answer" in breakers.why(BOB)
    assert opened(breakers, 7.0) == [12.0]
    assert opened(breakers, 7.0) == []


def test_a_word_ends_silence_and_no_failure() -> None:
    breakers = Breakers(CONFIG)
    breakers.silent(BOB)
    breakers.silent(BOB)
    assert not breakers.admits(BOB)
    breakers.word(BOB)
    assert breakers.admits(BOB)
    for _ in range(3):
        breakers.failed(BOB)
    breakers.word(BOB)
    assert not breakers.admits(BOB)


def test_one_job_tries_it_and_each_failure_doubles_the_wait() -> None:
    breakers = Breakers(CONFIG)
    for _ in range(3):
        breakers.failed(BOB)
    waits = []
    for _ in range(3):
        waits += opened(breakers)
        breakers.on_timer(BreakTimer(BOB))
        assert breakers.admits(BOB)
        breakers.asked(BOB)
        assert breakers.state(BOB) is State.PROBING
        assert not breakers.admits(BOB)
        breakers.let_go(BOB)  # as every job that ends without an answer
        breakers.failed(BOB)
        assert not breakers.admits(BOB)
    assert waits == [5.0, 10.0, 15.0]
    breakers.on_timer(BreakTimer(BOB))
    breakers.asked(BOB)
    breakers.answered(BOB)
    assert breakers.state(BOB) is State.CLOSED


def test_a_try_that_says_nothing_of_the_peer_is_made_again() -> None:
    breakers = Breakers(CONFIG)
    for _ in range(3):
        breakers.failed(BOB)
    breakers.on_timer(BreakTimer(BOB))
    breakers.asked(BOB)
    breakers.let_go(BOB)
    assert breakers.admits(BOB)


def test_without_failures_it_never_opens() -> None:
    breakers = Breakers(BreakerConfig())
    for _ in range(9):
        breakers.failed(BOB)
        breakers.silent(BOB)
    assert breakers.admits(BOB)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: no peer is shut out for ever, and at most one job tries an open one."""

    def __init__(self) -> None:
        super().__init__()
        self.breakers = Breakers(CONFIG)
        self.timers = 0
        self.tries = 0

    @rule(what=st.sampled_from(("silent", "failed", "word", "answered", "let_go", "forget")))
    def seen(self, what: str) -> None:
        getattr(self.breakers, what)(BOB)
        self.tries = 0 if self.breakers.state(BOB) is not State.PROBING else self.tries

    @rule()
    def drawn(self) -> None:
        if self.breakers.admits(BOB):
            probe = self.breakers.state(BOB) is State.HALF_OPEN
            self.breakers.asked(BOB)
            self.tries += probe

    @rule()
    def fire(self) -> None:
        if self.timers:
            self.timers -= 1
            self.breakers.on_timer(BreakTimer(BOB))

    @invariant()
    def an_open_one_has_a_timer(self) -> None:
        self.timers += len(self.breakers.opened(0.0))
        assert self.breakers.state(BOB) is not State.OPEN or self.timers

    @invariant()
    def one_try_at_a_time(self) -> None:
        assert self.tries <= 1


TestAnyOrder = AnyOrder.TestCase
