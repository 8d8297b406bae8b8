"""Whether a value keeps to a JSON schema: small, and in doubt it says no.

For examples that a schema gives itself: one that fits reads better than the smallest instance. Schemas that are more
than types, members, items, enums and bounds are in doubt.
"""

from collections.abc import Callable

from gateway.providers import _mock_values as values
from gateway.providers._mock_values import Json, Members

_KNOWN = {
    "type", "enum", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength",
    "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minProperties",
    "maxProperties", "title", "description", "default", "examples", "$schema", "$id",
}  # fmt: skip
_MAX_NESTING = 20


def fits(value: Json, schema: Json, compares: Callable[[int], None], nesting: int = 0) -> bool:
    """Whether `value` is an instance of `schema`, for sure; `compares` is told beforehand of so many comparisons.

    Raises:
        SchemaError: the schema is malformed, or whatever `compares` raises.
    """
    if isinstance(schema, bool):
        return schema
    flat = values.members(schema, "a schema")
    compares(1 + values.length(flat.get("enum")) + values.length(flat.get("required")))
    if nesting > _MAX_NESTING or not flat.keys() <= _KNOWN or not values.fits(value, flat):
        return False
    if isinstance(value, dict):
        return _object_fits(value, flat, compares, nesting)
    if isinstance(value, list):
        counts = values.whole(flat, "minItems", 0) <= len(value) <= values.whole(flat, "maxItems", len(value))
        return counts and all(fits(item, flat.get("items", True), compares, nesting + 1) for item in value)
    return True


def _object_fits(value: Members, flat: Members, compares: Callable[[int], None], nesting: int) -> bool:
    known = values.members(flat.get("properties", {}), "properties")
    others = flat.get("additionalProperties", True)
    if not value.keys() >= set(values.elements(flat.get("required", []), "required")):
        return False
    if not values.whole(flat, "minProperties", 0) <= len(value) <= values.whole(flat, "maxProperties", len(value)):
        return False
    return all(fits(item, known.get(name, others), compares, nesting + 1) for name, item in value.items())
