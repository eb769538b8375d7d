"""What came of each prompt in each arm: lines of JSON that grow while a run goes on, and are taken up again after it stops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folkmoot.errors import EvalError
from folkmoot.evals.jobs import Job, latency_s
from folkmoot.evals.lines import Lines
from folkmoot.evals.store import Speed

LINES, PACKED, SETUP = "records.jsonl", "records.jsonl.xz", "run.json"
"""What a run's folder holds; the second is small enough to be committed."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run asks of whom: a device's model each, the sets and how many prompts of each, whose prompts they are.

    `origin` is a device's number, None where one is drawn for each task. With `pace` > 0 stored answers took that many times as
    long as they once took, and `wall_s` of the records is a measurement. `speed`: tokens a second read and written, by which
    what a call took is reckoned; empty: it is what it took when it was made. `digests` are the files' contents (`tasks.digest`);
    a run of an older Folkmoot has none. So many of each set's first prompts are left out as `skip` says. `rate` > 0: prompts came at random, so many a second over all devices, in the model's seconds.
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
    skip: int = 0

    @property
    def same(self) -> bool:
        """Whether all devices have the same model."""
        return len({*self.models}) == 1


@dataclass(frozen=True, slots=True)
class Record:
    """A task in an arm. `given` is what the answer gives (empty: nothing that can be compared), `right` whether it is the target, None
    where no program can tell.

    `wall_s` is what it took here, seconds, where stored answers come at once; `at_s` when it came, since the first of its arm. `error` is an error's code where there is no answer.
    """

    task: str
    group: str
    arm: str
    origin: str
    answer: str
    given: str
    right: bool | None
    wall_s: float
    jobs: tuple[Job, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    error: str = ""
    at_s: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Its task and arm."""
        return self.task, self.arm

    @property
    def set(self) -> str:
        """The set of its task."""
        return self.task.partition("/")[0]

    def at(self, speeds: Mapping[str, Speed]) -> Record:
        """The same record with its jobs as devices of these speeds do them, by model; those of other models as they are."""
        return replace(self, jobs=tuple(job.at(speeds.get(job.model)) for job in self.jobs))

    @property
    def latency_s(self) -> float:
        """Seconds that the prompt takes where each job takes what it once took and devices have nothing else to do."""
        return latency_s(self.jobs, self.decisions)


class Records(Lines[Record]):
    """The records of one run."""

    @staticmethod
    def parse(row: Mapping[str, Any]) -> Record:
        """A record of its fields."""
        jobs = tuple(Job(**job) for job in row["jobs"])
        decisions = tuple((str(what), str(why)) for what, why in row["decisions"])
        fields = {
            name: value for name, value in row.items() if name != "latency_s"
        }  # which was once kept, too small
        return Record(**{**fields, "jobs": jobs, "decisions": decisions})


def begin(folder: Path, setup: Setup) -> Records:
    """The records of a folder, which is made where it is not there.

    Raises `EvalError` where it holds those of another run: of other models, sets or seed. More prompts and arms may be asked for.
    """
    before = read_setup(folder) if (folder / SETUP).exists() else None
    if before is not None and not _goes_on(before, setup):
        raise EvalError(
            f"{folder} holds a run with {', '.join(before.models)} on {', '.join(before.sets)}, which is another one "
            "(models, sets or their contents, --seed, --skip, --origin, --pace, --speed or --rate differ); name another --out"
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


def load(folder: Path) -> list[Record]:
    """The records of a folder, packed or not. Raises `EvalError` where there are none."""
    lines = folder / LINES
    try:
        return list(Records.open(lines) if lines.exists() else Records.unpack(folder / PACKED))
    except FileNotFoundError:
        raise EvalError(
            f"{folder} holds no {LINES}: name the folder of a run (`folkmoot eval run --out`)"
        ) from None
