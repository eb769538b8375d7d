"""What must hold, whatever happened: proven from a history alone.

1. Every prompt that was sent has one end that its client saw: an answer that is whole, or one typed error. A connection may
   break without an end only where its device was killed meanwhile, and be refused only from when it was told to stop.
2. No prompt is answered twice, in one response or by two; a device tells of each prompt that it accepted one end at most, and
   where it lived on, one. What was accepted in the background has one end, whatever its device went through, and keeps it.
3. When all is quiet, no device holds a job, a prompt or an answer of which nobody knows any more.
4. No queue was ever seen above its bound.
5. A device holds at most 10 % more memory than after the first load, before the first fault.
6. All devices are one moot again, which answers at each of them; each that was told to stop ended as it should.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.devices import MAX_PROMPTS, MAX_WAITING, SLOTS
from chaos.history import Entry
from folkmoot.api.faults import STATUS

NEVER = (
    "internal",
    "no_key",
    "wrong_key",
    "foreign",
    "wrong_method",
    "body_too_large",
    "not_found",
    "invalid",
)
"""Codes that would be a bug, or an error of the client, which makes none."""
TYPED = frozenset(STATUS) - frozenset(NEVER)
MORE_MEMORY = 1.10
SLACK_S = 0.3
"""A client may see that a device is gone, or there again, so much sooner or later than it is written down."""


@dataclass
class Verdict:
    """What a history says. `wrong` holds a line for each promise that was not kept."""

    prompts: int = 0
    answered: int = 0
    typed_errors: int = 0
    left: int = 0
    cut_by_kill: int = 0
    background: int = 0
    lost: int = 0
    answered_twice: int = 0
    leaked_jobs: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    queue_max: int = 0
    memory: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass
class _Down:
    """A time in which a device was not there, and how it went: killed or stopped."""

    how: str
    begin: float
    end: float = float("inf")


def judge(entries: Iterable[Entry]) -> Verdict:
    """Read a history to its end."""
    found = list(entries)
    verdict = Verdict()
    downs = _downs(found)
    verdict.faults = dict(sorted(Counter(e["kind"] for e in found if e["what"] == "fault").items()))
    _judge_clients(found, downs, verdict)
    _judge_devices(found, verdict)
    _judge_looks(found, verdict)
    _judge_again(found, verdict)
    _judge_stops(found, verdict)
    for entry in found:
        if entry["what"] == "wrong":
            verdict.wrong.append(entry["why"])
    return verdict


def _downs(found: list[Entry]) -> dict[int, list[_Down]]:
    downs: dict[int, list[_Down]] = {}
    for entry in found:
        if entry["what"] == "down":
            downs.setdefault(entry["device"], []).append(_Down(entry["how"], entry["at"]))
        elif entry["what"] == "up" and (down := downs.get(entry["device"])):
            down[-1].end = entry["at"]
    return downs


def _judge_clients(found: list[Entry], downs: dict[int, list[_Down]], verdict: Verdict) -> None:
    sent = {e["n"]: e for e in found if e["what"] == "sent"}
    seen: dict[int, list[Entry]] = {number: [] for number in sent}
    for entry in found:
        if entry["what"] == "seen":
            seen[entry["n"]].append(entry)
    ids: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    verdict.prompts = len(sent)
    for number, ends in seen.items():
        if len(ends) != 1:
            verdict.lost += not ends
            verdict.wrong.append(f"prompt {number} has {len(ends)} ends")
            continue
        end, begin = ends[0], sent[number]["at"]
        during = [
            down for down in downs.get(end["device"], ())
            if begin - SLACK_S <= down.end and down.begin <= end["at"] + SLACK_S
        ]  # fmt: skip
        wrong = ""
        match end["end"]:
            case "answered":
                verdict.answered += 1
                ids[end["id"]] += 1
                if end["ends"] != 1 or end["after"]:
                    verdict.answered_twice += 1
                    wrong = f"has {end['ends']} ends and {end['after']} events after the first"
                elif not end["whole"]:
                    wrong = "has an answer that is not what was streamed"
            case "error":
                verdict.typed_errors += 1
                codes[end["code"]] += 1
                if end["code"] not in TYPED or end["ends"] != 1 or end["after"]:
                    wrong = (
                        f"ended with {end['code']}, {end['ends']} ends, {end['after']} events after the first"
                    )
            case "left":
                verdict.left += 1
            case "refused":
                verdict.cut_by_kill += 1
                wrong = "" if during else "was refused by a device that was there"
            case "broken":
                verdict.cut_by_kill += 1
                killed = any(down.how == "killed" for down in during)
                late = any(down.begin <= begin for down in during)  # its device was on the way out by then
                wrong = "" if killed or late else "broke off, and its device was not killed"
            case other:
                wrong = f"saw no end: {other}"
        if wrong:
            verdict.lost += end["end"] in ("hung", "broken", "refused", "nothing", "malformed")
            verdict.wrong.append(f"prompt {number}, sent at {begin:.2f} to d{end['device']}, {wrong}: {end}")
    for name, count in ids.items():
        if count > 1:
            verdict.answered_twice += 1
            verdict.wrong.append(f"{count} responses have the answer of {name}")
    verdict.codes = dict(sorted(codes.items()))
    _judge_kept(found, seen, verdict)


def _judge_kept(found: list[Entry], seen: dict[int, list[Entry]], verdict: Verdict) -> None:
    """What was accepted in the background still has, in the end, the end that its client saw first."""
    accepted = {e["n"]: e["id"] for e in found if e["what"] == "accepted"}
    kept = {e["n"]: e for e in found if e["what"] == "kept"}
    verdict.background = len(accepted)
    for number, name in accepted.items():
        first, last = seen[number], kept.get(number)
        if last is None or last["end"] not in ("answered", "error"):
            verdict.lost += 1
            verdict.wrong.append(f"prompt {number}, accepted as {name}, has no end that is kept")
        elif first and any(first[0].get(field) != last[field] for field in ("end", "digest", "code")):
            verdict.answered_twice += 1
            verdict.wrong.append(f"prompt {number} had the end {first[0]} and has {last}")


def _judge_devices(found: list[Entry], verdict: Verdict) -> None:
    """By the devices' own streams of events."""
    accepted: dict[tuple[int, int, str], int] = {}
    last = {(e["device"]): e["life"] for e in found if e["what"] == "up"}
    for entry in found:
        if entry["what"] != "told":
            continue
        key = entry["device"], entry["life"], entry["id"]
        if entry["kind"] == "accepted":
            accepted[key] = 0
        elif key in accepted:
            accepted[key] += 1
    for (device, life, name), ends in accepted.items():
        if ends > 1:
            verdict.answered_twice += 1
            verdict.wrong.append(f"d{device} told {ends} ends of {name}")
        if not ends and last[device] == life:
            verdict.lost += 1
            verdict.wrong.append(f"d{device} accepted {name} and told no end of it, though it lived on")


