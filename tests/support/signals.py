"""Waiting for a fact: a test states a predicate, whoever changes something rings."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 20.0  # how long what takes milliseconds may take, on a machine that is held up for seconds


class Signal:
    """Wakes all who wait, who then look for themselves; one event loop, no lock needed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, predicate: Callable[[], bool], timeout: float | None = PATIENCE_S, what: str = "it") -> None:
        """Returns once `predicate()` is true.

        Raises:
            TimeoutError: when it is not within `timeout` seconds; names `what` was waited for.
        """
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    await self._event.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {timeout} s for {what}") from None


async def eventually(predicate: Callable[[], bool], timeout: float = PATIENCE_S, what: str = "it") -> None:
    """Polls, for facts that nobody rings for.

    Raises:
        AssertionError: when `predicate()` is not true within `timeout` seconds; names `what` was waited for.
    """
    for _ in range(int(timeout / 0.01)):
        if predicate():
            return
        await asyncio.sleep(0.01)
    assert predicate(), f"waited {timeout} s for {what}"
