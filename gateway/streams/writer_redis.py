"""The writer: one task that appends the entries of all streams of this process, a pipeline at a time.

What piles up while a pipeline is under way goes into the next one: no timer, and the batch grows by itself under load.

The rules that keep logs whole (streams.md section 2; each has a test that fails without it):
1. At most one unanswered entry per stream: its session gives the next one after `settled`.
2. What was not answered is sent again: same id, same bytes, for `give_up_s`; then its outcome is UNKNOWN.
3. Only `ID ... equal or smaller` is a fence, and nil means that the log is gone; every other error says nothing. If an
   entry that was sent twice is refused, the log itself says whether it was the first copy that came in.
4. After a reconnect the log's tail is looked at before the stream's next append. What a failover lost is appended
   again under its old ids, if all of it is at hand and none of it is control; else the outcome is REGRESSED.

In a cluster each node has a writer, and what a node does not take goes to another one: `writers_redis`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.streams.journal import Appended, Entry
from gateway.streams.layout_redis import id_of, key_of_log
from gateway.upstream.link_redis import ELSEWHERE, PIPELINE, LinkDown
from gateway.upstream.resp import ErrorReply, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock
    from gateway.upstream.link_redis import Link, Wire

FENCE = "equal or smaller"
_RETRY_S = 0.02
_LEAST_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Bounds of one pipeline, how long an append is repeated, and how much of a log is at hand for a repair.

    `touch_s` is how often the time to live of a live log is renewed.
    """

    max_events: int = 512
    max_bytes: int = 262_144
    give_up_s: float = 5.0
    ring_bytes: int = 262_144
    touch_s: float = 30.0


class _Stream:
    """What the writer knows of a log that it appends to."""

    __slots__ = ("epoch", "head", "ring", "ring_bytes", "touched")

    def __init__(self, sid: str, epoch: int) -> None:
        key = key_of_log(sid).encode()
        self.head = b"*6\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$10\r\nNOMKSTREAM\r\n" % (len(key), key)
        self.epoch = epoch
        self.ring: deque[Entry] = deque()
        self.ring_bytes = 0
        self.touched = float("-inf")

    def append_of(self, entry: Entry) -> bytes:
        """The command that appends `entry`."""
        name = b"%d-%d" % (entry.gen, entry.seq)
        return b"%b$%d\r\n%b\r\n$1\r\nd\r\n$%d\r\n%b\r\n" % (self.head, len(name), name, len(entry.data), entry.data)

    def keep(self, entry: Entry, most: int) -> None:
        """Remember what was acknowledged, up to a bound."""
        self.ring.append(entry)
        self.ring_bytes += len(entry.data)
        while self.ring_bytes > most and len(self.ring) > 1:
            self.ring_bytes -= len(self.ring.popleft().data)

    def lost_behind(self, seq: int, first: int) -> list[Entry] | None:
        """The entries that hold the events between `seq` and `first`, both exclusive; None if one is not at hand."""
        lost = [entry for entry in self.ring if entry.seq > seq and entry.seq < first]
        wanted = seq + 1
        for entry in lost:
            if entry.first != wanted:
                return None
            wanted = entry.seq + 1
        return lost if wanted == first else None


class _Append:
    """One entry on its way. `sent` counts how often; `settled` is None once its outcome was told."""

    __slots__ = ("begun", "entry", "sent", "settled", "sid", "stream")

    def __init__(
        self, sid: str, stream: _Stream, entry: Entry, settled: Callable[[Appended], None], begun: float
    ) -> None:
        self.sid, self.stream, self.entry, self.begun = sid, stream, entry, begun
        self.settled: Callable[[Appended], None] | None = settled
        self.sent = 0


