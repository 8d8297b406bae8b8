"""The batches of one leg: up to its first content, which commits to it, and from there on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, is_content
from gateway.pool.hold_back import AtomicTools
from gateway.upstream.contract import pump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from gateway.upstream.contract import Accept, Batch, Timeouts


class Answering:
    """The batches of the endpoint that answers: what was read so far, then the rest."""

    __slots__ = ("_batches", "_head")

    def __init__(self, head: Batch, batches: AsyncIterator[Batch]) -> None:
        self._head: Batch | None = head
        self._batches = batches

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    def __anext__(self) -> Awaitable[Batch]:
        # No coroutine of its own: the reader awaits the provider's directly.
        return self._batches.__anext__() if self._head is None else self._take_head(self._head)

    async def pump(self, accept: Accept) -> bool:
        """Give every batch to `accept`; see `upstream.contract.Pumped`."""
        if self._head is not None and not accept(await self._take_head(self._head)):
            return True
        return await pump(self._batches, accept)

    async def _take_head(self, head: Batch) -> Batch:
        self._head = None
        return head


async def read_to_content(
    batches: AsyncIterator[Batch], deadline: asyncio.Timeout, timeouts: Timeouts, *, goes_on: bool
) -> Batch:
    """Everything up to and with the first batch that holds content, or a whole answer that rightly has none.

    A tool call that is held until it is whole is no silence: then the deadline between reads holds. A leg that
    `goes_on` may find that all had been said.

    Raises:
        ProviderError: `empty`, for an answer that ends without content although nothing cut it short.
    """
    head: Batch = []
    async for batch in batches:
        head += batch
        if any(map(is_content, batch)):
            return head
        if isinstance(batches, AtomicTools) and batches.is_holding:
            deadline.reschedule(asyncio.get_running_loop().time() + timeouts.idle_s)
    if any(isinstance(event, Finish) and (goes_on or event.reason != "stop") for event in head):
        return head  # filtered, or all tokens went into reasoning that is not shown
    raise ProviderError(Category.EMPTY, "the provider's answer had no content")