def _judge_looks(found: list[Entry], verdict: Verdict) -> None:
    bounds = {"queue": MAX_WAITING, "busy": SLOTS, "buffer": MAX_PROMPTS, "prompts": MAX_PROMPTS}
    baseline: dict[int, list[int]] = {}
    final: dict[int, list[Entry]] = {}
    phase = ""
    for entry in found:
        if entry["what"] == "phase":
            phase = entry["name"]
        if entry["what"] != "look":
            continue
        for name, bound in bounds.items():
            if entry[name] > bound:
                verdict.wrong.append(
                    f"d{entry['device']}: {name} {entry[name]} at {entry['at']}, bound {bound}"
                )
        verdict.queue_max = max(verdict.queue_max, entry["queue"])
        if phase == "baseline":
            baseline.setdefault(entry["device"], []).append(entry["rss"])
        elif phase == "quiet":
            final.setdefault(entry["device"], []).append(entry)
    everybody = {e["device"] for e in found if e["what"] == "up"}
    for device in sorted(everybody):
        looks = final.get(device)
        if not looks or device not in baseline:
            verdict.wrong.append(f"d{device} was not seen when all was quiet, or not before")
            continue
        held = {name: looks[-1][name] for name in bounds}
        verdict.leaked_jobs += held["queue"] + held["busy"] + held["prompts"]
        if any(held.values()):
            verdict.wrong.append(f"d{device} holds {held} when all is quiet")
        if looks[-1]["alive"] != len(everybody):
            verdict.wrong.append(
                f"d{device} knows {looks[-1]['alive']} of {len(everybody)} devices at the end"
            )
        more = min(look["rss"] for look in looks) / min(baseline[device])
        verdict.memory = max(verdict.memory, more)
        if more > MORE_MEMORY:
            verdict.wrong.append(f"d{device} holds {more:.2f} times the memory that it held at first")


def _judge_again(found: list[Entry], verdict: Verdict) -> None:
    """What was asked after it all was answered."""
    phase, asked, answered = "", dict[int, int](), set[int]()
    for entry in found:
        if entry["what"] == "phase":
            phase = entry["name"]
        elif entry["what"] == "sent" and phase == "again":
            asked[entry["n"]] = entry["device"]
        elif entry["what"] == "seen" and entry["end"] == "answered":
            answered.add(entry["n"])
    everybody = {entry["device"] for entry in found if entry["what"] == "up"}
    works = {device for number, device in asked.items() if number in answered}
    verdict.wrong += [f"d{device} does not answer when all is over" for device in sorted(everybody - works)]


def _judge_stops(found: list[Entry], verdict: Verdict) -> None:
    for entry in found:
        if entry["what"] == "exit" and entry["code"] != 0:
            verdict.wrong.append(f"d{entry['device']} ended with {entry['code']} when it was told to stop")
        elif entry["what"] == "died":
            verdict.wrong.append(f"d{entry['device']} died by itself with {entry['code']}")


def as_json(verdict: Verdict) -> dict[str, Any]:
    """INTERFACE.md's fields first, then what else is known."""
    return {
        "prompts": verdict.prompts,
        "answered": verdict.answered,
        "typed_errors": verdict.typed_errors,
        "lost": verdict.lost,
        "answered_twice": verdict.answered_twice,
        "leaked_jobs": verdict.leaked_jobs,
        "faults": verdict.faults,
        "left": verdict.left,
        "cut_by_kill": verdict.cut_by_kill,
        "background": verdict.background,
        "codes": verdict.codes,
        "queue_max": verdict.queue_max,
        "memory": round(verdict.memory, 3),
        "wrong": verdict.wrong,
    }
