"""What can be set about the HTTP API."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from folkmoot.api.privacy import PrivacyConfig
from folkmoot.api.schema import Own
from folkmoot.errors import ConfigError

PRESETS: dict[str, Own] = {
    "moot-fast": Own(layers=1, proposers=1),
    "moot-best": Own(layers=2, proposers=3, aggregator="strongest"),
    "moot-private": Own(private=True),
}
"""Names that stand for parameters, offered as models beside `moot` and `local`."""


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Address, keys and limits of the HTTP API.

    `listen` is HOST:PORT; anything but loopback needs a key, which `folkmoot key new` makes and keeps as a hash, or which
    stands in `keys` as it is. 4150 is a guess at a free port,
    4 MiB holds the text of any context in use, and proxies commonly drop a stream that is silent for 30 s.
    Of the prompts in the background `background_prompts` are put to the moot at a time, and one that it does not take
    is put to it again for `background_wait_s`, where it has no deadline of its own (both are guesses).
    """

    listen: str = "127.0.0.1:4150"
    keys: tuple[str, ...] = field(default=(), repr=False)
    body_bytes: int = 4 * 1024 * 1024
    keep_alive_s: float = 5.0
    max_tokens: int = 512
    background_prompts: int = 8
    background_wait_s: float = 3_600.0
    presets: dict[str, Own] = field(default_factory=lambda: dict(PRESETS))
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def __post_init__(self) -> None:
        split_address(self.listen, "api.listen")
        if self.keep_alive_s <= 0 or self.body_bytes <= 0 or self.max_tokens <= 0:
            raise ConfigError("api.keep_alive_s, api.body_bytes and api.max_tokens must be above 0")
        if self.background_prompts <= 0 or self.background_wait_s <= 0:
            raise ConfigError("api.background_prompts and api.background_wait_s must be above 0")


def split_address(address: str, setting: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT` as (host, port), 0 <= port <= 65535. Raises `ConfigError`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{setting} is {address!r}: give HOST:PORT, for example 127.0.0.1:4150")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
