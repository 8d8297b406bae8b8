"""What replicas see of one another's streams in Redis: sets of owned streams, growing logs, moved write rights."""

import asyncio
from collections.abc import Iterable

from gateway.core.events import Text
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended, Entry, ExpiredStream, JournalUnavailable
from gateway.streams.journal_redis import TAILED, RedisJournal
from gateway.streams.layout_redis import key_of_log, key_of_owned
from gateway.streams.lifecycle import Op, Step
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import shared_redis
from tests.support.run import run
from tests.unit.streams.redis_world import QUICK, append, as_soon_as_may_be, begin, journal_at, start_of, texts, until
from tests.unit.streams.redis_world import record_of as fresh


def owned(rid: str) -> set[str]:
    """What Redis has in a replica's set."""
    with shared_redis().client() as client:
        return {sid.decode() if isinstance(sid, bytes) else sid for sid in client.smembers(key_of_owned(rid))}


async def _owned() -> None:
    one, two = new_sid(), new_sid()
    async with journal_at(shared_redis().url) as journal:
        record = await begin(journal, owner=f"{one}-a")
        assert owned(one) == {record.sid}
        with shared_redis().client() as client:
            assert client.ttl(key_of_owned(one)) > 86_400 + 1_700
        await journal.step(record.sid, Step(op=Op.CLAIM, op_id="c", owner=f"{two}-b"))
        assert owned(two) == {record.sid}
        await journal.annotate(record.sid, {}, closed_by=f"{two}-stranger")
        assert owned(two) == {record.sid}, "the word of an earlier session of the same replica"
        await journal.annotate(record.sid, {"n": 1}, closed_by=f"{two}-b")
        assert owned(two) == set()
        assert owned(one) == {record.sid}, "stale: whoever sweeps looks at the record"
        await journal.delete(record.sid)
        await journal.annotate(record.sid, {}, closed_by=f"{one}-a")
        assert owned(one) == set()


def test_an_owners_streams_are_listed() -> None:
    """A replica's set names what it owns until its session says that its upstream is closed."""
    run(_owned())


async def _owned_before() -> None:
    rid = new_sid()
    server = shared_redis()
    async with RedisProxy.before(server) as proxy, journal_at(proxy.url) as journal:
        record = fresh(owner=f"{rid}-a", tenant=f"tenant-{new_sid()}")
        proxy.begin(late=4)  # behind the tenant's index and the replica's set
        creating = asyncio.ensure_future(journal.create(record, start_of(record)))
        await until(lambda: proxy.is_holding)
        assert owned(rid) == {record.sid}
        assert not server.names(key_of_log(record.sid))
        await creating
        assert (await journal.known(record.sid)).tail == 0
        assert await proxy.arrive() == b"again"
        proxy.begin(late=1)
        claiming = asyncio.ensure_future(journal.step(record.sid, Step(op=Op.CLAIM, op_id="c", owner=f"{rid}2-b")))
        await until(lambda: proxy.is_holding)
        assert owned(f"{rid}2") == {record.sid}
        await claiming


def test_a_stream_is_listed_before_it_is_owned() -> None:
    """A replica that dies in the middle of a create or of a claim leaves nothing that no sweeper finds."""
    run(_owned_before())


# Growing logs.


def _words(found: list[Entry]) -> list[str]:
    return [event.text for entry in found for event in entry.events if isinstance(event, Text)]


async def _tailed() -> None:
    async with journal_at(shared_redis().url) as journal:
        records = [await begin(journal) for _ in range(150)]
        wanted = [(record.sid, record.gen, 0) for record in records]
        assert await journal.tail(wanted) == [[] for _ in records]
        for number, record in enumerate(records[::2]):
            await append(journal, record.sid, texts(record.gen, 1, f"{number}", "x"))
        found = await journal.tail(wanted)
        for number, entries in enumerate(found):
            assert isinstance(entries, list)
            assert _words(entries) == ([] if number % 2 else [f"{number // 2}", "x"])
        assert await journal.tail([]) == []


def test_growing_logs_are_looked_at_together() -> None:
    """One call finds what is new in each of many logs, in order, and nothing where nothing is."""
    run(_tailed())


