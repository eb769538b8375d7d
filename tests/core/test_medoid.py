"""Which open answer the others are most like."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from folkmoot.core.medoid import LOOKED_AT, MOST_NGRAMS, medoid, vectors

SKY = (
    "The sky is blue since air scatters blue light more than red light.",
    "Air scatters blue light more strongly than red, so the sky looks blue.",
    "Blue light is scattered more by the air; that makes the sky blue.",
)
ODD = "Bananas grow in warm countries and are yellow when they are ripe."


def by_library(texts: list[str], **how: object) -> list[list[float]]:
    try:
        found = TfidfVectorizer(**how).fit_transform(texts)
    except ValueError:  # it has no word at all
        return [[0.0] * len(texts)] * len(texts)
    return (found @ found.T).toarray().tolist()  # type: ignore[no-any-return]


def similarities(texts: Sequence[str]) -> list[list[float]]:
    found = vectors(texts)
    return [
        [sum(value * other.get(term, 0.0) for term, value in one.items()) for other in found] for one in found
    ]


LETTERS = st.text(alphabet="ab cdé.,\n1 ß世", max_size=60)


@given(st.lists(LETTERS, min_size=1, max_size=5))
def test_it_is_what_scikit_learn_says(texts: list[str]) -> None:
    words = by_library(texts)
    characters = by_library(texts, analyzer="char_wb", ngram_range=(3, 5))
    for row, by_word, by_character in zip(similarities(texts), words, characters, strict=True):
        assert row == pytest.approx(
            [(w + c) / 2 for w, c in zip(by_word, by_character, strict=True)], abs=1e-9
        )


@pytest.mark.parametrize("place", range(4))
def test_the_outlier_is_never_it_wherever_it_stands(place: int) -> None:
    texts = [*SKY[:place], ODD, *SKY[place:]]
    assert medoid(texts, [1.0] * 4).place != place


def test_a_heavy_one_is_preferred_and_a_light_one_not() -> None:
    even = medoid(SKY, [1.0, 1.0, 1.0]).place
    other = (even + 1) % 3
    assert medoid(SKY, [3.0 if at == other else 1.0 for at in range(3)]).place == other
    assert medoid(SKY, [0.1 if at == even else 1.0 for at in range(3)]).place != even


def test_agreement() -> None:
    assert medoid(SKY[:1] * 3, [1.0] * 3).agreement == pytest.approx(1.0)
    assert medoid(SKY[:1], [1.0]).agreement == 1.0
    assert medoid(SKY, [1.0] * 3).agreement > medoid([*SKY[:2], ODD], [1.0] * 3).agreement > 0.0
    assert medoid(["", ""], [1.0, 1.0]).agreement == 0.0


def test_what_is_looked_at_is_bounded() -> None:
    long = [f"{word} " * LOOKED_AT for word in ("ash", "oak")]
    assert similarities(long) == similarities([text[:LOOKED_AT] for text in long])


def test_ngrams_beyond_the_most_are_not_counted() -> None:
    """Words that nobody else has: what one costs is bounded, and what stands below the cap is counted."""
    rng = Random(3)
    text = " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(490))
    (found,) = vectors([text])
    assert 490 + MOST_NGRAMS // 2 < len(found) <= 490 + MOST_NGRAMS
    assert set(vectors([text[:1_000]])[0]) - set(found) <= {" " * 2 + text[:1_000].split()[-1]} | set(
        vectors([text[:1_000].split()[-1]])[0]
    )


@given(
    st.lists(LETTERS, min_size=1, max_size=5),
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=5, max_size=5),
)
def test_it_is_the_one_by_the_whole_matrix(texts: list[str], weights: list[float]) -> None:
    alike, places = similarities(texts), range(len(texts))
    sums = [weights[i] * sum(weights[j] * alike[i][j] for j in places if j != i) for i in places]
    pairs = [alike[i][j] for i in places for j in range(i)]
    found = medoid(texts, weights[: len(texts)])
    best = [i for i in places if sums[i] > max(sums) - 1e-8]
    assert found.place in best
    assert weights[found.place] == max(weights[i] for i in best)
    assert found.agreement == pytest.approx(sum(pairs) / len(pairs) if pairs else 1.0, abs=1e-9)
