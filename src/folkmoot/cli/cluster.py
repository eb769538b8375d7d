"""Where replications run: the cores of this machine, or a cluster under joblib."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from folkmoot.cli.console import counted
from folkmoot.cli.exits import tell
from folkmoot.cli.signals import interrupting
from folkmoot.errors import ConfigError, FolkmootError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
KNOCK_S = 5.0
MOST_WORKERS = 100_000
_NEEDS = {"ray": ("ray",), "dask": ("distributed", "cryptography")}


class WorkerLost(FolkmootError):
    """A worker of the cluster is gone, and what it worked on with it."""


def cluster_options(command: F) -> F:
    """The flags that say where it is run."""
    for flag in (
        click.option(
            "--address", metavar="ADDRESS",
            help="An existing Ray or Dask cluster, whose machines must have Folkmoot. [default: one on this machine]",
        ),
        click.option(
            "--backend", type=click.Choice(["threads", "ray", "dask"]), default="threads", show_default=True,
            help="threads: this machine; ray, dask: worker processes, also on other machines (extra [cluster]). "
            "The result is the same to the bit.",
        ),
        click.option(
            "--workers", type=click.IntRange(1, MOST_WORKERS),
            help="Cores to use, of this machine's at most all. [default: all]",
        ),
    ):  # fmt: skip
        command = flag(command)
    return command


@contextlib.contextmanager
def cluster(backend: str, workers: int | None, address: str | None) -> Iterator[None]:
    """A `with` block whose joblib calls run there. What was started for it has ended with it, also where a signal ends it.

    With Ray what is printed within goes to stderr, as Ray itself prints and stdout is the result's. SIGTERM and a closed terminal are `KeyboardInterrupt` within. Raises `ConfigError` where the extra is missing or the cluster does not answer.
    """
    if backend == "threads":
        if address is not None:
            raise click.UsageError("--address belongs to --backend ray or dask")
        with interrupting():
            yield
        return
    if any(importlib.util.find_spec(name) is None for name in _NEEDS[backend]):
        raise ConfigError(f"--backend {backend} is not installed; run: pip install 'folkmoot[sim,cluster]'")
    if address is not None:
        _knock(backend, address)
    with interrupting(), _ray(workers, address) if backend == "ray" else _dask(workers, address):
        with interrupting():  # Ray sets handlers of its own when it starts
            yield


def watched(runs: Iterator[T]) -> Iterator[T]:
    """The same results. Raises `WorkerLost` where the cluster gives up a worker that was killed or cannot be reached."""
    try:
        yield from runs
    except Exception as error:
        if not isinstance(error, _losses()):
            raise
        raise WorkerLost("a worker of the cluster died, or cannot be reached") from error


def _losses() -> tuple[type[Exception], ...]:
    """What the clusters that are in use raise for it; what a worker's own work raised is none of these."""
    found: list[type[Exception]] = []
    if "ray" in sys.modules:
        from ray import exceptions as ray

        found += [ray.RayActorError, ray.WorkerCrashedError, ray.NodeDiedError, ray.ObjectLostError]
    if "distributed" in sys.modules:
        from distributed import CommClosedError
        from distributed.scheduler import KilledWorker

        found += [CommClosedError, KilledWorker]
    return tuple(found)


def cores(workers: int | None, address: str | None) -> int | None:
    """So many workers as are of use: here one a core, which is told where more were asked for, elsewhere all of them."""
    if workers is None or address is not None:
        return workers
    here = os.cpu_count() or 1
    if workers > here:
        tell(f"--workers {workers}: this machine has {counted(here, 'core')}; no more are used")
    return min(workers, here)


def _knock(backend: str, address: str) -> None:
    """Ray tries for minutes to reach an address where nobody is; an address without a port is for it to resolve."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not host or not port.isascii() or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--backend {backend}: no cluster answers at {address}: {error}") from error


@contextlib.contextmanager
def _ray(workers: int | None, address: str | None) -> Iterator[None]:
    from folkmoot.settings import environment

    local = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray listen on loopback only
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with contextlib.ExitStack() as ending:
        ending.enter_context(contextlib.redirect_stdout(sys.stderr))
        # Ray reads these when it is imported, and its processes when they start.
        ending.enter_context(environment(RAY_USAGE_STATS_ENABLED="0", **({} if address else local)))
        import joblib
        import ray
        from ray.util.joblib.ray_backend import RayBackend

        # Its pool calls back as results come in, which is all that joblib needs to yield them.
        backend = type("Backend", (RayBackend,), {"supports_return_generator": True})
        logging.getLogger("ray").setLevel(logging.ERROR)
        quiet: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": False,
        }
        if not address:
            # Its sockets' paths must stay below 108 bytes, which a user's own folder for such files may not leave room for.
            folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="folkmoot-ray-", dir="/tmp"))
            quiet |= {"num_cpus": workers, "include_dashboard": False, "_temp_dir": folder}
        ending.callback(ray.shutdown)
        try:
            ray.init(address=address or "local", **quiet)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            where, why = f"answers at {address}" if address else "starts here", str(error).partition("\n")[0]
            raise ConfigError(f"--backend ray: no cluster {where}: {why}") from error
        joblib.register_parallel_backend("folkmoot-ray", backend)
        with joblib.parallel_config(backend="folkmoot-ray"):
            yield


@contextlib.contextmanager
def _dask(workers: int | None, address: str | None) -> Iterator[None]:
    import dask
    import joblib
    from distributed import Client, LocalCluster, Security

    # What a worker says last may find the connection closed, and nobody waits for it. What matters is raised.
    for each in ("distributed", "asyncio", "tornado"):
        logging.getLogger(each).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as ending:
        security = None  # an existing cluster's is in Dask's own settings
        if address:
            found: Any = address
        else:
            # Whoever may talk to it may run code in it: only who has the key that is made here, in memory, for this run.
            security = Security.temporary()
            folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="folkmoot-dask-"))
            no_pages: dict[str, Any] = {
                f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")
            }
            ending.enter_context(dask.config.set({"temporary-directory": folder, **no_pages}))
            found = ending.enter_context(
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
                    dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
                    local_directory=folder, silence_logs=logging.CRITICAL, security=security,
                )
            )  # fmt: skip
        try:
            ending.enter_context(Client(found, security=security))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--backend dask: no cluster answers at {found}: {error}") from error
        with joblib.parallel_config(backend="dask"):
            yield
