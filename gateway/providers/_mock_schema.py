"""A smallest valid instance of a JSON schema: what the mock answers when a structured answer is asked for.

Searched, not computed: the first alternative of `anyOf`, `oneOf`, a type list or an enum that leads to an instance is
taken, optional members are left out, a `$ref` is not entered again while inside it unless nothing else works. A schema
that needs what is not understood here (`pattern`, `not`, `if`, ...) is refused by name, not answered wrongly.

Oddities, on purpose:
1. A `default` or first example is preferred to the smallest value, if it fits for sure: it reads better.
2. `oneOf` is taken as `anyOf`; that the other branches exclude the instance is not checked.
3. Without type or any typed keyword an instance is `{}`: `{}` as a schema is how dialects ask for any JSON object.
4. What `allOf` joins is read as one object: `additionalProperties` of one part says nothing of the other's members.
5. `format` gives way to `minLength` and `maxLength`, which validators enforce and `format` they often do not.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, count, zip_longest
from typing import TypeAlias, cast
from urllib.parse import unquote

from gateway.providers import _mock_values as values
from gateway.providers._mock_fits import fits
from gateway.providers._mock_values import Json, Members, SchemaError

Path: TypeAlias = tuple[str, ...]

_MAX_STEPS = 2_000
_MAX_COMPARISONS = 2_000_000
_MAX_NESTING = 200
_MERGED_IN_A_STEP = 50
_MAX_REENTRIES = 2
_NESTED = "."
_TOO_LARGE = "the schema is too large or nested too deeply"

_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "const")
_REFUSED = ("not", "if", "$dynamicRef", "unevaluatedProperties", "unevaluatedItems")
_REFUSED_IN = {"array": ("contains",), "string": ("pattern",)}
_REFUSED_WITH_MEMBERS = ("dependentRequired", "dependentSchemas", "dependencies", "propertyNames", "patternProperties")


def smallest(schema: Json) -> Json:
    """A smallest instance of `schema`: plain dicts, lists, strings, numbers, booleans, None.

    Raises:
        SchemaError: when there is none, the schema is malformed, or it asks for what is not understood.
    """
    search = _Search(schema)
    found: SchemaError | None = None
    for search.reentries in range(_MAX_REENTRIES + 1):
        try:
            return search.build(schema, ())
        except SchemaError as error:
            found = found or error
        except RecursionError as error:
            raise SchemaError(_TOO_LARGE) from error
    raise found or SchemaError("no instance")


class _Search:
    """Attempts with bounded work in all; a `path` has one entry for each schema and reference around a place."""

    def __init__(self, root: Json) -> None:
        self.reentries = 0
        self._root = root
        self._steps = self._comparisons = 0
        self._why = "the schema admits nothing"
        self._builders: dict[str, Callable[[Members, Path], Json]] = {
            "object": self._object,
            "array": self._array,
            "string": lambda flat, _path: values.string(flat),
            "number": lambda flat, _path: values.number(flat),
            "integer": lambda flat, _path: values.number(flat),
            "boolean": lambda _flat, _path: False,
            "null": lambda _flat, _path: None,
        }

    def build(self, schema: Json, path: Path) -> Json:
        first: SchemaError | None = None
        for flat, inner in self._alternatives(schema, path):
            try:
                return self._instance(flat, inner)
            except SchemaError as error:
                first = first or error
        raise first or SchemaError(self._why)

    # Composition: every way to read a schema as one without references and branches.

    def _alternatives(self, schema: Json, path: Path) -> Iterator[tuple[Members, Path]]:
        path = (*path, _NESTED)
        self._spend(1, path)
        if schema is False:
            return
        members = {} if schema is True else values.members(schema, "a schema")
        groups = [[part] for part in values.elements(members.get("allOf", []), "allOf")]
        groups += [values.elements(members[key], key) for key in ("anyOf", "oneOf") if key in members]
        if "$ref" in members:
            reference = str(members["$ref"])
            if path.count(reference) > self.reentries:
                self._why = f"{reference!r} contains itself without an end"
                return
            path = (*path, reference)
            groups.insert(0, [_resolve(self._root, reference)])
        base = {key: value for key, value in members.items() if key not in _COMPOSED}
        if "const" in members:
            base = _merged(base, {"enum": [members["const"]]})
        yield from self._combined(base, groups, path)

    def _combined(self, base: Members, groups: list[list[Json]], path: Path) -> Iterator[tuple[Members, Path]]:
        if not groups:
            yield base, path
            return
        for option in groups[0]:
            for flat, inner in self._alternatives(option, path):
                self._compares(_to_merge(base, flat))
                merged = _merged(base, flat)
                self._spend(len(_properties(merged)) // _MERGED_IN_A_STEP, inner)
                yield from self._combined(merged, groups[1:], inner)

    def _spend(self, steps: int, path: Path) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS or len(path) > _MAX_NESTING:
            raise SchemaError(_TOO_LARGE)

    def _compares(self, times: int) -> None:
        self._comparisons += times
        if self._comparisons > _MAX_COMPARISONS:
            raise SchemaError(_TOO_LARGE)

    # Instances of one flat schema.

    def _instance(self, flat: Members, path: Path) -> Json:
        self._compares(sum(map(values.length, flat.values())))  # each builder looks at all types, names, members
        for value in _preferred(flat):
            if self._suits(value, flat):
                return value
        if "enum" in flat:
            return values.first_fitting(flat)
        first: SchemaError | None = None
        for type_ in values.types(flat):
            try:
                _refuse(flat, _REFUSED + _REFUSED_IN.get(type_, ()))
                return self._builders[type_](flat, path)
            except SchemaError as error:
                first = first or error
        raise first or SchemaError("no type is left that all parts of the schema allow")

    def _suits(self, value: Json, flat: Members) -> bool:
        """Simple values have the schema's own keywords to keep to, no more; an empty list or object says little."""
        if isinstance(value, dict | list):
            return bool(value) and fits(value, flat, self._compares)
        self._compares(1 + values.length(flat.get("enum")))
        return values.fits(value, flat)

    def _object(self, flat: Members, path: Path) -> Json:
        known = _properties(flat)
        names = _names(flat, known)
        if names:
            _refuse(flat, _REFUSED_WITH_MEMBERS)
        others = flat.get("additionalProperties", True)
        return {name: self.build(known.get(name, others), path) for name in names}

    def _array(self, flat: Members, path: Path) -> Json:
        length = values.whole(flat, "minItems", 0)
        if length > values.whole(flat, "maxItems", length):
            raise SchemaError("minItems is more than maxItems")
        items = flat.get("items", True)
        heads = values.elements(flat.get("prefixItems", []), "prefixItems")
        if isinstance(items, list):  # a tuple, as drafts before 2020-12 wrote it
            heads, items = values.elements(cast("Json", items), "items"), flat.get("additionalItems", True)
        made = [self.build(heads[at] if at < len(heads) else items, path) for at in range(length)]
        if flat.get("uniqueItems") is True and any(made[at] in made[:at] for at in range(length)):
            raise SchemaError("uniqueItems with several items of one schema is not understood")
        return made


