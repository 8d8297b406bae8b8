"""What one endpoint may be given: streams at once, requests and tokens a minute. Ours, so that the vendor need not.

Nobody waits here: what does not fit is refused with `pool_exhausted`, and the next endpoint is asked. A rate is counted
in two fixed windows, of which the older one counts for the part that still lies within the last minute: exact for even
traffic, never more than the limit in any calendar window (the sliding window counter of Cloudflare's blog, 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLimits:
    """Streams at once, requests and tokens a minute; None: no limit."""

    max_concurrent: int | None = None
    rpm: int | None = None
    tpm: int | None = None


NO_LIMITS = EndpointLimits()


class MinuteWindow:
    """A limit of so much a minute."""

    __slots__ = ("_before", "_count", "_limit", "_window")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._window, self._count, self._before = 0, 0.0, 0.0

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until `amount` may pass; 0: now. More than the whole limit passes when nothing else did."""
        self._turn(now)
        room = max(0.0, self._limit - amount)
        excess = self._used(now) - room
        if excess <= 0.0:
            return 0.0
        left = WINDOW_S - now % WINDOW_S
        if self._before and excess <= self._before * left / WINDOW_S:
            return WINDOW_S * excess / self._before
        if self._count <= room or not self._count:
            return left
        return left + WINDOW_S * (self._count - room) / self._count

    def add(self, now: float, amount: float) -> None:
        """So much passed, or, negative, was not used after all."""
        self._turn(now)
        self._count = max(0.0, self._count + amount)

    def used(self, now: float) -> float:
        """What counts as having passed in the last minute."""
        self._turn(now)
        return self._used(now)

    def _used(self, now: float) -> float:
        return self._count + self._before * (1.0 - now % WINDOW_S / WINDOW_S)

    def _turn(self, now: float) -> None:
        window = int(now // WINDOW_S)
        if window != self._window:
            self._before = self._count if window == self._window + 1 else 0.0
            self._window, self._count = window, 0.0


class Admission:
    """The limits of one endpoint, and how much of them is used. `is_full`: another stream at once is one too many."""

    __slots__ = ("_max", "_requests", "_tokens", "is_full", "running")

    def __init__(self, limits: EndpointLimits = NO_LIMITS) -> None:
        self._max = limits.max_concurrent
        self._requests = None if limits.rpm is None else MinuteWindow(limits.rpm)
        self._tokens = None if limits.tpm is None else MinuteWindow(limits.tpm)
        self.running, self.is_full = 0, False

    @property
    def counts_tokens(self) -> bool:
        """Whether requests must be measured."""
        return self._tokens is not None

    def enter(self, now: float, tokens: int) -> float | None:
        """Take a place for a request of about so many tokens. None: it is in; else seconds until it may try again."""
        if self.is_full:
            return 1.0
        wait = max(
            0.0 if self._requests is None else self._requests.wait_s(now, 1),
            0.0 if self._tokens is None else self._tokens.wait_s(now, tokens),
        )
        if wait > 0.0:
            return wait
        self.running += 1
        self.is_full = self._max is not None and self.running >= self._max
        if self._requests is not None:
            self._requests.add(now, 1)
        if self._tokens is not None:
            self._tokens.add(now, tokens)
        return None

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        self.is_full = False

    def correct(self, now: float, tokens: int) -> None:
        """A request took so many tokens more than was said when it entered; negative: less."""
        if self._tokens is not None:
            self._tokens.add(now, tokens)

    def shown(self, now: float) -> dict[str, float | None]:
        """For `/v1/pool`."""
        return {
            "max_concurrent": self._max,
            "running": self.running,
            "requests_last_minute": None if self._requests is None else round(self._requests.used(now), 1),
            "tokens_last_minute": None if self._tokens is None else round(self._tokens.used(now), 1),
        }
