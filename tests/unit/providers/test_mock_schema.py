"""Smallest instances: valid by a validator that shares no code with the product, small, and bounded in work."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers._mock_schema import smallest
from gateway.providers._mock_values import SchemaError

NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
}


def valid(value: Any, schema: Any, root: Any = None) -> bool:
    """Whether `value` is an instance of `schema`, for the keywords that these tests use."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    return (
        all(rule(value, schema[key]) for key, rule in _PLAIN.items() if key in schema)
        and all(rule(_exact(value), _exact(schema[key])) for key, rule in _NUMERIC.items() if key in schema)
        and (not isinstance(value, dict) or _members_are_valid(value, schema, root))
        and (not isinstance(value, list) or _items_are_valid(value, schema, root))
        and all(valid(value, part, root) for part in schema.get("allOf", ()))
        and any(valid(value, part, root) for part in schema.get("anyOf", (True,)))
        and ("$ref" not in schema or valid(value, _target(root, schema["$ref"]), root))
    )


_PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, want: any(_has_type(value, name) for name in ([want] if isinstance(want, str) else want)),
    "enum": lambda value, want: json.dumps(value) in map(json.dumps, want),
    "const": lambda value, want: json.dumps(value) == json.dumps(want),
    "minLength": lambda value, want: not isinstance(value, str) or len(value) >= want,
    "maxLength": lambda value, want: not isinstance(value, str) or len(value) <= want,
    "minItems": lambda value, want: not isinstance(value, list) or len(value) >= want,
    "required": lambda value, want: not isinstance(value, dict) or set(want) <= set(value),
}
_NUMERIC: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, want: value is None or value >= want,
    "maximum": lambda value, want: value is None or value <= want,
    "exclusiveMinimum": lambda value, want: value is None or value > want,
    "exclusiveMaximum": lambda value, want: value is None or value < want,
    "multipleOf": lambda value, want: value is None or (value / want).denominator == 1,
}


def _exact(value: Any) -> Fraction | None:
    return Fraction(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _members_are_valid(value: dict[str, Any], schema: dict[str, Any], root: Any) -> bool:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(valid(member, known.get(name, others), root) for name, member in value.items())


def _items_are_valid(value: list[Any], schema: dict[str, Any], root: Any) -> bool:
    heads = schema.get("prefixItems", [])
    return all(
        valid(item, heads[at] if at < len(heads) else schema.get("items", True), root) for at, item in enumerate(value)
    )


def _target(root: Any, reference: str) -> Any:
    for name in reference.split("/")[1:]:
        root = root[name]
    return root


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool) or value is None:
        return name == {True: "boolean", False: "boolean", None: "null"}[value]
    if isinstance(value, int | float):
        return name == "number" or (name == "integer" and value == int(value))
    return isinstance(value, {"string": str, "array": list, "object": dict}.get(name, ()))


NUMBERS = st.integers(-50, 50) | st.decimals(-50, 50, places=2).map(float)


@st.composite
def number_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """Bounds that leave room for one multiple at least."""
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    low = draw(st.none() | NUMBERS)
    if low is not None:
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        room = draw(st.integers(41, 80))
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = (0 if low is None else low) + room
    if draw(st.booleans()):
        schema["multipleOf"] = draw(st.sampled_from([1, 2, 7, 0.5, 0.25, 2.5, 20]))
    return schema


SCALARS = (
    number_schemas()
    | st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": st.integers(0, 9)})
    | st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["string", "null"]},
            {"enum": ["a", "b"]},
            {"const": {"k": 1}},
            {"type": "integer", "default": 7},
            {"type": "integer", "default": "seven"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid", "maxLength": 3},
            {"$ref": "#/$defs/node"},
            {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1},
        ]
    )
)


@st.composite
def objects(draw: st.DrawFn, children: st.SearchStrategy[Any]) -> dict[str, Any]:
    """An object with some of its members required."""
    properties = draw(st.dictionaries(st.sampled_from("abcd"), children, max_size=4))
    required = draw(st.permutations(sorted(properties)))[: draw(st.integers(0, 4))]
    strict = {"additionalProperties": False} if draw(st.booleans()) else {}
    return {"type": "object", "properties": properties, "required": required, **strict}


SCHEMAS = st.recursive(
    SCALARS,
    lambda children: (
        objects(children)
        | st.fixed_dictionaries({"type": st.just("array"), "items": children, "minItems": st.integers(0, 3)})
        | st.builds(lambda heads: {"prefixItems": heads, "minItems": len(heads)}, st.lists(children, max_size=3))
        | st.builds(lambda options: {"anyOf": options}, st.lists(children, min_size=1, max_size=3))
        | st.builds(lambda part: {"allOf": [part, {"title": "same"}]}, children)
    ),
    max_leaves=12,
)


