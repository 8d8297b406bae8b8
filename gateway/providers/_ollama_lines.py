"""Lines of Ollama's chat stream -> events. Sans-IO.

Each line is one JSON object; `done` marks the last one, which alone has the counts (docs.ollama.com/api/chat, and
`ChatResponse` in the server's api/types.go). Members that nobody asked for (durations, context) say nothing of the
answer and end here: there is no client dialect of this wire.

Oddities, on purpose:
1. Tool calls arrive whole. Arguments are an object, whose JSON is passed on as it stands in the line: no number is
   rounded, no member moved. Older servers give a call no id: one is made of the line's own bytes, so that the same
   stream gives the same ids and two turns of a conversation do not share one.
2. `prompt_eval_count` includes what came from the cache (`prompt_eval_cached_count`). A count of zero is left out.
3. A line of `/api/generate` has its text in `response`: hosts that answer with it are understood.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from gateway.core.events import Finish, FinishReason, Reasoning, SourceEvent, Text, ToolCall, UsageReport
from gateway.core.usage import Usage
from gateway.providers._reading import InStreamError, Malformed, Skipping

WIRE_NAME = "ollama"

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_LARGEST = 2**53


class _Function(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct):
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: Any = None
    prompt_eval_cached_count: Any = None
    eval_count: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_text = msgspec.json.Decoder(str).decode


class OllamaDecoder(Skipping):
    """One stream's lines. `done` after the line that says so: nothing else may end the body."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._ids: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether the body may end here."""
        return self.done

    def _feed_slowly(self, payload: bytes, events: list[SourceEvent]) -> None:
        try:
            line = _decode(payload)
            found = self._said(line, payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Malformed) as error:
            self._skip(payload, events, error)
            return
        self._in_a_row = 0
        if line.done:
            self.done = True
            found += self._end(line)
        if len(found) > 1:
            found = [*(msgspec.structs.replace(event, more=True) for event in found[:-1]), found[-1]]
        events += found

    def _said(self, line: _Line, payload: bytes) -> list[SourceEvent]:
        """The content of one line."""
        if line.error:
            raise InStreamError(line.error)
        message = line.message
        if message is None:
            if line.response is None and line.thinking is None and not line.done:
                msg = "a line without message, error or end"
                raise Malformed(msg)
            message = _Message(content=line.response, thinking=line.thinking)
        found: list[SourceEvent] = []
        if message.thinking:
            found.append(Reasoning(0, message.thinking, "thinking"))
        if message.content:
            found.append(Text(0, message.content))
        if message.tool_calls:
            found += self._called(message.tool_calls, payload)
        return found

    def _called(self, calls: list[_Call], payload: bytes) -> list[SourceEvent]:
        """The tool calls of a line; nothing is remembered unless all of them can be read."""
        read = [(call, _arguments(call.function.arguments)) for call in calls]
        found: list[SourceEvent] = []
        for call, arguments in read:
            call_id = call.id
            if not call_id or call_id in self._ids:
                call_id = f"call_{zlib.crc32(payload):08x}_{self._calls}"
            self._ids.add(call_id)
            found.append(ToolCall(0, self._calls, arguments, call_id, call.function.name))
            self._calls += 1
        return found

    def _end(self, line: _Line) -> list[SourceEvent]:
        """Usage and finish."""
        source = line.done_reason
        reason = _REASONS.get(source or "stop", "stop")
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        found: list[SourceEvent] = []
        usage = read_usage(line)
        if usage is not None:
            found.append(UsageReport(usage, WIRE_NAME))
        found.append(Finish(0, reason, source if source and source not in _REASONS else None))
        return found


def read_usage(line: _Line) -> Usage | None:
    """The counts in canonical names; None if the server gave none, so that they are estimated."""
    prompt, output = _count(line.prompt_eval_count), _count(line.eval_count)
    if prompt is None and output is None:
        return None
    return Usage(
        input_tokens=prompt or 0, output_tokens=output or 0, cached_tokens=_count(line.prompt_eval_cached_count)
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _LARGEST else None


def _arguments(raw: msgspec.Raw) -> str:
    """The object's JSON; compatible hosts also send it as text, or null."""
    said = bytes(raw).decode()
    if said.startswith('"'):
        return _decode_text(said) or "{}"
    return "{}" if said == "null" else said
