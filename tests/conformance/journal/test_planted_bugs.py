"""The claims find the bugs that they are there for: each is planted into an honest journal and must be caught."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.core.events import End
from gateway.streams.journal import Appended, Entry, JournalError, Known, Page
from gateway.streams.journal_memory import MemoryJournal
from gateway.streams.lifecycle import Answer, Op, Step
from tests.conformance.journal.subject import Opened, Subject
from tests.conformance.journal.subjects.memory import MemorySubject
from tests.conformance.journal.test_journal import ALL, judge
from tests.support.run import run


class NoFencing(MemoryJournal):
    """Takes whatever the owner sends, as `XADD *` would."""

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        log = self._logs.get(sid)
        if log is not None and log.entries is not None:
            gen, tail = max(log.record.gen, entry.gen), log.tail
            entry = Entry(gen, tail + entry.count, entry.count, entry.data)
        super().append(sid, entry, settled)


class NoDedupe(MemoryJournal):
    """Forgets operation ids."""

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        if (log := self._logs.get(sid)) is not None:
            log.record = msgspec.structs.replace(log.record, operations=())
        return await super().step(sid, step)


class NoConditions(MemoryJournal):
    """Ignores If-Match and the expected seq."""

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        return await super().step(sid, msgspec.structs.replace(step, expect_gen=None, expect_seq=None))


class NoTtl(MemoryJournal):
    """Keeps everything."""

    async def sweep(self) -> None:
        pass


class LeakyDelete(MemoryJournal):
    """Forgets the stream, not its bytes."""

    async def delete(self, sid: str, *, after_s: float = 0.0) -> None:
        self._logs.pop(sid, None)
        self._ended.pop(sid, None)


class LostResume(MemoryJournal):
    """Answers a resume and appends nothing."""

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        answer, entries = await super().step(sid, step)
        if step.op is Op.RESUME and entries and not isinstance(entries[-1].control, End):
            log = self._logs[sid]
            assert log.entries is not None
            log.entries.pop()
            log.tail -= 1
            return answer, []
        return answer, entries


class EndLater(MemoryJournal):
    """Leaves it to somebody else to say why a stream ended."""

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        answered = await super().step(sid, step)
        self._logs[sid].record = msgspec.structs.replace(self._logs[sid].record, end=None)
        return answered


class EntryAfterCursor(MemoryJournal):
    """Takes a cursor inside an entry for its end."""

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        page = await super().read(sid, after, max_bytes)
        whole = [entry for entry in page.entries if entry.first > after]
        return msgspec.structs.replace(page, entries=whole)


class OpenListing(MemoryJournal):
    """Lists every tenant's streams."""

    async def listing(self, tenant: str, *, after: str | None, limit: int, state: str | None) -> list[Known]:
        tenants = dict.fromkeys(log.record.tenant for log in self._logs.values())
        found: list[Known] = []
        for each in tenants:
            found += await super().listing(each, after=after, limit=limit, state=state)
        return found


class GivesUpLive(MemoryJournal):
    """Makes room by dropping whatever is there, but the oldest."""

    def _make_room(self, size: int) -> bool:
        while self.total_bytes + size > self._bounds.max_total_bytes:
            self._drop([log for log in self._logs.values() if log.entries is not None][1])
        return True


class Eternal(MemoryJournal):
    """An idempotency key is never free again."""

    async def remember(self, key: str, sid: str, body_hash: str) -> tuple[str, str]:
        self._keys.setdefault(key, (sid, body_hash, float("inf")))
        return self._keys[key][:2]


def _opened(kind: type[MemoryJournal]) -> Opened:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Subject]:
        yield MemorySubject(kind)

    return opened


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        (NoFencing, "a_control_entry_fences_the_owner"),
        (NoFencing, "an_id_that_is_not_greater_is_refused"),
        (NoDedupe, "a_repeated_operation_changes_nothing"),
        (NoDedupe, "a_late_pause_does_not_undo_a_resume"),
        (NoConditions, "a_finish_cannot_overtake"),
        (NoConditions, "an_expiry_is_of_one_pause"),
        (NoTtl, "a_terminal_log_lives_its_own_time"),
        (NoTtl, "nothing_is_left_in_the_end"),
        (LeakyDelete, "deleting_makes_room"),
        (LostResume, "the_table_of_states_holds"),
        (EndLater, "no_record_is_terminal_without_its_end"),
        (EntryAfterCursor, "an_entry_across_the_cursor_is_in_the_page"),
        (OpenListing, "a_listing_tells_nothing_of_other_tenants"),
        (GivesUpLive, "a_journal_full_of_live_logs_refuses"),
        (Eternal, "an_idempotency_key_is_bound_once"),
    ],
)
def test_claim_catches(kind: type[MemoryJournal], claim: str) -> None:
    """A journal with this bug does not keep this claim."""
    with pytest.raises((AssertionError, JournalError, pytest.fail.Exception)):
        run(judge(ALL[claim], _opened(kind)))
