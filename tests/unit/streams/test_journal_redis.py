"""The Redis journal beyond the conformance suite: the same table as `lifecycle.apply`, times to live, size, bugs."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.crc import key_slot

from gateway.core.errors import Category, Failure
from gateway.core.events import End, State, Text
from gateway.core.ids import new_sid
from gateway.core.usage import Usage
from gateway.streams.journal import Entry, ExpiredStream, Journal, JournalError
from gateway.streams.layout_redis import about, count_of, key_of_log, keys_of, record_of
from gateway.streams.lifecycle import Op, Step
from gateway.streams.scripts_redis import FIELDS, Scripts
from gateway.upstream.link_redis import Script
from tests.conformance.journal.subject import Opened
from tests.conformance.journal.subjects.memory import MemorySubject
from tests.conformance.journal.subjects.redis import RedisSubject, opened
from tests.conformance.journal.test_journal import ALL, judge
from tests.conformance.journal.writing import Writer, send
from tests.support.redis_server import RedisServer, shared_redis
from tests.support.run import run
from tests.unit.streams.redis_world import append, begin, journal_at, start_of, texts
from tests.unit.streams.redis_world import record_of as fresh

# One machine: random operations on both journals.

ENDS = [
    End(State.COMPLETED),
    End(State.INCOMPLETE, "length"),
    End(State.FAILED, "cut", Failure(Category.STREAM_BROKEN, "ç"), Usage(output_tokens=3), 1),
]


def _random_step(rng: random.Random, gen: int, tail: int) -> Step:
    op = rng.choice(list(Op))
    return Step(
        op=op,
        op_id=f"id-{rng.randrange(12)}",
        expect_gen=rng.choice([None, None, None, gen, gen - 1]),
        expect_seq=rng.choice([None, None, None, tail, tail + 1]),
        reason=rng.choice([None, "because", "ü"]),
        end=rng.choice(ENDS) if op is Op.FINISH or rng.random() < 0.3 else None,
        owner=rng.choice([None, "replica-2"]),
    )


async def _both(seed: int) -> None:
    rng = random.Random(seed)
    changes: dict[str, Any] = {
        "state": rng.choice([State.QUEUED, State.RUNNING]),
        "on_pause_expiry": rng.choice(["cancel", "resume"]),
        "key_id": rng.choice([None, "key"]),
    }
    memory = MemorySubject()
    async with opened() as shared:
        subjects = (memory, shared)
        journals: list[Journal] = [await memory.open(), await shared.open()]
        record = fresh(gen=int(memory.now() * 1000), created=memory.now() + 0.123456, **changes)
        for journal in journals:
            await journal.create(record, start_of(record))
        for _ in range(30):
            pages = [await journal.read(record.sid, -1, 10**6) for journal in journals]
            assert pages[0].record == pages[1].record
            assert [(e.gen, e.seq, e.data) for e in pages[0].entries] == [
                (e.gen, e.seq, e.data) for e in pages[1].entries
            ]
            after = rng.randrange(-1, pages[0].tail + 3)
            parts = [await journal.read(record.sid, after, 1) for journal in journals]
            assert [e.seq for e in parts[0].entries] == [e.seq for e in parts[1].entries], f"after {after}"
            gen, tail = pages[0].record.gen, pages[0].tail
            draw = rng.random()
            if draw < 0.15:
                seconds = rng.choice([0.5, 1, 59, 61])
                for subject in subjects:
                    await subject.elapse(seconds)
            elif draw < 0.5:
                entry = Entry.of(rng.choice([gen, gen, gen - 1]), tail + 2, [Text(0, "a"), Text(0, "b")])
                outcomes = [await send(journal, record.sid, entry) for journal in journals]
                assert outcomes[0] is outcomes[1]
            else:
                step = _random_step(rng, gen, tail)
                (answer, entries), (answer_2, entries_2) = [
                    await journal.step(record.sid, step) for journal in journals
                ]
                assert answer == answer_2, step
                assert [(e.gen, e.seq, e.control) for e in entries] == [(e.gen, e.seq, e.control) for e in entries_2]


@pytest.mark.parametrize("part", range(4))
def test_redis_decides_as_the_table_does(part: int) -> None:
    """Whatever is done in whatever order: answers, records and logs are those of the embedded journal."""
    for seed in range(25):
        try:
            run(_both(100 * part + seed))
        except AssertionError as error:
            raise AssertionError(f"seed {100 * part + seed}: {error}") from error


# Creating, times to live, size.


async def _created_twice() -> None:
    async with journal_at(shared_redis().url) as journal:
        record = await begin(journal)
        await append(journal, record.sid, texts(record.gen, 1, "a"))
        again = await journal.create(record, start_of(record))
        assert (again.gen, again.seq) == (record.gen, 0)
        assert (await journal.known(record.sid)).tail == 1
        with pytest.raises(JournalError):
            await journal.create(fresh(sid=record.sid, owner="somebody else"), start_of(record))


def test_a_stream_is_created_once() -> None:
    """The same create twice is one stream; somebody else's for the same id is refused."""
    run(_created_twice())


