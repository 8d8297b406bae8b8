"""The embedded journal with a clock that the claims turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.streams.journal_memory import Bounds, MemoryJournal
from tests.conformance.journal.subject import Limits, Subject
from tests.support.clock import ManualClock

UNSUPPORTED: dict[str, str] = {}


class MemorySubject:
    """Opens `kind`, which a test of the claims may set to a journal with a bug."""

    def __init__(self, kind: type[MemoryJournal] = MemoryJournal) -> None:
        self._kind = kind
        self._clock = ManualClock()
        self._journal: MemoryJournal

    async def open(self, limits: Limits | None = None) -> MemoryJournal:
        limits = limits or Limits()
        bounds = Bounds(
            max_total_bytes=limits.total_bytes,
            ttl_live_s=limits.ttl_live_s,
            ttl_terminal_s=limits.ttl_terminal_s,
            ttl_record_s=limits.ttl_record_s,
            ttl_idempotency_s=limits.ttl_idempotency_s,
        )
        self._journal = self._kind(bounds, self._clock)
        return self._journal

    def now(self) -> float:
        return self._clock.now()

    async def elapse(self, seconds: float) -> None:
        self._clock.advance(seconds)
        await self._journal.sweep()

    def used(self) -> int | None:
        return self._journal.total_bytes


@asynccontextmanager
async def opened() -> AsyncIterator[Subject]:
    """Nothing is left behind by memory."""
    yield MemorySubject()
