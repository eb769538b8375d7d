"""The supervised child: llama.cpp's server on loopback, and nothing that outlives its parent.

Started by `folkmoot.engine.child`; not for people. Arguments: model, port, threads, context tokens of
a slot, slots, batch tokens, parent's pid. The first line of stdin is the key that requests must carry;
the end of stdin, like the parent's death, ends the child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading

EXIT_PORT = 3
EXIT_MODEL = 4
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Serve until killed, or until the parent is gone."""
    model, *numbers = arguments
    port, threads, context, slots, batch, parent = map(int, numbers)
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    key = sys.stdin.readline().strip()
    if port and not _free(port):
        _end(EXIT_PORT, f"port {port} is taken")
    if not os.path.isfile(model):
        _end(EXIT_MODEL, f"no file {model}")

    let_threads_sleep()
    from xllamacpp.xllamacpp import CommonParams, Server

    settings = CommonParams()
    settings.model.path = model
    settings.port = port
    settings.api_keys = [key]
    settings.n_ctx = context * slots  # split over the slots
    settings.n_parallel = slots
    settings.kv_unified = False
    settings.n_batch = settings.n_ubatch = batch
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.cache_ram_mib = 0
    settings.cache_idle_slots = False
    settings.fit_params = False
    settings.endpoint_slots = True
    settings.verbosity = -1
    settings.warmup = False
    settings.ui = False
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        server = Server(settings)
    except RuntimeError as error:
        _end(EXIT_MODEL, str(error))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # sys.exit hangs while a request runs
    sys.stdout.write(f"READY {server.listening_address}\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def let_threads_sleep() -> None:
    """Let the model's threads sleep while they wait for each other. OpenMP looks when it is loaded, and never again.

    By default they spin: beside one busy process on two cores two of them then wrote 3 tokens/s instead of 24;
    at rest both ways are as fast.
    """
    os.putenv("OMP_WAIT_POLICY", "PASSIVE")


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death, where there is such a thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _end(status: int, why: str) -> None:
    sys.stderr.write(f"{why}\n")
    sys.stderr.flush()
    os._exit(status)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    main(sys.argv[1:])
