"""Parsing of messages bodies: canonical fields, what only this dialect can say, and refusals that name the member."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from gateway.core.errors import RequestError
from gateway.dialects.anthropic_messages import UNSAMPLED, parse, parse_counting

HI: list[Any] = [{"role": "user", "content": "hi"}]
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}


def parsed(headers: dict[str, str] | None = None, /, **members: Any) -> ChatRequest:
    """The request of a good body with these members."""
    body = {"model": "m", "max_tokens": 9, "messages": HI, **members}
    return parse(msgspec.json.encode({name: value for name, value in body.items() if value is not ...}), headers or {})


def refused(headers: dict[str, str] | None = None, /, **members: Any) -> RequestError:
    """The refusal of such a body."""
    with pytest.raises(RequestError) as caught:
        parsed(headers, **members)
    return caught.value


def turn(*blocks: dict[str, Any], role: str = "user") -> ChatRequest:
    """A request of one turn."""
    return parsed(messages=[{"role": role, "content": list(blocks)}])


def test_whole_request() -> None:
    """Every member with a canonical field is in it."""
    request = parsed(
        {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"},
        system="Be brief.",
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 2048},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    body = request.body
    assert request == ChatRequest(
        dialect="anthropic_messages",
        model="m",
        messages=(
            Message(role="system", parts=(TextPart(text="Be brief."),)),
            Message(role="user", parts=(TextPart(text="hi"),)),
        ),
        stream=True,
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        effort="high",
        thinking_tokens=2048,
        stop=("END",),
        tools=(Tool(name="f", description="d", parameters={"type": "object"}, strict=True),),
        tool_choice="f",
        parallel_tool_calls=False,
        schema={"type": "object"},
        body=body,
        headers={"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"},
    )


def test_blocks() -> None:
    """Text, images, calls, results and thoughts have canonical parts; what they cannot say is none of them."""
    request = parsed(
        system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image", "source": PNG}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1]}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": True,
                        "content": [
                            {"type": "text", "text": "no"},
                            {"type": "image", "source": {"type": "url", "url": "http://i/1.png"}},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "toolu_2", "content": "yes"},
                    {"type": "tool_result", "tool_use_id": "toolu_3"},
                ],
            },
            {"role": "system", "content": "from now on"},
        ],
    )
    assert request.messages == (
        Message(role="system", parts=(TextPart(text="a"), TextPart(text="b"))),
        Message(role="user", parts=(TextPart(text="t"), ImagePart(url="data:image/png;base64,aGk="))),
        Message(
            role="assistant",
            parts=(
                ReasoningPart(text="hm", signature="s"),
                ReasoningPart(text=""),
                ToolCallPart(id="toolu_1", name="f", arguments='{"a":[1]}'),
            ),
        ),
        Message(
            role="user",
            parts=(
                ToolResultPart(id="toolu_1", text="no", images=(ImagePart(url="http://i/1.png"),), is_error=True),
                ToolResultPart(id="toolu_2", text="yes"),
                ToolResultPart(id="toolu_3", text=""),
            ),
        ),
        Message(role="system", parts=(TextPart(text="from now on"),)),
    )
    assert request.own == ()


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
        {"type": "search_result", "source": "s", "title": "t", "content": []},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "a_new_one"},
    ],
)
def test_blocks_of_this_dialect_alone(block: dict[str, Any]) -> None:
    """A block that no other dialect has is kept whole, as an opaque part, and refused there by its caller's path."""
    request = parsed(system="Be brief.", messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, block]}])
    assert request.messages[1].parts[1] == OpaquePart(kind=block["type"], data=block)
    assert request.own == ("messages.0.content.1",)


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits.0"),
        ({"a_new_one": 0}, "a_new_one"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools.0"),
        ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}, "tools.0.defer_loading"),
        ({"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]}, "tools.0.input_examples"),
        ({"tool_choice": {"type": "auto", "x": 1}}, "tool_choice.x"),
        ({"tool_choice": {"type": "tool", "name": "auto"}}, "tool_choice.name"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "adaptive", "display": "sideways"}}, "thinking.display"),
        ({"output_config": {"x": 1}}, "output_config.x"),
        ({"output_config": {"effort": "heroic"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
        ({"messages": [{**HI[0], "x": 1}]}, "messages.0.x"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "t", "x": 1}]}]},
            "messages.0.content.0.x",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "document"}]}],
                    }
                ]
            },
            "messages.0.content.0.content.0",
        ),
    ],
)
def test_what_only_this_dialect_can_say(members: dict[str, Any], path: str) -> None:
    """Members that change the answer and have no canonical field are listed, so that no other dialect drops them."""
    assert parsed(**members).own == (path,)


