"""A Redis journal for tests of its own: on the shared server, perhaps through a network that misbehaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from gateway.core.clock import SystemClock
from gateway.core.events import Start, Text
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended, Entry, JournalUnavailable
from gateway.streams.journal_redis import Lifetimes, RedisJournal
from gateway.streams.lifecycle import Record
from gateway.streams.writer_redis import Batching
from gateway.upstream.link_redis import Link, Observer, Timing
from tests.support.signals import PATIENCE_S

STEADY = Timing(
    connect_s=PATIENCE_S, reply_s=PATIENCE_S, answer_s=PATIENCE_S, patience_s=PATIENCE_S, pause_s=0.002,
    pause_max_s=0.02,
)  # fmt: skip
"""Where Redis answers, or says at once that it does not: nothing is asked twice because a machine stood still."""
QUICK = Timing(connect_s=1.0, reply_s=0.1, answer_s=3.0, patience_s=2.0, pause_s=0.002, pause_max_s=0.02)
"""Where Redis says nothing at all."""


@asynccontextmanager
async def journal_at(
    url: str,
    *,
    timing: Timing = STEADY,
    observer: Observer | None = None,
    batching: Batching | None = None,
    **changes: Any,
) -> AsyncIterator[RedisJournal]:
    """A running journal on the machine's own clock."""
    clock = SystemClock()
    link = Link(url, clock, timing=timing, observer=observer)
    batching = batching or Batching(give_up_s=PATIENCE_S)
    journal = RedisJournal(link, Lifetimes(), clock, batching=batching, **changes)
    task = asyncio.create_task(journal.run())
    try:
        yield journal
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def record_of(**changes: Any) -> Record:
    """A fresh stream's record."""
    now = SystemClock.now()
    members: dict[str, Any] = {
        "sid": new_sid(), "tenant": "acme", "route": "route", "dialect": "openai_chat", "model": "model",
        "created": now, "owner": "replica-1", "gen": int(now * 1000),
    }  # fmt: skip
    return Record(**members | changes)


async def begin(journal: RedisJournal, **changes: Any) -> Record:
    """A stream with its start."""
    record = record_of(**changes)
    await journal.create(record, start_of(record))
    return record


def start_of(record: Record) -> Start:
    """Its entry 0."""
    return Start(record.sid, f"chatcmpl-{record.sid}", int(record.created), record.model, record.dialect)


def texts(gen: int, first: int, *words: str) -> Entry:
    """An entry of texts from seq `first` on."""
    return Entry.of(gen, first + len(words) - 1, [Text(0, word) for word in words])


def append(journal: RedisJournal, sid: str, entry: Entry) -> "asyncio.Future[Appended]":
    """An append under way; settled twice is an error."""
    settled: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    journal.append(sid, entry, settled.set_result)
    return settled


async def log_of(journal: RedisJournal, sid: str) -> list[str]:
    """The whole log: each event's text, or its kind."""
    page = await journal.read(sid, -1, 1_000_000)
    return [event.text if isinstance(event, Text) else type(event).__name__ for entry in page.entries
            for event in entry.events]  # fmt: skip


T = TypeVar("T")


async def as_soon_as_may_be(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer to a question that is asked again while the journal is away."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(JournalUnavailable):
                return await ask()
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Waits for something that another task does."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  another task's business
            await asyncio.sleep(0.002)
