"""Events of Anthropic's messages -> events of the log. Sans-IO.

Oddities, on purpose:
1. Plain deltas are decoded by their exact type: a delta with a member that the type does not have, or for another block
   than the open one, takes the long way. Anthropic pads its payloads with blanks of changing number, so that the bytes
   around a text differ from delta to delta: a template of bytes would miss, and costs as much as the typed decoder.
2. What is no plain delta is kept whole, as an `Extra` with the source event; the canonical events behind it, in the
   same chunk, say the same for other dialects. An empty plain delta is kept so too, but is no part of the answer.
3. A tool call whose arguments never came as fragments has them from its block's `input`, when the block ends: `{}` for
   a tool without parameters, where other dialects expect JSON too.
4. Usage is cumulative: the counts of later events overwrite, null and absent ones do not (as Anthropic's SDK has it).
5. Events that clients could not place are malformed: a delta without its block, a block after the stop reason, anything
   before `message_start`.
6. Only `message_stop` ends an answer. A stop reason before a clean end of the body is not enough: usage and stop
   details may be missing.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import msgspec

from gateway.core.events import (
    Extra,
    Finish,
    FinishReason,
    Reasoning,
    SourceEvent,
    Text,
    ToolCall,
    UsageReport,
    encode,
)
from gateway.core.usage import Usage
from gateway.providers._reading import InStreamError, Malformed, Skipping

DIALECT = "anthropic_messages"
MAX_INDEX = 65_535
THINKING = "thinking"

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "pause_turn",
}


class _Exact(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """An object with these members and no others."""


class _TextDelta(_Exact, tag="text_delta"):
    said: str = msgspec.field(name="text")


class _ThinkingDelta(_Exact, tag="thinking_delta"):
    said: str = msgspec.field(name="thinking")


class _InputDelta(_Exact, tag="input_json_delta"):
    said: str = msgspec.field(name="partial_json")


class _PlainDelta(_Exact, tag="content_block_delta"):
    index: int
    delta: _TextDelta | _ThinkingDelta | _InputDelta


class _Block(msgspec.Struct):
    """A content block that began: `call` is the number of its tool call, `input` what it began with."""

    kind: str
    call: int = -1
    input: Any = None
    has_fragments: bool = False


# What a plain delta of each kind of block is.
_DELTAS: dict[str, tuple[str, str, type[Any]]] = {
    "text": ("text_delta", "text", _TextDelta),
    "thinking": ("thinking_delta", "thinking", _ThinkingDelta),
    "tool_use": ("input_json_delta", "partial_json", _InputDelta),
}

_UNKNOWN = ("unknown", "", _Exact)

_decode = msgspec.json.Decoder().decode
_decode_plain = msgspec.json.Decoder(_PlainDelta).decode
_NOWHERE = _Block("")


class EventDecoder(Skipping):
    """One stream's events. `done` after `message_stop`."""

    _plain: ClassVar[Any] = staticmethod(_decode_plain)

    def __init__(self) -> None:
        super().__init__()
        self._begun = self._finished = False
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._usage: dict[str, Any] | None = None
        self._index, self._block = -1, _NOWHERE
        self._takes: type[Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether the body may end here: only after `message_stop`."""
        return self.done

    def _take_plain(self, payloads: list[bytes], at: int, events: list[SourceEvent]) -> int:
        """Deltas of the open block that say nothing but its text."""
        takes = self._takes
        if takes is None:
            return at
        for payload in payloads[at:] if at else payloads:
            try:
                event = self._plain(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                break
            delta = event.delta
            if type(delta) is not takes or event.index != self._index or not delta.said:
                break
            self._in_a_row = 0
            events.append(_canonical(self._block, delta.said))
            at += 1
        return at

    def _enter(self, index: int, block: _Block) -> None:
        """The block began last: its plain deltas take the short way, because clients need not be told its index."""
        self._index, self._block = index, block
        self._takes = _DELTAS[block.kind][2] if block.kind in _DELTAS else None

    def _leave(self) -> None:
        self._index, self._block, self._takes = -1, _NOWHERE, None

    def _feed_slowly(self, payload: bytes, events: list[SourceEvent]) -> None:
        try:
            event = _decode(payload)
            encode([Extra(DIALECT, event)])  # what cannot be logged, as numbers beyond 64 bits, is malformed
            found = self._event(event)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, Malformed) as error:
            self._skip(payload, events, error)
            return
        self._in_a_row = 0
        events += [msgspec.structs.replace(event, more=True) for event in found[:-1]]
        events += found[-1:]

    def _event(self, event: Any) -> list[SourceEvent]:
        """The events of one parsed payload."""
        if not isinstance(event, dict):
            msg = f"an event is an object, got {type(event).__name__}"
            raise Malformed(msg)
        members = cast("dict[str, Any]", event)
        kind = members.get("type")
        if kind == "error" or (kind is None and members.get("error")):
            raise InStreamError(members.get("error") or members)
        if not isinstance(kind, str):
            msg = "an event has a type"
            raise Malformed(msg)
        if kind == "ping":
            return []
        if not self._begun and kind != "message_start":
            msg = f"{kind} before message_start"
            raise Malformed(msg)
        if kind == "message_stop":
            is_amid_call = any(block.call >= 0 for block in self._blocks.values())
            self.done = self._finished or not is_amid_call  # proxies end so what broke
            return []
        handler = _HANDLERS.get(kind)
        return [Extra(DIALECT, members, 0)] if handler is None else handler(self, members)

    def _message_start(self, event: dict[str, Any]) -> list[SourceEvent]:
        message = event.get("message")
        if self._begun or not isinstance(message, dict):
            msg = "an answer has one message_start, with its message"
            raise Malformed(msg)
        self._begun = True
        return [Extra(DIALECT, event, 0), *self._usage_report(cast("dict[str, Any]", message).get("usage"))]

    def _block_start(self, event: dict[str, Any]) -> list[SourceEvent]:
        index, content = event.get("index"), event.get("content_block")
        if type(index) is not int or not 0 <= index <= MAX_INDEX or not isinstance(content, dict) or self._finished:
            msg = "a block has an index and content, and begins before the stop reason"
            raise Malformed(msg)
        members = cast("dict[str, Any]", content)
        kind = members.get("type")
        if not isinstance(kind, str):
            msg = "a content block has a type"
            raise Malformed(msg)
        said, block = self._first(kind, members)
        self._blocks[index] = block
        self._enter(index, block)
        plain = kind in {"text", "thinking"}
        return [Extra(DIALECT, event, 0, content=bool(said) or not plain), *said]

    def _first(self, kind: str, members: dict[str, Any]) -> tuple[list[SourceEvent], _Block]:
        """What a block says by beginning."""
        if kind == "tool_use":
            call_id, name = members.get("id"), members.get("name")
            if not isinstance(call_id, str) or not isinstance(name, str) or not name:
                msg = "a tool call has an id and a name"
                raise Malformed(msg)
            block = _Block(kind, self._calls, members.get("input"))
            self._calls += 1
            return [ToolCall(0, block.call, "", call_id, name)], block
        text = members.get(kind) if kind in {"text", "thinking"} else None
        if not isinstance(text, str) or not text:
            return [], _Block(kind)
        return [Text(0, text) if kind == "text" else Reasoning(0, text, THINKING)], _Block(kind)

    def _block_delta(self, event: dict[str, Any]) -> list[SourceEvent]:
        index, delta = event.get("index"), event.get("delta")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or not isinstance(delta, dict):
            msg = "a delta has an object for a block that began"
            raise Malformed(msg)
        members = cast("dict[str, Any]", delta)
        kind, member, _ = _DELTAS.get(block.kind, _UNKNOWN)
        said = members.get(member) if members.get("type") == kind else ""
        if not isinstance(said, str):
            msg = f"{member} is text"
            raise Malformed(msg)
        extra = Extra(DIALECT, event, 0, content=members != {"type": kind, member: ""})
        return [extra, _canonical(block, said)] if said else [extra]

    def _block_stop(self, event: dict[str, Any]) -> list[SourceEvent]:
        index = event.get("index")
        block = self._blocks.pop(index, None) if type(index) is int else None
        if block is None:
            msg = "a block ends that did not begin"
            raise Malformed(msg)
        if index == self._index:
            self._leave()
        stop = Extra(DIALECT, event, 0)
        if block.call < 0 or block.has_fragments:
            return [stop]
        arguments = msgspec.json.encode(block.input or {}).decode()
        return [stop, ToolCall(0, block.call, arguments)]

    def _message_delta(self, event: dict[str, Any]) -> list[SourceEvent]:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            msg = "message_delta has a delta"
            raise Malformed(msg)
        found: list[SourceEvent] = [Extra(DIALECT, event, 0), *self._usage_report(event.get("usage"))]
        reason = cast("dict[str, Any]", delta).get("stop_reason")
        if isinstance(reason, str) and reason and not self._finished:
            self._finished = True
            self._blocks.clear()
            self._leave()
            canonical = _REASONS.get(reason, "stop")
            found.append(Finish(0, canonical, None if canonical == reason else reason))
        return found

    def _usage_report(self, usage: Any) -> list[SourceEvent]:
        if not isinstance(usage, dict):
            return []
        known = self._usage
        news = cast("dict[str, Any]", usage)
        if known is not None:
            news = {**known, **{name: value for name, value in news.items() if value is not None}}
            if news == known:
                return []
        self._usage = news
        return [UsageReport(read_usage(news), DIALECT, news)]


_HANDLERS: dict[str, Any] = {
    "message_start": EventDecoder._message_start,  # noqa: SLF001  a table of the class's own methods
    "content_block_start": EventDecoder._block_start,  # noqa: SLF001
    "content_block_delta": EventDecoder._block_delta,  # noqa: SLF001
    "content_block_stop": EventDecoder._block_stop,  # noqa: SLF001
    "message_delta": EventDecoder._message_delta,  # noqa: SLF001
}


def _canonical(block: _Block, said: str) -> SourceEvent:
    """The event of what a delta of a block says."""
    if block.kind == "text":
        return Text(0, said)
    if block.kind == THINKING:
        return Reasoning(0, said, THINKING)
    block.has_fragments = True
    return ToolCall(0, block.call, said)


def read_usage(usage: dict[str, Any]) -> Usage:
    """Anthropic's usage object in canonical names; its `input_tokens` leave out what a cache read or wrote."""
    cached, created = _count(usage.get("cache_read_input_tokens")), _count(usage.get("cache_creation_input_tokens"))
    details = usage.get("output_tokens_details")
    thought = cast("dict[str, Any]", details).get("thinking_tokens") if isinstance(details, dict) else None
    return Usage(
        input_tokens=(_count(usage.get("input_tokens")) or 0) + (cached or 0) + (created or 0),
        output_tokens=_count(usage.get("output_tokens")) or 0,
        cached_tokens=cached,
        cache_creation_tokens=created,
        reasoning_tokens=_count(thought),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