async def _nothing_left() -> None:
    server = shared_redis()
    async with opened() as subject:
        journal = await subject.open()
        for op in (Op.FINISH, Op.CANCEL, Op.PAUSE, None):
            writer = await Writer.begin(subject, journal)
            await writer.say("a")
            if op is not None:
                await writer.do(op)
            await journal.annotate(writer.sid, {"a": 1})
            await journal.remember(writer.sid, writer.sid, "body")
        assert len(server.names()) > 12
        with server.client() as client:
            assert [key for key in server.names() if client.pttl(key) < 0] == []
        for seconds in (2_000, 90_000, 700_000):
            await subject.elapse(seconds)
            for record in await journal.paused_since(subject.now()):  # its pause is over though its log is gone
                with pytest.raises(ExpiredStream):
                    await journal.step(record.sid, Step(op=Op.EXPIRE, op_id="expire", expect_gen=record.gen))
                assert (await journal.known(record.sid)).record.state is State.CANCELLED
            assert await journal.paused_since(subject.now()) == []
        assert server.names() == []


def test_everything_expires() -> None:
    """No key is ever without a time to live, and when all have passed nothing is left."""
    run(_nothing_left())


async def _size(words: int, per_entry: int, *, ends: bool = False) -> float:
    server = shared_redis()
    async with journal_at(server.url) as journal:
        record = await begin(journal)
        for at in range(0, words, per_entry):
            await append(journal, record.sid, texts(record.gen, 1 + at, *[f" word{n % 10}" for n in range(per_entry)]))
        if ends:
            await journal.step(record.sid, Step(op=Op.FINISH, op_id="end", end=End(State.COMPLETED)))
        with server.client() as client:
            return float(client.memory_usage(keys_of(record.sid)[1], samples=0)) / words


@pytest.mark.parametrize(("per_entry", "most"), [(1, 45), (5, 25)])
def test_a_token_is_small(per_entry: int, most: float) -> None:
    """A token event takes at most 45 bytes of Redis' memory, also when each is an entry of its own."""
    assert run(_size(5_000, per_entry)) <= most


@pytest.mark.parametrize(("words", "most"), [(200, 40), (300, 36)])
def test_a_short_log_is_small_when_it_has_ended(words: int, most: float) -> None:
    """What Redis keeps ready for more of a log is given back at its end, or it would be a third of a short answer."""
    assert run(_size(words, 1, ends=True)) <= most


@pytest.mark.parametrize("count", [1, 15, 16, 70_000])
def test_an_entry_tells_its_count(count: int) -> None:
    """However many events an entry holds, it knows it without decoding them."""
    assert count_of(Entry.of(1, count, [Text(0, "")] * count).data) == count


def test_a_record_is_stored_whole() -> None:
    """A member that is added to the record is either stored with what never changes, or by the scripts."""
    record = fresh(key_id="k")
    fields: dict[str, bytes | None] = dict.fromkeys(FIELDS)
    fields |= {"about": about(record), "state": b"running", "gen": str(record.gen).encode(), "owner": b"replica-1"}
    assert record_of(record.sid, [fields[name] for name in FIELDS]) == record


async def _paged(subject: RedisSubject) -> None:
    """A log with many gens reads the same from every cursor."""
    writer = await Writer.begin(subject, await subject.open())
    for number in range(120):
        await writer.say(f"{number}", "x")
        if number % 3 == 0:
            await writer.do(Op.PAUSE if number % 2 == 0 else Op.RESUME)
            await writer.adopt()
    whole = await writer.entries(page_bytes=10**6)
    for after in range(-1, whole[-1].seq + 1):
        page = await writer.journal.read(writer.sid, after, 40)
        wanted = [entry.seq for entry in whole if entry.seq > after]
        assert [entry.seq for entry in page.entries] == wanted[: len(page.entries)]
        assert page.entries or not wanted


def test_every_cursor_finds_its_entry() -> None:
    """Pages are found by seq, however often the write right moved."""

    async def story() -> None:
        async with opened() as subject:
            await _paged(subject)

    run(story())


async def _forgotten() -> None:
    server = shared_redis()
    async with journal_at(server.url) as journal:
        record = await begin(journal)
        with server.client() as client:
            client.script_flush()
        await journal.step(record.sid, Step(op=Op.PAUSE, op_id="p"))
        assert (await journal.known(record.sid)).record.state is State.PAUSED


