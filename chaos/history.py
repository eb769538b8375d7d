"""What happened, one JSON object a line: it is written while it happens and is all that the checker reads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class History:
    """A file that grows by a line for each thing that happens. `at` is in seconds since the beginning."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def note(self, what: str, **told: Any) -> None:
        """Write down what happened just now."""
        self._file.write(json.dumps({"at": round(self.now, 4), "what": what, **told}) + "\n")

    def close(self) -> None:
        """Nothing more happens."""
        self._file.close()


def read(path: Path) -> Iterator[Entry]:
    """The entries of a history, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
