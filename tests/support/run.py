"""Coroutines in plain test functions: one fresh event loop each, and never longer than a deadline."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


async def _bounded(coro: Coroutine[Any, Any, T], timeout: float) -> T:
    async with asyncio.timeout(timeout):
        return await coro


def run(coro: Coroutine[Any, Any, T], timeout: float = 60, *, fast: bool = False) -> T:
    """Runs `coro` in a loop of its own and returns what it returns.

    `timeout` is in seconds. `fast` takes uvloop, which the gateway runs on, in place of asyncio's own loop.

    Raises:
        TimeoutError: when `coro` takes longer than `timeout`.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if fast else None) as runner:
        return runner.run(_bounded(coro, timeout))
