"""Revoked API keys: a set that every replica knows within `poll_s`, also one that starts later.

    atlas:revoked   zset   key ids, by when they are forgotten, ms of Redis' own time

It is read whole: revocations are rare, and a key that is gone from the configuration need not be here any more.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.streams.journal import JournalError
from gateway.upstream.link_redis import Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.streams.asking_redis import Asking

log = logging.getLogger("atlas.fleet")

REVOKED = "atlas:revoked"
KEPT_S = 400 * 86_400.0
"""How long a revocation is remembered; whoever revokes a key takes it out of the configuration before."""

# KEYS: revoked. key id, how long in ms
_REVOKE = Script(
    """#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)
# KEYS: revoked -> key ids
_REVOKED = Script(
    """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
"""
)


class RevokedKeys:
    """Tells `on_revoked` the whole set whenever it has changed. What was known stays known while Redis is away."""

    def __init__(self, asking: Asking, poll_s: float, on_revoked: Callable[[frozenset[str]], None]) -> None:
        self._asking, self._poll_s, self._on_revoked = asking, poll_s, on_revoked
        self._known: frozenset[str] = frozenset()
        self._wake = asyncio.Event()

    async def revoke(self, key_id: str) -> None:
        """Revoke a key for good.

        Raises:
            JournalUnavailable: it is revoked, or not.
        """
        await self._asking.run(_REVOKE, [REVOKED], key_id, int(KEPT_S * 1000))
        self.look()

    def look(self) -> None:
        """The set has changed."""
        self._wake.set()

    async def load(self) -> None:
        """Read the set.

        Raises:
            JournalUnavailable: it could not be read.
        """
        found = await self._asking.run(_REVOKED, [REVOKED])
        known = frozenset(key.decode() for key in found)
        if known != self._known:
            self._known = known
            self._on_revoked(known)

    async def run(self) -> None:
        """Read it again and again, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.load()
            except JournalError:
                log.debug("revoked keys could not be read")
            try:
                async with asyncio.timeout(self._poll_s / 2):
                    await self._wake.wait()
            except TimeoutError:
                pass
