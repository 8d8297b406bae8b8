"""What workers that run side by side say, in the order in which they said it, for the one task that reads it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.ports import Batch

ROOM = 256
"""Batches that wait at most: a log that takes nothing more makes workers wait, and with them their sockets."""


class Outbox:
    """A bounded queue whose reader takes everything at once."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._error: BaseException | None = None

    async def put(self, batch: Batch) -> None:
        """Say something; waits while there is no room."""
        while len(self._batches) >= ROOM:
            self._emptied.clear()
            await self._emptied.wait()
        self._batches.append(batch)
        self._filled.set()

    async def take(self) -> Batch:
        """Everything that was said since; waits for the first.

        Raises:
            BaseException: what a worker crashed with.
        """
        await self._filled.wait()
        if self._error is not None:
            raise self._error
        self._filled.clear()
        found = [event for batch in self._batches for event in batch]
        self._batches.clear()
        self._emptied.set()
        return found

    def fail(self, error: BaseException) -> None:
        """A worker crashed: whoever takes next is told."""
        self._error = error
        self._filled.set()
