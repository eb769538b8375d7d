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
from itertools import islice

LOOKED_AT = 4_000
"""Characters of an answer that are looked at, its first ones."""

MOST_NGRAMS = 4_000
"""N-grams of an answer that are counted, its first ones, those of about 2,000 characters of prose. Its words are counted all the same."""

_WORD = re.compile(r"\b\w\w+\b")
_NGRAMS = (3, 4, 5)

Vector = dict[str, float]


def vectors(texts: Sequence[str]) -> list[Vector]:
    """One for each text; the product of two is how alike they are, 0 to 1: the mean of that over words and that over 3 to 5 characters
    within words."""
    lowered = [text[:LOOKED_AT].lower() for text in texts]
    # No n-gram starts with two blanks.
    by_word = _weighed([Counter(f"  {word}" for word in _WORD.findall(text)) for text in lowered])
    by_characters = _weighed([Counter(islice(_within_words(text), MOST_NGRAMS)) for text in lowered])
    return [one | other for one, other in zip(by_word, by_characters, strict=True)]


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
    # Sums over all pairs in one pass: what i has in common with each j, added up, is what it has in common with their sum.
    found = vectors(texts)
    own = [_product(each, each) for each in found]
    heavy, even = _summed(found, weights), _summed(found, [1.0] * len(texts))
    sums = [
        weight * (_product(each, heavy) - weight * itself)
        for each, weight, itself in zip(found, weights, own, strict=True)
    ]
    # Rounded: equals are not told apart by the order in which they were added up.
    place = max(range(len(texts)), key=lambda i: (round(sums[i], 9), weights[i], -i))
    pairs = len(texts) * (len(texts) - 1)
    agreement = (_product(even, even) - sum(own)) / pairs if pairs else 1.0
    return Medoid(place, min(1.0, max(0.0, agreement)))


def _summed(found: Sequence[Vector], weights: Sequence[float]) -> Vector:
    whole: Vector = {}
    for each, weight in zip(found, weights, strict=True):
        for term, value in each.items():
            whole[term] = whole.get(term, 0.0) + weight * value
    return whole


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
    """Counts times ln((1 + n)/(1 + df)) + 1, each text's to length sqrt(1/2): it is half of a vector."""
    seen: Counter[str] = Counter()
    for each in counts:
        seen.update(each.keys())
    rarity = {term: math.log((1 + len(counts)) / (1 + df)) + 1.0 for term, df in seen.items()}
    found = []
    for each in counts:
        vector = {term: number * rarity[term] for term, number in each.items()}
        length = math.sqrt(2 * sum(value * value for value in vector.values()))
        found.append({term: value / length for term, value in vector.items()} if length else {})
    return found


def _product(one: Vector, other: Vector) -> float:
    return sum(value * other.get(term, 0.0) for term, value in one.items())
