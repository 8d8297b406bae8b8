"""One answer, whoever gives it: the batches of the leg that runs now, and of the next one when that fails.

`Attempts` decides who is asked next and asks; here is what the log is given meanwhile.

Oddities, on purpose:
1. A leg that is overdue is left by cancelling the task that waits for it, which is the session's own: nothing else ends
   a read of a silent provider at once. The cancellation is taken back before anybody sees it.
2. The held word goes out by a timer if nothing else comes. Whoever wants no more then is given no more: what the next
   read gives is kept until the next `pump`.
3. An answer that has its finish is whole, whatever becomes of its provider then: there is nothing to go on with.
4. An answer that is begun anew instead of continued (`stream: false`) is neither folded nor held back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from gateway.core.errors import Category, ProviderError
from gateway.pool.hold_back import HOLD_S, HoldBack
from gateway.upstream.contract import pump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.pool.delivered import Delivered
    from gateway.pool.splice import Joint
    from gateway.upstream.contract import Accept, Batch


class Next(Protocol):
    """Who finds the next leg: `pool.attempts.Attempts`."""

    def can_go_on(self, error: ProviderError) -> bool:
        """Whether somebody is left to ask."""
        ...

    async def go_on(self, error: ProviderError, *, last: bool = False) -> Begun:
        """Leave the leg that failed, and begin the next one, unless it was the `last`.

        Raises:
            ProviderError: the original failure, when nobody could go on.
        """
        ...

    def spoilt(self, joint: Joint) -> Batch:
        """What is to be logged of a leg that could not be joined."""
        ...


class Begun:
    """A leg that came to content: what was read so far, and the rest."""

    __slots__ = ("batches", "head", "joint")

    def __init__(self, head: Batch, batches: AsyncIterator[Batch], joint: Joint | None = None) -> None:
        self.head, self.batches, self.joint = head, batches, joint


class Unbroken:
    """Begins with `begun`. `delivered` is folded on; None for an answer that is begun anew if it fails."""

    def __init__(self, legs: Next, begun: Begun, delivered: Delivered | None) -> None:
        self._legs, self._begun, self._delivered = legs, begun, delivered
        self._hold = HoldBack()
        self._accept: Accept | None = None
        self._task: asyncio.Task[object] | None = None
        self._overdue: ProviderError | None = None
        self._lost: ProviderError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held_at = 0.0
        self._kept: Batch = []
        self._is_refused = False
        self._is_moving = self._is_over = False

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        found: Batch = []

        def take(batch: Batch) -> bool:
            found.extend(batch)
            return False

        if not await self.pump(take) and not found:
            raise StopAsyncIteration
        return found

    async def pump(self, accept: Accept) -> bool:
        """Give every batch to `accept`; see `upstream.contract.Pumped`.

        Raises:
            ProviderError: the failure of the first leg that nobody could hide.
        """
        self._accept, self._is_refused = accept, False
        try:
            kept, self._kept = self._kept, []
            if kept and not accept(kept):
                return True
            while True:
                try:
                    return await self._pump_leg(accept)
                except ProviderError as error:
                    if self._lost is not None:
                        raise
                    failure = error
                if self._has_finished:
                    self._is_over = True
                    return False
                if await self._move_on(failure, accept):
                    return True
        finally:
            self._accept = self._task = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def overdue(self, category: Category, message: str) -> bool:
        """The leg is overdue: whether another one takes over, so that nobody need end the stream."""
        if self._is_moving or self._overdue is not None:
            return True
        error = ProviderError(category, message)
        if self._task is None or not (self._has_finished or self._legs.can_go_on(error)):
            return False
        self._overdue = error
        self._task.cancel()
        return True

    @property
    def _has_finished(self) -> bool:
        return self._delivered is not None and bool(self._delivered.finished)

    async def _pump_leg(self, accept: Accept) -> bool:
        if self._lost is not None:
            raise self._lost
        if self._is_over:
            return False
        if not self._is_decided:
            stopped = await self._read_leg(accept)
            if not self._is_decided:
                return stopped or self._end(accept)
        if self._kept:
            return True
        joint = self._begun.joint
        if joint is not None and joint.fault is not None:
            raise ProviderError(Category.STREAM_ERROR, joint.fault)
        self._is_over = True
        return False

    @property
    def _is_decided(self) -> bool:
        """Whether the leg is to be left, because the answer is over or cannot be joined."""
        joint = self._begun.joint
        return joint is not None and (joint.over or joint.fault is not None)

    async def _read_leg(self, accept: Accept) -> bool:
        """Read the leg. Returns True when no more was wanted, False at its end."""
        begun = self._begun
        take = accept if self._delivered is None else self._take
        self._task = asyncio.current_task()
        try:
            head, begun.head = begun.head, []
            return (bool(head) and not take(head)) or await pump(begun.batches, take)
        except asyncio.CancelledError:
            error, self._overdue = self._overdue, None
            if error is None or self._task is None or self._task.uncancel() > 0:
                raise
            raise error from None
        finally:
            self._task = None

    def _take(self, batch: Batch) -> bool:
        """Fold and hand on what one read gave. False when the leg is to be left, or the log must be looked at."""
        joint, hold, accept = self._begun.joint, self._hold, self._accept
        if accept is None or self._delivered is None:
            return False
        if joint is not None:
            batch = joint.feed(batch)
        if batch:
            batch = hold.feed(batch)
            self._delivered.add(batch)
            if hold.held:
                self._held_at = asyncio.get_running_loop().time()
                if self._timer is None:
                    self._wait(HOLD_S)
        if self._is_refused:
            self._kept += batch
            return False
        return accept(batch) and not self._is_decided

    def _end(self, accept: Accept) -> bool:
        """The leg is over. Returns whether the log must be looked at."""
        joint = self._begun.joint
        rest = [] if joint is None else joint.finish()
        if joint is not None and joint.fault is not None:
            raise ProviderError(Category.STREAM_ERROR, joint.fault)
        self._is_over = True
        return not self._give([*self._hold.flush(), *rest], accept)

    async def _move_on(self, failure: ProviderError, accept: Accept) -> bool:
        """Begin the next leg. Returns whether the log must be looked at before the failure is raised."""
        joint = self._begun.joint
        spoilt = [] if joint is None or joint.fault is None else self._legs.spoilt(joint)
        self._is_moving = True
        try:
            begun = await self._legs.go_on(failure, last=joint is not None and joint.fault is not None)
        except ProviderError as error:
            self._lost = error
            return not self._give([*self._hold.flush(), *spoilt], accept)
        finally:
            self._is_moving = False
        self._hold.held = ""  # the next leg says the half word anew
        self._begun = begun
        return False

    def _give(self, batch: Batch, accept: Accept) -> bool:
        if not batch:
            return True
        if self._delivered is not None:
            self._delivered.add(batch)
        return accept(batch)

    def _wait(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._let_go)

    def _let_go(self) -> None:
        """The word has waited long enough, unless another one has taken its place."""
        self._timer = None
        accept = self._accept
        if accept is None or self._is_moving or not self._hold.held:
            return
        left = self._held_at + HOLD_S - asyncio.get_running_loop().time()
        if left > 0:
            self._wait(left)
        elif not self._is_refused:
            self._is_refused = not self._give(self._hold.flush(), accept)
