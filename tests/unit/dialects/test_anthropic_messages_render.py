"""Rendering of messages: the cases that the properties do not name, and Anthropic's answers for OpenAI's clients."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.errors import Category, Failure
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
)
from gateway.core.usage import Usage
from gateway.dialects import openai_chat_render
from gateway.dialects.anthropic_messages import HIDES_THOUGHTS
from gateway.dialects.anthropic_messages_render import Collector, StreamRenderer
from tests.support.sse import data_frames

START = Start("s", "msg_1", 7, "m", "anthropic_messages")
OK = End(State.COMPLETED)
USAGE = Usage(input_tokens=10, output_tokens=5, cached_tokens=3, cache_creation_tokens=2, reasoning_tokens=1)


def rendered(*events: Event, start: Start = START) -> bytes:
    """A whole stream, an entry for each chunk."""
    renderer = StreamRenderer(start)
    progress, out, chunk = renderer.initial, b"", list[Event]()
    for seq, event in enumerate(events, 1):
        chunk.append(event)
        if not getattr(event, "more", False):
            progress, data = renderer.render(progress, chunk, 1, seq)
            out += data
            chunk = []
    return out


def objects(*events: Event, start: Start = START) -> list[dict[str, Any]]:
    """The event objects of a whole stream."""
    return [frame.json for frame in data_frames(rendered(*events, start=start))]


def message(*events: Event) -> dict[str, Any]:
    """The whole answer."""
    collector = Collector(START)
    collector.add([*events])
    return dict(json.loads(collector.body(OK)))


def last_delta(*events: Event, end: End = OK) -> dict[str, Any]:
    """The `message_delta` of a stream."""
    (found,) = [event for event in objects(*events, end) if event["type"] == "message_delta"]
    return found


def test_golden() -> None:
    """The simplest answer, to the byte."""
    assert rendered(Text(0, "h\u00e9\n"), Text(0, "o"), UsageReport(USAGE), Finish(0, "stop"), OK) == (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"msg_1","model":"m","type":"message","role":"assistant",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}\n\n'
        b"event: content_block_start\n"
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"h\xc3\xa9\\n"}}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"o"}}\n\n'
        b"event: content_block_stop\n"
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b"event: message_delta\n"
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":'
        b'{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":5,'
        b'"output_tokens_details":{"thinking_tokens":1}}}\n\n'
        b"event: message_stop\n"
        b'data: {"type":"message_stop"}\n\n'
    )


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("stop_sequence", "stop_sequence"),
        ("refusal", "refusal"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_stop_reasons(reason: FinishReason, word: str) -> None:
    """Every reason to finish has its word, streamed and not; the other dialect's own word is not shown."""
    events: list[Event] = [Text(0, "a"), Finish(0, reason, "theirs")]
    assert last_delta(*events)["delta"] == {"stop_reason": word, "stop_sequence": None}
    assert message(*events)["stop_reason"] == word


def test_stop_reasons_that_are_not_said() -> None:
    """Calls and refusals are told as such also where the provider calls it a plain stop, or says nothing."""
    call = ToolCall(0, 0, "{}", "call_1", "f")
    assert last_delta(call, Finish(0, "stop"))["delta"]["stop_reason"] == "tool_use"
    assert last_delta(call)["delta"]["stop_reason"] == "tool_use"
    assert last_delta(Refusal(0, "no"), Finish(0, "stop"))["delta"]["stop_reason"] == "refusal"
    assert last_delta(Text(0, "a"), end=End(State.INCOMPLETE))["delta"]["stop_reason"] == "max_tokens"


def test_usage() -> None:
    """Usage known at the beginning stands there, what the gateway counted stands at the end if nobody else did."""
    start = objects(UsageReport(USAGE), Text(0, "a"), OK)[0]
    assert start["message"]["usage"]["input_tokens"] == 5
    assert start["message"]["usage"]["output_tokens"] == 0
    estimated = Usage(input_tokens=7, output_tokens=2, estimated=True)
    counted = last_delta(Text(0, "a"), end=End(State.COMPLETED, usage=estimated))
    assert counted["usage"] == {"input_tokens": 7, "output_tokens": 2}


def test_ends() -> None:
    """A failure is an error event with its type, a cancel one too, or the end of the message if that was asked for."""
    failed = End(State.FAILED, None, Failure(Category.OVERLOADED, "busy"))
    error = objects(Text(0, "a"), failed)[-1]
    assert (error["type"], error["error"]["type"], error["error"]["message"]) == ("error", "overloaded_error", "busy")
    cancelled = End(State.CANCELLED, "control")
    assert objects(Text(0, "a"), cancelled)[-1]["error"]["code"] == "stream_cancelled"
    finishing = Start("s", "msg_1", 7, "m", "anthropic_messages", {"on_cancel": "finish"})
    kinds = [event["type"] for event in objects(Text(0, "a"), cancelled, start=finishing)]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_thoughts_that_are_not_wanted() -> None:
    """Whoever asks for thoughts to be left out sees none, also of a vendor that shows them."""
    start = replace(START, flags={HIDES_THOUGHTS: True})
    shown = objects(Reasoning(0, "hm"), Text(0, "a"), Reasoning(0, "so"), Text(0, "b"), OK, start=start)
    assert [event["delta"] for event in shown if event["type"] == "content_block_delta"] == [
        {"type": "text_delta", "text": "a"},
        {"type": "text_delta", "text": "b"},
    ]


