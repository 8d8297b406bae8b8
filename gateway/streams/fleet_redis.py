"""The fleet over Redis: replicas that share a journal and behave as one.

This file ties together what stands beside it: who lives (`replicas_redis`, `lease`), hints (`hints`, `wake_redis`), the
tail reader (`tail`), revoked keys (`revoked_redis`). What dead replicas left is the sweeper's business (`sweeper`,
`orphans_redis`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.streams.asking_redis import Asking
from gateway.streams.fleet import rid_of
from gateway.streams.hints import Hint, Watchers
from gateway.streams.journal import JournalError
from gateway.streams.lease import Lease
from gateway.streams.orphans_redis import RedisOrphans
from gateway.streams.replicas_redis import Replicas
from gateway.streams.revoked_redis import RevokedKeys
from gateway.streams.secret_redis import shared_secret
from gateway.streams.tail import Tail
from gateway.streams.wake_redis import Listener, Speaker
from gateway.upstream.lanes_redis import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.core.clock import Clock
    from gateway.streams.fleet import Growing
    from gateway.streams.hub import Hub
    from gateway.streams.journal_redis import RedisJournal

MOST_KNOWN = 1024
"""Replicas whose life is remembered for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTiming:
    """Seconds.

    `lease_s`: a replica that has not renewed for so long is taken for dead. `poll_s` between looks where hints are
    missing. `watch_s`: how often it is repeated what is read here; `watched_s`: when it is forgotten if it is not.
    `health_s`: when a silent connection for hints is asked. `alive_s`: how long it is remembered who lives.
    `patience_s`: for how long readers wait for a log that does not answer.
    `kept_s`: how long the streams of a dead replica may have to be found, at least the life of a live log.
    """

    lease_s: float = 6.0
    poll_s: float = 1.0
    watch_s: float = 20.0
    watched_s: float = 60.0
    health_s: float = 5.0
    alive_s: float = 1.0
    patience_s: float = 5.0
    kept_s: float = 2_400.0


