"""How fast a peer may go: a token bucket on an injected clock."""

from __future__ import annotations


class Bucket:
    """`rate_hz` tokens come in per second, at most `burst` are kept; what is taken too early is debt."""

    def __init__(self, rate_hz: float, burst: float, now: float) -> None:
        self._rate_hz = rate_hz
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, tokens: float, now: float) -> float:
        """Take tokens; the seconds to wait until they are paid for (0: none)."""
        self._refill(now)
        self._tokens -= tokens
        return max(0.0, -self._tokens / self._rate_hz)

    def allow(self, now: float) -> bool:
        """Take one token if there is one."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def due_s(self, now: float) -> float:
        """Seconds until there is a token."""
        self._refill(now)
        return max(0.0, (1.0 - self._tokens) / self._rate_hz)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_hz)
        self._at = now
