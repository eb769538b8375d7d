"""A running device: identity, network, core and engine put together, from start to clean shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from folkmoot.core.events import (
    Banned,
    CardChanged,
    EngineFailed,
    Event,
    Finished,
    Leaving,
    LinkLost,
    MemberChanged,
    Notice,
    Prompt,
    PromptAnswered,
    PromptFailed,
    Received,
    ServiceLimited,
    Started,
    Stopping,
    Submitted,
    Withdrawn,
)
from folkmoot.core.gossip import Card, Member, Standing
from folkmoot.core.ids import DeviceId, PromptId, draw_prompt_id
from folkmoot.core.peer import Peer
from folkmoot.engine.protocol import Engine, EngineInfo
from folkmoot.errors import BudgetSpent, EngineError, FolkmootError, NodeError, PromptTooLong
from folkmoot.node import ledger
from folkmoot.node.config import NodeConfig, parse_listen
from folkmoot.node.discovery import Discovery, is_local_only
from folkmoot.node.driver import Driver
from folkmoot.node.garbage import collect_here
from folkmoot.node.identity import Identity
from folkmoot.node.link import Stream, Traffic
from folkmoot.node.memory import Memory
from folkmoot.node.money import MoneyConfig, Purse
from folkmoot.node.network import Network
from folkmoot.node.seals import CardSeals
from folkmoot.node.service import Status
from folkmoot.node.skill import Prober, Skills, load_probes
from folkmoot.node.work import Work
from folkmoot.wire import limits

WATCH_BACKLOG = 1_000
"""Notices kept for a watcher that does not read (guess)."""

ROLL_S = 30.0
"""How often a new day is looked for (guess)."""

COUNT_S = 3.0
"""How long a prompt waits for its tokens to be counted (guess); without that its jobs tell if it is too long."""

_SHUTTING_DOWN = "this device is shutting down"

_ID = re.compile("[0-9a-f]{64}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """The device is up. `invitation` is set where it has just founded a moot."""

    address: str
    invitation: str | None


class _Mailbox:
    """Notices for one reader; where `bound` is set the oldest are lost. None: there will be no more."""

    def __init__(self, bound: int | None = None) -> None:
        self._closed = False
        self._notices: deque[Notice] = deque(maxlen=bound)
        self._some = asyncio.Event()

    def put(self, notice: Notice) -> None:
        self._notices.append(notice)
        self._some.set()

    def close(self) -> None:
        self._closed = True
        self._some.set()

    async def get(self) -> Notice | None:
        while not self._notices:
            if self._closed:
                return None
            self._some.clear()
            await self._some.wait()
        return self._notices.popleft()


class Daemon:
    """One device. Satisfies `service.Moot`. The caller holds the lock on `home`."""

    def __init__(
        self,
        home: Path,
        name: str,
        engine: Engine | None,
        config: NodeConfig,
        money: MoneyConfig | None = None,
    ) -> None:
        self._home = home
        self._config = config
        self._engine = engine
        self._identity = Identity.open(home)
        self._memory = Memory.load(home)
        bills = engine is not None and money is not None and money.bills
        self._purse = Purse(home, self._identity.device, money, time.time()) if bills and money else None
        closed = self._purse is not None and self._purse.limits().others
        self._card = Card(name, slots=config.peer.queue.slots, closed=closed)
        self._engine_state = "none" if engine is None else "loading"
        self._engine_note = ""
        self._info: EngineInfo | None = None
        self._skills: Skills | None = None
        self._began = time.monotonic()
        # Peers see some of its numbers, and must not be able to tell the next: ids, and the fences around answers.
        self._rng: Random = secrets.SystemRandom()
        self._peer: Peer | None = None
        self._driver: Driver | None = None
        self._network: Network | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[asyncio.Task[None], None] = {}
        self._stop = asyncio.Event()
        self._over = False
        self._readers: dict[PromptId, _Mailbox] = {}
        self._watchers: dict[_Mailbox, None] = {}
        self._unsaved = asyncio.Event()
        self._unkept = asyncio.Event()
        self._limits: ServiceLimited | None = None
        self._saving = asyncio.Lock()
        self._discovery: Discovery | None = None
        self._kept_changes = 0

    # ---- life --------------------------------------------------------------------------------------

    async def run(self, *, join: str | None, ready: Callable[[Ready], Awaitable[None]]) -> None:
        """Run until `stop`; then finish or hand back what is held. Raises FolkmootError at the start.

        `join` is an invitation; without one a fresh home founds a moot. `ready` is awaited once the
        engine has loaded.
        """
        network = Network(
            self._identity,
            self._config.network,
            address_of=self._address_of,
            on_datagram=lambda sender, message: self._handle(Received(sender, message)),
            on_stream=self._on_stream,
            on_link_lost=lambda device: self._handle(LinkLost(device)),
            on_address=self._on_address,
            on_banned=self._on_banned,
            contacts=self._contacts,
            memory=self._memory,
        )
        failed: FolkmootError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._network = network
                try:
                    await self._live(network, join, ready)
                except FolkmootError as error:
                    failed = error
                finally:
                    await self._close(network)
                    self._cancel_all()
        finally:
            self._tasks = None
            if self._engine is not None:
                await self._engine.close()
        if failed is not None:
            raise failed

    async def _live(
        self, network: Network, join: str | None, ready: Callable[[Ready], Awaitable[None]]
    ) -> None:
        self._spawn(collect_here())
        address = await network.start()
        contacts, founded = await self._enter(network, join)
        self._card = replace(self._card, address=address)
        incarnation = await asyncio.to_thread(self._memory.next_incarnation, time.time())
        seals = CardSeals(self._identity.key)
        self._peer = Peer(
            self._identity.device, self._card, incarnation, self._config.peer, self._rng, seals=seals
        )
        work = Work(self._engine, self._spawn, self._config.coalesce_s)
        self._driver = Driver(self._peer, network, work, self._spawn, self._announce)
        await self._take_up_books(self._peer)
        if self._config.skill.enabled and self._engine is not None and self._purse is None:
            self._skills = await asyncio.to_thread(lambda: Skills(self._home, load_probes()))
        work.handle = self._on_work
        self._limit()
        for device in self._identity.decrees.banned():
            self._on_banned(device)
        self._driver.handle(Started(tuple(contacts)))
        self._spawn(self._remember())
        self._spawn(self._watch_books(self._peer))
        if self._purse is not None:
            self._spawn(self._watch_purse(self._purse))
        if self._wants_discovery():
            self._spawn(self._discover(address))
        await self._load(self._peer, work)
        if self._skills is not None:
            prober = Prober(
                self._skills,
                self._config.skill,
                self._peer,
                work,
                model=self._probed_model,
                draw=self.new_prompt_id,
                tell=self._show_engine,
            )
            self._spawn(prober.run())
        invitation = await network.invite() if founded else None
        if not self._stop.is_set():
            await ready(Ready(network.address, invitation))
        stopping = asyncio.ensure_future(self._stop.wait())
        both: tuple[asyncio.Future[Any], ...] = (stopping, self._driver.failed)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._driver.failed.done():
            self._driver.failed.result()

    async def _enter(self, network: Network, join: str | None) -> tuple[list[tuple[DeviceId, str]], bool]:
        """Become a member where this device is none yet; whom to contact, and whether it founded a moot."""
        remembered = list(self._memory.contacts())
        if join is not None:
            return [*await network.join(join), *remembered], False
        if self._identity.membership is not None:
            return remembered, False
        await asyncio.to_thread(self._identity.found, f"{self._card.name}'s moot", time.time())
        return [], True

    async def _load(self, peer: Peer, work: Work) -> None:
        if self._engine is None:
            return
        try:
            loading = asyncio.ensure_future(self._engine.start())
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not loading.done():
                loading.cancel()
                await asyncio.wait([loading])
                return
            info = loading.result()
        except EngineError:
            self._engine_state = "down"
            raise
        self._on_engine(info)
        self._spawn(self._watch_engine(self._engine, peer, work))

    def _on_engine(self, info: EngineInfo) -> None:
        """The engine serves, as `info` tells."""
        self._info, self._engine_state, self._engine_note = info, "ready", info.note
        self._show_engine()

    def _probed_model(self) -> str | None:
        """The model that serves, where its skill is to be found out."""
        info = self._info if self._engine_state == "ready" else None
        if info is None or info.made_up or (info.elsewhere and not self._config.skill.elsewhere):
            return None
        return info.model

    def _show_engine(self) -> None:
        """Tell the others what the engine is, and how able its model is as far as that is known."""
        if (info := self._info) is not None:
            self._show(info.model, info.context_tokens, info.skill)

    def _show(self, model: str, context_tokens: int = 0, skill: float = 0.0) -> None:
        """Tell the others what answers here; an empty `model`: nothing does."""
        skills = self._skills
        tallies = skills.tallies(model) if skills is not None and model == self._probed_model() else ()
        probed = any(each.total for each in tallies)
        model = re.sub(f"[{limits.CONTROLS}]", " ", model)[: limits.TEXTS["Card.model"]]
        card = replace(
            self._card,
            model=model,
            context_tokens=context_tokens,
            skill=skill,
            probes=skills.probes.checksum if skills is not None and probed else 0,
            right=tuple(each.right for each in tallies) if probed else (),
            total=tuple(each.total for each in tallies) if probed else (),
        )
        if card != self._card:
            self._card = card
            self._handle(CardChanged(card))

    async def _watch_engine(self, engine: Engine, peer: Peer, work: Work) -> None:
        """Notice when the engine stops serving, and when it serves again."""
        missed, patience_s = 0, 2 * self._config.engine_check_s
        while True:
            await asyncio.sleep(self._config.engine_check_s)
            try:
                async with asyncio.timeout(patience_s):
                    info = await engine.check()
            except (EngineError, TimeoutError) as error:
                if isinstance(error, TimeoutError) and (peer.queue.busy or work.probing):
                    continue  # servers that do one thing at a time answer later; the job has its own time limits
                trouble = str(error) or f"the engine did not answer within {patience_s:g} s"
                missed += 1
                if missed == 1:
                    log.warning("the engine cannot serve: %s", trouble)
                self._engine_state, self._engine_note = "down", trouble
                if missed == 2:  # a child that has died is back within seconds, and its jobs wait for it
                    self._show("")
            else:
                if missed:
                    log.warning("the engine serves again")
                missed = 0
                self._on_engine(info)

    # ---- money -------------------------------------------------------------------------------------

    def _on_work(self, event: Event) -> None:
        """What comes of the engine's time; what it has cost is counted before anything else is begun."""
        peer, purse = self._peer, self._purse
        if purse is not None and peer is not None and isinstance(event, Finished | EngineFailed):
            purse.spend(peer.queue.origin_of(event.job), event.usage, time.time())
            self._unkept.set()
            self._limit()
        self._handle(event)

    def _limit(self) -> None:
        """Tell the core and the others whom this device serves no more today."""
        if self._purse is None:
            return
        limits = self._purse.limits()
        if limits == self._limits:
            return
        self._limits = limits
        self._handle(limits)
        if self._card.closed != limits.others:
            self._card = replace(self._card, closed=limits.others)
            self._handle(CardChanged(self._card))

    async def _watch_purse(self, purse: Purse) -> None:
        """Write down what is spent, and notice when a new day begins."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROLL_S):
                    await self._unkept.wait()
            if self._unkept.is_set():
                self._unkept.clear()
                try:
                    await asyncio.to_thread(purse.write, purse.snapshot())
                except NodeError as error:
                    log.warning("%s; what is spent is not kept for the next start", error)
            purse.roll(time.time())
            self._limit()

    # ---- what was seen of peers ----------------------------------------------------------------------

    async def _take_up_books(self, peer: Peer) -> None:
        kept = await asyncio.to_thread(ledger.load, self._home, self._identity.device)
        if kept is not None:
            peer.audits.record.take_up(kept.hidden)
            peer.agreements.record.take_up(kept.agreed)
            peer.repute.take_up(kept.books, time.time() - kept.at, asyncio.get_running_loop().time())

    async def _watch_books(self, peer: Peer) -> None:
        """Write down now and then what was seen of peers' answers, and tell once whose card is believed no more."""
        told: set[DeviceId] = set()
        while True:
            await asyncio.sleep(ledger.KEEP_S)
            doubts = dict(self._doubts(peer))
            for device in doubts.keys() - told:
                log.warning("the card of device %s is not believed: %s", device[:12], doubts[device])
            told = set(doubts)
            await self._keep_books(peer)

    async def _keep_books(self, peer: Peer) -> None:
        """Write the books down where something was added to them; the rest is forgotten by the clock."""
        async with self._saving:
            seen, voted = peer.audits.record, peer.agreements.record
            changes = peer.repute.changes + seen.changes + voted.changes
            if changes == self._kept_changes:
                return
            books = peer.repute.books(asyncio.get_running_loop().time())
            me, now = self._identity.device, time.time()
            kept = ledger.Ledger(1, me, now, books, seen.rows(), voted.rows())
            try:
                await asyncio.to_thread(ledger.write, self._home, kept)
                self._kept_changes = changes
            except NodeError as error:
                log.warning("%s; what was seen of peers' answers is not kept for the next start", error)

    async def stop(self) -> None:
        """Ask `run` to end; harmless when repeated."""
        self._stop.set()

    async def _close(self, network: Network) -> None:
        """Finish or hand back what is held, tell the others, close."""
        driver, peer = self._driver, self._peer
        try:
            if driver is not None and peer is not None and not driver.failed.done():
                await self._part(driver, peer)
        finally:
            if driver is not None:
                driver.close()
            # Whoever still waits for this device's words would wait for ever.
            self._over = True
            for mailbox in (*self._readers.values(), *self._watchers):
                mailbox.close()
            await network.close()
        await self._save()
        if peer is not None:
            await self._keep_books(peer)
        if self._purse is not None:
            await asyncio.to_thread(self._purse.write, self._purse.snapshot())

    async def _part(self, driver: Driver, peer: Peer) -> None:
        driver.handle(Leaving())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.grace_s):
                while not peer.idle:
                    await self._next_notice()
        driver.handle(Stopping())
        await driver.talk.flush(1.0)

    async def _next_notice(self) -> None:
        """Something of a prompt or a job changed; jobs of others make no notice, so look again soon."""
        mailbox = _Mailbox(1)
        self._watchers[mailbox] = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await mailbox.get()
        finally:
            del self._watchers[mailbox]

    # ---- tasks -------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        task = self._tasks.create_task(work)
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))
        return task

    def _cancel_all(self) -> None:
        for task in list(self._running):
            task.cancel()

    # ---- what the network and the core say ---------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if self._driver is not None:
            self._driver.handle(event)

    async def _on_stream(self, sender: DeviceId, stream: Stream) -> None:
        if self._driver is not None:
            await self._driver.talk.serve(sender, stream)

    def _address_of(self, device: DeviceId) -> str | None:
        known = self._peer.address_of(device) if self._peer is not None else None
        return known or self._memory.address_of(device)

    def _contacts(self) -> list[tuple[DeviceId, str]]:
        """Whom a newcomer is told of: a few live members."""
        live = self._peer.membership.live() if self._peer is not None else []
        return [(m.device, m.card.address) for m in live if m.card.address][:16]

    def _on_banned(self, device: DeviceId) -> None:
        if device == self._identity.device:
            log.warning("this device is banned from its moot: no member takes its jobs or gives it any")
            return
        self._memory.forget(device)
        self._unsaved.set()
        self._handle(Banned(device))

    def _on_address(self, address: str) -> None:
        self._card = replace(self._card, address=address)
        self._handle(CardChanged(self._card))
        if self._discovery is not None:
            self._spawn(self._discovery.announce(address))

    def _announce(self, notice: Notice) -> None:
        match notice:
            case MemberChanged(member=member):
                if self._learn(member):
                    self._unsaved.set()
            case _:
                mailbox = self._readers.get(notice.prompt)
                if mailbox is not None:
                    mailbox.put(notice)
        for watcher in self._watchers:
            watcher.put(notice)

    def _learn(self, member: Member) -> bool:
        """What must survive a restart: where others are, and how far refutations raised one's own number."""
        if member.device == self._identity.device:
            news = member.incarnation > self._memory.incarnation
            self._memory.incarnation = max(self._memory.incarnation, member.incarnation)
            return news
        living = member.standing is Standing.ALIVE
        return living and self._memory.remember(member.device, member.card.address)

    async def _remember(self) -> None:
        """Write newly learnt addresses down, at most once a second."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await self._save()
            except NodeError as error:
                log.warning("%s; this device goes on without remembering", error)
            await asyncio.sleep(1.0)

    async def _save(self) -> None:
        """Write the memory as it is now; one after the other, so that the last one is the newest."""
        async with self._saving:
            await asyncio.to_thread(self._memory.write, self._memory.snapshot())

    def _wants_discovery(self) -> bool:
        if self._config.discovery == "auto":
            return not self._is_local_only()
        return self._config.discovery == "on"

    def _is_local_only(self) -> bool:
        return is_local_only(str(parse_listen(self._config.network.listen)[0]))

    async def _discover(self, address: str) -> None:
        assert self._identity.membership is not None
        found = Discovery(self._identity.device, self._identity.membership.moot, address, self._on_found)
        try:
            async with found:
                self._discovery = found
                await self._stop.wait()
        except NodeError as error:
            log.warning("%s", error)
        finally:
            self._discovery = None

    def _on_found(self, device: DeviceId, address: str) -> None:
        self._handle(Started(((device, address),)))

    # ---- the door for this device's users ----------------------------------------------------------

    def status(self) -> Status:
        """The moot as this device sees it."""
        identity, peer = self._identity, self._peer
        mine = Member(identity.device, self._memory.incarnation, Standing.ALIVE, self._card)
        members: tuple[Member, ...] = (mine,)
        if peer is not None:
            known = peer.membership.members
            others = tuple(m for device, m in known.items() if device != identity.device)
            members = (known.get(identity.device, mine), *others)
        membership = identity.membership
        return Status(
            identity.device,
            self._card.name,
            membership.name if membership is not None else "",
            self._card.address,
            self._engine_state,
            "; ".join(
                filter(None, [self._engine_note, self._purse.note() if self._purse is not None else ""])
            ),
            self._card.model,
            peer.queue.waiting if peer is not None else 0,
            peer.queue.busy if peer is not None else 0,
            peer.buffer if peer is not None else 0,
            len(peer.prompts) if peer is not None else 0,
            time.monotonic() - self._began,
            members,
            self._is_local_only(),
            tuple(peer.queue.meter.stages(time.monotonic())) if peer is not None else (),
            peer.queue.meter.jobs if peer is not None else 0,
            peer.queue.meter.busy_s if peer is not None else 0.0,
            identity.decrees.banned(),
            self._doubts(peer) if peer is not None else (),
        )

    @staticmethod
    def _doubts(peer: Peer) -> tuple[tuple[DeviceId, str], ...]:
        known = [(m.device, peer.audits.doubt(m.device, m.card)) for m in peer.membership.members.values()]
        return tuple((device, why) for device, why in known if why)

    @property
    def traffic(self) -> Traffic:
        """What was sent to peers so far."""
        return self._network.traffic() if self._network is not None else Traffic()

    def new_prompt_id(self) -> PromptId:
        """A fresh id for a prompt."""
        return draw_prompt_id(self._rng)

    async def ask(self, prompt: Prompt) -> AsyncGenerator[Notice, None]:
        """Submit a prompt and yield its notices up to its end; closing early withdraws it."""
        driver = self._driver
        if driver is None:
            yield PromptFailed(prompt.id, "no_device", "this device is still starting; try again in a moment")
            return
        if prompt.plan.private and self._info is not None and self._info.elsewhere:
            away = (
                f"this device's engine runs at {self._info.elsewhere}, so nothing can be kept on this device"
            )
            yield PromptFailed(prompt.id, "no_device", away)
            return
        spent = self._purse.own_refusal(time.time()) if self._purse is not None else None
        if spent is not None:
            yield PromptFailed(prompt.id, BudgetSpent.code, spent[0], retry_s=spent[1])
            return
        refusal = await self._too_long(prompt)
        if refusal is not None:
            yield PromptFailed(prompt.id, "too_long", refusal)
            return
        if self._over:
            yield PromptFailed(prompt.id, "no_device", _SHUTTING_DOWN)
            return
        mailbox = self._readers[prompt.id] = _Mailbox()
        try:
            driver.handle(Submitted(prompt))
            while True:
                notice = await mailbox.get()
                if notice is None:
                    notice = PromptFailed(prompt.id, "no_device", _SHUTTING_DOWN)
                yield notice
                if isinstance(notice, PromptAnswered | PromptFailed):
                    return
        finally:
            del self._readers[prompt.id]
            driver.handle(Withdrawn(prompt.id))

    async def _too_long(self, prompt: Prompt) -> str | None:
        """Why a prompt cannot fit into this device's context, before anybody works on it."""
        if self._engine is None or self._info is None or self._engine_state != "ready":
            return None  # an engine that is down would count no sooner than it is up again
        plan = prompt.plan
        if plan.mode == "fixed" and not plan.layers and plan.aggregator != "origin":
            return None  # this device serves no job of it
        room = self._info.context_tokens
        # A token is a byte at least; most prompts are far too short for a closer look.
        if sum(len(t.content.encode()) + 16 for t in prompt.conversation) < room // 2:
            return None
        try:
            async with asyncio.timeout(COUNT_S):
                tokens = await self._engine.count(prompt.conversation)
        except PromptTooLong as error:
            return str(error)
        except (EngineError, TimeoutError):
            # The engine is down or busy just now: the jobs will tell, here and elsewhere.
            return None
        if tokens < room:
            return None
        return f"the prompt has {tokens} tokens, the context of {self._info.model} holds {room}; shorten it"

    async def watch(self) -> AsyncGenerator[Notice, None]:
        """Every notice from now on, until the device ends; a slow reader loses the oldest."""
        mailbox = _Mailbox(WATCH_BACKLOG)
        self._watchers[mailbox] = None
        try:
            while not self._over and (notice := await mailbox.get()) is not None:
                yield notice
        finally:
            del self._watchers[mailbox]

    async def invite(self, uses: int, ttl_s: float, delegate: bool) -> str:
        """A fresh invitation. Raises AdmissionError where this device may not invite."""
        if self._network is None:
            raise NodeError("this device is still starting; try again in a moment")
        return await self._network.invite(uses=uses, ttl_s=ttl_s, delegate=delegate)

    async def ban(self, name: str) -> DeviceId:
        """Ban a device, by its name or id, for good. Raises AdmissionError, UnknownModel, PromptInvalid, NodeError."""
        if self._network is None or self._peer is None:
            raise NodeError("this device is still starting; try again in a moment")
        # Whoever is not in the list any more is banned by its whole id.
        device = DeviceId(name) if _ID.fullmatch(name) else self._peer.find(name)
        await self._network.council.ban(device)
        return device

    async def rotate(self, grace_s: float) -> int:
        """Change the moot's root key; until when the old one counts, in seconds since 1970. Raises AdmissionError, NodeError."""
        if self._network is None:
            raise NodeError("this device is still starting; try again in a moment")
        return (await self._network.council.rotate(grace_s)).until
