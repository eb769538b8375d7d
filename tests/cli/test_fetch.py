from __future__ import annotations

import pytest

from folkmoot.cli.fetch import fetch, make_ready
from folkmoot.engine import weights
from folkmoot.errors import ConfigError, WeightsError


def test_nothing_is_fetched_without_consent(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "installed", lambda model: None)
    with pytest.raises(WeightsError, match="folkmoot models get smollm2, or give --yes"):
        make_ready(["smollm2"], tmp_path, ask_first=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_at_hand_is_made_ready(tmp_path, capsys):
    path = fetch("smollm2", tmp_path)
    assert path.stat().st_size == weights.CATALOGUE["smollm2"].bytes
    make_ready(["smollm2"], tmp_path, ask_first=True)
    assert "verifying" in capsys.readouterr().err


def test_an_unknown_model_is_told(tmp_path):
    with pytest.raises(ConfigError, match="gpt-9"):
        fetch("gpt-9", tmp_path)
