"""Rendering of chat completions: the cases that the properties do not name."""

import json
from typing import Any

from gateway.core.errors import Category, Failure
from gateway.core.events import (
    Claim,
    End,
    Event,
    Extra,
    Finish,
    Leg,
    Pause,
    Progress,
    Reasoning,
    Resume,
    Start,
    State,
    Text,
    ToolCall,
    UsageReport,
)
from gateway.core.usage import Usage
from gateway.dialects.openai_chat_render import DONE, Collector, StreamRenderer
from tests.support.fold import fold
from tests.support.sse import data_frames

START = Start("s", "chatcmpl-1", 7, "m", "openai_chat")
OK = End(State.COMPLETED)


def rendered(*events: Event, start: Start = START) -> bytes:
    """A whole stream, an entry for each event."""
    renderer = StreamRenderer(start)
    progress, out = renderer.initial, b""
    for seq, event in enumerate(events, 1):
        progress, data = renderer.render(progress, [event], 1, seq)
        out += data
    return out


def chunks(*events: Event, start: Start = START) -> list[dict[str, Any]]:
    """The chunks of a whole stream."""
    return [frame.json for frame in data_frames(rendered(*events, start=start)) if frame.data != "[DONE]"]


def test_golden() -> None:
    """The simplest answer, to the byte."""
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,'
    assert rendered(Text(0, "h\u00e9\n"), Finish(0, "stop"), OK) == (
        head
        + b'"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
        + head
        + '"delta":{"content":"h\u00e9\\n"},"finish_reason":null}]}\n\n'.encode()
        + head
        + b'"delta":{},"finish_reason":"stop"}]}\n\n'
        + DONE
    )


def test_tool_call_opens_without_text() -> None:
    """A choice that begins with a tool call has null content, as OpenAI sends it."""
    first, second, *_ = chunks(ToolCall(0, 0, "", "c", "f"), ToolCall(0, 0, "{}"), Finish(0, "tool_calls"), OK)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert second["choices"][0]["delta"] == {"tool_calls": [call]}


def test_own_events_are_not_shown() -> None:
    """Legs, pauses, steps of agents and other dialects' extras leave no byte."""
    quiet = (Leg(1, "e", "p", "s", "w"), Pause(), Resume(), Claim("o"), Progress("a", "s", "k"))
    foreign = Extra("other", {"x": 1}, 0)
    assert rendered(Text(0, "a"), *quiet, foreign, OK) == rendered(Text(0, "a"), OK)


def test_finish_that_was_forgotten() -> None:
    """A choice whose provider ended without a finish gets one, and it says whether tools are to be run."""
    assert fold(rendered(Text(0, "a"), OK)).finish == "stop"
    assert fold(rendered(ToolCall(0, 0, "{}", "c", "f"), OK)).finish == "tool_calls"
    assert fold(rendered(ToolCall(0, 0, "{}", "c", "f"), End(State.INCOMPLETE))).finish == "length"


def test_sources_own_word() -> None:
    """The same dialect's own finish comes back as the provider said it; another's is translated."""
    assert fold(rendered(Text(0, "a"), Finish(0, "stop", "eos"), OK)).finish == "eos"
    assert fold(rendered(Text(0, "a"), Finish(0, "refusal"), OK)).finish == "content_filter"
    assert fold(rendered(Text(0, "a"), Finish(0, "pause_turn"), OK)).finish == "stop"


def test_answer_without_content() -> None:
    """An answer that rightly has no content is shown at its end: what was held back, the finish, the terminal."""
    folded = fold(rendered(Extra("openai_chat", {"delta": {"role": "assistant"}}, 0), Finish(0, "length"), OK))
    assert (folded.text, folded.finish, folded.done) == ("", "length", True)


def test_failure_after_content() -> None:
    """A failure after content is an error frame, never followed by `[DONE]`, and what was held back stays hidden."""
    failed = End(State.FAILED, None, Failure(Category.STREAM_BROKEN, "cut"))
    folded = fold(rendered(Text(0, "a"), failed))
    assert folded.error is not None
    assert folded.error["code"] == "stream_broken"
    assert not folded.done
    assert b"secret" not in rendered(Extra("openai_chat", {"x": "secret"}), failed)


def test_dialects_own_content() -> None:
    """Audio and lists of parts are shown when they come, not at the end."""
    renderer = StreamRenderer(START)
    sound = Extra("openai_chat", {"delta": {"audio": {"data": "AA=="}}}, 0, content=True)
    _, data = renderer.render(renderer.initial, [sound], 1, 1)
    assert data_frames(data)[-1].json["choices"][0]["delta"] == {"audio": {"data": "AA=="}}


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]
LISTED = (
    Extra("openai_chat", {"delta": {"content": PARTS}}, 0, more=True, content=True),
    Reasoning(0, "hm", more=True),
    Text(0, "a"),
)


def test_list_of_parts_is_said_once() -> None:
    """Where the source's own list of parts is shown, what it says is not said again beside it."""
    renderer = StreamRenderer(START)
    _, data = renderer.render(renderer.initial, list(LISTED), 1, 1)
    assert data_frames(data)[-1].json["choices"][0]["delta"] == {"content": PARTS}


def test_list_of_parts_as_a_whole() -> None:
    """A whole answer has its text as text, also where one part came in a list and the next one did not."""
    message = collected(*LISTED, Text(0, "b"))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("ab", "hm")


def test_broken_log() -> None:
    """A log that cannot be read on ends the one response with an error frame."""
    assert fold(StreamRenderer(START).broken(Failure(Category.JOURNAL, "gone"))).error is not None


def collected(*events: Event, end: End = OK) -> dict[str, Any]:
    """The answer of `stream: false`."""
    collector = Collector(START)
    collector.add(list(events))
    body: dict[str, Any] = json.loads(collector.body(end))
    return body


def test_whole() -> None:
    """A whole answer has its texts, calls without streaming's index, finish and usage."""
    body = collected(
        Extra("openai_chat", {"system_fingerprint": "fp"}),
        Reasoning(0, "hm"),
        Text(0, "a"),
        Text(0, "b"),
        ToolCall(0, 0, "{", "c", "f"),
        ToolCall(0, 0, "}"),
        UsageReport(Usage(input_tokens=1, output_tokens=2, reasoning_tokens=1)),
    )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "ab", "reasoning_content": "hm", "tool_calls": [call]}
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_whole_of_nothing() -> None:
    """An answer without any choice is still a completion."""
    body = collected(end=End(State.INCOMPLETE, usage=Usage(output_tokens=4)))
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] is None
    assert body["usage"]["completion_tokens"] == 4
