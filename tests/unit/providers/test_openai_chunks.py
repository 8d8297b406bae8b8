"""What chunks of OpenAI-compatible hosts mean, one peculiarity a test."""

import json
import time
from typing import Any

import pytest

from gateway.core.events import Extra, Finish, Reasoning, Refusal, SourceEvent, Text, ToolCall, UsageReport
from gateway.core.usage import Usage
from gateway.providers._openai_calls import Calls
from gateway.providers._openai_chunks import DIALECT, ChunkDecoder, read_usage
from gateway.providers._reading import InStreamError, Malformed


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **members: Any) -> bytes:
    """One chunk of choice 0; `members` are its envelope's."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return json.dumps({"id": "x", "choices": [choice], **members}).encode()


def calls(*fragments: dict[str, Any]) -> bytes:
    """One chunk with fragments of tool calls."""
    return chunk({"tool_calls": list(fragments)})


def fragment(
    arguments: str, index: int | None = None, call_id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """One fragment of a tool call."""
    given = {"index": index, "id": call_id}
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {**{key: value for key, value in given.items() if value is not None}, "function": function}


def events(*payloads: bytes) -> list[SourceEvent]:
    """All events of a stream."""
    return ChunkDecoder().feed(list(payloads))


def called(*payloads: bytes) -> list[tuple[int, str | None, str | None, str]]:
    """The calls of a stream, put together: index, id, name, arguments."""
    found: dict[int, tuple[int, str | None, str | None, str]] = {}
    for event in events(*payloads):
        assert isinstance(event, ToolCall)
        if event.index in found:
            assert event.id is None
            assert event.name is None
            index, call_id, name, arguments = found[event.index]
            found[index] = (index, call_id, name, arguments + event.arguments)
        else:
            found[event.index] = (event.index, event.id, event.name, event.arguments)
    return list(found.values())


def test_parallel_calls_by_index() -> None:
    """Interleaved fragments go to their call."""
    assert called(
        calls(fragment("", 0, "a", "f"), fragment("", 1, "b", "g")),
        calls(fragment("{1", 0)),
        calls(fragment("{2", 1), fragment("}", 0)),
        calls(fragment("}", 1)),
    ) == [(0, "a", "f", "{1}"), (1, "b", "g", "{2}")]


def test_calls_of_custom_tools() -> None:
    """A call of a custom tool stays as it came, id and type with it, and is counted among the others."""
    began = {"index": 1, "id": "b", "type": "custom", "custom": {"name": "p", "input": ""}}
    further = {"index": 1, "custom": {"input": "print("}}
    found = events(
        calls(fragment("{}", 0, "a", "f")),
        calls(began),
        calls(further),
        calls(fragment("{}", 2, "c", "g")),
        chunk(reason="tool_calls"),
    )
    assert [event for event in found if isinstance(event, ToolCall)] == [
        ToolCall(0, 0, "{}", "a", "f"),
        ToolCall(0, 2, "{}", "c", "g"),
    ]
    patches = [event.patch for event in found if isinstance(event, Extra) and event.content]
    assert patches == [{"delta": {"tool_calls": [began]}}, {"delta": {"tool_calls": [further]}}]


def test_parallel_calls_that_all_say_index_0() -> None:
    """A new id begins a new call, whatever its index, and what follows belongs to it."""
    assert called(
        calls(fragment("", 0, "a", "f")),
        calls(fragment("{1}", 0)),
        calls(fragment("", 0, "b", "g")),
        calls(fragment("{2}", 0)),
    ) == [(0, "a", "f", "{1}"), (1, "b", "g", "{2}")]


def test_calls_without_index() -> None:
    """Calls are told apart by id, or by their place, where a host leaves the index out."""
    assert called(calls(fragment("{1}", None, "a", "f"), fragment("{2}", None, "b", "g"))) == [
        (0, "a", "f", "{1}"),
        (1, "b", "g", "{2}"),
    ]


def test_id_on_every_fragment() -> None:
    """An id that is repeated, or empty, begins nothing."""
    assert called(
        calls(fragment("{", 0, "a", "f")), calls(fragment("1", 0, "a", "f")), calls(fragment("}", 0, ""))
    ) == [(0, "a", "f", "{1}")]


def test_an_id_on_every_fragment_that_is_new_each_time() -> None:
    """A fragment without a name goes on with the call of its index, whatever id it brings: hosts make them up anew."""
    assert called(
        calls(fragment("", 0, "a1", "f")),
        calls(fragment("{1", 0, "a2")),
        calls(fragment("", 1, "b1", "g")),
        calls(fragment("}", 0, "a3"), fragment("{}", 1, "b2")),
    ) == [(0, "a1", "f", "{1}"), (1, "b1", "g", "{}")]


def test_whole_calls_without_ids() -> None:
    """Hosts without ids send calls whole, each as index 0: they are two calls, with ids that a client can answer by."""
    found = called(calls(fragment('{"a": 1}', 0, "", "f")), calls(fragment('{"a": 2}', 0, "", "f")))
    assert [call[2:] for call in found] == [("f", '{"a": 1}'), ("f", '{"a": 2}')]
    ids = [call[1] for call in found]
    assert len({*ids}) == 2
    assert all(ids)
    assert found == called(calls(fragment('{"a": 1}', 0, "", "f")), calls(fragment('{"a": 2}', 0, "", "f")))


def test_a_name_on_every_fragment_without_ids() -> None:
    """While the arguments are no whole object, a repeated name begins nothing."""
    ((index, call_id, *rest),) = called(calls(fragment('{"a":', 0, "", "f")), calls(fragment(" 1}", 0, "", "f")))
    assert (index, bool(call_id), rest) == (0, True, ["f", '{"a": 1}'])


def test_a_name_on_each_of_very_many_fragments() -> None:
    """Looking whether the arguments are whole takes no time that grows with their square (it took 4 s here)."""
    choice, begun = Calls(0, "id"), time.process_time()
    for said in ('{"a":"', *["abcd"] * 32_000, '"}', "\n"):
        choice.take(0, None, "f", said)
    assert time.process_time() - begun < 1
    assert choice.take(0, None, "g", "{}")[0] == 1


def test_a_name_that_comes_late() -> None:
    """A call is said when its name is known, or the answer is over: nobody can run it before."""
    assert called(calls(fragment("{", 0, "a")), calls(fragment("1", 0, None, "f")), calls(fragment("}", 0))) == [
        (0, "a", "f", "{1}")
    ]
    assert events(calls(fragment("{}", 0, "a")), chunk({}, "tool_calls")) == [
        ToolCall(0, 0, "{}", "a", more=True),
        Finish(0, "tool_calls"),
    ]


def test_sparse_indexes() -> None:
    """Numbers are dense in the order of appearance."""
    assert [call[0] for call in called(calls(fragment("", 3, "a", "f")), calls(fragment("", 7, "b", "g")))] == [0, 1]


def test_arguments_as_an_object() -> None:
    """Arguments that a host sends as JSON instead of text become text."""
    (call,) = called(calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}))
    assert json.loads(call[3]) == {"x": 1}


def test_choices_number_their_calls_apart() -> None:
    """Each choice counts from 0."""
    both = {"choices": [{"index": n, "delta": {"tool_calls": [fragment("", 0, f"c{n}", "f")]}} for n in (0, 1)]}
    found = [event for event in events(json.dumps(both).encode()) if isinstance(event, ToolCall)]
    assert [(event.choice, event.index) for event in found] == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("said", "reason", "source"),
    [
        ("stop", "stop", None),
        ("length", "length", None),
        ("tool_calls", "tool_calls", None),
        ("content_filter", "content_filter", None),
        ("function_call", "tool_calls", "function_call"),
        ("model_length", "length", "model_length"),
        ("eos", "stop", "eos"),
        ("sensitive", "content_filter", "sensitive"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter", "content_filter: PROHIBITED_CONTENT"),
        ("MAX_TOKENS", "length", "MAX_TOKENS"),
        ("something_new", "stop", "something_new"),
    ],
)
def test_finish(said: str, reason: Any, source: str | None) -> None:
    """A vendor's own word for an end is understood, and kept."""
    assert events(chunk({}, said)) == [Finish(0, reason, source)]


