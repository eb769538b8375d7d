"""The live loop around the core: it feeds events to `Peer.handle` and carries out the effects, in order.

Its twin in virtual time is `sim.world`; both decide nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from folkmoot.core.events import (
    Abort,
    Announce,
    Chill,
    Disconnect,
    Effect,
    Event,
    Fired,
    Generate,
    Notice,
    Send,
    SetTimer,
    Stopping,
    Timer,
    Warm,
)
from folkmoot.core.gossip import DATAGRAMS, Sync, SyncReply
from folkmoot.core.ids import DeviceId, JobId
from folkmoot.core.messages import Message, Prepare
from folkmoot.core.peer import Peer
from folkmoot.node.network import Network
from folkmoot.node.talk import Talk
from folkmoot.node.work import Work

LATE_S = 0.2
"""A timer this late means that the process stood still: what has arrived meanwhile is read first."""
QUIET_S = 0.02
"""All of it is read when so long nothing more has come (guess)."""
CATCH_UP_S = 0.5
"""But timers wait no longer than this, or they would never come due where something arrives all the time (guess)."""


class Driver:
    """Binds one peer to its network, its engine and the clock. Every method runs on the event loop."""

    def __init__(
        self,
        peer: Peer,
        network: Network,
        work: Work,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        announce: Callable[[Notice], None],
    ) -> None:
        self._peer = peer
        self._network = network
        self._work = work
        self._announce = announce
        self._loop = asyncio.get_running_loop()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._armed: asyncio.TimerHandle | None = None
        self._handled = 0
        self._catching_up = False
        self._parting = False
        self._closed = False
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.talk = Talk(network, self.handle, spawn)

    def handle(self, event: Event) -> None:
        """Let the core take one event and do what it says. A bug met here stops the device (`failed`)."""
        if self._closed:
            return
        self._handled += 1
        self._parting = self._parting or isinstance(event, Stopping)
        try:
            for effect in self._peer.handle(event, self._loop.time()):
                self._do(effect)
        except Exception as bug:
            # The caller may be a task or callback in which it would pass unseen, and the core's state is torn.
            if not self.failed.done():
                self.failed.set_exception(bug)
            raise
        self._arm()

    def close(self) -> None:
        """Nothing is handled any more."""
        self._closed = True
        self.failed.cancel()
        if self._armed is not None:
            self._armed.cancel()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send(to=to, message=message):
                self._send(to, message)
            case SetTimer(at=at, timer=timer):
                self._sequence += 1
                heapq.heappush(self._timers, (at, self._sequence, timer))
            case Generate(job=job, inference=inference):
                self._work.generate(job, inference, self._origin(job))
            case Abort(job=job):
                self._work.abort(job)
            case Warm(inference=inference):
                self._work.warm(inference)
            case Chill(prompt=prompt):
                self._work.chill(prompt)
            case Announce(notice=notice):
                self._announce(notice)
            case Disconnect(device=device):
                self._network.disconnect(device)
            case _:
                assert_never(effect)

    def _origin(self, job: JobId) -> Callable[[], Coroutine[Any, Any, None]]:
        origin = self._peer.queue.origin_of(job)
        return lambda: self.talk.room(origin, job)

    def _send(self, to: DeviceId, message: Message) -> None:
        match message:
            case _ if isinstance(message, DATAGRAMS) and not self._parting:
                self._network.send_datagram(to, message)
            case _ if isinstance(message, DATAGRAMS):
                # The connection is closed right after, and takes datagrams along that are on their way.
                self.talk.post(to, message)
            case Sync() | SyncReply() | Prepare():
                self.talk.post(to, message)
            case _:
                self.talk.send(to, message)

    # ---- time --------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """One loop timer for the earliest of ours."""
        if self._catching_up:
            return
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        if self._timers and not self._closed:
            self._armed = self._loop.call_at(self._timers[0][0], self._ring)

    def _ring(self) -> None:
        self._armed = None
        now = self._loop.time()
        if now - self._timers[0][0] > LATE_S:
            # Membership's rule 8: process all queued datagrams before any timer.
            self._catching_up = True
            self._armed = self._loop.call_later(QUIET_S, self._catch_up, self._handled, now + CATCH_UP_S)
            return
        self._fire()

    def _catch_up(self, handled: int, until: float) -> None:
        """Fire what is due once nothing more comes in, or at `until`."""
        if self._handled > handled and self._loop.time() < until:
            self._armed = self._loop.call_later(QUIET_S, self._catch_up, self._handled, until)
            return
        self._catching_up = False
        self._armed = None
        self._fire()

    def _fire(self) -> None:
        now = self._loop.time()
        while self._timers and self._timers[0][0] <= now and not self._closed:
            self.handle(Fired(heapq.heappop(self._timers)[2]))
        self._arm()
