"""Answers in Anthropic's own events, as hypothesis makes them up, and what the provider's decoder makes of them."""

import json
from typing import Any

from hypothesis import strategies as st

from gateway.core.events import SourceEvent
from gateway.providers._anthropic_events import EventDecoder

Source = list[dict[str, Any]]
_TEXT = st.text(min_size=1, max_size=6)
_NOTES = st.sampled_from([{}, {"vendor": "x"}, {"vendor": {"y": [1]}}])
_OBJECTS = st.dictionaries(st.text(max_size=4), st.none() | st.booleans() | st.integers(-9, 9) | _TEXT, max_size=3)
_CITATION = {"type": "char_location", "cited_text": "c", "document_index": 0, "start_char_index": 0}
_REASONS = ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "a_new_one"]


def _event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


@st.composite
def _text_block(draw: st.DrawFn, index: int) -> Source:
    deltas = [{"type": "text_delta", "text": text} for text in draw(st.lists(_TEXT, min_size=1, max_size=4))]
    if draw(st.booleans()):
        deltas.insert(draw(st.integers(0, len(deltas))), {"type": "citations_delta", "citation": _CITATION})
    return _block(index, {"type": "text", "text": draw(st.sampled_from(["", "Oh"])), **draw(_NOTES)}, deltas)


@st.composite
def _thinking_block(draw: st.DrawFn, index: int) -> Source:
    deltas = [{"type": "thinking_delta", "thinking": text} for text in draw(st.lists(_TEXT, max_size=3))]
    deltas.append({"type": "signature_delta", "signature": draw(_TEXT)})
    return _block(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas)


@st.composite
def _tool_block(draw: st.DrawFn, index: int) -> Source:
    kind = draw(st.sampled_from(["tool_use", "server_tool_use"]))
    text = json.dumps(draw(_OBJECTS))
    cut = draw(st.integers(1, len(text)))
    pieces = draw(st.sampled_from([[text], [text[:cut], text[cut:]]]))
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces if piece]
    return _block(index, {"type": kind, "id": f"toolu_{index}", "name": "f", "input": {}, **draw(_NOTES)}, deltas)


@st.composite
def _other_block(draw: st.DrawFn, index: int) -> Source:
    kind = draw(st.sampled_from(["redacted_thinking", "a_new_one"]))
    return _block(index, {"type": kind, "data": draw(_TEXT), **draw(_NOTES)}, [])


def _block(index: int, content: dict[str, Any], deltas: Source) -> Source:
    events = [_event("content_block_delta", index=index, delta=delta) for delta in deltas]
    stop = _event("content_block_stop", index=index)
    return [_event("content_block_start", index=index, content_block=content), *events, stop]


@st.composite
def messages(draw: st.DrawFn) -> Source:
    """A whole answer of at least one block, without its `message_stop`."""
    usage = {"input_tokens": draw(st.integers(0, 99)), "cache_read_input_tokens": 3, "output_tokens": 1}
    message = {
        "id": "msg_theirs",
        "type": "message",
        "role": "assistant",
        "model": "theirs",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "service_tier": "standard"},
        **draw(_NOTES),
    }
    events = [_event("message_start", message=message, **draw(_NOTES))]
    for index in range(draw(st.integers(1, 4))):
        blocks = st.one_of(_text_block(index), _thinking_block(index), _tool_block(index), _other_block(index))
        events += draw(blocks)
    if draw(st.booleans()):
        events.append(_event("a_new_event", told=draw(_NOTES)))
    delta = {"stop_reason": draw(st.sampled_from(_REASONS)), "stop_sequence": None, **draw(_NOTES)}
    events.append(_event("message_delta", delta=delta, usage={"output_tokens": draw(st.integers(1, 99))}))
    return events


def decoded(source: Source) -> list[list[SourceEvent]]:
    """What the provider's adapter puts into the log: a list of events for each payload that says anything."""
    decoder = EventDecoder()
    return [events for event in source if (events := decoder.feed([json.dumps(event).encode()]))]
