"""Control: what every operation answers in every state, for whom, and what it promises."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.core.errors import Category, Failure, ProviderError, StreamRefused
from gateway.core.events import End, Finish, Leg, State, Text
from gateway.core.ids import new_sid, show_sid
from gateway.core.usage import Usage
from gateway.streams.control import READ_ON_S, StreamControl
from gateway.streams.lifecycle import Op
from tests.unit.streams.world import TENANT, Log, Said, World, looped, text, turns

Call = Callable[..., Awaitable[Any]]


def _calls(control: StreamControl) -> dict[str, Call]:
    """Every call that names a stream."""
    return {
        "find": control.find,
        "page": control.page,
        "status": control.status,
        "pause": control.pause,
        "resume": control.resume,
        "cancel": control.cancel,
        "delete": control.delete,
    }


async def _answer(call: Call, shown: str, **options: Any) -> str:
    """Status and code of a refusal, or `200` with `changed`, or just `200`."""
    try:
        done = await call(shown, TENANT, **options)
    except StreamRefused as refused:
        return f"{refused.status} {refused.code}"
    return f"200 {done.changed} {done.state}" if hasattr(done, "changed") else "200"


async def _in_state(situation: str, **changes: Any) -> Log:
    """A stream that nobody owns here, in this situation."""
    world = World()
    state = State.QUEUED if situation == "queued" else State.RUNNING
    log = await world.log(state=state, **changes)
    match situation:
        case "paused":
            await log.do(Op.PAUSE)
        case "kept":
            await log.do(Op.PAUSE)
            await log.do(Op.FINISH, end=End(State.COMPLETED, None, None, Usage(output_tokens=9), 1))
        case "completed":
            await log.do(Op.FINISH, end=End(State.COMPLETED))
        case "cancelled":
            await log.do(Op.CANCEL)
        case "expired":
            await log.do(Op.FINISH, end=End(State.COMPLETED))
            world.clock.advance(901)
            await world.journal.sweep()
        case _:
            pass
    return log


TABLE = {
    "pause": {
        "queued": "200 True paused",
        "running": "200 True paused",
        "paused": "200 False paused",
        "kept": "200 False paused",
        "completed": "409 stream_terminal",
        "cancelled": "409 stream_terminal",
        "expired": "410 stream_expired",
    },
    "resume": {
        "queued": "409 not_paused",
        "running": "200 False running",
        "paused": "200 True running",
        "kept": "200 True completed",
        "completed": "409 stream_terminal",
        "cancelled": "409 stream_terminal",
        "expired": "410 stream_expired",
    },
    "cancel": {
        "queued": "200 True cancelled",
        "running": "200 True cancelled",
        "paused": "200 True cancelled",
        "kept": "200 True cancelled",
        "completed": "200 False completed",
        "cancelled": "200 False cancelled",
        "expired": "410 stream_expired",
    },
    "page": {**dict.fromkeys(("queued", "running", "paused", "kept", "completed", "cancelled"), "200"),
             "expired": "410 stream_expired"},
    "status": dict.fromkeys(("queued", "running", "paused", "kept", "completed", "cancelled", "expired"), "200"),
    "delete": {
        **dict.fromkeys(("queued", "running", "paused", "kept"), "409 not_terminal"),
        "completed": "200",
        "cancelled": "200",
        "expired": "404 stream_not_found",
    },
}  # fmt: skip


@pytest.mark.parametrize(("op", "situation"), [(op, situation) for op, row in TABLE.items() for situation in row])
@looped
async def test_every_answer_of_the_table(op: str, situation: str) -> None:
    """An operation answers what the specification's table says."""
    log = await _in_state(situation)
    assert await _answer(_calls(log.world.control)[op], log.shown) == TABLE[op][situation]
    if op == "delete" and TABLE[op][situation] == "200":
        for call in _calls(log.world.control).values():
            assert await _answer(call, log.shown) == "404 stream_not_found"


@looped
async def test_what_is_not_the_callers_does_not_exist() -> None:
    """Unknown, foreign, expired foreign and malformed ids are refused alike, to the letter, by every call."""
    world = World()
    foreign = await world.log(tenant="other")
    gone = await world.log(tenant="other")
    await gone.do(Op.CANCEL)
    world.clock.advance(901)
    await foreign.say("a")
    await world.journal.sweep()
    before = await foreign.events()
    shown = [show_sid(new_sid()), foreign.shown, gone.shown, foreign.sid, "str_", "str_x", "", "resp_" + foreign.sid,
             foreign.shown.upper(), foreign.shown + "a", "../" + foreign.shown, "str_" + "1" * 26]  # fmt: skip
    for name, call in _calls(world.control).items():
        answers: set[str] = set()
        for each in shown:
            with pytest.raises(StreamRefused) as refused:
                await call(each, TENANT)
            error = refused.value
            answers.add(
                repr((error.status, error.code, error.message, error.type, error.headers, error.stream, error.extra))
            )
        assert len(answers) == 1, name
        assert "404" in answers.pop()
    assert await foreign.events() == before


