"""When a silent endpoint is not waited for any longer, but another one asked beside it. Pure; `hedged` acts.

The wait is the p95 of the endpoint's own times to first token, so that about one request in twenty is hedged, and the
load grows by as much at most (Dean and Barroso, "The Tail at Scale", 2013): each request earns a share of a hedge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.pool.retry_budget import RetryBudget

if TYPE_CHECKING:
    from gateway.pool.statistics import Statistics

QUANTILE = 0.95
MIN_ANSWERS = 20
"""Fewer say nothing of a 95th percentile."""
SAVED = 5.0
"""So many hedges may go out at once after a quiet time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """`share` of a route's requests may be hedged; nobody is hedged before `wait_min_s`.

    `wait_unknown_s` is the wait for an endpoint of which too few answers are known.
    """

    share: float = 0.05
    wait_min_s: float = 0.2
    wait_unknown_s: float = 2.0


class Hedging:
    """Of one route: its policy, what it may still send, and what became of what it sent, by result."""

    __slots__ = ("_budget", "_policy", "results", "sent")

    def __init__(self, policy: HedgePolicy, now: float) -> None:
        self._policy = policy
        self._budget = RetryBudget(now, share=policy.share, per_s=0.0, saved=SAVED, at_first=0.0)
        self.sent = 0
        self.results = {"won": 0, "lost": 0, "failed": 0}

    def earn(self) -> None:
        """A request came."""
        self._budget.earn()

    def wait_s(self, known: Statistics) -> float:
        """Seconds without content after which a request to this endpoint may be hedged."""
        p95 = known.first_token_percentile_s(QUANTILE) if known.answers >= MIN_ANSWERS else None
        return self._policy.wait_unknown_s if p95 is None else max(p95, self._policy.wait_min_s)

    def spend(self, now: float) -> bool:
        """Whether one more may go out; it counts as sent."""
        if not self._budget.spend(now):
            return False
        self.sent += 1
        return True

    def shown(self) -> dict[str, Any]:
        """For `/v1/pool`."""
        return {
            "share": self._policy.share,
            "wait_min_ms": round(1000 * self._policy.wait_min_s, 3),
            "wait_unknown_ms": round(1000 * self._policy.wait_unknown_s, 3),
            "may_send": int(self._budget.balance),
            "sent": self.sent,
            **self.results,
        }