def test_tool_without_arguments() -> None:
    """A call without a word of arguments has an empty input."""
    (block,) = message(ToolCall(0, 0, "", "call_1", "f"), Finish(0, "tool_calls"))["content"]
    assert block == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}


def test_arguments_that_were_cut_off() -> None:
    """Arguments that end in the middle are shown as what they are; the stop reason says why."""
    answer = message(ToolCall(0, 0, '{"a": ', "call_1", "f"), Finish(0, "length"))
    assert answer["content"][0]["input"] == {"INVALID_JSON": '{"a": '}
    assert answer["stop_reason"] == "max_tokens"


def test_parallel_calls_stream_as_they_come() -> None:
    """A second call begins as soon as the arguments of the first one are whole, not only at the end."""
    renderer = StreamRenderer(START)
    events: list[Event] = [ToolCall(0, 0, '{"a":', "call_1", "f"), ToolCall(0, 0, "1}"), ToolCall(0, 1, "{", "c", "g")]
    _, data = renderer.render(renderer.initial, events, 1, 1)
    kinds = [frame.json["type"] for frame in data_frames(data)]
    assert kinds.count("content_block_start") == 2
    assert kinds[-1] == "content_block_delta"


def test_heartbeats() -> None:
    """A ping only after the message began: before it clients know comments alone."""
    renderer = StreamRenderer(START)
    assert renderer.heartbeat(renderer.initial) is None
    progress, _ = renderer.render(renderer.initial, [Text(0, "a")], 1, 1)
    assert renderer.heartbeat(progress) == b'event: ping\ndata: {"type": "ping"}\n\n'


def test_event_names_are_one_line() -> None:
    """A provider's event type cannot begin a line of its own."""
    data = rendered(Extra("anthropic_messages", {"type": "a\ndata: b"}, 0, content=True), OK)
    assert b"event: adata:b\n" in data


# What OpenAI's clients see of an answer of Anthropic's.

OPENAI = Start("s", "chatcmpl-1", 7, "m", "openai_chat", {"include_usage": True})
UNASKED = Start("s", "chatcmpl-1", 7, "m", "openai_chat")


def _theirs(kind: str, *, more: bool = True, content: bool = False) -> Extra:
    return Extra("anthropic_messages", {"type": kind}, 0, more=more, content=content)


ANSWER: list[Event] = [
    _theirs("message_start"),
    UsageReport(Usage(input_tokens=10, output_tokens=1), "anthropic_messages", {"input_tokens": 10}),
    _theirs("content_block_start", more=False),
    Reasoning(0, "hm", "thinking"),
    _theirs("content_block_delta", more=False, content=True),
    Text(0, "so"),
    _theirs("content_block_start", content=True),
    ToolCall(0, 0, "", "toolu_1", "f"),
    ToolCall(0, 0, "{}"),
    _theirs("message_delta"),
    UsageReport(USAGE, "anthropic_messages", {"input_tokens": 10}, more=True),
    Finish(0, "tool_calls", "tool_use"),
]


def chunks(start: Start) -> list[dict[str, Any]]:
    """What OpenAI's renderer makes of that answer."""
    renderer = openai_chat_render.StreamRenderer(start)
    _, data = renderer.render(renderer.initial, [*ANSWER, OK], 1, 1)
    return [frame.json for frame in data_frames(data) if frame.data != "[DONE]"]


def test_openai_clients_see_anthropic() -> None:
    """Text, thoughts and calls are OpenAI's, the finish is OpenAI's word, and usage comes at the end, if asked."""
    deltas = [choice["delta"] for chunk in chunks(UNASKED) for choice in chunk["choices"]]
    assert deltas[1:] == [
        {"reasoning_content": "hm"},
        {"content": "so"},
        {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert chunks(UNASKED)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any("usage" in chunk for chunk in chunks(UNASKED))
    assert [chunk["usage"] is not None for chunk in chunks(OPENAI)] == [False] * 6 + [True]
    assert chunks(OPENAI)[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_openai_clients_see_anthropic_whole() -> None:
    """Not streamed it is the same."""
    collector = openai_chat_render.Collector(UNASKED)
    collector.add(ANSWER)
    answer = json.loads(collector.body(OK))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "so",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    assert answer["usage"]["prompt_tokens"] == 10
