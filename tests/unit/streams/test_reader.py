"""Readers: from the ring or in pages, across pauses, from any cursor, all the same."""

import asyncio

import pytest

from gateway.core.errors import RequestError, StreamRefused
from gateway.core.events import End, Pause, Resume, State, Text
from gateway.streams.hub import RING_BYTES, Channel
from gateway.streams.journal import Entry, ExpiredStream, Journal, Page, ReaderRevoked, UnknownStream
from gateway.streams.lifecycle import Op
from gateway.streams.reader import PAGE_BYTES, JournalGap, Reader, resolve
from tests.unit.streams.world import Log, World, follow, looped, text, turns, words_of

BIG = "x" * 50_000


async def _long(world: World) -> Log:
    """A followed log that is far longer than the ring, of entries of two events."""
    log = await world.log()
    for number in range(8):
        await log.say(f"{number}", BIG)
    return log


@looped
async def test_ring_and_journal_serve_the_same() -> None:
    """A reader that was there from the start, one that came late and one that only has pages see the same events."""
    world = World()
    log = await world.log()
    early = await log.reader()
    seen = await follow(early)
    for number in range(8):
        await log.say(f"{number}", BIG)
        seen += await follow(early)
    late = await log.reader()
    channel = await log.channel()
    assert channel.ring[0].first > 1, "the ring is meant to be too short"
    assert await follow(late) == seen
    for reader in (early, late):
        reader.detach()
    assert world.hub.find(log.sid) is None
    paged = await log.reader()
    assert not (await log.channel()).ring
    assert await follow(paged) == seen
    paged.detach()


@looped
async def test_the_ring_is_bounded() -> None:
    """However much is written, the ring holds about its bound, and always the newest entry."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    channel = await log.channel()
    for _ in range(20):
        entry = await log.say(BIG)
        assert sum(len(kept.data) for kept in channel.ring) <= RING_BYTES
        assert channel.ring[-1] is entry
    for _ in range(2_000):
        await log.say("tiny")
    assert len(channel.ring) < 2_000, "what an entry costs beside its data counts"
    await log.say("y" * RING_BYTES)
    assert len(channel.ring) == 1
    reader.detach()


@looped
async def test_pages_are_small() -> None:
    """A reader far behind is served in pages, not in one piece."""
    world = World()
    log = await _long(world)
    reader = await log.reader()
    served = await reader.next()
    assert sum(len(entry.data) for entry, _, _ in served) <= PAGE_BYTES + 2 * len(BIG)
    assert reader.behind
    reader.detach()


@pytest.mark.parametrize("in_ring", [True, False], ids=["ring", "pages"])
@looped
async def test_every_cursor_gives_the_rest(in_ring: bool) -> None:
    """From any position, also inside an entry, a reader is served exactly what lies behind it."""
    world = World()
    log = await world.log()
    first = await log.reader() if in_ring else None
    await log.say("a")
    await log.say("b", "c", "d")
    await log.do(Op.PAUSE)
    await log.do(Op.RESUME)
    await log.say("e", "f")
    whole = await log.reader()
    everything = await follow(whole)
    whole.detach()
    assert [seq for _, seq, _ in everything] == list(range(len(everything)))
    for position in range(-1, len(everything)):
        reader = await log.reader(position)
        assert await follow(reader) == everything[position + 1 :], f"from {position}"
        assert not reader.behind
        reader.detach()
    if first is not None:
        first.detach()


@looped
async def test_nobody_is_served_beyond_a_pause() -> None:
    """While paused a reader gets the pause entry and nothing behind it, from the ring and from the journal."""
    world = World()
    log = await world.log()
    early = await log.reader()
    await log.say("a")
    await log.do(Op.PAUSE)
    await log.say("b", BIG)
    late = await log.reader()
    for reader in (early, late):
        applied = await follow(reader)
        assert isinstance(applied[-1][2], Pause)
        assert words_of(applied) == "a"
        assert (reader.paused, reader.behind, reader.done) == (True, False, False)
        assert reader.take() == []
    await log.do(Op.RESUME)
    for reader in (early, late):
        applied = await follow(reader)
        assert words_of(applied) == "b" + BIG
        assert isinstance(applied[-1][2], Resume)
        reader.detach()


@pytest.mark.parametrize("in_ring", [True, False], ids=["ring", "pages"])
@looped
async def test_a_cancel_skips_what_a_pause_held(in_ring: bool) -> None:
    """After a cancel while paused readers go from the pause to the end, wherever they stand, and are done."""
    world = World()
    log = await world.log()
    readers = [await log.reader()] if in_ring else []
    await log.say("a", "b")
    await log.do(Op.PAUSE)
    await log.say("held")
    await log.say("back", BIG, BIG)
    await log.do(Op.CANCEL)
    readers += [await log.reader(position) for position in range(-1, 8)]
    for position, reader in zip(range(-1, 8), readers[-9:], strict=True):
        applied = await follow(reader)
        seqs = [seq for _, seq, _ in applied]
        assert seqs == [seq for seq in (0, 1, 2, 3, 8) if seq > position], f"from {position}"
        assert reader.done
        reader.detach()
    if in_ring:
        assert words_of(await follow(readers[0])) == "ab"
        readers[0].detach()


@looped
async def test_a_hole_in_the_ring_is_filled_from_the_journal() -> None:
    """An entry that this process did not hear of is read, not skipped."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    channel = await log.channel()
    world.hub.channels.clear()
    await log.say("unheard")
    world.hub.channels[log.sid] = channel
    await log.say("heard")
    assert words_of(await follow(reader)) == "unheardheard"
    reader.detach()


