"""Recorded traffic of Ollama: the decoder reads what the official client's own types read."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from ollama import ChatResponse, GenerateResponse

from gateway.core.events import Finish, Reasoning, SourceEvent, Text, ToolCall, UsageReport
from gateway.providers._ollama_lines import OllamaDecoder
from gateway.upstream.lines import LineDecoder
from tests.support.recordings import Recording, recorded

streams = pytest.mark.parametrize("recording", recorded("ollama", "stream"))


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says."""

    text: str
    thinking: str
    calls: list[tuple[str, Any]]
    reason: str | None
    tokens: tuple[int, int] | None


def by_client(body: bytes, path: str) -> Said:
    """As the official client accumulates it: its types, line by line."""
    kind = ChatResponse if path == "/api/chat" else GenerateResponse
    parts: list[Any] = [kind(**json.loads(line)) for line in body.splitlines()]
    messages = [part.message if isinstance(part, ChatResponse) else part for part in parts]
    texts = [getattr(part, "content" if path == "/api/chat" else "response") for part in messages]
    calls = [(call.function.name, call.function.arguments) for part in messages for call in _calls(part)]
    last = parts[-1]
    assert last.done
    counts = (last.prompt_eval_count, last.eval_count)
    return Said(
        text="".join(text or "" for text in texts),
        thinking="".join(part.thinking or "" for part in messages),
        calls=calls,
        reason="tool_calls" if calls else last.done_reason,
        tokens=None if counts == (None, None) else (counts[0] or 0, counts[1] or 0),
    )


def _calls(message: Any) -> list[Any]:
    return list(getattr(message, "tool_calls", None) or ())


def by_events(events: list[SourceEvent]) -> Said:
    """As the events say it."""
    finishes = [event.reason for event in events if isinstance(event, Finish)]
    usages = [event.usage for event in events if isinstance(event, UsageReport)]
    assert len(finishes) == 1
    assert len(usages) <= 1
    return Said(
        text="".join(event.text for event in events if isinstance(event, Text)),
        thinking="".join(event.text for event in events if isinstance(event, Reasoning)),
        calls=[(str(event.name), json.loads(event.arguments)) for event in events if isinstance(event, ToolCall)],
        reason=finishes[0],
        tokens=(usages[0].input_tokens, usages[0].output_tokens) if usages else None,
    )


def decoded(body: bytes, size: int) -> list[SourceEvent]:
    """The events of a body that comes in pieces of this many bytes."""
    framing, decoder = LineDecoder(), OllamaDecoder()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    events = [event for piece in pieces for event in decoder.feed(framing.feed(piece))]
    events += decoder.feed(framing.flush())
    assert decoder.done
    assert decoder.malformed == 0
    return events


@streams
def test_stream(recording: Recording) -> None:
    """Text, thoughts, calls, reason and counts are those that the client reads, in pieces of any size."""
    exchange = recording.load()
    events = decoded(exchange.body, len(exchange.body))
    assert by_events(events) == by_client(exchange.body, exchange.path)
    for size in (1, 7, 64, 1021):
        assert decoded(exchange.body, size) == events


@streams
def test_a_line_short_is_no_whole_answer(recording: Recording) -> None:
    """Without its last line no recording is complete."""
    lines = recording.load().body.splitlines()
    decoder = OllamaDecoder()
    decoder.feed(lines[:-1])
    assert not decoder.complete


@pytest.mark.parametrize("recording", recorded("ollama", "json"))
def test_answer_that_was_not_streamed(recording: Recording) -> None:
    """An answer in one object is a stream of one line."""
    exchange = recording.load()
    assert by_events(decoded(exchange.body, 64)) == by_client(exchange.body, exchange.path)