@pytest.mark.parametrize("said", ["abort", "network_error", "insufficient_system_resource", "error"])
def test_a_finish_that_is_a_failure(said: str) -> None:
    """A host that breaks an answer off by its finish reason has failed, though `[DONE]` follows."""
    decoder = ChunkDecoder()
    assert decoder.feed([chunk({"content": "a"}), chunk({}, said), b"[DONE]"]) == [Text(0, "a")]
    with pytest.raises(InStreamError):
        decoder.feed([])
    assert not decoder.complete


def test_a_list_of_parts() -> None:
    """Thoughts and text that come as a list of parts are told to other dialects, behind the list for this one."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]
    assert events(chunk({"content": parts})) == [
        Extra(DIALECT, {"delta": {"content": parts}}, 0, more=True, content=True),
        Reasoning(0, "hm", more=True),
        Text(0, "a"),
    ]


def test_everything_in_one_chunk() -> None:
    """Role, text, finish and usage in one chunk are its events in this order, with content before the finish."""
    found = events(chunk({"role": "assistant", "content": "hi"}, "stop", usage={"prompt_tokens": 1}))
    assert [type(event) for event in found] == [Extra, Text, Finish, UsageReport]
    assert [event.more for event in found] == [True, True, True, False]


def test_reasoning_keeps_its_name() -> None:
    """Each host's member for reasoning is remembered; of two with the same text one is canonical, both are kept."""
    assert events(chunk({"reasoning": "a"}), chunk({"reasoning_content": "b"})) == [
        Reasoning(0, "a", "reasoning"),
        Reasoning(0, "b", "reasoning_content"),
    ]
    twice = events(chunk({"reasoning": "a", "reasoning_content": "a"}))
    assert twice == [
        Extra(DIALECT, {"delta": {"reasoning_content": "a"}}, 0, more=True, content=True),
        Reasoning(0, "a", "reasoning"),
    ]


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        ({"audio": {"data": "AAA="}}, True),
        ({"content": [{"type": "thinking"}]}, True),
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None}, False),
    ],
)
def test_content_of_the_dialects_own(delta: dict[str, Any], said: bool) -> None:
    """A part of the answer that has no canonical form is content all the same; a role is none."""
    (extra,) = events(chunk(delta))
    assert isinstance(extra, Extra)
    assert extra.content is said


