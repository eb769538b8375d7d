"""What an origin can see in a peer's answer by its text alone: orders, control tokens, loops, copies.

A flag is a doubt and no verdict: flagged answers go last and are called unverified (`layout`), and nothing is
deleted. What the question itself holds, or most of the answers do, is the subject and excuses everybody. Pure
and cheap: some regular expressions, a compression and a sketch of 64 numbers an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from zlib import compress, crc32

from folkmoot.core.layout import controls, visible


class Flag(StrEnum):
    """What is odd about an answer. The words stand in the provenance."""

    ORDERS = "gives orders to its reader"
    CONTROL = "holds control tokens"
    REPEATS = "says the same again and again"
    SCRIPT = "is written in another script"
    COPY = "copies another answer"


_BEFORE = r"(?:previous|prior|above|earlier|preceding|other|all|any|every|the|these|those|your)"
_TOLD = r"(?:instructions?|prompts?|responses?|answers?|messages?|rules?|context|query|question|task|request)"
_ORDERS = re.compile(
    rf"\b(?:ignore|disregard|forget|discard|override|skip)\b[^.\n]{{0,40}}\b{_BEFORE}\b[^.\n]{{0,30}}\b{_TOLD}\b"
    rf"|\b(?:other|remaining|previous|preceding|following|above)\s+(?:\w+\s+){{0,2}}(?:responses?|answers?|models?|devices?|peers?)\b"
    rf"|\b(?:output|reply|respond|answer|say|write|print|return|repeat)\b[^.\n]{{0,30}}\b(?:only|exactly|just|nothing (?:but|else)|verbatim)\b"
    rf"|\b(?:end of|new|updated|changed)\s+(?:the\s+)?(?:responses?|answers?|instructions?|data|query|task|prompt)\b"
    rf"|\buser (?:has |now )?(?:changed|updated|withdr\w+|asks you|wants you|cancell?ed)\b"
    rf"|\byou (?:are now|must now|must (?:only )?(?:output|reply|respond|answer|say|write))\b"
    rf"|\b(?:aggregat|synthesi[sz])(?:or|er|ors|ers|ing|e)\b|\bsystem (?:prompt|message|override|notice)\b"
    rf"|^\W{{0,4}}(?:system|user|assistant|human|instructions?|developer|admin(?:istrator)?)\W{{0,3}}:"
    rf"|\bignorier|\bvergiss\b[^.\n]{{0,30}}\banweisung|\bignor(?:a|e|ez)\b[^.\n]{{0,40}}\binstruc"
    rf"|(?:忽略|无视|不要理会).{{0,12}}(?:指令|指示|回答|内容)|игнорируй",
    re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"\w+")
_LEAST_LOOP = 400
"""Characters under which nothing is called a loop."""
_LOOP = 0.1
"""English prose compresses to about 0.5 of itself, code and tables to 0.12 to 0.35, a sentence said forty times to 0.05."""
_LEAST_COPY = 30
"""Words under which two answers may well be the same."""
_SKETCH = 64
_LOOKED_AT = 8_000
"""Characters at either end of a text that are looked at, so that the time is bounded; for loops it is the whole text."""
_LEAST_LETTERS = 12
_SCRIPTS = (
    (0x0041, 0x024F, "latin"), (0x0370, 0x03FF, "greek"), (0x0400, 0x052F, "cyrillic"), (0x0530, 0x058F, "armenian"),
    (0x0590, 0x05FF, "hebrew"), (0x0600, 0x077F, "arabic"), (0x0900, 0x0DFF, "indic"), (0x0E00, 0x0EFF, "thai"),
    (0x3040, 0x30FF, "han"), (0x3400, 0x9FFF, "han"), (0xAC00, 0xD7AF, "hangul"), (0x20000, 0x3FFFF, "han"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Traits:
    """What a text shows by itself. `sketch`: the smallest hashes of its runs of five words."""

    orders: bool
    control: bool
    loops: bool
    script: str
    words: int
    sketch: tuple[int, ...]


def traits(text: str) -> Traits:
    """Look at a text once; but for its loops at both ends only, where orders stand."""
    whole = loops(text)
    if len(text) > 2 * _LOOKED_AT:
        text = f"{text[:_LOOKED_AT]}\n{text[-_LOOKED_AT:]}"
    text = visible(text)
    words = _WORD.findall(text.lower())
    runs = {crc32(" ".join(words[at : at + 5]).encode(errors="replace")) for at in range(len(words) - 4)}
    return Traits(
        _ORDERS.search(_close(text)) is not None,
        controls(text),
        whole,
        script_of(text),
        len(words),
        tuple(sorted(runs)[:_SKETCH]),
    )


def _close(text: str) -> str:
    """A text without empty lines and with one blank between words: many of them would keep the patterns busy for minutes."""
    return "\n".join(" ".join(words) for words in map(str.split, text.splitlines()) if words)


def loops(text: str) -> bool:
    """Whether a text says the same again and again."""
    data = text.encode(errors="replace")
    return len(data) >= _LEAST_LOOP and len(compress(data, 6)) < _LOOP * len(data)


def script_of(text: str) -> str:
    """The script of seven in ten of its first 2,000 letters; empty where there is none, or too few letters."""
    found: dict[str, int] = {}
    for sign in text[:2_000]:
        if sign.isalpha():
            code = ord(sign)
            name = next((name for first, last, name in _SCRIPTS if first <= code <= last), "other")
            # A sign of Chinese says as much as several letters.
            found[name] = found.get(name, 0) + (4 if name in ("han", "hangul") else 1)
    if not found:
        return ""
    name, count = max(found.items(), key=lambda each: each[1])
    whole = sum(found.values())
    return name if whole >= _LEAST_LETTERS and 10 * count >= 7 * whole else ""


def screen(
    question: Traits, answers: Sequence[Traits], *, sampled: bool = True
) -> tuple[tuple[Flag, ...], ...]:
    """The flags of each answer of a layer, in order of arrival.

    Without `sampled` (temperature 0) devices with the same model write the same: copies mean nothing.
    """
    found = [_alone(question, each) for each in answers]
    for place, each in enumerate(answers):
        others = [other.script for at, other in enumerate(answers) if at != place and other.script]
        strange = each.script and question.script and each.script != question.script
        if strange and 2 * sum(script == each.script for script in others) < max(1, len(others)):
            found[place].append(Flag.SCRIPT)
        if sampled and any(_same(each, earlier) for earlier in answers[:place]):
            found[place].append(Flag.COPY)
    common = [flag for flag in Flag if 2 * sum(flag in each for each in found) > max(2, len(answers))]
    return tuple(tuple(flag for flag in each if flag not in common) for each in found)


def _alone(question: Traits, answer: Traits) -> list[Flag]:
    found = []
    if answer.orders and not question.orders:
        found.append(Flag.ORDERS)
    if answer.control and not question.control:
        found.append(Flag.CONTROL)
    if answer.loops and not question.loops:
        found.append(Flag.REPEATS)
    return found


def _same(one: Traits, other: Traits) -> bool:
    if min(one.words, other.words) < _LEAST_COPY:
        return False
    if one.sketch[0] not in other.sketch and other.sketch[0] not in one.sketch:
        return False  # nearly always so for two texts, and cheap
    low = sorted({*one.sketch, *other.sketch})[:_SKETCH]
    both = set(one.sketch) & set(other.sketch)
    return sum(each in both for each in low) >= 0.9 * len(low)