@given(SCHEMAS)
def test_instance_is_valid(schema: dict[str, Any]) -> None:
    """What the mock answers is an instance of the schema that was asked for."""
    root = {**schema, "$defs": {"node": NODE}}
    assert valid(smallest(root), root)


@given(number_schemas())
def test_number_is_the_nearest_to_zero_on_its_grid(schema: dict[str, Any]) -> None:
    """No allowed whole multiple is nearer to zero than the one that was chosen."""
    chosen = abs(smallest(schema))
    step = schema.get("multipleOf", 1)
    near = [step * k for k in range(-400, 401) if abs(step * k) < chosen]
    assert not any(valid(candidate, schema) for candidate in near)


KEYWORDS = (
    *("type", "enum", "const", "default", "examples", "allOf", "anyOf", "$ref", "pattern", "format"),
    *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    *("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    *("minimum", "exclusiveMaximum", "multipleOf", "minLength"),
)
NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["#", "string"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from((*KEYWORDS, "x")), inner, max_size=4),
    max_leaves=20,
)


@given(NONSENSE)
def test_malformed_schema_is_a_schema_error(schema: Any) -> None:
    """Whatever a client sends as a schema, nothing but a `SchemaError` comes of it."""
    with suppress(SchemaError):
        json.dumps(smallest(schema))


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({}, {}),
        (True, {}),
        ({"type": "object"}, {}),
        ({"type": "string"}, ""),
        ({"type": "string", "minLength": 3}, "aaa"),
        ({"type": "string", "format": "date-time"}, "2000-01-01T00:00:00Z"),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "minimum": 4, "multipleOf": 1.5}, 6),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "minimum": 0.25, "maximum": 0.25}, 0.25),
        ({"minimum": 2}, 2),
        ({"type": ["null", "string"]}, None),
        ({"enum": ["b", "a"]}, "b"),
        ({"enum": [1, "a"], "type": "string"}, "a"),
        ({"const": None}, None),
        ({"type": "boolean"}, False),
        ({"type": "string", "default": "blue"}, "blue"),
        ({"type": "string", "default": None}, ""),
        ({"type": "string", "examples": ["red", "blue"]}, "red"),
        ({"type": "array", "items": {"type": "integer"}, "examples": [[1, 2]]}, [1, 2]),
        ({"type": "array", "items": {"type": "integer"}, "examples": [[1, "b"]]}, []),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1, "examples": [[1, 2]]}, []),
        ({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "examples": [{"a": 2}]}, {"a": 1}),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "examples": [{"a": 2}]},
            {"a": 2},
        ),
        ({"type": "string", "pattern": "^x+$", "examples": ["xx"]}, "xx"),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 3}, [1, 2, 2]),
        ({"items": [{"const": 1}], "minItems": 1}, [1]),
        ({"anyOf": [False, {"pattern": "x"}, {"type": "null"}]}, None),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, 1),
        ({"allOf": [{"type": "number", "minimum": 2}, {"type": "integer", "minimum": 5}]}, 5),
        ({"allOf": [{"enum": [1, 2, 3]}, {"enum": [3, 2]}]}, 2),
        ({"allOf": [{"multipleOf": 4}, {"multipleOf": 6}, {"minimum": 1}]}, 12),
        (
            {
                "allOf": [{"prefixItems": [{"minimum": 1}]}, {"prefixItems": [{"minimum": 2}, {"const": 0}]}],
                "minItems": 2,
            },
            [2, 0],
        ),
        ({"allOf": [{"type": "number", "maximum": -1}, {"type": "integer", "maximum": -4}]}, -4),
        ({"type": "object", "minProperties": 2, "additionalProperties": {"const": 1}}, {"key1": 1, "key2": 1}),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"const": 9}}}, 9),
        ({"$ref": "#/$defs/n", "default": 3, "$defs": {"n": {"type": "integer", "default": 4}}}, 3),
    ],
)
def test_example(schema: Any, instance: Any) -> None:
    """Each keyword has the instance that a reader of the specification expects."""
    assert json.dumps(smallest(schema)) == json.dumps(instance)


def test_required_members_alone_in_the_schema_s_order() -> None:
    """Members come as the schema lists them, not as `required` does, and optional ones are left out."""
    schema = {
        "properties": {"b": {"type": "null"}, "o": {"type": "string"}, "a": {"type": "null"}},
        "required": ["x", "a", "b"],
    }
    assert list(smallest(schema)) == ["b", "a", "x"]


def test_allof_joins_objects() -> None:
    """An object put together from parts has what each part requires, and a member of both keeps to both."""
    schema = {
        "allOf": [
            {"$ref": "#/$defs/base"},
            {"properties": {"id": {"minimum": 5}, "name": {"type": "string"}}, "required": ["name"]},
        ],
        "$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
    }
    assert smallest(schema) == {"id": 5, "name": ""}


