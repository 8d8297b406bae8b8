"""How the claims write and read: an owner that waits for each answer, and a reader of whole logs."""

import asyncio
from itertools import count
from typing import Any

from gateway.core.events import End, Event, Start, State, Text
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended, Entry, Journal
from gateway.streams.lifecycle import Answer, Op, Record, Step
from tests.conformance.journal.subject import Subject

COMPLETED = End(State.COMPLETED)
_numbers = count()


async def send(journal: Journal, sid: str, entry: Entry) -> Appended:
    """Appends and waits for the answer; two answers are an error."""
    settled: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    journal.append(sid, entry, settled.set_result)
    return await settled


class Writer:
    """The owner of one stream: numbers its events by what it was told last."""

    def __init__(self, journal: Journal, record: Record) -> None:
        self.journal, self.sid, self.owner = journal, record.sid, record.owner
        self.gen, self.seq = record.gen, 0
        self.start: Entry

    @classmethod
    async def begin(
        cls, subject: Subject, journal: Journal, *, request: bytes | None = None, **changes: Any
    ) -> "Writer":
        """A fresh stream; `changes` are members of its record."""
        now = subject.now()
        members: dict[str, Any] = {
            "sid": new_sid(),
            "tenant": "acme",
            "route": "route",
            "dialect": "openai_chat",
            "model": "model",
            "created": now,
            "owner": "replica-1",
            "gen": int(now * 1000),
        }
        record = Record(**members | changes)
        writer = cls(journal, record)
        start = Start(record.sid, f"chatcmpl-{record.sid}", int(now), record.model, record.dialect)
        writer.start = await journal.create(record, start, request)
        return writer

    def entry(self, *texts: str) -> Entry:
        """The next entry, of one text event for each of `texts`."""
        return Entry.of(self.gen, self.seq + len(texts), [Text(0, text) for text in texts])

    async def say(self, *texts: str) -> Appended:
        """Appends one entry; the next one follows it if it was taken."""
        entry = self.entry(*texts)
        outcome = await send(self.journal, self.sid, entry)
        if outcome is Appended.ACKED:
            self.seq = entry.seq
        return outcome

    async def do(self, op: Op, op_id: str | None = None, **members: Any) -> tuple[Answer, list[Entry]]:
        """One control operation, by anybody: the owner is not told. FINISH completes unless told otherwise."""
        if op is Op.FINISH:
            members.setdefault("end", COMPLETED)
        return await self.journal.step(self.sid, Step(op=op, op_id=op_id or f"op-{next(_numbers)}", **members))

    async def adopt(self) -> None:
        """The owner reads record and tail, as after a fence."""
        page = await self.journal.read(self.sid, -1, 1)
        self.gen, self.seq = page.record.gen, page.tail

    async def entries(self, page_bytes: int = 64) -> list[Entry]:
        """The whole log, page by page."""
        found: list[Entry] = []
        while True:
            page = await self.journal.read(self.sid, found[-1].seq if found else -1, page_bytes)
            if not page.entries:
                return found
            found += page.entries

    async def events(self) -> list[Event]:
        """All events of the log."""
        return [event for entry in await self.entries() for event in entry.events]

    async def record(self) -> Record:
        """What the journal says of the stream."""
        return (await self.journal.known(self.sid)).record


def assert_sound(entries: list[Entry]) -> None:
    """Seqs are dense from 0, ids increase, and an end is last."""
    seq = -1
    for entry in entries:
        assert entry.first == seq + 1
        assert len(entry.events) == entry.count
        seq = entry.seq
    ids = [(entry.gen, entry.seq) for entry in entries]
    assert ids == sorted(set(ids))
    events = [event for entry in entries for event in entry.events]
    assert not any(isinstance(event, End) for event in events[:-1])
