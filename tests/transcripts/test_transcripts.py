"""Scenarios and their full traces as text. `pytest tests/transcripts --rewrite` writes the traces anew.

A line that begins with `> ` is a command, what follows it is everything that it caused: messages between devices,
work for engines, notices for users. Read the difference, and commit it only if you understand it.

    > devices NAME=MODEL …        the moot; MODEL is empty for a requester
    > ask NAME [M] [k] [OPTION=VALUE …]
    > write NAME TEXT             its engine writes the whole answer of the job in service
    > half NAME TEXT              … the beginning of it
    > break NAME                  its engine gives the job up
    > kill NAME                   the device is gone and the others have heard so
    > withdraw NAME               the user of NAME takes the newest prompt back
    > lose NAME                   from now on nothing reaches NAME or comes from it
    > wait SECONDS
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.core.world import GOSSIP, Moot

from folkmoot.core.events import (
    Abort,
    Announce,
    Chill,
    Effect,
    Generate,
    MemberChanged,
    Plan,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Send,
    Warm,
    Withdrawn,
)
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import Prepare

FOLDER = Path(__file__).parent
SCENARIOS = sorted(path.name for path in FOLDER.glob("*.txt"))


class Teller:
    """Runs commands and tells what they cause."""

    def __init__(self) -> None:
        self.moot = Moot({})
        self.prompts: list[PromptId] = []
        self.deaf: list[str] = []

    def run(self, command: str) -> list[str]:
        verb, *words = command.split()
        rest = command.split(maxsplit=2)[2] if len(words) > 1 else ""
        match verb:
            case "devices":
                pairs = (word.split("=") for word in words)
                self.moot = Recorder({name: model for name, model in pairs})
                self.moot.lost = lambda sender, to, message: sender in self.deaf or to in self.deaf
            case "ask":
                numbers = [int(word) for word in words[1:] if word.isdigit()]
                options = dict(word.split("=") for word in words[1:] if "=" in word)
                self.prompts.append(self.moot.ask(words[0], plan(numbers, options)))
            case "write":
                self.moot.write(words[0], rest)
            case "half":
                self.moot.write(words[0], rest, whole=False)
            case "break":
                self.moot.break_engine(words[0])
            case "kill":
                self.moot.kill(words[0])
            case "withdraw":
                self.moot.tell(words[0], Withdrawn(self.prompts[-1]))
                self.moot.deliver()
            case "lose":
                self.deaf.append(words[0])
            case "wait":
                self.moot.pass_time(float(words[0]))
            case _:
                raise AssertionError(f"no command is called {verb}")
        assert isinstance(self.moot, Recorder)
        lines, self.moot.lines = self.moot.lines, []
        for number, prompt in enumerate(self.prompts, 1):
            lines = [line.replace(prompt, f"p{number}") for line in lines]
        return lines


class Recorder(Moot):
    """A moot that writes down what its devices do."""

    def __init__(self, models: dict[str, str]) -> None:
        self.lines: list[str] = []
        super().__init__(models)

    def _owe(self, me: DeviceId, effects: list[Effect]) -> None:
        self.lines += [line for effect in effects if (line := told(me, effect))]
        super()._owe(me, effects)


def told(me: str, effect: object) -> str | None:
    """One line about an effect; gossip and progress are left out."""
    match effect:
        case Send(to=to, message=Prepare(inference=inference)):
            return f"{me} -> {to}: Prepare with {len(inference.answers)} answers"
        case Send(to=to, message=message) if type(message).__module__ != GOSSIP:
            fields = {
                name: getattr(message, name)
                for name in type(message).__dataclass_fields__
                if name not in ("inference", "prompt", "usage", "hops", "truncated")
            }
            shown = " ".join(f"{key}={value}" for key, value in fields.items())
            return f"{me} -> {to}: {type(message).__name__} {shown}"
        case Generate(job=job, inference=inference):
            return f"{me} engine: run {job} on {list(inference.answers)}"
        case Abort(job=job):
            return f"{me} engine: stop {job}"
        case Warm(inference=inference):
            return f"{me} engine: prefill with {len(inference.answers)} answers"
        case Chill():
            return f"{me} engine: stop prefilling"
        case Announce(notice=PromptAccepted(layers=layers, proposers=proposers)):
            return f"{me} user: accepted, M={layers} k={proposers}"
        case Announce(notice=PromptAnswered(answer=answer, provenance=provenance)):
            jobs = ", ".join(f"{job.device} {job.outcome}" for job in provenance.jobs)
            return f"{me} user: answered {answer!r} by {jobs}"
        case Announce(notice=PromptFailed(code=code, detail=detail)):
            return f"{me} user: failed, {code}: {detail}"
        case Announce(notice=MemberChanged(member=member)):
            return f"{me} knows: {member.device} is {member.standing.name.lower()}"
        case _:
            return None


def plan(numbers: list[int], options: dict[str, str]) -> Plan:
    """A plan from a command's words."""
    if not numbers:
        return Plan()
    select = tuple(options["select"].split("+")) if "select" in options else ()
    return Plan(
        mode="fixed",
        layers=numbers[0],
        proposers=numbers[1] if len(numbers) > 1 else None,
        select=select,
        aggregator=options.get("aggregator", "origin"),
        quorum=int(options.get("quorum", "0")),
    )


def retold(text: str) -> str:
    """The scenario with its trace made anew."""
    teller, lines = Teller(), []
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *(f"    {each}" for each in teller.run(line[2:]))]
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_transcript(name: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / name
    text = path.read_text(encoding="utf-8")
    anew = retold(text)
    if request.config.getoption("--rewrite"):
        path.write_text(anew, encoding="utf-8")
    else:
        assert text == anew


def test_there_are_transcripts() -> None:
    assert len(SCENARIOS) >= 6
