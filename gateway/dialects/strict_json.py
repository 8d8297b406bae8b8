"""JSON as a careful server reads it: one decoding pass, then cheap proofs that it means one thing only.

msgspec refuses NaN, infinities, bad UTF-8 and trailing data. What is left: nesting deeper than `MAX_DEPTH`, and
duplicate keys, which decoders silently resolve and upstreams may resolve differently. Duplicates are found by
counting: one scan over the bytes counts keys, one walk over the value counts members; they differ only if a key was
given twice.
"""

import json
import re
from typing import Any, cast

import msgspec

from gateway.core.errors import RequestError

MAX_DEPTH = 32

# Every string, with the colon behind it if it is a key; possessive, so hostile input cannot make it backtrack.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"(\s*+:)?', re.DOTALL)
_decode = msgspec.json.Decoder().decode


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises:
        RequestError: 400, saying what is wrong and where.
    """
    try:
        value = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise _bad(f"the body is nested deeper than {MAX_DEPTH} levels") from error
    if not isinstance(value, dict):
        raise _bad(f"the body must be a JSON object, got {_json_type(value)}")
    members = _count_members(value, 1)
    colons = _STRINGS.findall(body)
    if len(colons) - colons.count(b"") != members:
        raise _bad(f"the body gives a key twice: {_first_duplicate(body)!r}")
    return cast("dict[str, Any]", value)


def _count_members(value: Any, depth: int) -> int:
    """How many object members there are in `value`, at any depth."""
    if depth > MAX_DEPTH:
        raise _bad(f"the body is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        count = len(members)
        for member in members.values():
            if type(member) in _CONTAINERS:
                count += _count_members(member, depth + 1)
        return count
    count = 0
    for item in value:
        if type(item) in _CONTAINERS:
            count += _count_members(item, depth + 1)
    return count


_CONTAINERS = frozenset({dict, list})


def _first_duplicate(body: bytes) -> str:
    """The name of a duplicate key; the slow way, on the way to an error."""
    found: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        found.extend(name for name in names if names.count(name) > 1)

    json.loads(body, object_pairs_hook=members)
    return found[0] if found else "?"


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _bad(message: str) -> RequestError:
    return RequestError(message, code="invalid_json")
