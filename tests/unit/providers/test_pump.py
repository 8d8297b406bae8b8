"""Batches handed on from where they arrive are the batches that iteration gives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.clock import SystemClock
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Text
from gateway.providers.openai_chat import OpenAIProvider
from gateway.upstream.contract import Batch, Timeouts, pump
from gateway.upstream.transport import Transport
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Gate, Plan
from tests.support.run import run

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
ASK = ChatRequest(
    dialect="openai_chat", model="m", messages=(Message(role="user", parts=(TextPart(text="x"),)),), body=BODY
)


@asynccontextmanager
async def answering(plan: Plan) -> AsyncIterator[tuple[ChaosProvider, AsyncIterator[Batch]]]:
    """An answer of a real provider over a real socket; everything is back at the baseline behind it."""
    async with baseline(), ChaosProvider(plan) as up:
        transport = Transport(Timeouts())
        provider = OpenAIProvider(base_url=up.base_url, key=None, transport=transport, clock=SystemClock())
        try:
            async with provider.stream(ASK, "m") as batches:
                yield up, batches
        finally:
            await provider.aclose()


def text(batches: list[Batch]) -> str:
    """All text of these batches."""
    return "".join(event.text for batch in batches for event in batch if isinstance(event, Text))


def until(batches: list[Batch], enough: Callable[[], bool]) -> Callable[[Batch], bool]:
    """An `accept` that keeps what it gets, and says no once that is enough."""

    def accept(batch: Batch) -> bool:
        batches.append(batch)
        return not enough()

    return accept


@pytest.mark.parametrize("chunking", ["event", "whole", 7])
def test_a_pumped_answer_is_whole(chunking: str | int) -> None:
    """Every token arrives, in order, and the pump says that the answer is over."""

    async def scenario() -> None:
        plan = Plan(tokens=40, chunking=chunking)  # type: ignore[arg-type]
        got: list[Batch] = []
        async with answering(plan) as (_, batches):
            assert hasattr(batches, "pump")
            assert await pump(batches, until(got, lambda: False)) is False
            assert await pump(batches, until(got, lambda: False)) is False  # over is over
        assert text(got) == plan.text()

    run(scenario())


def test_a_pump_stops_where_it_is_told_and_goes_on() -> None:
    """What `accept` does not want yet waits, and nothing of it is lost."""

    async def scenario() -> None:
        plan = Plan(tokens=40)
        got: list[Batch] = []
        async with answering(plan) as (_, batches):
            stops = 0
            while await pump(batches, until(got, lambda: True)):
                stops += 1
        assert stops > 0
        assert text(got) == plan.text()

    run(scenario())


def test_a_cut_is_raised_by_the_pump_behind_everything_that_came() -> None:
    """A provider that dies in mid-stream fails the pump, after the batches before."""

    async def scenario() -> None:
        plan = Plan(tokens=40, gate=Gate(10), no_done=True)
        got: list[Batch] = []
        async with answering(plan) as (up, batches):
            pumping = asyncio.ensure_future(pump(batches, until(got, lambda: False)))
            await up.last.wrote(10)
            up.reset_all()
            with pytest.raises(ProviderError) as caught:
                await pumping
        assert caught.value.category is Category.STREAM_BROKEN
        assert plan.text().startswith(text(got))

    run(scenario())


def test_a_cancelled_pump_takes_nothing_further() -> None:
    """Once the pump was cancelled, what arrives is no longer handed on."""

    async def scenario() -> None:
        gate = Gate(5)
        got: list[Batch] = []
        async with answering(Plan(tokens=40, gate=gate)) as (up, batches):
            pumping = asyncio.ensure_future(pump(batches, until(got, lambda: False)))
            await up.last.wrote(5)
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
            before = len(got)
            await gate.release(10)
            assert len(got) == before

    run(scenario())
