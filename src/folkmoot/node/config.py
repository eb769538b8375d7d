"""The configuration of the live node; free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field

from folkmoot.core.peer import PeerConfig


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


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A live device. Times in seconds.

    `coalesce_s`: pieces of an answer are sent at most this often, but the first and the last at once
    (ENGINES.md, How). `grace_s`: a clean shutdown waits this long for what is under way (guess).
    `engine_check_s`: how often the engine is asked whether it can serve; the second time that it cannot, the
    others are told that this device has no model (guess). `discovery`: `auto` searches the local network unless the device listens on loopback only.
    """

    peer: PeerConfig = field(default_factory=PeerConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    coalesce_s: float = 0.025
    grace_s: float = 5.0
    engine_check_s: float = 5.0
    discovery: str = "auto"
