"""The lease: as long as it holds, nobody takes this replica's streams over.

It is counted on the monotonic clock from before each renewal was sent, so it is over here before it is over in Redis.
Whether a log may be written on is not decided here: the fence does that. A lease that was lost only means that every
session looks at its log before it goes on: once when that is noticed, once more when the lease is held again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from gateway.streams.journal import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.clock import Clock

log = logging.getLogger("atlas.fleet")


class Leases(Protocol):
    """Where leases are kept. Both raise `JournalError` if that cannot be reached."""

    async def renew(self, rid: str, lease_s: float) -> bool:
        """Renew; False if there was no lease any more, or not yet."""
        ...

    async def own(self, rid: str, sids: Sequence[str]) -> None:
        """Name streams as this replica's."""
        ...


class Lease:
    """This replica's. `owned()` are the streams whose sessions are here; `on_doubt` makes them look at their logs."""

    def __init__(
        self, leases: Leases, rid: str, clock: Clock, *, lease_s: float, owned: Callable[[], Sequence[str]],
        on_doubt: Callable[[], None],
    ) -> None:  # fmt: skip
        self._leases, self._rid, self._lease_s = leases, rid, lease_s
        self._monotonic, self._owned, self._on_doubt = clock.monotonic, owned, on_doubt
        self._until: float | None = None
        self._since = 0.0
        self._is_given_up = False

    @property
    def held_s(self) -> float:
        """For how long it has been held without a gap; 0 while it is not."""
        now = self._monotonic()
        return 0.0 if self._until is None or now >= self._until else now - self._since

    def give_up(self) -> None:
        """Renew it no more."""
        self._is_given_up = True
        self._until = None

    async def run(self) -> None:
        """Renew it three times a lease, until cancelled or given up."""
        while not self._is_given_up:
            self._check()
            is_renewed = await self._renew()
            self._check()
            await asyncio.sleep(self._pause_s(is_renewed=is_renewed))

    def _pause_s(self, *, is_renewed: bool) -> float:
        """Until the next renewal, or until the lease is over."""
        pause_s = self._lease_s / (3 if is_renewed else 15)
        if self._until is None:
            return pause_s
        return min(pause_s, max(self._until - self._monotonic(), 0.001))

    def _check(self) -> None:
        if self._until is not None and self._monotonic() >= self._until:
            self._until = None
            log.warning("the lease is over: it was not renewed for %.1f s", self._lease_s, extra={"replica": self._rid})
            self._on_doubt()

    async def _renew(self) -> bool:
        """Whether the lease is held now."""
        begun = self._monotonic()
        try:
            async with asyncio.timeout(self._lease_s / 3):
                was_there = await self._leases.renew(self._rid, self._lease_s)
                if self._is_given_up:
                    return False
                if self._until is None or not was_there:
                    await self._begin(begun)
        except (JournalError, TimeoutError):
            return False
        self._until = begun + self._lease_s
        return True

    async def _begin(self, now: float) -> None:
        """It was not held: whatever is owned here may have been taken over, and a sweeper may have unlisted it."""
        owned = self._owned()
        if owned:
            await self._leases.own(self._rid, owned)
        self._since = now
        self._on_doubt()
