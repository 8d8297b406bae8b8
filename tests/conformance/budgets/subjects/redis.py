"""The Redis ledger on a real server, with a clock that the claims turn.

Redis' time cannot be turned, so the scripts are given another text that tells it, and what passes for the claim is
taken off every key's time to live. Each turn of the clock looks that no key is without one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.pool.ledger_redis import RedisLedger, Scripts
from gateway.upstream.lane_redis import Lane
from gateway.upstream.link_redis import Link
from tests.conformance.budgets.subject import LEASE_S
from tests.support.clock import ManualClock
from tests.support.redis_server import ELAPSE, RedisServer, shared_redis


class RedisSubject:
    """Opens `kind`, which a test of the claims may set to a ledger with a bug."""

    def __init__(self, server: RedisServer, kind: type[RedisLedger] = RedisLedger) -> None:
        self._server, self._clock = server, ManualClock()
        server.flush()
        self.ledger = kind(Lane(Link(server.url, ManualClock())), lease_s=LEASE_S, scripts=self._scripts())

    def _scripts(self) -> Scripts:
        return Scripts(f"return {self._clock.now() * 1000:.0f}")

    def now(self) -> float:
        return self._clock.now()

    async def elapse(self, seconds: float) -> None:
        self._clock.advance(seconds)
        with self._server.client() as client:
            naked = client.eval(ELAPSE, 0, int(seconds * 1000))
        assert naked == [], f"keys without a time to live: {naked}"
        self.ledger.scripts = self._scripts()

    def names(self) -> list[str]:
        return self._server.names("atlas:bud:*")


@asynccontextmanager
async def opened() -> AsyncIterator[RedisSubject]:
    """On the server of this test process, flushed for each claim."""
    subject = RedisSubject(shared_redis())
    task = asyncio.create_task(subject.ledger.run())
    try:
        yield subject
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
