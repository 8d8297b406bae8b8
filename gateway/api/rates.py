"""How often a key may do something: so many a second in this process, and as many at once after a rest.

Prior art: the generic cell rate algorithm (ITU-T I.371), which keeps one number for each key and counts nothing. What
is limited by the minute or over all replicas is a budget, see `gateway.pool.plan`.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal

BURST_S = 1.0
ROUNDING_S = 1e-6
"""What sums of clocks and shares are off by, at most."""


class Rate:
    """At most `per_s` of `what` a second for each key; None: no limit. Keys are few, and all of them configured."""

    def __init__(self, per_s: float | None, what: str, clock: Clock) -> None:
        self.per_s, self._what, self._clock = per_s, what, clock
        self._paid: dict[str | None, float] = {}  # until when what a key did is paid for

    def take(self, who: Principal) -> None:
        """Count one.

        Raises:
            RequestError: 429, this key did as many as it may.
        """
        if self.per_s is None:
            return
        now, each_s = self._clock.monotonic(), 1.0 / self.per_s
        paid = max(self._paid.get(who.key_id, 0.0), now) + each_s
        over_s = paid - now - max(BURST_S, each_s)
        if over_s > ROUNDING_S:
            raise self._exceeded(self.per_s, max(1, ceil(over_s)))
        self._paid[who.key_id] = paid

    def _exceeded(self, per_s: float, after_s: int) -> RequestError:
        return RequestError(
            f"a key may make {per_s:g} {self._what} a second here; try again in {after_s} s",
            status=429, code="rate_limit_exceeded", type_="rate_limit_error", headers={"retry-after": str(after_s)},
        )  # fmt: skip
