"""The writing end of one log: what a session reads becomes entries, one unanswered append at a time.

The rules that keep logs whole (streams.md section 2; each has a test that fails without it):
1. The next entry is made when the last one was answered. What comes meanwhile goes with it.
2. A refusal is no error: a control step moved the write right. Record and log are then read in one atomic step, what
   the channel lacks is published, and gen and tail are adopted only if that very snapshot names this owner.
3. While somebody looks nothing is appended, and nobody looks twice at once. So what is read is never under way too.
4. Behind an append that nobody answered nothing is appended, ever.
5. The end is appended when all before it was acknowledged, under the gen and tail that are known; else look first.

`accept`, `_append` and `_settled` run for every read of an upstream: what is rare is a call away.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.core.events import TERMINAL, encode
from gateway.streams.journal import (
    Appended,
    Entry,
    ExpiredStream,
    JournalError,
    JournalGap,
    JournalLost,
    JournalRegressed,
    JournalUnavailable,
    UnknownStream,
)
from gateway.streams.lifecycle import Op, Outcome, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.events import End, Event
    from gateway.streams.ground import Ground
    from gateway.streams.hub import Channel
    from gateway.streams.journal import Page
    from gateway.streams.lifecycle import Record
    from gateway.streams.stats import Stats
    from gateway.upstream.contract import Batch

LOOK_BYTES = 65_536
WEIGHED_FIRST = 64
"""Events that wait for an acknowledgement before anybody asks how many bytes they are."""
ANSWER_DEADLINE_S = 8.0
QUIET_S = 1.0
"""An owner that appended nothing for so long has not noticed what others did to its log."""


class Superseded(Exception):
    """Somebody else owns the stream: stop, append nothing, write nothing about it."""


class EndedElsewhere(Superseded):
    """The stream has ended by somebody else's word; it is still this owner's to say what it cost."""


class Appender:
    """Appends for one owner. `gen` and `seq` are those of the log's last entry as far as they are known here.

    `stop(error)` is called when nothing can be appended any more: `Superseded` or a `JournalError`. Whoever waits in
    `acknowledged` gets the error raised.
    """

    __slots__ = (
        "_again", "_answered", "_appending", "_channel", "_is_full", "_journal", "_look", "_monotonic", "_owner",
        "_pending", "_policy", "_sealed", "_send", "_sent_at", "_shared", "_spawn", "_stats", "_stepping", "_stop",
        "_unacked", "_unanswered", "_weigh_at", "_weight", "awaited", "bytes", "error", "gen", "held", "lag_s",
        "last_progress", "last_read", "refused", "seq", "sid",
    )  # fmt: skip

    def __init__(
        self, record: Record, channel: Channel, ground: Ground, stats: Stats, stop: Callable[[Exception], None]
    ) -> None:
        self.sid, self._owner, self.gen, self.seq = record.sid, record.owner, record.gen, channel.tail
        self._channel, self._stats, self._stop = channel, stats, stop
        self._journal, self._policy, self._spawn = ground.journal, ground.policy, ground.spawn
        self._send: Callable[[str, Entry, Callable[[Appended], None]], None] = ground.journal.append
        self._monotonic, self._shared = ground.clock.monotonic, ground.unacked
        self._pending: list[Event] = []
        self._unacked: Entry | None = None
        self._unanswered: Entry | None = None
        self.refused: Appended | None = None
        self.error: Exception | None = None
        self._answered: asyncio.Event | None = None
        self._look: asyncio.Task[None] | None = None
        self._again = self._appending = self._stepping = self._sealed = self._is_full = self.awaited = False
        self.bytes = self.held = self._weight = 0
        self._weigh_at = WEIGHED_FIRST
        self.last_read = self.last_progress = self._sent_at = self._monotonic()
        self.lag_s: float | None = None

    # What happens for every read.

    def accept(self, batch: Batch) -> bool:
        """Append what one read gave. False when the session must see to something before it reads on: `is_blocked`."""
        self.last_read = now = self._monotonic()
        if not batch:
            return True
        self.last_progress = now
        self._stats.observe(batch, now)
        if self._unacked is None and not self._pending and self.refused is None:
            self._sent_at = now
            self._append(batch)  # the usual case
        else:
            self._pending += batch
            self._flush()
            if len(self._pending) >= self._weigh_at and self._is_too_heavy():
                return False
        policy = self._policy
        return (
            self.refused is None
            and self.held < policy.pause_hold_bytes
            and self.bytes < policy.max_stream_bytes
            and self.seq < policy.max_stream_events
        )

    def _flush(self) -> None:
        """Send what is pending, unless an entry is unacknowledged: then it goes with the next one."""
        if self._unacked is None and self._pending and self.refused is None:
            events, self._pending = self._pending, []
            if self._weight:
                self._unweigh()
            self._append(events)

    def _append(self, events: list[Any]) -> None:
        count = len(events)
        self._unacked = entry = Entry(self.gen, self.seq + count, count, encode(events), None, events)
        self._appending = True
        self._send(self.sid, entry, self._settled)
        self._appending = False

    def _settled(self, outcome: Appended) -> None:
        entry, self._unacked = self._unacked, None
        if entry is None:
            return
        if outcome is Appended.ACKED:
            self.seq = entry.seq
            size = len(entry.data)
            self.bytes += size
            channel = self._channel
            self.held = 0 if channel.hold is None else self.held + size
            channel.publish(entry)
            entry.decoded = None  # readers that keep up have been served; others decode for themselves
            if not self._appending:
                self._sent_at, sent_at = self._monotonic(), self._sent_at
                self.lag_s = self._sent_at - sent_at
            if self._pending:
                self._flush()
        else:
            self._not_appended(entry, outcome)
        if self._answered is not None:
            self._answered.set()
            self._answered = None

    # What waits for an acknowledgement is bounded.

    def _is_too_heavy(self) -> bool:
        """Whether what waits has reached a bound. It is measured seldom enough to cost nothing."""
        policy, shared, count = self._policy, self._shared, len(self._pending)
        size = len(encode(self._pending))
        shared.bytes += size - self._weight
        self._weight = size
        self._weigh_at = count + max(1, int(count * min(1.0, policy.unacked_bytes / size - 1)))
        self._is_full = size >= policy.unacked_bytes or shared.bytes >= policy.unacked_total_bytes
        return self._is_full

    def _unweigh(self) -> None:
        self._shared.bytes -= self._weight
        self._weight, self._weigh_at, self._is_full = 0, WEIGHED_FIRST, False

    @property
    def is_blocked(self) -> bool:
        """Whether `acknowledged` must be waited for before anything more is read."""
        return self._is_full or (self.refused is not None and self.refused is not Appended.FULL)

    # What changed the log meanwhile.

    def _not_appended(self, entry: Entry, outcome: Appended) -> None:
        """An append was refused, or nobody knows."""
        if self._sealed:
            return
        self.refused = outcome
        if outcome is Appended.UNKNOWN:
            self._unanswered = entry
            self._fail(JournalUnavailable("no answer in time"))
            return
        self._pending = entry.events + self._pending
        if outcome is Appended.FENCED:
            self.nudge()
        elif outcome is Appended.MISSING:
            self._fail(JournalLost("its log is gone"))
        elif outcome is Appended.REGRESSED:
            self._fail(JournalRegressed("it is shorter than what was acknowledged"))

    def nudge(self) -> None:
        """Somebody changed the log, or may have: look at it once no append is unanswered; append nothing meanwhile."""
        if self._sealed or not self._channel.durable or self.error is not None:
            return
        self._again = True
        if self.refused is None:
            self.refused = Appended.FENCED
        if self._look is None and not self._stepping:
            self._look = self._spawn(self._looking())

    async def _looking(self) -> None:
        """A task of its own, because the session's waits for its upstream."""
        try:
            while self._again:
                self._again = False
                await self._until_answered()
                if self.error is not None:
                    return
                await self._catch_up()
            if self.refused is Appended.FENCED:
                self.refused = None
        except (Superseded, JournalError) as error:
            self._fail(error)
        finally:
            self._look = None
        self._sent_at = self._monotonic()
        self._flush()

    async def _catch_up(self) -> None:
        """Publish what the log has and the channel lacks; adopt gen and tail if the stream is still this owner's.

        Raises:
            Superseded: it is not, or it has ended.
            JournalRegressed: the log is shorter than what was acknowledged, or holds something else in its place.
            JournalError: it cannot be read.
        """
        page = await self._read(self.seq - 1)
        if page.tail < self.seq or (page.entries and page.entries[0].gen > self.gen):
            msg = f"its tail is {page.tail}, {self.seq} was acknowledged, and is not there"
            raise JournalRegressed(msg)
        while True:
            for entry in page.entries:
                if not self._channel.offer(entry):
                    msg = f"seq {self._channel.tail + 1} is missing"
                    raise JournalGap(msg)
            if not page.entries or page.entries[-1].seq >= page.tail:
                break
            page = await self._read(page.entries[-1].seq)
        if page.record.owner != self._owner:
            raise Superseded
        if page.record.state in TERMINAL:
            raise EndedElsewhere
        self.gen, self.seq = page.record.gen, page.tail

    async def _read(self, after: int) -> Page:
        try:
            return await self._journal.read(self.sid, after, LOOK_BYTES)
        except (UnknownStream, ExpiredStream) as error:
            msg = "its log is gone"
            raise JournalLost(msg) from error

    def _fail(self, error: Exception) -> None:
        """Nothing is appended any more."""
        self.error = error
        if not self._sealed:
            self._stop(error)

    async def _until_answered(self) -> None:
        while self._unacked is not None:
            if self._answered is None:
                self._answered = asyncio.Event()
            try:
                async with asyncio.timeout(ANSWER_DEADLINE_S):
                    await self._answered.wait()
            except TimeoutError:  # journals answer earlier; one that was stopped does not
                self._settled(Appended.UNKNOWN)

    async def acknowledged(self) -> None:
        """Until no append is unanswered and all that changed was looked at.

        Raises:
            Superseded: somebody else ended the stream, or owns it.
            JournalError: nothing can be appended any more.
        """
        self.awaited = True
        try:
            while self._look is not None or self._unacked is not None:
                if self._look is not None:
                    await asyncio.wait([self._look])
                else:
                    await self._until_answered()
        finally:
            self.awaited = False
        if self.error is not None:
            raise self.error

    # Ends.

    def add(self, event: Event) -> None:
        """Append one event that no read gave."""
        self._pending.append(event)
        self._flush()

    async def finish(self, end: End) -> bool:
        """Append the end behind everything else, once; returns whether it is this one that stands.

        Raises:
            Superseded: somebody else ended the stream, or owns it.
            JournalError: the end cannot be written now.
        """
        while True:
            await self.acknowledged()
            if not self._channel.durable:
                self.show(end)
                return True
            outcome, entries = await self._step(end)
            if outcome is not Outcome.STALE:
                break
            self.nudge()
        for entry in entries:
            if entry.first == self._channel.tail + 1:
                self._channel.publish(entry)
        if outcome is not Outcome.CHANGED:
            await self._catch_up()
        return outcome is Outcome.CHANGED

    async def _step(self, end: End) -> tuple[Outcome, list[Entry]]:
        step = Step(
            op=Op.FINISH, op_id=f"finish:{self._owner}", expect_gen=self.gen, expect_seq=self.seq, end=end
        )  # fmt: skip
        self._stepping = True
        try:
            answer, entries = await self._journal.step(self.sid, step)
        except (UnknownStream, ExpiredStream) as error:
            msg = "its log is gone"
            raise JournalLost(msg) from error
        finally:
            self._stepping = False
        return answer.outcome, entries

    async def finish_late(self, end: End) -> None:
        """End a log whose last append nobody answered: publish what came in after all, append nothing but the end.

        Raises:
            Superseded: somebody else ended the stream, or owns it.
            JournalError: not now.
        """
        self.drop_pending()
        self.error = self._unanswered = self._unacked = None
        self.nudge()
        await self.finish(end)

    def show(self, end: End) -> None:
        """Let readers here have an end that is in no log."""
        self._channel.publish(Entry.of_control(self.gen, self.seq + 1, end))

    def drop_pending(self) -> None:
        """What was read and not appended never will be."""
        self._pending = []
        self._unweigh()

    def close(self) -> None:
        """The session leaves: nothing is appended, nobody looks."""
        self.drop_pending()
        if self._look is not None:
            self._look.cancel()

    def seal(self) -> None:
        """The last word was said: answers that come now change nothing."""
        self._sealed = True
        del self._stop  # its owner and it would keep one another, and all that was read, in memory
        self.close()

    # Without a journal.

    @property
    def is_unanswered(self) -> bool:
        """Whether nobody knows what became of the last append."""
        return self._unanswered is not None

    def silence(self, now: float) -> tuple[float, float]:
        """Seconds since the source was last read and since it last said something; none where it is not read."""
        return (0.0, 0.0) if self.is_blocked else (now - self.last_read, now - self.last_progress)

    def is_quiet(self, now: float) -> bool:
        """Whether nothing was appended lately, and nothing is under way that would tell of somebody's control."""
        return now - self.last_progress >= QUIET_S and self._look is None and self._unacked is None

    def go_on_undurably(self) -> None:
        """Publish without appending, from the entry on that nobody answered. There is no way back."""
        self._channel.durable = False
        self._send = _take
        self.error = self.refused = None
        self._unacked, self._unanswered = self._unanswered, None
        if self._unacked is None:
            self._flush()
        else:
            self._settled(Appended.ACKED)


def _take(_sid: str, _entry: Entry, settled: Callable[[Appended], None]) -> None:
    settled(Appended.ACKED)
