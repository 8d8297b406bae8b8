"""Delivering a stream: log entries -> rendered bytes -> one client, with heartbeats and a bound on a slow one.

The status line waits for the first rendered byte, an end, or `status_wait_s`: whatever fails before it is a plain HTTP
error. After it the body ends with the dialect's terminal, or the connection is reset; it never just ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sse_starlette import ServerSentEvent

from gateway.core.events import End, State
from gateway.streams.journal import HandedOver, JournalError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.api.exchange import Exchange, Headers
    from gateway.core.clock import Clock
    from gateway.core.events import Event
    from gateway.dialects.catalog import Renderer
    from gateway.streams.journal import Entry
    from gateway.streams.reader import Reader, Served

SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
HEARTBEAT = ServerSentEvent(comment="keep-alive", sep="\n").encode()
PLAIN_ENDS = frozenset({State.FAILED, State.CANCELLED})
"""Ends that are plain HTTP errors if nothing was sent before them."""


class Shared:
    """A renderer for all readers of a stream: those at the same place get the same bytes, rendered once.

    `alone` is the renderer's own function, for a reader that shares with nobody.
    """

    __slots__ = ("_after", "_before", "_data", "_entry", "alone", "broken", "heartbeat", "initial")

    def __init__(self, renderer: Renderer) -> None:
        self.alone = renderer.render
        self._entry: Entry | None = None
        self._before: Any = None
        self._after: Any = None
        self._data = b""
        self.initial, self.broken, self.heartbeat = renderer.initial, renderer.broken, renderer.heartbeat

    def render(self, progress: Any, entry: Entry, first: int, events: list[Event]) -> tuple[Any, bytes]:
        """The bytes of what is served of an entry, and the progress after them."""
        if entry is self._entry and progress is self._before and len(events) == entry.count:
            return self._after, self._data
        after, data = self.alone(progress, events, entry.gen, first)
        if len(events) == entry.count:
            self._entry, self._before, self._after, self._data = entry, progress, after, data
        return after, data


def shared(reader: Reader, format_: str, make: Callable[[], Renderer]) -> Shared:
    """The renderer of the reader's stream in this format."""
    found = reader.renderers.get(format_)
    if not isinstance(found, Shared):
        reader.renderers[format_] = found = Shared(make())
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds: between heartbeats, and before the status line goes out in any case."""

    heartbeat_s: float = 10.0
    status_wait_s: float = 10.0


class Delivery:
    """One reader's way to one client. `gone` once it hung up, `dropped` once it was reset for not reading."""

    __slots__ = (
        "_began", "_exchange", "_monotonic", "_pace", "_plain", "_progress", "_reader", "_renderer", "_scope", "_skip",
        "_unsent", "_write_now", "dropped", "gone",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, reader: Reader, renderer: Shared, clock: Clock, pace: Pace) -> None:
        self._exchange, self._reader, self._renderer = exchange, reader, renderer
        self._monotonic, self._pace = clock.monotonic, pace
        self._write_now, self._scope = exchange.write_now, exchange.scope
        self._progress = renderer.initial
        self._began = False
        self._plain = PLAIN_ENDS
        self._skip = 0
        self._unsent = b""
        self.gone = self.dropped = False
        reader.on_stuck = self._drop

    async def run(
        self,
        head: Callable[[], Headers],
        tasks: asyncio.TaskGroup,
        *,
        eager: bool = False,
        plain_ends: frozenset[State] = PLAIN_ENDS,
        skip_frames: int = 0,
    ) -> End | None:
        """Deliver everything up to the terminal.

        Args:
            head: gives headers of the answer beside those of every event stream, once they are needed.
            tasks: owns the task that watches for the client's hanging up.
            eager: send the status line at once.
            plain_ends: ends that are returned, not rendered, when they come before anything was sent.
            skip_frames: data frames that the client has already.

        Returns:
            One of `plain_ends` that came before anything was sent: to be answered as plain HTTP.
        """
        self._plain, self._skip = plain_ends, skip_frames
        with self._exchange.watched(self._hung_up, tasks):
            try:
                if eager:
                    self._began = True
                    await self._exchange.start(200, [*SSE_HEADERS, *head()])
                return await self._deliver(head)
            except JournalError as error:
                await self._break_off(head, error)
                return None

    async def _deliver(self, head: Callable[[], Headers]) -> End | None:
        """Send what can be served; then wait, while `_push` sends what is published."""
        reader, started = self._reader, self._monotonic()
        reader.sent_at = started
        while not self.gone:
            served = reader.take() or (await reader.page() if reader.behind else [])
            if not served and not reader.done and not self._unsent:
                if not await self._quiet(head, started):  # nothing was waited for, so nothing can have been missed
                    await reader.wait(self._push if self._began and not self._skip else None)
                continue
            data, end = self._render(served)
            if end is not None:
                return end
            data, self._unsent = self._unsent + data, b""
            done = reader.done
            if data or done:
                await self._send(head, data, more=not done)
                if done:
                    return None
        return None

    def _push(self, entry: Entry, shared: bool) -> bool:
        """Send an entry from where it is published: no task has to wake for it. False where the client is slow."""
        first, events = entry.seq - entry.count + 1, entry.events
        if shared:
            self._progress, data = self._renderer.render(self._progress, entry, first, events)
        else:
            self._progress, data = self._renderer.alone(self._progress, events, entry.gen, first)
        if data and not self._write_now(self._scope, data):
            self._unsent = data
            return False
        self._reader.sent_at = self._monotonic()
        return True

    def _render(self, served: list[Served]) -> tuple[bytes, End | None]:
        """The bytes of what is served; or an end before anything else that is answered as plain HTTP."""
        parts: list[bytes] = []
        for entry, first, events in served:
            control = entry.control
            if isinstance(control, End) and not self._began and control.state in self._plain and not any(parts):
                return b"", control
            self._progress, data = self._renderer.render(self._progress, entry, first, events)
            parts.append(data)
        data = b"".join(parts)
        return (self._skipped(data) if self._skip else data), None

    def _skipped(self, data: bytes) -> bytes:
        """Without the frames that the client has already."""
        while self._skip and data:
            _, _, data = data.partition(b"\n\n")
            self._skip -= 1
        return data

    async def _send(self, head: Callable[[], Headers], data: bytes, *, more: bool = True) -> None:
        reader = self._reader
        reader.sent_at = self._monotonic()
        reader.sending = True
        if self._began:
            await self._exchange.write(data, more=more)
        else:
            self._began = True
            await self._exchange.begin(200, [*SSE_HEADERS, *head()], data, more=more)
        reader.sending = False

    async def _quiet(self, head: Callable[[], Headers], started: float) -> bool:
        """Nothing came within a beat: send a status line that is due, or a heartbeat that is. Returns whether."""
        now = self._monotonic()
        if self._began:
            due = now - self._reader.sent_at >= self._pace.heartbeat_s
        else:
            due = now - started >= self._pace.status_wait_s
        if due:
            await self._send(head, self._renderer.heartbeat(self._progress) or HEARTBEAT)
        return due

    def _hung_up(self) -> None:
        """The client's hanging up ends the delivery."""
        self.gone = True
        self._reader.wake()

    def _drop(self) -> None:
        """The client does not read: it may come back by its cursor."""
        self.dropped = True
        self._exchange.abort()

    async def _break_off(self, head: Callable[[], Headers], error: JournalError) -> None:
        """The log cannot be read on: say so, and never let the body look whole."""
        failure = error.failure
        if not self._began:
            await self._exchange.fail(failure, head())
        elif isinstance(error, HandedOver):
            self._exchange.abort()
        elif (frame := self._renderer.broken(failure)) is not None:
            await self._exchange.write(self._unsent + frame, more=False)
        else:
            self._exchange.abort()
