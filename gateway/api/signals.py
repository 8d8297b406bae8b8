"""SIGTERM and SIGINT belong to Atlas, from before the application is built until the process is gone.

One handler, installed once. Nothing else may install one: uvicorn ends responses before it tells the application, and
sse-starlette ends every event stream as soon as it sees that a server of uvicorn's was told to exit.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Entered it owns both signals. Without a `receiver` there is nothing to end yet: the process exits with 0.

    After it was left both are ignored: what is left of the process is its exit code, which a late signal would spoil.
    """

    def __init__(self) -> None:
        self.receiver: Callable[[int], None] | None = None

    def __enter__(self) -> Self:
        for number in HANDLED:
            signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        """Runs between two instructions of whatever the process does."""
        if self.receiver is None:
            raise SystemExit(0)
        self.receiver(number)
