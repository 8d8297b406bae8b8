"""The replicas as Redis knows them: who is alive, who is not, and what they owned.

    atlas:rep:{rid}   string   is there as long as the replica renews its lease
    atlas:own:{rid}   set      the streams that it owns, or was about to; the journal writes it
    atlas:reps        zset     every replica that may own something, by the deadline of its lease, ms

Oddities, on purpose:
1. The index lies in another slot than the keys of a replica. It is a hint whom to look at; the lease says who lives.
2. Deadlines are Redis' own time, so that replicas with different clocks agree on them.
3. A lease can be renewed where Redis is out of memory: else all replicas would hold one another for dead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from gateway.streams.layout_redis import REPLICAS, key_of_owned, key_of_replica
from gateway.upstream.link_redis import Script
from gateway.upstream.resp import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.streams.asking_redis import Asking

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""
_OOM = "#!lua flags=allow-oom\n"

# KEYS: lease, owned. lease in ms, how long what it names is needed in ms -> whether the lease was still there
_RENEW = Script(
    _OOM
    + """
local before = redis.call('SET', KEYS[1], 1, 'PX', ARGV[1], 'GET')
redis.call('PEXPIRE', KEYS[2], ARGV[2], 'GT')
return before and 1 or 0
"""
)
# KEYS: index. rid, lease in ms, how long the index is needed in ms
_ENTER = Script(
    _OOM
    + _NOW
    + """
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)
# KEYS: index. at most so many -> [rid, ms since its deadline, ...]
_OVERDUE = Script(
    _NOW
    + """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES',
  'LIMIT', 0, ARGV[1])
for i = 2, #found, 2 do found[i] = string.format('%.0f', now - tonumber(found[i])) end
return found
"""
)
# KEYS: index -> rids whose deadline has not passed
_LIVING = Script(_NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')")
# KEYS: index. rid -> whether it was taken out; not if it has renewed its lease meanwhile
_REMOVE = Script(
    _NOW
    + """
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) > now then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
"""
)
# KEYS: lease, owned. sids -> how many were taken out; none if the replica lives
_DISOWN = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('SREM', KEYS[2], unpack(ARGV))
"""
)
# KEYS: owned. how long it is needed in ms, sids
_OWN = Script(
    _OOM
    + """
redis.call('SADD', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1], redis.call('PTTL', KEYS[1]) < 0 and 'NX' or 'GT')
return 1
"""
)

LEFT = 10**12
"""Milliseconds since its deadline, at least, of a replica that gave its lease up: its deadline is 0."""
LISTED = 200
NAMED = 1000
"""Sids that one command names."""


class Overdue(NamedTuple):
    """A replica whose lease is over. `has_left`: it gave the lease up itself."""

    rid: str
    since_s: float
    has_left: bool


class Replicas:
    """The keys of all replicas. Each method raises `JournalUnavailable` if Redis does not answer in time.

    `kept_s` is how long what a dead replica owned may have to be found: the life of a live log, or longer.
    """

    def __init__(self, asking: Asking, kept_s: float) -> None:
        self._asking = asking
        self._kept_ms = int(kept_s * 1000)

    async def renew(self, rid: str, lease_s: float) -> bool:
        """Renew a lease; False if there was none any more, or not yet."""
        lease_ms = int(lease_s * 1000)
        was_there, _ = await asyncio.gather(
            self._asking.run(_RENEW, [key_of_replica(rid), key_of_owned(rid)], lease_ms, self._kept_ms),
            self._asking.run(_ENTER, [REPLICAS], rid, lease_ms, self._kept_ms),
        )
        return bool(was_there)

    async def leave(self, rid: str) -> None:
        """Give a lease up. Others look at once at what the replica still owns, if anything."""
        key = key_of_owned(rid)
        _, owned = await asyncio.gather(
            self._asking.ask(key_of_replica(rid), command("DEL", key_of_replica(rid))),
            self._asking.ask(key, command("SCARD", key)),
        )
        gone = command("ZREM", REPLICAS, rid) if owned == [0] else command("ZADD", REPLICAS, "XX", 0, rid)
        await self._asking.ask(REPLICAS, gone)

    async def is_alive(self, rid: str) -> bool:
        """Whether its lease holds."""
        key = key_of_replica(rid)
        (there,) = await self._asking.ask(key, command("EXISTS", key))
        return bool(there)

    async def living(self) -> list[str]:
        """Every replica whose lease holds."""
        found = await self._asking.run(_LIVING, [REPLICAS])
        return [rid.decode() for rid in found]

    async def overdue(self) -> list[Overdue]:
        """Replicas whose deadline has passed and whose lease is gone; those that are overdue longest come first."""
        rows = await self._asking.run(_OVERDUE, [REPLICAS], LISTED)
        rids = [rid.decode() for rid in rows[::2]]
        living = await asyncio.gather(*[self.is_alive(rid) for rid in rids])
        return [
            Overdue(rid, int(late_ms) / 1000, int(late_ms) > LEFT)
            for rid, late_ms, is_alive in zip(rids, rows[1::2], living, strict=True)
            if not is_alive
        ]

    async def owned(self, rid: str, most: int) -> list[str]:
        """Some of the streams that a replica may own, picked at random, so that several sweepers share the work."""
        key = key_of_owned(rid)
        (found,) = await self._asking.ask(key, command("SRANDMEMBER", key, most))
        return [sid.decode() for sid in found]

    async def all_owned(self, rid: str) -> list[str]:
        """All streams that a replica may own."""
        key = key_of_owned(rid)
        (found,) = await self._asking.ask(key, command("SMEMBERS", key))
        return [sid.decode() for sid in found]

    async def own(self, rid: str, sids: Sequence[str]) -> None:
        """Name streams as this replica's."""
        for at in range(0, len(sids), NAMED):
            await self._asking.run(_OWN, [key_of_owned(rid)], self._kept_ms, *sids[at : at + NAMED])

    async def disown(self, rid: str, sids: Sequence[str]) -> None:
        """These are not a dead replica's any more; nothing happens if it lives after all."""
        for at in range(0, len(sids), NAMED):
            keys = [key_of_replica(rid), key_of_owned(rid)]
            await self._asking.run(_DISOWN, keys, *sids[at : at + NAMED])

    async def unlist(self, rid: str, sids: Sequence[str]) -> None:
        """These are not a replica's any more, on its own word."""
        key = key_of_owned(rid)
        for at in range(0, len(sids), NAMED):
            await self._asking.ask(key, command("SREM", key, *sids[at : at + NAMED]))

    async def remove(self, rid: str) -> None:
        """Take a dead replica that owns nothing out of the index, unless it has come back."""
        await self._asking.run(_REMOVE, [REPLICAS], rid)
