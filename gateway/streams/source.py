"""What a session pumps: a provider group, an agent run, a test. The seam that makes all of them streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.upstream.contract import Batch, Timeouts


class Source(Protocol):
    """Where a stream's events come from: entered once, iterated by one task, left in every case.

    `timeouts` are those of the leg that is running now; `attempts` one line for each upstream attempt so far.
    """

    @property
    def timeouts(self) -> Timeouts:
        """Deadlines between events, of the current leg."""
        ...

    @property
    def attempts(self) -> list[str]:
        """One line per attempt, for the status object."""
        ...

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Begin. Entering waits for the first content; leaving closes the upstream socket."""
        ...
