"""Sessions: one owner pumps one source into one log, ends it exactly once, and closes the source in every case."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.core.errors import Category, ProviderError
from gateway.core.events import End, Finish, Leg, Pause, Resume, Start, State, Text, UsageReport
from gateway.core.usage import Usage
from gateway.streams import outstanding
from gateway.streams.ground import Policy
from gateway.streams.journal import Appended, Entry
from gateway.streams.journal_memory import Bounds, MemoryJournal
from gateway.streams.lifecycle import Op
from gateway.streams.session import Session
from gateway.upstream.contract import Timeouts
from tests.unit.streams.world import TENANT, Owned, Said, World, follow, looped, text, turns, words_of

HOLD = Policy(pause_hold_bytes=1_000)
KILO = "k" * 1_000
STOP = [Finish(0, "stop")]
BROKEN = ProviderError(Category.STREAM_BROKEN, "the connection broke")


def _assert_left(stream: Owned, source: Said) -> None:
    """The session is gone and took everything with it."""
    assert stream.task.done()
    assert stream.session.closed.is_set()
    assert source.opened == source.closed <= 1
    assert stream.session.channel.session is None
    assert stream.world.hub.find(stream.sid) is None or stream.session.channel.readers
    assert len(stream.world.settled) == 1


# Ends of the source's own.


@looped
async def test_a_whole_answer_completes() -> None:
    """All that the source said is in the log, in order, and then the end with the provider's usage."""
    world = World()
    usage = Usage(input_tokens=5, output_tokens=7)
    source = Said([Leg(1, "e", "p", "first", "")], text("a", "b"), text("c"), [*STOP, UsageReport(usage)], None)
    stream = await world.session(source)
    await stream.go()
    assert await stream.over() == End(State.COMPLETED, None, None, usage, 1)
    kinds = [type(event) for event in await stream.events()]
    assert kinds == [Start, Leg, Text, Text, Text, Finish, UsageReport, End]
    assert world.settled == [await stream.end()]
    _assert_left(stream, source)


@looped
async def test_a_length_finish_is_incomplete() -> None:
    """An answer that ran into its token limit is not called completed."""
    stream = await World().session(Said(text("a"), [Finish(0, "stop"), Finish(1, "length")], None))
    await stream.go()
    end = await stream.over()
    assert (end.state, end.reason) == (State.INCOMPLETE, "length")


@looped
async def test_unreported_usage_is_estimated_and_says_so() -> None:
    """When the provider gave no usage the log has an estimate, marked as one, before the end."""
    stream = await World().session(Said(text("x" * 40), text("y"), STOP, None))
    await stream.go()
    end = await stream.over()
    *_, report, last = await stream.events()
    assert isinstance(report, UsageReport)
    assert last is end or last == end
    assert report.usage == end.usage == Usage(output_tokens=10, estimated=True)


@looped
async def test_an_answer_without_content_estimates_nothing() -> None:
    """No content, no usage event."""
    stream = await World().session(Said(STOP, None))
    await stream.go()
    await stream.over()
    assert not any(isinstance(event, UsageReport) for event in await stream.events())


@looped
async def test_readers_have_the_end_before_the_socket_is_closed() -> None:
    """A source that is slow to close does not keep the end from the readers."""
    source = Said(text("a"), None, closes=False)
    stream = await World().session(source)
    reader = await stream.reader()
    await stream.go()
    assert isinstance((await follow(reader))[-1][2], End)
    assert reader.done
    assert not stream.session.closed.is_set()
    source.let_close()
    await stream.over()
    _assert_left(stream, source)
    reader.detach()
    assert stream.world.hub.channels == {}


@pytest.mark.parametrize("script", [(BROKEN,), (text("a"), BROKEN)], ids=["at once", "after content"])
@looped
async def test_a_providers_failure_fails_the_stream(script: tuple[object, ...]) -> None:
    """What was said stays in the log, and the end names the failure."""
    source = Said(*script)  # type: ignore[arg-type]
    stream = await World().session(source)
    await stream.go()
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "stream_broken")
    assert end.failure is not None
    assert (end.failure.category, end.failure.message) == (Category.STREAM_BROKEN, "the connection broke")
    assert await stream.words() == "a" * (len(script) - 1)
    _assert_left(stream, source)


