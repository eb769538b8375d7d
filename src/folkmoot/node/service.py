"""What a running device offers to those who sit on it: the API and, through it, the CLI."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from folkmoot.core.events import Notice, Prompt
from folkmoot.core.gossip import Member
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.meter import StageMean


@dataclass(frozen=True, slots=True)
class Status:
    """The moot as this device sees it. `members` holds every known row, this device's own first.

    `engine` is `ready`, `loading`, `down` or `none`, `engine_note` tells more of it, or what is wrong;
    `queue` counts waiting jobs (not the one in service), `buffer` the local prompts between layers,
    `prompts` those not yet ended. `local_only`: no device on another machine can reach this one. `stages` are what jobs
    cost here; `jobs` were served since the start, in `busy_s` seconds of all slots together.
    `banned` are all that the moot bans, whether this device has met them or not. `doubts`: whose cards are not believed here, and why.
    """

    device: DeviceId
    name: str
    moot: str
    address: str
    engine: str
    engine_note: str
    model: str
    queue: int
    busy: int
    buffer: int
    prompts: int
    uptime_s: float
    members: tuple[Member, ...]
    local_only: bool = False
    stages: tuple[StageMean, ...] = ()
    jobs: int = 0
    busy_s: float = 0.0
    banned: tuple[DeviceId, ...] = ()
    doubts: tuple[tuple[DeviceId, str], ...] = ()


class Moot(Protocol):
    """The door that `api` knocks at. `node.daemon.Daemon` is the live one."""

    def status(self) -> Status:
        """A snapshot; cheap."""
        ...

    def new_prompt_id(self) -> PromptId:
        """A fresh id for a `Prompt` to be submitted."""
        ...

    def ask(self, prompt: Prompt) -> AsyncGenerator[Notice, None]:
        """Submit a prompt; yields its notices, the last one `PromptAnswered` or `PromptFailed`.

        Closing the stream early withdraws the prompt: every job of it is cancelled everywhere.
        """
        ...

    def watch(self) -> AsyncGenerator[Notice, None]:
        """Every notice of this device from now on, without an end; a slow reader loses the oldest."""
        ...

    async def invite(self, uses: int, ttl_s: float, delegate: bool) -> str:
        """A fresh invitation. Raises `AdmissionError` where this device may not invite."""
        ...

    async def ban(self, name: str) -> DeviceId:
        """Ban a device for good; its id. Raises `AdmissionError` where this is not the founder's, `UnknownModel`, `PromptInvalid`."""
        ...

    async def rotate(self, grace_s: float) -> int:
        """Change the moot's root key; when the old one ends (seconds since 1970). Raises `AdmissionError`."""
        ...
