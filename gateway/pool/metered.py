"""A source whose stream is held to a budget: what passes is metered, the delta that would cross the limit is cut.

It wraps any source (`streams.source.Source`) and is one itself. Reading waits only where a budget was used up faster
than the next block of it could be reserved, ahead of need; then what was read last is kept until that is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gateway.upstream.contract import pump, skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from gateway.core.errors import Category
    from gateway.pool.meter import Meter
    from gateway.upstream.contract import Accept, Batch, Timeouts

BUDGET = "budget"


class _Source(Protocol):
    """What is wrapped: see `streams.source.Source`."""

    @property
    def timeouts(self) -> Timeouts: ...
    @property
    def attempts(self) -> list[str]: ...
    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]: ...


S = TypeVar("S", bound=_Source)


class Metered(Generic[S]):
    """`source` is the one within; `more(tokens)` waits for so many more to be allowed, False: there are none.

    `stopped_by` is why the stream ended before its source did: `budget`, or None.
    """

    def __init__(self, source: S, meter: Meter, more: Callable[[int], Awaitable[bool]]) -> None:
        self.source, self._meter, self._more = source, meter, more

    @property
    def timeouts(self) -> Timeouts:
        """Those of the source."""
        return self.source.timeouts

    @property
    def attempts(self) -> list[str]:
        """Those of the source."""
        return self.source.attempts

    @property
    def stopped_by(self) -> str | None:
        """Why the answer ended before the provider ended it."""
        return BUDGET if self._meter.stopped else None

    def overdue(self, category: Category, message: str) -> bool:
        """Whether the source moves on by itself; see `streams.source.MovesOn`."""
        moves_on: Callable[[Category, str], bool] | None = getattr(self.source, "overdue", None)
        return moves_on is not None and moves_on(category, message)

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """The source, metered."""
        return _Opened(self.source, self._meter, self._more)


class _Opened:
    """The source's own context, around metered batches."""

    __slots__ = ("_inner", "_meter", "_more", "_source")

    def __init__(self, source: _Source, meter: Meter, more: Callable[[int], Awaitable[bool]]) -> None:
        self._source, self._inner, self._meter, self._more = source, source.open(), meter, more

    async def __aenter__(self) -> AsyncIterator[Batch]:
        return _Batches(await self._inner.__aenter__(), self._meter, self._more)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._meter.stopped and (leg := getattr(self._source, "last", None)) is not None:
            leg.reads_on = True  # the provider may go on, and bill
        return await self._inner.__aexit__(kind, error, traceback)


class _Batches:
    """Batches of the source as far as they may pass; `_kept` is the one that waits for its budget."""

    __slots__ = ("_inner", "_kept", "_meter", "_more")

    def __init__(self, inner: AsyncIterator[Batch], meter: Meter, more: Callable[[int], Awaitable[bool]]) -> None:
        self._inner, self._meter, self._more = inner, meter, more
        self._kept: Batch | None = None

    @property
    def malformed(self) -> int:
        """Payloads that the source could not read and skipped."""
        return skipped(self._inner)

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        if self._meter.stopped:
            raise StopAsyncIteration
        batch = await self._inner.__anext__()
        if self._meter.passes(batch):
            return batch
        self._kept = batch
        batch = await self._allowed()
        if not batch:
            raise StopAsyncIteration
        return batch

    async def pump(self, accept: Accept) -> bool:
        """Give every batch that passes to `accept`; see `upstream.contract.Pumped`."""
        passes = self._meter.passes

        def take(batch: Batch) -> bool:
            if passes(batch):
                return accept(batch)
            self._kept = batch
            return False

        while not self._meter.stopped:
            if self._kept is not None:
                batch = await self._allowed()
                if batch and not accept(batch):
                    return True
                continue
            more = await pump(self._inner, take)
            if self._kept is None:
                return more
        return False

    async def _allowed(self) -> Batch:
        """The kept batch, once it may pass; what of it may if there is no more to be had."""
        batch = self._kept or []
        while not self._meter.passes(batch):
            if not await self._more(self._meter.missing):
                batch = self._meter.cut(batch)
                break
        self._kept = None
        return batch


def unmetered(source: object) -> object:
    """The source within, or the source itself where nothing meters it."""
    return source.source if isinstance(source, Metered) else source
