"""The local device as a command sees it: its HTTP API, found through its home."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from folkmoot import errors
from folkmoot.api.config import split_address
from folkmoot.api.control import read_control_token
from folkmoot.cli.exits import tell
from folkmoot.engine.lines import body_lines
from folkmoot.errors import FolkmootError, NodeError

if TYPE_CHECKING:
    from folkmoot.settings import Loaded

RUNNING = "api.url"
"""The file in a home that tells where the running device's API is."""

_SILENCE_S = 60.0
"""The API sends a comment every few seconds; a minute without any means that it hangs."""

Json = dict[str, Any]

_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})


@dataclass(frozen=True, slots=True)
class Words:
    """The next words of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A job moved, or the prompt was accepted; `what` is the API's progress object."""

    what: Json


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is there: its provenance (INTERFACE.md, JSON of an answer), to the letter; show it as `plain` only.

    `cut`: it stopped at `max_tokens`.
    """

    answer: Json
    cut: bool = False


Told = Words | Moved | Ended


class Api:
    """One device's API. Raises `NodeError` where nothing answers, else the error that the API names.

    `note`: what the user is told once on stderr as soon as it answers.
    """

    def __init__(self, url: str, token: str, silence_s: float = _SILENCE_S, note: str = "") -> None:
        self.url, self.token, self.note = url, token, note
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # trust_env off: a proxy from the environment has no business between a user and loopback.
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            trust_env=False,
            timeout=httpx.Timeout(silence_s, connect=min(silence_s, 5.0)),
        )

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def greet(self) -> None:
        """Raise `NodeError` unless a device answers; asks for no key and no token."""
        about = (await self._json("GET", "/openapi.json")).get("info")
        if not isinstance(about, dict) or about.get("title") != "Folkmoot":
            raise _stranger(200)

    async def own(self, home: Path) -> None:
        """Raise `NodeError` where this home holds no token that shows a device's owner, as that of another device."""
        if not self.token or self.note:
            lacks, self.note = "no control token" if not self.token else "no device runs", ""
            await self.greet()
            raise NodeError(f"{lacks} in {home}; set FOLKMOOT_HOME to the home of the device at {self.url}")

    def say_note(self) -> None:
        """Tell the user the note, the first time."""
        if self.note:
            tell(self.note)
            self.note = ""

    async def models(self) -> list[str]:
        """Every name that may stand in a prompt's `model`."""
        return [model["id"] for model in (await self._json("GET", "/v1/models"))["data"]]

    async def moot(self) -> Json:
        """The moot as the device sees it."""
        return await self._json("GET", "/v1/moot")

    async def invite(self, uses: int, ttl_s: float, *, delegate: bool = False) -> str:
        """A fresh invitation."""
        body = {"uses": uses, "ttl_s": ttl_s, "delegate": delegate}
        invitation: str = (await self._json("POST", "/v1/moot/invitations", body))["invitation"]
        return invitation

    async def ban(self, device: str) -> str:
        """Ban a device by its name or id; its id."""
        banned: str = (await self._json("POST", "/v1/moot/bans", {"device": device}))["device"]
        return banned

    async def rotate(self, grace_s: float) -> int:
        """Change the moot's root key; when the old one ends, in seconds since 1970."""
        until: int = (await self._json("POST", "/v1/moot/rotations", {"grace_s": grace_s}))["until"]
        return until

    async def forget(self, response: str | None) -> int:
        """Delete a response, or all of them; how many are gone."""
        if response is not None:
            await self._json("DELETE", f"/v1/responses/{quote(response, safe='')}")
            return 1
        gone: int = (await self._json("DELETE", "/v1/responses"))["forgotten"]
        return gone

    async def ask(self, body: Mapping[str, Any]) -> AsyncGenerator[Told, None]:
        """Ask, and yield what is told: progress and words, at last the whole answer. Closing it takes it back."""
        own = {**body.get("folkmoot", {}), "progress": True}
        try:
            async with self._http.stream(
                "POST", "/v1/chat/completions", json={**body, "stream": True, "folkmoot": own}
            ) as response:
                if response.status_code != 200:
                    raise _error_of(await response.aread(), response.status_code)
                self.say_note()
                async with aclosing(_events(response)) as events:
                    async for name, data in events:
                        if told := _told(name, data):
                            yield told
        except httpx.TransportError as error:
            raise _gone(self.url, error) from None

    async def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise _gone(self.url, error) from None
        if response.status_code >= 300:
            raise _error_of(response.content, response.status_code)
        try:
            found = plain(response.json())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _stranger(response.status_code)
        self.say_note()
        return found


