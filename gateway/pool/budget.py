"""A budget: so much of one thing for one key or tenant in one window, and the arithmetic that every ledger shares.

Amounts are whole numbers: tokens, billionths of a dollar, requests, streams. Windows are calendar ones in UTC: the
minute, hour, day or month that it is, or all time. A block belongs to the window in which it was reserved.

Rate limits are budgets too. They decide who is let in (`stops` is false), and stop no stream that runs: what it takes
beyond is counted where it is settled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

NANO = 1_000_000_000
"""Billionths in a dollar: the dearest token of today costs 600,000 of them, the cheapest 20."""

DAY_S = 86_400
MONTH_S = 31 * DAY_S
TOTAL_S = 400 * DAY_S
"""A budget of all time is forgotten when nothing was taken from it for so long."""


class Unit(StrEnum):
    """What is counted."""

    TOKENS = "tokens"  # of prompts and answers together
    USD = "usd"  # in billionths
    REQUESTS = "requests"
    STREAMS = "streams"  # open at once: held while they run, never spent


class Per(StrEnum):
    """The window; `request` has none: every request may take so much."""

    REQUEST = "request"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


_SPANS_S = {Per.MINUTE: 60, Per.HOUR: 3600, Per.DAY: DAY_S}
_NOUNS = {Per.REQUEST: "a request", Per.TOTAL: "in all"}
_KEPT_S = {Per.MONTH: 2 * MONTH_S, Per.TOTAL: TOTAL_S}


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """So much of one unit in one window. `key` None: all keys of the tenant share it."""

    tenant: str
    key: str | None = None
    unit: Unit
    limit: int
    per: Per
    stops: bool = True

    @property
    def name(self) -> str:
        """Tells budgets of one tenant apart; with another limit it is the same budget."""
        scope = "t" if self.key is None else f"k:{self.key}"
        return f"{scope}:{self.unit}:{self.per}:{'b' if self.stops else 'l'}"

    @property
    def kept_s(self) -> int:
        """How long a ledger remembers what was taken last, seconds; at least to the end of the window."""
        if self.unit is Unit.STREAMS:
            return DAY_S
        return _KEPT_S.get(self.per) or 2 * _SPANS_S.get(self.per, 60)

    @property
    def shown(self) -> str:
        """For messages: whose, how much, and in which time."""
        whose = f"tenant {self.tenant!r}" if self.key is None else f"key {self.key!r}"
        amount = f"{self.limit / NANO:g} USD" if self.unit is Unit.USD else f"{self.limit} {self.unit}"
        if self.unit is Unit.STREAMS:
            return f"{whose}: {amount} at once"
        return f"{whose}: {amount} {_NOUNS.get(self.per, f'a {self.per}')}"


class Window(msgspec.Struct, frozen=True):
    """From `start` to `end`, Unix seconds; all time ends at 0."""

    start: int
    end: int


def window_of(per: Per, now: float) -> Window:
    """The window that Unix time `now` lies in."""
    if (span := _SPANS_S.get(per)) is not None:
        start = int(now // span) * span
        return Window(start, start + span)
    if per is not Per.MONTH:
        return Window(0, 0)
    start = _month(now)
    return Window(start, _month(start + MONTH_S + DAY_S))


def _month(now: float) -> int:
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(first.timestamp())


def granted(free: int, need: int, block: int) -> int | None:
    """What is reserved where `free` is left: all of `need`, and of `block` as much as leaves some for others.

    A quarter of what is left, and at least a 32nd of the block: so blocks shrink as a budget runs dry, and two hundred
    streams share its end. None where the need cannot be met.
    """
    if free < need:
        return None
    rest = max(free - need, 0)
    return need + min(block, rest, max(rest // 4, block // 32, 1))


def to_nano(usd: float) -> int:
    """Dollars as billionths, to the nearest."""
    return round(usd * NANO)
