"""The journal of one process: the embedded default. Every operation is one synchronous step.

Bounds: `max_total_bytes` over all logs. When a new stream or entry needs room, the oldest terminal logs go first (their
readers get 410); a journal full of live ones takes no new stream. Records outlive their logs and are bounded by number.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from gateway.core.clock import Clock
from gateway.core.events import TERMINAL, Start
from gateway.streams.journal import (
    Appended,
    Entry,
    ExpiredStream,
    JournalFull,
    Known,
    Page,
    StreamTaken,
    UnknownStream,
)
from gateway.streams.lifecycle import Answer, Record, Step, apply, end_without_log

_encode_facts = msgspec.msgpack.Encoder().encode
_decode_facts = msgspec.msgpack.Decoder(dict[str, Any]).decode

ENTRY_OVERHEAD = 200
"""What an entry costs in memory beside its data, bytes (CPython 3.11: object, ids, list slot)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bytes and seconds; a live log slides with every append, the others count from the end."""

    max_total_bytes: int = 268_435_456
    max_records: int = 100_000
    ttl_live_s: float = 1800.0
    ttl_terminal_s: float = 900.0
    ttl_record_s: float = 86_400.0
    ttl_idempotency_s: float = 86_400.0


class _Log:
    """One stream. `entries` is None once the log was dropped and only the record is left."""

    __slots__ = ("closed_by", "entries", "expires", "facts", "record", "request", "size", "tail")

    def __init__(self, record: Record, expires: float) -> None:
        self.record = record
        self.entries: list[Entry] | None = []
        self.tail = -1
        self.size = 0
        self.expires = expires
        self.facts = b""  # one object: a day's worth of dicts would be walked by the garbage collector all day
        self.closed_by: str | None = None
        self.request: bytes | None = None

    @property
    def known(self) -> Known:
        tail = -1 if self.entries is None else self.tail
        facts = _decode_facts(self.facts) if self.facts else {}
        return Known(self.record, facts, tail, self.expires, self.closed_by)


class MemoryJournal:
    """Logs in this process, gone with it."""

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._tenants: dict[str, OrderedDict[str, _Log]] = {}
        # Every stream is in one of these, too; the last two in order of their expiry, so that a sweep stops early.
        self._open: dict[str, _Log] = {}
        self._ended: OrderedDict[str, _Log] = OrderedDict()
        self._gone: OrderedDict[str, _Log] = OrderedDict()  # the record is left
        self._deleted: dict[str, _Log] = {}  # known to nobody, but to readers that are still there
        self._keys: OrderedDict[str, tuple[str, str, float]] = OrderedDict()
        self.total_bytes = 0

    async def create(self, record: Record, start: Start, request: bytes | None = None) -> Entry:
        """Make a log with its entry 0; a request counts as its entries do."""
        if record.sid in self._deleted:
            raise StreamTaken(record.sid)
        entry = Entry.of_control(record.gen, 0, start)
        extra = len(request or b"")
        if not self._make_room(len(entry.data) + ENTRY_OVERHEAD + extra) or not self._make_record_room():
            msg = "the journal is full of live streams"
            raise JournalFull(msg)
        log = _Log(record, self._clock.now() + self._bounds.ttl_live_s)
        self._logs[record.sid] = self._open[record.sid] = log
        self._tenants.setdefault(record.tenant, OrderedDict())[record.sid] = log
        self._store(log, entry)
        log.request = request
        log.size += extra
        self.total_bytes += extra
        return entry

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        """Append at the end; settled before this returns."""
        log = self._logs.get(sid)
        if log is None or log.entries is None:
            settled(Appended.MISSING)
            return
        # The record's gen is the newest entry's, or ahead of it: a kept end moves the write right without an entry.
        if entry.seq <= log.tail or entry.gen < log.record.gen:
            settled(Appended.FENCED)
            return
        size = len(entry.data) + ENTRY_OVERHEAD
        if self.total_bytes + size > self._bounds.max_total_bytes and not self._make_room(size):
            settled(Appended.FULL)
        else:
            log.entries.append(entry)
            log.tail = entry.seq
            log.size += size
            self.total_bytes += size
            log.expires = self._clock.now() + self._bounds.ttl_live_s
            settled(Appended.ACKED)

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        """Apply one control operation."""
        if (log := self._log(sid)).entries is None:
            log.record = end_without_log(log.record, step, self._clock.now())
            raise ExpiredStream(sid)
        log.record, answer, appended = apply(log.record, log.tail, step, self._clock.now())
        entries = [Entry.of_control(gen, seq, event) for seq, (gen, event) in enumerate(appended, start=log.tail + 1)]
        for entry in entries:
            self._store(log, entry)
        if entries:
            has_ended = log.record.state in TERMINAL
            log.expires = self._clock.now() + (self._bounds.ttl_terminal_s if has_ended else self._bounds.ttl_live_s)
            if has_ended:
                self._ended[sid] = log
                self._open.pop(sid, None)
                self._forget_request(log)
        return answer, entries

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        """Record, tail, and entries behind `after`."""
        deleted = self._deleted.get(sid)
        log = self._live(sid) if deleted is None or deleted.expires <= self._clock.now() else deleted
        entries = log.entries or []
        index = _index_after(entries, after)
        page: list[Entry] = []
        size = 0
        while index < len(entries) and (not page or size < max_bytes):
            page.append(entries[index])
            size += len(page[-1].data)
            index += 1
        return Page(log.record, log.tail, page)

    async def known(self, sid: str) -> Known:
        """Record and facts."""
        return self._log(sid).known

    async def moved(self, wanted: Sequence[tuple[str, int]]) -> list[bool]:
        """Whose record has another gen by now, or is gone."""
        records = [(self._logs.get(sid), gen) for sid, gen in wanted]
        return [log is None or log.record.gen != gen for log, gen in records]

    async def request(self, sid: str) -> bytes | None:
        """What is kept for a recovery."""
        log = self._logs.get(sid)
        return None if log is None else log.request

    async def annotate(self, sid: str, facts: dict[str, Any], *, closed_by: str | None = None) -> None:
        """Keep what a status object shows."""
        if (log := self._logs.get(sid)) is not None:
            log.facts = _encode_facts(facts)
            log.closed_by = closed_by or log.closed_by

    async def delete(self, sid: str, *, after_s: float = 0.0) -> None:
        """Forget a stream; its log stays a little for its readers."""
        if (log := self._logs.get(sid)) is None:
            return
        if after_s <= 0 or log.entries is None:
            self._forget(log)
            return
        self._unlist(log)
        self._forget_request(log)
        log.expires = self._clock.now() + after_s
        self._deleted[sid] = log

    async def listing(self, tenant: str, *, after: str | None, limit: int, state: str | None) -> list[Known]:
        """The tenant's streams, newest first."""
        found: list[Known] = []
        skipping = after is not None
        for sid, log in reversed(self._tenants.get(tenant, OrderedDict[str, _Log]()).items()):
            if skipping:
                skipping = sid != after
            elif state is None or state == log.record.state:
                found.append(log.known)
                if len(found) == limit:
                    break
        return found

    async def paused_since(self, moment: float) -> list[Record]:
        """Streams that have been paused since before `moment`."""
        records = (log.record for log in self._open.values())
        return [record for record in records if record.paused_since is not None and record.paused_since < moment]

    async def remember(self, key: str, sid: str, body_hash: str) -> tuple[str, str]:
        """Bind an idempotency key unless it is bound."""
        now = self._clock.now()
        bound = self._keys.get(key)
        if bound is None or bound[2] <= now:
            self._keys[key] = bound = (sid, body_hash, now + self._bounds.ttl_idempotency_s)
            self._keys.move_to_end(key)
            while len(self._keys) > self._bounds.max_records:
                self._keys.popitem(last=False)
        return bound[0], bound[1]

    async def forget(self, key: str) -> None:
        """Free an idempotency key."""
        self._keys.pop(key, None)

    async def sweep(self) -> None:
        """Drop what outlived its time. Costs a look at every open stream, and at what is dropped."""
        now = self._clock.now()
        for log in [log for log in self._open.values() if log.expires <= now]:
            self._drop(log)
        while self._ended and (log := next(iter(self._ended.values()))).expires <= now:
            self._drop(log)
        while self._gone and (log := next(iter(self._gone.values()))).expires <= now:
            self._forget(log)
        for log in [log for log in self._deleted.values() if log.expires <= now]:
            self._free(log)
        for key, (_, _, expires) in list(self._keys.items()):
            if expires > now:
                break  # bound in order of time
            del self._keys[key]

    def _store(self, log: _Log, entry: Entry) -> None:
        if log.entries is None:
            raise ExpiredStream(log.record.sid)
        log.entries.append(entry)
        log.tail = entry.seq
        size = len(entry.data) + ENTRY_OVERHEAD
        log.size += size
        self.total_bytes += size

    def _forget_request(self, log: _Log) -> None:
        size = len(log.request or b"")
        log.request = None
        log.size -= size
        self.total_bytes -= size

    def _drop(self, log: _Log) -> None:
        """Give the log's memory back; the record stays for its own time."""
        sid = log.record.sid
        self._open.pop(sid, None)
        self._ended.pop(sid, None)
        self._gone[sid] = log
        self._free(log)
        log.expires = self._clock.now() + self._bounds.ttl_record_s

    def _free(self, log: _Log) -> None:
        """No entry and no request is left."""
        self._deleted.pop(log.record.sid, None)
        self.total_bytes -= log.size
        log.size = 0
        log.entries = log.request = None

    def _forget(self, log: _Log) -> None:
        """Nothing is left of a stream."""
        self._unlist(log)
        self._free(log)

    def _unlist(self, log: _Log) -> None:
        """Nobody finds it any more."""
        sid, tenant = log.record.sid, log.record.tenant
        for index in (self._open, self._ended, self._gone):
            index.pop(sid, None)
        del self._logs[sid], self._tenants[tenant][sid]
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def _make_room(self, size: int) -> bool:
        """Evict deleted logs, then the oldest terminal ones, until `size` more bytes fit."""
        while self.total_bytes + size > self._bounds.max_total_bytes:
            if self._deleted:
                self._free(next(iter(self._deleted.values())))
            elif self._ended:
                self._drop(next(iter(self._ended.values())))
            else:
                return False
        return True

    def _make_record_room(self) -> bool:
        if len(self._logs) < self._bounds.max_records:
            return True
        oldest = next(iter((*islice(self._gone, 1), *islice(self._ended, 1))), None)
        if oldest is None:
            return False
        self._forget(self._logs[oldest])
        return True

    def _log(self, sid: str) -> _Log:
        log = self._logs.get(sid)
        if log is None:
            raise UnknownStream(sid)
        return log

    def _live(self, sid: str) -> _Log:
        log = self._log(sid)
        if log.entries is None:
            raise ExpiredStream(sid)
        return log


def _index_after(entries: list[Entry], seq: int) -> int:
    """The index of the first entry that holds an event behind `seq`."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].seq <= seq:
            low = middle + 1
        else:
            high = middle
    return low
