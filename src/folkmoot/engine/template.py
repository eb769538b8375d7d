"""A model's own chat template, seen only through what it makes of marked messages."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from folkmoot.core.messages import Turn


def marked(roles: Sequence[str]) -> list[tuple[str, str]]:
    """A message for every role whose text is a marker that nobody can guess: pairs of role and marker."""
    return [(role, f"mark{secrets.token_hex(12)}end") for role in roles]


def split(rendered: str, markers: Sequence[str]) -> tuple[str, ...] | None:
    """What the template puts before, between and after the texts; None if it drops, repeats or reorders one."""
    parts: list[str] = []
    rest = rendered
    for marker in markers:
        before, found, rest = rest.partition(marker)
        if not found:
            return None
        parts.append(before)
    if any(marker in part for marker in markers for part in (*parts, rest)):
        return None
    return (*parts, rest)


def plain(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The conversation for templates that know only user and assistant, in alternation, user first.

    System texts move into the next user turn, neighbours of one role become one turn.
    """
    merged: list[Turn] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        if merged and merged[-1].role == role:
            joined = "\n\n".join(text for text in (merged[-1].content, turn.content) if text)
            merged[-1] = Turn(role, joined)
        elif not merged and role == "assistant":
            merged += [Turn("user", ""), Turn(role, turn.content)]
        else:
            merged.append(Turn(role, turn.content))
    return tuple(merged)
