"""Tasks: GSM8K, BIG-Bench-Hard and IFEval, whose answers a program can check, and open ones, which a judge looks at (`judging`).

GSM8K is right by its number, BIG-Bench-Hard by exact match, IFEval by its own program. Open are AlpacaEval, MT-Bench and FLASK.

The files are lines of JSON, gzipped or not, such as the originals of GSM8K (`#### N` ends a solution), IFEval, MT-Bench and FLASK, or
the originals of BIG-Bench-Hard (a `.json` file with `examples`, or a folder of them) and AlpacaEval (a list). What is asked of the
model is fixed here, so that every arm of an evaluation asks in the same words. What counts as right is written apart from what the
moot itself compares answers by (`core.extract`): an arm is not judged by its own eyes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, TextIO

from folkmoot.core.messages import Turn
from folkmoot.errors import EvalError
from folkmoot.evals.instructions import Instructions, checked, follows

GSM8K_TOKENS, BBH_TOKENS, IFEVAL_TOKENS, OPEN_TOKENS = 256, 96, 300, 1000

CHECKED, OPEN = ("gsm8k", "bbh", "ifeval"), ("alpaca", "mtbench", "flask")
"""The sets that a program can check, and those that it cannot."""

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_ANSWER = re.compile(r"answer\s*(?:is)?\s*[:=]?", re.IGNORECASE)
_LETTER = re.compile(r"\(([A-Z])\)")
_BARE = re.compile(r"^([A-Z])\b")


@dataclass(frozen=True, slots=True)
class Open:
    """What is known of an answer that no program can check: an answer to compare it with, and FLASK's skills to look at."""

    reference: str = ""
    skills: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One question. `name` names it in all records, `group` is what it belongs to (a BIG-Bench task); `max_tokens` caps an answer.

    It is asked after `before`, if there is one (MT-Bench has two turns), and `said` is what was then said.
    """

    name: str
    group: str
    question: str
    target: str | Instructions | Open
    max_tokens: int
    before: Task | None = None
    said: tuple[Turn, ...] = ()

    @property
    def set(self) -> str:
        """The set that it comes from."""
        return self.name.partition("/")[0]

    @property
    def open(self) -> bool:
        """Whether no program can check its answers."""
        return isinstance(self.target, Open)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation."""
        return (*self.said, Turn("user", self.question))

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation, as OpenAI's API takes it."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]

    def after(self, answer: str) -> Task:
        """The same question in the conversation in which the one before it had this answer."""
        assert self.before is not None
        return replace(self, said=(Turn("user", self.before.question), Turn("assistant", answer)))

    def right(self, answer: str) -> bool | None:
        """Whether a text gives the target, or does all that IFEval asks; None where a program cannot tell."""
        if isinstance(self.target, Open):
            return None
        if isinstance(self.target, Instructions):
            return follows(self.target, answer)
        given = self.given(answer)
        return bool(given) and given == self.given(f"Answer: {self.target}")

    def given(self, answer: str) -> str:
        """What a text gives for its answer, so that two can be compared; empty where it gives none, as all of IFEval's
        and of open tasks do."""
        return "" if isinstance(self.target, Instructions | Open) else _GIVEN[self.set](self.target, answer)


def load(path: Path, count: int | None = None, *, seed: int = 0, skip: int = 0) -> list[Task]:
    """The tasks of a file in an order drawn once for all with `seed`: the first `count` of them behind `skip` others.

    A question of two turns is two tasks that stand behind one another, and is counted once. Raises `EvalError` where the file is missing or of no set that is known.
    """
    found = [_turns(row, path, number) for number, row in enumerate(rows(path), start=1)]
    Random(f"{seed} {found[0][0].set if found else ''}").shuffle(found)
    return [task for turns in found[skip : None if count is None else skip + count] for task in turns]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, or of a folder of them, in their order. Raises `EvalError`."""
    if path.is_dir():
        files = _parts(path)
        if not files:
            raise EvalError(
                f"{path} holds no .json files: name a file of tasks, or the folder of BIG-Bench-Hard's"
            )
        for part in files:
            yield from rows(part)
        return
    try:
        with _opened(path) as file:
            if path.name.removesuffix(".gz").endswith(".json"):
                yield from _examples(json.load(file), path)
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise EvalError(f"{path}, line {number}: no object")
                    yield row
    except FileNotFoundError:
        raise EvalError(f"{path} is not there: name a file of tasks") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise EvalError(f"{path} holds no tasks as JSON: {error}") from error


def pooled(sets: Iterable[Sequence[Task]]) -> list[Task]:
    """The tasks of several files; one that stands in two of them is asked once.

    Raises `EvalError` where two different ones have the same name, as then a record of one would be taken for the other's.
    """
    found: dict[str, Task] = {}
    for task in (task for some in sets for task in some):
        if found.setdefault(task.name, task) != task:
            raise EvalError(
                f"two tasks are called {task.name} and are not the same; take the ids out of one file, or run it with another --out"
            )
    return list(found.values())


def digest(path: Path) -> str:
    """Names a file of tasks, or a folder of them, by its content, gzipped or not. Raises `EvalError`."""
    whole = hashlib.sha256()
    try:
        for part in _parts(path) if path.is_dir() else [path]:
            raw = part.read_bytes()
            whole.update(gzip.decompress(raw) if part.suffix == ".gz" else raw)
    except (OSError, EOFError, zlib.error) as error:
        raise EvalError(f"{path} cannot be read: {error}") from error
    return whole.hexdigest()[:16]


def _parts(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.name.endswith((".json", ".json.gz")))


def _opened(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _examples(whole: object, path: Path) -> Iterator[dict[str, Any]]:
    """One file of the original BIG-Bench-Hard, whose name is its task's, or of AlpacaEval, a list."""
    found = whole.get("examples") if isinstance(whole, dict) else whole
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise EvalError(f"{path} holds no list of `examples`: it is no file of BIG-Bench-Hard")
    for at, row in enumerate(found):
        yield {"task": path.name.partition(".")[0], "id": at, **row}


