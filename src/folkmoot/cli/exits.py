"""Exit codes: one table from errors, and the one place where a command's failure is told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import click

from folkmoot.errors import ConfigError, FolkmootError, PromptInvalid

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

CODES: dict[type[FolkmootError], int] = {ConfigError: USAGE, PromptInvalid: USAGE, FolkmootError: FAILED}
"""The first class that an error is one of decides."""


class Interrupted(Exception):
    """SIGINT ended a command that had cleaned up after itself."""


def code_of(error: FolkmootError) -> int:
    """The exit code of an error."""
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


def run(command: Callable[[], object], *, debug: bool) -> int:
    """Run a command to its exit code; a failure is one line on stderr, with `debug` a traceback."""
    try:
        command()
    except FolkmootError as error:
        if debug:
            raise
        tell(str(error))
        return code_of(error)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        tell(error.format_message())
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has enough; a second error at the interpreter's end would help nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, click.Abort, Interrupted, asyncio.CancelledError):
        return INTERRUPTED
    return DONE


def tell(message: str) -> None:
    """One line on stderr."""
    click.echo(f"folkmoot: {' '.join(message.split())}", err=True)
