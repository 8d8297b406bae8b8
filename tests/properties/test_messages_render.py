"""Rendering as Anthropic's messages: a pure function of the log, which loses nothing of any dialect."""

import copy
import json
from itertools import chain
from random import Random
from typing import Any, cast

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter

from gateway.core.events import (
    SEMANTIC,
    End,
    Event,
    Finish,
    Reasoning,
    Refusal,
    SourceEvent,
    Start,
    State,
    Text,
    ToolCall,
    decode,
    encode,
    is_content,
)
from gateway.dialects.anthropic_messages_render import Collector, StreamRenderer
from tests.properties.event_streams import answers
from tests.properties.message_streams import Source, decoded, messages
from tests.support.sse import data_frames

Chunks = list[list[SourceEvent]]
_ENDS = st.sampled_from([State.COMPLETED, State.INCOMPLETE, State.FAILED, State.CANCELLED])
_FLAGS = st.fixed_dictionaries({}, optional={"on_cancel": st.just("finish")})
_START = Start("s", "msg_ours", 7, "ours", "anthropic_messages")
_ANY = st.one_of(answers(), messages().map(decoded))
_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def log_of(chunks: Chunks, state: State, **flags: Any) -> list[list[Event]]:
    """A whole log of this dialect."""
    start = Start(_START.sid, _START.wire_id, _START.created, _START.model, _START.dialect, flags)
    return [[start], *cast("list[list[Event]]", chunks), [End(state)]]


def rendered(log: list[list[Event]], renderer: StreamRenderer | None = None) -> list[bytes]:
    """The bytes of each entry."""
    renderer = renderer or StreamRenderer(cast("Start", log[0][0]))
    progress, seq, out = renderer.initial, 0, []
    for entry in log:
        progress, data = renderer.render(progress, entry, 1, seq)
        seq += len(entry)
        out.append(data)
    return out


def shown(log: list[list[Event]]) -> Source:
    """The event objects of a whole stream, each under its own name."""
    frames = data_frames(b"".join(rendered(log)))
    assert all(frame.event == frame.json["type"] for frame in frames)
    return [frame.json for frame in frames]


def collected(log: list[list[Event]]) -> dict[str, Any]:
    """The answer in one object."""
    collector = Collector(cast("Start", log[0][0]))
    for entry in log:
        collector.add(entry)
    return cast("dict[str, Any]", json.loads(collector.body(cast("End", log[-1][-1]))))


def accumulated(events: Source) -> Any:
    """What the official SDK makes of a stream."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        snapshot = accumulate_event(event=cast("Any", event), current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


@given(_ANY, _ENDS, _FLAGS, st.data())
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


@given(_ANY, st.data())
def test_shared(chunks: Chunks, data: st.DataObject) -> None:
    """Two readers of one stream at different places share a renderer without harm."""
    log = log_of(chunks, State.COMPLETED)
    renderer = StreamRenderer(cast("Start", log[0][0]))
    alone = rendered(log)
    places: list[tuple[Any, int]] = [(renderer.initial, 0), (renderer.initial, 0)]
    while any(at < len(log) for _, at in places):
        reader = data.draw(st.sampled_from([n for n, (_, at) in enumerate(places) if at < len(log)]))
        progress, at = places[reader]
        progress, found = renderer.render(progress, log[at], 1, at)
        assert found == alone[at]
        places[reader] = (progress, at + 1)


@given(_ANY, _ENDS, _FLAGS)
def test_nothing_before_content(chunks: Chunks, state: State, flags: dict[str, Any]) -> None:
    """Until the first content not a byte is rendered; with it comes one."""
    log = log_of(chunks, state, **flags)
    first = next((at for at, entry in enumerate(log) if any(map(is_content, entry))), len(log) - 1)
    parts = rendered(log)
    assert not any(parts[:first])
    assert parts[first]


@given(_ANY, _ENDS, _FLAGS)
def test_one_terminal(chunks: Chunks, state: State, flags: dict[str, Any]) -> None:
    """A stream ends with exactly one terminal: `message_stop` for success, an error for everything else."""
    kinds = [event["type"] for event in shown(log_of(chunks, state, **flags))]
    succeeds = state in {State.COMPLETED, State.INCOMPLETE} or (state is State.CANCELLED and "on_cancel" in flags)
    assert kinds.count("message_stop") == succeeds
    assert kinds.count("error") == (not succeeds)
    assert kinds[-1] == ("message_stop" if succeeds else "error")
    if succeeds:
        assert kinds.count("message_start") == 1
        assert kinds.index("message_start") == 0
        assert kinds.count("message_delta") >= 1


@given(_ANY, st.sampled_from([State.COMPLETED, State.INCOMPLETE]))
def test_blocks_follow_each_other(chunks: Chunks, state: State) -> None:
    """Blocks are numbered from 0, one begins when the one before it has ended, and deltas belong to the open one."""
    is_open, begun = False, 0
    for event in shown(log_of(chunks, state)):
        match event:
            case {"type": "content_block_start", "index": index}:
                assert not is_open
                assert index == begun
                is_open, begun = True, begun + 1
            case {"type": "content_block_delta", "index": index}:
                assert is_open
                assert index == begun - 1
            case {"type": "content_block_stop", "index": index}:
                assert is_open
                assert index == begun - 1
                is_open = False
            case _:
                pass
    assert not is_open


@given(messages())
def test_the_same_dialect_comes_back_as_it_was(source: Source) -> None:
    """An Anthropic answer is rendered event for event as it came, but for the message's id and model."""
    events = shown(log_of(decoded(source), State.COMPLETED))
    wanted = copy.deepcopy(source)
    wanted[0]["message"].update(id="msg_ours", model="ours")
    assert events == [*wanted, {"type": "message_stop"}]


