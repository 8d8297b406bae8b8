"""How many requests beyond the first try an upstream is given: repeats on the same endpoint, and hedges.

A retry budget, as Finagle's `RetryBudget`: each request earns a share of a repeat, and each second a little more, so
that an outage is not answered with a multiple of its load. The first try of another endpoint is never gated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.pool.statistics import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraPolicy:
    """`share` of the requests, and `per_s` beside that; at most `saved` are saved up."""

    share: float
    per_s: float
    saved: float


REPEATS = ExtraPolicy(share=0.2, per_s=1.0, saved=10.0)
HEDGES = ExtraPolicy(share=0.05, per_s=0.0, saved=5.0)

HEDGE_SAMPLES = 20
"""Answers of an endpoint before its 95th percentile means anything."""


class ExtraBudget:
    """Of one route."""

    __slots__ = ("_balance", "_policy", "_seen")

    def __init__(self, policy: ExtraPolicy, now: float) -> None:
        self._policy, self._seen = policy, now
        self._balance = policy.saved if policy.per_s else 0.0

    def earn(self) -> None:
        """A request came."""
        self._balance = min(self._policy.saved, self._balance + self._policy.share)

    def spend(self, now: float) -> bool:
        """Whether one more may go out; it counts as sent."""
        policy = self._policy
        self._balance = min(policy.saved, self._balance + policy.per_s * (now - self._seen))
        self._seen = now
        # A share summed up in floating point comes to a hair less than a whole.
        if self._balance < 1.0 - 1e-9:
            return False
        self._balance = max(0.0, self._balance - 1.0)
        return True


def hedge_after_s(statistics: Statistics) -> float | None:
    """How long to wait for the first token before a second endpoint is asked beside; None: too little is known."""
    if statistics.answers < HEDGE_SAMPLES:
        return None
    return statistics.first_token_percentile_s(0.95)
