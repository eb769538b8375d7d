"""What came of each prompt in each arm: lines of JSON that grow while a run goes on, and are taken up again after it stops."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from folkmoot.errors import EvalError
from folkmoot.evals.jobs import Job, latency_s

LINES, PACKED, SETUP = "records.jsonl", "records.jsonl.xz", "run.json"
"""What a run's folder holds; the second is small enough to be committed."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run asks of whom: a device's model each, the sets and how many prompts of each, whose prompts they are.

    `origin` is a device's number, None where the devices take turns. With `pace` > 0 stored answers took that many times as
    long as they once took, and `wall_s` of the records is a measurement. `speed`: tokens a second read and written, by which
    what a call took is reckoned; empty: it is what it took when it was made. `digests` are the files' contents (`tasks.digest`);
    a run of an older Folkmoot has none. `rate` > 0: prompts came at random, so many a second over all devices, in the model's seconds.
    `command` makes the run again.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    prompts: int
    seed: int
    origin: int | None
    pace: float
    command: str
    speed: tuple[float, ...] = ()
    digests: tuple[str, ...] = ()
    rate: float = 0.0

    @property
    def same(self) -> bool:
        """Whether all devices have the same model."""
        return len({*self.models}) == 1


@dataclass(frozen=True, slots=True)
class Record:
    """A task in an arm. `given` is what the answer gives (empty: nothing that can be compared), `right` whether it is the target.

    `wall_s` is what it took here, seconds, where stored answers come at once; `at_s` when it came, since the first of its arm. `error` is an error's code where there is no answer.
    """

    task: str
    group: str
    arm: str
    origin: str
    answer: str
    given: str
    right: bool
    wall_s: float
    jobs: tuple[Job, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    error: str = ""
    at_s: float = 0.0

    @property
    def set(self) -> str:
        """The set of its task."""
        return self.task.partition("/")[0]

    @property
    def latency_s(self) -> float:
        """Seconds that the prompt takes where each job takes what it once took and devices have nothing else to do."""
        return latency_s(self.jobs, self.decisions)


@dataclass
class Records:
    """The records of one run. `path` is its file of lines."""

    path: Path
    _there: dict[tuple[str, str], Record] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Records:
        """Take up what is there. Raises `EvalError` where it holds something else.

        What was cut off in the middle of a line is left out here and stays there: a run that is under way may be writing it.
        """
        found = cls(path)
        try:
            text = _lines(path)[0].decode()
        except UnicodeDecodeError as error:
            raise EvalError(f"{path} cannot be read: {error}") from error
        # An answer may hold signs that `splitlines` takes for the end of a line.
        for record in _read(text.split("\n")[:-1], path):
            found._there[record.task, record.arm] = record
        return found

    def mend(self) -> None:
        """Drop what was cut off in the middle of a line; for who is about to add. Raises `EvalError`."""
        whole, cut = _lines(self.path)
        if cut:
            try:
                with self.path.open("r+b") as file:
                    file.truncate(len(whole))
            except OSError as error:
                raise EvalError(f"{self.path} cannot be mended: {error.strerror}") from error

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether this task was run in this arm."""
        return key in self._there

    def __iter__(self) -> Iterator[Record]:
        return iter(self._there.values())

    def __len__(self) -> int:
        return len(self._there)

    def add(self, record: Record) -> None:
        """Keep one more, at once."""
        line = json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise EvalError(
                f"{self.path} cannot be written: {error.strerror}; make room, or name another --out"
            ) from error
        self._there[record.task, record.arm] = record


def begin(folder: Path, setup: Setup) -> Records:
    """The records of a folder, which is made where it is not there.

    Raises `EvalError` where it holds those of another run: of other models, sets or seed. More prompts and arms may be asked for.
    """
    before = read_setup(folder) if (folder / SETUP).exists() else None
    if before is not None and not _goes_on(before, setup):
        raise EvalError(
            f"{folder} holds a run with {', '.join(before.models)} on {', '.join(before.sets)}, which is another one "
            "(models, sets or their contents, --seed, --origin, --pace, --speed or --rate differ); name another --out"
        )
    try:
        write_setup(folder, setup)
    except OSError as error:
        raise EvalError(f"{folder} cannot be written: {error.strerror}; name another --out") from error
    records = Records.open(folder / LINES)
    records.mend()
    return records


def _goes_on(before: Setup, setup: Setup) -> bool:
    digests = before.digests or setup.digests
    return replace(before, prompts=setup.prompts, command=setup.command, digests=digests) == setup


def write_setup(folder: Path, setup: Setup) -> None:
    """Say in a folder what its run asks; what it said before is there until the new one is whole. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (SETUP + ".part")
    part.write_text(json.dumps(asdict(setup), indent=1, ensure_ascii=False) + "\n", "utf-8")
    part.replace(folder / SETUP)


def read_setup(folder: Path) -> Setup:
    """What a folder's run asked. Raises `EvalError` where it holds none."""
    try:
        row = json.loads((folder / SETUP).read_text("utf-8"))
        return Setup(
            **{
                **row,
                "models": tuple(row["models"]),
                "sets": tuple(row["sets"]),
                "speed": tuple(row.get("speed", ())),
                "digests": tuple(row.get("digests", ())),
            }
        )
    except FileNotFoundError:
        raise EvalError(
            f"{folder} holds no {SETUP}: name the folder of a run (`folkmoot eval run --out`)"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EvalError(f"{folder / SETUP} says nothing of a run: {error}") from error


def pack(records: Iterable[Record], path: Path) -> None:
    """Write them compressed, in the order of their tasks and arms, so that the same records are the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with lzma.open(part, "wt", encoding="utf-8") as file:
        for record in sorted(records, key=lambda each: (each.task, each.arm)):
            file.write(json.dumps(asdict(record), ensure_ascii=False, sort_keys=True) + "\n")
    part.replace(path)


def load(folder: Path) -> list[Record]:
    """The records of a folder, packed or not. Raises `EvalError` where there are none."""
    lines, packed = folder / LINES, folder / PACKED
    if lines.exists():
        return list(Records.open(lines))
    try:
        with lzma.open(packed, "rt", encoding="utf-8") as file:
            return list(_read(file, packed))
    except FileNotFoundError:
        raise EvalError(
            f"{folder} holds no {LINES}: name the folder of a run (`folkmoot eval run --out`)"
        ) from None
    except (lzma.LZMAError, OSError, EOFError, UnicodeDecodeError) as error:
        raise EvalError(f"{packed} holds no records: {error}") from error


def _lines(path: Path) -> tuple[bytes, bytes]:
    """A file's whole lines, and what stands behind them; nothing where it is not there."""
    try:
        text = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise EvalError(f"{path} cannot be read: {error}") from error
    end = text.rfind(b"\n") + 1
    return text[:end], text[end:]


def _read(lines: Iterable[str], path: Path) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        try:
            yield _record(json.loads(line))
        except (TypeError, ValueError, KeyError) as error:
            raise EvalError(f"{path}, line {number} is no record: {error}") from error


def _record(row: Mapping[str, Any]) -> Record:
    jobs = tuple(Job(**job) for job in row["jobs"])
    decisions = tuple((str(what), str(why)) for what, why in row["decisions"])
    fields = {
        name: value for name, value in row.items() if name != "latency_s"
    }  # which was once kept, too small
    return Record(**{**fields, "jobs": jobs, "decisions": decisions})
