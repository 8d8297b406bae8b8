"""Events -> the bytes of Anthropic's messages, streamed and whole. Pure: no clock, no randomness.

What comes out is decided in `anthropic_compose`; here it becomes frames or one message. The same log gives the same
bytes, live or replayed, on every replica. State is an immutable value that changes rarely, so that readers at the same
place can share what was rendered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.events import (
    BEGUN_ANEW,
    RESTART,
    End,
    Event,
    Extra,
    Finish,
    Leg,
    Reasoning,
    Refusal,
    Start,
    State,
    Text,
    ToolCall,
    UsageReport,
)
from gateway.dialects.anthropic_compose import Composer, Progress, plain_delta
from gateway.dialects.anthropic_errors import failure_body, stream_cancelled
from gateway.dialects.anthropic_merge import Message

if TYPE_CHECKING:
    from gateway.core.errors import Failure

PING = b'event: ping\ndata: {"type": "ping"}\n\n'

_RENDERED = (Text, Reasoning, Refusal, ToolCall, Finish, Extra, UsageReport)
_encode = msgspec.json.encode


class StreamRenderer:
    """Renders one stream from its entry 0 on; see `streams.reader` for how it is fed."""

    initial = Progress()

    def __init__(self, start: Start) -> None:
        self._composer = Composer(start)
        self._finish_on_cancel = start.flags.get("on_cancel") == "finish"
        self._frames: dict[tuple[int, type[Event] | None], tuple[bytes, bytes]] = {}
        self._framed: Progress | None = None
        self._before = self._after = b""

    def render(self, progress: Progress, events: list[Event], gen: int, first_seq: int) -> tuple[Progress, bytes]:
        """The bytes of consecutive events that come after `progress`, and the progress after them."""
        del gen, first_seq  # the wire has no ids
        if progress.void:
            return progress, b""
        out: list[bytes] = []
        chunk: list[Event] = []
        for event in events:
            said = None if chunk or type(event) is not progress.takes else _said(progress, event)
            if said:  # the usual case: a chunk of nothing but a delta of the open block
                if progress is not self._framed:
                    self._reframe(progress)
                out += self._before, _encode(said), self._after
            elif isinstance(event, End):
                out.append(self._end(progress, event))
            elif isinstance(event, _RENDERED):
                chunk.append(event)
                if not event.more:
                    progress, bodies = self._composer.chunk(progress, tuple(chunk))
                    out += map(frame, bodies)
                    chunk.clear()
            elif type(event) is Leg and event.strategy == RESTART:
                if progress.started:
                    return Progress(void=True), b"".join((*out, self.broken(BEGUN_ANEW)))
                progress = Progress()
        return progress, b"".join(out)

    def broken(self, failure: Failure) -> bytes:
        """The in-band error of one response whose log cannot be read on."""
        return frame(failure_body(failure))

    def heartbeat(self, progress: Progress) -> bytes | None:
        """Anthropic's own, once the message began; before it only comments."""
        return PING if progress.begun else None

    def _reframe(self, progress: Progress) -> None:
        """What stands around the text of a delta of the open block; built once for each block."""
        wanted = (progress.index, progress.takes)
        if wanted not in self._frames:
            marker = "\x00text"
            before, _, after = frame(plain_delta(progress, marker)).partition(_encode(marker))
            self._frames[wanted] = (before, after)
        (self._before, self._after), self._framed = self._frames[wanted], progress

    def _end(self, progress: Progress, end: End) -> bytes:
        """The terminal of every kind of end; an error is never followed by `message_stop`."""
        match end.state:
            case State.COMPLETED | State.INCOMPLETE:
                return self._success(progress, end)
            case State.CANCELLED if self._finish_on_cancel:
                return self._success(progress, end)
            case State.CANCELLED:
                return frame(stream_cancelled(end.reason))
            case _:
                return frame(failure_body(end.failure))

    def _success(self, progress: Progress, end: End) -> bytes:
        return b"".join(map(frame, self._composer.close(progress, end)))


class Collector:
    """The same events as one `message` object, for `stream: false`."""

    def __init__(self, start: Start) -> None:
        self._composer, self._message = Composer(start), Message()
        self._progress = Progress()
        self._chunk: list[Event] = []

    def add(self, events: list[Event]) -> None:
        """Take further events in."""
        for event in events:
            if type(event) is Leg and event.strategy == RESTART:
                self._message, self._progress = Message(), Progress()
            elif isinstance(event, _RENDERED):
                self._chunk.append(event)
                if not event.more:
                    self._progress, bodies = self._composer.chunk(self._progress, tuple(self._chunk))
                    self._fold(bodies)
                    self._chunk.clear()

    def body(self, end: End) -> bytes:
        """The answer, for an end that is a success."""
        self._fold(self._composer.close(self._progress, end))
        return _encode(self._message.whole())

    def _fold(self, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            self._message.add(body)


def _said(progress: Progress, event: Any) -> str | None:
    """The text of a plain delta of the open block, which is of the event's type; None for everything else."""
    if event.more or event.choice:
        return None
    if type(event) is not ToolCall:
        text: str = event.text
        return text
    is_fragment = event.name is None and progress.open is not None and event.index == progress.open.call
    return event.arguments if is_fragment else None


def frame(body: dict[str, Any]) -> bytes:
    """An event object as a frame; the name of the event is its type."""
    name = "".join(str(body.get("type")).split())
    return b"event: %b\ndata: %b\n\n" % (name.encode("utf-8", "replace"), _encode(body))
