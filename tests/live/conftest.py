"""Moots of real processes that are gone when their test is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.live.crowd import Crowd, Device


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    everybody = Crowd(tmp_path)
    yield everybody
    everybody.stop()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Device]]:
    everybody = Crowd(tmp_path_factory.mktemp("four"))
    try:
        yield everybody.form({name: "timed:det:0.3" for name in ("ash", "birch", "cedar", "elm")})
    finally:
        everybody.stop()
