"""A home of its own for every test, and a moot in one process that sends a real device's notices."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

os.environ["RUST_LIB_BACKTRACE"] = "0"  # as `folkmoot up` does: iroh's errors would take their time else

from folkmoot.api import ApiConfig, Desk, create_app
from folkmoot.api.server import bind, make_server, url_of
from folkmoot.core.events import (
    Advanced,
    AnswerText,
    Asked,
    Decision,
    DeviceRow,
    Headway,
    JobProgress,
    JobRecord,
    MemberChanged,
    Notice,
    Prompt,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Proposal,
    Provenance,
    Round,
)
from folkmoot.core.gossip import Card, Member, Pulse, Standing
from folkmoot.core.ids import DeviceId, PromptId, job_id
from folkmoot.core.messages import Outcome, Stage, Usage
from folkmoot.errors import AdmissionError
from folkmoot.node.config import JournalConfig
from folkmoot.node.journal import Journal, retention_s
from folkmoot.node.service import Status

settings.register_profile(
    "folkmoot", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("folkmoot")  # `pytest --hypothesis-profile default` looks for what these examples miss

HERE = Path(__file__).parent
CONTROL = "owner-token"
WORDS = ("The ", "sky ", "is blue.")
MEASURED = {"core", "redteam", "transcripts"}
"""Tests that count for the core's coverage: those written for it, and 98 % of it. To trace the virtual hours of whole moots and the
storms of `properties` as well found 1 % more; `tests/sim` took 2.7 times as long, `tests/properties` twice."""

REAL = {"api", "chaos", "cli", "engine", "live", "node", "wire"}
"""Tests of real processes, sockets and models on a machine that others share. One that fails is run once more, and the
end of `make test` names it (`R`); it fails if it fails twice. What is pure is never run again."""

MOST_AGAIN = 2
"""More tests than that which had to be run again are no accident of the machine: then the whole run has failed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the transcripts' traces anew")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where workers run the tests the reports are with the one who leads them."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    again = {report.nodeid for report in reporter.stats.get("rerun", [])} if reporter is not None else set()
    if len(again) > MOST_AGAIN and not hasattr(session.config, "workerinput"):
        reporter.write_line(
            f"{len(again)} tests had to be run again, {MOST_AGAIN} may: {', '.join(sorted(again))}", red=True
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        room = item.path.relative_to(HERE).parts[0]
        if room not in MEASURED:
            item.add_marker("no_cover")
        if room in REAL:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    """All modules and tests stay until the end: to look through them for garbage again and again took a tenth of the time."""
    gc.freeze()


def member(letter: str, name: str, model: str = "model", standing: Standing = Standing.ALIVE) -> Member:
    card = Card(name=name, model=model, context_tokens=4096, skill=0.5, address="quic:" + letter)
    return Member(DeviceId(letter * 64), 1, standing, card, Pulse(1, 0, 0, 0, 2.0, stages=(1.5, 0.0, 3.0)))


@dataclass
class Village:
    """Satisfies `service.Moot`. `fail` ends prompts so; `hold` stops one before its first word."""

    members: list[Member] = field(
        default_factory=lambda: [
            member("a", "ash"),
            member("b", "birch"),
            member("c", "cedar"),
            member("d", "elm"),
        ]
    )
    engine: str = "ready"
    banned: tuple[DeviceId, ...] = ()
    doubts: tuple[tuple[DeviceId, str], ...] = ()
    queue: int = 0
    fail: str = ""
    fail_late: str = ""
    hold: asyncio.Event | None = None
    truncated: bool = False
    may_invite: bool = True
    ids: Iterator[int] = field(default_factory=itertools.count)
    prompts: list[Prompt] = field(default_factory=list)
    withdrawn: list[PromptId] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self) -> Status:
        me = self.members[0]
        return Status(
            device=me.device,
            name=me.card.name,
            moot="f" * 32,
            address="quic:a",
            engine=self.engine,
            engine_note="1 thread",
            model=me.card.model,
            queue=self.queue,
            busy=1 if self.queue else 0,
            buffer=0,
            prompts=0,
            uptime_s=1.5,
            members=tuple(self.members),
            banned=self.banned,
            doubts=self.doubts,
        )

    def new_prompt_id(self) -> PromptId:
        return PromptId(f"{next(self.ids):032x}")

    async def ask(self, prompt: Prompt) -> AsyncGenerator[Notice, None]:
        self.prompts.append(prompt)
        self.asked.set()
        ended = False
        try:
            for notice in self._life(prompt):
                if isinstance(notice, AnswerText) and self.hold is not None:
                    await self.hold.wait()
                ended = isinstance(notice, PromptAnswered | PromptFailed)
                yield notice
        finally:
            if not ended:
                self.withdrawn.append(prompt.id)
                self.let_go.set()

    async def watch(self) -> AsyncGenerator[Notice, None]:
        yield MemberChanged(self.members[0])
        for notice in self._life(Prompt(PromptId("0" * 32), ())):
            yield notice
        await asyncio.Event().wait()

    async def invite(self, uses: int, ttl_s: float, delegate: bool) -> str:
        if not self.may_invite:
            raise AdmissionError("this device may not invite; ask the founder")
        return f"invitation-{uses}-{ttl_s:.0f}-{delegate}"

    async def ban(self, name: str) -> DeviceId:
        if not self.may_invite:
            raise AdmissionError("only the founder may ban a member")
        return next(each.device for each in self.members if each.card.name == name)

    async def rotate(self, grace_s: float) -> int:
        return 1_000 + int(grace_s)

    def _life(self, prompt: Prompt) -> list[Notice]:
        if self.fail:
            return [PromptFailed(prompt.id, self.fail, "told to fail")]
        layers, k = prompt.plan.layers, prompt.plan.proposers
        k = min(3, len(self.members) - 1) if k is None else k
        peers = self.members[: k + 1]
        out: list[Notice] = [PromptAccepted(prompt.id, layers, k)]
        jobs = []
        for layer in range(1, layers + 1):
            stage = Stage.PROPOSE if layer == 1 else Stage.REFINE
            for slot, peer in enumerate(peers):
                job = job_id(prompt.id, layer, slot)
                name, model = peer.card.name, peer.card.model
                out += [
                    JobProgress(prompt.id, job, layer, stage, peer.device, name, model, state)
                    for state in ("asked", "began", "writing", "ok")
                ]
                record = JobRecord(layer, stage, name, model, Outcome.OK, 0.1, 1.0, 0.2, 10, 4, 7)
                jobs.append(replace(record, text=f"{name} says that it is blue."))
                if prompt.keep:
                    row = DeviceRow(peer.device, name, model)
                    got = Proposal(layer, slot, row, jobs[-1].text, Usage(10, 4, 7, 1.0, 0.2), 0.1)
                    asked = (Asked(job, layer, slot, peer.device),) if slot else ()
                    out.append(Advanced(prompt.id, Headway(layers, k, layer, (got,), asked)))
        jobs.append(
            JobRecord(
                layers + 1, Stage.AGGREGATE, "ash", "model", Outcome.OK, 0.0, 1.0, 0.2, 30, 20, len(WORDS)
            )
        )
        out += [AnswerText(prompt.id, word) for word in WORDS]
        if self.fail_late:
            return [*out, PromptFailed(prompt.id, self.fail_late, "told to fail late")]
        how = Provenance(
            id=prompt.id,
            mode=prompt.plan.mode,
            layers=layers,
            proposers=k,
            latency_s=2.5,
            first_token_s=2.0,
            origin="ash",
            devices=tuple(DeviceRow(m.device, m.card.name, m.card.model) for m in self.members),
            jobs=tuple(jobs),
            rounds=tuple(Round(n + 1, tuple(p.card.name for p in peers)) for n in range(layers)),
            decisions=(Decision("k=3", "it was asked so"),),
        )
        usage = Usage(
            tokens_in=30, tokens_cached=20, tokens_out=len(WORDS), inference_s=1.0, first_token_s=0.2
        )
        return [*out, PromptAnswered(prompt.id, "".join(WORDS), self.truncated, usage, how)]


