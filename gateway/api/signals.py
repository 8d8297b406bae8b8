"""SIGTERM, SIGINT and SIGHUP belong to Atlas, from before the application is built until the process is gone.

One handler, installed once. Nothing else may install one: uvicorn ends responses before it tells the application, and
sse-starlette ends every event stream as soon as it sees that a server of uvicorn's was told to exit.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Entered it owns the signals. Without a `receiver` there is nothing to end yet: the process exits with 0.

    SIGHUP goes to `reloader`; until there is one, it is not needed, as the configuration is just being read. Where a
    terminal was and is gone, though, it ends the process as SIGTERM does.

    After it was left all are ignored: what is left of the process is its exit code, which a late signal would spoil.
    """

    def __init__(self) -> None:
        self.receiver: Callable[[int], None] | None = None
        self.reloader: Callable[[], None] = lambda: None
        self._had_terminal = _has_terminal()

    def __enter__(self) -> Self:
        for number in HANDLED:
            signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        """Runs between two instructions of whatever the process does."""
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            self.reloader()
            return
        number = signal.SIGTERM if number == signal.SIGHUP else number
        if self.receiver is None:
            raise SystemExit(0)
        self.receiver(number)


def _has_terminal() -> bool:
    """Whether a standard stream is a terminal that is still there."""
    return any(map(os.isatty, (0, 1, 2)))
