"""An answer that is complete in its log but for the end: there is nobody to ask for anything."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from gateway.upstream.contract import Batch, Timeouts


class Whole:
    """An event source that ends at once; see `streams.source.Source`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.attempts: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[AsyncIterator[Batch]]:
        """No events."""
        yield _nothing()


async def _nothing() -> AsyncGenerator[Batch]:
    empty: list[Batch] = []
    for batch in empty:
        yield batch
