"""A hedged request that is left at an unlucky moment."""

import asyncio
from dataclasses import replace

import pytest

from gateway.core.chat import ChatRequest
from gateway.pool.hedging import HedgePolicy
from tests.support.run import run
from tests.unit.pool.test_group import GOOD, House, Scripted


@pytest.mark.parametrize("turns", range(16))
def test_cancelled_at_any_turn(turns: int) -> None:
    """Whoever had just come to content when its request was cancelled is left: its socket is closed, its place free."""
    house = House(Scripted(GOOD), Scripted(GOOD))
    group = replace(house.group, hedge=HedgePolicy())
    attempts = group.attempt(ChatRequest(dialect="none", model="route", messages=(), stream=True))

    async def enter() -> None:
        async with attempts.open():
            await asyncio.Event().wait()

    async def go() -> None:
        task = asyncio.ensure_future(enter())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())
    assert [provider.open for provider in house.providers] == [0, 0]
    for endpoint in group.endpoints:
        shown = endpoint.candidate.shown(0.0)
        assert (shown["statistics"]["in_flight"], shown["limits"]["running"]) == (0, 0)
