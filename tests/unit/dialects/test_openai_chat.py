"""Requests of the chat dialect: what is understood, and what is refused by name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.chat import ImagePart, OpaquePart, ReasoningPart, TextPart, Tool, ToolCallPart, ToolResultPart
from gateway.core.errors import RequestError
from gateway.dialects.openai_chat import MAX_CHOICES, parse

HI = [{"role": "user", "content": "hi"}]
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}


def request(**members: Any) -> Any:
    """A request with these members beside the least that is needed."""
    return parse(json.dumps({"model": "m", "messages": HI, **members}).encode())


def test_least() -> None:
    """A model and one turn are a request; the caller's body is kept whole."""
    found = request(vendor={"x": 1})
    assert (found.model, found.dialect, found.stream, found.n) == ("m", "openai_chat", False, 1)
    assert found.messages[0].parts == (TextPart(text="hi"),)
    assert found.body == {"model": "m", "messages": HI, "vendor": {"x": 1}}
    assert found.tool_choice == "auto"
    assert found.schema is None


@pytest.mark.parametrize(
    ("members", "name", "value"),
    [
        ({"n": 3}, "n", 3),
        ({"n": None}, "n", 1),
        ({"max_tokens": 5}, "max_output_tokens", 5),
        ({"max_completion_tokens": 6}, "max_output_tokens", 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_output_tokens", 6),
        ({"temperature": 0}, "temperature", 0),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"stop": "a"}, "stop", ("a",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"tools": [FUNCTION]}, "tools", (Tool(name="f", parameters={"type": "object"}, strict=True),)),
        ({"tools": [{"type": "web_search"}]}, "tools", ()),
        ({"tool_choice": "required"}, "tool_choice", "required"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "f"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice", "auto"),
        ({"response_format": {"type": "text"}}, "schema", None),
        ({"response_format": {"type": "json_object"}}, "schema", {}),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}}, "schema", {"a": 1}),
        ({"response_format": {"type": "grammar"}}, "schema", None),
        ({"stream": True, "stream_options": {"include_usage": True}}, "flags", {"include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": False}}, "flags", {}),
        ({"stream": False, "stream_options": {"include_usage": True}}, "flags", {}),
        ({"stream_options": None}, "flags", {}),
    ],
)
def test_settings(members: dict[str, Any], name: str, value: Any) -> None:
    """A setting is understood in each of its forms."""
    assert getattr(request(**members), name) == value


@pytest.mark.parametrize(
    ("turn", "role", "parts"),
    [
        ({"role": "developer", "content": "a"}, "system", (TextPart(text="a"),)),
        ({"role": "user", "content": []}, "user", ()),
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, "user", (TextPart(text="a"),)),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]},
            "user",
            (ImagePart(url="u", detail="low"),),
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
            "user",
            (OpaquePart(kind="input_audio", data={"type": "input_audio", "input_audio": {}}),),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            "assistant",
            (ToolCallPart(id="c", name="f", arguments="{}"),),
        ),
        ({"role": "assistant", "content": None, "tool_calls": [{"type": "custom"}]}, "assistant", ()),
        ({"role": "assistant", "content": None, "refusal": "no"}, "assistant", (TextPart(text="no"),)),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, "assistant", (TextPart(text="no"),)),
        ({"role": "tool", "tool_call_id": "c", "content": "1"}, "tool", (ToolResultPart(id="c", text="1"),)),
        ({"role": "function", "name": "f", "content": "1"}, "tool", (ToolResultPart(id="", text="1"),)),
    ],
)
def test_turns(turn: dict[str, Any], role: str, parts: tuple[Any, ...]) -> None:
    """A turn has its canonical role and parts."""
    (message,) = request(messages=[turn]).messages
    assert (message.role, message.parts) == (role, parts)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [*HI, {"role": "robot"}]}, "messages[1].role"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"]}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "messages[0].tool_calls[0]"),
        ({"stream": "yes"}, "stream"),
        ({"n": 0}, "n"),
        ({"n": MAX_CHOICES + 1}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stop": [1]}, "stop"),
        ({"stop": {}}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [FUNCTION, {"type": "function", "function": {"name": "g", "strict": 5}}]}, "tools[1].function"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"stream_options": "x"}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_refused(members: dict[str, Any], param: str) -> None:
    """What Atlas relies on is checked, and the refusal names the member at fault."""
    with pytest.raises(RequestError) as caught:
        request(**members)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("members", "name", "value"),
    [
        ({"top_k": 5}, "top_k", 5),
        ({"frequency_penalty": 0.5}, "frequency_penalty", 0.5),
        ({"presence_penalty": -1}, "presence_penalty", -1),
        ({"seed": 7}, "seed", 7),
        ({"reasoning_effort": "high"}, "effort", "high"),
        ({"reasoning_effort": None}, "effort", None),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", False),
    ],
)
def test_settings_of_every_dialect(members: dict[str, Any], name: str, value: Any) -> None:
    """A setting that other dialects have too is canonical, and no hindrance to translation."""
    found = request(**members)
    assert getattr(found, name) == value
    assert found.own == ()


