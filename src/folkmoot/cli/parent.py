"""A device process that must not outlive the program that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from folkmoot.errors import NodeError

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when process `parent` ends. Raises `NodeError` if it has ended already.

    Linux only; elsewhere the parent's own clean-up must do.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise NodeError(f"process {parent}, which started this device, has ended")