@looped
async def test_a_bug_fails_one_stream_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A source's own bug ends its stream as failed, tells the client no detail, and is in the log with its trace."""
    caplog.set_level(logging.ERROR, "atlas.streams")
    source = Said(text("a"), KeyError("sk-secret"))
    stream = await World().session(source)
    await stream.go()
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "internal")
    assert end.failure is not None
    assert "secret" not in end.failure.message
    (line,) = caplog.records
    assert line.exc_info is not None
    assert isinstance(line.exc_info[1], KeyError)
    assert line.__dict__["stream"] == stream.shown
    _assert_left(stream, source)


@looped
async def test_a_settlement_that_fails_does_not_reach_the_app(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in what is done after the end is logged; the task ends quietly, or it would end every stream."""
    world = World()
    source = Said(text("a"), None)

    async def bug(session: Session, end: End) -> None:
        raise KeyError("bug")

    stream = await world.session(source)
    stream.session._on_end = bug
    async with asyncio.TaskGroup() as group:
        stream.task = group.create_task(stream.session.run())
    assert (await stream.end()).state is State.COMPLETED
    assert stream.session.channel.session is None
    assert world.hub.channels == {}
    assert [line.message for line in caplog.records] == ["a stream was not settled"]


@looped
async def test_a_settlement_that_hangs_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done after the end has a deadline."""
    monkeypatch.setattr(outstanding, "BILL_DEADLINE_S", 0.001)

    async def hang(session: Session, end: End) -> None:
        await asyncio.Event().wait()

    world = World()
    stream = await world.session(Said(None))
    stream.session._on_end = hang
    await stream.go()
    await stream.over()
    assert world.hub.channels == {}
    assert [line.message for line in caplog.records] == ["a stream was not settled"]


@looped
async def test_pings_are_no_events() -> None:
    """An empty batch is not appended."""
    stream = await World().session(Said([], text("a"), [], STOP, None))
    await stream.go()
    await stream.over()
    page = await stream.world.journal.read(stream.sid, -1, 1_000_000)
    assert [entry.count for entry in page.entries] == [1, 1, 1, 1, 1]


# Bounds.


@looped
async def test_a_log_of_too_many_bytes_ends_incomplete() -> None:
    """At the bound of a log the stream ends, says why, and the source is closed though it has more to say."""
    source = Said(*[text(KILO)] * 10)
    stream = await World(Policy(max_stream_bytes=3_500)).session(source)
    await stream.go()
    end = await stream.over()
    assert (end.state, end.reason) == (State.INCOMPLETE, "limit")
    assert await stream.words() == KILO * 4
    assert source.read == 4
    _assert_left(stream, source)


@looped
async def test_a_log_of_too_many_events_ends_incomplete() -> None:
    """The number of events is bounded too."""
    source = Said(*[text("a", "b")] * 10)
    stream = await World(Policy(max_stream_events=5)).session(source)
    await stream.go()
    assert (await stream.over()).reason == "limit"
    assert await stream.words() == "ababab"
    _assert_left(stream, source)


SMALL = Bounds(max_total_bytes=5_000)


@looped
async def test_a_full_journal_ends_the_stream_incomplete() -> None:
    """When the journal has no room for content the stream is not called completed."""
    source = Said(text("a"), text(KILO * 6), text("b"), STOP, None)
    stream = await World(bounds=SMALL).session(source)
    await stream.go()
    end = await stream.over()
    assert (end.state, end.reason) == (State.INCOMPLETE, "limit")
    assert await stream.words() == "a"
    _assert_left(stream, source)


@looped
async def test_a_journal_that_is_full_after_a_fence_ends_the_stream_incomplete() -> None:
    """Content that a pause fenced and that then finds no room is not lost in silence."""
    source = Said(text("a"))
    stream = await World(bounds=SMALL).session(source)
    await stream.go()
    await stream.pause()
    source.say(text(KILO * 6), None)
    await turns()
    await stream.resume()
    end = await stream.over()
    assert (end.state, end.reason) == (State.INCOMPLETE, "limit")


# Pause and resume.


@looped
async def test_a_paused_source_is_read_on() -> None:
    """While paused the source is read into the log, readers are held at the pause, and a resume serves it all."""
    source = Said(text("a"))
    stream = await World().session(source)
    reader = await stream.reader()
    await stream.go()
    await stream.pause()
    source.say(text("b"), text("c"))
    await turns()
    assert source.read == 3
    assert await stream.words() == "abc"
    assert words_of(await follow(reader)) == "a"
    await stream.resume()
    source.say(text("d"), STOP, None)
    await stream.over()
    assert words_of(await follow(reader)) == "bcd"
    assert reader.done
    reader.detach()


@looped
async def test_a_source_that_ends_while_paused_ends_with_the_resume() -> None:
    """The end is kept: the source is closed and the owner gone, and the resume serves what was held and the end."""
    world = World()
    source = Said(text("a"))
    stream = await world.session(source)
    reader = await stream.reader()
    await stream.go()
    await stream.pause()
    source.say(text("b"), STOP, None)
    await turns()
    _assert_left(stream, source)
    assert await stream.state() == "paused"
    applied = await follow(reader)
    assert isinstance(applied[-1][2], Pause)
    assert not reader.done
    await stream.resume()
    applied = await follow(reader)
    assert [type(event) for _, _, event in applied] == [Text, Finish, UsageReport, Resume, End]
    assert reader.done
    assert (await stream.end()).state is State.COMPLETED
    reader.detach()


@pytest.mark.parametrize("late", ["shutdown", "failure"])
@looped
async def test_a_kept_end_stands(late: str) -> None:
    """What happens while the source of a stream is closed, whose end is kept, does not make that end another."""
    source = Said(text("a"), closes=False)
    stream = await World().session(source)
    await stream.go()
    await stream.pause()
    source.say(STOP, None)
    await turns()
    if late == "shutdown":
        stream.session.shut_down()
    else:
        stream.task.cancel()
    source.let_close()
    await turns()
    assert stream.task.done()
    await stream.resume()
    assert (await stream.end()).state is State.COMPLETED
    assert [end.state for end in stream.world.settled] == [State.COMPLETED]


@looped
async def test_the_pause_bound_stops_the_reading_until_the_resume() -> None:
    """At `pause_hold_bytes` the source is not read on; after the resume it is, and nothing is missing."""
    source = Said(text("a"))
    stream = await World(HOLD).session(source)
    await stream.go()
    for _ in range(3):
        read = source.read
        await stream.pause()
        source.say(*[text(KILO)] * 4)
        await turns()
        assert source.read == read + 1, "one batch reaches the bound"
        await stream.resume()
        assert source.read == read + 4
    source.say(STOP, None)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "a" + KILO * 12


@looped
async def test_the_pause_bound_counts_every_batch() -> None:
    """What is held is the sum of all that was read since the pause, not the size of one read."""
    source = Said()
    stream = await World(HOLD).session(source)
    await stream.go()
    await stream.pause()
    source.say(*[text("k" * 300)] * 8)
    await turns()
    assert source.read == 4
    source.say(STOP, None)
    await stream.resume()
    await stream.over()
    assert await stream.words() == "k" * 2_400


@looped
async def test_a_pause_at_the_bound_that_is_repeated_holds() -> None:
    """Resume and pause in one turn: the source may be read up to the bound again, and no further."""
    source = Said()
    stream = await World(HOLD).session(source)
    await stream.go()
    await stream.pause()
    source.say(*[text(KILO)] * 4)
    await turns()
    await stream.world.control.resume(stream.shown, TENANT)
    await stream.world.control.pause(stream.shown, TENANT)
    await turns()
    assert source.read <= 2
    await stream.resume()
    assert source.read == 4
    source.say(None)
    await stream.over()
    assert await stream.words() == KILO * 4


@looped
async def test_cycles_of_pause_and_resume_are_invisible_in_the_text() -> None:
    """However often a stream is paused, its text is what the source said."""
    source = Said()
    stream = await World().session(source)
    await stream.go()
    wanted = ""
    for number in range(10):
        for step in (stream.pause, stream.resume, stream.pause, stream.pause, stream.resume, stream.resume):
            source.say(text(f"{number}{step.__name__};", "+"))
            wanted += f"{number}{step.__name__};+"
            if number % 2:
                await turns()
            await step()
    source.say(None)
    await stream.over()
    assert await stream.words() == wanted
    events = await stream.events()
    assert sum(isinstance(event, Pause) for event in events) == sum(isinstance(event, Resume) for event in events) == 20


# Control steps by others.


@looped
async def test_a_fence_loses_nothing() -> None:
    """After a control step that the owner did not hear of, it numbers anew and goes on."""
    source = Said(text("a"))
    stream = await World().session(source)
    await stream.go()
    for op in (Op.PAUSE, Op.RESUME):
        await stream.do(op)
        source.say(text("b", "c"))
        await turns()
    source.say(STOP, None)
    await stream.over()
    assert await stream.words() == "abcbc"


@looped
async def test_a_fence_at_the_end_loses_nothing() -> None:
    """A control step between the last append and the end makes the owner try again, with nothing lost or doubled."""
    source = Said(text("a"))
    stream = await World().session(source)
    await stream.go()
    await stream.do(Op.PAUSE)
    await stream.do(Op.RESUME)
    source.say(None)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "a"


@pytest.mark.parametrize("how", ["claimed", "cancelled", "deleted", "expired"])
@looped
async def test_a_stream_that_is_not_ours_any_more_is_left(how: str) -> None:
    """A claimed, ended, deleted or expired log is not written to: the owner closes the source and goes."""
    world = World()
    source = Said(text("a"))
    stream = await world.session(source)
    await stream.go()
    match how:
        case "claimed":
            await stream.do(Op.CLAIM, owner="replica-2")
        case "cancelled":
            await stream.do(Op.CANCEL)
        case "deleted":
            await world.journal.delete(stream.sid)
        case _:
            world.clock.advance(2_000)
            await world.journal.sweep()
    before = [] if how in {"deleted", "expired"} else await stream.events()
    source.say(text("b"), text("c"), None)
    await turns()
    _assert_left(stream, source)
    if before:
        assert await stream.events() == before
    reason = "journal_lost" if how in {"deleted", "expired"} else "superseded"
    assert [(end.state, end.reason) for end in world.settled] == [(State.FAILED, reason)]


@looped
async def test_a_stream_that_was_ended_by_others_is_not_ended_again() -> None:
    """A source that ends, or fails, after somebody cancelled the log adds no second end."""
    for last in (None, BROKEN):
        source = Said(text("a"))
        stream = await World().session(source)
        await stream.go()
        await stream.do(Op.CANCEL)
        source.say(last)
        await turns()
        _assert_left(stream, source)
        assert (await stream.end()).state is State.CANCELLED


class Late:
    """A journal that settles appends some turns later, in order, as one across a network does."""

    def __init__(self, inner: MemoryJournal, lag: int) -> None:
        self._inner, self._lag = inner, lag
        self.create, self.read, self.step = inner.create, inner.read, inner.step
        self.known, self.annotate, self.sweep = inner.known, inner.annotate, inner.sweep

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        self._soon(self._lag, lambda: self._inner.append(sid, entry, lambda out: self._soon(self._lag, settled, out)))

    def _soon(self, turns_left: int, call: Callable[..., None], *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        if turns_left:
            loop.call_soon(self._soon, turns_left - 1, call, *arguments)
        else:
            call(*arguments)


@pytest.mark.parametrize("lag", [1, 3, 7])
@looped
async def test_an_end_does_not_overtake_an_append(lag: int) -> None:
    """With a journal that answers late the end comes after the answer to the last append: no loss, no double."""
    world = World()
    world.ground = replace(world.ground, journal=Late(world.journal, lag))  # type: ignore[arg-type]
    source = Said(*[text(f"{number} ") for number in range(10)], STOP, None)
    stream = await world.session(source)
    reader = await stream.reader()
    await stream.go()
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "".join(f"{number} " for number in range(10))
    assert [seq for _, seq, _ in await follow(reader)] == list(range(len(await stream.events())))
    reader.detach()


@pytest.mark.parametrize("lag", [1, 3, 7])
@looped
async def test_a_fence_of_a_late_answer_keeps_the_order(lag: int) -> None:
    """With a journal that answers late, what was read meanwhile comes behind what a pause had fenced."""
    world = World()
    world.ground = replace(world.ground, journal=Late(world.journal, lag))  # type: ignore[arg-type]
    source = Said()
    stream = await world.session(source)
    await stream.go()
    wanted = ""
    for number in range(8):
        source.say(text(f"{number}a "))
        await turns(1)
        await (stream.world.control.resume if number % 2 else stream.world.control.pause)(stream.shown, TENANT)
        source.say(text(f"{number}b "), text(f"{number}c "))
        wanted += f"{number}a {number}b {number}c "
    source.say(None)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == wanted


# Cancel.


@pytest.mark.parametrize("where", ["unstarted", "not begun", "opening", "reading", "paused", "at the bound", "closing"])
@looped
async def test_cancel_closes_the_source(where: str) -> None:
    """Wherever a session stands, after a cancel its source is closed, `closed` is set, and the log has one end."""
    world = World(HOLD)
    source = Said(text("a"), opens=where != "opening", closes=where != "closing")
    stream = await world.session(source)
    if where == "not begun":
        stream.start_task()
    elif where != "unstarted":
        await stream.go()
    if where in {"paused", "at the bound", "closing"}:
        await stream.pause()
    if where == "at the bound":
        source.say(text(KILO), text(KILO))
        await turns()
        assert stream.session._room is not None
    if where == "closing":
        source.say(STOP, None)
        await turns()
    answer = await world.control.cancel(stream.shown, TENANT, wait_s=0, reason="enough")
    assert (answer.changed, answer.state) == (True, State.CANCELLED)
    if where == "unstarted":
        stream.start_task()
    await turns()
    _assert_left(stream, source)
    assert source.opened == (where not in {"unstarted", "not begun"})
    end = await stream.end()
    assert (end.state, end.reason) == (State.CANCELLED, "enough")
    assert world.settled == [end]
    status = await world.control.status(stream.shown, TENANT)
    assert (status["state"], status["reason"]) == ("cancelled", "enough")


@looped
async def test_only_the_first_cancel_counts() -> None:
    """Later cancels, interrupts and shutdowns do not disturb a source that is closing."""
    source = Said(text("a"), closes=False)
    stream = await World().session(source)
    await stream.go()
    await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
    await turns()
    stream.session.cancel(End(State.CANCELLED, "again"))
    stream.session.interrupt(Category.TIMEOUT_IDLE, "late")
    stream.session.shut_down()
    await turns()
    assert not stream.task.done()
    assert (source.opened, source.closed) == (1, 0)
    source.let_close()
    await turns()
    _assert_left(stream, source)
    assert (await stream.end()).reason == "control"


@looped
async def test_a_cancelled_stream_settles_with_what_was_used() -> None:
    """The end of a cancelled stream has the usage so far."""
    source = Said([Leg(1, "e", "p", "first", ""), Text(0, "x" * 400)])
    stream = await World().session(source)
    await stream.go()
    await stream.world.control.cancel(stream.shown, TENANT)
    end = await stream.end()
    assert (end.usage, end.legs) == (Usage(output_tokens=95, estimated=True), 1)


# Shutdown.


@pytest.mark.parametrize("where", ["not begun", "opening", "reading", "at the bound"])
@looped
async def test_shutdown_ends_the_stream_in_the_log(where: str) -> None:
    """When the process ends every stream says so in its log, also one whose task had not begun."""
    source = Said(text("a"), opens=where != "opening")
    stream = await World(HOLD).session(source)
    if where == "not begun":
        stream.session.shut_down()
        stream.start_task()
        await turns()
    else:
        await stream.go()
        if where == "at the bound":
            await stream.pause()
            source.say(text(KILO))
            await turns()
        stream.session.shut_down()
        await turns()
    _assert_left(stream, source)
    if where == "at the bound":
        await stream.resume()
    end = await stream.end()
    assert (end.state, end.reason) == (State.FAILED, "shutdown")


@looped
async def test_shutdown_does_not_cut_a_settlement() -> None:
    """A stream that is over is settled to the end, though the process ends meanwhile."""
    world, may, done = World(), asyncio.Event(), []

    async def settle(session: Session, end: End) -> None:
        await may.wait()
        done.append(end)

    stream = await world.session(Said(None))
    stream.session._on_end = settle
    await stream.go()
    stream.session.shut_down()
    stream.session.interrupt(Category.TIMEOUT_TOTAL, "late")
    await turns()
    may.set()
    await stream.over()
    assert [end.state for end in done] == [State.COMPLETED]


# Deadlines.

TIMEOUTS = Timeouts(idle_s=10, progress_s=30, total_s=100)


async def _timed(source: Said) -> Owned:
    source.timeouts = TIMEOUTS
    stream = await World(HOLD).session(source)
    await stream.go()
    return stream


async def _pass(stream: Owned, seconds: float, step: float = 0.5) -> None:
    """Time passes in beats, until the stream is over or the time is."""
    for _ in range(int(seconds / step)):
        stream.world.clock.advance(step)
        stream.session.tick(stream.world.clock.monotonic())
    await turns()


@looped
async def test_a_silent_provider_is_given_up_at_the_idle_deadline() -> None:
    """No data for `idle_s` fails the stream, not earlier; what was said stays."""
    source = Said(text("a"))
    stream = await _timed(source)
    await _pass(stream, 10)
    assert not stream.task.done()
    await _pass(stream, 0.5)
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "timeout_idle")
    assert await stream.words() == "a"
    _assert_left(stream, source)


@looped
async def test_pings_are_no_progress() -> None:
    """A provider that pings for ever is given up at the progress deadline, and not at the idle deadline."""
    source = Said(text("a"))
    stream = await _timed(source)
    for _ in range(6):
        await _pass(stream, 5)
        source.say([])
        await turns()
    assert not stream.task.done()
    await _pass(stream, 0.5)
    assert (await stream.over()).reason == "timeout_idle"
    _assert_left(stream, source)


@looped
async def test_a_stream_without_end_is_given_up_at_the_total_deadline() -> None:
    """A provider that goes on and on is cut off after `total_s`."""
    source = Said(text("a"))
    stream = await _timed(source)
    for _ in range(20):
        await _pass(stream, 5)
        source.say(text("b"))
        await turns()
    assert not stream.task.done()
    await _pass(stream, 0.5)
    assert (await stream.over()).reason == "timeout_total"
    assert await stream.words() == "a" + "b" * 20
    _assert_left(stream, source)


@looped
async def test_total_does_not_run_while_paused() -> None:
    """The time that a stream is paused does not count."""
    source = Said(text("a"))
    stream = await _timed(source)
    await stream.pause()
    for _ in range(100):
        await _pass(stream, 5)
        source.say([Text(0, "")])
        await turns()
    await stream.resume()
    assert not stream.task.done()
    assert stream.session.stats.paused_s == pytest.approx(500)
    await _pass(stream, 5)
    source.say(None)
    assert (await stream.over()).state is State.COMPLETED


@looped
async def test_a_source_that_is_not_read_is_not_overdue() -> None:
    """While the pause bound stops the reading no deadline runs; after the resume they begin anew."""
    source = Said(text("a"))
    stream = await _timed(source)
    await stream.pause()
    source.say(text(KILO))
    await turns()
    await _pass(stream, 500)
    assert not stream.task.done()
    await stream.resume()
    await _pass(stream, 9)
    assert not stream.task.done()
    await _pass(stream, 2)
    assert (await stream.over()).reason == "timeout_idle"


@looped
async def test_opening_has_the_total_deadline_only() -> None:
    """How long an attempt may wait for its first content is the pool's affair; the total is the stream's."""
    source = Said(text("a"), opens=False)
    stream = await _timed(source)
    await _pass(stream, 99)
    assert not stream.task.done()
    await _pass(stream, 2)
    assert (await stream.over()).reason == "timeout_total"
    _assert_left(stream, source)


@looped
async def test_an_ended_stream_is_not_interrupted() -> None:
    """A source that is slow to close after the end is not made a failure by a deadline."""
    source = Said(text("a"), None, closes=False)
    stream = await _timed(source)
    await _pass(stream, 500)
    source.let_close()
    assert (await stream.over()).state is State.COMPLETED
    _assert_left(stream, source)


@looped
async def test_cancel_wins_over_a_deadline_of_the_same_turn() -> None:
    """An interrupt and a cancel in one turn give one end: the log's."""
    for cancel_first in (True, False):
        source = Said(text("a"))
        stream = await _timed(source)
        if cancel_first:
            await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
        stream.session.interrupt(Category.TIMEOUT_IDLE, "late")
        if not cancel_first:
            await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
        await turns()
        _assert_left(stream, source)
        assert (await stream.end()).state is State.CANCELLED
        assert [end.state for end in stream.world.settled] == [State.CANCELLED]
