"""What an inference has cost so far, by its engine's own clock."""

from __future__ import annotations

import asyncio

from folkmoot.core.messages import Usage


class Meter:
    """Counts one inference from its construction on; needs a running event loop for the time.

    The engine keeps the three counts of tokens up to date as far as it knows them.
    """

    def __init__(self) -> None:
        self.tokens_in = 0
        self.tokens_cached = 0
        self.tokens_out = 0
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._first_s: float | None = None

    def wrote(self, tokens: int) -> None:
        """Words have come; the first call sets the time to first token."""
        self.tokens_out += tokens
        if self._first_s is None:
            self._first_s = self._clock() - self._began

    def refused(self, status: int) -> Usage:
        """The cost where a server answered with this HTTP status: nothing where it refused the question (4xx).

        Behind another status the question may have been read, and billed.
        """
        if 400 <= status < 500:
            self.tokens_in = 0
        return self.usage

    @property
    def usage(self) -> Usage:
        """The cost up to this moment."""
        seconds = self._clock() - self._began
        first = seconds if self._first_s is None else self._first_s
        cached = min(self.tokens_cached, self.tokens_in)
        return Usage(self.tokens_in, cached, self.tokens_out, seconds, first)
