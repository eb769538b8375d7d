"""What an engine may cost: counted by the day and by who asks, kept across restarts, and full when it is spent."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.node.test_daemon import Home, Odd, ask, told, until

from folkmoot.core.events import PromptAnswered, PromptFailed
from folkmoot.core.ids import DeviceId
from folkmoot.core.messages import Usage
from folkmoot.errors import ConfigError, NodeError
from folkmoot.node.config import NodeConfig
from folkmoot.node.daemon import Daemon
from folkmoot.node.money import MoneyConfig, Purse

ME, ANN, BOB = DeviceId("a" * 64), DeviceId("b" * 64), DeviceId("c" * 64)
NOON = 1_800_014_400.0
DAY = 86_400.0
CONFIG = MoneyConfig(
    price_in=1.0, price_out=2.0, serve=True, budget_per_day=10.0, budget_per_origin=4.0, budget_own=3.0
)


def million(into: float, out: float = 0.0) -> Usage:
    return Usage(tokens_in=int(into * 1e6), tokens_out=int(out * 1e6), tokens_cached=int(into * 1e6))


def test_each_origin_and_all_of_them_have_a_bound(tmp_path: Path) -> None:
    purse = Purse(tmp_path, ME, CONFIG, NOON)
    assert (purse.limits().others, purse.limits().origins) == (False, ())
    purse.spend(ANN, million(1.0, 1.0), NOON)
    assert purse.others == pytest.approx(3.0)
    assert purse.limits().origins == ()
    purse.spend(ANN, million(1.0), NOON)
    assert (purse.limits().others, purse.limits().origins) == (False, (ANN,))
    assert purse.limits().code == "over_budget"
    purse.spend(BOB, million(3.5), NOON)
    purse.spend(ME, million(100.0), NOON)
    assert not purse.limits().others
    purse.spend(DeviceId("d" * 64), million(2.5), NOON)
    assert purse.limits().others


def test_without_serve_nobody_else_is_served(tmp_path: Path) -> None:
    limits = Purse(tmp_path, ME, MoneyConfig(price_out=1.0), NOON).limits()
    assert (limits.others, limits.code) == (True, "not_serving")


def test_its_own_users_have_a_budget_of_their_own(tmp_path: Path) -> None:
    purse = Purse(tmp_path, ME, CONFIG, NOON)
    purse.spend(ANN, million(50.0), NOON)
    assert purse.own_refusal(NOON) is None
    purse.spend(ME, million(3.0), NOON)
    refusal = purse.own_refusal(NOON)
    assert refusal is not None
    why, wait_s = refusal
    assert "money.budget_own" in why
    assert wait_s == 43_200.0
    assert purse.own_refusal(NOON + wait_s) is None


def test_the_day_s_spending_outlives_a_restart_and_ends_at_midnight(tmp_path: Path) -> None:
    purse = Purse(tmp_path, ME, CONFIG, NOON)
    purse.spend(ANN, million(5.0), NOON)
    purse.write(purse.snapshot())
    path = tmp_path / "spending.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Purse(tmp_path, ME, CONFIG, NOON + 60.0)
    assert again.limits() == purse.limits()
    assert again.others == pytest.approx(5.0)
    again.roll(NOON - DAY)
    assert again.others == pytest.approx(5.0), "a clock that is set back gives nothing back"
    again.roll(NOON + DAY)
    assert again.others == 0.0
    assert Purse(tmp_path, ME, CONFIG, NOON + DAY).others == 0.0
    path.write_text("{")
    with pytest.raises(NodeError, match="damaged"):
        Purse(tmp_path, ME, CONFIG, NOON)


@pytest.mark.parametrize(
    "wrong", [{"serve": True}, {"budget_own": 1.0}, {"price_in": 1.0, "serve": True}, {"budget_per_day": 1.0}]
)
def test_what_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="money"):
        MoneyConfig(**wrong)  # type: ignore[arg-type]


# ---- a real moot ---------------------------------------------------------------------------------------


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path / "homes")
    yield made
    for daemon in list(made.running):
        await made.down(daemon)


async def billing(home: Home, money: MoneyConfig) -> tuple[Daemon, Daemon, str]:
    """A free device, and one that bills, which the free one knows."""
    free = await home.up(home.make("free", Odd()))
    paid = Daemon(home.folder / "paid", "paid", Odd(), NodeConfig(), money)
    await home.up(paid, await free.invite(1, 600.0, False))
    await until(lambda: {m.card.name for m in free.status().members if m.card.model} == {"free", "paid"})
    await until(lambda: len([m for m in paid.status().members if m.card.model]) == 2)
    return free, paid, paid.status().device


def asked(end: object) -> set[str]:
    assert isinstance(end, PromptAnswered), end
    return {job.device for job in end.provenance.jobs}


async def test_a_device_that_bills_and_does_not_serve_is_asked_by_nobody_and_answers_its_own(
    home: Home,
) -> None:
    free, paid, number = await billing(home, MoneyConfig(price_out=1.0))
    assert asked((await told(free, ask(free)))[-1]) == {"free"}
    assert asked((await told(free, ask(free, mode="fixed", layers=1, proposers=1)))[-1]) == {"free"}
    assert asked((await told(paid, ask(paid)))[-1]) == {"free", "paid"}
    assert "others not served" in paid.status().engine_note
    path = home.folder / "paid" / "spending.json"
    await until(path.exists)
    assert json.loads(path.read_text())["spent"].keys() == {number}


async def test_above_its_budget_it_reports_itself_full_and_stays_so_after_a_restart(home: Home) -> None:
    money = MoneyConfig(price_in=1e6, price_out=1e6, serve=True, budget_per_day=1.0)
    free, paid, number = await billing(home, money)
    assert asked((await told(free, ask(free)))[-1]) == {"free", "paid"}
    await until(lambda: [m.card.closed for m in free.status().members if m.device == number] == [True])
    assert asked((await told(free, ask(free)))[-1]) == {"free"}
    assert asked((await told(paid, ask(paid, mode="local")))[-1]) == {"paid"}
    await home.down(paid)
    again = Daemon(home.folder / "paid", "paid", Odd(), NodeConfig(), money)
    await home.up(again)
    assert again.status().members[0].card.closed
    await until(lambda: len([m for m in again.status().members if m.card.model]) == 2)
    assert asked((await told(again, ask(again)))[-1]) == {"free", "paid"}


async def test_its_own_users_are_told_when_their_budget_is_used_up(home: Home) -> None:
    daemon = Daemon(
        home.folder / "paid", "paid", Odd(), NodeConfig(), MoneyConfig(price_in=1e6, budget_own=1.0)
    )
    await home.up(daemon)
    assert asked((await told(daemon, ask(daemon)))[-1]) == {"paid"}
    end = (await told(daemon, ask(daemon)))[-1]
    assert isinstance(end, PromptFailed)
    assert end.code == "over_budget"
    assert 0.0 < end.retry_s <= DAY


async def test_jobs_that_wait_when_the_budget_ends_are_handed_back(home: Home) -> None:
    """One job is in service, others wait: what is spent exceeds the budget by one job at most."""
    money = MoneyConfig(price_in=1e6, serve=True, budget_per_day=0.5)
    free, paid, _ = await billing(home, money)
    prompts = [ask(free, mode="fixed", layers=1, proposers=1) for _ in range(6)]
    ends = [notices[-1] for notices in await asyncio.gather(*(told(free, each) for each in prompts))]
    refused = [
        job.error
        for end in ends
        if isinstance(end, PromptAnswered)
        for job in end.provenance.jobs
        if job.error
    ]
    assert refused
    assert all(error.startswith("over_budget") for error in refused)
    served = [
        job
        for end in ends
        if isinstance(end, PromptAnswered)
        for job in end.provenance.jobs
        if job.device == "paid" and job.outcome.value == "ok"
    ]
    assert len(served) == 1
    assert paid.status().members[0].card.closed


async def test_many_prompts_at_once_do_not_run_past_the_own_budget(home: Home) -> None:
    """All are let in before the first one has cost anything; only what is in service then goes on."""
    engine = Odd()
    daemon = Daemon(
        home.folder / "paid", "paid", engine, NodeConfig(), MoneyConfig(price_in=1e6, budget_own=0.5)
    )
    await home.up(daemon)
    prompts = [ask(daemon, mode="local", private=True) for _ in range(8)]
    ends = [notices[-1] for notices in await asyncio.gather(*(told(daemon, each) for each in prompts))]
    assert [type(end) for end in ends].count(PromptAnswered) == 1
    assert {end.code for end in ends if isinstance(end, PromptFailed)} == {"over_budget"}
