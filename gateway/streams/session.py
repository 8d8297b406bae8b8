"""A session owns one stream: one task that pumps an event source into the log. HTTP requests only read the log.

It decides when to stop reading (pause bound, log bound), ends the stream exactly once, and closes its source in every
case. It does not know what the source is: a provider group, an agent run, a test.

Oddities, on purpose:
1. An append that is refused (fenced) is not an error: a control step moved the write right. Record and tail are read
   again in one atomic step, and the events are numbered anew if the record still names this session as owner. A journal
   may refuse late, when the task waits for an upstream that says nothing more: then a task of its own does that.
2. The end is appended while the source is still open: readers get it at once, closing the socket comes after.
3. One cancel only. `cancel` and `interrupt` after the first are no-ops.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.errors import Category, Failure, ProviderError
from gateway.core.events import TERMINAL, End, Event, State, UsageReport, encode
from gateway.core.ids import show_sid
from gateway.streams.journal import Appended, Entry, ExpiredStream, JournalError, UnknownStream
from gateway.streams.lifecycle import Op, Outcome, Step
from gateway.streams.stats import Stats
from gateway.streams.status import end_facts
from gateway.upstream.contract import pump

if TYPE_CHECKING:
    from gateway.core.usage import Usage
    from gateway.streams.ground import Ground
    from gateway.streams.hub import Channel
    from gateway.streams.lifecycle import Record
    from gateway.streams.source import Source
    from gateway.upstream.contract import Batch

log = logging.getLogger("atlas.streams")

LEAVE_DEADLINE_S = 5.0


class _Superseded(Exception):
    """The stream ended, or somebody else owns it: stop, append nothing."""


class Session:
    """The owner of one stream in this process."""

    __slots__ = (
        "_active_s", "_answered", "_appending", "_bytes", "_cancelled", "_cancelled_at", "_clock", "_gen", "_held",
        "_hub", "_journal", "_last_progress", "_last_read", "_last_tick", "_mending", "_monotonic", "_on_end",
        "_paused_at", "_pending", "_policy", "_refused", "_room", "_seq", "_shutting_down", "_spawn", "_stop",
        "_streaming", "_task", "_unacked", "channel", "closed", "end", "grace_until", "key", "record", "request_id",
        "sid", "source", "stats",
    )  # fmt: skip

    def __init__(self, record: Record, source: Source, channel: Channel, ground: Ground) -> None:
        hub, journal, policy, clock = ground.hub, ground.journal, ground.policy, ground.clock
        self.sid = record.sid
        self.record = record
        self.source = source
        self.channel = channel
        self.stats = Stats(clock.monotonic())
        self.closed = asyncio.Event()
        self.end: End | None = None
        self.grace_until: float | None = None
        self.request_id = ""
        self.key: str | None = None
        self._hub, self._journal, self._policy, self._clock = hub, journal, policy, clock
        self._on_end, self._spawn, self._monotonic = ground.on_end, ground.spawn, clock.monotonic
        self._gen, self._seq = record.gen, channel.tail
        self._pending: list[Event] = []
        self._unacked: Entry | None = None
        self._refused: Appended | None = None
        self._appending = False
        self._mending: asyncio.Task[None] | None = None
        self._bytes = self._held = 0
        self._room: asyncio.Event | None = None
        self._answered: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: ProviderError | None = None
        self._cancelled = self._shutting_down = False
        self._active_s = 0.0
        self._paused_at: float | None = None
        self._cancelled_at: float | None = None
        self._last_tick = clock.monotonic()
        self._last_read = self._last_progress = self._last_tick
        self._streaming = False

    async def run(self) -> None:
        """Pump the source until it ends, in whatever way. Never raises but for cancellation of the whole process."""
        self._task = asyncio.current_task()
        try:
            if self._shutting_down:  # it was told before this task began
                await self._end_after_cancel()
            elif not self._cancelled:
                await self._pump()
        except _Superseded:
            pass
        except asyncio.CancelledError:
            await self._end_after_cancel()
        except ProviderError as error:
            await self._end_safely(self._failed(error.failure))
        except Exception:
            log.exception("stream failed by a bug", extra={"stream": show_sid(self.sid)})
            await self._end_safely(self._failed(Failure(Category.INTERNAL, "internal error; see the gateway's log")))
        finally:
            await self._leave()

    async def _pump(self) -> None:
        self.stats.opened = self._monotonic()
        try:
            async with self.source.open() as batches:
                self._streaming = True
                self._last_read = self._last_progress = self._clock.monotonic()
                while await pump(batches, self._accept):
                    if await self._stalled():
                        return
                await self._finish(self._completed())
        except asyncio.CancelledError:
            if self._stop is None or self._task is None or self._task.uncancel() > 0:
                raise
            raise self._stop from None

    def _accept(self, batch: Batch) -> bool:
        """Append what one read gave. False when the loop must look at a refusal or a bound first."""
        self._last_read = now = self._monotonic()
        if not batch:
            return True
        self._last_progress = now
        self.stats.observe(batch, now)
        if self._unacked is None and not self._pending and self._refused is None:
            self._append(cast("list[Event]", batch))  # the usual case
        else:
            self._pending += batch
            self._flush()
        policy = self._policy
        return (
            self._refused is None
            and self._held < policy.pause_hold_bytes
            and self._bytes < policy.max_stream_bytes
            and self._seq < policy.max_stream_events
        )

    def _flush(self) -> None:
        """Send what is pending, unless an entry is unacknowledged: then it goes with the next one."""
        if self._unacked is None and self._pending and self._refused is None:
            events, self._pending = self._pending, []
            self._append(events)

    def _append(self, events: list[Event]) -> None:
        count = len(events)
        self._unacked = entry = Entry(self._gen, self._seq + count, count, encode(events), None, events)
        self._appending = True
        self._journal.append(self.sid, entry, self._settled)
        self._appending = False

    def _settled(self, outcome: Appended) -> None:
        entry, self._unacked = self._unacked, None
        if entry is None:
            return
        if outcome is Appended.ACKED:
            self._seq = entry.seq
            size = len(entry.data)
            self._bytes += size
            channel = self.channel
            self._held = 0 if channel.hold is None else self._held + size
            channel.publish(entry)
            entry.decoded = None  # readers that keep up have been served; others decode for themselves
            if self._pending:
                self._flush()
        else:
            self._refused = outcome
            self._pending = entry.events + self._pending
            if not self._appending and outcome is not Appended.FULL and self._mending is None:
                self._mending = self._spawn(self._mend())
        if self._answered is not None:
            self._answered.set()

    async def _acknowledged(self) -> None:
        """Until no append is under way: a journal may settle later than its `append` returns."""
        await self._mended()
        while self._unacked is not None:
            self._answered = asyncio.Event()
            await self._answered.wait()
            await self._mended()
        self._answered = None

    async def _mend(self) -> None:
        """Look at a refusal that came late, while the session's own task waits for its source."""
        try:
            await self._reconcile()
        except _Superseded:
            self.cancel()
        except JournalError as error:
            self.interrupt(Category.JOURNAL, f"the stream's log cannot be written on ({type(error).__name__})")
        finally:
            self._mending = None

    async def _mended(self) -> None:
        """Until no task of its own looks at a refusal."""
        while self._mending is not None:
            await asyncio.wait([self._mending])

    async def _stalled(self) -> bool:
        """Look at a refusal or a bound. True when the stream is over."""
        await self._mended()
        if self._refused is not None and self._refused is not Appended.FULL:
            await self._reconcile()
        if (
            self._refused is Appended.FULL
            or self._bytes >= self._policy.max_stream_bytes
            or self._seq >= self._policy.max_stream_events
        ):
            await self._finish(self._ended(State.INCOMPLETE, "limit"))
            return True
        if self.channel.hold is not None and self._held >= self._policy.pause_hold_bytes:
            await self._wait_for_resume()
        return False

    async def _wait_for_resume(self) -> None:
        self._room = asyncio.Event()
        try:
            while self.channel.hold is not None:
                await self._room.wait()
                self._room.clear()
        finally:
            self._room = None
            self._last_read = self._last_progress = self._clock.monotonic()

    async def _reconcile(self) -> None:
        """After a fence: adopt the log's gen and tail, if it is still ours, and append again."""
        try:
            page = await self._journal.read(self.sid, self._seq, 1)
        except (UnknownStream, ExpiredStream) as error:
            raise _Superseded from error
        if page.record.state in TERMINAL or page.record.owner != self.record.owner:
            raise _Superseded
        self._gen, self._seq, self._refused = page.record.gen, page.tail, None
        self._flush()

    async def _finish(self, end: End) -> None:
        """Append the end after everything else, once. A control step in between makes it try again."""
        while True:
            await self._acknowledged()
            if self._refused is not None and self._refused is not Appended.FULL:
                await self._reconcile()
                continue
            step = Step(
                op=Op.FINISH, op_id=f"finish:{self.record.owner}:{self._gen}", expect_gen=self._gen,
                expect_seq=self._seq, end=end,
            )  # fmt: skip
            answer, entries = await self._journal.step(self.sid, step)
            if answer.outcome is not Outcome.STALE:
                break
            self._refused = Appended.FENCED
        if answer.outcome is Outcome.CHANGED:
            self.end = end
        for entry in entries:
            self.channel.publish(entry)

    async def _end_safely(self, end: End) -> None:
        """End the stream, unless it has ended or is not ours any more."""
        if self.end is None:
            try:
                await self._finish(end)
            except (_Superseded, UnknownStream, ExpiredStream):
                pass
            except JournalError as error:  # the log stays open until it expires, or somebody else ends it
                shown = {"stream": show_sid(self.sid), "reason": end.reason}
                log.error("a stream's end could not be written: %s", type(error).__name__, extra=shown)  # noqa: TRY400

    async def _end_after_cancel(self) -> None:
        """The task was cancelled: by a control step, which has ended the stream, or with the whole process."""
        if not self._cancelled:
            await self._end_safely(self._failed(Failure(Category.INTERNAL, "the gateway is shutting down"), "shutdown"))

    def _completed(self) -> End:
        self.stats.completed()
        length = any(finish.reason == "length" for finish in self.stats.finishes)
        if self.stats.usage is None and self.stats.content_events:
            self._pending.append(UsageReport(self.stats.effective_usage()))
            self._flush()
        return self._ended(State.INCOMPLETE, "length") if length else self._ended(State.COMPLETED, None)

    def _failed(self, failure: Failure, reason: str | None = None) -> End:
        failure = msgspec.structs.replace(failure, attempts=tuple(self.source.attempts))
        return self._ended(State.FAILED, reason or str(failure.category), failure)

    def _ended(self, state: State, reason: str | None, failure: Failure | None = None) -> End:
        return End(state, reason, failure, *self.usage())

    async def _leave(self) -> None:
        """The source is closed: nothing further will be read, and everybody may know."""
        self.closed.set()
        if self._cancelled_at is not None:
            self.stats.cancel_to_close_s = self._monotonic() - self._cancelled_at
        task = cast("asyncio.Task[None]", asyncio.current_task())
        overdue = asyncio.get_running_loop().call_later(LEAVE_DEADLINE_S, task.cancel)  # cheaper than a timeout
        try:
            await self._on_end(self, self.end or End(State.FAILED, "superseded"))
        except (Exception, asyncio.CancelledError):
            log.exception("a stream was not settled", extra={"stream": show_sid(self.sid)})
        finally:
            overdue.cancel()
            self.channel.session = None
            self._hub.release(self.channel)

    def cancel(self, end: End | None = None) -> None:
        """Stop now: the log has its terminal entry already."""
        if self._is_over:
            return
        self._cancelled, self._cancelled_at = True, self._monotonic()
        self._count_pause()
        if end is not None:
            self.end = end
        if self._task is not None and self._stop is None:
            self._task.cancel()

    def shut_down(self) -> None:
        """The process ends: say so in the log."""
        if self._is_over:
            return
        self._shutting_down = True
        if self._task is not None:
            self._task.cancel()

    def interrupt(self, category: Category, message: str) -> None:
        """Fail a source that is overdue."""
        if self._stop is None and not self._is_over and self._task is not None:
            self._stop = ProviderError(category, message)
            self._task.cancel()

    @property
    def _is_over(self) -> bool:
        """Whether the source is closed, or about to be on somebody's word."""
        return self._cancelled or self.closed.is_set()

    def paused(self) -> None:
        """A pause was acknowledged."""
        self._paused_at = self._monotonic()
        self.stats.held_back()

    def resumed(self) -> None:
        """A resume was acknowledged: read on, if the pause bound had stopped the reading."""
        self._count_pause()
        self.stats.served_again()
        self._held = 0
        if self._room is not None:
            self._room.set()

    def _count_pause(self) -> None:
        if self._paused_at is not None:
            self.stats.paused_s += self._monotonic() - self._paused_at
            self._paused_at = None

    def orphaned(self, now: float) -> bool:
        """Whether the grace after a disconnect is over and nobody reads; true once."""
        if self.grace_until is None or now <= self.grace_until or self.channel.hold is not None:
            return False
        self.grace_until = None
        return not self.channel.readers and self.end is None

    @property
    def attempts(self) -> list[str]:
        """One line per upstream attempt so far."""
        return self.source.attempts

    def usage(self) -> tuple[Usage, int]:
        """Usage so far, and the number of legs."""
        return self.stats.effective_usage(), len(self.stats.legs)

    def facts(self) -> dict[str, Any]:
        """What only the owner knows, for the status object."""
        facts = self.stats.facts(self._clock.monotonic(), self.source.attempts, self.end)
        return facts if self.end is None else {**facts, **end_facts(self.end)}

    def tick(self, now: float) -> None:
        """Enforce what is due at monotonic time `now`; called a few times a second."""
        elapsed, self._last_tick = now - self._last_tick, now
        if self.channel.hold is None:
            self._active_s += elapsed
            if self.channel.readers:
                self.stats.served_again()
            else:
                self.stats.held_back()
        if self.end is not None:
            return
        timeouts = self.source.timeouts
        if self._active_s > timeouts.total_s:
            self.interrupt(Category.TIMEOUT_TOTAL, f"the stream took longer than {timeouts.total_s:g} s")
        elif not self._streaming or self._room is not None:
            return
        elif now - self._last_read > timeouts.idle_s:
            self.interrupt(Category.TIMEOUT_IDLE, f"no data from the provider for {timeouts.idle_s:g} s")
        elif now - self._last_progress > timeouts.progress_s:
            self.interrupt(Category.TIMEOUT_IDLE, f"no progress from the provider for {timeouts.progress_s:g} s")
