"""Events of the log -> the event objects of Anthropic's messages. Pure; `anthropic_messages_render` writes them.

Oddities, on purpose:
1. A chunk that holds a source event of this dialect is that event: the canonical events beside it say the same for
   others. Only the message's id and model are the stream's own.
2. Nothing comes out before the first content, so that everything that fails before it stays invisible.
3. Blocks follow each other, as Anthropic's own do. Tool calls of other vendors may be interleaved: a piece of a later
   block waits until the arguments of the open call are a whole JSON object, or the answer is over. What comes for a
   call after its object was whole could only make it invalid, and is left out.
4. The stop reason comes with the end: other vendors tell their usage after it.
5. An answer holds no images here: those of other vendors are told of in a line of text (`images`).
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from gateway.core.events import (
    End,
    Event,
    Extra,
    Finish,
    FinishReason,
    Reasoning,
    Refusal,
    Start,
    State,
    Text,
    ToolCall,
    UsageReport,
    is_content,
)
from gateway.dialects.anthropic_messages import HIDES_THOUGHTS
from gateway.dialects.anthropic_usage import shown_usage
from gateway.dialects.images import in_words

DIALECT = "anthropic_messages"
Body: TypeAlias = dict[str, Any]
Said: TypeAlias = "tuple[Said, str] | None"
"""Pieces of a text, the newest first."""

_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_TAKES: dict[str, type[Event]] = {"text": Text, "thinking": Reasoning, "tool_use": ToolCall}
_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
_STRUCTURE = re.compile(r'["\\{}\[\]]')


class Json(msgspec.Struct, frozen=True):
    """How far a JSON object has come: `depth` of its braces, and what the next character would be part of."""

    depth: int = 0
    begun: bool = False
    quoted: bool = False
    escaped: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing but white space may follow."""
        return self.begun and self.depth <= 0 and not self.quoted


class Block(msgspec.Struct, frozen=True):
    """A content block. `call` is the number of its tool call; `own` that it began with a source event."""

    kind: str
    call: int = -1
    id: str | None = None
    name: str | None = None
    said: Said = None
    json: Json = Json()
    own: bool = False

    @property
    def closable(self) -> bool:
        """Whether another block may follow: text can be taken up again in a new block, a call cannot."""
        return self.kind != "tool_use" or self.own or self.json.whole


class Progress(msgspec.Struct, frozen=True):
    """What came out so far.

    `held` waits for the first content, `waiting` are blocks behind the open one. `index` is the open block's, `takes`
    the type of events that are plain deltas of it. `calls` are the numbers of tool calls that began; `over` that the
    stop reason came out; `void` that nothing more can, since the answer was begun anew.
    """

    started: bool = False
    held: tuple[tuple[Event, ...], ...] = ()
    begun: bool = False
    open: Block | None = None
    index: int = -1
    takes: type[Event] | None = None
    waiting: tuple[Block, ...] = ()
    calls: frozenset[int] = frozenset()
    refused: bool = False
    reason: FinishReason | None = None
    usage: UsageReport | None = None
    over: bool = False
    void: bool = False


