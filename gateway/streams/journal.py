"""The journal: where logs and records live. Only what is in it may reach a client.

This file holds the values and the contract; `journal_memory` is the embedded default. Nothing outside `journal_*` knows
which one is in use, and one conformance suite (`tests/conformance/journal`) runs on all of them.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from gateway.core.errors import MAX_MESSAGE, AtlasError, Category, Failure
from gateway.core.events import ControlEvent, Event, Start, decode, encode
from gateway.streams.lifecycle import Answer, Record, Step


class Entry(msgspec.Struct, gc=False):
    """One append: consecutive events under the id `<gen>-<seq>` of the last of them.

    `control` is the event of an entry that a control step appended, else None. `decoded` are its events while somebody
    here needs them. The garbage collector does not look at entries: they are many, and never part of a cycle.
    """

    gen: int
    seq: int
    count: int
    data: bytes
    control: ControlEvent | None = None
    decoded: list[Event] | None = None

    @classmethod
    def of(cls, gen: int, seq: int, events: list[Event]) -> "Entry":
        """An entry of `events`, the last of which has `seq`."""
        return cls(gen, seq, len(events), encode(events), None, events)

    @classmethod
    def of_control(cls, gen: int, seq: int, event: ControlEvent) -> "Entry":
        """An entry of one control event."""
        return cls(gen, seq, 1, encode([event]), event)

    @property
    def first(self) -> int:
        """The seq of its first event."""
        return self.seq - self.count + 1

    @property
    def events(self) -> list[Event]:
        """Its events, decoded if they were forgotten."""
        if self.decoded is not None:
            return self.decoded
        return decode(self.data) if self.control is None else [self.control]

    def after(self, seq: int) -> list[Event]:
        """Its events behind `seq`."""
        return self.events if seq < self.first else self.events[seq - self.first + 1 :]


class Appended(Enum):
    """What became of an append."""

    ACKED = "acked"
    FENCED = "fenced"  # the id was not greater than the last one: somebody else wrote
    MISSING = "missing"  # the log is gone
    FULL = "full"  # the journal's own bound
    UNKNOWN = "unknown"  # not answered in time: it is in the log, or will be, or never; append nothing after it
    REGRESSED = "regressed"  # the log lost what was acknowledged, and more than can be appended again


class Page(msgspec.Struct, frozen=True):
    """A part of a log, read in one atomic step with its record. `tail` is the seq of the log's last event."""

    record: Record
    tail: int
    entries: list[Entry]


class Known(msgspec.Struct, frozen=True):
    """What is known of a stream without reading its log.

    `tail` is -1 when the log is gone; `expires` in Unix seconds. `closed_by` is the owner token of the last session
    that gave its word to have closed its upstream.
    """

    record: Record
    facts: dict[str, Any]
    tail: int
    expires: float
    closed_by: str | None = None


class JournalError(AtlasError):
    """The journal cannot do what was asked. `category` is what a client is told whose stream it is."""

    category = Category.JOURNAL

    @property
    def failure(self) -> Failure:
        """What a client is told whose log cannot be written or read on."""
        name, said = type(self).__name__, str(self)
        return Failure(self.category, f"the stream's log cannot be followed on ({name}: {said})"[:MAX_MESSAGE])


class UnknownStream(JournalError):
    """No record: never existed, deleted, or long expired."""

    category = Category.JOURNAL_LOST


class ExpiredStream(JournalError):
    """The record is there, its log is not any more."""

    category = Category.JOURNAL_LOST


class JournalFull(JournalError):
    """No room for another stream: the journal is full of live ones."""


class StreamTaken(JournalError):
    """A stream that was to be created is somebody else's: whoever was silent for a lease finds it claimed."""


class JournalUnavailable(JournalError):
    """The journal was not reached, or did not answer in time: what was asked has happened, or has not."""


class JournalLost(JournalError):
    """The log of a live stream is gone: expired or evicted."""

    category = Category.JOURNAL_LOST


class JournalGap(JournalError):
    """The log's seqs are not dense: something is missing, and skipping it would be a lie."""

    category = Category.JOURNAL_GAP


class JournalRegressed(JournalError):
    """The log lost what was acknowledged and served."""

    category = Category.JOURNAL_REGRESSED


class HandedOver(JournalError):
    """Another replica owns the stream from now on: who reads it here comes back by cursor."""


class ReaderRevoked(JournalError):
    """The key in whose name somebody reads was revoked: the stream goes on, this answer does not."""

    @property
    def failure(self) -> Failure:
        """What that reader is told."""
        return Failure(Category.CANCELLED, "the key that reads this stream was revoked")


class Journal(Protocol):
    """Logs, records and their control state.

    Contract: appends of one stream are made one at a time, the next after the last was settled. `step` is atomic and
    the only way to change a state. Reading never changes anything. All methods may be cancelled at any await; a step
    then happened or did not, and its operation id tells. All of them may raise `JournalUnavailable`.
    """

    async def create(self, record: Record, start: Start, request: bytes | None = None) -> Entry:
        """Make a log with its entry 0; `request` is kept beside it for a recovery, as long as the stream lives.

        Raises:
            JournalFull: when there is no room.
            StreamTaken: it exists, and belongs to somebody else.
        """
        ...

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        """Append at the end and call `settled` once, perhaps before this returns."""
        ...

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        """Apply one control operation; returns its answer and the entries it appended.

        Raises:
            UnknownStream: no record.
            ExpiredStream: a record without log. A FINISH that names the record's gen is kept in it all the same.
        """
        ...

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        """Record, tail, and the entries that hold events behind seq `after`, at most about `max_bytes` (at least one).

        Raises:
            UnknownStream: no record.
            ExpiredStream: a record without log.
        """
        ...

    async def known(self, sid: str) -> Known:
        """Record and facts, also of a stream whose log expired.

        Raises:
            UnknownStream: no record.
        """
        ...

    async def moved(self, wanted: Sequence[tuple[str, int]]) -> list[bool]:
        """For each (sid, gen) whether the record has another gen by now, or is gone; False if nobody can say."""
        ...

    async def request(self, sid: str) -> bytes | None:
        """What `create` was given for a recovery, if it was and the stream lives."""
        ...

    async def annotate(self, sid: str, facts: dict[str, Any], *, closed_by: str | None = None) -> None:
        """Keep what a status object shows beside the record: attempts, legs, usage, metrics. The last one wins.

        `closed_by` is the word of that owner that its upstream is closed; its stream is then no longer listed as its.
        """
        ...

    async def delete(self, sid: str, *, after_s: float = 0.0) -> None:
        """Forget a stream: nobody finds it from now on; its readers may read on for so long."""
        ...

    async def listing(self, tenant: str, *, after: str | None, limit: int, state: str | None) -> list[Known]:
        """The tenant's streams, newest first, behind the stream `after`."""
        ...

    async def paused_since(self, moment: float) -> list[Record]:
        """Streams of any tenant that have been paused since before `moment` (Unix seconds)."""
        ...

    async def remember(self, key: str, sid: str, body_hash: str) -> tuple[str, str]:
        """Bind an idempotency key to a stream unless it is bound; returns the binding that holds: (sid, body hash)."""
        ...

    async def forget(self, key: str) -> None:
        """Free an idempotency key."""
        ...

    async def sweep(self) -> None:
        """Drop what outlived its time."""
        ...
