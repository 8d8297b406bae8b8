"""Whether a value keeps to a JSON schema: small, and in doubt it says no.

For examples that a schema gives itself: one that fits reads better than the smallest instance. Schemas that are more
than types, members, items, enums and bounds are in doubt.
"""

from gateway.providers import _mock_values as values
from gateway.providers._mock_values import Json, Members

_KNOWN = {
    "type", "enum", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength",
    "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minProperties",
    "maxProperties", "title", "description", "default", "examples", "$schema", "$id",
}  # fmt: skip
_MAX_NESTING = 20


def fits(value: Json, schema: Json, nesting: int = 0) -> bool:
    """Whether `value` is an instance of `schema`, for sure.

    Raises:
        SchemaError: the schema is malformed.
    """
    if isinstance(schema, bool):
        return schema
    flat = values.members(schema, "a schema")
    if nesting > _MAX_NESTING or not flat.keys() <= _KNOWN or not values.fits(value, flat):
        return False
    if isinstance(value, dict):
        return _object_fits(value, flat, nesting)
    if isinstance(value, list):
        counts = values.whole(flat, "minItems", 0) <= len(value) <= values.whole(flat, "maxItems", len(value))
        return counts and all(fits(item, flat.get("items", True), nesting + 1) for item in value)
    return True


def _object_fits(value: Members, flat: Members, nesting: int) -> bool:
    known = values.members(flat.get("properties", {}), "properties")
    others = flat.get("additionalProperties", True)
    if not value.keys() >= set(values.elements(flat.get("required", []), "required")):
        return False
    if not values.whole(flat, "minProperties", 0) <= len(value) <= values.whole(flat, "maxProperties", len(value)):
        return False
    return all(fits(item, known.get(name, others), nesting + 1) for name, item in value.items())
