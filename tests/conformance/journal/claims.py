"""The contract of a journal, one claim a function: logs, bounds, times to live, listing. Control: `claims_control`."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from gateway.core.events import Claim as ClaimEvent
from gateway.core.events import End, Pause, Resume, Start, State, Text
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended, Entry, ExpiredStream, Journal, JournalFull, UnknownStream
from gateway.streams.lifecycle import Op, Outcome, Step
from tests.conformance.journal.subject import Limits, Subject
from tests.conformance.journal.writing import Writer, assert_sound, send

Claim: TypeAlias = Callable[[Subject], Awaitable[None]]
CLAIMS: dict[str, Claim] = {}
LARGE = "x" * 8_000
SMALL = Limits(total_bytes=32_768)
MARGIN_S = 10
"""What passes for a server beside the time that a claim turns: a machine may stand still."""


def _claim(judge: Claim) -> Claim:
    CLAIMS[judge.__name__] = judge
    return judge


# Reading.


@_claim
async def a_new_log_holds_its_start(subject: Subject) -> None:
    """A stream that was just created has entry 0, under the record's gen, and nothing else."""
    writer = await Writer.begin(subject, await subject.open())
    page = await writer.journal.read(writer.sid, -1, 1_000_000)
    assert page.tail == 0
    assert page.record == await writer.record()
    (entry,) = page.entries
    assert (entry.gen, entry.seq, entry.count) == (writer.gen, 0, 1)
    assert isinstance(entry.events[0], Start)
    assert isinstance(entry.control, Start)
    assert writer.start.data == entry.data


@_claim
async def what_was_appended_is_read_back(subject: Subject) -> None:
    """Every event comes back as it was, under the id and count of its entry."""
    writer = await Writer.begin(subject, await subject.open())
    for texts in (["a"], ["b", "ç\u2028", "🙂"], ["d"]):
        assert await writer.say(*texts) is Appended.ACKED
    entries = await writer.entries()
    assert_sound(entries)
    assert [(entry.seq, entry.count) for entry in entries] == [(0, 1), (1, 1), (4, 3), (5, 1)]
    texts = [event.text for entry in entries for event in entry.events if isinstance(event, Text)]
    assert texts == ["a", "b", "ç\u2028", "🙂", "d"]
    assert not any(entry.control for entry in entries[1:])


@_claim
async def pages_are_bounded(subject: Subject) -> None:
    """A page holds at most about what was asked for, at least one entry, and pages together are the log."""
    writer = await Writer.begin(subject, await subject.open())
    for _ in range(10):
        await writer.say(LARGE)
    page = await writer.journal.read(writer.sid, 0, 3 * len(LARGE))
    assert 1 <= len(page.entries) <= 4
    assert page.tail == 10
    assert len((await writer.journal.read(writer.sid, 0, 1)).entries) == 1
    assert len(await writer.entries(page_bytes=20_000)) == 11


@_claim
async def an_entry_across_the_cursor_is_in_the_page(subject: Subject) -> None:
    """A cursor inside an entry of several events gets that entry, not the next."""
    writer = await Writer.begin(subject, await subject.open())
    await writer.say("a", "b", "c")
    await writer.say("d")
    for after, first in [(0, 3), (1, 3), (2, 3), (3, 4)]:
        page = await writer.journal.read(writer.sid, after, 1)
        assert [entry.seq for entry in page.entries] == [first], f"after {after}"
    (entry,) = (await writer.journal.read(writer.sid, 1, 1)).entries
    assert [event.text for event in entry.after(1) if isinstance(event, Text)] == ["b", "c"]


@_claim
async def behind_the_tail_there_is_nothing(subject: Subject) -> None:
    """Reading after the tail, or far beyond it, gives no entries, and the tail."""
    writer = await Writer.begin(subject, await subject.open())
    await writer.say("a")
    for after in (1, 2, 10_000):
        page = await writer.journal.read(writer.sid, after, 1_000)
        assert (page.tail, page.entries) == (1, [])


@_claim
async def streams_do_not_mix(subject: Subject) -> None:
    """Two streams that are written by turns each read back as their own."""
    journal = await subject.open()
    one, two = await Writer.begin(subject, journal), await Writer.begin(subject, journal)
    for number in range(5):
        await one.say(f"one {number}")
        await two.say(f"two {number}")
    for writer, name in [(one, "one"), (two, "two")]:
        texts = [event.text for event in await writer.events() if isinstance(event, Text)]
        assert texts == [f"{name} {number}" for number in range(5)]


