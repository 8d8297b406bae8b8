"""Putting parts of OpenAI objects together, as the official SDK accumulates them. Pure; changes its first argument."""

from __future__ import annotations

from typing import Any, cast

Members = dict[str, Any]


def merge(target: Members, patch: Members) -> None:
    """Lay `patch` over `target`: objects member by member, lists of indexed objects by `index`, the rest replaced."""
    for name, value in patch.items():
        held = target.get(name)
        if isinstance(held, dict) and isinstance(value, dict):
            merge(cast("Members", held), cast("Members", value))
        elif isinstance(held, list) and _indexed(value):
            _by_index(held, cast("list[Members]", value), merge)
        else:
            target[name] = _copied(value)


def accumulate(target: Members, delta: Members) -> None:
    """Add a delta: text is appended, lists extended (by `index` where their objects have one), the rest replaced."""
    for name, value in delta.items():
        held = target.get(name)
        if held is None or name in {"index", "type", "role", "id"}:
            if value is not None or name not in target:
                target[name] = _copied(value)
        elif isinstance(held, str) and isinstance(value, str):
            target[name] = held + value
        elif isinstance(held, dict) and isinstance(value, dict):
            accumulate(cast("Members", held), cast("Members", value))
        elif isinstance(held, list) and isinstance(value, list):
            items = value
            if _indexed(items):
                _by_index(held, cast("list[Members]", items), accumulate)
            else:
                held.extend(items)
        elif value is not None:
            target[name] = value


def _by_index(held: list[Any], items: list[Members], combine: Any) -> None:
    for item in items:
        known = next((each for each in held if isinstance(each, dict) and each.get("index") == item["index"]), None)
        if known is None:
            held.append(_copied(item))
        else:
            combine(known, item)


def _indexed(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and "index" in item for item in value)


def _copied(value: Any) -> Any:
    """Events are shared and never change: what is taken over is copied."""
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in cast("Members", value).items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
