"""Who was refused here and has not come back: how long they are told to wait, and how they are known again.

Source: ADMISSION.md, Retry-After.
"""

from __future__ import annotations

from hashlib import blake2b

from folkmoot.core.events import Prompt
from folkmoot.core.meter import Decayed

MOST_REFUSED = 1_024
LONGEST_S = 3_600.0
"""Nobody is told to wait longer, and whoever has not come back by then does not count any more."""


class Door:
    """Admissions and refusals of one device. It keeps a digest of what was refused, never its text."""

    def __init__(self) -> None:
        self._refused: dict[bytes, float] = {}
        self._admitted = Decayed()

    def returns(self, prompt: Prompt) -> bool:
        """Whether this conversation was refused here before."""
        return _digest(prompt) in self._refused

    def admit(self, prompt: Prompt, now: float, window_s: float) -> None:
        """It is let in; rates are means over `window_s` seconds."""
        self._refused.pop(_digest(prompt), None)
        self._admitted.add(now, window_s)

    def refuse(self, prompt: Prompt, now: float, window_s: float) -> tuple[float, int, float]:
        """It is not: seconds after which to try again, the number refused before it, prompts admitted per second.

        (L + 1)/μ, an estimate and no promise; 0 where nothing was ever admitted.
        """
        for old in [each for each, at in self._refused.items() if now - at > LONGEST_S]:
            del self._refused[old]
        digest = _digest(prompt)
        before = list(self._refused).index(digest) if digest in self._refused else len(self._refused)
        self._refused.setdefault(digest, now)
        if len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]
        rate = self._admitted.rate(now, window_s)
        return (min(LONGEST_S, (before + 1) / rate) if rate else 0.0), before, rate


def _digest(prompt: Prompt) -> bytes:
    found = blake2b(digest_size=16)
    for turn in prompt.conversation:
        for text in (turn.role, turn.content):
            data = text.encode(errors="surrogatepass")
            found.update(len(data).to_bytes(8, "big") + data)
    return found.digest()
