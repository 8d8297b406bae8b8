"""A stream that is cut at any of its awaits: the source is closed, the log has one end, and nothing is left."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeAlias

import pytest

from gateway.core.errors import Category
from gateway.core.events import End, Finish, State
from gateway.streams.ground import Policy
from tests.support.baseline import baseline
from tests.support.run import run
from tests.unit.streams.world import TENANT, Owned, Said, World, follow, text, turns, words_of

WORDS = [f"{number} " for number in range(12)]


class Slow(Said):
    """Awaits something at every step: opening, each read, closing."""

    async def _batches(self):  # type: ignore[no-untyped-def]
        async for batch in super()._batches():
            await asyncio.sleep(0)
            yield batch

    def open(self):  # type: ignore[no-untyped-def]
        return _Slowly(super().open())


class _Slowly:
    """A context whose two ends take a turn of the loop each; the second also when it is cancelled."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    async def __aenter__(self) -> object:
        await asyncio.sleep(0)
        return await self._inner.__aenter__()  # type: ignore[attr-defined]

    async def __aexit__(self, *error: object) -> object:
        try:
            await asyncio.sleep(0)
        finally:
            result = await self._inner.__aexit__(*error)  # type: ignore[attr-defined]
        return result


Cut: TypeAlias = Callable[[Owned], Awaitable[None]]


async def _by_control(stream: Owned) -> None:
    await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)


async def _by_task(stream: Owned) -> None:
    stream.task.cancel()


async def _by_deadline(stream: Owned) -> None:
    stream.session.interrupt(Category.TIMEOUT_IDLE, "late")


async def _by_shutdown(stream: Owned) -> None:
    stream.session.shut_down()


async def _by_all(stream: Owned) -> None:
    stream.session.interrupt(Category.TIMEOUT_IDLE, "late")
    await _by_control(stream)
    stream.session.shut_down()


CUTS: dict[str, Cut] = {
    "control": _by_control,
    "task": _by_task,
    "deadline": _by_deadline,
    "shutdown": _by_shutdown,
    "all": _by_all,
}


async def _run_cut_at(k: int, cut: Cut, *, paused_at: int | None) -> bool:
    """One run that is cut after `k` turns of the loop. False when it was over before."""
    async with baseline():
        world = World(Policy(pause_hold_bytes=20))
        source = Slow(*[text(word) for word in WORDS], [Finish(0, "stop")], None)
        stream = await world.session(source)
        reader = await stream.reader()
        stream.start_task()
        for turn in range(k):
            if turn == paused_at:
                await world.control.pause(stream.shown, TENANT)
            await asyncio.sleep(0)
        was_over = stream.task.done() or (paused_at is not None and k > 60)
        await cut(stream)
        await turns(60)
        assert await follow(reader) or reader.done
        await _check(stream, source, world)
        assert "".join(WORDS).startswith(words_of(await _served_again(stream)))
        reader.detach()
        assert world.hub.channels == {} or not stream.task.done()
        return not was_over


async def _check(stream: Owned, source: Said, world: World) -> None:
    """The source is closed, the task gone, and the log ended, or can be ended by anybody."""
    assert source.opened == source.closed <= 1
    if not stream.task.done():
        raise AssertionError("the session goes on")
    state = await stream.state()
    if state == "paused":
        record = (await world.journal.known(stream.sid)).record
        assert record.kept is not None, "nobody owns this stream, and its end is not kept"
        await world.control.resume(stream.shown, TENANT)
    elif state == "running":  # its task was cancelled before it began: anybody may claim it
        assert source.opened == 0
        await world.control.cancel(stream.shown, TENANT, wait_s=0)
        stream.session.channel.session = None
        world.hub.release(stream.session.channel)
    await stream.end()


async def _served_again(stream: Owned) -> list[tuple[int, int, object]]:
    reader = await stream.reader()
    applied = await follow(reader)
    assert isinstance(applied[-1][2], End)
    reader.detach()
    return applied  # type: ignore[return-value]


@pytest.mark.parametrize("paused_at", [None, 0, 5, 12], ids=["running", "paused at 0", "paused at 5", "paused at 12"])
@pytest.mark.parametrize("cut", CUTS)
def test_cut_at_every_await(cut: str, paused_at: int | None) -> None:
    """Whenever it is cut, and by whatever, a stream leaves one end, a closed source and no task."""
    for k in count():
        if not run(_run_cut_at(k, CUTS[cut], paused_at=paused_at)):
            break
    assert k > 10, "the run is meant to have many awaits"


def test_a_run_that_is_not_cut_completes() -> None:
    """The same run, left alone, completes with all of its text."""

    async def whole() -> None:
        stream = await World().session(Slow(*[text(word) for word in WORDS], [Finish(0, "stop")], None))
        stream.start_task()
        assert (await stream.over()).state is State.COMPLETED
        assert await stream.words() == "".join(WORDS)

    run(whole())
