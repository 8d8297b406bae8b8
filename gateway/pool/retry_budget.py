"""How many repeats on the same endpoint a route may make: a share of its requests, and a few beside.

As Finagle's `RetryBudget`: each request earns a share of a repeat, and each second a little more, so that an outage is
not answered with a multiple of its load. The first try of another endpoint is never gated.
"""

from __future__ import annotations

SHARE = 0.2
PER_S = 1.0
SAVED = 10.0
"""At most so many are saved up; so many there are at first."""


class RetryBudget:
    """Of one route."""

    __slots__ = ("_balance", "_seen")

    def __init__(self, now: float) -> None:
        self._balance, self._seen = SAVED, now

    def earn(self) -> None:
        """A request came."""
        self._balance = min(SAVED, self._balance + SHARE)

    def spend(self, now: float) -> bool:
        """Whether one more may go out; it counts as sent."""
        self._balance = min(SAVED, self._balance + PER_S * (now - self._seen))
        self._seen = now
        # A share summed up in floating point comes to a hair less than a whole.
        if self._balance < 1.0 - 1e-9:
            return False
        self._balance = max(0.0, self._balance - 1.0)
        return True
