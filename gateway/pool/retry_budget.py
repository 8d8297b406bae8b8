"""How many extra requests a route may make: a share of its requests, and a few beside.

As Finagle's `RetryBudget`: each request earns a share of a repeat, and each second a little more, so that an outage is
not answered with a multiple of its load. The first try of another endpoint is never gated.
"""

from __future__ import annotations

SHARE = 0.2
PER_S = 1.0
SAVED = 10.0
"""At most so many are saved up; so many there are at first."""

# A share summed up in floating point comes to a hair less than a whole.
_WHOLE = 1.0 - 1e-9


class RetryBudget:
    """Of one route."""

    __slots__ = ("_balance", "_per_s", "_saved", "_seen", "_share")

    def __init__(
        self, now: float, *, share: float = SHARE, per_s: float = PER_S, saved: float = SAVED, at_first: float = SAVED
    ) -> None:
        self._share, self._per_s, self._saved = share, per_s, saved
        self._balance, self._seen = at_first, now

    @property
    def balance(self) -> float:
        """How many may go out, as of the last one that did."""
        return self._balance

    def earn(self) -> None:
        """A request came."""
        self._balance = min(self._saved, self._balance + self._share)

    def spend(self, now: float) -> bool:
        """Whether one more may go out; it counts as sent."""
        self._balance = min(self._saved, self._balance + self._per_s * (now - self._seen))
        self._seen = now
        if self._balance < _WHOLE:
            return False
        self._balance = max(0.0, self._balance - 1.0)
        return True
