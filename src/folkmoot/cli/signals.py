"""The signals that end a command in good order."""

from __future__ import annotations

import signal


def ending() -> tuple[signal.Signals, ...]:
    """What asks a program to end beside Ctrl-C: SIGTERM, and SIGHUP as a terminal sends that is closed."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)  # nohup: whoever started this wants it to outlive the terminal
    return (signal.SIGTERM, signal.SIGHUP)
