"""What an answer says in short, so that answers can be compared: a number, a letter, yes or no, JSON, code, a few words.

Questions and answers are untrusted: all that is looked at is bounded, and every pattern is linear in it.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from enum import StrEnum

LOOKED_AT = 8_000
"""Characters of an answer that are looked at, its last ones: results stand at the end."""

MOST_SHORT = 120
"""Characters of an answer in a few words; what is longer is no short answer."""

_DIGITS = 30


class Kind(StrEnum):
    """What a question wants. `OPEN` answers cannot be compared by what they say in short."""

    NUMBER = "number"
    LETTER = "letter"
    YES_NO = "yes or no"
    JSON = "JSON"
    CODE = "code"
    SHORT = "a few words"
    OPEN = "open"


_OPTION = re.compile(r"(?:^|\s)\(?([A-Z])[).] ?\S", re.MULTILINE)
_JSON = re.compile(
    r"\b(?:as|in|with|valid|only|a|of) (?:a )?(?:valid |single |pure )?json\b|\bjson (?:object|array|format|only)\b"
)
_CODE = re.compile(
    r"\b(?:write|implement|complete|give|create|define) (?:me )?(?:an? |the )?(?:\w+ ){0,3}(?:function|program|script|method|class|query|regex)\b"
)
_EITHER = re.compile(r"\byes or no\b|\byes/no\b|\"yes\" or \"no\"|\btrue or false\b")
_ASKS = re.compile(
    r"(?:^|[.!?:,]\s+|\n\s*)(?:is|are|was|were|do|does|did|has|have|had|should|am) [^.!?\n]{1,300}\?\s*$"
)
_NUMBER_ASKED = re.compile(
    r"\bhow (?:many|much(?! of a )|old|far|long|tall|fast|big|high|heavy|deep)\b|(?:^|[.!?,\n]\s*)(?:calculate|compute)\b|\bwhat percent|"
    r"\bwhat (?:is|was|are|were|will be|would be) (?:the |his |her |their |its )?(?:\w+ ){0,3}"
    r"(?:sum|total|number|product|average|mean|remainder|area|volume|perimeter|probability|age|speed|distance)\b"
)
_SUM = re.compile(r"\d\s*[-+*/×÷^]\s*\(*-?\d[^a-z]*=?\s*\??\s*$|=\s*\??\s*$")
_SHORT_ASKED = re.compile(
    r"\banswer:|\bnothing but the\b|\bone word\b|\bsingle word\b|\bin a word\b|\bonly the\b"
)
_NUMBER_FORM = re.compile(
    r"answer: ?<?number|answer (?:with|as) (?:a |one )?number|\bwhole number\b|\binteger\b"
)

_MARKED = re.compile(r"(?:\banswer(?: is)?\b[ \t]*[:=]?|####|\\boxed\{)[ \t]*", re.IGNORECASE)
_NUMBER = re.compile(r"[-−]?[$€£]?\d[\d,]{0,40}(?:\.\d{1,20})?")
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")
_LEADING = re.compile(r"\(?([A-Z])(?:[).:,]|\s|$)")
_YES_NO = re.compile(r"\b(yes|no|true|false)\b")
_FENCED = re.compile(r"```[a-zA-Z0-9_+-]{0,20}\n(.*?)```", re.DOTALL)
_AROUND = " \t*_`\"'“”‘’.,;:!)("


def kind_of(question: str) -> Kind:
    """What a question wants, by its words; `OPEN` where that is not plain.

    Where a form is asked for (yes or no, "Answer: NUMBER"), that decides; else options, then JSON and code, then how it asks.
    """
    text = question[-LOOKED_AT:]
    plain = text.casefold()
    options = [letter for letter in _OPTION.findall(text)]
    if "A" in options and "B" in options:
        return Kind.LETTER
    if _NUMBER_FORM.search(plain):
        return Kind.NUMBER
    if _JSON.search(plain):
        return Kind.JSON
    if _CODE.search(plain):
        return Kind.CODE
    if _EITHER.search(plain):
        return Kind.YES_NO
    if _SHORT_ASKED.search(plain):
        return Kind.SHORT
    if _NUMBER_ASKED.search(plain) or _SUM.search(plain):
        return Kind.NUMBER
    return Kind.YES_NO if _ASKS.search(plain.strip()) else Kind.OPEN


def extract(kind: Kind, answer: str, truncated: bool = False) -> str | None:
    """What an answer says, normalised so that the same is written the same; None where nothing is found.

    An answer that was cut off counts only by what it marks as its result.
    """
    text = answer[-LOOKED_AT:]
    marked = _marked(text)
    if truncated and marked is None and kind not in (Kind.JSON, Kind.CODE):
        return None
    match kind:
        case Kind.NUMBER:
            return _number(text, marked)
        case Kind.LETTER:
            return _letter(text, marked)
        case Kind.YES_NO:
            return _yes_no(text, marked)
        case Kind.JSON:
            return _json(text)
        case Kind.CODE:
            return _code(text)
        case Kind.SHORT:
            return None if marked is None else _short(marked)
        case Kind.OPEN:
            return None


def _marked(text: str) -> str | None:
    """The rest of the line behind the last mark of a result ("Answer: 3", "#### 3", `\\boxed{3}`), where it says something."""
    for found in reversed(list(_MARKED.finditer(text))):
        line = text[found.end() :].lstrip("*_ \t").partition("\n")[0]
        line = line.partition("}")[0] if found[0].startswith("\\boxed") else line
        if line.strip(_AROUND):
            return line.strip()
    return None


def _number(text: str, marked: str | None) -> str | None:
    found = _NUMBER.findall(marked) if marked is not None else []
    if found:
        return _decimal(found[-1] if "=" in (marked or "") else found[0])
    found = _NUMBER.findall(text.strip().rpartition("\n")[2]) or _NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def _decimal(number: str) -> str | None:
    digits = number.replace(",", "").replace("−", "-").strip("$€£")
    digits = digits.replace("-$", "-").replace("-€", "-").replace("-£", "-")
    try:
        value = Decimal(digits[:_DIGITS])
    except InvalidOperation:
        return None
    return f"{value.normalize() + 0:f}" if value else "0"


def _letter(text: str, marked: str | None) -> str | None:
    for place in (marked, text.strip()) if marked is not None else (text.strip(),):
        found = _IN_BRACKETS.findall(place) if place is marked else []
        if found:
            return str(found[0])
        leading = _LEADING.match(place.lstrip(_AROUND[:-1]))
        if leading:
            return leading[1]
    named = set(_IN_BRACKETS.findall(text.strip().rpartition("\n")[2]))
    return str(named.pop()) if len(named) == 1 else None


def _yes_no(text: str, marked: str | None) -> str | None:
    for place in (marked, text) if marked is not None else (text,):
        first = _YES_NO.match((place or "").casefold().lstrip(_AROUND))
        if first:
            return {"true": "yes", "false": "no"}.get(first[1], first[1])
    said = set(_YES_NO.findall(text.strip().rpartition("\n")[2].casefold()))
    word = said.pop() if len(said) == 1 else None
    return {"true": "yes", "false": "no"}.get(word, word) if word is not None else None


def _json(text: str) -> str | None:
    fenced = _FENCED.findall(text)
    body = (fenced[-1] if fenced else text).strip()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list):
        return None
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _code(text: str) -> str | None:
    """The code blocks without comments on lines of their own, blank lines and spaces at line ends."""
    lines = [line.rstrip() for block in _FENCED.findall(text) for line in block.splitlines()]
    kept = [line for line in lines if line and not line.lstrip().startswith(("#", "//"))]
    return "\n".join(kept) or None


def _short(marked: str) -> str | None:
    words = " ".join(marked.casefold().strip(_AROUND).replace(",", " ").split())
    return words if words and len(words) <= MOST_SHORT else None