class Composer:
    """Composes one stream from its entry 0 on."""

    def __init__(self, start: Start) -> None:
        self._own: Body = {"id": start.wire_id, "model": start.model}
        self._sid = start.sid
        self._hides_thoughts = bool(start.flags.get(HIDES_THOUGHTS))

    def chunk(self, progress: Progress, chunk: tuple[Event, ...]) -> tuple[Progress, list[Body]]:
        """The event objects of a chunk of 1..k events; before the first content it is held back."""
        if not progress.started:
            held = (*progress.held, chunk)
            if not any(map(is_content, chunk)):
                return replace(progress, held=held), []
            return self._release(progress, held)
        out: list[Body] = []
        return self._one(progress, chunk, out), out

    def close(self, progress: Progress, end: End) -> list[Body]:
        """What is still due when an answer ends well, up to `message_stop`."""
        out: list[Body] = []
        if not progress.started:
            progress, out = self._release(progress, progress.held)
        progress = _flush(progress, out)
        if not progress.over:
            report = progress.usage or (None if end.usage is None else UsageReport(end.usage))
            out.append(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": _stop_reason(progress, end), "stop_sequence": None},
                    "usage": shown_usage(report),
                }
            )
        out.append({"type": "message_stop"})
        return out

    def _release(self, progress: Progress, chunks: tuple[tuple[Event, ...], ...]) -> tuple[Progress, list[Body]]:
        """Begin the message, with all that was held back."""
        progress = replace(progress, started=True, held=())
        out: list[Body] = []
        if not any((source := _source(chunk)) and source.get("type") == "message_start" for chunk in chunks):
            reports = [event for chunk in chunks for event in chunk if isinstance(event, UsageReport)]
            out.append(self._message_start(reports[-1] if reports else None))
            progress = replace(progress, begun=True)
        for chunk in chunks:
            progress = self._one(progress, chunk, out)
        return progress, out

    def _message_start(self, report: UsageReport | None) -> Body:
        message = {
            **self._own,
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**shown_usage(report), "output_tokens": 0},
        }
        return {"type": "message_start", "message": message}

    def _one(self, progress: Progress, chunk: tuple[Event, ...], out: list[Body]) -> Progress:
        source = _source(chunk)
        if source is not None:
            return self._verbatim(progress, source, chunk, out)
        for event in chunk:
            if isinstance(event, Extra):
                progress = self._images(progress, event, out)
            elif not (self._hides_thoughts and isinstance(event, Reasoning)):
                progress = _canonical(progress, event, out)
        return progress

    def _images(self, progress: Progress, event: Extra, out: list[Body]) -> Progress:
        said = in_words(event, self._sid) if event.content and not event.choice else ""
        if said and progress.open is not None and progress.open.kind == "text":
            said = f"\n{said}"
        return _piece(progress, Block("text"), said, out)

    def _verbatim(self, progress: Progress, source: Body, chunk: tuple[Event, ...], out: list[Body]) -> Progress:
        """A source event as it came, and what follows from it."""
        for event in chunk:
            if isinstance(event, UsageReport):
                progress = replace(progress, usage=event)
        match source:
            case {"type": "message_start", "message": dict(message)}:
                if not progress.begun:
                    out.append({**source, "message": {**cast("Body", message), **self._own}})
                return replace(progress, begun=True)
            case {"type": "content_block_start", "index": int(index), "content_block": {"type": str(kind)}}:
                call = next((event.index for event in chunk if isinstance(event, ToolCall)), -1)
                takes = _TAKES.get(kind)
                calls = progress.calls if call < 0 else progress.calls | {call}
                block = Block(kind, call, own=True)
                progress = replace(progress, open=block, index=index, takes=takes, calls=calls)
            case {"type": "content_block_stop", "index": progress.index}:
                progress = replace(progress, open=None, takes=None)
            case {"type": "message_delta", "delta": {"stop_reason": str()}}:
                progress = replace(progress, over=True)
            case _:
                pass
        out.append(source)
        return progress


def _source(chunk: tuple[Event, ...]) -> Body | None:
    """The source event that a chunk is."""
    for event in chunk:
        if isinstance(event, Extra) and event.dialect == DIALECT:
            return event.patch
    return None


def _canonical(progress: Progress, event: Event, out: list[Body]) -> Progress:
    """Put one event into blocks of our own making. There is one choice in this dialect."""
    match event:
        case UsageReport():
            return replace(progress, usage=event)
        case Text(choice=0, text=text):
            return _piece(progress, Block("text"), text, out)
        case Refusal(choice=0, text=text):
            return _piece(replace(progress, refused=True), Block("text"), text, out)
        case Reasoning(choice=0, text=text):
            return _piece(progress, Block("thinking"), text, out)
        case ToolCall(choice=0, index=call, arguments=arguments):
            return _piece(progress, Block("tool_use", call, event.id, event.name), arguments, out)
        case Finish(choice=0, reason=reason):
            return replace(_flush(progress, out), reason=reason)
        case _:
            return progress


