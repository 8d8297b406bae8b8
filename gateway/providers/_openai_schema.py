"""Which JSON schemas OpenAI's strict mode takes: the subset where an answer is held to the schema. Pure.

After https://platform.openai.com/docs/guides/structured-outputs, "Supported schemas" (November 2026): every object
closed, every property required, at most ten levels. With a schema beyond that `strict` is an error. Keywords that the
page does not name for all models are taken for unsupported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAX_LEVELS = 10
_KEYWORDS = frozenset(
    {
        "type", "title", "description", "properties", "required", "additionalProperties", "items", "enum", "const",
        "anyOf", "$ref", "$defs", "definitions",
    }
)  # fmt: skip


def fits_strict(schema: Mapping[str, Any]) -> bool:
    """Whether a schema can be asked for with `strict: true`."""
    return schema.get("type") == "object" and "anyOf" not in schema and _fits(schema, 1)


def _fits(schema: object, level: int) -> bool:
    match schema:
        case dict() if level <= _MAX_LEVELS and _KEYWORDS.issuperset(schema):
            return _is_closed(schema) and all(_fits(each, level + 1) for each in _within(schema))
        case _:
            return False


def _is_closed(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    if "properties" not in schema and kind != "object" and not (isinstance(kind, list) and "object" in kind):
        return True
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return (
        schema.get("additionalProperties") is False
        and isinstance(properties, dict)
        and isinstance(required, list)
        and all(name in required for name in properties)
    )


def _within(schema: dict[str, Any]) -> Iterator[object]:
    """The schemas that stand in this one."""
    for name in ("properties", "$defs", "definitions"):
        named = schema.get(name, {})
        yield from named.values() if isinstance(named, dict) else [None]
    either = schema.get("anyOf", [])
    yield from either if isinstance(either, list) else [None]
    if "items" in schema:
        yield schema["items"]