@_claim
async def unknown_streams_are_unknown(subject: Subject) -> None:
    """What was never created can neither be read, nor controlled, nor written; forgetting it twice is no harm."""
    journal, sid = await subject.open(), new_sid()
    with pytest.raises(UnknownStream):
        await journal.read(sid, -1, 1)
    with pytest.raises(UnknownStream):
        await journal.known(sid)
    with pytest.raises(UnknownStream):
        await journal.step(sid, Step(op=Op.PAUSE, op_id="a"))
    assert await send(journal, sid, Entry.of(1, 1, [Text(0, "a")])) is Appended.MISSING
    await journal.annotate(sid, {"a": 1})
    await journal.delete(sid)
    with pytest.raises(UnknownStream):
        await journal.known(sid)


# Fencing.


@_claim
async def an_id_that_is_not_greater_is_refused(subject: Subject) -> None:
    """The same entry again, or one before it, is fenced and leaves no trace."""
    writer = await Writer.begin(subject, await subject.open())
    entry = writer.entry("a", "b")
    await writer.say("a", "b")
    assert await send(writer.journal, writer.sid, entry) is Appended.FENCED
    assert await send(writer.journal, writer.sid, Entry.of(writer.gen, 1, [Text(0, "x")])) is Appended.FENCED
    assert await send(writer.journal, writer.sid, Entry.of(writer.gen - 1, 9, [Text(0, "x")])) is Appended.FENCED
    assert [event.text for event in await writer.events() if isinstance(event, Text)] == ["a", "b"]


@_claim
async def a_control_entry_fences_the_owner(subject: Subject) -> None:
    """After pause, resume, claim or an end, an append of the old gen is refused."""
    journal = await subject.open()
    for ops in ([Op.PAUSE], [Op.PAUSE, Op.RESUME], [Op.CLAIM], [Op.CANCEL], [Op.FINISH]):
        writer = await Writer.begin(subject, journal)
        await writer.say("a")
        for op in ops:
            await writer.do(op)
        assert await writer.say("b") is Appended.FENCED, ops
        assert await writer.say("b", "c", "d") is Appended.FENCED, ops
        assert_sound(await writer.entries())


@_claim
async def an_owner_goes_on_under_the_new_gen(subject: Subject) -> None:
    """Who reads record and tail after a fence can append again."""
    writer = await Writer.begin(subject, await subject.open())
    for op in (Op.PAUSE, Op.RESUME, Op.CLAIM):
        await writer.do(op)
        assert await writer.say("a") is Appended.FENCED
        await writer.adopt()
        assert await writer.say("a") is Appended.ACKED
    entries = await writer.entries()
    assert_sound(entries)
    kinds = [type(event) for entry in entries for event in entry.events]
    assert kinds == [Start, Pause, Text, Resume, Text, ClaimEvent, Text]


@_claim
async def nothing_follows_an_end(subject: Subject) -> None:
    """A log with an end refuses its owner's appends, and changes its state no more."""
    for op in (Op.CANCEL, Op.FINISH):
        writer = await Writer.begin(subject, await subject.open())
        await writer.say("a")
        await writer.do(op)
        state = (await writer.record()).state
        for later in Op:
            await writer.do(later)
        assert await writer.say("b") is Appended.FENCED
        assert (await writer.record()).state is state
        events = await writer.events()
        assert [isinstance(event, End) for event in events] == [False, False, True]


@_claim
async def a_deleted_log_takes_nothing(subject: Subject) -> None:
    """After delete an append finds nothing, does not bring the stream back, and the stream is unknown."""
    writer = await Writer.begin(subject, await subject.open())
    await writer.say("a")
    await writer.journal.delete(writer.sid)
    assert await writer.say("b") is Appended.MISSING
    for call in (writer.record(), writer.entries(), writer.do(Op.CANCEL)):
        with pytest.raises(UnknownStream):
            await call
    assert await writer.journal.listing("acme", after=None, limit=10, state=None) == []


# Times to live.


async def _assert_expired(writer: Writer) -> None:
    """The log is gone, the record is left."""
    known = await writer.journal.known(writer.sid)
    assert known.tail == -1
    for call in (writer.entries(), writer.do(Op.PAUSE)):
        with pytest.raises(ExpiredStream):
            await call
    assert await writer.say("late") is Appended.MISSING


@_claim
async def a_live_log_slides(subject: Subject) -> None:
    """A log that is appended to, or controlled, lives on; one that nobody touches goes."""
    writer = await Writer.begin(subject, await subject.open())
    for _ in range(3):
        await subject.elapse(1_000)
        await writer.say("a")
    for op in (Op.PAUSE, Op.RESUME, Op.PAUSE):
        await subject.elapse(1_000)
        await writer.do(op)
    expires = (await writer.journal.known(writer.sid)).expires
    assert abs(expires - subject.now() - 1_800) <= MARGIN_S
    await subject.elapse(1_800 - MARGIN_S)
    assert len(await writer.entries()) == 7
    await subject.elapse(2 * MARGIN_S)
    await _assert_expired(writer)