def test_thoughts_and_images_of_tools() -> None:
    """What the assistant thought earlier and images that a tool gave are canonical parts."""
    image = {"type": "image_url", "image_url": {"url": "http://i/1.png"}}
    found = request(
        messages=[
            {"role": "assistant", "reasoning_content": "hm", "content": "so", "annotations": []},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "t"}, image]},
        ]
    )
    assert found.messages[0].parts == (ReasoningPart(text="hm"), TextPart(text="so"))
    assert found.messages[1].parts == (
        ToolResultPart(id="call_1", text="t", images=(ImagePart(url="http://i/1.png"),)),
    )
    assert found.own == ()


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"verbosity": "low"}, "verbosity"),
        ({"reasoning_effort": "heroic"}, "reasoning_effort"),
        ({"a_new_one": 0}, "a_new_one"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{**FUNCTION, "x": 1}]}, "tools[0].x"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "none"}}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0]"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"messages": [{"role": "assistant", "a_new_one": "no"}]}, "messages[0].a_new_one"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": [{"type": "file"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "t", "x": 1}]}]},
            "messages[0].content[0].x",
        ),
    ],
)
def test_what_only_this_dialect_can_say(members: dict[str, Any], path: str) -> None:
    """Members that change the answer and have no canonical field are listed, so that no other dialect drops them."""
    assert request(**members).own == (path,)


@pytest.mark.parametrize(
    "members",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"prompt_cache_key": "k", "safety_identifier": "s", "stream_options": {"include_usage": True}},
        {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"], "verbosity": "medium"},
        {"audio": None},
        {"messages": [{"role": "assistant", "content": "a", "channel": "final", "annotations": [], "index": 0}]},
        {"messages": [{"role": "assistant", "content": None, "refusal": "no"}]},
    ],
)
def test_hints(members: dict[str, Any]) -> None:
    """What changes no answer keeps no provider of another dialect from answering."""
    assert request(**members).own == ()


_LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "text", "user", "tool", "function", "a.b"])
)
_NAMES = st.sampled_from(
    [
        "messages", "role", "content", "type", "text", "image_url", "url", "detail", "tools", "function", "name",
        "arguments", "id", "tool_calls", "tool_choice", "response_format", "json_schema", "schema", "stop", "seed",
        "reasoning_effort", "reasoning_content", "stream_options", "parameters", "logit_bias", "a.b", "",
    ]
)  # fmt: skip
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12
)


@given(
    st.dictionaries(_NAMES, _JSON, max_size=8), st.sampled_from([{}, {"model": "m"}, {"model": "m", "messages": HI}])
)
def test_any_json_is_parsed_or_refused(members: dict[str, Any], good: dict[str, Any]) -> None:
    """Whatever JSON object is sent is a request or a refusal that names a member; nothing else is raised."""
    body = {**members, **good}
    refusal = None
    try:
        found = parse(json.dumps(body).encode())
    except RequestError as error:
        refusal = error
    else:
        assert found.body == body
    assert refusal is None or (refusal.status == 400 and refusal.param is not None)
