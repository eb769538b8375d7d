"""What this device has seen of its peers' answers, kept between starts: ids and figures, no words of anybody."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from folkmoot.core import record
from folkmoot.core.ids import DeviceId
from folkmoot.core.record import Row
from folkmoot.core.repute import MOST_DEVICES, Books
from folkmoot.errors import NodeError
from folkmoot.node import storage

FILE = "repute.json"
ASIDE = "repute.json.damaged"
KEEP_S = 180.0
"""How often what has changed is written down (guess): a kill forgets so much."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What stands in the file: whose books they are, as of when (seconds since 1970), and the books.

    `hidden` is what hidden questions have shown of cards, `agreed` what their votes have.
    """

    version: int
    device: DeviceId
    at: float
    books: Books
    hidden: tuple[Row, ...] = ()
    agreed: tuple[Row, ...] = ()


def load(home: Path, me: DeviceId) -> Ledger | None:
    """The books as they were written last; None where there are none.

    They are not worth a failed start: a damaged file, or another device's, is set aside with one line in the log.
    """
    path = home / FILE
    try:
        ledger = storage.load(path, Ledger, "it holds no ledger")
    except NodeError as error:
        trouble = str(error)
    else:
        if ledger is None:
            return None
        if ledger.device == me and ledger.version == 1 and _fits(ledger):
            return ledger
        trouble = f"{path} is not of this device, or of another version"
    log.warning("%s; it is set aside as %s, and what was seen of peers' answers is forgotten", trouble, ASIDE)
    with contextlib.suppress(OSError):
        path.replace(path.with_name(ASIDE))
    return None


def write(home: Path, ledger: Ledger) -> None:
    """Write the books down; waits for the disk. Raises NodeError; what was there before is kept then."""
    storage.save(home / FILE, ledger)


def forget(home: Path) -> None:
    """Delete the books: their devices are of a moot that was left. Raises NodeError."""
    for name in (FILE, ASIDE):
        storage.remove(home / name)


def _fits(ledger: Ledger) -> bool:
    most = max(len(ledger.books.judged), len(ledger.books.timed))
    rows = ledger.hidden, ledger.agreed
    few = max(map(len, rows)) <= record.MOST_DEVICES * record.MOST_MODELS
    sound = ledger.books.plausible and all(row.plausible for row in (*rows[0], *rows[1]))
    return ledger.at >= 0.0 and most <= MOST_DEVICES and few and sound