@_claim
async def a_terminal_log_lives_its_own_time(subject: Subject) -> None:
    """An ended log is readable for its time and no longer, and then the record, and then nothing."""
    limits = Limits()
    for op in (Op.FINISH, Op.CANCEL):
        writer = await Writer.begin(subject, await subject.open(limits))
        await subject.elapse(100)
        await writer.do(op)
        await subject.elapse(limits.ttl_terminal_s - MARGIN_S)
        assert len(await writer.entries()) == 2
        await subject.elapse(2 * MARGIN_S)
        await _assert_expired(writer)
        await subject.elapse(limits.ttl_record_s + MARGIN_S)
        with pytest.raises(UnknownStream):
            await writer.record()


@_claim
async def reading_does_not_prolong(subject: Subject) -> None:
    """A terminal log that is read, annotated or controlled in vain expires all the same."""
    writer = await Writer.begin(subject, await subject.open())
    await writer.do(Op.CANCEL)
    for _ in range(8):
        await subject.elapse(110)
        await writer.entries()
        await writer.do(Op.CANCEL)
        await writer.journal.annotate(writer.sid, {"a": 1})
    await subject.elapse(20 + MARGIN_S)
    await _assert_expired(writer)


@_claim
async def nothing_is_left_in_the_end(subject: Subject) -> None:
    """When everything has expired the journal holds nothing."""
    journal = await subject.open()
    before = subject.used()
    if before is None:
        return
    for op in (Op.FINISH, Op.CANCEL, Op.PAUSE, None):
        writer = await Writer.begin(subject, journal)
        await writer.say("a", "b")
        if op is not None:
            await writer.do(op)
    gone = await Writer.begin(subject, journal)
    await journal.delete(gone.sid)
    assert subject.used() != before
    await subject.elapse(2_000)
    assert subject.used() == before
    await subject.elapse(90_000)
    assert await journal.listing("acme", after=None, limit=10, state=None) == []


# The bound over all logs.


async def _fill(subject: Subject, journal: Journal, *, streams: int, ended: bool) -> list[Writer]:
    """Streams of about 8 kB each, one after another."""
    writers = [await Writer.begin(subject, journal) for _ in range(streams)]
    for writer in writers:
        assert await writer.say(LARGE) is Appended.ACKED
        if ended:
            await writer.do(Op.FINISH)
        await subject.elapse(1)
    return writers


@_claim
async def the_oldest_ended_log_makes_room(subject: Subject) -> None:
    """At the bound the log that ended first goes, and only as many as are needed; their records stay."""
    journal = await subject.open(SMALL)
    writers = await _fill(subject, journal, streams=3, ended=True)
    live = await Writer.begin(subject, journal)
    assert await live.say(LARGE) is Appended.ACKED
    await _assert_expired(writers[0])
    assert (await writers[0].record()).state is State.COMPLETED
    assert len(await writers[1].entries()) == len(await writers[2].entries()) == 3


@_claim
async def a_journal_full_of_live_logs_refuses(subject: Subject) -> None:
    """No live log is ever given up: appends are answered FULL, new streams are refused, and all is readable."""
    journal = await subject.open(SMALL)
    writers = await _fill(subject, journal, streams=3, ended=False)
    assert await writers[0].say(LARGE) is Appended.FULL
    while await writers[0].say("x" * 500) is Appended.ACKED:
        pass
    refused = 0
    for _ in range(10):
        try:
            await Writer.begin(subject, journal)
        except JournalFull:
            refused += 1
    assert refused
    for writer in writers:
        assert_sound(await writer.entries())


@_claim
async def a_full_journal_can_still_be_controlled(subject: Subject) -> None:
    """When there is no room for an append, pause, resume and ends go through, and an end makes room."""
    journal = await subject.open(SMALL)
    writers = await _fill(subject, journal, streams=3, ended=False)
    for op in (Op.PAUSE, Op.RESUME, Op.CANCEL):
        assert (await writers[0].do(op))[0].outcome is Outcome.CHANGED
    assert await writers[1].say(LARGE) is Appended.ACKED
    await _assert_expired(writers[0])


@_claim
async def deleting_makes_room(subject: Subject) -> None:
    """A deleted log counts no more."""
    journal = await subject.open(SMALL)
    writers = await _fill(subject, journal, streams=3, ended=False)
    assert await writers[0].say(LARGE) is Appended.FULL
    await journal.delete(writers[1].sid)
    assert await writers[0].say(LARGE) is Appended.ACKED


# Listing, facts, idempotency keys.