async def _tail_bounds() -> None:
    async with journal_at(shared_redis().url) as journal:
        long, large, gone, deleted = [await begin(journal) for _ in range(4)]
        for seq in range(1, TAILED + 10):
            await append(journal, long.sid, texts(long.gen, seq, str(seq)))
        for seq in range(1, 6):
            await append(journal, large.sid, texts(large.gen, seq, "x" * 100_000))
        await append(journal, deleted.sid, texts(deleted.gen, 1, "read on"))
        await journal.delete(deleted.sid, after_s=60)
        with shared_redis().client() as client:
            client.delete(key_of_log(gone.sid))
        wanted = [(record.sid, record.gen, 0) for record in (long, large, gone, deleted)]
        first, some, none, left = await journal.tail(wanted)
        assert isinstance(first, list)
        assert isinstance(some, list)
        assert isinstance(left, list)
        assert (len(first), len(some), _words(left)) == (TAILED, 3, ["read on"])
        assert isinstance(none, ExpiredStream)
        last = first[-1]
        (rest, end) = await journal.tail([(long.sid, last.gen, last.seq), (deleted.sid, deleted.gen, 1)])
        assert isinstance(rest, list)
        assert _words(rest) == [str(seq) for seq in range(TAILED + 1, TAILED + 10)]
        assert end == []


def test_a_look_at_a_log_is_bounded() -> None:
    """What is taken of one log in one look is bounded; a log that is gone says so, a deleted one is read on."""
    run(_tail_bounds())


async def _unavailable() -> None:
    async with RedisProxy.before(shared_redis()) as proxy, journal_at(proxy.url, timing=QUICK) as journal:
        record = await as_soon_as_may_be(lambda: begin(journal))
        proxy.refuse()
        (found,) = await journal.tail([(record.sid, record.gen, 0)])
        assert isinstance(found, JournalUnavailable)
        assert await journal.moved([(record.sid, record.gen)]) == [False]
        proxy.refuse(refusing=False)


def test_an_outage_is_no_news() -> None:
    """While Redis is away a look says that, and never that a log is gone or that somebody took the stream."""
    run(_unavailable())


# Hints.


async def _grown() -> None:
    calls: list[list[str]] = []

    def on_grown(sids: Iterable[str]) -> None:
        calls.append(list(sids))

    async with journal_at(shared_redis().url, on_grown=on_grown) as journal:
        one, two = await begin(journal), await begin(journal)
        assert calls == []
        under_way = [append(journal, each.sid, texts(each.gen, 1, "a")) for each in (one, two)]
        assert set(await asyncio.gather(*under_way)) == {Appended.ACKED}
        await until(lambda: calls == [[one.sid, two.sid]])
        await journal.step(one.sid, Step(op=Op.PAUSE, op_id="p"))
        await journal.step(one.sid, Step(op=Op.PAUSE, op_id="again"))
        assert calls[1:] == [[one.sid]], "what changes nothing is no news"
        assert await append(journal, one.sid, texts(one.gen, 2, "b")) is Appended.FENCED
        assert len(calls) == 2


def test_who_grew_is_told_once_a_pipeline() -> None:
    """Acknowledged appends and control entries are told, in one call for a whole pipeline; refusals are not."""
    run(_grown())


# Late copies.


async def _late_annotation(journal: RedisJournal, proxy: RedisProxy) -> None:
    record = await begin(journal)
    proxy.begin(late=0)
    await journal.annotate(record.sid, {"n": 1})
    await journal.annotate(record.sid, {"n": 2})
    await proxy.arrive()
    assert (await journal.known(record.sid)).facts == {"n": 2}


async def _late_create(journal: RedisJournal, proxy: RedisProxy) -> None:
    record = fresh(tenant=f"tenant-{new_sid()}")
    proxy.begin(late=4)
    await journal.create(record, start_of(record))
    await journal.delete(record.sid)
    assert await proxy.arrive() == b"taken"
    assert not shared_redis().names(key_of_log(record.sid))


def test_late_copies_do_no_harm() -> None:
    """A copy of an annotation or of a create that comes behind what followed it changes nothing."""

    async def story() -> None:
        async with RedisProxy.before(shared_redis()) as proxy, journal_at(proxy.url) as journal:
            await _late_annotation(journal, proxy)
            await _late_create(journal, proxy)

    run(story())