def _properties(flat: Members) -> Members:
    return values.members(flat.get("properties", {}), "properties")


def _preferred(flat: Members) -> list[Json]:
    """The default and the first example."""
    examples = flat.get("examples")
    found = [flat["default"]] if "default" in flat else []
    return found + (values.elements(examples, "examples")[:1] if isinstance(examples, list) else [])


def _names(flat: Members, known: Members) -> list[str]:
    """The members that an object must have: in the order of `properties`, then of `required`, then invented ones."""
    required = dict.fromkeys(str(name) for name in values.elements(flat.get("required", []), "required"))
    names = dict.fromkeys([*(name for name in known if name in required), *required])
    for name in chain(known, (f"key{number}" for number in count(1))):
        if len(names) >= values.whole(flat, "minProperties", 0):
            break
        names[name] = None
    if len(names) > values.whole(flat, "maxProperties", len(names)):
        raise SchemaError(f"an object needs {len(names)} members, more than maxProperties")
    return list(names)


def _refuse(flat: Members, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if keyword in flat:
            raise SchemaError(f"the keyword {keyword!r} is not understood")


def _resolve(root: Json, reference: str) -> Json:
    """The schema that a pointer into the same document names."""
    start, _, pointer = reference.partition("#")
    place = root
    for token in pointer.split("/")[1:]:
        name = unquote(token).replace("~1", "/").replace("~0", "~")
        place = values.members(place, f"what {reference!r} leads through").get(name)
    if start or not (pointer == "" or pointer.startswith("/")) or not isinstance(place, dict | bool):
        raise SchemaError(f"{reference!r} does not name a schema in this document")
    return cast("Json", place)


# Merging: one schema that demands what two demand.


def _merged(left: Members, right: Members) -> Members:
    """What both demand; mere notes, such as a default, are the left one's."""
    both = {key: _MERGES[key](left[key], right[key]) for key in _MERGES if key in left and key in right}
    return {**right, **left, **both}


def _to_merge(left: Members, right: Members) -> int:
    """How many comparisons that takes, about: each with each in enums and types, or one for each item of a list."""
    sizes = {key: (values.length(left[key]), values.length(right[key])) for key in left if key in right}
    return sum(a * b if key in {"enum", "type"} else a + b for key, (a, b) in sizes.items())


def _merge_types(left: Json, right: Json) -> Json:
    first, second = values.listed(left), values.listed(right)
    kept = [type_ for type_ in first if type_ in second or (type_ == "integer" and "number" in second)]
    return kept + ["integer"] * ("integer" in second and "number" in first and "integer" not in kept)


def _merge_enums(left: Json, right: Json) -> Json:
    allowed = values.elements(right, "enum")
    return [value for value in values.elements(left, "enum") if any(values.same(value, other) for other in allowed)]


def _merge_properties(left: Json, right: Json) -> Json:
    first, second = values.members(left, "properties"), values.members(right, "properties")
    both = {name: _both(first[name], second[name]) for name in first if name in second}
    return {**first, **second, **both}


def _merge_heads(left: Json, right: Json) -> Json:
    pairs = zip_longest(values.elements(left, "prefixItems"), values.elements(right, "prefixItems"), fillvalue=True)
    return [_both(first, second) for first, second in pairs]


def _both(left: Json, right: Json) -> Json:
    return {"allOf": [left, right]}


def _merge_steps(left: Json, right: Json) -> Json:
    """The least common multiple, exact for fractions in lowest terms."""
    first, second = values.fraction(left, "multipleOf"), values.fraction(right, "multipleOf")
    return values.plain(
        Fraction(math.lcm(first.numerator, second.numerator), math.gcd(first.denominator, second.denominator))
    )


def _larger(left: Json, right: Json) -> Json:
    return max(left, right, key=lambda value: values.fraction(value, "a lower bound"))


def _lesser(left: Json, right: Json) -> Json:
    return min(left, right, key=lambda value: values.fraction(value, "an upper bound"))


_MERGES: dict[str, Callable[[Json, Json], Json]] = {
    "type": _merge_types,
    "enum": _merge_enums,
    "properties": _merge_properties,
    "required": lambda left, right: [*values.elements(left, "required"), *values.elements(right, "required")],
    "prefixItems": _merge_heads,
    "items": _both,
    "additionalProperties": _both,
    "uniqueItems": lambda left, right: left is True or right is True,
    "multipleOf": _merge_steps,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), _larger),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), _lesser),
}
