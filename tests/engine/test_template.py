from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.core.messages import Turn
from folkmoot.engine.template import marked, plain, split


def test_what_the_template_puts_around_the_texts() -> None:
    pairs = marked(["user", "assistant"])
    rendered = "".join(f"<{role}>{marker.strip()}</{role}>" for role, marker in pairs) + "<go>"
    assert split(rendered, [marker for _, marker in pairs]) == (
        "<user>",
        "</user><assistant>",
        "</assistant><go>",
    )
    assert len({marker for _, marker in marked(["user"] * 50)}) == 50


def test_a_template_that_drops_repeats_or_reorders_is_unfit() -> None:
    assert split("a X b", ["X", "Y"]) is None
    assert split("X and X", ["X"]) is None
    assert split("Y X", ["X", "Y"]) is None


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=5))))
def test_the_plain_form_alternates_and_keeps_all_text(turns: list[tuple[str, str]]) -> None:
    merged = plain([Turn(role, text) for role, text in turns])
    assert [turn.role for turn in merged] == [
        ("user", "assistant")[place % 2] for place in range(len(merged))
    ]
    kept = "".join(turn.content for turn in merged)
    assert all(text in kept for _, text in turns)
