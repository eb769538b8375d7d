"""Rules of the configuration keep prompts on the device; what contradicts them is refused and names the rule."""

from __future__ import annotations

from typing import Any

import pytest

from folkmoot.api.privacy import PrivacyConfig, rule_of
from folkmoot.core.events import Plan
from folkmoot.core.messages import Turn
from folkmoot.errors import ConfigError

RULES = PrivacyConfig(patterns=(r"\bIBAN\b", "(?i)diagnos"), models=("moot-fast", "work"), keys=("phone",))


def body(text: str, model: str = "moot", **own: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "folkmoot": own}


@pytest.mark.parametrize(
    ("model", "key", "text", "rule"),
    [
        ("moot", None, "why is the sky blue?", ""),
        ("moot", None, "my IBAN is DE00", "api.privacy.patterns[0]"),
        ("moot", None, "my\nDiagnosis", "api.privacy.patterns[1]"),
        ("work", None, "hello", "api.privacy.models[1]"),
        ("moot", "phone", "hello", "api.privacy.keys[0]"),
        ("moot", "laptop", "hello", ""),
    ],
)
def test_which_rule_keeps_a_prompt_here(model: str, key: str | None, text: str, rule: str) -> None:
    turns = (Turn("system", "be brief"), Turn("user", text), Turn("user", "and now?"))
    assert rule_of(RULES, model, key, turns) == rule


def test_a_pattern_that_is_none_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"api\.privacy\.patterns\[1\]"):
        PrivacyConfig(patterns=("a", "("))


@pytest.mark.parametrize("own", [{}, {"mode": "auto"}, {"mode": "local"}, {"layers": 0}])
async def test_a_prompt_that_a_rule_fits_asks_nobody(connect, village, own) -> None:
    client = connect(privacy=RULES)
    assert (await client.post("/v1/chat/completions", json=body("my IBAN", **own))).status_code == 200
    assert village.prompts[-1].plan == Plan("local", 0, 0, private=True, rule="api.privacy.patterns[0]")


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("moot", {"layers": 1}),
        ("moot", {"proposers": 2}),
        ("moot", {"select": "fixed:birch"}),
        ("moot", {"aggregator": "strongest"}),
        ("moot-M1-k3", {}),
        ("birch", {}),
        ("moot-fast", {}),
    ],
)
async def test_who_asks_for_peers_against_a_rule_is_refused_by_its_name(connect, village, model, own) -> None:
    response = await connect(privacy=RULES).post("/v1/chat/completions", json=body("IBAN", model, **own))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid"
    assert "api.privacy." in error["message"]
    assert "IBAN" not in error["message"]
    assert not village.prompts


async def test_what_the_user_keeps_private_needs_no_rule(connect, village) -> None:
    client = connect(privacy=RULES)
    assert (await client.post("/v1/chat/completions", json=body("my IBAN", private=True))).status_code == 200
    assert village.prompts[-1].plan == Plan("local", 0, 0, private=True)
