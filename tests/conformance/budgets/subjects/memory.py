"""The ledger in memory, with a clock that the claims turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.pool.ledger_memory import MemoryLedger
from tests.conformance.budgets.subject import LEASE_S, Subject
from tests.support.clock import ManualClock


class MemorySubject:
    """Opens `kind`, which a test of the claims may set to a ledger with a bug."""

    def __init__(self, kind: type[MemoryLedger] = MemoryLedger) -> None:
        self._clock = ManualClock()
        self.ledger = kind(self._clock, lease_s=LEASE_S)

    def now(self) -> float:
        return self._clock.now()

    async def elapse(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def names(self) -> list[str]:
        return []


@asynccontextmanager
async def opened() -> AsyncIterator[Subject]:
    """Nothing is left behind by memory."""
    yield MemorySubject()
