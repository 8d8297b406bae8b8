"""Chunks of OpenAI's chat completions and all compatible hosts -> events. Sans-IO.

Oddities, on purpose:
1. The template. Nearly every chunk of a stream differs from the one before in its `content` only. Once a chunk was
   parsed, the bytes before and after that string are kept, and a chunk that has both around one whole JSON string is
   the same document with another string: exact by JSON's grammar, at a tenth of the cost, with all unknown members.
2. Tool calls are keyed by `id` when a new one appears, else by `index`: see `_openai_calls`.
3. Members that say nothing canonical stay in `Extra` patches; null members that the SDKs default to null are dropped.
4. `[DONE]` is an end also without a finish reason, which some hosts never send; but not within a tool call's arguments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.events import (
    Extra,
    Finish,
    FinishReason,
    Reasoning,
    Refusal,
    SourceEvent,
    Text,
    UsageReport,
    encode,
)
from gateway.core.usage import Usage
from gateway.providers._openai_calls import Calls
from gateway.providers._openai_errors import FAILED_ENDS
from gateway.providers._reading import InStreamError, Malformed, Skipping

if TYPE_CHECKING:
    from collections.abc import Iterator

DIALECT = "openai_chat"
TEMPLATES_TRIED = 4
MAX_INDEX = 65_535

_ENVELOPE = frozenset({"id", "object", "created", "model", "choices", "usage", "error"})
_CHOICE = frozenset({"index", "delta", "finish_reason", "message"})  # Perplexity's message: all that was said so far
_NULLABLE = frozenset({"content", "refusal", "tool_calls", "function_call", "role", "reasoning_content", "reasoning"})
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_SENTINEL = "\x00sentinel"
_SENTINEL_JSON = b'"\\u0000sentinel"'

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "model_length": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "tool_use": "tool_calls",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
}

_decode = msgspec.json.Decoder().decode
_decode_string = msgspec.json.Decoder(str).decode


class ChunkDecoder(Skipping):
    """One stream's chunks. `done` after `[DONE]`; `finished` holds the choices that had their finish reason."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.finished: set[int] = set()
        self._top: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._spoken: set[int] = set()
        self._calls: dict[int, Calls] = {}
        self._id = ""
        self._prefix = self._suffix = b""
        self._before: list[SourceEvent] = []
        self._choice_of_template = 0
        self._templates = self._texts = 0

    @property
    def complete(self) -> bool:
        """Whether the body may end here: the marker was seen, or every choice had its finish reason."""
        return self.done or (bool(self.seen) and self.seen == self.finished)

    @property
    def _is_cut(self) -> bool:
        """Whether a choice without a finish reason stands within a tool call: proxies end what broke with `[DONE]`."""
        return any(calls.is_cut for index, calls in self._calls.items() if index not in self.finished)

    def _take_plain(self, payloads: list[bytes], at: int, events: list[SourceEvent]) -> int:
        """Chunks that are the template with another text."""
        prefix, suffix = self._prefix, self._suffix
        if not prefix:
            return at
        for payload in payloads[at:] if at else payloads:
            if not (payload.startswith(prefix) and payload.endswith(suffix)):
                break
            try:
                text = _decode_string(payload[len(prefix) : -len(suffix)])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                break
            if not text:
                break
            self._in_a_row = 0
            events += self._before
            events.append(Text(self._choice_of_template, text))
            at += 1
        return at

    def _feed_slowly(self, payload: bytes, events: list[SourceEvent]) -> None:
        if payload == b"[DONE]":
            self.done = not self._is_cut
            return
        try:
            chunk = _decode(payload)
            found = self._chunk(chunk)
            if _LONG_NUMBER in payload.translate(_AS_ZEROS):  # a regular expression takes five times as long
                encode([*found])  # numbers beyond 64 bits cannot be logged
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, Malformed) as error:
            self._skip(payload, events, error)
            return
        self._in_a_row = 0
        events += found
        if found and type(found[-1]) is Text and self._templates < TEMPLATES_TRIED:
            if self._texts:  # a lone text is not worth learning from
                self._learn(payload, chunk, found)
            self._texts += 1

    def _chunk(self, chunk: Any) -> list[SourceEvent]:
        """The events of one parsed chunk."""
        if not isinstance(chunk, dict):
            msg = f"a chunk is an object, got {type(chunk).__name__}"
            raise Malformed(msg)
        members = cast("dict[str, Any]", chunk)
        if not members or members.get("type") == "ping":  # of proxies that keep the connection alive
            return []
        if members.get("error"):
            raise InStreamError(members["error"])
        if members.get("object") == "error":  # vLLM, which sends [DONE] after it
            raise InStreamError(members)
        choices = members.get("choices")
        if choices is None and not isinstance(members.get("usage"), dict):
            msg = "a chunk without choices, usage or error"
            raise Malformed(msg)
        self._id = self._id or _text(members.get("id")) or ""
        events: list[SourceEvent] = []
        for choice in _objects(choices or [], "choices"):
            self._choice(choice, events)
        self._usage_report(members.get("usage"), events)
        top = {name: value for name, value in members.items() if name not in _ENVELOPE}
        if top != self._top:
            self._top, self._prefix = top, b""
            events.insert(0, Extra(DIALECT, top))
        return [*(msgspec.structs.replace(event, more=True) for event in events[:-1]), *events[-1:]]

    def _choice(self, choice: dict[str, Any], events: list[SourceEvent]) -> None:
        index, delta = choice.get("index") or 0, cast("Any", choice.get("delta") or {})
        if type(index) is not int or not 0 <= index <= MAX_INDEX or not isinstance(delta, dict):
            msg = "a choice has an index and a delta"
            raise Malformed(msg)
        if choice.get("error"):
            raise InStreamError(choice["error"])
        reason = _text(choice.get("finish_reason"))
        if reason in FAILED_ENDS:
            raise InStreamError({"message": f"the provider ended the answer with {reason!r}", "code": reason})
        self.seen.add(index)
        patch = {
            name: value
            for name, value in choice.items()
            if name not in _CHOICE and not (name == "logprobs" and value is None)
        }
        found: list[SourceEvent] = []
        rest = self._delta(index, cast("dict[str, Any]", delta), found)
        if rest:
            patch["delta"] = rest
        if patch:
            said = any(value for name, value in rest.items() if name != "role")
            events.append(Extra(DIALECT, patch, index, content=said))
        events += found
        if reason is not None:
            self.finished.add(index)
            events += self._calls[index].rest() if index in self._calls else ()
            events.append(Finish(index, _canonical(reason), None if reason in _PLAIN else reason))

    def _delta(self, index: int, delta: dict[str, Any], found: list[SourceEvent]) -> dict[str, Any]:
        """Append what the delta says; returns the members that say nothing canonical."""
        rest: dict[str, Any] = {}
        first = index not in self._spoken
        for name, value in delta.items():
            said = _said(index, name, value)
            if said is not None and not (type(said) is Reasoning and any(type(event) is Reasoning for event in found)):
                found.append(said)
            elif name == "tool_calls" and isinstance(value, list):
                self._tool_calls(index, value, found, rest)
            elif name == "content" and isinstance(value, list):
                rest[name] = value
                found += _parts(index, value)
            elif _is_kept(name, value, first=first, with_role="role" in delta):
                rest[name] = value
        if delta:
            self._spoken.add(index)
        return rest

    def _tool_calls(self, choice: int, fragments: list[Any], found: list[SourceEvent], rest: dict[str, Any]) -> None:
        calls = self._calls.setdefault(choice, Calls(choice, self._id))
        unknown: list[dict[str, Any]] = []
        for position, fragment in enumerate(_objects(fragments, "tool_calls")):
            function = _members(fragment.get("function"))
            place, call_id = _place(fragment.get("index"), position), _text(fragment.get("id"))
            kind = _text(fragment.get("type"))
            if kind not in {None, "function"}:  # of a custom tool, which no other dialect can have asked for
                index, _ = calls.take(place, call_id, kind, "")
                unknown.append({**fragment, "index": index})
                continue
            arguments = _arguments(function.get("arguments"))
            index, said = calls.take(place, call_id, _text(function.get("name")), arguments)
            if said is not None:
                found.append(said)
            extra = {name: value for name, value in fragment.items() if name not in _FRAGMENT}
            if extra:
                unknown.append({"index": index, **extra})
        if unknown:
            rest["tool_calls"] = unknown

    def _usage_report(self, usage: Any, events: list[SourceEvent]) -> None:
        if not isinstance(usage, dict) or usage == self._usage:
            return
        self._usage = members = cast("dict[str, Any]", usage)
        self._prefix = b""  # a template holds the usage around its text as no news
        events.append(UsageReport(read_usage(members), DIALECT, members))

    def _learn(self, payload: bytes, chunk: dict[str, Any], found: list[SourceEvent]) -> None:
        """Keep what surrounds the content of this chunk, if putting another string there proves it."""
        text = cast("Text", found[-1])
        before = [event for event in found[:-1] if not (isinstance(event, Extra) and event.choice is None)]
        if len(chunk["choices"]) != 1 or not all(isinstance(event, Extra) for event in before):
            return
        if chunk["choices"][0]["delta"].get("role") is not None and "role" in str(before):
            return  # the role chunk itself: later ones look different
        at = payload.find(b'"content":')
        match = _STRING.search(payload, at + 10) if at >= 0 else None
        if match is None or payload[at + 10 : match.start()].strip():
            return
        self._templates += 1
        prefix, suffix = payload[: match.start()], payload[match.end() :]
        try:
            proof = _decode(prefix + _SENTINEL_JSON + suffix)
        except msgspec.MsgspecError:
            return
        choice = chunk["choices"][0]
        if proof == {**chunk, "choices": [{**choice, "delta": {**choice["delta"], "content": _SENTINEL}}]}:
            self._prefix, self._suffix = prefix, suffix
            self._before, self._choice_of_template = before, text.choice


