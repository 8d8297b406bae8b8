"""Attempts of a route that hedges: who is silent for too long before content gets a rival, and the faster wins.

One hedge a request, at the next endpoint that may be asked and whose breaker is closed: a hedge is no probe. Whoever is
outrun is left at once, and that is no verdict on it; its prompt was sent, so it is a leg of the answer that is billed.
When `hedging` lets one out is its business, what follows the first content that of `attempts`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from gateway.core.errors import Failure
from gateway.core.events import OUTRUN, Leg
from gateway.pool.attempts import Attempts
from gateway.pool.retry import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.chat import ChatRequest
    from gateway.pool.asked import Asked
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.hedging import Hedging
    from gateway.pool.unbroken import Begun


class Hedged(Attempts):
    """See `Attempts`."""

    _has_hedged = False
    _outrun: Leg | None = None

    @property
    def _attempted(self) -> int:
        return super()._attempted + (self._outrun is not None)

    async def _first_content(self, endpoint: Endpoint, request: ChatRequest, strategy: str) -> Begun | None:
        """As in `Attempts`; who was outrun is a leg before the one that answers."""
        before = self._outrun
        begun = await super()._first_content(endpoint, request, strategy)
        if begun is not None and self._outrun is not None and self._outrun is not before:
            begun.head = [self._outrun, *begun.head]
        return begun

    async def _to_content(self, asked: Asked, request: ChatRequest) -> Asked | None:
        """What came to content first."""
        hedging = self._group.hedging
        if hedging is None or not self._may_hedge:
            return await super()._to_content(asked, request)
        running: list[asyncio.Task[Asked | None]] = []
        try:
            return await self._race(asked, request, hedging, running)
        except BaseException:
            await self._abandon(running)
            raise

    async def _race(
        self, asked: Asked, request: ChatRequest, hedging: Hedging, running: list[asyncio.Task[Asked | None]]
    ) -> Asked | None:
        """Whoever is in `running` when this is left in another way is nobody's yet."""
        late: list[asyncio.Task[Asked | None]] = []
        async with asyncio.TaskGroup() as tasks:
            running.append(tasks.create_task(super()._to_content(asked, request)))
            await asyncio.wait(running, timeout=hedging.wait_s(asked.endpoint.candidate.statistics))
            rival = None if running[0].done() else self._rival()
            if rival is not None:
                running.append(tasks.create_task(super()._to_content(rival, request)))
            found = await _first_of(running)
            if rival is not None:
                self._decide(asked, rival, found)
            for each in running:
                if not each.done() or each.result() is not found:
                    each.cancel()
                    late.append(each)
        for each in late:
            running.remove(each)
            await self._leave_late(each)
        return found

    async def _abandon(self, running: Sequence[asyncio.Task[Asked | None]]) -> None:
        """The request is left while somebody had just come to content: give the places back, close the sockets."""
        ended = [each for each in running if each.done() and not each.cancelled() and each.exception() is None]
        found = [asked for asked in (each.result() for each in ended) if asked is not None]
        for asked in found:
            asked.trial.released(self._group.clock())
        for asked in found:
            await asked.leave(*sys.exc_info())

    @property
    def _may_hedge(self) -> bool:
        """Whether the attempt that begins is before any content and has somebody behind it."""
        is_first = self.endpoint is None and not self._delivered.legs
        return is_first and not self._has_hedged and bool(self._left) and self._attempted + 2 <= MAX_ATTEMPTS

    def _rival(self) -> Asked | None:
        """Who is asked beside, if there is anybody, and the budgets of the route allow it."""
        hedging, now = self._group.hedging, self._group.clock()
        able = (each for each in self._left if each.candidate.breaker.is_closed and each.candidate.usable(now))
        endpoint = next(able, None)
        if endpoint is None or hedging is None or not (hedging.spend(now) and self._group.repeats.spend(now)):
            return None
        rival = self._ask(endpoint)
        if isinstance(rival, Failure):
            return None
        self._has_hedged = True
        self._left.remove(endpoint)
        return rival

    def _decide(self, asked: Asked, rival: Asked, found: Asked | None) -> None:
        """Tell everybody who won; who was outrun is left without a verdict."""
        result = "won" if found is rival else "failed" if rival.endpoint not in self.trying else "lost"
        if self._group.hedging is not None:
            self._group.hedging.results[result] += 1
        self._group.on_hedge(rival.endpoint.name, result)
        if result == "failed" and found is asked:
            self._before = None  # that was no fallback
        for each in (asked, rival):
            if found is not None and each is not found and each.endpoint in self.trying:
                self._leave_behind(each, found)

    def _leave_behind(self, late: Asked, found: Asked) -> None:
        now, endpoint = self._group.clock(), late.endpoint
        late.trial.outrun(now)
        self.attempts.append(f"{endpoint.name}: {OUTRUN}")
        self._group.on_attempt(endpoint.name, OUTRUN, now - late.begun)
        self._legs += 1
        why = f"{found.endpoint.name} answered first"
        self._outrun = Leg(self._legs, endpoint.name, endpoint.provider.kind, OUTRUN, why)

    async def _leave_late(self, task: asyncio.Task[Asked | None]) -> None:
        """Who came to content at the same moment is left like who did not."""
        if not task.cancelled() and (late := task.result()) is not None:
            self._count_malformed(late)
            await late.leave(None, None, None)


async def _first_of(running: Sequence[asyncio.Task[Asked | None]]) -> Asked | None:
    """The first that came to content; None when all failed."""
    left = set(running)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for each in running:
            if each in done and (found := each.result()) is not None:
                return found
    return None
