"""The Redis journal's writer: group commit, and the rules that keep a log whole when Redis or the network fail."""

import asyncio
from dataclasses import replace

import pytest

from gateway.streams.journal import Appended, JournalFull, JournalUnavailable
from gateway.streams.journal_redis import RedisJournal
from gateway.streams.lifecycle import Op, Outcome, Step
from gateway.streams.writer_redis import Batching, Writer, _Append
from gateway.upstream.link_redis import Observer, Wire
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, kill_watched, replica_of, sentinel_of, shared_redis
from tests.support.run import run
from tests.support.signals import PATIENCE_S
from tests.unit.streams.redis_world import QUICK, append, as_soon_as_may_be, begin, journal_at, log_of, texts, until

_numbers = iter(range(1_000_000))


async def _pause(journal: RedisJournal, sid: str) -> int:
    answer, _ = await journal.step(sid, Step(op=Op.PAUSE, op_id=f"op-{next(_numbers)}"))
    assert answer.outcome is Outcome.CHANGED
    return answer.gen


# Group commit.


async def _group_commit() -> None:
    batches: list[int] = []
    observer = Observer(on_batch=lambda events, _: batches.append(events))
    async with journal_at(shared_redis().url, observer=observer) as journal:
        records = [await begin(journal) for _ in range(300)]
        first = [append(journal, record.sid, texts(record.gen, 1, "a", "b")) for record in records]
        assert not any(future.done() for future in first), "settled without the word of Redis"
        assert set(await asyncio.gather(*first)) == {Appended.ACKED}
        assert batches == [512, 88], "all that had piled up, up to the bound"
        for record in records[::50]:
            assert await log_of(journal, record.sid) == ["Start", "a", "b"]


def test_what_piles_up_goes_together() -> None:
    """Appends of many streams are one pipeline, and a pipeline is bounded."""
    run(_group_commit())


async def _bounded_by_bytes() -> None:
    batches: list[int] = []
    observer = Observer(on_batch=lambda events, _: batches.append(events))
    async with journal_at(shared_redis().url, observer=observer) as journal:
        records = [await begin(journal) for _ in range(6)]
        large = "x" * 100_000
        await asyncio.gather(*[append(journal, record.sid, texts(record.gen, 1, large)) for record in records])
        assert batches == [3, 3]


def test_a_pipeline_is_bounded_in_bytes() -> None:
    """A few large entries do not wait for many more."""
    run(_bounded_by_bytes())


async def _chained() -> None:
    async with journal_at(shared_redis().url) as journal:
        record = await begin(journal)
        seqs: list[int] = []
        done = asyncio.Event()

        def settled(outcome: Appended) -> None:
            assert outcome is Appended.ACKED
            seqs.append(len(seqs) + 1)
            if len(seqs) < 50:
                journal.append(record.sid, texts(record.gen, len(seqs) + 1, str(len(seqs))), settled)
            else:
                done.set()

        journal.append(record.sid, texts(record.gen, 1, "0"), settled)
        await done.wait()
        assert await log_of(journal, record.sid) == ["Start", *map(str, range(50))]


def test_the_next_append_may_be_given_while_settling() -> None:
    """A session gives its next entry from within `settled`, as it does."""
    run(_chained())


# An append whose reply was lost.


async def _twin(kind: type[Writer]) -> list[str]:
    """The first copy came in, then a pause, then the second copy."""
    server = shared_redis()
    async with (
        RedisProxy.before(server) as proxy,
        journal_at(proxy.url, timing=QUICK) as journal,
        journal_at(server.url) as other,
    ):
        journal._writer.__class__ = kind
        record = await begin(journal)
        sid = record.sid
        await append(journal, sid, texts(record.gen, 1, "a"))
        proxy.begin(lose=0, silent=True)
        under_way = append(journal, sid, texts(record.gen, 2, "b"))
        await until(lambda: bool(proxy.seen))
        await _pause(other, sid)
        if await under_way is Appended.FENCED:  # what a session does then
            page = await journal.read(sid, -1, 1)
            assert await append(journal, sid, texts(page.record.gen, page.tail + 1, "b")) is Appended.ACKED
        return await log_of(journal, sid)


class _Believes(Writer):
    """Takes every refusal of a repeated append for a fence."""

    async def _look_for_twins(self, wire: Wire, refused: list[_Append]) -> None:
        for each in refused:
            self._settle(each, Appended.FENCED)


def test_a_repeated_append_knows_its_first_copy() -> None:
    """An append that was repeated is refused by its own first copy: that is no fence, though a pause came behind it."""
    assert run(_twin(Writer)) == ["Start", "a", "b", "Pause"]