def test_forgotten_scripts_are_sent_again() -> None:
    """SCRIPT FLUSH on a running Redis is not noticed by anybody."""
    run(_forgotten())


async def _with_password() -> None:
    with RedisServer.started("--requirepass", "s3cret", tcp=True) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "atlas", "on", ">pass", "~atlas:*", "+@all", "-@dangerous")
        for credentials in (":s3cret", "atlas:pass"):
            url = f"redis://{credentials}@127.0.0.1:{server.port}/0"
            async with journal_at(url) as journal:
                record = await begin(journal)
                await append(journal, record.sid, texts(record.gen, 1, "a"))
                await journal.step(record.sid, Step(op=Op.CANCEL, op_id="c"))
                assert (await journal.known(record.sid)).tail == 2


def test_a_password_and_an_access_list_do() -> None:
    """A user that may touch `atlas:*` only, without dangerous commands, is enough."""
    run(_with_password())


async def _listed_early() -> None:
    async with journal_at(shared_redis().url) as journal:
        record = fresh(tenant="early")
        await journal._control.ask("atlas:ten:{early}", *journal._indexing(record))
        assert await journal.listing("early", after=None, limit=9, state=None) == []
        await journal.create(record, start_of(record))
        (known,) = await journal.listing("early", after=None, limit=9, state=None)
        assert known.record.sid == record.sid
        ghosts = [fresh(tenant="early", created=record.created - 100 - n) for n in range(130)]
        for ghost in ghosts:
            await journal._control.ask("atlas:ten:{early}", *journal._indexing(ghost))
        old = await begin(journal, tenant="early", created=record.created - 1_000)
        found = await journal.listing("early", after=None, limit=9, state=None)
        assert [known.record.sid for known in found] == [record.sid, old.sid]
        with shared_redis().client() as client:
            assert client.zcard("atlas:ten:{early}") == 2


def test_a_listing_does_not_hide_what_is_being_created() -> None:
    """Whoever lists between a stream's index and its record does not take it out; what never came to be goes."""
    run(_listed_early())


def test_a_stream_is_one_slot() -> None:
    """In a cluster all keys of a stream lie on one node, or no script could touch them."""
    for sid in (new_sid(), new_sid()):
        assert len({key_slot(key.encode()) for key in [*keys_of(sid), key_of_log(sid)]}) == 1


# Bugs planted into the scripts.


def _with(change: Callable[[str], str]) -> Opened:
    """The claims' subject with another text in its scripts."""

    class Planted(RedisSubject):
        def _scripts(self) -> Scripts:
            scripts = super()._scripts()
            for name, script in vars(scripts).items():
                setattr(scripts, name, Script(change(script.text)))
            return scripts

    @asynccontextmanager
    async def planted() -> AsyncIterator[RedisSubject]:
        subject = Planted(shared_redis())
        try:
            yield subject
        finally:
            await subject.close()

    return planted


BUGS = {
    "operation ids are not looked up": ("if known[1] == op_id", "if false", "a_late_pause_does_not_undo_a_resume"),
    "operation ids for ever": ("if at - known[2] < 60000", "if true", "operation_ids_are_forgotten_after_a_minute"),
    "any number of operation ids": ("#operations > 64", "false", "operation_ids_are_bounded"),
    "conditions are ignored": ("expect_gen ~= ''", "false", "a_stale_condition_changes_nothing"),
    "a kept end is lost": ("if kept then append(kept)", "if false then append(kept)", "an_end_is_kept_while_paused"),
    "a claim of a kept end": ("(kept and OF_OWNERS[op]) or ", "", "a_kept_end_needs_no_owner"),
    "no time to live": ("redis.call('PEXPIRE', j, log_ms)", "", "a_live_log_slides"),
    "the record dies with its log": ("'PEXPIRE', m, log_ms + record_ms", "'PEXPIRE', m, log_ms", "facts_are_kept"),
    "a cursor means the next entry": (
        "'-' .. whole(first)",
        "'-' .. whole(first + 1)",
        "an_entry_across_the_cursor_is_in_the_page",
    ),
    "nothing is skipped": ("write('skip', pause_seq and", "write('skip', false and", "cancel_drops_what_a_pause_held"),
    "deletes half": ("redis.call('DEL', j, u, request)", "", "a_deleted_log_takes_nothing"),
    "gens stand still": ("gen = math.max(gen + 1, at)", "gen = gen + 1", "a_gen_is_at_least_the_time"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_claim_catches(bug: str) -> None:
    """A script with this bug does not keep this claim."""
    right, wrong, claim = BUGS[bug]
    assert any(right in script.text for script in Scripts().all()), "the bug is not planted"
    with pytest.raises((AssertionError, JournalError, pytest.fail.Exception)):
        run(judge(ALL[claim], _with(lambda text: text.replace(right, wrong))), timeout=20)