@pytest.fixture
def village() -> Village:
    return Village()


@pytest.fixture
async def make_desk(village: Village, tmp_path: Path) -> AsyncIterator[Callable[[ApiConfig], Desk]]:
    """Makes desks at work before one journal, as a device has after each of its starts."""
    made: list[tuple[Desk, asyncio.Task[None]]] = []

    def make(config: ApiConfig) -> Desk:
        kept = JournalConfig()
        desk = Desk(village, Journal(tmp_path, kept), config, retention_s(kept))
        made.append((desk, asyncio.create_task(desk.run())))
        return desk

    yield make
    for desk, working in made:
        working.cancel()
        await asyncio.wait([working])
        desk.close()


@pytest.fixture
async def connect(
    village: Village, make_desk: Callable[[ApiConfig], Desk]
) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Makes clients of the village's API, in process; keywords are settings of `ApiConfig`."""
    clients: list[httpx.AsyncClient] = []

    def make(base: str = "http://127.0.0.1:4150", **settings: object) -> httpx.AsyncClient:
        config = replace(ApiConfig(), **settings)  # type: ignore[arg-type]
        app = create_app(village, config, CONTROL, make_desk(config))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        clients.append(httpx.AsyncClient(transport=transport, base_url=base))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def client(connect: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return connect()


@pytest.fixture
def make_member() -> Callable[..., Member]:
    return member


@pytest.fixture
def control() -> str:
    return CONTROL


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FOLKMOOT_HOME of this test; no setting leaks in from the outside."""
    for name in [name for name in os.environ if name.startswith("FOLKMOOT_") and "__" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FOLKMOOT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
async def serve(
    village: Village, make_desk: Callable[[ApiConfig], Desk]
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Puts the village's API on a real socket; gives its URL."""
    running = []

    async def start(**settings: object) -> str:
        config = replace(ApiConfig(listen="127.0.0.1:0"), **settings)  # type: ignore[arg-type]
        listener = bind(config)
        server = make_server(create_app(village, config, CONTROL, make_desk(config)))
        running.append((server, asyncio.create_task(server.serve(sockets=[listener])), listener))
        return url_of(listener)

    yield start
    for server, task, listener in running:
        server.should_exit = True
        await task
        listener.close()
