"""The hub: what readers of this process share. One channel a stream: a ring of acknowledged entries and who waits.

A channel holds what a reader needs to decide whether it may go on (`limit`, `skip`, `ended`), folded from the log's own
control entries, so the decision is the same here as on any replica. Readers hold an index, never a queue; they are
woken once per entry, and a slow one slows nobody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.events import End, Pause, Resume, State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.core.usage import Usage
    from gateway.streams.journal import Entry, Page
    from gateway.streams.lifecycle import Record

RING_BYTES = 262_144
ENTRY_OVERHEAD = 200
"""What an entry costs in memory beside its data, bytes (CPython 3.11)."""


class Follower(Protocol):
    """A reader, as the hub and the housekeeper see it."""

    sending: bool
    sent_at: float
    on_stuck: Callable[[], None] | None

    def published(self, entry: Entry) -> bool:
        """An entry can be served. Returns whether this reader goes on waiting."""
        ...

    def wake(self) -> None:
        """Look again."""
        ...


class Owner(Protocol):
    """A session, as control and the housekeeper see it. `closed` is set once no upstream byte will be read any more."""

    sid: str
    record: Record
    closed: asyncio.Event
    end: End | None
    grace_until: float | None

    @property
    def attempts(self) -> list[str]:
        """One line per upstream attempt so far."""
        ...

    def cancel(self, end: End | None = None) -> None:
        """Stop now: the log has its terminal entry already."""
        ...

    def paused(self) -> None:
        """A pause was acknowledged."""
        ...

    def resumed(self) -> None:
        """A resume was acknowledged."""
        ...

    def shut_down(self) -> None:
        """The process ends."""
        ...

    def orphaned(self, now: float) -> bool:
        """Whether nobody came back in time; true once."""
        ...

    def tick(self, now: float) -> None:
        """Enforce deadlines."""
        ...

    def usage(self) -> tuple[Usage, int]:
        """Usage so far, and the number of legs."""
        ...

    def facts(self) -> dict[str, Any]:
        """What only the owner knows, for the status object."""
        ...


class Channel:
    """The live end of one log in this process."""

    __slots__ = (
        "ended",
        "hold",
        "reader_peak",
        "readers",
        "reattaches",
        "renderers",
        "replayed_events",
        "ring",
        "ring_bytes",
        "session",
        "sid",
        "skip",
        "tail",
        "waiting",
    )

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.ring: deque[Entry] = deque()
        self.ring_bytes = 0
        self.tail = -1
        self.hold: int | None = None
        self.skip: tuple[int, int] | None = None
        self.ended = False
        self.session: Owner | None = None
        self.readers: set[Follower] = set()
        self.reader_peak = self.reattaches = self.replayed_events = 0
        self.renderers: dict[str, object] = {}
        self.waiting: list[Follower] = []

    @classmethod
    def of(cls, page: Page) -> Channel:
        """A channel of a stream that nobody followed here so far; its ring is empty."""
        channel = cls(page.record.sid)
        channel.tail = page.tail
        channel.hold = page.record.pause_seq
        channel.skip = page.record.skip
        channel.ended = page.record.ended is not None
        return channel

    @property
    def limit(self) -> int:
        """The servable seq."""
        return self.tail if self.hold is None else self.hold

    def publish(self, entry: Entry) -> None:
        """Let acknowledged entries be served; called in log order."""
        if entry.control is not None:
            self._fold(entry)
        self.tail = entry.seq
        self.ring.append(entry)
        self.ring_bytes += len(entry.data) + ENTRY_OVERHEAD
        while self.ring_bytes > RING_BYTES and len(self.ring) > 1:
            self.ring_bytes -= len(self.ring.popleft().data) + ENTRY_OVERHEAD
        if self.waiting and (self.hold is None or entry.control is not None):
            for reader in tuple(self.waiting):
                if not reader.published(entry):
                    self.forget(reader)

    def _fold(self, entry: Entry) -> None:
        match entry.control:
            case Pause():
                self.hold = entry.seq
            case Resume():
                self.hold = None
            case End(state=state):
                if self.hold is not None and state is State.CANCELLED:
                    self.skip = (self.hold, entry.seq)
                self.hold = None
                self.ended = True
            case _:
                pass

    def attach(self, reader: Follower) -> None:
        """A reader begins to follow."""
        self.readers.add(reader)
        self.reader_peak = max(self.reader_peak, len(self.readers))

    def detach(self, reader: Follower) -> None:
        """A reader is gone."""
        self.readers.discard(reader)
        self.forget(reader)

    def forget(self, reader: Follower) -> None:
        """A reader waits no more."""
        if reader in self.waiting:
            self.waiting.remove(reader)


class Hub:
    """All channels of this process. A channel lives while its stream is owned here or somebody reads it."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}

    def find(self, sid: str) -> Channel | None:
        """The channel, if there is one."""
        return self.channels.get(sid)

    def open(self, sid: str) -> Channel:
        """A fresh channel of a stream that begins here."""
        channel = self.channels[sid] = Channel(sid)
        return channel

    def join(self, page: Page) -> Channel:
        """The channel of a stream that somebody here wants to read."""
        channel = self.channels.get(page.record.sid)
        if channel is None:
            channel = self.channels[page.record.sid] = Channel.of(page)
        return channel

    def release(self, channel: Channel) -> None:
        """Forget a channel that nobody needs any more; called whenever a reader or the owner leaves."""
        if not channel.readers and channel.session is None and self.channels.get(channel.sid) is channel:
            del self.channels[channel.sid]

    def sessions(self) -> list[Owner]:
        """Everything that is owned here."""
        return [channel.session for channel in self.channels.values() if channel.session is not None]
