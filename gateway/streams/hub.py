"""The hub: what readers of this process share. One channel a stream: a ring of acknowledged entries and who waits.

A channel holds what a reader needs to decide whether it may go on (`limit`, `skip`, `ended`), folded from the log's own
control entries, so the decision is the same here as on any replica. Readers hold an index, never a queue; they are
woken once per entry, and a slow one slows nobody. A channel grows by its owner's acknowledged appends and by control
steps of this process; without an owner here the fleet lets it grow.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.events import Claim, End, Pause, Resume, State
from gateway.streams.fleet import Alone
from gateway.streams.journal import JournalRegressed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.core.events import ControlEvent
    from gateway.core.usage import Usage
    from gateway.streams.fleet import Fleet
    from gateway.streams.journal import Entry, JournalError, Page
    from gateway.streams.lifecycle import Record

RING_BYTES = 262_144
ENTRY_OVERHEAD = 200
"""What an entry costs in memory beside its data, bytes (CPython 3.11)."""


class Follower(Protocol):
    """A reader, as the hub and the housekeeper see it."""

    key_id: str | None
    sending: bool
    sent_at: float
    on_stuck: Callable[[], None] | None

    def published(self, entry: Entry) -> bool:
        """An entry can be served. Returns whether this reader goes on waiting."""
        ...

    def wake(self) -> None:
        """Look again."""
        ...

    def fail(self, error: JournalError) -> None:
        """The log cannot be followed any more: once all that is known was served, `error` is raised."""
        ...


class Owner(Protocol):
    """A session, as control and the housekeeper see it. `closed` is set once no upstream byte will be read any more."""

    sid: str
    record: Record
    closed: asyncio.Event
    end: End | None
    grace_until: float | None
    recoverable: bool

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

    def nudge(self) -> None:
        """Somebody changed the log, or may have: look at it."""
        ...

    def unsure(self, now: float) -> tuple[str, int] | None:
        """The stream and the gen that it had, if somebody may have moved it unnoticed."""
        ...

    def hand_over(self) -> bool:
        """Stop without an end: another replica claims the stream. False where it has to be ended here."""
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
        "_gen",
        "durable",
        "ended",
        "hold",
        "owner",
        "reader_peak",
        "readers",
        "reattaches",
        "renderers",
        "replayed_events",
        "request_bytes",
        "ring",
        "ring_bytes",
        "session",
        "sid",
        "skip",
        "stale",
        "tail",
        "waiting",
    )

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.ring: deque[Entry] = deque()
        self.ring_bytes = 0
        self.tail = self._gen = -1
        self.hold: int | None = None
        self.skip: tuple[int, int] | None = None
        self.owner = ""  # as far as it is known here; who owns it here is `session`
        self.ended = False
        self.stale = False  # what was served here is not in the log any more
        self.durable = True  # else its owner goes on without the journal, and nothing of the log belongs here any more
        self.session: Owner | None = None
        self.readers: set[Follower] = set()
        self.reader_peak = self.reattaches = self.replayed_events = 0
        self.request_bytes = 0  # of the request, which whoever owns the stream here holds
        self.renderers: dict[str, object] = {}
        self.waiting: list[Follower] = []

    @classmethod
    def of(cls, page: Page) -> Channel:
        """A channel of a stream that nobody followed here so far; its ring is empty."""
        channel = cls(page.record.sid)
        channel.tail, channel._gen = page.tail, page.record.gen
        channel.hold = page.record.pause_seq
        channel.skip = page.record.skip
        channel.owner = page.record.owner
        channel.ended = page.record.ended is not None
        return channel

    @property
    def limit(self) -> int:
        """The servable seq."""
        return self.tail if self.hold is None else self.hold

    @property
    def gen(self) -> int:
        """The generation of the last entry that is known here; before the first one, the record's."""
        return self.ring[-1].gen if self.ring else self._gen

    def offer(self, entry: Entry) -> bool:
        """Publish an entry if it is the next one; one that is known already is ignored. False if one before it lacks.

        For whoever may come before or after others with what it has: control steps, tail readers.
        """
        if entry.seq <= self.tail or not self.durable:
            return True
        if entry.first > self.tail + 1:
            return False
        self.publish(entry)
        if self.session is not None and entry.control is not None:
            self._tell(self.session, entry.control)
        return True

    @staticmethod
    def _tell(session: Owner, control: ControlEvent) -> None:
        """The owner does what somebody's control step says."""
        match control:
            case End():
                session.cancel(control)
            case Pause():
                session.paused()
            case Resume():
                session.resumed()
            case _:
                pass

    def fail(self, error: JournalError) -> None:
        """Those who read now get `error` once they were served what is known; who comes later may find more."""
        self.stale = self.stale or isinstance(error, JournalRegressed)
        if not self.ended:
            for reader in tuple(self.readers):
                reader.fail(error)

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
            case Claim(owner=owner):
                self.owner = owner
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
    """All channels of this process. A channel lives while its stream is owned here or somebody reads it.

    The `fleet` lets those grow that are read here and owned elsewhere.
    """

    def __init__(self, fleet: Fleet | None = None) -> None:
        self.channels: dict[str, Channel] = {}
        self.fleet: Fleet = fleet or Alone("")

    def find(self, sid: str) -> Channel | None:
        """The channel, if there is one."""
        return self.channels.get(sid)

    def open(self, sid: str) -> Channel:
        """The channel of a stream that begins here; somebody may have found its log, and joined, before its owner."""
        channel = self.channels.get(sid)
        if channel is None:
            channel = self.channels[sid] = Channel(sid)
        return channel

    def join(self, page: Page) -> Channel:
        """The channel of a stream that somebody here wants to read."""
        channel = self.channels.get(page.record.sid)
        if channel is None or (channel.stale and channel.session is None):
            channel = self.channels[page.record.sid] = Channel.of(page)
        if channel.session is None and not channel.ended:
            self.fleet.follow(channel)  # again, if it could not be followed for a while
        return channel

    def as_of(self, page: Page) -> Channel:
        """The channel that a reader joins; one for nobody else where what is known here is older than the page."""
        channel = self.join(page)
        is_older = channel.durable and channel.limit < page.record.servable(page.tail)
        return Channel.of(page) if is_older else channel

    @property
    def request_bytes(self) -> int:
        """Of the requests of all streams that are owned here."""
        return sum(channel.request_bytes for channel in self.channels.values() if channel.session is not None)

    def own(self, channel: Channel, session: Owner) -> None:
        """The stream is owned here from now on; its readers stay where they are."""
        channel.session = session
        self.fleet.leave(channel.sid)

    def disown(self, channel: Channel) -> None:
        """The owner leaves. If somebody reads on and the stream is not over, others let it grow."""
        channel.session = None
        self.release(channel)
        if not channel.ended and self.channels.get(channel.sid) is channel:
            self.fleet.follow(channel)

    def abandon(self, channel: Channel) -> None:
        """What this channel served is not in the log: who comes from now on gets another one."""
        if self.channels.get(channel.sid) is channel:
            del self.channels[channel.sid]

    def release(self, channel: Channel) -> None:
        """Forget a channel that nobody needs any more; called whenever a reader or the owner leaves."""
        if not channel.readers and channel.session is None and self.channels.get(channel.sid) is channel:
            del self.channels[channel.sid]
            self.fleet.leave(channel.sid)

    def sessions(self) -> list[Owner]:
        """Everything that is owned here."""
        return [channel.session for channel in self.channels.values() if channel.session is not None]
