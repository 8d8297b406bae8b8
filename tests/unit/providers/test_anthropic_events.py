"""Anthropic's events, one kind after another."""

import json
from typing import Any

import pytest

from gateway.core.events import Extra, Finish, Reasoning, SourceEvent, Text, ToolCall, UsageReport, is_content
from gateway.core.usage import Usage
from gateway.providers._anthropic_events import DIALECT, EventDecoder, read_usage
from gateway.providers._reading import InStreamError, Malformed

Event = dict[str, Any]
START: Event = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}}
STOP: Event = {"type": "message_stop"}


def block(kind: str, index: Any = 0, **members: Any) -> Event:
    """The begin of a block."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **members}}


def delta(kind: str, index: int = 0, **members: Any) -> Event:
    """A delta of a block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def stop(index: int = 0) -> Event:
    """The end of a block."""
    return {"type": "content_block_stop", "index": index}


def ended(reason: str | None, **members: Any) -> Event:
    """The end of the message."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, **members}


def tool(index: int = 0, **members: Any) -> Event:
    """The begin of a tool call."""
    return block("tool_use", index, **{"id": f"t{index}", "name": "f", "input": {}, **members})


def whole(event: Event, *, content: bool = False, more: bool = False) -> Extra:
    """The extra that keeps an event."""
    return Extra(DIALECT, event, 0, more, content)


def fed(*events: Event, decoder: EventDecoder | None = None) -> list[SourceEvent]:
    """What a decoder says of events; behind a `message_start` where none is given."""
    if decoder is None:
        decoder = EventDecoder()
        decoder.feed([json.dumps(START).encode()])
    return decoder.feed([json.dumps(event).encode() for event in events])


def test_start() -> None:
    """The start is kept whole, and its usage is reported; it is no content."""
    usage = Usage(input_tokens=3, output_tokens=1)
    report = UsageReport(usage, DIALECT, {"input_tokens": 3, "output_tokens": 1})
    assert fed(START, decoder=EventDecoder()) == [whole(START, more=True), report]


@pytest.mark.parametrize(
    ("first", "event", "said"),
    [
        (block("text", text=""), delta("text_delta", text="a"), Text(0, "a")),
        (block("thinking", thinking=""), delta("thinking_delta", thinking="a"), Reasoning(0, "a", "thinking")),
        (tool(), delta("input_json_delta", partial_json="{"), ToolCall(0, 0, "{")),
    ],
)
def test_plain_deltas(first: Event, event: Event, said: SourceEvent) -> None:
    """A delta that says nothing else is one canonical event; with more members it is kept whole beside that."""
    assert fed(first, event)[-1:] == [said]
    odd = {**event, "delta": {**event["delta"], "new": 1}}
    assert fed(first, odd)[-2:-1] == [whole(odd, content=True, more=True)]
    assert fed(first, odd)[-1:] == [said]


def test_empty_delta() -> None:
    """A delta without text is kept for its own dialect; it is no part of the answer."""
    empty = delta("input_json_delta", partial_json="")
    assert fed(tool(), empty)[-1:] == [whole(empty)]


@pytest.mark.parametrize(
    ("first", "event"),
    [
        (block("thinking", thinking=""), delta("signature_delta", signature="s")),
        (block("text", text=""), delta("citations_delta", citation={})),
        (block("server_tool_use", id="s", name="g", input={}), delta("input_json_delta", partial_json="{")),
        (block("text", text=""), delta("thinking_delta", thinking="a")),
        (block("text", text=""), delta("new_delta", new="a")),
    ],
)
def test_other_deltas(first: Event, event: Event) -> None:
    """A delta that other dialects do not know is kept whole, and is a part of the answer."""
    assert fed(first, event)[-1:] == [whole(event, content=True)]


def test_blocks() -> None:
    """A block of text begins without content; what only this dialect knows is content from its begin."""
    text, other = block("text", text="", citations=None), block("redacted_thinking", data="x")
    assert fed(text, stop(), other) == [whole(text), whole(stop()), whole(other, content=True)]


@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_block_that_begins_with_text(kind: str) -> None:
    """Text that a block begins with is a part of the answer."""
    first = block(kind, **{kind: "a"})
    said = Text(0, "a") if kind == "text" else Reasoning(0, "a", "thinking")
    assert fed(first) == [whole(first, content=True, more=True), said]


def test_tool_calls() -> None:
    """Calls are numbered densely, whatever blocks are between them; the first fragment has id and name."""
    events = fed(
        block("text", text=""), stop(), tool(3), delta("input_json_delta", 3, partial_json="{}"), stop(3), tool(5)
    )
    assert [event for event in events if isinstance(event, ToolCall)] == [
        ToolCall(0, 0, "", "t3", "f"),
        ToolCall(0, 0, "{}"),
        ToolCall(0, 1, "", "t5", "f"),
    ]


@pytest.mark.parametrize("given", [{}, {"a": 1}])
def test_arguments_without_fragments(given: Event) -> None:
    """A call without fragments has the arguments that its block began with, as JSON."""
    empty = delta("input_json_delta", partial_json="")
    events = fed(tool(input=given), empty, stop())
    assert events[-2:] == [whole(stop(), more=True), ToolCall(0, 0, json.dumps(given).replace(" ", ""))]
    assert fed(tool(input=given), delta("input_json_delta", partial_json="{}"), stop())[-1:] == [whole(stop())]


def test_blocks_side_by_side() -> None:
    """A delta of another block than the last one is kept whole, because only so its index survives."""
    late = delta("text_delta", 0, text="a")
    events = fed(block("text", text=""), block("text", 1, text=""), late, late, delta("text_delta", 1, text="b"))
    assert events[2:] == [whole(late, content=True, more=True), Text(0, "a")] * 2 + [Text(0, "b")]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", Finish(0, "stop", "end_turn")),
        ("max_tokens", Finish(0, "length", "max_tokens")),
        ("model_context_window_exceeded", Finish(0, "length", "model_context_window_exceeded")),
        ("stop_sequence", Finish(0, "stop_sequence")),
        ("tool_use", Finish(0, "tool_calls", "tool_use")),
        ("refusal", Finish(0, "refusal")),
        ("pause_turn", Finish(0, "pause_turn")),
        ("of_the_future", Finish(0, "stop", "of_the_future")),
    ],
)
def test_stop_reasons(reason: str, finish: Finish) -> None:
    """Every stop reason has its canonical one, and the vendor's word beside it where that differs."""
    assert fed(ended(reason))[-1:] == [finish]


