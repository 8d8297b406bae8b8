"""The circuit breaker of one endpoint: whether it is asked at all. Sans-IO: time and randomness are given.

    closed ──── 5 failures in a row, or half of 10 and more in 30 s, or a failed health check ───> open
    open ────── 5 s, doubled each time up to 300 s ───> half_open
    half_open ─ the probe's first content ───> closed;  its failure ───> open

While half open one real request is admitted, as a probe. What it counts as is one row of `core.errors.CONSEQUENCES`,
column `breaker`. The shape is that of Nygard's "Release It!" (2007) and of linkerd's failure accrual.

Oddities, on purpose:
1. A ticket is the number of the breaker's last move. What comes back with an older one belongs to a past state and says
   nothing: an answer of before the opening closes nothing, a probe that lost its lease decides nothing.
2. Failures in a row are counted twice: before the content, where any first content ends the row, and after it, where
   only a whole answer does. Else an endpoint that cuts every stream in the middle would never have two in a row.
3. Whether the ratio may open is the caller's to say: it never opens the last closed endpoint of a route.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from gateway.core.errors import Breaker as Weight


class BreakerState(StrEnum):
    """What a request meets: all pass, none, or one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When it opens and for how long; times in seconds. An open time is `jitter` shorter at most."""

    failures: int = 5
    ratio: float = 0.5
    samples: int = 10
    window_s: float = 30.0
    open_s: float = 5.0
    open_max_s: float = 300.0
    jitter: float = 0.2
    lease_s: float = 30.0


DEFAULT_POLICY = BreakerPolicy()
_BUCKETS = 10
_ALWAYS = float("-inf")


def _tell_nobody(_state: BreakerState) -> None:
    """Nobody wants to know."""


class CircuitBreaker:
    """See above. `blocked_until` is the time before which nothing is admitted, `-inf` while closed.

    `on_move` is told of each state that is entered: of half open when a request is admitted as the probe.
    """

    __slots__ = (
        "_ahead", "_bucket", "_cuts", "_failed", "_good", "_openings", "_policy", "_rng", "_row", "_ticket",
        "_width_s", "blocked_until", "on_move", "reason",
    )  # fmt: skip

    def __init__(self, rng: random.Random, policy: BreakerPolicy = DEFAULT_POLICY) -> None:
        self._rng, self._policy = rng, policy
        self._ticket = self._openings = self._row = self._cuts = 0
        self._width_s = policy.window_s / _BUCKETS
        self._bucket, self._ahead = 0, _ALWAYS
        self._good, self._failed = [0] * _BUCKETS, [0] * _BUCKETS
        self.blocked_until = _ALWAYS
        self.reason: str | None = None
        self.on_move: Callable[[BreakerState], None] = _tell_nobody

    @property
    def is_closed(self) -> bool:
        """Whether requests pass freely."""
        return self.reason is None

    def state(self, now: float) -> BreakerState:
        """What a request meets at `now`; half open also while the probe is under way."""
        if self.reason is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._is_probed or now >= self.blocked_until else BreakerState.OPEN

    @property
    def _is_probed(self) -> bool:
        return self._ticket % 2 == 1

    def admit(self, now: float) -> int | None:
        """A ticket for one request; None: not now. Beyond a failure every admission must come back by its ticket."""
        if self.reason is None:
            return self._ticket
        if now < self.blocked_until:
            return None
        self._move(probed=True)
        self.blocked_until = now + self._policy.lease_s
        self.on_move(BreakerState.HALF_OPEN)
        return self._ticket

    def answered(self, ticket: int, now: float) -> None:
        """The first content of a request arrived: this is what a probe is judged by."""
        if ticket != self._ticket:
            return
        if self.reason is None:
            self._row = 0
            self._good[self._at(now)] += 1
        else:
            self._close()

    def finished(self, ticket: int) -> None:
        """An answer came to its end."""
        if ticket == self._ticket:
            self._cuts = 0

    def failed(self, ticket: int, now: float, weight: Weight, *, after_content: bool, last_closed: bool) -> None:
        """A request failed. `last_closed`: no other endpoint of a route of this one is closed."""
        if ticket != self._ticket:
            return
        if self.reason is not None:
            if weight == "ignores":
                self.released(ticket, now)
            else:
                self._open(now, "the probe failed")
        elif weight not in {"ignores", "probe"}:
            self._count(now, weight, after_content=after_content, last_closed=last_closed)

    def released(self, ticket: int, now: float) -> None:
        """A request was left without a verdict: cancelled, paused, or its caller was at fault. Its slot is free."""
        if ticket == self._ticket and self._is_probed:
            self._move(probed=False)
            self.blocked_until = now

    def trip(self, now: float, reason: str) -> None:
        """A health check failed: open, if this is not open already."""
        if self.reason is None or self.state(now) is BreakerState.HALF_OPEN:
            self._open(now, reason)

    def probe_now(self, now: float) -> None:
        """An administrator wants the next request to be the probe."""
        if self.reason is not None and not self._is_probed:
            self.blocked_until = now

    def shown(self, now: float) -> dict[str, Any]:
        """For `/v1/pool`."""
        good, failed = self._sums(now)
        return {
            "state": self.state(now),
            "reason": self.reason,
            "open_for_s": None if self.reason is None else round(max(0.0, self.blocked_until - now), 3),
            "failures_in_a_row": max(self._row, self._cuts),
            "window": {"samples": good + failed, "failures": failed},
            "policy": asdict(self._policy),
        }

    def _count(self, now: float, weight: Weight, *, after_content: bool, last_closed: bool) -> None:
        self._failed[self._at(now)] += 1
        if weight == "counts":
            if after_content:
                self._cuts += 1
            else:
                self._row += 1
        if max(self._row, self._cuts) >= self._policy.failures:
            self._open(now, f"{self._policy.failures} failures in a row")
        elif last_closed:
            return
        elif weight == "opens":
            self._open(now, "misconfigured: the provider does not know the model")
        else:
            good, failed = sum(self._good), sum(self._failed)
            if good + failed >= self._policy.samples and failed >= self._policy.ratio * (good + failed):
                self._open(now, f"{failed} of {good + failed} requests failed")

    def _at(self, now: float) -> int:
        """The bucket of `now`, with everything between the last one and it forgotten."""
        if now >= self._ahead:
            number = int(now // self._width_s)
            gone = min(_BUCKETS, number - self._bucket)
            for past in range(number - gone + 1, number + 1):
                self._good[past % _BUCKETS] = self._failed[past % _BUCKETS] = 0
            self._bucket, self._ahead = number, (number + 1) * self._width_s
        return self._bucket % _BUCKETS

    def _sums(self, now: float) -> tuple[int, int]:
        """Answers and failures in the window, without moving it."""
        oldest = int(now // self._width_s) - _BUCKETS
        live = [number % _BUCKETS for number in range(self._bucket - _BUCKETS + 1, self._bucket + 1) if number > oldest]
        return sum(self._good[at] for at in live), sum(self._failed[at] for at in live)

    def _open(self, now: float, reason: str) -> None:
        policy = self._policy
        nominal = min(policy.open_max_s, policy.open_s * 2.0 ** min(self._openings, 32))
        self._openings += 1
        self._move(probed=False)
        self.reason = reason
        self.blocked_until = now + nominal * (1.0 - policy.jitter * self._rng.random())
        self.on_move(BreakerState.OPEN)

    def _close(self) -> None:
        self._move(probed=False)
        self.reason, self.blocked_until, self._openings = None, _ALWAYS, 0
        self._row = self._cuts = 0
        self._good, self._failed = [0] * _BUCKETS, [0] * _BUCKETS
        self.on_move(BreakerState.CLOSED)

    def _move(self, *, probed: bool) -> None:
        """A new ticket: odd ones are probes."""
        self._ticket += 1 + ((self._ticket + 1) % 2 != probed)