class Holed:
    """A journal that lost an entry."""

    def __init__(self, inner: Journal, lost: int, last: bool) -> None:
        self._inner, self._lost, self._last = inner, lost, last

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        page = await self._inner.read(sid, after, max_bytes)
        kept = [e for e in page.entries if (e.seq < self._lost if self._last else e.seq != self._lost)]
        return Page(page.record, page.tail, kept)


@pytest.mark.parametrize("last", [False, True], ids=["a hole", "a lost tail"])
@looped
async def test_a_hole_in_the_journal_stops_the_reader(last: bool) -> None:
    """Where the log is not dense, or ends before its tail, a reader stops with an error and skips nothing."""
    world = World()
    log = await world.log()
    for word in "abc":
        await log.say(word)
    reader = Reader(await log.channel(), world.hub, Holed(world.journal, 2, last))  # type: ignore[arg-type]
    if last:
        assert words_of([(0, 0, event) for _, _, events in await reader.next() for event in events]) == "a"
    with pytest.raises(JournalGap, match="seq 2 is missing"):
        await reader.next()
    assert reader.position == 1
    reader.detach()


@looped
async def test_a_log_that_is_gone_is_an_error() -> None:
    """A reader that needs the journal learns that the log was deleted or has expired."""
    world = World()
    log = await _long(world)
    reader = await log.reader()
    await reader.next()
    await log.do(Op.CANCEL)
    world.clock.advance(901)
    await world.journal.sweep()
    with pytest.raises(ExpiredStream):
        await reader.next()
    await world.journal.delete(log.sid)
    with pytest.raises(UnknownStream):
        await reader.next()
    reader.detach()


@looped
async def test_a_revoked_reader_is_served_nothing_more() -> None:
    """However far behind it is: slow clients would else be served the rest of the log, and what is still to come."""
    world = World()
    log = await _long(world)
    reader, other = await log.reader(), await log.reader()
    await reader.next()
    reader.fail(ReaderRevoked())
    assert reader.behind
    with pytest.raises(ReaderRevoked):
        await reader.next()
    await follow(other)
    for each in (reader, other):
        each.detach()


@looped
async def test_a_waiting_reader_is_woken_by_each_entry() -> None:
    """A reader that waits is served what comes, at once, to the end, and is then done."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    got: list[str] = []

    async def read() -> None:
        while not reader.done:
            for _, _, events in await reader.next():
                got.extend(event.text if isinstance(event, Text) else type(event).__name__ for event in events)

    task = asyncio.ensure_future(read())
    await turns()
    wanted = ["Start"]
    for word in ("a", "b"):
        await log.say(word)
        await turns()
        wanted.append(word)
        assert got == wanted
    await log.do(Op.PAUSE)
    await turns()
    await log.say("c")
    await turns()
    assert got == [*wanted, "Pause"]
    await log.do(Op.RESUME)
    await turns()
    assert got == [*wanted, "Pause", "c", "Resume"]
    await log.do(Op.FINISH, end=End(State.COMPLETED))
    await turns()
    assert task.done()
    assert got[-1] == "End"
    assert await reader.next() == []
    reader.detach()


@looped
async def test_a_reader_that_gives_up_leaves_nothing() -> None:
    """A wait that is cancelled, or a reader that detaches while it waits, is not woken, counted or kept any more."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    await follow(reader)
    channel = await log.channel()
    for _ in range(3):
        task = asyncio.ensure_future(reader.next())
        await turns()
        assert len(channel.waiting) == 1
        task.cancel()
        await turns()
        assert task.cancelled()
    reader.detach()
    reader.detach()
    assert (channel.waiting, channel.readers) == ([], set())
    assert world.hub.channels == {}
    await log.say("a")


