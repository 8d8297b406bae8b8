"""The housekeeper: what is due happens by its beat, on a clock that the test turns."""

import asyncio
import logging

import pytest

from gateway.core.errors import StreamRefused
from gateway.core.events import End, Finish, State
from gateway.core.ids import show_sid
from gateway.streams.journal_memory import MemoryJournal
from gateway.streams.lifecycle import Op
from gateway.upstream.contract import Timeouts
from tests.unit.streams.world import RHYTHM, TENANT, Said, World, follow, looped, text, turns


@looped
async def test_deadlines_are_enforced() -> None:
    """A silent source is given up by the beat after its deadline."""
    world = World()
    source = Said(text("a"))
    source.timeouts = Timeouts(idle_s=10)
    stream = await world.session(source)
    await stream.go()
    await world.beat(10)
    await turns()
    assert not stream.task.done()
    await world.beat()
    await turns()
    assert (await stream.over()).reason == "timeout_idle"


@looped
async def test_a_pause_expires_after_its_time() -> None:
    """A pause of more than `pause_max_s` cancels the stream, closes its source and says why; a shorter one stays."""
    world = World()
    source = Said(text("a"))
    stream = await world.session(source)
    await stream.go()
    await stream.pause()
    await world.beat(RHYTHM.pause_max_s)
    assert await stream.state() == "paused"
    await world.beat(1.0)
    await turns()
    end = await stream.over()
    assert (end.state, end.reason) == (State.CANCELLED, "pause_expired")
    assert source.closed == 1


@looped
async def test_a_pause_may_expire_into_a_resume() -> None:
    """With the other policy the stream goes on, and what was held is served."""
    world = World()
    source = Said(text("a"))
    stream = await world.session(source, on_pause_expiry="resume")
    await stream.go()
    await stream.pause()
    source.say(text("b"))
    await world.beat(901)
    assert await stream.state() == "running"
    source.say([Finish(0, "stop")], None)
    await stream.over()
    assert await stream.words() == "ab"


@looped
async def test_a_pause_without_an_owner_expires_too() -> None:
    """A paused stream whose owner is gone does not stay paused for ever."""
    world = World()
    log = await world.log()
    await log.do(Op.PAUSE)
    reader = await log.reader()
    await follow(reader)
    await world.beat(901)
    assert await log.state() == "cancelled"
    assert isinstance((await follow(reader))[-1][2], End)
    reader.detach()


@looped
async def test_an_expiry_that_loses_a_race_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A pause that somebody ends between the look and the deed is left alone, quietly."""
    world = World()
    log = await world.log()
    await log.do(Op.PAUSE)
    inner = world.journal.paused_since

    async def raced(moment: float) -> list[object]:
        found = await inner(moment)
        await log.do(Op.RESUME)
        await log.do(Op.PAUSE)
        return list(found)

    world.journal.paused_since = raced  # type: ignore[method-assign, assignment]
    await world.beat(901)
    assert await log.state() == "paused"
    assert caplog.records == []


@looped
async def test_a_stream_that_nobody_came_back_to_is_cancelled() -> None:
    """After the grace a stream without readers is cancelled as a disconnect, and not before."""
    world = World()
    source = Said(text("a"))
    stream = await world.session(source)
    await stream.go()
    stream.session.grace_until = world.clock.monotonic() + 60
    await world.beat(60)
    assert await stream.state() == "running"
    await world.beat()
    await turns()
    end = await stream.over()
    assert (end.state, end.reason) == (State.CANCELLED, "disconnect")
    assert source.closed == 1


@looped
async def test_a_stream_that_somebody_reads_is_not_abandoned() -> None:
    """A reader that came back within the grace keeps the stream."""
    world = World()
    stream = await world.session(Said(text("a")))
    await stream.go()
    stream.session.grace_until = world.clock.monotonic() + 60
    reader = await stream.reader()
    await world.beat(61)
    assert await stream.state() == "running"
    reader.detach()
    await world.control.cancel(stream.shown, TENANT)
    await turns()


@looped
async def test_a_disconnect_does_not_cancel_a_paused_stream() -> None:
    """The grace does not end a stream while it is paused; it does after the resume."""
    world = World()
    stream = await world.session(Said(text("a")))
    await stream.go()
    stream.session.grace_until = world.clock.monotonic() + 60
    await stream.pause()
    await world.beat(100)
    assert await stream.state() == "paused"
    await stream.resume()
    await world.beat()
    await turns()
    assert (await stream.over()).reason == "disconnect"


@looped
async def test_an_abandoned_stream_that_cannot_be_cancelled_does_not_end_the_housekeeper(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the cancel is refused, because the log is gone, that is a line in the log and the beat goes on."""
    caplog.set_level(logging.WARNING)
    world = World()
    stream = await world.session(Said(text("a")))
    await stream.go()
    await world.journal.delete(stream.sid)
    stream.session.grace_until = world.clock.monotonic()
    await world.beat()
    assert [line.message for line in caplog.records] == ["could not cancel an abandoned stream"]
    stream.task.cancel()
    await turns()