def test_end() -> None:
    """Usage is merged from both ends; null does not overwrite, and the finish comes last."""
    event = ended("end_turn", usage={"output_tokens": 9, "input_tokens": None, "cache_read_input_tokens": 4})
    source = {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 4}
    usage = Usage(input_tokens=7, output_tokens=9, cached_tokens=4)
    assert fed(event) == [
        whole(event, more=True),
        UsageReport(usage, DIALECT, source, more=True),
        Finish(0, "stop", "end_turn"),
    ]


def test_several_ends() -> None:
    """Of several message_deltas the first stop reason counts, and usage that stays the same is no news."""
    events = fed(
        ended(None, usage={"output_tokens": 5}), ended("end_turn", usage={"output_tokens": 5}), ended("refusal")
    )
    assert [event.reason for event in events if isinstance(event, Finish)] == ["stop"]
    assert sum(isinstance(event, UsageReport) for event in events) == 1


def test_usage() -> None:
    """All of the prompt counts as input: what a cache read and wrote too."""
    usage = {"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 300, "output_tokens": 5}
    assert read_usage({**usage, "output_tokens_details": {"thinking_tokens": 4}}) == Usage(
        input_tokens=321, output_tokens=5, cached_tokens=20, cache_creation_tokens=300, reasoning_tokens=4
    )
    assert read_usage({"input_tokens": True, "output_tokens": -1, "output_tokens_details": []}) == Usage()


def test_ping_and_stop() -> None:
    """A ping says nothing; only message_stop completes an answer, and nothing behind it counts."""
    decoder = EventDecoder()
    assert fed(START, {"type": "ping"}, ended("end_turn"), decoder=decoder)
    assert not decoder.complete
    assert fed({"type": "ping"}, STOP, block("text", text="x"), decoder=decoder) == []
    assert decoder.complete


@pytest.mark.parametrize(
    ("between", "is_end"),
    [((), False), ((stop(),), True), ((ended("tool_use"),), True), ((stop(), block("text", 1, text="")), True)],
)
def test_message_stop_within_a_call(between: tuple[Event, ...], is_end: bool) -> None:
    """Without a stop reason and amid a call's arguments it is how a proxy ends what broke, not an end."""
    decoder = EventDecoder()
    fed(START, tool(), delta("input_json_delta", partial_json='{"a": '), *between, STOP, decoder=decoder)
    assert (decoder.done, decoder.complete) == (is_end, is_end)


def test_unknown_event() -> None:
    """An event of the future is kept whole."""
    event = {"type": "of_the_future", "x": [1]}
    assert fed(event) == [whole(event)]
    assert not is_content(fed(event)[0])


@pytest.mark.parametrize(
    "event",
    [
        START,
        {"type": "message_start"},
        {"type": 1},
        {},
        delta("text_delta", 1, text="a"),
        delta("text_delta", text=1),
        {**delta("text_delta", text="a"), "index": "0"},
        {"type": "content_block_delta", "index": 0},
        stop(1),
        block("text", -1),
        block("text", "0"),
        {"type": "content_block_start", "index": 0, "content_block": {}},
        block("tool_use", id="x"),
        {"type": "message_delta"},
    ],
)
def test_malformed(event: Event) -> None:
    """An event that clients could not place is skipped and counted, and three in a row are a failure."""
    decoder = EventDecoder()
    fed(START, block("text", text=""), decoder=decoder)
    assert fed(event, {"type": "ping"}, event, event, decoder=decoder) == []
    assert decoder.malformed == 3
    with pytest.raises(Malformed):
        fed(event, decoder=decoder)


def test_nothing_before_the_start() -> None:
    """An answer begins with its message_start, else it is none of this protocol."""
    decoder = EventDecoder()
    assert fed({"type": "ping"}, block("text", text="a"), STOP, decoder=decoder) == []
    assert (decoder.malformed, decoder.done) == (2, False)


def test_nothing_after_the_stop_reason() -> None:
    """Content behind the stop reason is malformed."""
    decoder = EventDecoder()
    fed(START, block("text", text=""), ended("end_turn"), decoder=decoder)
    assert fed(delta("text_delta", text="a"), block("text", 1, text="b"), decoder=decoder) == []
    assert decoder.malformed == 2


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ({"type": "error", "error": {"type": "overloaded_error"}}, {"type": "overloaded_error"}),
        ({"type": "error"}, {"type": "error"}),
        ({"error": "no"}, "no"),
    ],
)
def test_error(event: Event, body: Any) -> None:
    """What stands before an error in the stream is delivered; then the error is raised with its body."""
    decoder = EventDecoder()
    text = block("text", text="")
    assert fed(START, text, delta("text_delta", text="a"), event, decoder=decoder)[-1:] == [Text(0, "a")]
    with pytest.raises(InStreamError) as caught:
        decoder.feed([])
    assert caught.value.body == body
    with pytest.raises(InStreamError):
        fed(event, decoder=EventDecoder())
