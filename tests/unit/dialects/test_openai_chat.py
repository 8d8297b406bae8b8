"""Requests of the chat dialect: what is understood, and what is refused by name."""

import json
from typing import Any

import pytest

from gateway.core.chat import ImagePart, OpaquePart, TextPart, Tool, ToolCallPart, ToolResultPart
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
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage"),
    ],
)
def test_refused(members: dict[str, Any], param: str) -> None:
    """What Atlas relies on is checked, and the refusal names the member at fault."""
    with pytest.raises(RequestError) as caught:
        request(**members)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert param in caught.value.message
