"""The keys of one endpoint: which one is used next, and which ones rest.

By number only: the keys themselves are with the adapters, one for each key, over one transport. A key that works goes
on being used; one that was refused rests, and the next one takes its turn before another endpoint is asked.
What a failure does to a key is one `match`, after pool.md section 2 of the specification. Sans-IO; monotonic seconds.
"""

from __future__ import annotations

import logging
from typing import Any

from gateway.core.errors import Category, Failure

log = logging.getLogger("atlas.pool")

RATE_LIMITED_S = 5.0
"""Rest after a 429 that names no time."""

RATE_LIMITED_MAX_S = 300.0
QUOTA_S = 3600.0
"""Rest after a spent quota that names no time: longer than any window of requests a minute."""

QUOTA_MAX_S = 31 * 86400.0
_ALWAYS, _NEVER = float("-inf"), float("inf")


class EndpointKeys:
    """Of one endpoint; one without keys counts as one key. `blocked_until`: before that no key may be used.

    `refusal` is how the provider refused a key for good last.
    """

    __slots__ = ("_current", "_names", "_reasons", "_until", "blocked_until", "refusal")

    def __init__(self, endpoint: str, count: int) -> None:
        self._names = [f"{endpoint}[{number}]" for number in range(max(count, 1))]
        self._until = [_ALWAYS] * len(self._names)
        self._reasons: list[str | None] = [None] * len(self._names)
        self._current = 0
        self.blocked_until = _ALWAYS
        self.refusal = Category.PROVIDER_AUTH

    def __len__(self) -> int:
        return len(self._names)

    @property
    def are_refused(self) -> bool:
        """Whether there is no key that will work again by itself."""
        return self.blocked_until == _NEVER

    def choose(self, now: float) -> int | None:
        """The number of the key to use; None if all rest."""
        if now < self.blocked_until:
            return None
        for step in range(len(self._until)):
            number = (self._current + step) % len(self._until)
            if now >= self._until[number]:
                self._current = number
                return number
        return None

    def failed(self, number: int, failure: Failure, now: float) -> bool:
        """A failure with this key; whether another one can be tried at once, which is a rotation, not a repeat."""
        match failure.category:
            case Category.RATE_LIMITED:
                wait = RATE_LIMITED_S if failure.retry_after_s is None else failure.retry_after_s
                self._rest(number, now + min(wait, RATE_LIMITED_MAX_S), "rate limited")
            case Category.QUOTA:
                wait = QUOTA_S if failure.retry_after_s is None else failure.retry_after_s
                self._rest(number, now + min(wait, QUOTA_MAX_S), "quota spent")
            case Category.PROVIDER_AUTH | Category.PROVIDER_PERMISSION:
                about = {"provider_key": self._names[number], "category": failure.category}
                log.error("a provider refuses a key, which is not used any more", extra=about)
                self.refusal = failure.category
                self._rest(number, _NEVER, f"refused: {failure.category}")
            case _:
                return False
        return now >= self.blocked_until

    def revive(self) -> None:
        """An administrator wants every key to be tried again."""
        for number in range(len(self._until)):
            self._rest(number, _ALWAYS, None)
        self._current = 0

    def shown(self, now: float) -> list[dict[str, Any]]:
        """For `/v1/pool`: by place in the configuration, without secrets."""
        return [
            {
                "key": number,
                "state": _state(until, now),
                "rests_s": _rests(until, now),
                "reason": reason if until > now else None,
            }
            for number, (until, reason) in enumerate(zip(self._until, self._reasons, strict=True))
        ]

    def _rest(self, number: int, until: float, reason: str | None) -> None:
        self._until[number], self._reasons[number] = until, reason
        self._current = (number + 1) % len(self._until)
        self.blocked_until = min(self._until)


def _state(until: float, now: float) -> str:
    if until == _NEVER:
        return "disabled"
    return "parked" if until > now else "ready"


def _rests(until: float, now: float) -> float | None:
    return round(until - now, 3) if now < until < _NEVER else None