_PLAIN = frozenset({"stop", "length", "tool_calls", "content_filter"})
_FRAGMENT = frozenset({"index", "id", "type", "function"})


def _canonical(reason: str) -> FinishReason:
    """What a host's own word for an end means; Google's have a second one behind a colon."""
    return _REASONS.get(reason.lower().partition(":")[0], "stop")


def _said(choice: int, name: str, value: Any) -> SourceEvent | None:
    """The event of a member that says something canonical."""
    if not isinstance(value, str) or not value:
        return None
    match name:
        case "content":
            return Text(choice, value)
        case "reasoning_content" | "reasoning":
            return Reasoning(choice, value, name)
        case "refusal":
            return Refusal(choice, value)
        case _:
            return None


def _parts(choice: int, parts: list[Any]) -> Iterator[SourceEvent]:
    """What a list of parts says, as Mistral's thinking models send it instead of text."""
    for part in map(_members, parts):
        thought = part.get("thinking")
        texts = [_members(piece).get("text") for piece in thought] if isinstance(thought, list) else [thought]
        if said := "".join(text for text in texts if isinstance(text, str)):
            yield Reasoning(choice, said)
        if text := _text(part.get("text")):
            yield Text(choice, text)


def _is_kept(name: str, value: Any, *, first: bool, with_role: bool) -> bool:
    """Whether a member without canonical meaning makes a difference to what clients accumulate."""
    if name == "role":
        return first and value is not None
    if value is None:  # a role chunk of a tool call: its content stays null, not ""
        return name not in _NULLABLE or (name == "content" and first and with_role)
    return value != "" or name not in _NULLABLE or (name == "content" and first)


def read_usage(usage: dict[str, Any]) -> Usage:
    """OpenAI's usage object in canonical names; missing and null counts are 0."""
    prompt = _members(usage.get("prompt_tokens_details"))
    completion = _members(usage.get("completion_tokens_details"))
    return Usage(
        input_tokens=_count(usage.get("prompt_tokens")) or 0,
        output_tokens=_count(usage.get("completion_tokens")) or 0,
        cached_tokens=_count(prompt.get("cached_tokens")),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _members(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _place(index: Any, position: int) -> int:
    return index if type(index) is int else position


def _arguments(value: Any) -> str:
    """Fragments are text; some hosts send the whole object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _objects(values: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        msg = f"{name} is a list of objects"
        raise Malformed(msg)
    return cast("list[dict[str, Any]]", values)
