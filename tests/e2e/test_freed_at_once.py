"""What a stream was made of is freed when it ends, by reference counts: nothing of it waits for the garbage collector.

A ring holds up to 256 KiB, and a collector that finds little runs seldom: cycles would be the gateway's memory.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.api.sse import Delivery
from gateway.pool.attempts import Attempts
from gateway.providers._reading import Reading
from gateway.streams.appender import Appender
from gateway.streams.hub import Channel
from gateway.streams.reader import Reader
from gateway.streams.session import Session
from gateway.streams.stats import Stats
from tests.e2e.house import House, house, run, sid_of
from tests.e2e.test_control import ended
from tests.support.chaos import Plan
from tests.support.signals import eventually

KINDS = (Session, Appender, Channel, Reader, Delivery, Reading, Attempts, Stats)
STREAMS = 3


@contextmanager
def no_collector() -> Iterator[None]:
    """Nothing is collected meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> Counter[str]:
    """The objects of streams that live."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))


async def _read(it: House) -> None:
    async with it.chat() as answer:
        await answer.read()


async def _whole(it: House) -> None:
    assert (await it.ask()).status == 200


async def _paused_and_cancelled(it: House) -> None:
    async with it.chat() as answer:
        sid = sid_of(answer)
        await it.control(sid, "pause")
        await it.control(sid, "cancel")
        await answer.read_cut()


async def _left(it: House) -> None:
    async with it.chat() as answer:
        sid = sid_of(answer)
    await ended(it, sid)


async def _broken(it: House) -> None:
    async with it.chat() as answer:
        await answer.read_cut()


@pytest.mark.parametrize(
    ("plan", "use"),
    [
        pytest.param(Plan(tokens=20), _read, id="read"),
        pytest.param(Plan(tokens=20), _whole, id="whole"),
        pytest.param(Plan(stall_at_event=3), _paused_and_cancelled, id="paused and cancelled"),
        pytest.param(Plan(stall_at_event=3), _left, id="left"),
        pytest.param(Plan(tokens=20, cut_at_byte=2000), _broken, id="broken"),
    ],
)
def test_an_ended_stream_leaves_nothing(plan: Plan, use: Callable[[House], Awaitable[None]]) -> None:
    """Once it has ended and its readers are gone, no session, channel, reader or decoder of it is in memory."""

    async def scenario() -> None:
        async with house(plan) as it:
            await use(it)
            with no_collector():
                before = alive()
                for _ in range(STREAMS):
                    await use(it)
                await _settled(it)
                left = alive() - before
            assert not left, left

    run(scenario())


async def _settled(it: House) -> None:
    """Connections that were closed are gone, and so is what their tasks held."""
    await eventually(lambda: not it.channels and not it.atlas.connections, what="all to be gone")
    for _ in range(5):
        await asyncio.sleep(0)
