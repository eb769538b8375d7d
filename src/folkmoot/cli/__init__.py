"""The command line: one file per subcommand, put together here."""

from __future__ import annotations

import logging
import sys

import click

from folkmoot import __version__
from folkmoot.cli import exits
from folkmoot.cli.ask import ask
from folkmoot.cli.config import config
from folkmoot.cli.demo import demo
from folkmoot.cli.doctor import doctor
from folkmoot.cli.eval import evaluate
from folkmoot.cli.forget import forget
from folkmoot.cli.invite import invite
from folkmoot.cli.key import key
from folkmoot.cli.leave import leave
from folkmoot.cli.load import load
from folkmoot.cli.members import members
from folkmoot.cli.models import models
from folkmoot.cli.plan import plan
from folkmoot.cli.rotate import rotate
from folkmoot.cli.simulate import simulate
from folkmoot.cli.status import status
from folkmoot.cli.sweep import sweep
from folkmoot.cli.theory import theory
from folkmoot.cli.up import up
from folkmoot.cli.validate import validate

__all__ = ["group", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="folkmoot")
@click.option("--debug", is_flag=True, help="Log everything; show a traceback where something fails.")
def group(debug: bool) -> None:
    """Let your machines' language models answer together."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


for command in (
    up,
    invite,
    members,
    leave,
    rotate,
    key,
    forget,
    status,
    ask,
    demo,
    theory,
    simulate,
    sweep,
    validate,
    plan,
    load,
    evaluate,
    models,
    doctor,
    config,
):
    group.add_command(command)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    debug = "--debug" in sys.argv[1:]
    sys.exit(exits.run(lambda: group.main(prog_name="folkmoot", standalone_mode=False), debug=debug))
