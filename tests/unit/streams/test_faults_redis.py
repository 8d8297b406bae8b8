"""An owner that appends, somebody who pauses and resumes, and a network that loses and delays what it likes.

The owner does what a session does: after a fence it reads record and tail in one step and goes on behind it.
"""

import asyncio
import random

import pytest

from gateway.core.events import End, State
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended
from gateway.streams.journal_redis import RedisJournal
from gateway.streams.lifecycle import Op, Outcome, Record, Step
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import shared_redis
from tests.support.run import run
from tests.unit.streams.redis_world import append, begin, journal_at, log_of, texts

WORDS = 40


async def _own(journal: RedisJournal, record: Record, rng: random.Random) -> None:
    """Append every word once, then end."""
    gen, seq, said = record.gen, 0, 0
    while said < WORDS:
        words = [str(number) for number in range(said, min(said + rng.randint(1, 3), WORDS))]
        outcome = await append(journal, record.sid, texts(gen, seq + 1, *words))
        if outcome is Appended.ACKED:
            said, seq = said + len(words), seq + len(words)
        else:
            assert outcome is Appended.FENCED
            page = await journal.read(record.sid, seq, 1)
            gen, seq = page.record.gen, page.tail
    while True:
        end = Step(op=Op.FINISH, op_id=f"finish:{gen}", expect_gen=gen, expect_seq=seq, end=End(State.COMPLETED))
        answer, _ = await journal.step(record.sid, end)
        if answer.outcome is not Outcome.STALE:
            return
        page = await journal.read(record.sid, seq, 1)
        gen, seq = page.record.gen, page.tail


async def _control(journal: RedisJournal, sid: str, rng: random.Random) -> None:
    """Pause and resume, each as often as its network repeats it."""
    for _ in range(6):
        for op in (Op.PAUSE, Op.RESUME):
            step = Step(op=op, op_id=new_sid())
            answer, _ = await journal.step(sid, step)
            if rng.random() < 0.3:
                assert (await journal.step(sid, step))[0] == answer
            await asyncio.sleep(rng.random() * 0.004)
    await journal.step(sid, Step(op=Op.RESUME, op_id=new_sid()))


async def _disturb(proxy: RedisProxy, rng: random.Random) -> None:
    """One misfortune after another; what is late arrives some time, or at the end."""
    while True:
        number = rng.randrange(4)
        if proxy.is_holding:
            await proxy.arrive()
        proxy.begin(lose=number) if rng.random() < 0.5 else proxy.begin(late=number)
        await asyncio.sleep(rng.random() * 0.006)


async def _story(seed: int) -> None:
    rng = random.Random(seed)
    async with (
        RedisProxy.before(shared_redis()) as proxy,
        journal_at(proxy.url) as owner,
        journal_at(proxy.url) as other,
    ):
        record = await begin(owner)
        trouble = asyncio.create_task(_disturb(proxy, rng))
        await asyncio.gather(_own(owner, record, rng), _control(other, record.sid, rng))
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)
        proxy.begin()
        if proxy.is_holding:
            await proxy.arrive()
        await other.step(record.sid, Step(op=Op.RESUME, op_id=new_sid()))
        log = await log_of(owner, record.sid)
        assert [word for word in log if word.isdigit()] == [str(number) for number in range(WORDS)], log
        assert log[-1] == "End"
        assert log.count("End") == 1
        assert log.count("Pause") == log.count("Resume"), "every pause and resume counted once"
        page = await owner.read(record.sid, -1, 10**6)
        assert [entry.first for entry in page.entries[1:]] == [entry.seq + 1 for entry in page.entries[:-1]]


@pytest.mark.parametrize("part", range(5))
def test_whatever_the_network_does_a_log_is_whole(part: int) -> None:
    """Every word is in the log once and in order, under any number of lost replies and late commands."""
    for seed in range(100 * part, 100 * part + 8):
        try:
            run(_story(seed))
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"seed {seed}: {error}") from error
