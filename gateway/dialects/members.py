"""The members of a request's body, checked one by one: every refusal names the member and says what was expected.

Paths are the caller's own: `a.b` by default; an object's path is given as `where`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

Body = dict[str, Any]

MAX_MODEL_NAME = 256
_NONE: Mapping[str, Any] = MappingProxyType({})
_KINDS: dict[type[Any], str] = {str: "a string", bool: "true or false", list: "an array", dict: "an object"}


def path(where: str, name: str) -> str:
    """The path of a member of the object at `where`."""
    return f"{where}.{name}" if where else name


def kind_of(value: Any) -> str:
    """The JSON type of a value, in words."""
    return _KINDS.get(type(value), "null" if value is None else "a number")


def bad(message: str, param: str) -> RequestError:
    """The refusal of a member's value."""
    return RequestError(message, param=param, code="invalid_value")


def required(body: Body, name: str, kind: type[Any], where: str = "") -> Any:
    """A member that must be there."""
    if body.get(name) is None:
        at = path(where, name)
        raise bad(f"{at} is required", at)
    return optional(body, name, kind, where)


def optional(body: Body, name: str, kind: type[Any], where: str = "") -> Any:
    """A member of this type, or None."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        at = path(where, name)
        raise bad(f"{at} must be {_KINDS[kind]}, got {kind_of(value)}", at)
    return value


def model_name(body: Body) -> str:
    """What the client calls the model."""
    model: str = required(body, "model", str)
    if not model or len(model) > MAX_MODEL_NAME:
        raise bad(f"model must be a name of 1 to {MAX_MODEL_NAME} characters", "model")
    return model


def whole(body: Body, name: str, low: int, high: int = 2**31, where: str = "") -> int | None:
    """A whole number within bounds, or None."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        at = path(where, name)
        raise bad(f"{at} must be a whole number from {low} to {high}, got {value!r:.64}", at)
    return value


def number(body: Body, name: str) -> float | None:
    """A number, or None."""
    value = body.get(name)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise bad(f"{name} must be a number, got {kind_of(value)}", name)
    return value


def array(value: Any, where: str) -> list[Any]:
    """The items of an array; of none, none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(f"{where} must be an array, got {kind_of(value)}", where)
    return value


def beyond(body: Body, known: frozenset[str], where: str = "", *, defaults: Mapping[str, Any] = _NONE) -> list[str]:
    """The paths of members that are given and not known; saying what holds anyhow (`defaults`) is saying nothing."""
    if known.issuperset(body):
        return []
    return [
        path(where, name)[:256]
        for name, value in body.items()
        if value is not None and name not in known and not (name in defaults and defaults[name] == value)
    ]
