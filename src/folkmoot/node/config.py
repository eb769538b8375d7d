"""The configuration of the live node; free of heavy imports."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from folkmoot.core.audit import AuditConfig
from folkmoot.core.breaker import BreakerConfig
from folkmoot.core.committee import CommitteeConfig
from folkmoot.core.hedge import HedgeConfig
from folkmoot.core.meter import MeterConfig
from folkmoot.core.mixture import MixtureConfig
from folkmoot.core.peer import PeerConfig
from folkmoot.core.price import PriceConfig
from folkmoot.core.queue import QueueConfig
from folkmoot.core.repute import ReputeConfig
from folkmoot.errors import ConfigError

Host = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one peer may use. All values are guesses."""

    streams: int = 64
    stream_bytes: int = 64 << 20
    waiting_bytes: int = 16 << 20
    messages_hz: float = 2_000.0
    datagrams_hz: float = 400.0


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Times in seconds. `listen` is HOST:PORT; port 0 takes the last one again, or any.

    `relays` are URLs that the moot's founder names; without them nothing but the peers is ever contacted.
    All other values are guesses, except `dial_s`: iroh itself gives up after 30 s only.
    """

    listen: str = "127.0.0.1:0"
    relays: tuple[str, ...] = ()
    dial_s: float = 3.0
    join_tries: int = 5
    handshake_s: float = 3.0
    backoff_first_s: float = 0.5
    backoff_most_s: float = 8.0
    penalty_s: float = 30.0
    strangers: int = 64
    dials: int = 64
    datagrams_waiting: int = 16
    surplus_s: float = 5.0
    idle_s: float = 120.0
    peer: LinkLimits = field(default_factory=LinkLimits)

    def __post_init__(self) -> None:
        parse_listen(self.listen)


def _policies() -> PeerConfig:
    """What the paper's protocol lacks: later stages first, a price for each job, no more than its share for anybody, and
    no waiting for those who are slow or silent, and answers that are data (docs/explanation/overload.md, faults.md and
    liars.md have the figures).

    `max_wait_s`: OpenAI's clients give up after 600 s; half of that is left for the rest of the prompt.
    """
    return PeerConfig(
        queue=QueueConfig(discipline="lsf", meter=MeterConfig(share=2.0)),
        mixture=MixtureConfig(fence=True, screen=True),
        max_wait_s=300.0,
        price=PriceConfig(enabled=True, haste=0.5),
        hedge=HedgeConfig(share=0.05),
        breaker=BreakerConfig(failures=3),
        repute=ReputeConfig(enabled=True),
        audit=AuditConfig(share=0.005),
        committee=CommitteeConfig(enabled=True),
    )


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """What is kept of prompts and answers, and how long. `retention_days` counts from an answer's end.

    From `max_bytes` on the oldest answers go first, but none that ended less than an hour ago; where that is not
    enough nothing more is accepted. `max_open`: prompts accepted and not yet answered, of which one API key
    may have half. Both are guesses.
    """

    retention_days: float = 7.0
    max_bytes: int = 256 << 20
    max_open: int = 1_000

    def __post_init__(self) -> None:
        if self.retention_days <= 0 or self.max_bytes <= 0 or self.max_open <= 0:
            raise ConfigError(
                "node.journal.retention_days, node.journal.max_bytes and node.journal.max_open must be above 0"
            )


@dataclass(frozen=True, slots=True)
class SkillConfig:
    """Probing this device's own model, once for each model (docs/explanation/answers.md). Times in seconds.

    It begins, and goes on after whatever came in between, when nothing was to be done here for `quiet_s` (guess). An engine
    that bills (`money`) is never probed; one on another machine, which may bill too, only where `elsewhere` allows it.
    """

    enabled: bool = True
    quiet_s: float = 3.0
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A live device. Times in seconds.

    `coalesce_s`: pieces of an answer are sent at most this often, but the first and the last at once
    (ENGINES.md, How). `grace_s`: a clean shutdown waits this long for what is under way (guess).
    `engine_check_s`: how often the engine is asked whether it can serve, and it has twice as long to answer;
    the second time that it cannot, the others are told that this device has no model (guess). `discovery`:
    `auto` searches the local network unless the device listens on loopback only.
    """

    peer: PeerConfig = field(default_factory=_policies)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    journal: JournalConfig = field(default_factory=JournalConfig)
    skill: SkillConfig = field(default_factory=SkillConfig)
    coalesce_s: float = 0.025
    grace_s: float = 5.0
    engine_check_s: float = 5.0
    discovery: Literal["auto", "on", "off"] = "auto"


def parse_listen(text: str) -> tuple[Host, int]:
    """HOST:PORT with an IP address or `localhost`, `[::1]:0` for IPv6. Raises `ConfigError`."""
    try:
        return split_address(text.replace("localhost", "127.0.0.1", 1))
    except ValueError:
        raise ConfigError(
            f"node.network.listen is {text!r}: give HOST:PORT with an IP address, "
            "such as 127.0.0.1:0 or 0.0.0.0:4151"
        ) from None


def split_address(text: str) -> tuple[Host, int]:
    """The two parts of an address; a zone (`%eth0`) is dropped. Raises `ValueError`."""
    host, _, port = text.rpartition(":")
    if not 0 <= int(port) < 65_536:
        raise ValueError(text)
    return ipaddress.ip_address(host.strip("[]").partition("%")[0]), int(port)


def join_address(host: Host, port: int) -> str:
    """The other way round."""
    return f"{host}:{port}" if host.version == 4 else f"[{host}]:{port}"
