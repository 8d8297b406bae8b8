"""One flat JSON schema, without references and branches: how it is read, and its smallest string and number.

Anybody may have written the schema, so every member is checked where it is read; what is malformed is a `SchemaError`.
"""

import math
import sys
from fractions import Fraction
from typing import Any, TypeAlias, cast

Json: TypeAlias = Any
Members: TypeAlias = dict[str, Any]

_MAX_COUNT = 1_000
_MAX_NUMBER = sys.float_info.max

_TELLTALE = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_PYTHON: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uri-reference": "/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


class SchemaError(ValueError):
    """No instance was found; the message says what stood in the way."""


def fits(value: Json, flat: Members) -> bool:
    """Whether a value given by the schema itself keeps to the schema's other keywords; containers by type only."""
    if "enum" in flat and not any(same(value, allowed) for allowed in elements(flat["enum"], "enum")):
        return False
    if "type" in flat and not any(_is(value, type_) for type_ in types(flat)):
        return False
    if _is(value, "number"):
        low, high = _bounds(flat)
        step = fraction(flat["multipleOf"], "multipleOf") if "multipleOf" in flat else None
        exact = fraction(value, "value")
        return _within(exact, low, high) and (not step or exact % step == 0)
    if isinstance(value, str):
        return whole(flat, "minLength", 0) <= len(value) <= whole(flat, "maxLength", len(value))
    return True


def first_fitting(flat: Members) -> Json:
    """The first value of the enum that keeps to the other keywords."""
    others = {key: value for key, value in flat.items() if key != "enum"}
    for value in elements(flat["enum"], "enum"):
        if fits(value, others):
            return value
    raise SchemaError("no value of the enum fits the rest of the schema")


def _is(value: Json, type_: str) -> bool:
    if isinstance(value, bool):
        return type_ == "boolean"
    fractional = isinstance(value, float) and not value.is_integer()
    return not (fractional and type_ == "integer") and isinstance(value, _PYTHON.get(type_, ()))


def same(left: Json, right: Json) -> bool:
    """Equality as JSON has it: `1` is `1.0`, but not `true`."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def types(flat: Members) -> list[str]:
    """The types that an instance may have; where none is named, those that the keywords speak of."""
    if "type" in flat:
        return [_known(type_) for type_ in listed(flat["type"])]
    return [type_ for type_, keys in _TELLTALE.items() if any(key in flat for key in keys)] or ["object"]


def _known(type_: Json) -> str:
    if not isinstance(type_, str) or type_ not in _PYTHON:
        raise SchemaError(f"unknown type {type_!r}")
    return type_


def string(flat: Members) -> Json:
    """An example of the format if its length is allowed, else as few letters as are allowed."""
    least, most = whole(flat, "minLength", 0), whole(flat, "maxLength", _MAX_COUNT)
    if least > most:
        raise SchemaError("minLength is more than maxLength")
    text = _FORMATS.get(str(flat.get("format")), "")
    return text if least <= len(text) <= most else "a" * least


def number(flat: Members) -> Json:
    """Zero, or the allowed number nearest to it; whole where that is allowed."""
    low, high = _bounds(flat)
    step = _step(flat)
    near = max(low[0], Fraction(0)) if low else Fraction(0)
    near = min(high[0], near) if high else near
    grid = step or Fraction(1)
    below = math.floor(near / grid) * grid
    candidates = [below, below + grid, below - grid]
    if step is None and low and high:
        candidates.append((low[0] + high[0]) / 2)
    for value in candidates:
        if _within(value, low, high):
            return plain(value)
    raise SchemaError("no number lies between the bounds")


Bound: TypeAlias = tuple[Fraction, bool] | None  # the limit, and whether it is itself allowed


def _bounds(flat: Members) -> tuple[Bound, Bound]:
    """The tightest lower and upper bound."""
    return _bound(flat, "minimum", "exclusiveMinimum", 1), _bound(flat, "maximum", "exclusiveMaximum", -1)


def _bound(flat: Members, inclusive: str, exclusive: str, sign: int) -> Bound:
    # OpenAPI 3.0 and draft 4 write `exclusiveMinimum: true` beside `minimum`.
    strict = flat.get(exclusive)
    found = [(fraction(flat[inclusive], inclusive), strict is not True)] if inclusive in flat else []
    if strict is not None and not isinstance(strict, bool):
        found.append((fraction(strict, exclusive), False))
    return max(found, key=lambda bound: (sign * bound[0], not bound[1]), default=None)


def _within(value: Fraction, low: Bound, high: Bound) -> bool:
    above = low is None or value > low[0] or (low[1] and value == low[0])
    below = high is None or value < high[0] or (high[1] and value == high[0])
    return above and below


def _step(flat: Members) -> Fraction | None:
    """What the number must be a multiple of, if anything."""
    step = fraction(flat["multipleOf"], "multipleOf") if "multipleOf" in flat else None
    if step is not None and step <= 0:
        raise SchemaError(f"multipleOf must be more than 0, it is {flat['multipleOf']!r}")
    if "integer" in types(flat) and "number" not in types(flat):
        # The whole multiples of p/q in lowest terms are the multiples of p.
        return Fraction(step.numerator) if step else Fraction(1)
    return step


def plain(value: Fraction) -> int | float:
    """The number as JSON writes it, whole if it is whole."""
    if abs(value) > _MAX_NUMBER:
        raise SchemaError("a number is too large")
    return value.numerator if value.denominator == 1 else float(value)


def members(value: Json, what: str) -> Members:
    """`value` as an object."""
    if not isinstance(value, dict):
        raise SchemaError(f"{what} must be an object, it is {value!r}")
    return cast("Members", value)


def elements(value: Json, what: str) -> list[Json]:
    """`value` as an array."""
    if not isinstance(value, list | tuple):
        raise SchemaError(f"{what} must be an array, it is {value!r}")
    return list(cast("list[Json]", value))


def length(value: Json) -> int:
    """How many items an array has, or members an object; anything else has none."""
    return len(value) if isinstance(value, list | dict) else 0


def listed(value: Json) -> list[Json]:
    """The types of a `type`, which is one word or an array of them."""
    return [value] if isinstance(value, str) else elements(value, "type")


def whole(flat: Members, key: str, otherwise: int) -> int:
    """A count, such as `minItems`; `otherwise` where it is missing."""
    value = flat.get(key, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SchemaError(f"{key} must be a whole number from 0 on, it is {value!r}")
    if key.startswith("min") and value > _MAX_COUNT:
        raise SchemaError(f"{key} must be at most {_MAX_COUNT} here, it is {value!r}")
    return value


def fraction(value: Json, what: str) -> Fraction:
    """`value` as an exact number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise SchemaError(f"{what} must be a number of at most {_MAX_NUMBER!r}, it is {value!r}"[:200])
    # The shortest decimal that reads back as the float is what the schema's author wrote.
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))
