"""Anthropic's recorded streams lose nothing in the adapter's decoder: the official SDK is the judge.

The SDK puts together the recorded events, and once more what can be rebuilt from the decoder's events: every source
event that was kept whole, and a plain delta of the open block for each canonical event that stands alone. The two
messages are equal member by member, unknown members included; so are the events themselves, but for pings.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event

from gateway.core.events import Extra, Finish, Reasoning, SourceEvent, Text, ToolCall, UsageReport
from gateway.providers._anthropic_events import EventDecoder
from gateway.upstream.sse import SSEDecoder
from tests.support.recordings import Recording, recorded

UNSAID = {"ping", "message_stop"}
REASONS = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


def source_events(body: bytes) -> list[dict[str, Any]]:
    """The recorded events of the body's first message; one recording holds two."""
    events: list[dict[str, Any]] = []
    for line in body.decode().splitlines():
        if line.startswith("data:"):
            events.append(json.loads(line.removeprefix("data:")))
            if events[-1]["type"] == "message_stop":
                break
    return events


def decoded(body: bytes, size: int) -> tuple[list[SourceEvent], EventDecoder]:
    """The decoder's events of a body in pieces of `size` bytes."""
    framing, decoder = SSEDecoder(), EventDecoder()
    events: list[SourceEvent] = []
    for at in range(0, len(body), size):
        events += decoder.feed(framing.feed(body[at : at + size]))
        if decoder.done:
            break
    return events, decoder


def rebuilt(events: list[SourceEvent]) -> Iterator[dict[str, Any]]:
    """Anthropic's events again, as a client of the same dialect is to get them."""
    index, chunk = -1, list[SourceEvent]()
    for event in events:
        chunk.append(event)
        if getattr(event, "more", False):
            continue
        whole = [each.patch for each in chunk if isinstance(each, Extra)]
        if whole:
            index = whole[0]["index"] if whole[0]["type"] == "content_block_start" else index
            yield whole[0]
        else:
            assert len(chunk) == 1
            yield {"type": "content_block_delta", "index": index, "delta": delta(chunk[0])}
        chunk.clear()


def delta(event: SourceEvent) -> dict[str, Any]:
    """A canonical event as the delta that it was."""
    match event:
        case Text(text=text):
            return {"type": "text_delta", "text": text}
        case Reasoning(text=text):
            return {"type": "thinking_delta", "thinking": text}
        case ToolCall(arguments=arguments, id=None):
            return {"type": "input_json_delta", "partial_json": arguments}
        case _:
            raise AssertionError(event)


def accumulated(events: list[dict[str, Any]]) -> Any:
    """The message that the SDK makes of events."""
    message, buffers = None, dict[int, bytes]()
    for event in events:
        if event["type"] not in UNSAID:
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)  # type: ignore[arg-type]
    return message


def dumped(message: Any) -> Any:
    """All members; the SDK warns of blocks that only its beta types know."""
    return message.model_dump(warnings=False)


@pytest.mark.parametrize("recording", recorded("anthropic", "stream"))
def test_stream(recording: Recording) -> None:
    """In pieces of any size the decoder keeps what the SDK accumulates, in its own dialect and for others."""
    body = recording.load().body
    source = source_events(body)
    message = accumulated(source)
    for size in (len(body), 7, 1):
        events, decoder = decoded(body, size)
        assert (decoder.done, decoder.malformed) == (True, 0)
        assert list(rebuilt(events)) == [event for event in source if event["type"] not in UNSAID]
        assert dumped(accumulated(list(rebuilt(events)))) == dumped(message)
        says_the_same(events, message)


def says_the_same(events: list[SourceEvent], message: Any) -> None:
    """The canonical events say what other dialects can say of the message."""
    text = "".join(block.text for block in message.content if block.type == "text")
    assert "".join(event.text for event in events if isinstance(event, Text)) == text
    thoughts = "".join(block.thinking for block in message.content if block.type == "thinking")
    assert "".join(event.text for event in events if isinstance(event, Reasoning)) == thoughts
    used = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert calls(events) == used
    assert [event.reason for event in events if isinstance(event, Finish)] == [REASONS[message.stop_reason]]
    usage = [event.usage for event in events if isinstance(event, UsageReport)][-1]
    cached, created = message.usage.cache_read_input_tokens, message.usage.cache_creation_input_tokens
    assert usage.output_tokens == message.usage.output_tokens
    assert (usage.cached_tokens, usage.cache_creation_tokens) == (cached, created)
    assert usage.input_tokens == message.usage.input_tokens + (cached or 0) + (created or 0)


def calls(events: list[SourceEvent]) -> list[tuple[str | None, str | None, Any]]:
    """Each tool call with its parsed arguments."""
    fragments = [event for event in events if isinstance(event, ToolCall)]
    begun = [event for event in fragments if event.id is not None]
    joined = ["".join(event.arguments for event in fragments if event.index == call.index) for call in begun]
    return [(call.id, call.name, json.loads(text)) for call, text in zip(begun, joined, strict=True)]


@pytest.mark.parametrize("recording", recorded("anthropic", "stream"))
def test_cut(recording: Recording) -> None:
    """No part of a recording is a complete answer."""
    body = recording.load().body
    end = body.index(b'"message_stop"', body.index(b"event: message_stop") + 20)
    for part in (body[:end], body[: end // 2], body[: body.rindex(b"event: message_delta", 0, end)]):
        _, decoder = decoded(part, len(part))
        assert not decoder.complete
