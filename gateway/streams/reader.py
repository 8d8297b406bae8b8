"""A reader follows one log: ring or journal, across pauses, from any cursor, without ever slowing the owner.

`take` is the synchronous fast path; `page` and `wait` are the two things that may take time; `next` is all three.
Every wait ends by the housekeeper's beat at the latest, which is how heartbeats and deadlines reach a quiet stream.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, TypeAlias

from gateway.core.errors import RequestError, StreamRefused
from gateway.streams.journal import JournalGap, ReaderRevoked

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.events import Event
    from gateway.streams.hub import Channel, Hub
    from gateway.streams.journal import Entry, Journal, JournalError, Page

PAGE_BYTES = 65_536
_CURSOR = re.compile(r"(?:([0-9]{1,18})-)?([0-9]{1,10})")

Served: TypeAlias = "tuple[Entry, int, list[Event]]"
"""An entry, the seq of the first event to be served of it, and those events."""


Push: TypeAlias = "Callable[[Entry, bool], bool]"
"""Takes an entry that may be served now, and whether other readers get it too; False: the reader's task must go on."""


class Reader:
    """One follower of one log. `position` is the seq of the last event served."""

    __slots__ = (
        "_channel", "_error", "_future", "_hub", "_journal", "_loop", "_push",
        "key_id", "on_stuck", "position", "sending", "sent_at",
    )  # fmt: skip

    def __init__(self, channel: Channel, hub: Hub, journal: Journal, position: int = -1) -> None:
        self._channel, self._hub, self._journal = channel, hub, journal
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._push: Push | None = None
        self._error: Exception | None = None
        self.position = position
        self.key_id: str | None = None  # of another's stream: whose key it is read with
        self.sending = False  # kept by whoever delivers, looked at by the housekeeper
        self.sent_at = 0.0
        self.on_stuck: Callable[[], None] | None = None
        channel.attach(self)

    @property
    def done(self) -> bool:
        """Whether the terminal event was served."""
        return self._channel.ended and self.position >= self._channel.tail

    @property
    def renderers(self) -> dict[str, object]:
        """Renderers by format, shared by the readers of this stream."""
        return self._channel.renderers

    @property
    def alone(self) -> bool:
        """Whether nobody else reads this stream here."""
        return len(self._channel.readers) <= 1

    @property
    def paused(self) -> bool:
        """Whether the stream is paused."""
        return self._channel.hold is not None

    @property
    def behind(self) -> bool:
        """Whether something can be served without waiting for anybody."""
        self._skip()
        return self.position < self._channel.limit

    def take(self) -> list[Served]:
        """What can be served now out of the ring, in order; empty when there is nothing, or not in the ring.

        Raises:
            JournalError: `fail` was called, and nothing is left that can be served.
            ReaderRevoked: nothing more may be.
        """
        if isinstance(self._error, ReaderRevoked):
            raise self._error
        channel = self._channel
        if channel.skip is not None:
            self._skip()
        limit = channel.tail if channel.hold is None else channel.hold
        position = self.position
        if position >= limit:
            if self._error is not None:
                raise self._error
            return []
        ring = channel.ring
        newest = ring[-1] if ring else None
        if newest is not None and newest.seq - newest.count == position and newest.seq <= limit:
            self.position = newest.seq  # the usual case: exactly one new entry
            return [(newest, position + 1, newest.events)]
        if not ring or ring[0].first > self.position + 1:
            return []
        wanted: list[Entry] = []
        for entry in reversed(ring):
            if entry.seq <= self.position:
                break
            if entry.seq <= limit:
                wanted.append(entry)
        wanted.reverse()
        return self._serve(wanted, limit)

    async def next(self) -> list[Served]:
        """What comes next, in order. Empty when a beat passed without anything, or when all was served (`done`).

        Raises:
            JournalGap: the log has a hole.
            JournalError: the log is gone.
        """
        if served := self.take():
            return served
        if self.behind:
            return await self.page()
        if not self.done:
            await self.wait()
            return self.take()
        return []

    async def page(self) -> list[Served]:
        """What comes next out of the journal, for what is not in the ring any more."""
        page = await self._journal.read(self._channel.sid, self.position, PAGE_BYTES)
        if not page.entries and self.behind:
            msg = f"seq {self.position + 1} is missing"
            raise JournalGap(msg)
        return self._serve(page.entries, self._channel.limit)

    def _serve(self, entries: list[Entry], limit: int) -> list[Served]:
        served: list[Served] = []
        for entry in entries:
            self._skip()
            if entry.seq <= self.position:
                continue
            if entry.seq > limit:
                break
            if entry.first > self.position + 1:
                msg = f"seq {self.position + 1} is missing"
                raise JournalGap(msg)
            served.append((entry, max(entry.first, self.position + 1), entry.after(self.position)))
            self.position = entry.seq
        return served

    def _skip(self) -> None:
        """Move over what a cancel left unserved behind a pause."""
        skip = self._channel.skip
        if skip is not None and skip[0] <= self.position < skip[1]:
            self.position = skip[1] - 1

    async def wait(self, push: Push | None = None) -> None:
        """Until something is published, or the housekeeper's next beat.

        With `push`, plain entries are given to it from where they are published, one after the other; the wait goes on
        as long as it returns True. What it raises is raised here: neither the owner nor another reader has to do with
        it.

        Raises:
            JournalError: the log cannot be followed any more.
        """
        if self._error is not None:
            raise self._error
        self._future, self._push = self._loop.create_future(), push
        self._channel.waiting.append(self)
        try:
            await self._future
        finally:
            self._future = self._push = None
            self._channel.forget(self)
        if self._error is not None:
            raise self._error

    def published(self, entry: Entry) -> bool:
        """An entry can be served. Returns whether this reader goes on waiting."""
        push = self._push
        if push is not None and entry.control is None and entry.seq - entry.count == self.position:
            self.position = entry.seq
            try:
                if push(entry, len(self._channel.readers) > 1):
                    return True
            except Exception as error:  # noqa: BLE001  it is raised again, in the reader's own task
                self._error = error
        self.wake()
        return False

    def wake(self) -> None:
        """Look again."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def fail(self, error: JournalError) -> None:
        """The log cannot be followed any more: once all that is known was served, `error` is raised."""
        if self._error is None:
            self._error = error
        self.wake()

    def detach(self) -> None:
        """Stop following; safe to call twice."""
        self.on_stuck = None  # it leads back here, and nobody asks any more
        self._channel.detach(self)
        self._hub.release(self._channel)


async def resolve(cursor: str | None, page: Page, journal: Journal) -> int:
    """The position that a client's cursor means: exclusive, `<gen>-<seq>`, `<seq>`, `now`, or None for the start.

    Raises:
        RequestError: 400 for anything else.
        StreamRefused: 409 `cursor_ahead` for a cursor that is not of this log's served part.
    """
    if cursor is None:
        return -1
    record = page.record
    servable = record.servable(page.tail)
    if cursor == "now":
        return servable
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        msg = f"a cursor is '<gen>-<seq>', '<seq>' or 'now', got {cursor[:64]!r}"
        raise RequestError(msg, param="after", code="bad_cursor")
    seq = int(match[2])
    is_ahead = seq > servable
    if is_ahead or (match[1] and not await _is_event(int(match[1]), seq, record.sid, journal)):
        msg = f"cursor {cursor} is not in the served log, whose last event has seq {servable}"
        raise StreamRefused(msg, status=409, code="cursor_ahead", last_seq=servable if is_ahead else seq - 1)
    if record.skip is not None and record.skip[0] <= seq < record.skip[1]:
        return record.skip[1] - 1
    return seq


async def _is_event(gen: int, seq: int, sid: str, journal: Journal) -> bool:
    page = await journal.read(sid, seq - 1, 1)
    return bool(page.entries) and page.entries[0].gen == gen
