"""Rendering is a pure function of the log, and the stock SDK reads back what the log says."""

import copy
import json
from itertools import chain
from typing import Any, cast

import httpx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai import OpenAI
from openai._streaming import Stream
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.core.events import (
    SEMANTIC,
    End,
    Event,
    Extra,
    Finish,
    Reasoning,
    Refusal,
    SourceEvent,
    Start,
    State,
    Text,
    ToolCall,
    UsageReport,
    decode,
    encode,
)
from gateway.dialects.openai_chat_render import DONE, Collector, StreamRenderer
from gateway.dialects.openai_merge import accumulate
from tests.properties.event_streams import answers, log_of
from tests.support.sse import data_frames

Chunks = list[list[SourceEvent]]
_FLAGS = st.fixed_dictionaries({}, optional={"include_usage": st.just(value=True), "on_cancel": st.just("finish")})
_ENDS = st.sampled_from([State.COMPLETED, State.INCOMPLETE, State.FAILED, State.CANCELLED])
_CLIENT = OpenAI(api_key="x", base_url="http://nowhere.invalid")


def rendered(log: list[list[Event]], renderer: StreamRenderer | None = None) -> list[bytes]:
    """The bytes of each entry."""
    renderer = renderer or StreamRenderer(cast("Start", log[0][0]))
    progress, seq, out = renderer.initial, 0, []
    for entry in log:
        progress, data = renderer.render(progress, entry, 1, seq)
        seq += len(entry)
        out.append(data)
    return out


def collected(log: list[list[Event]]) -> dict[str, Any]:
    """The answer in one object."""
    collector = Collector(cast("Start", log[0][0]))
    for entry in log:
        collector.add(entry)
    return cast("dict[str, Any]", json.loads(collector.body(cast("End", log[-1][-1]))))


def sdk_chunks(raw: bytes) -> list[ChatCompletionChunk]:
    """What the official SDK makes of a body."""
    response = httpx.Response(200, content=raw, request=httpx.Request("POST", "http://nowhere.invalid"))
    return list(Stream(cast_to=ChatCompletionChunk, response=response, client=_CLIENT))