def local_api(loaded: Loaded) -> Api:
    """The API of the device that runs in this home, or would. Raises `ConfigError` for an unusable home.

    An address that a variable gives wins over the one that the running device left in its home: whoever
    sets it for a command means that device.
    """
    from folkmoot.settings import check_home

    settings = loaded.settings
    check_home(settings.home)
    _, port = split_address(settings.api.listen, "api.listen")
    meant = port and loaded.from_environment("api.listen")
    told = "" if meant else read_url(settings.home)
    url = told or url_at(settings.api.listen)
    note = (
        f"no device runs in {settings.home}; another home's answers at {url}: set FOLKMOOT_HOME to its home"
    )
    return Api(url, read_control_token(settings.home), note="" if told or meant else note)


def url_at(address: str) -> str:
    """Where a client on this machine reaches an API that listens on HOST:PORT."""
    host, port = split_address(address, "api.listen")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read_url(home: Path) -> str:
    """Where the running device of a home says its API is; empty where none says so to this user."""
    try:
        return (home / RUNNING).read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


async def _events(response: httpx.Response) -> AsyncGenerator[tuple[str, str], None]:
    name = ""
    async for line in body_lines(response):
        if line.startswith(b"event: "):
            name = line.removeprefix(b"event: ").decode()
        elif line.startswith(b"data: "):
            yield name, line.removeprefix(b"data: ").decode()
        elif not line:
            name = ""


def plain(value: Any) -> Any:
    """What the API told, without control characters but newlines and tabs.

    Names, errors and answers come from peers, and what they write must not steer the terminal.
    """
    match value:
        case str():
            return value.translate(_CONTROLS)
        case dict():
            return {plain(key): plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case _:
            return value


def _told(name: str, data: str) -> Told | None:
    if data == "[DONE]":
        return None
    whole = json.loads(data)
    event = plain(whole)
    if "error" in event:
        raise _error(event["error"])
    if name:
        return Moved(event)
    if "folkmoot" in event:
        return Ended(
            whole["folkmoot"], any(each.get("finish_reason") == "length" for each in event["choices"])
        )
    text = "".join(choice["delta"].get("content", "") for choice in event["choices"])
    return Words(text) if text else None


def _gone(url: str, error: httpx.TransportError) -> NodeError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NodeError(f"no device answers at {url}; start one with `folkmoot up`")
    if isinstance(error, httpx.TimeoutException):
        return NodeError(f"the device at {url} has said nothing for a minute; restart it, and ask again")
    return NodeError(
        f"the device at {url} went away in the middle; start it again where it runs no more, and ask again"
    )


def _error_of(body: bytes, status: int) -> FolkmootError:
    try:
        return _error(plain(json.loads(body))["error"])
    except (ValueError, KeyError, TypeError):
        return _stranger(status)


def _stranger(status: int) -> NodeError:
    return NodeError(f"what answers with HTTP {status} there is not Folkmoot; choose another port with --api")


def _error(told: Mapping[str, Any]) -> FolkmootError:
    kinds = _below(FolkmootError)
    kind = next((kind for kind in kinds if kind.code == told["code"]), FolkmootError)
    return kind(told["message"])


def _below(kind: type[FolkmootError]) -> list[type[FolkmootError]]:
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return [each for near in below for each in (near, *_below(near))]
