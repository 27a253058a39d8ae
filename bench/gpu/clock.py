"""How much time is left."""

from __future__ import annotations

import time


class Clock:
    """Runs down from a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.perf_counter())

    def part(self, share: float) -> Clock:
        """A share of what is left now."""
        return Clock(share * self.left())