def folded(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Chunks accumulated into one object, by the rules of the SDK's `accumulate_delta`."""
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        body.update({name: value for name, value in chunk.items() if name != "choices" and value is not None})
        for part in chunk["choices"]:
            choice = choices.setdefault(part["index"], {"message": {}})
            rest = {name: value for name, value in part.items() if name not in {"delta", "index", "finish_reason"}}
            accumulate(choice["message"], part["delta"])
            accumulate(choice, rest)
            choice["finish_reason"] = part["finish_reason"] or choice.get("finish_reason")
    return {**body, "choices": choices}


@given(answers(), _ENDS, _FLAGS, st.data())
def test_pure(chunks: Chunks, state: State, flags: dict[str, Any], data: st.DataObject) -> None:
    """The bytes depend on the events alone: not on how they are grouped, nor on what the renderer did before."""
    log = log_of(chunks, state, **flags)
    before = copy.deepcopy(log)
    whole = b"".join(rendered(log))
    renderer = StreamRenderer(cast("Start", log[0][0]))
    assert b"".join(rendered(log, renderer)) == whole
    assert b"".join(rendered(log, renderer)) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    groups = [log[low:high] for low, high in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    assert b"".join(rendered([list(chain.from_iterable(group)) for group in groups if group], renderer)) == whole
    collected(log)
    assert log == before, "rendering changed the log"
    assert b"".join(rendered([decode(encode(entry)) for entry in log])) == whole


@given(answers(), answers(), st.data())
def test_shared(one: Chunks, two: Chunks, data: st.DataObject) -> None:
    """Two readers of one stream at different places share a renderer without harm."""
    log = log_of(one + two, State.COMPLETED)
    renderer = StreamRenderer(cast("Start", log[0][0]))
    alone = rendered(log)
    places: list[tuple[Any, int]] = [(renderer.initial, 0), (renderer.initial, 0)]
    while any(at < len(log) for _, at in places):
        reader = data.draw(st.sampled_from([n for n, (_, at) in enumerate(places) if at < len(log)]))
        progress, at = places[reader]
        progress, found = renderer.render(progress, log[at], 1, at)
        assert found == alone[at]
        places[reader] = (progress, at + 1)


@given(answers(), _ENDS, _FLAGS)
def test_nothing_before_content(chunks: Chunks, state: State, flags: dict[str, Any]) -> None:
    """Until the first semantic delta not a byte is rendered; with it comes one."""
    log = log_of(chunks, state, **flags)
    first = next(at for at, entry in enumerate(log) if any(isinstance(event, SEMANTIC) for event in entry))
    parts = rendered(log)
    assert not any(parts[:first])
    assert parts[first]


@given(answers(), _ENDS, _FLAGS)
def test_one_terminal(chunks: Chunks, state: State, flags: dict[str, Any]) -> None:
    """A stream ends with exactly one terminal: `[DONE]` for success, an error for everything else."""
    parts = rendered(log_of(chunks, state, **flags))
    data = [frame.data or "" for frame in data_frames(b"".join(parts))]
    succeeds = state in {State.COMPLETED, State.INCOMPLETE} or (state is State.CANCELLED and "on_cancel" in flags)
    errors = [each for each in data if each != "[DONE]" and "error" in json.loads(each)]
    assert data.count("[DONE]") == succeeds
    assert len(errors) == (not succeeds)
    assert data[-1] in {"[DONE]", *errors}
    if succeeds:
        assert parts[-1].endswith(DONE)


@settings(max_examples=150)
@given(answers(), st.sampled_from([State.COMPLETED, State.INCOMPLETE]), _FLAGS)
def test_sdk_reads_the_log(chunks: Chunks, state: State, flags: dict[str, Any]) -> None:
    """The official SDK's own accumulation has every letter, call, finish and usage of the log, choice by choice."""
    log = log_of(chunks, state, **flags)
    reader: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    shown = [chunk for chunk in sdk_chunks(b"".join(rendered(log))) if chunk.choices]  # the SDK needs usage apart
    assume(shown[0].choices[0].index == 0)  # the SDK breaks at a stream that begins with another
    for chunk in shown:
        reader.handle_chunk(chunk)
    final = reader.current_completion_snapshot
    events = [event for entry in log for event in entry]
    for choice in final.choices:
        own = [event for event in events if getattr(event, "choice", None) == choice.index]
        assert (choice.message.content or "") == _joined(own, Text)
        assert (choice.message.refusal or "") == _joined(own, Refusal)
        extra = choice.message.model_extra or {}
        for key in ("reasoning", "reasoning_content"):
            assert extra.get(key, "") == _joined([e for e in own if getattr(e, "key", None) == key], Reasoning)
        calls = [event for event in own if isinstance(event, ToolCall)]
        for index, call in enumerate(choice.message.tool_calls or ()):
            mine = [event for event in calls if event.index == index]
            function = getattr(call, "function")  # noqa: B009
            assert (call.id, function.name) == (mine[0].id, mine[0].name)
            assert function.arguments == "".join(event.arguments for event in mine)
        assert len(choice.message.tool_calls or ()) == len({event.index for event in calls})
        assert choice.message.role == "assistant"
        finishes = [event.reason for event in own if isinstance(event, Finish)]
        usual = "length" if state is State.INCOMPLETE else "tool_calls" if calls else "stop"
        assert choice.finish_reason == (finishes or [usual])[-1]


def _joined(events: list[Event], kind: type) -> str:
    return "".join(getattr(event, "text") for event in events if isinstance(event, kind))  # noqa: B009


@given(answers(), st.sampled_from([State.COMPLETED, State.INCOMPLETE]))
def test_whole_answer_is_the_stream(chunks: Chunks, state: State) -> None:
    """The answer of `stream: false` is what a client puts together from the stream, unknown members included."""
    log = log_of(chunks, state, include_usage=True)
    frames = [frame.json for frame in data_frames(b"".join(rendered(log))) if frame.data != "[DONE]"]
    streamed, whole = folded(frames), collected(log)
    for choice in whole["choices"]:
        parts = streamed["choices"][choice["index"]]
        for call in parts["message"].get("tool_calls", ()):
            del call["index"]
        parts["message"]["content"] = parts["message"].get("content") or None
        choice["message"]["content"] = choice["message"]["content"] or None
        parts.setdefault("logprobs", None)
        assert {**parts, "index": choice["index"]} == choice
    whole["choices"] = streamed["choices"] = []
    assert {**whole, "object": ""} == {**streamed, "object": ""}


@given(answers(), st.booleans())
def test_usage_only_if_asked(chunks: Chunks, asked: bool) -> None:
    """Usage is shown exactly if the client asked: then every chunk has the member, and the last one the last usage."""
    log = log_of(chunks, State.COMPLETED, **({"include_usage": True} if asked else {}))
    frames = [frame.json for frame in data_frames(b"".join(rendered(log))) if frame.data != "[DONE]"]
    reports = [event for entry in log for event in entry if isinstance(event, UsageReport)]
    assert all(("usage" in frame) == asked for frame in frames)
    if asked and reports:
        assert frames[-1]["usage"]["completion_tokens"] == reports[-1].usage.output_tokens
        assert not frames[-1]["choices"]


def test_note_on_a_tool_call() -> None:
    """Unknown members of a tool call's fragment stay in the log as they were when the fragment is rendered."""
    note = {"delta": {"tool_calls": [{"index": 0, "x": {"y": 1}}]}}
    chunk: list[SourceEvent] = [Extra("openai_chat", note, 0, more=True), ToolCall(0, 0, "{}", "call_1", "f")]
    log = log_of([chunk], State.COMPLETED)
    first = rendered(log)
    assert rendered(log) == first
    assert note == {"delta": {"tool_calls": [{"index": 0, "x": {"y": 1}}]}}
    (call,) = collected(log)["choices"][0]["message"]["tool_calls"]
    assert call == {"x": {"y": 1}, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
