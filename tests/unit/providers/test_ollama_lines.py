"""The decoder of Ollama's lines: what each line says, and what ends a stream."""

import json
from typing import Any

import pytest

from gateway.core.events import Finish, Reasoning, SourceEvent, Text, ToolCall, UsageReport
from gateway.core.usage import Usage
from gateway.providers._ollama_lines import OllamaDecoder
from gateway.providers._reading import InStreamError, Malformed


def line(**members: Any) -> bytes:
    """One line as the server writes it."""
    return json.dumps({"model": "m", "created_at": "2026-11-23T05:00:00Z", "done": False, **members}).encode()


def said(content: str = "", **members: Any) -> bytes:
    """A line with a message."""
    return line(message={"role": "assistant", "content": content, **members})


def last(**members: Any) -> bytes:
    """The last line."""
    return line(message={"role": "assistant", "content": ""}, done=True, **members)


def call(name: str = "f", **members: Any) -> dict[str, Any]:
    """A tool call."""
    return {"function": {"name": name, "arguments": {}}, **members}


def events(*payloads: bytes) -> list[SourceEvent]:
    """What one read with these lines gives."""
    return OllamaDecoder().feed(list(payloads))


def test_text_and_end() -> None:
    """Words are text, and the last line has the counts and the reason; nothing after it is read."""
    decoder = OllamaDecoder()
    found = decoder.feed([said("a"), said("b"), last(done_reason="stop", prompt_eval_count=7, eval_count=2), said("c")])
    usage = UsageReport(Usage(input_tokens=7, output_tokens=2), "ollama", more=True)
    assert found == [Text(0, "a"), Text(0, "b"), usage, Finish(0, "stop")]
    assert decoder.done
    assert decoder.complete


def test_nothing_but_the_last_line_ends_a_stream() -> None:
    """Without `done` a body is cut, whatever was said."""
    decoder = OllamaDecoder()
    decoder.feed([said("a"), line(message={"content": "b"}, done_reason="stop")])
    assert not decoder.complete


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ({"done_reason": "stop"}, Finish(0, "stop")),
        ({"done_reason": "length"}, Finish(0, "length")),
        ({"done_reason": "load"}, Finish(0, "stop", "load")),
        ({"done_reason": ""}, Finish(0, "stop")),
        ({}, Finish(0, "stop")),
    ],
)
def test_reasons(reason: dict[str, str], finish: Finish) -> None:
    """Reasons that have a name keep it; others are an end with the server's word beside it."""
    assert events(last(**reason)) == [finish]


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({}, None),
        ({"prompt_eval_count": 5}, Usage(input_tokens=5)),
        ({"eval_count": 5}, Usage(output_tokens=5)),
        (
            {"prompt_eval_count": 9, "prompt_eval_cached_count": 4, "eval_count": 1},
            Usage(input_tokens=9, cached_tokens=4, output_tokens=1),
        ),
        ({"prompt_eval_count": -1, "eval_count": "7"}, None),
        ({"prompt_eval_count": 10**30, "eval_count": 1}, Usage(output_tokens=1)),
    ],
)
def test_counts(counts: dict[str, Any], usage: Usage | None) -> None:
    """A count that is left out is 0 beside another; without any there is no report, and nonsense is no count."""
    assert [event.usage for event in events(last(**counts)) if isinstance(event, UsageReport)] == [usage] * bool(usage)


def test_thinking_comes_before_the_words_of_its_line() -> None:
    """Thoughts and words of one line are one chunk, thoughts first."""
    assert events(said("a", thinking="t")) == [Reasoning(0, "t", "thinking", more=True), Text(0, "a")]
    assert events(said(thinking="t")) == [Reasoning(0, "t", "thinking")]
    assert events(said()) == []


def test_tool_calls_are_numbered_over_lines() -> None:
    """Calls of one line and of several are numbered densely, and an answer that called ends with that."""
    found = events(said(tool_calls=[call("a"), call("b")]), said(tool_calls=[call("c")]), last(done_reason="stop"))
    calls = [event for event in found if isinstance(event, ToolCall)]
    assert [(each.index, each.name) for each in calls] == [(0, "a"), (1, "b"), (2, "c")]
    assert len({each.id for each in calls}) == 3
    assert found[-1] == Finish(0, "tool_calls")
    assert events(said(tool_calls=[call()]), last(done_reason="length"))[-1] == Finish(0, "length")


def test_ids_of_calls() -> None:
    """The server's ids are kept, and one that comes twice is replaced; those that are made are always the same."""
    lines = [said(tool_calls=[call(id="call_x"), call(id="call_x"), call()])]
    ids = [event.id for event in events(*lines) if isinstance(event, ToolCall)]
    assert ids[0] == "call_x"
    assert len(set(ids)) == 3
    assert ids == [event.id for event in events(*lines) if isinstance(event, ToolCall)]
    other = said("later", tool_calls=[call()])
    assert events(said(tool_calls=[call()])) != events(other)[1:], "two turns share an id"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (b'{"n": 12345678901234567890123, "b":1,"a":[ ]}', '{"n": 12345678901234567890123, "b":1,"a":[ ]}'),
        (b'"{\\"a\\":1}"', '{"a":1}'),
        (b'""', "{}"),
        (b"null", "{}"),
    ],
)
def test_arguments_keep_their_spelling(arguments: bytes, text: str) -> None:
    """Arguments are the JSON of the line to the letter; hosts that send text or nothing are understood."""
    raw = b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":%s}}]}}' % arguments
    assert [event.arguments for event in events(raw) if isinstance(event, ToolCall)] == [text]


def test_an_error_comes_behind_what_was_said() -> None:
    """Words before an error line of the same read are delivered; the next call says what went wrong."""
    decoder = OllamaDecoder()
    assert decoder.feed([said("a"), b'{"error":"the runner died"}', said("b")]) == [Text(0, "a")]
    with pytest.raises(InStreamError) as caught:
        decoder.feed([])
    assert caught.value.body == "the runner died"
    with pytest.raises(InStreamError):
        OllamaDecoder().feed([b'{"error":"m"}'])


BAD = [
    b"oops", b"[]", b"null", b"{}", b'{"status":"pulling"}', b'{"message":"none"}', b'{"message":{"content":1}}',
    b'{"message":{"content":"\xff"}}', b"[" * 50_000,
    b'{"message":{"tool_calls":[{"function":{}}]}}',
    b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a":"\xff"}}}]}}',
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_malformed_lines(bad: bytes) -> None:
    """A malformed line among good ones is skipped and counted; three in a row are another protocol."""
    decoder = OllamaDecoder()
    assert decoder.feed([bad, bad, said("a"), bad, bad, said("b")]) == [Text(0, "a"), Text(0, "b")]
    assert decoder.malformed == 4
    with pytest.raises(Malformed):
        decoder.feed([bad, bad, bad])


def test_lines_of_the_older_route() -> None:
    """A host that answers as `/api/generate` does is understood."""
    assert events(line(response="a"), line(response="", thinking="t")) == [
        Text(0, "a"),
        Reasoning(0, "t", "thinking"),
    ]
