"""The lease on a clock that is turned by hand: when it counts as held, and who is told when it does not."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from gateway.streams.journal import JournalUnavailable
from gateway.streams.layout_redis import key_of_owned, key_of_replica
from gateway.streams.lease import Lease
from tests.support.clock import ManualClock
from tests.support.redis_server import shared_redis
from tests.support.run import run
from tests.unit.streams.fleet_world import BRISK, replicas
from tests.unit.streams.redis_world import until


class Place:
    """Where leases are kept: answers as it is told to."""

    def __init__(self) -> None:
        self.renewals = 0
        self.is_away = False
        self.was_there = True
        self.named: list[str] = []
        self.during = lambda: None

    async def renew(self, rid: str, lease_s: float) -> bool:
        self.renewals += 1
        self.during()
        if self.is_away:
            raise JournalUnavailable("away")
        return self.was_there

    async def own(self, rid: str, sids: Sequence[str]) -> None:
        self.named += sids


class World:
    """A lease of 0.03 s of the loop's time; the clock's time stands still."""

    def __init__(self) -> None:
        self.clock, self.place = ManualClock(), Place()
        self.doubts = 0
        self.lease = Lease(self.place, "r", self.clock, lease_s=0.03, owned=lambda: ["s"], on_doubt=self._doubt)

    def _doubt(self) -> None:
        self.doubts += 1

    async def renewed(self) -> None:
        """One more renewal was tried, and what follows from it is done."""
        seen = self.place.renewals
        await until(lambda: self.place.renewals > seen + 1)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """One that holds its lease."""
    it = World()
    task = asyncio.create_task(it.lease.run())
    try:
        await until(lambda: it.doubts == 1)
        yield it
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    """An answer that took longer than the lease gives none."""

    async def story() -> None:
        async with world() as it:
            it.place.during = lambda: it.clock.advance(0.031)
            await it.renewed()
            assert it.lease.held_s == 0

    run(story())


def test_sessions_look_when_it_is_lost_and_when_it_is_back() -> None:
    """Once when it is over, however long that lasts; once more when it is held again, and their streams are named."""

    async def story() -> None:
        async with world() as it:
            it.place.is_away = True
            await it.renewed()
            assert it.doubts == 1, "it may still hold"
            it.clock.advance(0.03)
            await it.renewed()
            await it.renewed()
            assert it.doubts == 2
            it.place.named.clear()
            it.place.is_away = False
            await it.renewed()
            await it.renewed()
            assert it.doubts == 3
            assert it.place.named == ["s"]

    run(story())


def test_a_process_that_was_stopped_looks_before_it_goes_on() -> None:
    """After a stop the loop finds the time gone by: everything is looked at although no renewal failed."""

    async def story() -> None:
        async with world() as it:
            it.clock.advance(10)
            await it.renewed()
            assert it.doubts == 3
            assert it.lease.held_s < 10

    run(story())


def test_a_lease_that_vanished_counts_as_lost() -> None:
    """Redis forgot the lease though this clock says that it holds: everything is looked at."""

    async def story() -> None:
        async with world() as it:
            it.place.was_there = False
            await it.renewed()
            assert it.doubts > 1

    run(story())


def test_what_was_given_up_is_not_renewed() -> None:
    """Not even by a renewal that was under way."""

    async def story() -> None:
        async with world() as it:
            it.place.during = it.lease.give_up
            it.clock.advance(0.01)
            assert it.lease.held_s > 0
            seen = it.place.renewals
            await until(lambda: it.place.renewals == seen + 1)
            await asyncio.sleep(0.03)
            it.clock.advance(0.01)
            assert it.place.renewals == seen + 1
            assert it.lease.held_s == 0

    run(story())


def test_a_living_replica_keeps_its_keys() -> None:
    """In Redis a lease is renewed as long as its replica runs, and is gone a lease later."""
    server = shared_redis()
    server.flush()

    async def story() -> None:
        async with replicas(1, server.url) as (replica,):
            await replica.fleet._replicas.own(replica.rid, ["s"])
            key = key_of_replica(replica.rid)
            await until(lambda: replica.fleet.lease.held_s > 1.5 * BRISK.lease_s and server.names(key) == [key])
            await replica.die()
            await until(lambda: server.names(key) == [])
            assert server.names(key_of_owned(replica.rid)), "what it owned has to be found"

    run(story())
