"""What streams stand on: a journal and a fleet, and what keeps both alive. In this process alone, or in Redis.

Nothing above this file knows which of the two it is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from gateway.core.errors import AtlasError
from gateway.core.ids import new_sid
from gateway.pool.ledger_memory import MemoryLedger
from gateway.streams.fleet import Alone, Fleet
from gateway.streams.journal import JournalUnavailable
from gateway.streams.journal_memory import Bounds, MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.core.clock import Clock
    from gateway.pool.ledger import Ledger
    from gateway.streams.hub import Hub
    from gateway.streams.journal import Journal
    from gateway.streams.sweeper import Heir, Sweeper
    from gateway.telemetry.metrics import Metrics

OnRevoked: TypeAlias = "Callable[[frozenset[str]], None]"

log = logging.getLogger("atlas.server")

RID_LENGTH = 8


class StartRefused(AtlasError):
    """The gateway must not start; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedJournal:
    """A journal that replicas share: where it is, and the rhythm of the fleet in seconds. See `config.settings`."""

    url: str
    degrade: bool = False
    lease_s: float = 6.0
    poll_s: float = 1.0
    sweep_s: float = 1.0


class Backing(Protocol):
    """Journal, fleet and budgets. `run` is the app's task from before the first request until after the last one."""

    @property
    def journal(self) -> Journal:
        """Where logs are."""
        ...

    @property
    def fleet(self) -> Fleet:
        """The other replicas."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Where budgets are."""
        ...

    @property
    def shared(self) -> bool:
        """Whether there may be other replicas."""
        ...

    def attach(self, hub: Hub, heir: Heir, on_revoked: OnRevoked) -> None:
        """The hub of this process, who goes on with a stream whose owner is gone, and who is told of revoked keys."""
        ...

    def stay(self) -> None:
        """This replica is about to leave: it takes nothing over any more."""
        ...

    async def revoke(self, key_id: str) -> None:
        """Revoke an API key on every replica.

        Raises:
            JournalUnavailable: it is revoked, or not.
        """
        ...

    async def secret(self) -> bytes:
        """What all replicas know and nobody else, for where the operator gave no pepper.

        Raises:
            JournalUnavailable: it could not be read.
        """
        ...

    async def check(self) -> None:
        """Look whether there is what is needed, before anything runs.

        Raises:
            StartRefused: there is not.
        """
        ...

    async def load(self) -> None:
        """Read what must be known before the first request; `run` must run.

        Raises:
            StartRefused: it cannot be read.
        """
        ...

    async def run(self) -> None:
        """Keep it going, until cancelled."""
        ...

    async def leave(self) -> None:
        """This replica serves nothing more.

        Raises:
            JournalUnavailable: the others will see it later.
        """
        ...

    def buffer_bytes(self) -> int:
        """Bytes of all logs in this process."""
        ...


class InMemory:
    """One process: gone with it, needs nothing."""

    shared = False

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self.journal, self.fleet, self.ledger = MemoryJournal(bounds, clock), Alone(_new_rid()), MemoryLedger(clock)
        self._revoked: frozenset[str] = frozenset()
        self._secret = secrets.token_bytes()

    def attach(self, hub: Hub, heir: Heir, on_revoked: OnRevoked) -> None:  # noqa: ARG002  no owner but this one
        """Only revocations are of interest."""
        self._on_revoked = on_revoked

    def stay(self) -> None:
        """There is nobody to take anything over from."""

    async def revoke(self, key_id: str) -> None:
        """Until this process ends."""
        self._revoked |= {key_id}
        self._on_revoked(self._revoked)

    async def secret(self) -> bytes:
        """Made at the start, gone with the process."""
        return self._secret

    async def check(self) -> None:
        """Nothing is needed."""

    async def load(self) -> None:
        """Nothing is known."""

    async def run(self) -> None:
        """Nothing to keep."""

    async def leave(self) -> None:
        """Nobody is left."""

    def buffer_bytes(self) -> int:
        """Bytes of all logs."""
        return self.journal.total_bytes