def test_recursion_ends_at_once() -> None:
    """A linked list has one node, a tree no children."""
    tree = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["children"],
    }
    assert smallest({"$ref": "#/$defs/node", "$defs": {"node": NODE}}) == {"value": 0, "next": None}
    assert smallest(tree) == {"children": []}


def test_first_branch_is_taken_even_if_it_is_larger() -> None:
    """An optional nested object is shown, not nulled, so that a caller sees its shape."""
    address = {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]}
    schema = {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}], "$defs": {"address": address}}
    assert smallest(schema) == {"street": ""}


def test_reference_is_entered_again_where_nothing_else_works() -> None:
    """A node that must have a next one has exactly one."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    schema = {"allOf": [{"$ref": "#/$defs/node"}], "required": ["next"], "$defs": {"node": node}}
    assert smallest(schema) == {"next": {}}


def _nested(depth: int, key: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "minItems": 1, "items": schema} if key == "items" else {key: [schema]}
    return schema


def _wide(width: int) -> dict[str, Any]:
    """Each level requires two of the next one: 2 ** width places."""
    levels = {
        f"l{at}": {
            "properties": {name: {"$ref": f"#/$defs/l{at + 1}"} for name in "ab"},
            "required": ["a", "b"],
        }
        for at in range(width)
    }
    return {"$ref": "#/$defs/l0", "$defs": {**levels, f"l{width}": {"type": "null"}}}


@pytest.mark.parametrize(
    "schema",
    [
        False,
        None,
        {"type": "text"},
        {"type": []},
        {"type": "string", "pattern": "^x$"},
        {"not": {}},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "integer", "minimum": 1, "exclusiveMaximum": 2, "multipleOf": 3},
        {"type": "number", "multipleOf": 0},
        {"type": "integer", "minimum": 10**400},
        {"type": "number", "minimum": float("inf")},
        {"type": "integer", "multipleOf": 10**308, "exclusiveMinimum": 10**308},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"type": "integer"}},
        {"type": "array", "contains": {"const": 1}},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "object", "required": ["a"], "maxProperties": 0},
        {"type": "object", "required": ["a"], "propertyNames": {"const": "b"}},
        {"enum": []},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#"},
        {"properties": {"self": {"$ref": "#"}}, "required": ["self"]},
        pytest.param(_nested(5_000, "items"), id="deep"),
        pytest.param(_nested(5_000, "allOf"), id="deep composition"),
        pytest.param({"allOf": [{"title": "x"}] * 5_000}, id="long composition"),
        pytest.param(_wide(40), id="exponential"),
    ],
)
def test_refused(schema: Any) -> None:
    """What has no instance, or none that can be found with bounded work, is refused in words."""
    with pytest.raises(SchemaError, match=r"\w"):
        smallest(schema)


_LONG = list(range(60_000))


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"allOf": [{"enum": _LONG}, {"enum": [-1, *_LONG[::-1]]}]}, id="two enums"),
        pytest.param({"allOf": [{"type": ["null"] * 60_000}, {"type": ["object"] * 60_000}]}, id="two lists of types"),
        pytest.param({"type": "string", "enum": _LONG}, id="enum of another type"),
        pytest.param({"type": "array", "default": _LONG, "items": {"enum": _LONG[::-1]}}, id="default and enum"),
        pytest.param(
            {
                "type": "array", "minItems": 1000, "items": {"$ref": "#/one"},
                "one": {"type": "array", "default": _LONG[:3000], "items": {"enum": _LONG[3000:6000]}},
            },
            id="default and enum again and again",
        ),
        pytest.param(
            {"allOf": [{"$ref": "#/one"}] * 1000, "one": {"enum": _LONG[:1000]}}, id="an enum with itself"
        ),
        pytest.param({"type": "array", "minItems": 1000, "items": {"type": ["null"] * 60_000}}, id="types, each time"),
        pytest.param(
            {"type": "array", "minItems": 1000, "items": {"type": "object", "required": ["a"] * 60_000}},
            id="required, each time",
        ),
    ],
)  # fmt: skip
def test_work_does_not_grow_with_the_square_of_a_schema(schema: Any) -> None:
    """A few hundred kilobytes of schema take a fraction of a second, whatever comes of it: these would take minutes."""
    begun = time.process_time()
    with suppress(SchemaError):
        smallest(schema)
    assert time.process_time() - begun < 1.5


def test_nesting_of_honest_schemas_is_not_refused() -> None:
    """Forty nested arrays are an unusual schema, not an attack."""
    assert json.dumps(smallest(_nested(40, "items"))) == "[" * 40 + "null" + "]" * 40
