"""Which schemas are asked for with `strict: true`."""

from typing import Any

import pytest

from config.presets import presets
from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.providers._openai_schema import fits_strict
from gateway.providers.openai_chat import Quirks, request_body

CLOSED: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def closed(**properties: Any) -> dict[str, Any]:
    """An object of which every property is required."""
    return {**CLOSED, "properties": properties, "required": list(properties)}


def nested(levels: int) -> dict[str, Any]:
    """Objects within objects."""
    return closed() if levels == 1 else closed(a=nested(levels - 1))


@pytest.mark.parametrize(
    "schema",
    [
        closed(),
        closed(a={"type": "string", "enum": ["x", "y"]}, b={"type": ["integer", "null"], "description": "how many"}),
        closed(a={"type": "array", "items": closed(b={"anyOf": [{"type": "null"}, closed(c={"const": 1})]})}),
        {**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": closed(b={"type": "boolean"})}, "title": "T"},
        nested(10),
    ],
)
def test_what_strict_mode_takes(schema: dict[str, Any]) -> None:
    """Closed objects whose properties are all required, however they stand in one another."""
    assert fits_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {**closed(a={"type": "string"}), "required": []},
        {**closed(a={"type": "string"}), "additionalProperties": True},
        {name: value for name, value in closed(a={"type": "string"}).items() if name != "additionalProperties"},
        {**closed(), "anyOf": [closed()]},
        closed(a={"type": ["object", "null"]}),
        closed(a={"properties": {}}),
        closed(a={"allOf": [{"type": "string"}]}),
        closed(a={"oneOf": [{"type": "string"}]}),
        closed(a={"type": "string", "pattern": "^x"}),
        closed(a={"type": "string", "default": "x"}),
        closed(
            a={"type": "array", "items": {"type": "object", "properties": {"b": {}}, "additionalProperties": False}}
        ),
        {**closed(), "$defs": {"A": {"type": "object"}}},
        closed(a=True),
        {**closed(), "properties": 5},
        {**closed(), "$defs": [closed()]},
        {**closed(), "required": "a"},
        closed(a={"anyOf": 5}),
        closed(a={"type": "array", "items": [{"type": "string"}]}),
        nested(11),
    ],
)
def test_what_strict_mode_refuses(schema: dict[str, Any]) -> None:
    """With these a strict request is an error, and nonsense is the vendor's to judge."""
    assert not fits_strict(schema)


@pytest.mark.parametrize(
    ("preset", "schema", "strict"),
    [
        ("openai", closed(a={"type": "string"}), True),
        ("openai", {"type": "object"}, None),
        ("azure", closed(), True),
        ("openrouter", closed(), True),
        ("mistral", closed(), True),
        ("groq", closed(), None),  # with some models only
    ],
)
def test_the_guarantee_of_another_dialect(preset: str, schema: dict[str, Any], strict: bool | None) -> None:
    """A schema that the caller's own vendor guarantees is guaranteed by a host that can; others get what they know."""
    question = Message(role="user", parts=(TextPart(text="?"),))
    request = ChatRequest(dialect="anthropic_messages", model="m", messages=(question,), schema=schema)
    asked = request_body(request, "gpt", Quirks(**presets()[preset].quirks))["response_format"]["json_schema"]
    assert (asked["schema"], asked.get("strict")) == (schema, strict)