def _hash(question: object) -> str:
    """Names a task of a file without ids, wherever it stands in whichever file."""
    return hashlib.sha256(str(question).encode()).hexdigest()[:10]


def _turns(row: dict[str, Any], path: Path, number: int) -> list[Task]:
    """The task of a row, or those of its turns."""
    where = f"{path}, line {number}"
    if "turns" not in row:
        return [_task(row, path, where)]
    turns, references = row["turns"], row.get("reference") or []
    if not isinstance(turns, list) or not turns or not isinstance(references, list):
        raise EvalError(f"{where}: `turns` and `reference` of MT-Bench are lists of texts")
    name, group = f"mtbench/{row.get('question_id', _hash(turns))}", str(row.get("category", "mtbench"))
    found: list[Task] = []
    for place, question in enumerate(map(str, turns)):
        target = Open(str(references[place]) if place < len(references) else "")
        before = found[-1] if found else None
        found.append(
            Task(f"{name}/{place + 1}" if place else name, group, question, target, OPEN_TOKENS, before)
        )
    return found


def _task(row: dict[str, Any], path: Path, where: str) -> Task:
    if {"text", "metrics"} <= row.keys():
        skills = row["metrics"]
        if not isinstance(skills, list) or not skills:
            raise EvalError(f"{where}: `metrics` of FLASK is a list of skills")
        target = Open(str(row.get("answer") or ""), tuple(map(str, skills)))
        name = f"flask/{row.get('question_id', _hash(row['text']))}"
        return Task(name, str(row.get("task", "flask")), str(row["text"]), target, OPEN_TOKENS)
    if "instruction" in row:
        name = f"alpaca/{row.get('id', _hash(row['instruction']))}"
        return Task(name, str(row.get("dataset", "alpaca")), str(row["instruction"]), Open(), OPEN_TOKENS)
    if {"question", "answer"} <= row.keys():
        # The original has the whole solution in `answer`, its number behind four signs.
        number = str(row["answer"]).rpartition("####")[2].strip()
        if not _NUMBER.fullmatch(number):
            raise EvalError(f"{where}: the answer {number[:40]!r} is no number")
        name = f"gsm8k/{row.get('id', _hash(row['question']))}"
        return Task(name, "gsm8k", f"{row['question']}\n\n{_GSM8K_ASKS}", number, GSM8K_TOKENS)
    if {"input", "target"} <= row.keys():
        group = str(row.get("task", path.name.partition(".")[0]))
        name = f"bbh/{group}/{row.get('id', _hash(row['input']))}"
        return Task(name, group, f"{row['input']}\n\n{_BBH_ASKS}", str(row["target"]).strip(), BBH_TOKENS)
    if {"prompt", "instruction_id_list", "kwargs"} <= row.keys():
        name = f"ifeval/{row.get('key', _hash(row['prompt']))}"
        asks = checked(where, row["prompt"], row["instruction_id_list"], row["kwargs"])
        return Task(name, "ifeval", asks.prompt, asks, IFEVAL_TOKENS)
    raise EvalError(
        f"{where}: fields {', '.join(sorted(row))} are of no set that is known (GSM8K, BIG-Bench-Hard, IFEval, AlpacaEval, MT-Bench, "
        "FLASK)"
    )


_GSM8K_ASKS = 'Work it out step by step, in few words. End with a line of the form "Answer: NUMBER".'
_BBH_ASKS = 'Think in one or two short sentences, then end with a line of the form "Answer: ..." that holds nothing but the answer.'


def said(answer: str) -> str:
    """What stands behind the last "answer" of a text, on its line; nothing where the word is missing."""
    ends = [found.end() for found in _ANSWER.finditer(answer)]
    return answer[ends[-1] :].strip().partition("\n")[0].strip(" *_`\"'.") if ends else ""


def _number(target: str, answer: str) -> str:
    """Behind the last equals sign of what is said, where a number stands there; else the first of what is said."""
    line = said(answer)
    numbers = (
        _NUMBER.findall(line.rpartition("=")[2]) or _NUMBER.findall(line) or _NUMBER.findall(answer)[-1:]
    )
    return repr(_value(numbers[0])) if numbers else ""


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("$", ""))


def _choice(target: str, answer: str) -> str:
    """Where the target is a letter the letter that an answer gives, else its words."""
    given = said(answer) or answer.strip().rpartition("\n")[2].strip(" *_`\"'.")
    found = _LETTER.findall(given) or _BARE.findall(given) if _LETTER.fullmatch(target) else []
    return f"({found[0]})" if found else _plain(given)


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace(",", " ").split())


_GIVEN: dict[str, Callable[[str, str], str]] = {"gsm8k": _number, "bbh": _choice}
"""What an answer gives; of the target its form alone counts."""


def groups(tasks: Sequence[Task]) -> dict[str, int]:
    """How many tasks of each group there are."""
    found: dict[str, int] = {}
    for task in tasks:
        found[task.group] = found.get(task.group, 0) + 1
    return found
