"""Who asks Redis and is cancelled at whatever await: nobody gets another's answer, and the connections are whole."""

import asyncio
from random import Random
from typing import Any

from gateway.core.events import State
from gateway.streams.journal_redis import RedisJournal
from gateway.streams.lifecycle import Op, Record, Step
from tests.support.redis_server import shared_redis
from tests.support.run import run
from tests.unit.streams.redis_world import begin, journal_at

QUESTIONS, AT_ONCE, STREAMS = 10_000, 100, 25


async def _ask(journal: RedisJournal, record: Record, what: int, number: int) -> None:
    """One question, whose answer must be about this stream."""
    match what:
        case 0:
            assert (await journal.known(record.sid)).record.sid == record.sid
        case 1:
            page = await journal.read(record.sid, -1, 1)
            assert page.entries[0].events[0].sid == record.sid  # type: ignore[union-attr]
        case 2:
            bound = await journal.remember(f"key-{number}", f"sid-{number}", f"hash-{number}")
            assert bound == (f"sid-{number}", f"hash-{number}")
        case _:
            answer, _ = await journal.step(record.sid, Step(op=Op.RESUME, op_id=f"op-{number}"))
            assert answer.gen == record.gen, "another stream's"


def test_no_answer_is_anothers() -> None:
    """Of ten thousand questions half are cancelled at random: the others have their own answers, on one connection."""

    async def story() -> None:
        server = shared_redis()
        server.flush()
        chance = Random(7)
        async with journal_at(server.url) as journal:
            records = [await begin(journal, gen=1_000 + at) for at in range(STREAMS)]
            await journal.read(records[0].sid, -1, 1)
            before = server.clients()
            cancelled = 0
            for first in range(0, QUESTIONS, AT_ONCE):
                asked: list[asyncio.Task[Any]] = []
                for number in range(first, first + AT_ONCE):
                    work = _ask(journal, chance.choice(records), chance.randrange(4), number)
                    asked.append(asyncio.ensure_future(work))
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                for task in chance.sample(asked, AT_ONCE // 2):
                    task.cancel()
                done = await asyncio.gather(*asked, return_exceptions=True)
                errors = [error for error in done if isinstance(error, Exception)]
                assert errors == []
                cancelled += sum(isinstance(each, asyncio.CancelledError) for each in done)
            assert cancelled > QUESTIONS / 4
            assert server.clients() == before
            known = [(await journal.known(record.sid)).record for record in records]
            assert {record.state for record in known} == {State.RUNNING}

    run(story())