@pytest.mark.parametrize(
    "members",
    [
        {"metadata": {"user_id": "u"}},
        {"service_tier": "auto", "inference_geo": "us", "speed": "fast", "user_profile_id": "p"},
        {"cache_control": {"type": "ephemeral"}},
        {"diagnostics": {"previous_message_id": None}},
        {"thinking": {"type": "adaptive", "display": "summarized"}},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"tools": [{"type": "custom", "name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["direct"], "eager_input_streaming": True}]},
        {"container": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "t", "citations": []}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "t", "citations": None}]}]},
    ],
)
def test_hints(members: dict[str, Any]) -> None:
    """What changes no answer goes to Anthropic as it is, and keeps nobody else from answering."""
    request = parsed(**members)
    assert request.own == ()
    assert members.items() <= request.body.items()


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": ...}, "model"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.source"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
            "messages.0.content.0.source.media_type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}]},
            "messages.0.content.0.input",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages.0.content.0.tool_use_id"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "image", "source": PNG}]}, "system.0.type"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 0.5}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences.0"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools.0"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tools": [{"type": 5}]}, "tools.0.type"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "f"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_refusals(members: dict[str, Any], param: str) -> None:
    """What is wrong is a 400 that names the member, in the dialect's own notation."""
    error = refused(**members)
    assert (error.status, error.param) == (400, param)
    assert param in error.message


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_by_version(name: str) -> None:
    """Sampling parameters are refused from the version on that has none, and fine before it and without a version."""
    assert refused({"anthropic-version": UNSAMPLED}, **{name: 1}).param == name
    assert parsed({"anthropic-version": "2023-06-01"}, **{name: 1}).own == ()
    assert parsed(**{name: 1}).own == ()
    assert parsed({"anthropic-version": UNSAMPLED}, **{name: None}).own == ()


@pytest.mark.parametrize(
    ("members", "effort", "tokens"),
    [
        ({"thinking": {"type": "disabled"}}, "none", None),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "none", None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max", None),
        ({"thinking": {"type": "adaptive"}}, None, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, None, 1024),
    ],
)
def test_thinking(members: dict[str, Any], effort: str | None, tokens: int | None) -> None:
    """How hard and how long to think is canonical."""
    request = parsed(**members)
    assert (request.effort, request.thinking_tokens) == (effort, tokens)


def test_format_where_it_was_before() -> None:
    """The schema of an answer is understood also where the beta had it."""
    request = parsed(output_format={"type": "json_schema", "schema": {"type": "object"}})
    assert (request.schema, request.own) == ({"type": "object"}, ())
    assert refused(output_format={"type": "json_schema"}).param == "output_format.schema"


@pytest.mark.parametrize(("kind", "choice"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_tool_choice(kind: str, choice: str) -> None:
    """The words for which tool may be called are translated."""
    request = parsed(tool_choice={"type": kind, "disable_parallel_tool_use": False})
    assert (request.tool_choice, request.parallel_tool_calls) == (choice, True)


def test_counting_needs_no_limit() -> None:
    """A body whose tokens are counted says nothing of the answer."""
    assert parse_counting(b'{"model":"m","messages":[{"role":"user","content":"x"}]}').max_output_tokens is None


_LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "text", "user", "image", "tool", "a.b"])
_NAMES = st.sampled_from(
    [
        "model", "messages", "system", "role", "content", "type", "text", "source", "url", "data", "media_type",
        "tools", "name", "input", "id", "input_schema", "tool_use_id", "tool_choice", "thinking", "display",
        "budget_tokens",
        "output_config", "format", "schema", "effort", "stop_sequences", "max_tokens", "a.b", "",
    ]
)  # fmt: skip
_KINDS = st.sampled_from(
    ["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "custom", "enabled", "json_schema"]
)
_JSON = st.recursive(
    _LEAVES | _KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_NAMES, _JSON, max_size=8), st.sampled_from([{}, {"model": "m", "max_tokens": 1}]))
@example({"messages": [{"role": "user", "content": [{"type": "text", "text": "", "a.b": 1}]}], "tools": [{"": 1}]}, {})
def test_any_json_is_parsed_or_refused(members: dict[str, Any], good: dict[str, Any]) -> None:
    """Whatever JSON object is sent is a request or a refusal that names a member; nothing else is raised."""
    body = {"messages": HI, **members, **good}
    refusal = None
    try:
        request = parse(msgspec.json.encode(body))
    except RequestError as error:
        refusal = error
    else:
        assert request.body == body
    assert refusal is None or (refusal.status == 400 and refusal.param is not None)