@_claim
async def a_listing_is_newest_first_in_pages(subject: Subject) -> None:
    """All streams of a tenant, newest first, page after page, none twice and none missing."""
    journal = await subject.open()
    writers: list[Writer] = []
    for _ in range(7):
        writers.append(await Writer.begin(subject, journal))
        await subject.elapse(1)
    wanted = [writer.sid for writer in reversed(writers)]
    seen: list[str] = []
    while page := await journal.listing("acme", after=seen[-1] if seen else None, limit=3, state=None):
        assert len(page) <= 3
        seen += [known.record.sid for known in page]
    assert seen == wanted


@_claim
async def a_listing_selects_by_state(subject: Subject) -> None:
    """A state that is asked for gives the streams in that state now, also behind a cursor in another state."""
    journal = await subject.open()
    writers: list[Writer] = []
    for op in (Op.PAUSE, None, Op.CANCEL, Op.PAUSE):
        writers.append(await Writer.begin(subject, journal))
        await subject.elapse(1)
        if op is not None:
            await writers[-1].do(op)
    sids = [writer.sid for writer in writers]

    async def listed(state: str, after: str | None = None) -> list[str]:
        found = await journal.listing("acme", after=after, limit=10, state=state)
        assert all(known.record.state == state for known in found)
        return [known.record.sid for known in found]

    assert await listed("paused") == [sids[3], sids[0]]
    assert await listed("paused", after=sids[2]) == [sids[0]]
    assert await listed("running") == [sids[1]]
    assert await listed("failed") == []


@_claim
async def a_listing_tells_nothing_of_other_tenants(subject: Subject) -> None:
    """A tenant sees its own streams only, and a foreign stream as cursor is like one that does not exist."""
    journal = await subject.open()
    mine = await Writer.begin(subject, journal)
    await subject.elapse(1)
    foreign = await Writer.begin(subject, journal, tenant="other")
    found = await journal.listing("acme", after=None, limit=10, state=None)
    assert [known.record.sid for known in found] == [mine.sid]
    by_foreign = await journal.listing("acme", after=foreign.sid, limit=10, state=None)
    by_unknown = await journal.listing("acme", after=new_sid(), limit=10, state=None)
    assert by_foreign == by_unknown


@_claim
async def an_expired_stream_is_still_listed(subject: Subject) -> None:
    """A record without log is listed, and says that its log is gone."""
    writer = await Writer.begin(subject, await subject.open())
    await writer.do(Op.CANCEL)
    await subject.elapse(900 + MARGIN_S)
    (known,) = await writer.journal.listing("acme", after=None, limit=10, state="cancelled")
    assert (known.record.sid, known.tail) == (writer.sid, -1)


@_claim
async def facts_are_kept(subject: Subject) -> None:
    """The last annotation is what is known, also after the log has expired."""
    writer = await Writer.begin(subject, await subject.open())
    assert (await writer.journal.known(writer.sid)).facts == {}
    for number in (1, 2):
        await writer.journal.annotate(writer.sid, {"attempts": ["a"], "usage": {"n": number}})
    await writer.do(Op.CANCEL)
    await subject.elapse(900 + MARGIN_S)
    assert (await writer.journal.known(writer.sid)).facts == {"attempts": ["a"], "usage": {"n": 2}}


@_claim
async def an_idempotency_key_is_bound_once(subject: Subject) -> None:
    """Who comes second is told the first one's stream and body, until the key is freed or its time is over."""
    journal = await subject.open(Limits(ttl_idempotency_s=1_000))
    assert await journal.remember("k", "one", "body") == ("one", "body")
    await subject.elapse(1_000 - MARGIN_S)
    assert await journal.remember("k", "two", "other") == ("one", "body")
    assert await journal.remember("k2", "two", "other") == ("two", "other")
    await subject.elapse(2 * MARGIN_S)
    assert await journal.remember("k", "three", "b3") == ("three", "b3")
    assert await journal.remember("k2", "four", "b4") == ("two", "other")
    await journal.forget("k")
    assert await journal.remember("k", "five", "b5") == ("five", "b5")
    await journal.forget("never bound")


@_claim
async def long_pauses_are_found(subject: Subject) -> None:
    """Streams of all tenants that are paused since before the moment, and no others, are found."""
    journal = await subject.open()
    moment = subject.now() + 10
    long, resumed, again = [await Writer.begin(subject, journal, tenant=name) for name in "abc"]
    for writer in (long, resumed, again):
        await writer.do(Op.PAUSE)
    await subject.elapse(20)
    late = await Writer.begin(subject, journal)
    await late.do(Op.PAUSE)
    await resumed.do(Op.RESUME)
    await again.do(Op.RESUME)
    await again.do(Op.PAUSE)
    await Writer.begin(subject, journal)
    assert [record.sid for record in await journal.paused_since(moment)] == [long.sid]
    assert await journal.paused_since(moment - 11) == []
    await journal.delete(long.sid)
    assert await journal.paused_since(moment) == []