def test_the_rule_of_twins_is_needed() -> None:
    """Without it the same event is in the log twice."""
    assert run(_twin(_Believes)) == ["Start", "a", "b", "Pause", "b"]


# A failover that lost the end of a log: an older copy of the keys is put in the place of the log.


async def _failover(
    kind: type[Writer], *, control: bool, batching: Batching | None = None
) -> tuple[Appended, list[str]]:
    server = shared_redis()
    async with journal_at(server.url, batching=batching) as journal:
        journal._writer.__class__ = kind
        record = await begin(journal)
        sid, gen = record.sid, record.gen
        assert await append(journal, sid, texts(gen, 1, "a")) is Appended.ACKED
        keys = [f"atlas:{{{sid}}}:{part}" for part in "mj"]
        with server.client() as client:
            old = [client.dump(key) for key in keys]
        if control:
            gen = await _pause(journal, sid)
        else:
            await append(journal, sid, texts(gen, 2, "b" * 40))
        assert await append(journal, sid, texts(gen, 3, "c" * 40, "d")) is Appended.ACKED
        with server.client() as client:
            for key, value in zip(keys, old, strict=True):
                client.restore(key, 60_000, value, replace=True)
            client.client_kill_filter(_type="normal", skipme=True)
        outcome = await append(journal, sid, texts(gen, 5, "e"))
        return outcome, await log_of(journal, sid)


class _Trusting(Writer):
    """Appends on a new connection without a look."""

    async def _look_at_tails(self, wire: Wire) -> None:
        for each in self._flight:
            each.stream.epoch = self._epoch


def test_a_lost_tail_is_appended_again() -> None:
    """What a failover lost of a log is there again before its next entry is."""
    assert run(_failover(Writer, control=False)) == (Appended.ACKED, ["Start", "a", "b" * 40, "c" * 40, "d", "e"])


def test_the_look_at_the_tail_is_needed() -> None:
    """Without it the log has a gap, silently."""
    assert run(_failover(_Trusting, control=False)) == (Appended.ACKED, ["Start", "a", "e"])


def test_a_lost_pause_is_not_glossed_over() -> None:
    """If a control entry is among what was lost, the stream cannot go on."""
    assert run(_failover(Writer, control=True)) == (Appended.REGRESSED, ["Start", "a"])


def test_what_is_not_at_hand_cannot_be_repaired() -> None:
    """If the lost entries are not all at hand, the stream cannot go on."""
    small = Batching(ring_bytes=60, give_up_s=PATIENCE_S)
    assert run(_failover(Writer, control=False, batching=small)) == (Appended.REGRESSED, ["Start", "a"])


# Redis says neither yes nor no.


async def _stalled() -> None:
    with RedisServer.started() as server:
        impatient = replace(QUICK, answer_s=0.5)
        async with (
            journal_at(server.url) as other,
            journal_at(server.url, batching=Batching(give_up_s=0.5), timing=impatient) as journal,
        ):
            record = await begin(other)
            assert (await as_soon_as_may_be(lambda: journal.known(record.sid))).tail == 0
            server.pause()
            assert await append(journal, record.sid, texts(record.gen, 1, "a")) is Appended.UNKNOWN
            with pytest.raises(JournalUnavailable):
                await journal.known(record.sid)
            server.go_on()
            log = await as_soon_as_may_be(lambda: log_of(journal, record.sid))
            assert log in (["Start"], ["Start", "a"])


async def _stalled_behind() -> None:
    with RedisServer.started() as server:
        async with journal_at(server.url, batching=Batching(give_up_s=0.5, max_events=5), timing=QUICK) as journal:
            records = [await as_soon_as_may_be(lambda: begin(journal)) for _ in range(12)]
            server.pause()
            under_way = [append(journal, record.sid, texts(record.gen, 1, "a")) for record in records]
            assert set(await asyncio.gather(*under_way)) == {Appended.UNKNOWN}
            server.go_on()
            outcome = Appended.UNKNOWN
            while outcome is Appended.UNKNOWN:
                record = await as_soon_as_may_be(lambda: begin(journal))
                outcome = await append(journal, record.sid, texts(record.gen, 1, "b"))
            assert outcome is Appended.ACKED


def test_what_waits_behind_a_stalled_pipeline_is_unknown_too() -> None:
    """What piled up behind a pipeline without answer is told in the same time, and the writer lives on."""
    run(_stalled_behind())


def test_an_append_without_answer_is_unknown() -> None:
    """A Redis that stands still is waited for no longer than agreed, and nobody is told a success."""
    run(_stalled())


