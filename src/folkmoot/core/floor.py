"""When an aggregate is worse than a draft that is at hand: empty, cut off, in loops, a refusal, in another script, without
the form that was asked for, or against what all drafts say.

Only what can be seen without judging its content; docs/explanation/answers.md says why there must be a floor at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.core.extract import Kind, extract
from folkmoot.core.screen import loops, script_of

_REFUSES = re.compile(
    r"^\W*(?:i(?:'|’)?m (?:really |very )?sorry|sorry,|i (?:can(?:not|(?:'|’)?t)|am (?:not able|unable)|won(?:'|’)?t)\b|as an ai\b)",
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
        return frozenset(("it is empty",))
    found = set[str]()
    if answer.truncated:
        found.add("it is cut off")
    if loops(text):
        found.add("it says the same again and again")
    if _REFUSES.match(text[:200]):
        found.add("it refuses")
    asked, written = script_of(question), script_of(text)
    if asked and written and asked != written:
        found.add("it is in another script than the question")
    if kind is Kind.JSON and extract(kind, text) is None:
        found.add("it is no JSON")
    return frozenset(found)


def below(kind: Kind, question: str, aggregate: Text, drafts: Sequence[Text]) -> tuple[int, str] | None:
    """The place of the draft that is the answer instead, the first without a fault, and why; None where the aggregate may stand.

    A fault that every draft has is the question's own: a question may ask for another script or want a loop.
    """
    own = [faults(kind, question, draft) for draft in drafts]
    sound = next((place for place, found in enumerate(own) if not found), None)
    if sound is None:
        return None
    wrong = faults(kind, question, aggregate)
    if wrong:
        return sound, ", ".join(sorted(wrong))
    said = [extract(kind, draft.text, draft.truncated) for draft in drafts]
    unanimous = len(said) > 1 and said[0] is not None and len(set(said)) == 1
    if unanimous and extract(kind, aggregate.text) != said[0]:
        return sound, f"all {len(said)} drafts say the same, and it does not"
    return None