# Cursors.


async def _page(log: Log) -> Page:
    return await log.world.journal.read(log.sid, -1, 1)


async def _resolve(log: Log, cursor: str | None) -> int:
    return await resolve(cursor, await _page(log), log.world.journal)


@looped
async def test_cursors_mean_what_they_say() -> None:
    """No cursor is the start, `now` the servable end, a bare seq that event, an id that event of that gen."""
    world = World()
    log = await world.log()
    await log.say("a", "b")
    gen = log.record.gen
    assert await _resolve(log, None) == -1
    assert await _resolve(log, "now") == 2
    for seq in range(3):
        assert await _resolve(log, str(seq)) == seq
        assert await _resolve(log, f"{gen}-{seq}") == seq
    await log.do(Op.PAUSE)
    await log.say("c")
    assert await _resolve(log, "now") == 3
    paused_gen = (await _page(log)).record.gen
    assert await _resolve(log, f"{paused_gen}-3") == 3


@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "-1", "1.0", " 1", "1 ", "+1", "0x1", "1-", "-", "1-2-3", "NOW", "latest", "١", "1\n", "9" * 30,
        "1-" + "9" * 11,
    ],
)  # fmt: skip
@looped
async def test_garbage_is_never_taken_for_the_start(cursor: str) -> None:
    """A cursor of no known form is refused with 400 and what is expected."""
    log = await World().log()
    with pytest.raises(RequestError, match="cursor") as refused:
        await _resolve(log, cursor)
    assert (refused.value.status, refused.value.code) == (400, "bad_cursor")


@looped
async def test_a_cursor_ahead_is_refused_with_the_last_common_seq() -> None:
    """A cursor beyond the served part is 409 and names the last event that both have; a pause counts as the end."""
    log = await World().log()
    await log.say("a")
    await log.do(Op.PAUSE)
    await log.say("b")
    gen = (await _page(log)).record.gen
    for cursor in ("3", f"{gen}-3", "4", f"{gen}-99", "9999999999"):
        with pytest.raises(StreamRefused) as refused:
            await _resolve(log, cursor)
        assert (refused.value.status, refused.value.code) == (409, "cursor_ahead")
        assert refused.value.extra == {"last_seq": 2}


@looped
async def test_a_cursor_of_another_gen_is_refused() -> None:
    """An id whose gen is not that event's is of another log: it is refused, and its own seq is not called common."""
    log = await World().log()
    await log.say("a", "b")
    await log.do(Op.PAUSE)
    gen, old = (await _page(log)).record.gen, log.record.gen
    for cursor in (f"{old - 1}-1", f"{gen}-1", f"{gen + 5}-2", f"{old}-3"):
        with pytest.raises(StreamRefused) as refused:
            await _resolve(log, cursor)
        assert refused.value.status == 409
        assert refused.value.extra == {"last_seq": int(cursor.partition("-")[2]) - 1}


@looped
async def test_a_cursor_inside_a_skip_moves_to_its_end() -> None:
    """What a cancel left unserved is passed over; only the true id of an event does so."""
    log = await World().log()
    await log.say("a")
    await log.do(Op.PAUSE)
    gen = (await _page(log)).record.gen
    await log.say("b", "c")
    await log.do(Op.CANCEL)
    assert (await _page(log)).record.skip == (2, 5)
    for cursor in ("2", "3", "4", f"{gen}-2", f"{gen}-3", f"{gen}-4"):
        assert await _resolve(log, cursor) == 4, cursor
    assert await _resolve(log, "1") == 1
    assert await _resolve(log, "5") == await _resolve(log, "now") == 5
    with pytest.raises(StreamRefused):
        await _resolve(log, f"{gen - 1}-3")


def test_entries_slice_behind_any_seq() -> None:
    """An entry of several events gives what is behind a seq, all of it for an earlier one, nothing at its own."""
    entry = Entry.of(1, 5, text("a", "b", "c"))
    assert [len(entry.after(seq)) for seq in range(-1, 7)] == [3, 3, 3, 3, 2, 1, 0, 0]
    assert entry.first == 3


@looped
async def test_a_channel_knows_what_its_page_told() -> None:
    """A channel that is joined late serves as one that was there: pause, skip and end are known."""
    world = World()
    log = await world.log()
    await log.do(Op.PAUSE)
    held = Channel.of(await _page(log))
    assert (held.tail, held.limit, held.ended) == (1, 1, False)
    await log.say("b")
    await log.do(Op.CANCEL)
    ended = Channel.of(await _page(log))
    assert (ended.tail, ended.limit, ended.skip, ended.ended) == (3, 3, (1, 3), True)
