"""Coroutines in plain tests are bounded."""

import asyncio

import pytest
import uvloop

from tests.support.run import run
from tests.support.signals import Signal, eventually


def test_deadline() -> None:
    """A coroutine that hangs ends as TimeoutError, in either loop."""
    for fast in (False, True):
        with pytest.raises(TimeoutError):
            run(asyncio.Event().wait(), 0.01, fast=fast)


def test_result_and_loop() -> None:
    """The result comes back, from the loop that was asked for."""

    async def is_uvloop() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert (run(is_uvloop()), run(is_uvloop(), fast=True)) == (False, True)


def test_signal_wakes_and_gives_up() -> None:
    """Whoever waits for a fact sees it once it is rung for, and says what it waited for when it is not."""

    async def scenario() -> None:
        facts, signal = [0], Signal()

        async def change() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
                facts[0] += 1
                signal.ring()

        async with asyncio.TaskGroup() as group:
            group.create_task(change())
            await signal.until(lambda: facts[0] == 3)
        with pytest.raises(TimeoutError, match="four"):
            await signal.until(lambda: facts[0] == 4, 0.01, "four")
        with pytest.raises(AssertionError, match="four"):
            await eventually(lambda: facts[0] == 4, 0.02, "four")
        await eventually(lambda: facts[0] == 3)

    run(scenario())
