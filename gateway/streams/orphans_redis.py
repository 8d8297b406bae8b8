"""Streams without an owner: what dead replicas left, and what is named as this one's but served by no session.

Oddities, on purpose:
1. A lease that is gone is looked at twice before its replica is held for dead, and by nobody who has not held his own
   for a whole lease: after an outage of Redis all leases are gone at first, and everybody needs a moment to renew.
   Who gave his lease up is believed at once, and by the youngest: in a rolling restart nobody else may be there.
2. A stream without record may be about to be created by a replica that was only stopped: it is let be for a while.
3. A create or a claim whose answer was lost leaves a stream that is named here and has no session: a stray. It counts
   as one when two looks, far enough apart, have found it so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.core.clock import Clock
    from gateway.streams.lease import Lease
    from gateway.streams.replicas_redis import Overdue, Replicas
    from gateway.streams.wake_redis import Speaker

BIRTH_S = 60.0
"""Longer than any create lasts, between naming its stream and its record."""
STRAY_S = 20.0
"""Longer than a call is repeated, and than its session needs to begin; also the pause between two looks for strays."""


class RedisOrphans:
    """What dead replicas left, as `streams.sweeper` wants it."""

    def __init__(
        self, rid: str, replicas: Replicas, lease: Lease, speaker: Speaker, clock: Clock, *, lease_s: float
    ) -> None:
        self.rid = rid
        self._replicas, self._lease, self._speaker = replicas, lease, speaker
        self._monotonic, self._lease_s = clock.monotonic, lease_s
        self._suspects: dict[str, float] = {}
        self._overdue: dict[str, Overdue] = {}
        self._strays: frozenset[str] = frozenset()
        self._looked_at = clock.monotonic()

    async def dead(self) -> list[str]:
        """Replicas that live no more."""
        before_s = self._lease.held_s
        found = await self._replicas.overdue() if before_s else []
        held_s = min(before_s, self._lease.held_s)
        if not held_s:
            return []
        left = [each for each in found if each.has_left]
        silent = [each for each in found if not each.has_left] if held_s >= self._lease_s else []
        now = self._monotonic()
        self._suspects = {each.rid: self._suspects.get(each.rid, now) for each in silent}
        patience_s = self._lease_s / 6
        dead = [each for each in silent if now - self._suspects[each.rid] >= patience_s]
        self._overdue = {each.rid: each for each in left + dead}
        return list(self._overdue)

    async def owned(self, rid: str, most: int) -> list[str]:
        """Some of what a dead replica may have owned."""
        return await self._replicas.owned(rid, most)

    async def settled(self, rid: str, sids: Sequence[str]) -> None:
        """These need nobody any more, or have another owner."""
        if rid == self.rid:
            await self._replicas.unlist(rid, sids)
        else:
            await self._replicas.disown(rid, sids)

    async def strays(self, served: Collection[str]) -> list[str]:
        """Streams that are named as this replica's and were not served here at two looks."""
        now = self._monotonic()
        if now - self._looked_at < STRAY_S or not self._lease.held_s:
            return []
        self._looked_at = now
        found = frozenset(await self._replicas.all_owned(self.rid)).difference(served)
        strays, self._strays = found & self._strays, found
        return list(strays)

    async def buried(self, rid: str) -> None:
        """Nothing is left of a dead replica."""
        await self._replicas.remove(rid)

    def is_unborn(self, rid: str) -> bool:
        """Whether a stream that this replica named and that has no record may yet be created."""
        overdue = self._overdue.get(rid)
        return overdue is not None and not overdue.has_left and overdue.since_s < BIRTH_S

    async def announce(self, sids: Sequence[str]) -> None:
        """Whoever reads these, anywhere, should look."""
        for rid in await self._replicas.living():
            self._speaker.look(rid, sids)