class RedisFleet:
    """The replicas that share a Redis journal; see `streams.fleet` for the contract.

    The hub is built with the fleet, and is told to it by `attach` before `run`. `on_revoked` is told the whole set of
    revoked key ids whenever it has changed.
    """

    def __init__(
        self, rid: str, journal: RedisJournal, clock: Clock, *, timing: FleetTiming | None = None,
        on_revoked: Callable[[frozenset[str]], None] = lambda _key_ids: None,
    ) -> None:  # fmt: skip
        self.rid = rid
        self._timing = timing = timing or FleetTiming()
        self._monotonic = clock.monotonic
        self._lanes, self._hint_lanes = Lanes(journal.nodes, "fleet"), Lanes(journal.nodes, "hint")
        self._asking = asking = Asking(self._lanes)
        self._hub: Hub | None = None
        self._replicas = Replicas(asking, timing.kept_s)
        self.lease = Lease(
            self._replicas, rid, clock, lease_s=timing.lease_s, owned=self._owned, on_doubt=self._nudge_all
        )
        self._watchers = Watchers(timing.watched_s)
        self._speaker = Speaker(self._hint_lanes, rid)
        self._tail = Tail(journal, clock, timing.poll_s, self._watch, timing.patience_s)
        self._listener = Listener(journal.nodes, rid, timing.health_s, self._hear, self._tail.look_everywhere)
        self._revoked = RevokedKeys(asking, timing.poll_s, on_revoked)
        self._alive: dict[str, tuple[float, bool]] = {}
        self.orphans = RedisOrphans(rid, self._replicas, self.lease, self._speaker, clock, lease_s=timing.lease_s)

    def attach(self, hub: Hub) -> None:
        """The hub of this process, whose sessions and channels the fleet wakes."""
        self._hub = hub

    def follow(self, channel: Growing) -> None:
        """Keep a channel growing that somebody here reads and nobody here owns."""
        if self._tail.follow(channel):
            self._watch(channel)

    def leave(self, sid: str) -> None:
        """Nobody here reads this stream any more, or it is owned here now."""
        channel = self._tail.leave(sid)
        if channel is not None and not channel.ended and (rid := rid_of(channel.owner)) not in {"", self.rid}:
            self._speaker.left(rid, sid)

    def grown(self, sids: Iterable[str]) -> None:
        """Logs that are written here have grown: whoever reads them elsewhere should look."""
        if self._watchers.of:
            for rid, seen in self._watchers.grouped(sids).items():
                self._speaker.look(rid, seen)

    def tell(self, owner: str, sid: str) -> None:
        """A control step from here changed a stream whose session is elsewhere."""
        self._tail.look((sid,))
        rid = rid_of(owner)
        if rid == self.rid:
            self._nudge(sid)
        elif rid:
            self._speaker.tell(rid, sid)

    def is_read_elsewhere(self, sid: str) -> bool:
        """Whether another replica watches this stream; one that died is believed for `watched_s`."""
        return sid in self._watchers.of

    async def is_alive(self, owner: str) -> bool:
        """Whether that session's replica renews its lease; True if nobody can say."""
        rid = rid_of(owner)
        now = self._monotonic()
        asked_at, is_alive = self._alive.get(rid, (float("-inf"), True))
        if rid == self.rid or now - asked_at < self._timing.alive_s:
            return is_alive
        try:
            async with asyncio.timeout(self._timing.alive_s):
                is_alive = await self._replicas.is_alive(rid)
        except (JournalError, TimeoutError):
            return True
        if len(self._alive) >= MOST_KNOWN:
            self._alive.clear()
        self._alive[rid] = (now, is_alive)
        return is_alive

    async def revoke(self, key_id: str) -> None:
        """Revoke an API key on every replica, within `poll_s`.

        Raises:
            JournalUnavailable: it is revoked, or not.
        """
        await self._revoked.revoke(key_id)
        for rid in await self._replicas.living():
            self._speaker.revoked(rid)

    async def secret(self) -> bytes:
        """What all replicas know and nobody else.

        Raises:
            JournalUnavailable: it could not be read.
        """
        return await shared_secret(self._asking)

    async def load_revoked(self) -> None:
        """Read the revoked keys before the first request is served.

        Raises:
            JournalUnavailable: they could not be read.
        """
        await self._revoked.load()

    async def leave_fleet(self) -> None:
        """Give the lease up at once, so that the others go on with what was not ended here; `run` must still run.

        Raises:
            JournalUnavailable: the lease runs out by itself.
        """
        self.lease.give_up()
        await self._replicas.leave(self.rid)

    async def run(self) -> None:
        """Keep the lease, listen, say and follow, until cancelled."""
        parts = {
            "lease": self.lease.run, "hints in": self._listener.run, "hints out": self._speaker.run,
            "tail": self._tail.run, "watch": self._repeat, "revoked keys": self._revoked.run,
            "lane": self._lanes.run, "lane of hints": self._hint_lanes.run,
        }  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            for name, part in parts.items():
                tasks.create_task(part(), name=f"fleet {name}")

    async def _repeat(self) -> None:
        """Say again what is read here; forget who does not."""
        while True:
            await asyncio.sleep(self._timing.watch_s)
            self._watchers.forget(self._monotonic())
            for channel in self._tail.channels():
                self._watch(channel)

    def _watch(self, channel: Growing) -> None:
        rid = rid_of(channel.owner)
        if rid and rid != self.rid:
            self._speaker.watch(rid, (channel.sid,))

    def _hear(self, hint: Hint) -> None:
        """Act on what another replica says."""
        if hint.watch:
            fresh = self._watchers.watch(hint.sender, hint.watch, self._monotonic())
            if fresh:  # what grew before was said to nobody
                self._speaker.look(hint.sender, fresh)
        self._watchers.left(hint.sender, hint.left)
        for sid in hint.told:
            self._nudge(sid)
        if hint.told:
            self.grown(hint.told)
        if hint.look:
            self._tail.look(hint.look)
            for sid in hint.look:
                self._nudge(sid)
        if hint.revoked:
            self._revoked.look()

    def _nudge(self, sid: str) -> None:
        channel = None if self._hub is None else self._hub.find(sid)
        if channel is not None and channel.session is not None:
            channel.session.nudge()

    def _owned(self) -> list[str]:
        return [] if self._hub is None else [session.sid for session in self._hub.sessions()]

    def _nudge_all(self) -> None:
        if self._hub is not None:
            for session in self._hub.sessions():
                session.nudge()
