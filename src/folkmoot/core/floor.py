"""When an aggregate is worse than a draft that is at hand: empty, cut off, in loops, a refusal, in another script, without
the form that was asked for, or against what all drafts say.

Only what can be seen without judging its content; docs/explanation/answers.md says why there must be a floor at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.core.extract import LOOKED_AT_WHOLE, Kind, extract
from folkmoot.core.screen import loops, script_of

MOST_REFUSAL = 300
"""Characters (a guess) of a refusal; a longer text says more than that."""

_EMPTY = "it is empty"
_LOOPS = "it says the same again and again"
_SCRIPT = "it is in another script than the question"

_REFUSES = re.compile(
    r"\b(?:i|we)(?: am| are|['’]m|['’]re)?(?: really| very| simply| just)?(?: sorry,?(?: but)? (?:i|we)(?: am|['’]m)?)? "
    r"(?:can(?:not|['’]?t| not)|won['’]?t|will not|unable to|not able to|decline to|refuse to|must decline to)"
    r"(?: be able to| directly| really)* (?:help(?! but)|assist|answer|say|tell(?! you how)|provide|do|give|write|create|comply|fulfil+|"
    r"discuss|engage|support|share|generate|produce|respond|continue)\b"
    r"|\b(?:unable|not able) to (?:help|assist|answer|comply|fulfil+|provide)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Text:
    """A draft, or what was made of them; `truncated` where its limit cut it off."""

    text: str
    truncated: bool = False


def faults(kind: Kind, question: str, answer: Text) -> frozenset[str]:
    """What is wrong with a text by itself. The words stand in the provenance."""
    text = answer.text
    if not text.strip():
        return frozenset((_EMPTY,))
    found = set[str]()
    if answer.truncated:
        found.add("it is cut off")
    # Rows of JSON have the same names again and again.
    is_json = kind is Kind.JSON and (len(text) > LOOKED_AT_WHOLE or extract(kind, text) is not None)
    if loops(text) and not is_json:
        found.add(_LOOPS)
    if len(text) < MOST_REFUSAL and _REFUSES.search(text):
        found.add("it refuses")
    asked, written = script_of(question), script_of(text)
    if asked and written and asked != written:
        found.add(_SCRIPT)
    if kind is Kind.JSON and not is_json:
        found.add("it is no JSON")
    return frozenset(found)


def below(kind: Kind, question: str, aggregate: Text, drafts: Sequence[Text]) -> tuple[int, str] | None:
    """The place of the draft that is the answer instead, the first without a fault, and why; None where the aggregate may stand.

    A fault that half of the drafts have that are sound otherwise, and two at least, is the question's own: it may ask for another
    script, want a loop, or set a limit that is too low. Against drafts that all say the same an aggregate must say something else, not
    merely nothing that is understood.
    """
    found = [faults(kind, question, draft) for draft in drafts]
    wrong = faults(kind, question, aggregate)
    asked_for = {fault for fault in frozenset[str]().union(wrong, *found) if _asked_for(fault, found)}
    wanted = asked_for & {_LOOPS, _SCRIPT}
    sound = next((place for place, each in enumerate(found) if not each - wanted), None)
    if sound is None:
        return None
    if wrong - asked_for:
        return sound, ", ".join(sorted(wrong - asked_for))
    said = [extract(kind, draft.text, draft.truncated, question) for draft in drafts]
    unanimous = len(said) > 1 and said[0] is not None and len(set(said)) == 1
    if unanimous and extract(kind, aggregate.text, aggregate.truncated, question) not in (said[0], None):
        return sound, f"all {len(said)} drafts say the same, and it does not"
    return None


def _asked_for(fault: str, found: Sequence[frozenset[str]]) -> bool:
    otherwise_sound = [each for each in found if not each - {fault}]
    have = sum(fault in each for each in otherwise_sound)
    return fault != _EMPTY and have > 1 and 2 * have >= len(otherwise_sound)