@looped
async def test_if_match_is_kept() -> None:
    """With the stream's gen an operation is done; with another it is 412, names the gen to use, and does nothing."""
    log = await _in_state("running")
    control, gen = log.world.control, log.record.gen
    for call in (control.pause, control.cancel):
        with pytest.raises(StreamRefused, match=f'"{gen}"') as refused:
            await call(log.shown, TENANT, expect_gen=gen - 1)
        assert (refused.value.status, refused.value.code) == (412, "stale")
    paused = await control.pause(log.shown, TENANT, expect_gen=gen)
    assert paused.changed
    with pytest.raises(StreamRefused):
        await control.resume(log.shown, TENANT, expect_gen=gen)
    assert (await control.resume(log.shown, TENANT, expect_gen=paused.gen)).changed


@looped
async def test_a_repeated_call_gets_the_first_answer() -> None:
    """With its operation id a pause that is repeated after a resume answers as at first, and pauses nothing."""
    log = await _in_state("running")
    control = log.world.control
    first = await control.pause(log.shown, TENANT, op_id="k")
    await control.resume(log.shown, TENANT)
    assert await control.pause(log.shown, TENANT, op_id="k") == first
    assert await log.state() == "running"


@looped
async def test_an_operation_id_is_of_one_operation() -> None:
    """A client that uses one id for a pause and the resume after it has its resume done."""
    log = await _in_state("running")
    for call, state in [(log.world.control.pause, "paused"), (log.world.control.resume, "running")]:
        answer = await call(log.shown, TENANT, op_id="k")
        assert (answer.changed, answer.state) == (True, state)
    assert (await log.world.control.cancel(log.shown, TENANT, op_id="k")).state is State.CANCELLED


@looped
async def test_control_is_counted() -> None:
    """Every operation and its outcome is told."""
    log = await _in_state("running")
    control = log.world.control
    for call in (control.pause, control.pause, control.resume, control.cancel, control.cancel):
        await call(log.shown, TENANT)
    with pytest.raises(StreamRefused):
        await control.pause(log.shown, TENANT)
    assert log.world.controls == [
        ("pause", "changed"),
        ("pause", "same"),
        ("resume", "changed"),
        ("cancel", "changed"),
        ("cancel", "same"),
        ("pause", "terminal"),
    ]


# Cancel and its upstream.


@looped
async def test_cancel_waits_for_the_closed_upstream() -> None:
    """`closed` is answered when the owner said so, and how long that took is told."""
    source = Said(text("a"), closes=False)
    world = World()
    stream = await world.session(source)
    await stream.go()
    call = asyncio.ensure_future(world.control.cancel(stream.shown, TENANT, wait_s=5))
    await turns()
    assert not call.done()
    assert await stream.state() == "cancelled"
    world.clock.advance(0.5)
    source.let_close()
    await turns()
    answer = await call
    assert (answer.changed, answer.upstream) == (True, "closed")
    assert source.closed == 1
    assert world.closes == [0.5]


@looped
async def test_cancel_says_when_the_close_is_pending() -> None:
    """A close that takes longer than the caller waits is `closing`, again when asked again, and then `closed`."""
    source = Said(text("a"), closes=False)
    stream = await World().session(source)
    await stream.go()
    for changed in (True, False):
        answer = await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
        assert (answer.changed, answer.upstream, answer.state) == (changed, "closing", State.CANCELLED)
    source.let_close()
    await turns()
    answer = await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
    assert (answer.changed, answer.upstream) == (False, "closed")


@looped
async def test_a_caller_that_hangs_up_cancels_all_the_same() -> None:
    """The wait may be cancelled; the stream is."""
    source = Said(text("a"), closes=False)
    stream = await World().session(source)
    await stream.go()
    call = asyncio.ensure_future(stream.world.control.cancel(stream.shown, TENANT, wait_s=10))
    await turns()
    call.cancel()
    source.let_close()
    await turns()
    assert call.cancelled()
    assert stream.session.closed.is_set()
    assert (await stream.end()).state is State.CANCELLED


@looped
async def test_cancelling_a_finished_stream_tells_its_state() -> None:
    """A cancel that comes too late changes nothing and answers the final state."""
    stream = await World().session(Said(text("a"), [Finish(0, "stop")], None))
    await stream.go()
    answer = await stream.world.control.cancel(stream.shown, TENANT)
    assert (answer.changed, answer.state, answer.upstream) == (False, State.COMPLETED, "closed")
    assert answer.seq == len(await stream.events()) - 1


# Delete.


@looped
async def test_delete_by_force_cancels_first() -> None:
    """A running stream that is deleted by force is cancelled, its source closed, and then unknown."""
    source = Said(text("a"))
    world = World()
    stream = await world.session(source)
    reader = await stream.reader()
    await stream.go()
    await world.control.delete(stream.shown, TENANT, force=True)
    await turns()
    assert (source.opened, source.closed) == (1, 1)
    assert await _answer(world.control.status, stream.shown) == "404 stream_not_found"
    served = [event for _, _, events in await reader.next() for event in events]
    assert served[-1] == world.settled[0]
    assert world.settled[0].reason == "deleted"
    reader.detach()
    world.clock.advance(READ_ON_S + 1)
    await world.journal.sweep()
    assert (world.hub.channels, world.journal.total_bytes) == ({}, 0)