async def _restarted() -> None:
    with RedisServer.started("--appendonly", "yes", "--appendfsync", "always") as server:
        async with journal_at(server.url) as journal:
            record = await begin(journal)
            await append(journal, record.sid, texts(record.gen, 1, "a"))
            server.kill()
            under_way = append(journal, record.sid, texts(record.gen, 2, "b"))
            asked = asyncio.ensure_future(journal.known(record.sid))
            await asyncio.sleep(0)
            await asyncio.to_thread(server.start)
            assert await under_way is Appended.ACKED
            assert (await asked).record.sid == record.sid
            assert await append(journal, record.sid, texts(record.gen, 3, "c")) is Appended.ACKED
            assert await log_of(journal, record.sid) == ["Start", "a", "b", "c"]


def test_a_restart_of_redis_is_bridged() -> None:
    """A Redis that is killed and comes back with its log costs a pause, and nothing else."""
    run(_restarted())


async def _out_of_memory() -> None:
    with RedisServer.started() as server:
        async with journal_at(server.url) as journal:
            record = await begin(journal)
            with server.client() as client:
                client.config_set("maxmemory", 1)
                under_way = append(journal, record.sid, texts(record.gen, 1, "a"))
                with pytest.raises(JournalFull):
                    await begin(journal)
                assert not under_way.done(), "out of memory is no answer to an append"
                await _pause(journal, record.sid)
                client.config_set("maxmemory", 0)
            assert await under_way is Appended.FENCED
            assert await log_of(journal, record.sid) == ["Start", "Pause"]


def test_a_full_redis_can_be_controlled() -> None:
    """Out of memory: no new streams, appends wait, control goes through, and no log is given up."""
    run(_out_of_memory())


async def _read_only() -> None:
    with RedisServer.started() as server:
        async with journal_at(server.url) as journal:
            record = await begin(journal)
            with server.client() as client:
                client.replicaof("127.0.0.1", "1")
                under_way = append(journal, record.sid, texts(record.gen, 1, "a"))
                asked = asyncio.ensure_future(journal.annotate(record.sid, {"n": 1}))
                await until(lambda: journal.nodes.link.down_s > 0)
                assert not under_way.done()
                assert not asked.done()
                client.replicaof("NO", "ONE")
            assert await under_way is Appended.ACKED
            await asked
            assert (await journal.known(record.sid)).facts == {"n": 1}


def test_a_replica_is_not_written_to() -> None:
    """READONLY is no answer: what was asked is asked again until there is a master."""
    run(_read_only())


# A real failover.


async def _promoted() -> list[str]:
    with (
        RedisServer.started(tcp=True) as master,
        replica_of(master),
        sentinel_of(master) as sentinel,
    ):
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/atlas"
        async with journal_at(url) as journal:
            record = await begin(journal)
            assert await append(journal, record.sid, texts(record.gen, 1, "a")) is Appended.ACKED
            with master.client() as client:
                client.set("atlas:last", 1, px=1_000)  # WAIT is for what its own connection wrote
                assert client.wait(1, 2_000) == 1
            kill_watched(master, sentinel)
            assert (await journal.known(record.sid)).tail == 1
            assert await append(journal, record.sid, texts(record.gen, 2, "b", "c")) is Appended.ACKED
            await _pause(journal, record.sid)
            return await log_of(journal, record.sid)


def test_a_failover_is_followed() -> None:
    """When the master dies and a sentinel makes the replica the master, every stream goes on there."""
    assert run(_promoted()) == ["Start", "a", "b", "c", "Pause"]


# What operators see.


async def _observed() -> None:
    kinds: list[str] = []
    errors: list[str] = []
    observer = Observer(on_latency=lambda kind, _: kinds.append(kind), on_error=errors.append)
    async with RedisProxy.before(shared_redis()) as proxy, journal_at(proxy.url, observer=observer) as journal:
        record = await begin(journal)
        await append(journal, record.sid, texts(record.gen, 1, "a"))
        await log_of(journal, record.sid)
        await journal.tail([(record.sid, record.gen, 0)])
        assert kinds == ["control", "append", "read", "tail"]
        gen = await _pause(journal, record.sid)
        assert await append(journal, record.sid, texts(record.gen, 2, "b")) is Appended.FENCED
        assert errors == [], "a fence is an answer"
        proxy.begin(lose=0)
        assert await append(journal, record.sid, texts(gen, 3, "b")) is Appended.ACKED
        assert errors == ["append"]


def test_each_kind_of_pipeline_is_observed() -> None:
    """Latencies and errors are told by what the pipeline was for."""
    run(_observed())