@given(messages())
def test_whole_answer_is_the_stream(source: Source) -> None:
    """The answer of `stream: false` is what the official SDK accumulates from the stream, unknown members included."""
    log = log_of(decoded(source), State.COMPLETED)
    streamed = accumulated(shown(log)).model_dump(mode="json", exclude_none=True, warnings=False)
    whole = collected(log)
    for block in streamed["content"]:
        block.pop("parsed_output", None)
    for block, got in zip(streamed["content"], whole["content"], strict=True):
        assert {**got, **block} == got
    assert whole["stop_reason"] == source[-1]["delta"]["stop_reason"]
    assert {**whole["usage"], **streamed["usage"]} == whole["usage"]
    for name, value in source[0]["message"].items():
        if name not in {"id", "model", "content", "usage", "stop_reason"}:
            assert whole[name] == source[-1]["delta"].get(name, value)


@given(answers(), st.sampled_from([State.COMPLETED, State.INCOMPLETE]))
def test_sdk_reads_the_log(chunks: Chunks, state: State) -> None:
    """The official SDK's own accumulation has every letter and call of the first choice of an OpenAI answer."""
    log = log_of([[_without_arguments(event) for event in chunk] for chunk in chunks], state)
    events = shown(log)
    for event in events:
        _EVENT.validate_python(event)
    message = accumulated(events)
    own = [event for entry in log for event in entry if getattr(event, "choice", None) == 0]
    texts = [event.text for event in own if isinstance(event, Text | Refusal)]
    assert "".join(block.text for block in message.content if block.type == "text") == "".join(texts)
    thoughts = [event.text for event in own if isinstance(event, Reasoning)]
    assert "".join(block.thinking for block in message.content if block.type == "thinking") == "".join(thoughts)
    calls = {event.index for event in own if isinstance(event, ToolCall)}
    assert sum(block.type == "tool_use" for block in message.content) == len(calls)
    finished = any(isinstance(event, Finish) for event in own)
    if not finished and not calls and not any(isinstance(event, Refusal) for event in own):
        assert message.stop_reason == ("max_tokens" if state is State.INCOMPLETE else "end_turn")


def _without_arguments(event: SourceEvent) -> SourceEvent:
    """The SDK refuses arguments that are no JSON; `test_interleaved_calls` has some that are."""
    return replace(event, arguments="") if isinstance(event, ToolCall) else event


_ARGUMENTS = st.sampled_from(
    ["{}", '{"a": "}"}', '{"b\\\\": [{"c": "\\\\\\""}, "{"]}', '{"d": {"e": {}}, "f": "\\u00e9]"}']
)


@given(st.lists(_ARGUMENTS, min_size=1, max_size=4), st.integers(0, 2**32))
def test_interleaved_calls(calls: list[str], seed: int) -> None:
    """Tool calls whose fragments come in any order come out one after the other, each with all of its arguments."""
    rng, left = Random(seed), dict(enumerate(calls))
    log: Chunks = []
    begun: set[int] = set()
    while left:
        call = rng.choice(list(left))
        cut = rng.randint(0, len(left[call]))
        named = {} if call in begun else {"id": f"call_{call}", "name": f"f{call}"}
        log += [[ToolCall(0, call, left[call][:cut], **named)], [Text(0, ".")]][: rng.randint(1, 2)]
        begun.add(call)
        left[call] = left[call][cut:]
        if not left[call]:
            del left[call]
    message = accumulated(shown(log_of([*log, [Finish(0, "tool_calls")]], State.COMPLETED)))
    found = {block.name: block.input for block in message.content if block.type == "tool_use"}
    assert found == {f"f{at}": json.loads(arguments) for at, arguments in enumerate(calls)}
    said = "".join(block.text for block in message.content if block.type == "text")
    assert said == "." * sum(isinstance(event, Text) for chunk in log for event in chunk)
    assert message.stop_reason == "tool_use"


def test_semantic_events_are_the_ones_that_begin_a_message() -> None:
    """Every kind of semantic delta begins a message, also an empty one."""
    for event in (Text(0, ""), Reasoning(0, ""), Refusal(0, ""), ToolCall(0, 0, "", "id", "f")):
        assert isinstance(event, SEMANTIC)
        assert shown(log_of([[event]], State.COMPLETED))[0]["type"] == "message_start"
