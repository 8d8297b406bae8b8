"""The Redis journal on a real server, standalone, with a clock that the claims turn.

Redis' time cannot be turned, so the scripts are given another text that tells it, and what passes for the claim is
taken off every key's time to live. Each turn of the clock looks that no key is without one.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.streams.journal_redis import Lifetimes, RedisJournal
from gateway.streams.scripts_redis import Scripts
from gateway.upstream.link_redis import Link
from tests.conformance.journal.subject import Limits
from tests.support.clock import ManualClock
from tests.support.redis_server import ELAPSE, RedisServer, shared_redis

_BOUND = "the bound is Redis' own maxmemory, which gives up no log: see tests/unit/streams/test_journal_redis.py"
UNSUPPORTED: dict[str, str] = {
    "the_oldest_ended_log_makes_room": _BOUND,
    "a_journal_full_of_live_logs_refuses": _BOUND,
    "a_full_journal_can_still_be_controlled": _BOUND,
    "deleting_makes_room": _BOUND,
}


class RedisSubject:
    """Opens `kind`, which a test of the claims may set to a journal with a bug."""

    def __init__(self, *servers: RedisServer, kind: type[RedisJournal] = RedisJournal, url: str | None = None) -> None:
        self._servers, self._kind, self._url = servers, kind, url or servers[0].url
        self._clock = ManualClock()
        self._task: asyncio.Task[None] | None = None
        self._journal: RedisJournal
        self._turned = time.monotonic()

    async def open(self, limits: Limits | None = None) -> RedisJournal:
        await self.close()
        for server in self._servers:
            server.flush()
        limits = limits or Limits()
        lifetimes = Lifetimes(
            ttl_live_s=limits.ttl_live_s,
            ttl_terminal_s=limits.ttl_terminal_s,
            ttl_record_s=limits.ttl_record_s,
            ttl_idempotency_s=limits.ttl_idempotency_s,
        )
        link = Link(self._url, self._clock)
        self._journal = self._kind(link, lifetimes, self._clock, scripts=self._scripts())
        self._turned = time.monotonic()
        self._task = asyncio.create_task(self._journal.run())
        return self._journal

    def _scripts(self) -> Scripts:
        return Scripts(f"return {self._clock.now() * 1000:.0f}")

    def now(self) -> float:
        return self._clock.now()

    async def elapse(self, seconds: float) -> None:
        """What passed for Redis since the last turn does not count."""
        self._clock.advance(seconds)
        passed, self._turned = time.monotonic() - self._turned, time.monotonic()
        for server in self._servers:
            with server.client() as client:
                naked = client.eval(ELAPSE, 0, int((seconds - passed) * 1000))
            assert naked == [], f"keys without a time to live: {naked}"
        self._journal.scripts = self._scripts()
        await self._journal.sweep()

    def used(self) -> int | None:
        """Logs; records live on for their own time."""
        return sum(len(server.names("atlas:{*}:j")) for server in self._servers)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


@asynccontextmanager
async def opened() -> AsyncIterator[RedisSubject]:
    """On the server of this test process, flushed with each journal."""
    subject = RedisSubject(shared_redis())
    try:
        yield subject
    finally:
        await subject.close()
