"""The tasks of one run: begun by it, ended with it.

Not a task group: that would wrap what ends the run in an exception group, and cancel the run for a crash that the run
should tell of in its own words.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Crew:
    """Owns tasks; `disband` ends them all."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def spawn(self, work: Coroutine[Any, Any, None], on_crash: Callable[[BaseException], None]) -> None:
        """Begin work; `on_crash` is told if it ends with an exception. After the end nothing begins."""
        if self._is_over:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                on_crash(error)

        task.add_done_callback(done)

    async def disband(self) -> None:
        """End what still runs, and wait until it has ended: its sockets are closed then."""
        self._is_over = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
