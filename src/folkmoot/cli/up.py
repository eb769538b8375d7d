"""`folkmoot up`: run this device. Here its rooms are put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.cli import exits
from folkmoot.cli.client import RUNNING
from folkmoot.cli.console import counted
from folkmoot.cli.exits import Interrupted
from folkmoot.cli.options import config_option, json_option, print_json, settings_of
from folkmoot.cli.signals import ending
from folkmoot.errors import ConfigError, FolkmootError, NodeError

if TYPE_CHECKING:
    from folkmoot.engine.spec import EngineSpec
    from folkmoot.node.daemon import Ready
    from folkmoot.node.service import Moot
    from folkmoot.settings import Settings

ONLY_HERE = "only devices on this machine can join: to let others in, start with --listen 0.0.0.0:0"

READERS = (
    "who reads a prompt asked here: the devices that are asked (3 of them unless you say otherwise), in clear. "
    "Keep one on this device with `folkmoot ask --private`, or the model `local`"
)

BILLS = (
    "if that engine bills: without money.price_in and money.price_out nothing is counted, and every member of the moot "
    "may use it"
)

MEET_S = 2.0
"""A newcomer that has met nobody by then says so."""


@click.command()
@click.option(
    "--name", metavar="NAME", help="What this device is called in the moot. [default: the host's name]"
)
@click.option(
    "--engine", metavar="SPEC", help="embedded[:MODEL], llamacpp:URL, openai:URL#MODEL, ollama:MODEL, …"
)
@click.option(
    "--join",
    metavar="INVITATION",
    help="Join the moot that this invitation is from; - reads it from stdin, where no other user of this "
    "machine sees it.",
)
@click.option("--listen", metavar="HOST:PORT", help="Where other devices reach this one (UDP).")
@click.option("--api", metavar="HOST:PORT", help="Where its user reaches it. [default: 127.0.0.1:4150]")
@click.option("--dashboard/--no-dashboard", default=None, help="The dashboard is not there yet.")
@click.option(
    "--admission",
    type=click.Choice(["on", "off"]),
    help="Let prompts in at a price per job, so that no device gets more than it can do; off: without prices, up to "
    "full queues and node.peer.max_wait_s. [default: on]",
)
@click.option("--with-parent", type=int, hidden=True, help="End when this process ends.")
@json_option
@config_option
def up(
    name: str | None,
    engine: str | None,
    join: str | None,
    listen: str | None,
    api: str | None,
    dashboard: bool | None,
    admission: str | None,
    with_parent: int | None,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Run this device: its engine, its queue, its part of the gossip, its HTTP API."""
    if dashboard:
        raise ConfigError("--dashboard: there is no dashboard yet; leave the flag out")
    if with_parent is not None:
        from folkmoot.cli.parent import die_with

        die_with(with_parent)
    flags = {"device.name": name, "device.engine": engine, "node.network.listen": listen, "api.listen": api}
    if admission is not None:
        flags["node.peer.price.enabled"] = "true" if admission == "on" else "false"
    settings = settings_of(config_file, flags).settings
    invitation = invitation_of(join) if join is not None else None
    from folkmoot.settings import environment

    # Where RUST_BACKTRACE is set, each error that iroh tells of would cost a fifth of a second.
    with home_of(settings.home), environment(RUST_LIB_BACKTRACE="0"):
        stopped_by = exits.wait_for(_run(settings, invitation, as_json))
    if stopped_by == signal.SIGINT:
        raise Interrupted("stopped")


def invitation_of(argument: str) -> str:
    """What `--join` gives, `-` being a line on stdin. Raises `click.UsageError` where there is none."""
    if argument != "-":
        return argument
    if sys.stdin.isatty():
        exits.tell("paste the invitation, then press Enter")
    try:
        line = sys.stdin.readline().strip()
    except UnicodeError:
        line = ""
    if not line:
        raise click.UsageError(
            "--join -: no invitation came on stdin; `folkmoot invite` on a member prints one"
        )
    return line


class DeviceRuns(NodeError):
    """Another process holds the home."""


@contextlib.contextmanager
def home_of(home: Path) -> Iterator[None]:
    """The home, private and held by this process alone. Raises `DeviceRuns`, `NodeError`."""
    from filelock import FileLock, Timeout

    from folkmoot.node.storage import prepare_home

    prepare_home(home)
    lock = FileLock(home / "up.lock", timeout=0, mode=0o600)
    try:
        with lock:
            yield
    except Timeout:
        raise DeviceRuns(
            f"a device runs in {home} already; stop it, or give this one its own folder in FOLKMOOT_HOME"
        ) from None


