"""Several replicas in one event loop: each with its own journal, hub and fleet, on one real Redis."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from gateway.core.clock import SystemClock
from gateway.core.ids import new_sid
from gateway.streams.fleet_redis import FleetTiming, RedisFleet
from gateway.streams.hub import Channel, Hub
from gateway.streams.journal import Entry, JournalError
from gateway.streams.journal_redis import Lifetimes, RedisJournal
from gateway.streams.lifecycle import Op, Outcome, Record, Step
from gateway.streams.sweeper import Sweeper
from gateway.upstream.link_redis import Link, Timing
from tests.support.signals import PATIENCE_S
from tests.unit.streams.redis_world import STEADY, append, begin, texts, until

BRISK = FleetTiming(lease_s=0.6, poll_s=0.1, watch_s=0.1, watched_s=0.3, health_s=0.1, alive_s=0.05)
"""Everything at a tenth."""
HINTS_ONLY = FleetTiming(poll_s=30.0)


class Session:
    """The owner of a stream, as far as a fleet knows it."""

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.nudges = 0

    def nudge(self) -> None:
        self.nudges += 1


class Reader:
    """A reader, as far as a channel knows it."""

    sending = False
    sent_at = 0.0
    on_stuck = None

    def __init__(self) -> None:
        self.errors: list[JournalError] = []

    def published(self, _entry: Entry) -> bool:
        return True

    def wake(self) -> None:
        pass

    def fail(self, error: JournalError) -> None:
        self.errors.append(error)


class Replica:
    """One replica: what it owns, what it reads."""

    def __init__(self, url: str, timing: FleetTiming, link_timing: Timing, **changes: Any) -> None:
        clock = SystemClock()
        link = Link(url, clock, timing=link_timing)
        self.revoked: frozenset[str] = frozenset()
        self.journal = RedisJournal(link, Lifetimes(), clock, on_grown=self._grown)
        self.fleet = RedisFleet(new_sid()[:8], self.journal, clock, timing=timing, on_revoked=self._on_revoked)
        self.hub = Hub(self.fleet)
        self.fleet.attach(self.hub)
        self.sweeper = Sweeper(self.fleet.orphans, self.journal, self.hub, self, sweep_s=0.05, rng=random.Random(1))
        self.revived: list[str] = []
        self.revives = False
        self._lease_s = timing.lease_s
        self._tasks: list[asyncio.Task[None]] = []

    def _grown(self, sids: Any) -> None:
        self.fleet.grown(sids)

    def _on_revoked(self, key_ids: frozenset[str]) -> None:
        self.revoked = key_ids

    async def revive(self, record: Record) -> bool:
        """Claim it, if this replica does so at all."""
        if not self.revives:
            return False
        owner = f"{self.fleet.rid}-{new_sid()[:4]}"
        step = Step(op=Op.CLAIM, op_id=new_sid(), expect_gen=record.gen, owner=owner)
        answer, _ = await self.journal.step(record.sid, step)
        if answer.outcome is Outcome.CHANGED:
            self.revived.append(record.sid)
        return answer.outcome is Outcome.CHANGED

    async def took(self, _record: Record) -> None:
        """Nobody knows."""

    @property
    def rid(self) -> str:
        return self.fleet.rid

    def start(self, *, sweeping: bool = False) -> None:
        """Run."""
        self._tasks = [asyncio.create_task(self.journal.run()), asyncio.create_task(self.fleet.run())]
        if sweeping:
            self._tasks.append(asyncio.create_task(self.sweeper.run()))

    async def die(self) -> None:
        """Stop at once, as a killed process does: nothing is given up, nothing is said."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def begin(self, **changes: Any) -> tuple[Record, Session]:
        """A stream that is owned here."""
        record = await begin(self.journal, owner=f"{self.rid}-{new_sid()[:4]}", **changes)
        channel = self.hub.open(record.sid)
        channel.tail = 0
        session = Session(record.sid)
        self.hub.own(channel, session)  # type: ignore[arg-type]
        return record, session

    async def read(self, sid: str) -> tuple[Channel, Reader]:
        """A reader of this replica joins."""
        channel = self.hub.join(await self.journal.read(sid, -1, 1))
        reader = Reader()
        channel.attach(reader)
        return channel, reader

    async def sees(self, owner: str, *, alive: bool) -> None:
        """Returns once that owner's replica is held for alive here, or for dead."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.fleet.is_alive(owner) is not alive:  # noqa: ASYNC110  another process' business
                await asyncio.sleep(0.01)

    async def sweep(self) -> None:
        """One turn of the sweeper, whose replica may judge others all the while: it holds its own lease."""
        lease, held = self.fleet.lease, None
        while held is None or held != lease._since or lease.held_s < self._lease_s:
            await until(lambda: lease.held_s >= self._lease_s)
            held = lease._since
            await self.sweeper.turn()

    async def say(self, record: Record, first: int, *words: str) -> None:
        """The owner appends an entry."""
        await append(self.journal, record.sid, texts(record.gen, first, *words))


@asynccontextmanager
async def replicas(
    count: int,
    url: str,
    *,
    timing: FleetTiming = BRISK,
    link_timing: Timing = STEADY,
    sweeping: bool = False,
    listening: bool = True,
) -> AsyncIterator[list[Replica]]:
    """So many of them, running, each with its lease, and listening to hints if it can."""
    found = [Replica(url, timing, link_timing) for _ in range(count)]
    try:
        for replica in found:
            replica.start(sweeping=sweeping)
        await until(lambda: all(replica.fleet.lease.held_s > 0 for replica in found))
        if listening:
            await until(lambda: all(replica.fleet._listener.is_listening for replica in found))
        yield found
    finally:
        for replica in found:
            await replica.die()