def _piece(progress: Progress, block: Block, text: str, out: list[Body]) -> Progress:
    """A piece of a block goes to the open one, to one that waits, or begins another."""
    held = progress.open
    if held is not None and held.kind == block.kind and held.call == block.call:
        if not text:
            return progress
        out.append(_delta(held.kind, progress.index, text))
        return progress if held.call < 0 else replace(progress, open=replace(held, json=_scanned(held.json, text)))
    waits = any(each.call == block.call for each in progress.waiting)
    if block.call in progress.calls and not waits:
        return progress  # its block is over
    if block.call < 0 and not text:
        return progress
    calls = progress.calls if block.call < 0 else progress.calls | {block.call}
    progress = replace(progress, waiting=_queued(progress.waiting, block, text), calls=calls)
    while progress.waiting and (progress.open is None or progress.open.closable):
        progress = _next(progress, out)
    return progress


def _queued(waiting: tuple[Block, ...], block: Block, text: str) -> tuple[Block, ...]:
    """The blocks that wait, with one more piece: of its call, or of the last one if that is such a text."""
    for at, each in enumerate(waiting):
        is_last = at == len(waiting) - 1
        if each.kind == block.kind and each.call == block.call and (block.call >= 0 or is_last):
            return (*waiting[:at], replace(each, said=(each.said, text)), *waiting[at + 1 :])
    return (*waiting, replace(block, said=(None, text)))


def _next(progress: Progress, out: list[Body]) -> Progress:
    """Close the open block, and begin the one that waits longest."""
    progress = _stop(progress, out)
    block, text = progress.waiting[0], _joined(progress.waiting[0].said)
    index = progress.index + 1
    out.append({"type": "content_block_start", "index": index, "content_block": _opening(block, index)})
    if text:
        out.append(_delta(block.kind, index, text))
    block = replace(block, said=None, json=_scanned(block.json, text))
    # Calls of others take no short way: how far their arguments have come must be known.
    takes = None if block.kind == "tool_use" else _TAKES[block.kind]
    return replace(progress, open=block, index=index, takes=takes, waiting=progress.waiting[1:])


def _stop(progress: Progress, out: list[Body]) -> Progress:
    if progress.open is None:
        return progress
    out.append({"type": "content_block_stop", "index": progress.index})
    return replace(progress, open=None, takes=None)


def _flush(progress: Progress, out: list[Body]) -> Progress:
    """No more pieces will come: all blocks, closed."""
    while progress.waiting:
        progress = _next(progress, out)
    return _stop(progress, out)


def _opening(block: Block, index: int) -> Body:
    if block.kind == "tool_use":
        return {"type": "tool_use", "id": block.id or f"toolu_{index}", "name": block.name or "", "input": {}}
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _delta(kind: str, index: int, text: str) -> Body:
    name, member = _DELTAS[kind]
    return {"type": "content_block_delta", "index": index, "delta": {"type": name, member: text}}


def plain_delta(progress: Progress, marker: str) -> Body:
    """A delta of the open block, which `takes` plain ones, with `marker` for its text."""
    return _delta("text" if progress.open is None else progress.open.kind, progress.index, marker)


def _joined(said: Said) -> str:
    pieces: list[str] = []
    while said is not None:
        said, piece = said
        pieces.append(piece)
    return "".join(reversed(pieces))


def _scanned(json: Json, text: str) -> Json:
    """How far an object has come with this piece of it."""
    depth, begun, quoted = json.depth, json.begun, json.quoted
    skipped = 0 if json.escaped else -1
    for match in _STRUCTURE.finditer(text):
        at, found = match.start(), match[0]
        if at == skipped:
            continue
        if found == '"':
            quoted = not quoted
        elif quoted:
            if found == "\\":
                skipped = at + 1
        elif found in "{[":
            depth, begun = depth + 1, True
        elif found in "}]":
            depth -= 1
    return Json(depth, begun, quoted, skipped == len(text) if text else json.escaped)


def _stop_reason(progress: Progress, end: End) -> str:
    """Why the answer stopped; agents look at it to run the tools, and not all vendors say it when a call was forced."""
    reason: FinishReason = progress.reason or ("length" if end.state is State.INCOMPLETE else "stop")
    if reason == "stop" and progress.refused:
        return "refusal"
    if reason == "stop" and progress.calls:
        return "tool_use"
    return _REASONS.get(reason, reason)