def test_the_answer_so_far_in_every_chunk() -> None:
    """A host that repeats the whole message with each delta does not fill the log with the square of its answer."""
    said = [{"index": 0, "delta": {"content": text}, "message": {"content": so_far}} for text, so_far in
            (("a", "a"), ("b", "ab"), ("c", "abc"))]  # fmt: skip
    said.append({"index": 0, "message": {"content": "abc"}, "finish_reason": "stop"})
    assert events(*(json.dumps({"choices": [choice]}).encode() for choice in said)) == [
        Text(0, "a"),
        Text(0, "b"),
        Text(0, "c"),
        Finish(0, "stop"),
    ]


def test_pings() -> None:
    """What proxies send to keep a silent stream alive says nothing, however often it comes."""
    pings = [b"", b"{}", b'{"type": "ping"}'] * 4
    decoder = ChunkDecoder()
    assert decoder.feed([*pings, chunk({"content": "a"}), *pings, chunk({}, "stop")]) == [
        Text(0, "a"),
        Finish(0, "stop"),
    ]
    assert decoder.malformed == 0


def test_refusal() -> None:
    """A refusal is not text."""
    assert events(chunk({"refusal": "no"})) == [Refusal(0, "no")]


def test_role_once() -> None:
    """A role on every chunk is said once; a null one not at all."""
    found = events(*(chunk({"role": "assistant", "content": letter}) for letter in "abc"))
    assert sum(isinstance(event, Extra) for event in found) == 1
    assert events(chunk({"role": None, "content": "a"}), chunk({"role": None, "content": "b"})) == [
        Text(0, "a"),
        Text(0, "b"),
    ]


def test_null_members() -> None:
    """Null and empty members that the SDKs default to are dropped."""
    quiet = {"content": "a", "refusal": None, "tool_calls": None, "function_call": None, "reasoning_content": ""}
    assert events(chunk(quiet, logprobs=None)) == [Extra(DIALECT, {"logprobs": None}, more=True), Text(0, "a")]


def test_envelope_once() -> None:
    """What every chunk repeats around its choices is in the log once, until it changes."""
    found = events(*(chunk({"content": "a"}, service_tier=tier) for tier in ("x", "x", "y", "y")))
    assert [event.patch for event in found if isinstance(event, Extra)] == [
        {"service_tier": "x"},
        {"service_tier": "y"},
    ]


def test_azure_first_chunk() -> None:
    """A first chunk without choices is content of nobody, and its members are kept."""
    first = json.dumps({"choices": [], "prompt_filter_results": [1]}).encode()
    assert events(first) == [Extra(DIALECT, {"prompt_filter_results": [1]})]


def test_usage_on_every_chunk() -> None:
    """Cumulative usage is reported when it changes, and not when it is null or the same."""
    usages = [{"completion_tokens": 1}, {"completion_tokens": 1}, None, {"completion_tokens": 2}]
    found = events(*(chunk({"content": "a"}, usage=usage) for usage in usages))
    assert [event.usage.output_tokens for event in found if isinstance(event, UsageReport)] == [1, 2]