class Writer:
    """Appends of one Redis node. `touch(sid)` is the command that renews a live stream's time to live.

    `on_grown(sids)` is told, behind each pipeline, whose logs it made longer.
    """

    def __init__(
        self,
        link: Link,
        clock: Clock,
        touch: Callable[[str], bytes],
        batching: Batching | None = None,
        on_grown: Callable[[list[str]], None] = lambda _sids: None,
    ) -> None:
        self._link, self._touch, self._on_grown = link, touch, on_grown
        self._grown: list[str] = []
        self._batching = batching or Batching()
        self._monotonic = clock.monotonic
        self._streams: dict[str, _Stream] = {}
        self._queue: deque[_Append] = deque()
        self._flight: list[_Append] = []
        self._wake = asyncio.Event()
        self._wire: Wire | None = None
        self._epoch = 0
        self._is_retired = False

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        """Append as soon as may be; `settled` is called once, later."""
        stream = self._streams.get(sid)
        if stream is None:
            stream = self._streams[sid] = _Stream(sid, self._epoch_at_first())
        self._queue.append(_Append(sid, stream, entry, settled, self._monotonic()))
        self._wake.set()

    def forget(self, sid: str) -> None:
        """This stream ended, or is no more."""
        self._streams.pop(sid, None)

    def sweep(self, quiet_s: float) -> None:
        """Forget streams that were not written for so long."""
        oldest, busy = self._monotonic() - quiet_s, self.busy()
        for sid in [sid for sid, stream in self._streams.items() if stream.touched < oldest and sid not in busy]:
            del self._streams[sid]

    def busy(self) -> set[str]:
        """Streams with an append that is not settled."""
        return {append.sid for append in (*self._queue, *self._flight)}

    # What is other in a cluster.

    def _epoch_at_first(self) -> int:
        """Epoch 0 is nobody's: after a reconnect the tail of a log that was not written here before is looked at."""
        return 1 if self._epoch <= 1 else 0

    def _next_epoch(self) -> int:
        return self._epoch + 1

    def _moved(self, why: str) -> None:
        """There is another master now."""
        raise LinkDown(why)

    def _lost(self) -> None:
        """The server did not answer: all is sent again."""

    async def run(self) -> None:
        """Send and settle, until cancelled; what is on its way then is never settled."""
        try:
            while self._flight or self._queue or not self._is_retired:
                if not self._flight:
                    await self._wake.wait()
                self._fill()
                if not self._flight:
                    continue
                try:
                    await self._deliver(self._wire or await self._connect())
                except (LinkDown, TimeoutError):
                    self._link.observer.on_error("append")
                    self._drop()
                    self._lost()
                self._give_up()
                if self._flight and self._wire is not None:
                    await asyncio.sleep(_RETRY_S)
        finally:
            self._drop()

    async def _connect(self) -> Wire:
        async with asyncio.timeout(self._left(self._link.timing.connect_s)):
            self._wire = wire = await self._link.connect()
        self._epoch = self._next_epoch()
        return wire

    def _left(self, most_s: float) -> float:
        """How long to wait: not beyond the moment when the oldest append is given up."""
        if not self._flight:
            return most_s
        due = self._flight[0].begun + self._batching.give_up_s - self._monotonic()
        return min(most_s, max(due, _LEAST_S))

    def _fill(self) -> None:
        """Behind what was not answered comes what piled up, up to the bounds."""
        flight, queue, bounds = self._flight, self._queue, self._batching
        events = sum([append.entry.count for append in flight])
        size = sum([len(append.entry.data) for append in flight])
        while queue and events < bounds.max_events and size < bounds.max_bytes:
            append = queue.popleft()
            flight.append(append)
            events += append.entry.count
            size += len(append.entry.data)
        if not queue:
            self._wake.clear()

    async def _deliver(self, wire: Wire) -> None:
        """One pipeline: settle what is answered, keep what is not.

        Raises:
            LinkDown: the connection is of no use any more.
            TimeoutError: likewise, no answer in time.
        """
        begun, events = self._flight[0].begun, sum([append.entry.count for append in self._flight])
        now = self._monotonic()
        try:
            async with asyncio.timeout(self._left(self._link.timing.reply_s)):
                if any(append.stream.epoch != self._epoch for append in self._flight):
                    await self._look_at_tails(wire)
                await self._touch_due(wire)
                refused = await self._send(wire)
                if refused:
                    await self._look_for_twins(wire, refused)
        finally:
            self._flight = [append for append in self._flight if append.settled is not None]
            if self._grown:
                grown, self._grown = self._grown, []
                self._on_grown(grown)
        done = self._monotonic()
        self._link.observer.on_latency("append", done - now)
        self._link.observer.on_batch(events, done - begun)

    async def _send(self, wire: Wire) -> list[_Append]:
        """Send all in slices; returns those that were refused and may have come in before."""
        flight = [append for append in self._flight if append.settled is not None]
        slices = [flight[at : at + PIPELINE] for at in range(0, len(flight), PIPELINE)]
        for part in slices:
            for append in part:
                append.sent += 1
            wire.write(b"".join([append.stream.append_of(append.entry) for append in part]))
        refused: list[_Append] = []
        errors: list[ErrorReply] = []
        for number, part in enumerate(slices):
            if number:
                await asyncio.sleep(0)  # readers are served between slices
            for append, reply in zip(part, await wire.replies(len(part)), strict=True):
                if type(reply) is bytes:
                    self._acknowledge(append)
                elif reply is None:
                    self._streams.pop(append.sid, None)
                    self._settle(append, Appended.MISSING)
                elif FENCE not in reply.text:
                    errors.append(reply)
                elif append.sent > 1:
                    refused.append(append)
                else:
                    self._settle(append, Appended.FENCED)
        self._look_at_errors(errors)
        return refused

    def _look_at_errors(self, errors: list[ErrorReply]) -> None:
        """What was answered with them is sent again, unless it belongs to another server."""
        if errors:
            self._link.observer.on_error("append")
        elsewhere = [error.text for error in errors if error.code in ELSEWHERE]
        if elsewhere:
            self._moved(elsewhere[0])

    def _acknowledge(self, append: _Append) -> None:
        append.stream.keep(append.entry, self._batching.ring_bytes)
        self._grown.append(append.sid)
        self._settle(append, Appended.ACKED)

    @staticmethod
    def _settle(append: _Append, outcome: Appended) -> None:
        settled, append.settled = append.settled, None
        if settled is not None:
            settled(outcome)

    async def _look_for_twins(self, wire: Wire, refused: list[_Append]) -> None:
        """An entry that was sent twice was refused: somebody else's id is greater, or it is its own first copy's."""
        names = [b"%d-%d" % (append.entry.gen, append.entry.seq) for append in refused]
        asked = [
            command("XRANGE", key_of_log(append.sid), name, name)
            for append, name in zip(refused, names, strict=True)
        ]  # fmt: skip
        wire.write(b"".join(asked))
        for append, found in zip(refused, await wire.replies(len(asked)), strict=True):
            if isinstance(found, ErrorReply):
                continue  # asked again with the next pipeline
            if found and found[0][1] == [b"d", append.entry.data]:
                self._acknowledge(append)
            else:
                self._settle(append, Appended.FENCED)

    async def _touch_due(self, wire: Wire) -> None:
        now = self._monotonic()
        due = [append for append in self._flight if now - append.stream.touched >= self._batching.touch_s]
        if due:
            wire.write(b"".join([self._touch(append.sid) for append in due]))
            for append, reply in zip(due, await wire.replies(len(due)), strict=True):
                if not isinstance(reply, ErrorReply):
                    append.stream.touched = now

    async def _look_at_tails(self, wire: Wire) -> None:
        """The first append of a stream on a new connection: does the log still hold what was acknowledged?"""
        unseen = [append for append in self._flight if append.stream.epoch != self._epoch]
        wire.write(b"".join([command("XREVRANGE", key_of_log(append.sid), "+", "-", "COUNT", 1) for append in unseen]))
        for append, tail in zip(unseen, await wire.replies(len(unseen)), strict=True):
            if isinstance(tail, ErrorReply):
                raise LinkDown(tail.text)
            if not tail or await self._repaired(wire, append, id_of(tail[0][0])):
                append.stream.epoch = self._epoch
            else:
                self._streams.pop(append.sid, None)
                self._settle(append, Appended.REGRESSED)

    async def _repaired(self, wire: Wire, append: _Append, tail: tuple[int, int]) -> bool:
        """Whether the log reaches up to this entry, perhaps because what it had lost was appended again."""
        entry = append.entry
        if tail >= (entry.gen, entry.seq) or tail[1] == entry.first - 1:
            return True  # Redis will say what becomes of it
        lost = append.stream.lost_behind(tail[1], entry.first)
        if not lost:
            return False
        wire.write(b"".join([append.stream.append_of(entry) for entry in lost]))
        replies = await wire.replies(len(lost))
        for reply in replies:
            if isinstance(reply, ErrorReply) and FENCE not in reply.text:
                raise LinkDown(reply.text)  # which says nothing of the log
        return all(type(reply) is bytes for reply in replies)

    def _give_up(self) -> None:
        """Say of what was repeated for too long that nobody knows."""
        if not self._flight:
            return
        oldest = self._monotonic() - self._batching.give_up_s
        for append in (*self._flight, *self._queue):
            if append.begun < oldest:
                self._streams.pop(append.sid, None)
                self._settle(append, Appended.UNKNOWN)
        self._flight = [append for append in self._flight if append.settled is not None]
        self._queue = deque([append for append in self._queue if append.settled is not None])

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