async def _run(settings: Settings, join: str | None, as_json: bool) -> signal.Signals | None:
    """Run until a signal comes; gives that signal back."""
    from folkmoot.api import Desk, create_app
    from folkmoot.api.control import make_control_token
    from folkmoot.api.keys import Keys
    from folkmoot.api.server import bind, make_server, url_of
    from folkmoot.engine.remote import elsewhere
    from folkmoot.engine.spec import build, parse_spec
    from folkmoot.node.daemon import Daemon
    from folkmoot.node.journal import Journal, retention_s

    control = make_control_token(settings.home)
    spec = parse_spec(settings.device.engine)
    engine = build(spec, settings.engine)
    daemon = Daemon(settings.home, settings.device.name, engine, settings.node, settings.money)
    if spec.kind == "openai" and elsewhere(spec.url) and not settings.money.bills:
        exits.tell(BILLS)
    keys = Keys(settings.home)
    unknown = set(settings.api.privacy.keys).difference(key.name for key in keys.all())
    if unknown:
        exits.tell(f"api.privacy.keys names keys that there are not: {', '.join(sorted(unknown))}")
    kept = settings.node.journal
    desk = Desk(daemon, Journal(settings.home, kept), settings.api, retention_s(kept))
    server = make_server(create_app(daemon, settings.api, control, desk, keys), settings.node.grace_s)
    got: list[signal.Signals] = []
    with (
        contextlib.closing(desk),
        contextlib.closing(bind(settings.api)) as listener,
        _told_url(settings.home, url_of(listener)) as url,
    ):

        async def ready(ready: Ready) -> None:
            up.set()
            if join is not None and not as_json:
                await _met_others(daemon)
            try:
                _announce(daemon, ready, url, as_json, settings.home, joined=join is not None)
                if not as_json and (line := exposed(settings.api.listen)):
                    exits.tell(line)
            except BrokenPipeError:
                exits.let_go_of_stdout()  # nobody reads it any more, and the device goes on without
            except OSError as error:
                if not exits.stdout_fails():
                    raise
                raise exits.unwritable(error) from None

        async def serve() -> None:
            await server.serve(sockets=[listener])

        async def live() -> None:
            try:
                await daemon.run(join=join, ready=ready)
            finally:
                server.should_exit = True
                working.cancel()

        async def work_in_background() -> None:
            await up.wait()
            await desk.run()

        async def stop_at_signal() -> None:
            with _signals() as signals:
                got.append(await signals.get())
            if got[0] == signal.SIGINT:
                exits.end_line()
            exits.tell(f"stopping; what is under way has {settings.node.grace_s:.0f} s to end")
            server.should_exit = True
            await daemon.stop()

        if not as_json and (line := beginning(spec, settings.engine.models_folder, join)):
            exits.tell(line)
        await desk.open()
        up = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(work_in_background())
                waiting = tasks.create_task(stop_at_signal())
                living = tasks.create_task(live())
                tasks.create_task(serve())
                living.add_done_callback(lambda _: waiting.cancel() if not got else None)
        except* FolkmootError as failed:
            raise _first(failed) from None
    return got[0] if got else None


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Queue[signal.Signals]]:
    """The signals that end a device as a queue; after the first one the next kills as usual."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[signal.Signals]()
    all_of_them = (signal.SIGINT, *ending())
    for each in all_of_them:
        loop.add_signal_handler(each, queue.put_nowait, each)
    try:
        yield queue
    finally:
        for each in all_of_them:
            loop.remove_signal_handler(each)


@contextlib.contextmanager
def _told_url(home: Path, url: str) -> Iterator[str]:
    """Write the API's address into the home for as long as the device runs. Raises `NodeError`."""
    path = home / RUNNING
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(url)
    except OSError as error:
        raise NodeError(
            f"cannot write {path}: {error.strerror}; free some space, or set FOLKMOOT_HOME"
        ) from error
    try:
        yield url
    finally:
        path.unlink(missing_ok=True)


def beginning(spec: EngineSpec, models_folder: Path, join: str | None) -> str:
    """What takes a while before the device is ready; empty where nothing does."""
    joins = "joining the moot of the invitation" if join is not None else ""
    match spec.kind:
        case "embedded":
            loads = f"loading {spec.model or _preferred(models_folder)}"
        case "none" | "timed":
            loads = ""
        case _:
            loads = f"connecting to {spec}"
    both = ", then ".join(each for each in (joins, loads) if each)
    return f"{both} …" if both else ""


def exposed(listen: str) -> str:
    """What is told of an API that other machines reach; empty where only this one does."""
    from folkmoot.api.config import is_loopback, split_address

    host, _ = split_address(listen, "api.listen")
    if is_loopback(host):
        return ""
    where = "all addresses of this machine" if host in ("0.0.0.0", "::") else host
    return f"the API listens on {where}, by plain HTTP: keys, prompts and answers cross the network there in clear"


def _preferred(models_folder: Path) -> str:
    from folkmoot.engine.weights import CATALOGUE, PREFERRED, at_hand

    return next((name for name in PREFERRED if at_hand(CATALOGUE[name], models_folder)), "the model")


async def _met_others(daemon: Moot) -> None:
    """Wait until the member list, which comes over the network, holds more than this device; not for long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MEET_S), contextlib.aclosing(daemon.watch()) as notices:
            if len(daemon.status().members) < 2:
                async for _ in notices:
                    if len(daemon.status().members) > 1:
                        return


def _announce(daemon: Moot, ready: Ready, url: str, as_json: bool, home: Path, *, joined: bool) -> None:
    from folkmoot.core.gossip import Standing
    from folkmoot.node.identity import Identity

    status = daemon.status()
    if as_json:
        event = {
            "event": "ready",
            "api": url,
            "address": ready.address,
            "device": status.device,
            "name": status.name,
        }
        print_json(event | ({"invitation": ready.invitation} if ready.invitation else {}))
        return
    if joined:
        there = sum(1 for member in status.members if member.standing <= Standing.SUSPECT)
        click.echo(f"joined {status.moot}, {counted(there, 'device')}")
    note = f" ({status.engine_note})" if status.engine_note else ""
    click.echo(f"{status.name} is up, API {url}, model {status.model or 'none'}{note}")
    if ready.invitation:
        click.echo("this founded a moot; one other device joins it within 24 hours with")
        click.echo(f"  folkmoot up --join {ready.invitation}")
        if status.local_only:
            exits.tell(ONLY_HERE)
    elif Identity.open(home).may_invite:
        click.echo("let another device in with: folkmoot invite")
    exits.tell(READERS)


def _first(group: BaseExceptionGroup[FolkmootError]) -> FolkmootError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
