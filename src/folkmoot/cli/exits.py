"""Exit codes: one table from errors, and the one place where a command's failure is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from folkmoot.errors import (
    ConfigError,
    DeadlinePassed,
    FolkmootError,
    NodeError,
    PromptInvalid,
    TheoryError,
    WaitedTooLong,
)

T = TypeVar("T")

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

CODES: dict[type[FolkmootError], int] = {
    ConfigError: USAGE,
    PromptInvalid: USAGE,
    TheoryError: USAGE,
    FolkmootError: FAILED,
}
"""The first class that an error is one of decides."""

MEANINGS: dict[int, str] = {
    DONE: "Done.",
    FAILED: "It failed; one line on stderr says why and what to do.",
    USAGE: "Wrong usage: a flag, an argument, a setting or a parameter of the prompt.",
    INTERRUPTED: "Interrupted, by Ctrl-C for example; nothing is left behind.",
}

REMEDIES: dict[type[FolkmootError], str] = {
    DeadlinePassed: "raise --deadline, or ask fewer devices with -M or -k",
    WaitedTooLong: "the devices are busy: try again later",
}
"""What helps on the command line, where the error itself knows of no flags."""


class Interrupted(Exception):
    """A command was interrupted and has cleaned up; the text says in a word what became of it."""


def code_of(error: FolkmootError) -> int:
    """The exit code of an error."""
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Raises `Interrupted` where a signal ended it."""
    try:
        return asyncio.run(work)
    except (KeyboardInterrupt, asyncio.CancelledError):
        end_line()
        raise Interrupted("cancelled") from None


def run(command: Callable[[], object], *, debug: bool) -> int:
    """Run a command to its exit code; a failure is one line on stderr, with `debug` a traceback."""
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is told here, not by the interpreter at its end
    except FolkmootError as error:
        if debug:
            raise
        tell("; ".join([str(error), *(REMEDIES[kind] for kind in REMEDIES if isinstance(error, kind))]))
        return code_of(error)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.UsageError as error:
        more = f"; see {error.ctx.command_path} --help" if error.ctx is not None else ""
        tell(f"{error.format_message().rstrip('.')}{more}")
        return USAGE
    except click.ClickException as error:
        tell(error.format_message())
        return FAILED
    except BrokenPipeError:
        let_go_of_stdout()
        return FAILED
    except OSError as error:
        if not stdout_fails():
            raise
        tell(str(unwritable(error)))
        return FAILED
    except Interrupted as end:
        tell(str(end))
        return INTERRUPTED
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        tell("cancelled")
        return INTERRUPTED
    return DONE


def stdout_fails() -> bool:
    """Whether stdout takes nothing more, as one more empty line shows: an error of writing does not say of which file."""
    try:
        click.echo()
    except OSError:
        return True
    return False


def unwritable(error: OSError) -> NodeError:
    """What is told where stdout takes nothing more; it is let go of."""
    let_go_of_stdout()
    return NodeError(f"what it prints cannot be written: {error.strerror}; make room, or write elsewhere")


def let_go_of_stdout() -> None:
    """Whoever read it has enough; a second error at the interpreter's end would help nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(message: str) -> None:
    """One line on stderr; where that is gone, as after a closed terminal, there is nobody to tell."""
    with contextlib.suppress(OSError):
        click.echo(f"folkmoot: {' '.join(message.split())}", err=True)


def end_line() -> None:
    """Leave the line in which a terminal shows ^C."""
    if sys.stderr.isatty():
        with contextlib.suppress(OSError):
            click.echo(err=True)
