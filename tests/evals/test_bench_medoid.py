"""`bench/medoid.py`: vectors of words out of three kinds of files, and what is made of them."""

from __future__ import annotations

import gzip
import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench/medoid.py"
WORDS = {"tree", "oak", "don't", "nine"}
FOUND = {"oak": (1.0, 0.5, 0.0), "tree": (0.5, 1.0, 0.0), "nine": (0.0, 0.0, -2e-05)}
LINES = "oak 1 0.5 0\n, 0 0 1\ntree 0.5 1.0 0\n. . . 1 1 1\nnine 0 0 -2e-05\noak 9 9 9\n"
JSON = (
    '{"precision":8,"size":5,"words":["oak","\\"","]",":[","tree"],"vectors":{"oak":[1,0.5,0,1.1,0],"\\"":[0,0,1,1,1],'
    '"]":[0,1,1,1,2],":[":[1,1,1,1,3],"tree":[0.5,1.0,0,1.1,4],"nine":[0,0,-2e-05,1,5]},"unkVector":[0,0,0,0,-1]}'
)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_medoid", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("name", "text"), [("g.txt", LINES), ("w.vec", f"5 3\n{LINES}"), ("wink.json", JSON)]
)
def test_vectors_are_read_as_they_stand(bench, monkeypatch, tmp_path: Path, name: str, text: str, chunk: int):
    monkeypatch.setattr(bench, "CHUNK", chunk)
    plain, packed = tmp_path / name, tmp_path / f"{name}.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert bench.read_vectors(plain, WORDS) == bench.read_vectors(packed, WORDS) == FOUND
    with pytest.raises(ValueError, match="holds no vector of a word"):
        bench.read_vectors(plain, {"elm"})


def test_the_text_that_others_are_most_like_by_their_words(bench):
    texts = ["Oak, oak!", "An oak tree.", "tree", "nine nine"]
    for rare in (False, True):
        place, alike = bench.by_vectors(partial(bench.mean_of_words, FOUND, rare=rare))(texts)
        assert place == 1
        assert 0 < alike < 0.5
    # "oak" and "tree" stand in two of four texts each, "nine" in one.
    _, both, _, nine = bench.mean_of_words(FOUND, texts, rare=True)
    assert both == pytest.approx([1.5 * 1.5108, 1.5 * 1.5108, 0.0], abs=1e-3)
    assert nine == pytest.approx([0.0, 0.0, 2 * 1.9163 * -2e-05], abs=1e-9)
    assert bench.mean_of_words(FOUND, ["", "elm"], rare=False) == [[0.0] * 3] * 2