# Status.


@looped
async def test_status_shows_the_owners_facts() -> None:
    """While it runs, and after, the status object has what the session knows."""
    source = Said([Leg(1, "gpu-1", "openai_chat", "first", ""), Text(0, "a" * 40)])
    world = World()
    stream = await world.session(source)
    reader = await stream.reader()
    await stream.go()
    status = await world.control.status(stream.shown, TENANT)
    assert (status["id"], status["state"], status["readers"]) == (stream.shown, "running", 1)
    assert (status["attempts"], status["legs"][0]["endpoint"]) == (["one"], "gpu-1")
    assert status["usage"]["output_tokens"] == 10
    assert "error" not in status
    source.say(ProviderError(Category.STREAM_BROKEN, "cut"))
    await turns()
    reader.detach()
    status = await world.control.status(stream.shown, TENANT)
    assert (status["state"], status["reason"], status["readers"]) == ("failed", "stream_broken", 0)
    assert status["error"]["message"] == "cut"
    assert status["resumable"] is True
    world.clock.advance(901)
    await world.journal.sweep()
    status = await world.control.status(stream.shown, TENANT)
    assert (status["state"], status["resumable"], status["reason"]) == ("failed", False, "stream_broken")


@looped
async def test_no_status_is_terminal_without_its_reason() -> None:
    """Whoever sees that a stream has ended sees why, and what it used, before its owner has settled anything."""
    log = await _in_state("running")
    failure = Failure(Category.STREAM_BROKEN, "cut")
    await log.do(Op.FINISH, end=End(State.FAILED, "stream_broken", failure, Usage(output_tokens=9), 1))
    status = await log.world.control.status(log.shown, TENANT)
    assert (status["state"], status["reason"], status["error"]["message"]) == ("failed", "stream_broken", "cut")
    assert status["usage"]["output_tokens"] == 9


@looped
async def test_status_tells_the_servable_seq() -> None:
    """While paused the status names the pause entry, whatever is held behind it."""
    source = Said(text("a"))
    stream = await World().session(source)
    await stream.go()
    await stream.pause()
    source.say(text("b", "c"))
    await turns()
    status = await stream.world.control.status(stream.shown, TENANT)
    assert (status["state"], status["seq"]) == ("paused", 2)
    assert status["paused_since"] == stream.world.clock.now()
    await stream.world.control.cancel(stream.shown, TENANT)


@pytest.mark.parametrize("how", ["cancel", "expire"])
@looped
async def test_a_kept_end_that_was_dropped_is_not_shown(how: str) -> None:
    """A stream that failed while paused shows no reason until it is over, and a cancel's own reason if cancelled."""
    world = World()
    source = Said([Leg(1, "e", "p", "first", ""), Text(0, "a" * 40)])
    stream = await world.session(source)
    await stream.go()
    await stream.pause()
    source.say(ProviderError(Category.STREAM_BROKEN, "cut"))
    await turns()
    status = await world.control.status(stream.shown, TENANT)
    assert (status["state"], status["reason"]) == ("paused", None)
    if how == "cancel":
        await world.control.cancel(stream.shown, TENANT, reason="enough")
    else:
        await world.beat(901)
    reason = "enough" if how == "cancel" else "pause_expired"
    status = await world.control.status(stream.shown, TENANT)
    assert (status["state"], status["reason"]) == ("cancelled", reason)
    assert "error" not in status
    end = await stream.end()
    assert (end.state, end.reason, end.failure) == (State.CANCELLED, reason, None)
    assert (end.usage, end.legs) == (Usage(output_tokens=10, estimated=True), 1)


@looped
async def test_a_kept_end_is_shown_once_it_is_resumed() -> None:
    """A stream that failed while paused shows its failure from the resume on."""
    source = Said(text("a"))
    stream = await World().session(source)
    await stream.go()
    await stream.pause()
    source.say(ProviderError(Category.STREAM_BROKEN, "cut"))
    await turns()
    stream.world.clock.advance(10)
    await stream.resume()
    status = await stream.world.control.status(stream.shown, TENANT)
    assert (status["state"], status["reason"], status["error"]["message"]) == ("failed", "stream_broken", "cut")
    assert status["metrics"]["paused_ms"] == 10_000


@looped
async def test_an_expiry_that_comes_late_does_nothing() -> None:
    """A pause that was over, or renewed, before its expiry was carried out is not ended by it."""
    log = await _in_state("paused")
    record = (await log.world.journal.known(log.sid)).record
    await log.do(Op.RESUME)
    await log.world.control.expire(record)
    await log.do(Op.PAUSE)
    await log.world.control.expire(record)
    assert await log.state() == "paused"
    await log.world.journal.delete(log.sid)
    await log.world.control.expire(record)