@looped
async def test_quiet_readers_get_a_beat() -> None:
    """A reader that waits on a quiet stream looks again by each beat, so that it can send a heartbeat."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    await follow(reader)
    for _ in range(3):
        waiting = asyncio.ensure_future(reader.next())
        await turns()
        assert not waiting.done()
        await world.beat()
        await turns()
        assert waiting.done()
        assert await waiting == []
    reader.detach()


@looped
async def test_a_stuck_reader_is_dropped() -> None:
    """A send that blocks for longer than `client_send_s` is told to the reader's delivery; others are left alone."""
    world = World()
    log = await world.log()
    stuck, fine, idle = [await log.reader() for _ in range(3)]
    told: list[str] = []
    for name, reader in [("stuck", stuck), ("fine", fine), ("idle", idle)]:
        reader.on_stuck = lambda name=name: told.append(name)  # type: ignore[misc]
        reader.sent_at = world.clock.monotonic()
    stuck.sending = fine.sending = True
    await world.beat(20)
    assert told == []
    fine.sent_at = world.clock.monotonic()
    await world.beat()
    assert told == ["stuck"]
    for reader in (stuck, fine, idle):
        reader.detach()


@looped
async def test_a_reader_may_leave_while_it_is_dropped() -> None:
    """A delivery that detaches its reader when it is told that it is stuck does not disturb the beat."""
    world = World()
    log = await world.log()
    readers = [await log.reader() for _ in range(3)]
    for reader in readers:
        reader.sending, reader.on_stuck = True, reader.detach
        reader.sent_at = world.clock.monotonic()
    await world.beat(21)
    assert world.hub.channels == {}


@looped
async def test_times_to_live_are_swept() -> None:
    """Ended logs go by the beat after their time, and give their bytes back."""
    world = World()
    stream = await world.session(Said(text("a"), None))
    await stream.go()
    await world.beat(900)
    await world.beat(1)
    with pytest.raises(StreamRefused) as refused:
        await world.control.page(show_sid(stream.sid), TENANT)
    assert refused.value.status == 410
    assert world.journal.total_bytes == 0


@looped
async def test_sweeps_are_rarer_than_beats() -> None:
    """The pass over all records is made once in `sweep_s`, not by every beat."""
    swept: list[float] = []

    class Counting(MemoryJournal):
        async def sweep(self) -> None:
            swept.append(world.clock.monotonic())

    world = World()
    world.keeper._journal = Counting(world.journal._bounds, world.clock)
    for _ in range(40):
        await world.beat(0.25)
    assert len(swept) == 10


@looped
async def test_run_beats_until_cancelled() -> None:
    """The housekeeper's task beats by itself, measures the loop's lag, and ends when cancelled."""
    world = World()
    lags: list[float] = []
    rhythm = type(RHYTHM)(tick_s=0.0)
    keeper = type(world.keeper)(world.hub, world.journal, world.control, world.clock, rhythm, lags.append)
    task = asyncio.ensure_future(keeper.run())
    await turns()
    assert lags
    assert all(lag >= 0 for lag in lags)
    task.cancel()
    await turns()
    assert task.cancelled()
