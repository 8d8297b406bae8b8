"""Every command's reply is lost once in turn, and every command comes too late once: nothing is doubled or lost."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.events import End, State
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended, UnknownStream
from gateway.streams.journal_redis import RedisJournal
from gateway.streams.lifecycle import Op, Outcome, Step
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import shared_redis
from tests.support.run import run
from tests.unit.streams.redis_world import STEADY, append, begin, journal_at, log_of, texts

LOG = ["Start", "a", "b", "c", "d", "Pause", "held", "Resume", "e", "f", "End"]


async def whole_life(journal: RedisJournal) -> list[Any]:
    """All that can be asked about one stream; what came of it, without ids and times."""
    record = await begin(journal, tenant=f"tenant-{new_sid()}")
    sid, gen, story = record.sid, record.gen, list[Any]()

    async def say(seq: int, *words: str) -> None:
        story.append(await append(journal, sid, texts(gen, seq, *words)))

    async def do(op: Op, **members: Any) -> None:
        nonlocal gen
        answer, entries = await journal.step(sid, Step(op=op, op_id=f"{op}-{len(story)}", **members))
        gen = answer.gen
        story.append((answer.outcome, answer.state, answer.seq, [type(entry.control).__name__ for entry in entries]))

    await say(1, "a")
    await say(2, "b", "c")
    await say(4, "d")
    before = gen
    await do(Op.PAUSE)
    story.append(await append(journal, sid, texts(before, 5, "fenced")))
    await say(6, "held")
    await do(Op.RESUME)
    await say(8, "e", "f")
    await do(Op.FINISH, expect_gen=gen, expect_seq=9, end=End(State.COMPLETED))
    await journal.annotate(sid, {"n": 1})
    story += [await log_of(journal, sid), (await journal.known(sid)).facts]
    story += [[known.record.state for known in await journal.listing(record.tenant, after=None, limit=9, state=None)]]
    story += [await journal.remember(sid, "one", "body") == ("one", "body")]
    await journal.forget(sid)
    story += [await journal.remember(sid, "two", "body") == ("two", "body")]
    await journal.delete(sid)
    story.append(await append(journal, sid, texts(gen, 11, "missing")))
    story += [await journal.listing(record.tenant, after=None, limit=9, state=None)]
    with pytest.raises(UnknownStream):
        await journal.known(sid)
    return story


async def undisturbed(proxy: RedisProxy) -> tuple[list[Any], int]:
    """The story as it should be, and how many commands it takes."""
    async with journal_at(proxy.url) as journal:
        proxy.begin()
        story = await whole_life(journal)
    assert LOG in story
    return story, len(proxy.seen)


async def _lose_each(*, silent: bool) -> None:
    server = shared_redis()
    server.flush()
    async with RedisProxy.before(server) as proxy:
        expected, count = await undisturbed(proxy)
        assert count > 20
        for number in range(count):
            async with journal_at(proxy.url, timing=replace(STEADY, reply_s=0.1) if silent else STEADY) as journal:
                proxy.begin(lose=number, silent=silent)
                story = await whole_life(journal)
            assert story == expected, f"reply {number} lost, to {proxy.seen[number]!r}"


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
def test_every_reply_is_lost_once(silent: bool) -> None:
    """Whichever reply is lost, every answer is the same, and the log is what it would have been."""
    run(_lose_each(silent=silent))


async def _each_late() -> None:
    server = shared_redis()
    server.flush()
    async with RedisProxy.before(server) as proxy:
        expected, count = await undisturbed(proxy)
        for number in range(count):
            async with journal_at(proxy.url) as journal:
                proxy.begin(late=number)
                story = await whole_life(journal)
                assert story == expected, f"command {number} late, {proxy.seen[number]!r}"
                await proxy.arrive()


def test_every_command_is_late_once() -> None:
    """A command that is sent again because it seemed lost does no harm when it is not."""
    run(_each_late())


async def _late_in_mid_stream() -> None:
    server = shared_redis()
    async with RedisProxy.before(server) as proxy, journal_at(proxy.url) as journal:
        record = await begin(journal)
        assert await append(journal, record.sid, texts(record.gen, 1, "a")) is Appended.ACKED
        for seq in (2, 3):
            proxy.begin(late=0)
            assert await append(journal, record.sid, texts(record.gen, seq, f"word {seq}")) is Appended.ACKED
            refusal = await proxy.arrive()
            assert "equal or smaller" in refusal.text
        assert await log_of(journal, record.sid) == ["Start", "a", "word 2", "word 3"]


def test_a_late_append_is_refused() -> None:
    """An append that arrives after its repetition adds nothing."""
    run(_late_in_mid_stream())


async def _late_pause() -> None:
    server = shared_redis()
    async with RedisProxy.before(server) as proxy, journal_at(proxy.url) as journal:
        record = await begin(journal)
        proxy.begin(late=2)  # behind the index's two
        answer, _ = await journal.step(record.sid, Step(op=Op.PAUSE, op_id="p"))
        assert answer.outcome is Outcome.CHANGED
        await journal.step(record.sid, Step(op=Op.RESUME, op_id="r"))
        await proxy.arrive()
        assert (await journal.known(record.sid)).record.state is State.RUNNING
        assert await log_of(journal, record.sid) == ["Start", "Pause", "Resume"]


def test_a_late_pause_does_not_pause_again() -> None:
    """A pause that arrives after its repetition and after a resume changes nothing."""
    run(_late_pause())
