"""Deadlines of steps. They stand still while a run is held: nobody is late because a stream is paused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Deadlines:
    """All deadlines of one run."""

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self._left: dict[asyncio.Timeout, float] = {}
        self._is_held = False

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncGenerator[None]:
        """Work for at most so many seconds, those in which the run is held not counted.

        Raises:
            TimeoutError: it took longer.
        """
        async with asyncio.timeout(seconds) as deadline:
            self._running.add(deadline)
            if self._is_held:
                self._stop(deadline)
            try:
                yield
            finally:
                self._running.discard(deadline)
                self._left.pop(deadline, None)

    def hold(self) -> None:
        """Stand still from here on."""
        if not self._is_held:
            self._is_held = True
            for deadline in self._running:
                self._stop(deadline)

    def go_on(self) -> None:
        """After `hold`."""
        self._is_held = False
        now = asyncio.get_running_loop().time()
        for deadline, left in self._left.items():
            deadline.reschedule(now + left)
        self._left.clear()

    def _stop(self, deadline: asyncio.Timeout) -> None:
        when = deadline.when()
        if when is not None and not deadline.expired():
            self._left[deadline] = max(0.0, when - asyncio.get_running_loop().time())
            deadline.reschedule(None)
