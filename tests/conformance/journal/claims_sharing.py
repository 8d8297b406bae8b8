"""What a journal keeps for whoever takes a stream over, and for readers of what was deleted, one claim a function."""

import pytest

from gateway.core.events import End, State
from gateway.streams.journal import Appended, JournalError, UnknownStream
from gateway.streams.lifecycle import Op
from tests.conformance.journal.claims import Claim
from tests.conformance.journal.subject import Limits, Subject
from tests.conformance.journal.writing import Writer, assert_sound

CLAIMS: dict[str, Claim] = {}
REQUEST = b'{"messages": ["\xff"]}'


def _claim(judge: Claim) -> Claim:
    CLAIMS[judge.__name__] = judge
    return judge


@_claim
async def a_request_lives_as_long_as_its_stream(subject: Subject) -> None:
    """What was given for a recovery is there while the stream goes on, however long, and gone with its end."""
    journal = await subject.open()
    for op in (Op.CANCEL, Op.FINISH):
        writer = await Writer.begin(subject, journal, request=REQUEST)
        for _ in range(3):
            await subject.elapse(1_000)
            await writer.do(Op.PAUSE)
            await writer.do(Op.RESUME)
            assert await journal.request(writer.sid) == REQUEST
        await writer.do(op)
        assert await journal.request(writer.sid) is None


@_claim
async def a_request_outlives_nothing(subject: Subject) -> None:
    """It goes when the log expires and when the stream is deleted; without one there is none."""
    journal = await subject.open()
    deleted, expired = [await Writer.begin(subject, journal, request=REQUEST) for _ in range(2)]
    without = await Writer.begin(subject, journal)
    await journal.delete(deleted.sid, after_s=5)
    assert await journal.request(expired.sid) == REQUEST
    assert await journal.request(without.sid) is None
    assert await journal.request(deleted.sid) is None
    await subject.elapse(1_860)
    assert await journal.request(expired.sid) is None


@_claim
async def a_kept_end_does_not_end_the_stream(subject: Subject) -> None:
    """A source that finishes while paused leaves the request until the resume appends the end."""
    journal = await subject.open()
    writer = await Writer.begin(subject, journal, request=REQUEST)
    await writer.do(Op.PAUSE)
    await writer.do(Op.FINISH)
    assert await journal.request(writer.sid) == REQUEST
    await writer.do(Op.RESUME)
    assert await journal.request(writer.sid) is None


@_claim
async def an_owners_word_is_kept(subject: Subject) -> None:
    """Who said last that its upstream is closed is known, also behind annotations that do not say so."""
    journal = await subject.open()
    writer = await Writer.begin(subject, journal)
    assert (await journal.known(writer.sid)).closed_by is None
    await journal.annotate(writer.sid, {"n": 1})
    assert (await journal.known(writer.sid)).closed_by is None
    await journal.annotate(writer.sid, {"n": 2}, closed_by=writer.owner)
    await journal.annotate(writer.sid, {"n": 3})
    known = await journal.known(writer.sid)
    assert (known.closed_by, known.facts) == (writer.owner, {"n": 3})
    await writer.do(Op.CLAIM, owner="replica2-x")
    assert (await journal.known(writer.sid)).closed_by == writer.owner
    await journal.annotate(writer.sid, {}, closed_by="replica2-x")
    (listed,) = await journal.listing("acme", after=None, limit=9, state=None)
    assert listed.closed_by == "replica2-x"


@_claim
async def a_moved_write_right_is_noticed(subject: Subject) -> None:
    """One look at many streams tells which were controlled, or are no more; appends are no reason."""
    journal = await subject.open()
    still, paused, gone = [await Writer.begin(subject, journal) for _ in range(3)]
    await still.say("a")
    await paused.do(Op.PAUSE)
    await journal.delete(gone.sid, after_s=5)
    assert await journal.moved([(each.sid, each.gen) for each in (still, paused, gone)]) == [False, True, True]
    await paused.adopt()
    assert await journal.moved([(paused.sid, paused.gen)]) == [False]
    assert await journal.moved([]) == []


@_claim
async def readers_of_a_deleted_log_read_on(subject: Subject) -> None:
    """Nobody finds a deleted stream, but who was reading has the agreed time to read to its end, and no more."""
    journal = await subject.open()
    writer = await Writer.begin(subject, journal)
    await writer.say("a", "b")
    await writer.do(Op.CANCEL)
    await journal.delete(writer.sid, after_s=50)
    for call in (writer.record(), writer.do(Op.CANCEL)):
        with pytest.raises(UnknownStream):
            await call
    assert await journal.listing("acme", after=None, limit=9, state=None) == []
    assert await writer.say("c") is Appended.MISSING
    for _ in range(2):
        entries = await writer.entries()
        assert_sound(entries)
        assert entries[-1].control == End(State.CANCELLED)
        page = await journal.read(writer.sid, 1, 1)
        assert (page.record.state, page.tail, page.entries[0].seq) == (State.CANCELLED, 3, 2)
        await subject.elapse(20)
    await journal.delete(writer.sid, after_s=50)  # does not prolong it
    await subject.elapse(20)
    with pytest.raises(UnknownStream):
        await writer.entries()


@_claim
async def a_deleted_id_is_not_given_out_again(subject: Subject) -> None:
    """While readers read on, nobody writes another log under their id."""
    journal = await subject.open()
    writer = await Writer.begin(subject, journal)
    await writer.do(Op.CANCEL)
    record = await writer.record()
    await journal.delete(writer.sid, after_s=50)
    with pytest.raises(JournalError):
        await Writer.begin(subject, journal, sid=record.sid, gen=record.gen + 1)
    assert [entry.seq for entry in await writer.entries()] == [0, 1]
    with pytest.raises(UnknownStream):
        await writer.record()


@_claim
async def nothing_of_a_deleted_log_is_left(subject: Subject) -> None:
    """When the readers' time is over the journal holds nothing of a deleted stream, expired or not."""
    journal = await subject.open(Limits(ttl_terminal_s=30))
    before = subject.used()
    for wait_s in (0, 40):
        writer = await Writer.begin(subject, journal, request=REQUEST)
        await writer.say("a")
        await writer.do(Op.CANCEL)
        await subject.elapse(wait_s)
        await journal.delete(writer.sid, after_s=50)
        await subject.elapse(60)
        assert subject.used() == before
        with pytest.raises(UnknownStream):
            await writer.entries()
