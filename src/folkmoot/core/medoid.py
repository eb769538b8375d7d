"""How alike open answers are, and which of them the others are most like.

TF-IDF over words and over characters within words, as scikit-learn's `TfidfVectorizer` has it by default (a test holds the two against
each other); written here since the core imports no numpy. Texts are untrusted: what is looked at is bounded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOOKED_AT = 4_000
"""Characters of an answer that are looked at, its first ones."""

_WORD = re.compile(r"\b\w\w+\b")
_NGRAMS = (3, 4, 5)

Vector = dict[str, float]


def similarities(texts: Sequence[str]) -> list[list[float]]:
    """Cosines between all texts, (n, n), 0 to 1: the mean of that over words and that over 3 to 5 characters within words."""
    lowered = [text[:LOOKED_AT].lower() for text in texts]
    by_word = _weighed([Counter(_WORD.findall(text)) for text in lowered])
    by_characters = _weighed([Counter(_within_words(text)) for text in lowered])
    return [
        [
            (_cosine(by_word[i], by_word[j]) + _cosine(by_characters[i], by_characters[j])) / 2
            for j in range(len(texts))
        ]
        for i in range(len(texts))
    ]


@dataclass(frozen=True, slots=True)
class Medoid:
    """The place of the text that the others are most like, and the mean similarity of all pairs."""

    place: int
    agreement: float


def medoid(texts: Sequence[str], weights: Sequence[float]) -> Medoid:
    """The text with the largest sum of its similarities to all others, each weighed; among equals the heaviest, then the first.

    `weights` (n,) >= 0 say how much a text counts as evidence for others, and as a candidate. An outlier is far from all and so is
    seldom chosen; it is never left out. Raises ValueError without texts.
    """
    alike = similarities(texts)
    count = len(texts)
    sums = [weights[i] * sum(weights[j] * alike[i][j] for j in range(count) if j != i) for i in range(count)]
    place = max(range(count), key=lambda i: (sums[i], weights[i], -i))
    pairs = [alike[i][j] for i in range(count) for j in range(i)]
    return Medoid(place, sum(pairs) / len(pairs) if pairs else 1.0)


def _within_words(text: str) -> Iterable[str]:
    """scikit-learn's `char_wb`: n-grams of each word with one blank at either end; a word shorter than n counts whole, once."""
    for word in text.split():
        padded = f" {word} "
        for n in _NGRAMS:
            yield padded[:n]
            for at in range(1, len(padded) - n + 1):
                yield padded[at : at + n]
            if len(padded) <= n:
                break


def _weighed(counts: Sequence[Counter[str]]) -> list[Vector]:
    """Counts times ln((1 + n)/(1 + df)) + 1, each text's to length 1."""
    seen: Counter[str] = Counter()
    for each in counts:
        seen.update(each.keys())
    rarity = {term: math.log((1 + len(counts)) / (1 + df)) + 1.0 for term, df in seen.items()}
    found = []
    for each in counts:
        vector = {term: number * rarity[term] for term, number in each.items()}
        length = math.sqrt(sum(value * value for value in vector.values()))
        found.append({term: value / length for term, value in vector.items()} if length else {})
    return found


def _cosine(one: Vector, other: Vector) -> float:
    if len(one) > len(other):
        one, other = other, one
    return sum(value * other.get(term, 0.0) for term, value in one.items())
