"""A session owns one stream: one task that pumps an event source into the log. HTTP requests only read the log.

It decides when to stop reading (pause bound, log bound, what waits for the journal), ends the stream exactly once, and
closes its source in every case. How entries get into the log is the appender's. It does not know what the source is: a
provider group, an agent run, a test.

Oddities, on purpose:
1. The end is appended while the source is still open: readers get it at once, closing the socket comes after.
2. One cancel only. `cancel` and `interrupt` after the first are no-ops.
3. When the journal is away, the source is closed and readers are told; the session stays until its record is ended.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.errors import Category, Failure, ProviderError
from gateway.core.events import End, State, UsageReport
from gateway.core.ids import show_sid
from gateway.streams.appender import Appender, EndedElsewhere, Superseded
from gateway.streams.journal import HandedOver, JournalError, JournalRegressed, JournalUnavailable
from gateway.streams.outstanding import Outstanding, billed, end_later, settle
from gateway.streams.source import beat, go_on, hold, hurry, lateness, overdue, quiet, read_on, selection, stopped_by
from gateway.streams.stats import Stats
from gateway.upstream.contract import pump

if TYPE_CHECKING:
    from gateway.core.usage import Usage
    from gateway.streams.ground import Ground
    from gateway.streams.hub import Channel
    from gateway.streams.lifecycle import Record
    from gateway.streams.source import Source

log = logging.getLogger("atlas.streams")


class Session:
    """The owner of one stream in this process. A channel that is not at the log's tail is brought there first."""

    __slots__ = (
        "_active_s", "_appender", "_cancelled", "_cancelled_at", "_differs", "_ending", "_ground", "_is_foreign",
        "_last_tick", "_left", "_monotonic", "_on_end", "_owed", "_paused_at", "_room", "_shutting_down", "_stop",
        "_streaming", "_task", "_wanted", "channel", "closed", "end", "grace_until", "key", "record", "recoverable",
        "request_id", "sid", "source", "stats",
    )  # fmt: skip

    def __init__(
        self, record: Record, source: Source, channel: Channel, ground: Ground, stats: Stats | None = None
    ) -> None:
        clock = ground.clock
        self.sid, self.record, self.source, self.channel = record.sid, record, source, channel
        self.stats = stats or Stats(clock.monotonic())
        self.closed = asyncio.Event()
        self.end: End | None = None
        self.grace_until: float | None = None
        self.request_id = ""
        self.key: str | None = None
        self.recoverable = False  # whether another replica has what it needs to go on with the stream
        self._ground, self._on_end, self._monotonic = ground, ground.on_end, clock.monotonic
        self._appender = Appender(record, channel, ground, self.stats, self._cannot_append)
        self._room: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: Exception | None = None
        self._ending: asyncio.Task[None] | None = None
        self._cancelled = self._shutting_down = self._is_foreign = self._differs = False
        self._streaming = False
        self._left: Outstanding | None = None
        self._wanted: End | None = None
        self._owed: End | None = None
        self._active_s = 0.0
        self._paused_at: float | None = None
        self._cancelled_at: float | None = None
        self._last_tick = clock.monotonic()

    async def run(self) -> None:
        """Pump the source until it ends, in whatever way. Never raises but for cancellation of the whole process."""
        self._task = asyncio.current_task()
        try:
            await self._run()
        except Superseded as error:
            self._is_foreign = not isinstance(error, EndedElsewhere)
        except asyncio.CancelledError:
            await self._end_after_cancel()
        except HandedOver as error:
            await self._hand_over(error)
        except JournalError as error:
            self._give_up(error)
        except ProviderError as error:
            await self._end_safely(self._failed(error.failure))
        except Exception:
            log.exception("stream failed by a bug", extra={"stream": show_sid(self.sid)})
            await self._end_safely(self._failed(Failure(Category.INTERNAL, "internal error; see the gateway's log")))
        finally:
            await self._leave()

    async def _run(self) -> None:
        if self._shutting_down:  # it was told before this task began
            await self._end_after_cancel()
        elif not self._cancelled:
            if self.channel.gen != self.record.gen:  # claimed: there may be more in the log than is known here
                self._appender.nudge()
                await self._appender.acknowledged()
            await self._pump()

    async def _pump(self) -> None:
        appender = self._appender
        self.stats.opened = self._monotonic()
        try:
            async with self.source.open() as batches:
                self._streaming = True
                appender.last_read = appender.last_progress = self._monotonic()
                while await pump(batches, appender.accept):
                    if await self._stalled():
                        return
                await self._finish(self._completed())
        except asyncio.CancelledError:
            if self._stop is None or self._task is None or self._task.uncancel() > 0:
                raise
            raise self._stop from None

    async def _stalled(self) -> bool:
        """Look at a refusal or a bound. True when the stream is over."""
        appender, policy = self._appender, self._ground.policy
        if appender.is_blocked:
            await appender.acknowledged()
            appender.last_read = appender.last_progress = self._monotonic()
        if (
            appender.refused is not None  # the journal is full: everything else was looked at
            or appender.bytes >= policy.max_stream_bytes
            or appender.seq >= policy.max_stream_events
        ):
            await self._finish(self._ended(State.INCOMPLETE, "limit"))
            return True
        if self.channel.hold is not None and appender.held >= policy.pause_hold_bytes:
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
            self._appender.last_read = self._appender.last_progress = self._monotonic()

    async def _finish(self, end: End) -> None:
        """Append the end after everything else, once."""
        self._wanted = end
        if await self._appender.finish(end):
            self.end = end

    async def _end_safely(self, end: End) -> None:
        """End the stream, unless it has ended or is not ours any more."""
        if self.end is None:
            try:
                await self._finish(end)
            except Superseded as error:
                self._is_foreign = not isinstance(error, EndedElsewhere)
            except JournalError as error:
                self._give_up(error)

    async def _end_after_cancel(self) -> None:
        """The task was cancelled: by a control step, which has ended the stream, or with the whole process."""
        self._uncancel()
        if not self._cancelled:
            await self._end_safely(self._failed(Failure(Category.SHUTDOWN, "the gateway is shutting down"), "shutdown"))

    def _give_up(self, error: JournalError) -> None:
        """The log cannot be written on. If everything else is in it, only the end is owed; else it was a failure."""
        self.channel.fail(error)
        failed = self._failed(error.failure, "journal_unavailable" if type(error) is JournalUnavailable else None)
        whole = self._wanted is not None and self._appender.error is None
        self.end = self._wanted if whole else failed
        self._owed = self.end
        if isinstance(error, JournalRegressed):
            self._differs = True
            self._ground.hub.abandon(self.channel)
        log.error("a log could not be written on: %s", type(error).__name__, extra={"stream": show_sid(self.sid)})

    async def _hand_over(self, error: HandedOver) -> None:
        """The source is closed: what is under way comes in, nothing more, and no end."""
        self._appender.drop_pending()
        try:
            await self._appender.acknowledged()
        except (Superseded, JournalError) as late:
            self._is_foreign = isinstance(late, Superseded)
        self.channel.fail(error)

    def _completed(self) -> End:
        stopped = stopped_by(self.source)
        if stopped is None:
            self.stats.completed()
        length = any(finish.reason == "length" for finish in self.stats.finishes)
        if (self.stats.usage is None or stopped is not None) and self.stats.content_events:
            self._appender.add(UsageReport(self.stats.shown_usage()))
        if stopped is not None:
            return self._ended(State.INCOMPLETE, stopped)
        return self._ended(State.INCOMPLETE, "length") if length else self._ended(State.COMPLETED, None)

    def _failed(self, failure: Failure, reason: str | None = None) -> End:
        failure = msgspec.structs.replace(failure, attempts=tuple(self.source.attempts))
        return self._ended(State.FAILED, reason or str(failure.category), failure)

    def _ended(self, state: State, reason: str | None, failure: Failure | None = None) -> End:
        return End(state, reason, failure, *self.usage())

    def _uncancel(self) -> None:
        """What the task was cancelled for is done; or deadlines of what it awaits from here on were taken for it."""
        while self._task is not None and self._task.uncancel():
            pass

    async def _leave(self) -> None:
        """The source is closed: nothing further will be read, and everybody may know."""
        self._uncancel()
        self.closed.set()
        self._appender.close()
        if self._ending is not None:
            self._ending.cancel()
        if self._cancelled_at is not None:
            self.stats.cancel_to_close_s = self._monotonic() - self._cancelled_at
        try:
            handed_over = self.end is None and isinstance(self._stop, HandedOver)
            end = self.end or End(State.FAILED, "handed_over" if handed_over else "superseded")
            facts = await billed(self._on_end(self, end))
            if facts is not None and not self._is_foreign:
                await self._write_down(facts, None if handed_over else end)
        except (Exception, asyncio.CancelledError):
            log.exception("a stream was not settled", extra={"stream": show_sid(self.sid)})
        finally:
            self._appender.seal()
            self._ground.hub.disown(self.channel)

    async def _write_down(self, facts: dict[str, Any], end: End | None) -> None:
        """What the record lacks, once the journal can be reached. A key is freed if nobody got anything, or stayed."""
        nothing = end is not None and end.state is State.FAILED and self.stats.first_content is None
        is_free = end is not None and (nothing or end.reason == "disconnect")
        self._left = left = Outstanding(
            record=self.record,
            facts=facts,
            closed_by=None if end is None else self.record.owner,
            end=self._owed,
            unseen=self._differs or not self.channel.durable,
            key=self.key if is_free else None,
        )
        if self._shutting_down:
            left.hurried.set()
        await settle(left, self._ground, self._appender)

    def cancel(self, end: End | None = None) -> None:
        """Stop now: the log has its terminal entry already."""
        if self._is_over:
            return
        self._cancelled, self._cancelled_at = True, self._monotonic()
        self._count_pause()
        self._ground.on_control(self.sid, "cancel", None if end is None else end.reason)
        if end is not None:
            self.end = end
            if not self.channel.durable:
                self._appender.show(end)
        if self._task is not None and self._stop is None:
            read_on(self.source)
            self._task.cancel()

    def nudge(self) -> None:
        """Somebody changed the log, or may have: look at it."""
        if not self._is_over:
            self._appender.nudge()

    def shut_down(self) -> None:
        """The process ends: say so in the log."""
        self._shutting_down = True
        if self._left is not None:
            self._left.hurried.set()
        if self._is_over:
            hurry(self.source)
        elif self._task is not None and self._wanted is None:
            self._task.cancel()

    def hand_over(self) -> bool:
        """Stop without an end: another replica claims the stream. False where it has to be ended here.

        What was read and is not in the log yet is dropped; readers here are reset once `closed` is set.
        """
        if self._is_over or self._wanted or self.end or not self.channel.durable or self._task is None:
            return False
        self.interrupt_by(HandedOver("this replica shuts down"))
        return True

    def interrupt(self, category: Category, message: str) -> None:
        """Fail a source that is overdue."""
        self.interrupt_by(ProviderError(category, message))

    def interrupt_by(self, error: Exception) -> None:
        """Close the source and go on as if it had raised `error`; an end that is on its way is not given up for it."""
        if self._stop is None and self._wanted is None and not self._is_over and self._task is not None:
            self._stop = error
            self._task.cancel()

    def _cannot_append(self, error: Exception) -> None:
        """The appender's word: nothing can be appended any more."""
        may_degrade = self._ground.policy.degrade and self._appender.is_unanswered and not self._is_over
        if may_degrade and self.channel.readers and self.channel.hold is None:
            self.go_on_undurably()
            return
        if isinstance(error, JournalError):
            self.channel.fail(error)
        if not self._appender.awaited:
            self.interrupt_by(error)

    def go_on_undurably(self) -> None:
        """Serve who reads here without the journal; the log ends where it is."""
        failure = JournalUnavailable("served on without it").failure
        self._owed = self._failed(failure, "journal_unavailable")
        self._appender.go_on_undurably()
        self._ending = self._ground.spawn(end_later(self.record, self._owed, self._ground))

    @property
    def _is_over(self) -> bool:
        """Whether the source is closed, or about to be on somebody's word."""
        return self._cancelled or self.closed.is_set()

    def paused(self) -> None:
        """A pause was acknowledged."""
        self._paused_at = self._monotonic()
        self.stats.held_back()
        hold(self.source)
        self._ground.on_control(self.sid, "pause", None)

    def resumed(self) -> None:
        """A resume was acknowledged: read on, if the pause bound had stopped the reading."""
        self._count_pause()
        self.stats.served_again()
        go_on(self.source)
        self._ground.on_control(self.sid, "resume", None)
        self._appender.held = 0
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
        is_read = bool(self.channel.readers) or self._ground.hub.fleet.is_read_elsewhere(self.sid)
        return not is_read and self.end is None

    def unsure(self, now: float) -> tuple[str, int] | None:
        """The stream and the gen that it had, if somebody may have moved it unnoticed."""
        if self._is_over or self.end is not None or not self.channel.durable or not self._appender.is_quiet(now):
            return None
        return self.sid, self._appender.gen

    @property
    def attempts(self) -> list[str]:
        """One line per upstream attempt so far."""
        return self.source.attempts

    def usage(self) -> tuple[Usage, int]:
        """Usage so far, and the number of legs."""
        return self.stats.effective_usage(), len(self.stats.legs)

    def facts(self) -> dict[str, Any]:
        """What only the owner knows, for the status object."""
        facts = self.stats.facts(self._monotonic(), self.source.attempts, self.end)
        lag_s = self._appender.lag_s
        facts["selection"] = selection(self.source)
        facts["metrics"]["journal_lag_ms"] = None if lag_s is None else round(1000 * lag_s, 3)
        return facts

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
        beat(self.source, now)
        if not self.channel.durable and not self.channel.readers:
            self.cancel(self._ended(State.CANCELLED, "disconnect"))
        silence = self._appender.silence(now) if self._streaming and self._room is None else (0.0, 0.0)
        quiet(self.source, silence[0])
        self.stats.silent(silence[0])
        late = lateness(self.source.timeouts, self._active_s, *silence)
        if late is not None and (late[0] is Category.TIMEOUT_TOTAL or not overdue(self.source, *late)):
            self.interrupt(*late)