@pytest.mark.parametrize(
    ("source", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(input_tokens=3, output_tokens=4)),
        ({"prompt_tokens": None, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": True, "prompt_tokens_details": [], "completion_tokens_details": 5}, Usage()),
        ({"prompt_tokens_details": {"cached_tokens": 2}}, Usage(cached_tokens=2)),
        ({"completion_tokens_details": {"reasoning_tokens": 7}}, Usage(reasoning_tokens=7)),
        ({}, Usage()),
    ],
)
def test_usage(source: dict[str, Any], usage: Usage) -> None:
    """Counts are read by their names; what is missing or no count is none."""
    assert read_usage(source) == usage


def test_complete() -> None:
    """A body may end after the marker, or when every choice that began is finished."""
    decoder = ChunkDecoder()
    assert not decoder.complete
    decoder.feed([chunk({"content": "a"})])
    assert not decoder.complete
    decoder.feed([chunk({}, "stop")])
    assert decoder.complete
    decoder.feed([json.dumps({"choices": [{"index": 1, "delta": {"content": "b"}}]}).encode()])
    assert not decoder.complete
    decoder.feed([b"[DONE]", chunk({"content": "late"})])
    assert decoder.complete
    assert decoder.done


@pytest.mark.parametrize(
    ("arguments", "is_end"),
    [
        ((), True),
        ((" ",), True),
        (("{}",), True),
        (('{"a": ', "1}"), True),
        (('{"a": ', "1"), False),
        (("{",), False),
        (('{"a": 1}', "}"), False),
    ],
)
def test_the_marker_within_a_call(arguments: tuple[str, ...], is_end: bool) -> None:
    """`[DONE]` without a finish reason is an end, which some hosts leave it at, but not amid a call's arguments."""
    decoder = ChunkDecoder()
    decoder.feed([
        calls({"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}),
        *(calls({"index": 0, "function": {"arguments": part}}) for part in arguments),
        b"[DONE]",
    ])  # fmt: skip
    assert (decoder.done, decoder.complete) == (is_end, is_end)


def test_cut_arguments_with_a_finish_reason() -> None:
    """What a model made of its arguments is not judged when the host says that the answer is over."""
    decoder = ChunkDecoder()
    cut = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
    decoder.feed([calls(cut), chunk({}, "tool_calls"), b"[DONE]"])
    assert decoder.done


def test_malformed_among_good() -> None:
    """A malformed chunk is skipped and counted; three in a row are the end, after what stood before them."""
    decoder = ChunkDecoder()
    bad, good = b"{oops", chunk({"content": "a"})
    assert decoder.feed([bad, bad, good, bad, bad, good]) == [Text(0, "a"), Text(0, "a")]
    assert decoder.malformed == 4
    assert decoder.feed([good, bad, bad, bad, good]) == [Text(0, "a")]
    with pytest.raises(Malformed, match="3 malformed"):
        decoder.feed([])


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": "none"},
        {"choices": [1]},
        {"choices": [{"index": -1, "delta": {}}]},
        {"choices": [{"index": 10**12, "delta": {"content": "a"}}]},
        {"choices": [{"index": "0", "delta": {}}]},
        {"choices": [{"index": True, "delta": {"content": "a"}}]},
        {"choices": [{"index": 0, "delta": "text"}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": ["x"]}}]},
        {"choices": [], "huge": 10**30},
        {"id": "x"},
        [],
        None,
        "text",
    ],
)
def test_malformed(odd: Any) -> None:
    """What is no chunk is counted as none, and gives no event."""
    decoder = ChunkDecoder()
    assert decoder.feed([json.dumps(odd).encode()]) == []
    assert decoder.malformed == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "x"}},
        {"error": "x"},
        {"error": {"message": "x"}, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]},
        {"choices": [{"index": 0, "delta": {}, "error": {"message": "x"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]},
        {"object": "error", "message": "x", "type": "InternalServerError", "code": 500},
    ],
)
def test_error_in_stream(payload: dict[str, Any]) -> None:
    """An error inside the stream is an error, in each of the vendors' shapes, after the text before it."""
    decoder = ChunkDecoder()
    assert decoder.feed([chunk({"content": "a"}), json.dumps(payload).encode(), b"[DONE]"]) == [Text(0, "a")]
    with pytest.raises(InStreamError):
        decoder.feed([])
    assert not decoder.done