class InRedis:
    """Replicas over one Redis, its cluster or its sentinels."""

    shared = True

    def __init__(self, place: SharedJournal, bounds: Bounds, clock: Clock, metrics: Metrics) -> None:
        from gateway.pool.ledger_redis import RedisLedger  # noqa: PLC0415
        from gateway.streams.fleet_redis import FleetTiming, RedisFleet  # noqa: PLC0415  a tenth of a second of imports
        from gateway.streams.journal_redis import Lifetimes, RedisJournal  # noqa: PLC0415
        from gateway.upstream.lanes_redis import Lanes  # noqa: PLC0415
        from gateway.upstream.link_redis import Link, Observer  # noqa: PLC0415

        def on_batch(events: int, seconds: float) -> None:
            metrics.journal_batch.observe(events)
            metrics.journal_lag.observe(seconds)

        self._place = place
        observer = Observer(
            on_state=metrics.redis_up.set,
            on_latency=lambda kind, seconds: metrics.redis_seconds(kind).observe(seconds),
            on_error=lambda kind: metrics.redis_errors(kind).inc(),
            on_batch=on_batch,
        )
        self._link = Link(place.url, clock, observer=observer)
        lifetimes = Lifetimes(
            ttl_live_s=bounds.ttl_live_s, ttl_terminal_s=bounds.ttl_terminal_s, ttl_record_s=bounds.ttl_record_s,
            ttl_idempotency_s=bounds.ttl_idempotency_s,
        )  # fmt: skip
        self.journal = RedisJournal(self._link, lifetimes, clock, on_grown=self._grown)
        timing = FleetTiming(lease_s=place.lease_s, poll_s=place.poll_s, kept_s=bounds.ttl_live_s + bounds.ttl_record_s)
        self._on_revoked: OnRevoked = lambda _key_ids: None
        self.fleet = RedisFleet(_new_rid(), self.journal, clock, timing=timing, on_revoked=self._tell_revoked)
        self.ledger = RedisLedger(Lanes(self.journal.nodes, "budget"), lease_s=place.lease_s)
        self._link.scripts.extend(self.ledger.scripts.all())
        self._hub: Hub | None = None
        self._sweeper: Sweeper | None = None

    def _tell_revoked(self, key_ids: frozenset[str]) -> None:
        self._on_revoked(key_ids)

    def _grown(self, sids: Iterable[str]) -> None:
        self.fleet.grown(sids)

    def attach(self, hub: Hub, heir: Heir, on_revoked: OnRevoked) -> None:
        """Let the fleet wake this process's streams, the sweeper hand it others', and revocations arrive."""
        from gateway.streams.sweeper import Sweeper  # noqa: PLC0415

        self.fleet.attach(hub)
        self._hub, self._on_revoked = hub, on_revoked
        self._sweeper = Sweeper(
            self.fleet.orphans, self.journal, hub, heir, sweep_s=self._place.sweep_s, rng=random.Random()
        )

    def stay(self) -> None:
        """Sweep no more: others can go on with what this replica could only end."""
        if self._sweeper is not None:
            self._sweeper.stop()

    async def revoke(self, key_id: str) -> None:
        """On every replica, within `poll_s`."""
        await self.fleet.revoke(key_id)

    async def secret(self) -> bytes:
        """Made by the first replica that needs it."""
        return await self.fleet.secret()

    async def load(self) -> None:
        """The revoked keys: none of them may be let in for a moment."""
        try:
            await self.fleet.load_revoked()
        except JournalUnavailable as error:
            if not self._place.degrade:
                msg = f"Redis at {self._link.shown} does not say which keys were revoked: {error}"
                raise StartRefused(msg) from error

    async def check(self) -> None:
        """Refuse a Redis that would lose logs; without any, start only if that was asked for."""
        from gateway.upstream.check_redis import check  # noqa: PLC0415
        from gateway.upstream.link_redis import LinkDown  # noqa: PLC0415

        try:
            report = await check(self._link)
        except LinkDown as error:
            if not self._place.degrade:
                why = f"Redis at {self._link.shown} cannot be reached ({str(error).rstrip('.')})"
                raise StartRefused(f"{why}; start it, or set journal.degrade") from error
            log.warning("started without Redis: streams are served, and cannot be resumed until it is there")
            return
        for warning in report.warnings:
            log.warning("Redis: %s", warning)
        if report.refusals:
            raise StartRefused(f"Redis at {self._link.shown}: {'; '.join(report.refusals)}")

    async def run(self) -> None:
        """Journal, fleet and sweeper."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.journal.run(), name="journal")
            tasks.create_task(self.fleet.run(), name="fleet")
            if self._sweeper is not None:
                tasks.create_task(self._sweeper.run(), name="sweeper")

    async def leave(self) -> None:
        """Give the lease up, so that others go on at once with what was not ended here."""
        await self.fleet.leave_fleet()

    def buffer_bytes(self) -> int:
        """Logs are not in this process, only the newest of what is read here."""
        return 0 if self._hub is None else sum(channel.ring_bytes for channel in self._hub.channels.values())


def _new_rid() -> str:
    return new_sid()[:RID_LENGTH]
