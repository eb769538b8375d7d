"""A device that probes its own model: what is asked, who goes first, what is kept, what the others are told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from tests.node.test_daemon import Home, Odd, ask, told, until

from folkmoot.core.events import PromptAnswered
from folkmoot.core.gossip import MAX_PROBES, Card
from folkmoot.core.messages import Inference, Usage
from folkmoot.core.skill import How, Probe, SkillClass, Tally, passed
from folkmoot.engine.protocol import Done, EngineInfo, Text
from folkmoot.errors import EngineError, NodeError
from folkmoot.node.config import SkillConfig
from folkmoot.node.daemon import Daemon
from folkmoot.node.money import MoneyConfig
from folkmoot.node.skill import FILE, MOST_MODELS, Skills, load_probes

PROBES = load_probes()
BY_QUESTION = {probe.question: probe for probe in PROBES.all}
TOTALS = tuple(sum(probe.skill is skill for probe in PROBES.all) for skill in SkillClass)
SOON = SkillConfig(quiet_s=0.01)


class Clever(Odd):
    """Knows the answers to all probes but those of `fails`; a gate, where there is one, holds its probes up."""

    def __init__(self, *fails: str, gated: bool = False, model: str = "clever", **info: object) -> None:
        super().__init__()
        self.fails = fails
        self.asked: list[str] = []
        self.stopped = 0
        self.gate = asyncio.Event()
        self.model = model
        self.info = info
        self.faults: list[Exception] = []
        if not gated:
            self.gate.set()

    async def start(self) -> EngineInfo:
        return EngineInfo(self.model, 4096, 1.0, **self.info)  # type: ignore[arg-type]

    async def check(self) -> EngineInfo:
        self.checks += 1
        await self.gate.wait()  # as a server that does one thing at a time
        return await self.start()

    async def generate(self, inference: Inference) -> AsyncGenerator[Text | Done, None]:
        probe = BY_QUESTION.get(inference.conversation[-1].content)
        if probe is None:
            yield Text("because")
        else:
            self.asked.append(probe.id)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.stopped += 1
                raise
            if self.faults:
                raise self.faults.pop()
            yield Text("I do not know" if probe.id in self.fails else probe.answers[0])
        yield Done(Usage(1, 0, 1, 0.1, 0.1))


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path)
    yield made
    for daemon in list(made.running):
        await made.down(daemon)


def card(daemon: Daemon, of: Daemon | None = None) -> Card:
    device = (of or daemon).status().device
    return next(member.card for member in daemon.status().members if member.device == device)


def is_through(daemon: Daemon) -> bool:
    return card(daemon).total == TOTALS


# ---- the questions -------------------------------------------------------------------------------------


def test_there_are_enough_probes_of_each_class_for_a_card_and_no_two_are_the_same() -> None:
    assert all(5 <= total <= MAX_PROBES for total in TOTALS)
    assert 30 <= sum(TOTALS) <= 50
    assert len({probe.id for probe in PROBES.all}) == len(BY_QUESTION) == sum(TOTALS)


@pytest.mark.parametrize("probe", PROBES.all, ids=lambda probe: probe.id)
def test_a_probe_takes_what_is_right_and_nothing_that_is_not(probe: Probe) -> None:
    for answer in probe.answers:
        assert passed(probe, answer)
    if probe.how is How.HOLDS:
        assert passed(probe, f"It is {probe.answers[0]}, I think.")
        assert not any(passed(probe, f"{probe.answers[0]} or {other}") for other in probe.lacks)
        assert not passed(probe, probe.question), "saying the question again is no answer"
    if probe.how is How.NUMBER:
        assert passed(probe, f"1 + 1 = 2, so the answer is {probe.answers[0]}.")
    for wrong in ("", "I do not know.", "banana", "99999"):
        assert not passed(probe, wrong)


def test_no_place_and_no_word_is_right_more_often_than_others() -> None:
    letters = [probe.answers[0] for probe in PROBES.all if probe.how is How.LETTER]
    words = [probe.answers[0] for probe in PROBES.all if probe.how is How.YES_NO]
    assert max(letters.count(letter) for letter in "ABCD") <= 2
    assert words.count("yes") == words.count("no")


# ---- a device ------------------------------------------------------------------------------------------


async def test_the_others_are_told_how_able_it_is(home: Home) -> None:
    clever = Clever("sum", "boat", "bee")
    daemon, other = await home.moot(clever, Odd(), skill=SOON)
    await until(lambda: is_through(daemon))
    await until(lambda: card(other, daemon) == card(daemon))
    found = card(other, daemon)
    wrong = (2, 0, 1, 0, 0, 0)
    assert found.right == tuple(total - each for total, each in zip(TOTALS, wrong, strict=True))
    assert found.probes == PROBES.checksum
    assert sorted(clever.asked) == sorted(probe.id for probe in PROBES.all), "each is asked once"
    assert daemon.status().jobs == 0, "a probe is no job"


async def test_a_restart_asks_nothing_again_and_another_model_everything(home: Home) -> None:
    daemon = await home.up(home.make("ash", Clever("sum"), skill=SOON))
    await until(lambda: is_through(daemon))
    before = card(daemon).right
    await home.down(daemon)
    again = Clever()
    daemon = await home.up(home.make("ash", again, skill=SOON))
    await until(lambda: card(daemon).model)
    assert card(daemon).right == before
    await home.down(daemon)
    assert not again.asked
    other = Clever(model="other")
    daemon = await home.up(home.make("ash", other, skill=SOON))
    await until(lambda: is_through(daemon))
    assert card(daemon).right == TOTALS


async def test_a_user_s_job_stops_a_probe_at_once_and_it_is_asked_again(home: Home) -> None:
    clever = Clever(gated=True)
    daemon = await home.up(home.make("ash", clever, skill=SOON))
    await until(lambda: clever.asked)
    end = (await told(daemon, ask(daemon)))[-1]
    assert isinstance(end, PromptAnswered)
    assert end.answer == "because"
    assert clever.stopped == 1
    assert card(daemon).total == ()
    clever.gate.set()
    await until(lambda: is_through(daemon))
    assert clever.asked[:2] == [clever.asked[0]] * 2
    assert card(daemon).right == TOTALS


async def test_an_engine_that_answers_no_check_during_a_probe_is_not_down(home: Home) -> None:
    clever = Clever(gated=True)
    daemon = await home.up(home.make("ash", clever, skill=SOON, engine_check_s=0.01))
    await until(lambda: clever.asked)
    seen = clever.checks
    await until(lambda: clever.checks > seen + 4)
    assert daemon.status().engine == "ready"
    assert daemon.status().model


async def test_a_device_that_is_shut_down_in_the_middle_goes_on_there(home: Home) -> None:
    clever = Clever(gated=True)
    daemon = await home.up(home.make("ash", clever, skill=SOON))
    await until(lambda: clever.asked)
    await home.down(daemon)
    assert clever.stopped == 1
    clever = Clever()
    daemon = await home.up(home.make("ash", clever, skill=SOON))
    await until(lambda: is_through(daemon))


@pytest.mark.parametrize(
    ("engine", "config", "money"),
    [
        (Clever(made_up=True), SOON, None),
        (Clever(elsewhere="api.example"), SOON, None),
        (Clever(), SkillConfig(enabled=False), None),
        (Clever(), SOON, MoneyConfig(price_in=1.0, price_out=1.0)),
        (None, SOON, None),
    ],
)
async def test_whose_skill_is_not_found_out(
    home: Home, engine: Clever | None, config: SkillConfig, money: MoneyConfig | None
) -> None:
    made = home.make("ash", engine, skill=config)
    if money is not None:
        made = Daemon(home.folder / "ash", "ash", engine, made._config, money)
    daemon = await home.up(made)
    for _ in range(5):  # as often as a probe would be looked for
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON.quiet_s):
                await asyncio.Event().wait()
    assert engine is None or not engine.asked
    assert card(daemon).total == ()
    assert not (home.folder / "ash" / FILE).exists()


async def test_an_engine_on_another_machine_is_probed_where_that_is_allowed(home: Home) -> None:
    allowed = SkillConfig(quiet_s=0.01, elsewhere=True)
    daemon = await home.up(home.make("ash", Clever(elsewhere="api.example"), skill=allowed))
    await until(lambda: is_through(daemon))


@pytest.mark.parametrize("fault", [EngineError("it broke"), ZeroDivisionError("a bug")])
async def test_an_engine_that_fails_is_asked_again_later(
    home: Home, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("folkmoot.node.skill.RETRY_S", 0.01)
    clever = Clever()
    clever.faults = [fault]
    daemon = await home.up(home.make("ash", clever, skill=SOON))
    await until(lambda: is_through(daemon))
    assert card(daemon).right == TOTALS


async def test_a_full_disk_costs_the_results_of_this_run_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise NodeError("cannot write it")

    monkeypatch.setattr("folkmoot.node.skill.Skills.write", fail)
    daemon = await home.up(home.make("ash", Clever(), skill=SOON))
    await until(lambda: is_through(daemon))
    assert "probed again at the next start" in caplog.text


# ---- the file ------------------------------------------------------------------------------------------


def test_nothing_is_said_of_a_class_that_is_not_through(tmp_path: Path) -> None:
    skills = Skills(tmp_path, PROBES)
    arithmetic = [probe for probe in PROBES.all if probe.skill is SkillClass.ARITHMETIC]
    for probe in arithmetic[:-1]:
        skills.note("m", probe, True)
    assert skills.tallies("m") == (Tally(),) * 6
    skills.note("m", arithmetic[-1], False)
    skills.write()
    assert Skills(tmp_path, PROBES).tallies("m")[0] == Tally(len(arithmetic) - 1, len(arithmetic))
    assert len(Skills(tmp_path, PROBES).left("m")) == len(PROBES.all) - len(arithmetic)


def test_results_of_other_questions_count_for_nothing(tmp_path: Path) -> None:
    skills = Skills(tmp_path, PROBES)
    for probe in PROBES.all:
        skills.note("m", probe, True)
    skills.write()
    assert not Skills(tmp_path, PROBES).left("m")
    assert len(Skills(tmp_path, type(PROBES)(PROBES.all, PROBES.checksum ^ 1)).left("m")) == len(PROBES.all)


def test_the_models_that_were_probed_last_are_kept(tmp_path: Path) -> None:
    skills = Skills(tmp_path, PROBES)
    first = PROBES.all[0]
    for number in range(MOST_MODELS):
        skills.note(f"m{number}", first, True)
    skills.note("m0", PROBES.all[1], True)
    skills.note("new", first, True)
    skills.write()
    kept = Skills(tmp_path, PROBES)
    assert len(kept.left("m0")) == len(PROBES.all) - 2
    assert len(kept.left("m1")) == len(PROBES.all), "the one that was probed longest ago"
    assert len(kept.left("new")) == len(PROBES.all) - 1


@pytest.mark.parametrize("wrong", [b"", b"{", b'{"version": 1, "probes": 0, "models": {"m": {"sum": 3}}}'])
def test_a_damaged_file_is_set_aside(tmp_path: Path, wrong: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / FILE
    path.write_bytes(wrong)
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        assert len(Skills(tmp_path, PROBES).left("m")) == len(PROBES.all)
    assert "skill.json.damaged" in caplog.text
    assert not path.exists()
