"""The drain: how the streams of a process end when it has to leave. `api.serving` decides when, and about connections.

begin      not ready any more, no new streams; all that concerns existing ones is served on
wait       open streams may finish: until none is left, `drain_s` is over, or somebody is in a hurry. What is owned
           elsewhere is not waited for: once nothing is owned here its readers are reset
end        each stream that is left is handed over to another replica where that can be, else ended explicitly,
           `failed(shutdown)`: its readers get their dialect's error, its log an end. Then the replica leaves the fleet.

Readers of a stream that goes on elsewhere are reset, never ended cleanly: they find it again by its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.core.errors import Category, Failure
from gateway.streams.journal import HandedOver, JournalError, JournalUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.clock import Clock
    from gateway.streams.hub import Hub, Owner

log = logging.getLogger("atlas.server")

LOOK_S = 0.1
PROGRESS_S = 10.0
END_S = 4.0
LEAVE_S = 2.0
PATIENCE = 100
"""Looks, 5 ms apart, at a session that is closed and still there."""


class Leaving(JournalError):
    """The log ends with the process that holds it."""

    category = Category.SHUTDOWN

    @property
    def failure(self) -> Failure:
        """What those are told who still read it."""
        return Failure(self.category, "the gateway is shutting down, and the stream's log ends with it")


class Entrance(Protocol):
    """Where streams begin: none does while `draining`, and readiness says so."""

    draining: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """The other replicas, if there are any.

    `stay()` is called when the drain begins: nothing is taken over from others any more.
    `hand_over(session)` stops a session without an end, for another replica to claim its stream; False where it has to
    be ended here. It must not wait. `leave()` is awaited once no session is left: this replica is not alive any more.
    """

    hand_over: Callable[[Owner], bool]
    leave: Callable[[], Awaitable[None]]
    stay: Callable[[], None] = lambda: None


class Drain:
    """One per app. `shared`: other replicas can read and control the streams that are owned here."""

    def __init__(
        self, hub: Hub, entrance: Entrance, clock: Clock, drain_s: float, others: Others | None = None
    ) -> None:
        self._hub, self._entrance, self._clock, self._others = hub, entrance, clock, others
        self.drain_s = drain_s
        self.shared = others is not None
        self.hurried = asyncio.Event()
        self._parted: set[str] = set()
        self._handed_over = 0
        self._over = False

    def begin(self) -> None:
        """Not ready any more, no new streams; again is no harm."""
        self._entrance.draining = True
        if self._others is not None:
            self._others.stay()

    def hurry(self) -> None:
        """Wait no longer."""
        self.hurried.set()

    async def wait(self, busy: Callable[[], int]) -> None:
        """Until nothing is open, `drain_s` is over, or `hurry`; `busy()` is the number of requests being answered."""
        began = said = self._clock.monotonic()
        streams = len(self._hub.sessions())
        log.info("draining: %d streams, at most %g s; a second signal ends at once", streams, self.drain_s)
        while (streams := len(self._hub.sessions())) or busy():
            now = self._clock.monotonic()
            left_s = self.drain_s - (now - began)
            if left_s <= 0 or self.hurried.is_set():
                return
            if self.shared and not streams:
                self._reset_readers()
            if now - said >= PROGRESS_S:
                said = now
                log.info("draining: %d streams and %d requests left, %.0f s", streams, busy(), left_s)
            await self.pause(min(LOOK_S, left_s))

    async def pause(self, seconds: float) -> None:
        """So long, or until `hurry`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurried.wait()

    async def end(self) -> None:
        """End what is left, and leave; takes at most `END_S` and `LEAVE_S`. Again is no harm."""
        self.begin()
        if self._over:
            return
        self._over = True
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._end_streams()
        self._reset_readers()
        if self._parted:
            ended = len(self._parted) - self._handed_over
            log.info("drained: %d streams handed over, %d ended by the shutdown", self._handed_over, ended)
        if self._others is not None:
            await self._leave(self._others)

    def _reset_readers(self) -> None:
        """Those who read what is owned elsewhere, or is over but paused, come back by cursor; or nowhere."""
        for channel in tuple(self._hub.channels.values()):
            channel.fail(HandedOver("the gateway is shutting down") if self.shared else Leaving())

    async def _end_streams(self) -> None:
        """Part from every session, also from those that begin meanwhile, and wait until they are settled."""
        looked_at: Counter[str] = Counter()
        while sessions := self._hub.sessions():
            for session in sessions:
                if session.sid not in self._parted:
                    self._parted.add(session.sid)
                    self._part_from(session)
                elif session.closed.is_set():
                    looked_at[session.sid] += 1
                    if looked_at[session.sid] == PATIENCE:
                        session.shut_down()  # it waits for a journal that is away
            await sessions[0].closed.wait()
            await asyncio.sleep(0.005)  # closed, but its bill or its end is not written yet: nobody rings for that

    def _part_from(self, session: Owner) -> None:
        if self._others is None or not self._others.hand_over(session):
            session.shut_down()
            return
        self._handed_over += 1

    @staticmethod
    async def _leave(others: Others) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await others.leave()
        except (TimeoutError, JournalUnavailable):
            log.warning("the other replicas were not told: they will see that this one is silent")
