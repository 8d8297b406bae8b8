"""How often a key may do something: so many a second in this process, and as many at once after a rest.

Prior art: the generic cell rate algorithm (ITU-T I.371), which keeps one number for each key and counts nothing. What
is limited by the minute or over all replicas is a budget, see `gateway.pool.plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal

BURST_S = 1.0


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
        now = self._clock.monotonic()
        paid = max(self._paid.get(who.key_id, 0.0), now) + 1.0 / self.per_s
        if paid - now > max(BURST_S, 1.0 / self.per_s):
            raise self._exceeded(self.per_s)
        self._paid[who.key_id] = paid

    def _exceeded(self, per_s: float) -> RequestError:
        return RequestError(
            f"a key may make {per_s:g} {self._what} a second here; try again in 1 s",
            status=429, code="rate_limit_exceeded", type_="rate_limit_error", headers={"retry-after": "1"},
        )  # fmt: skip
