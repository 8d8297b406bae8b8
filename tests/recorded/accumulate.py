"""What a client makes of a stream: the SDK's chunks put together, by rules that share no code with the product.

Every member counts, known to the SDK or not. Left out are `id`, `created` and `model`, which are Atlas's own, and what
says nothing: null members and empty text. Text, and lists, of a delta are appended; of members outside of deltas, and
of `role`, the last one wins. Tool calls are told apart by `id` when a new one appears, else by `index`, else by place.
"""

from typing import Any

OWN = frozenset({"id", "created", "model", "choices"})
Members = dict[str, Any]


def accumulated(chunks: list[Members]) -> Members:
    """All chunks in one object."""
    whole: Members = {"choices": {}}
    for chunk in chunks:
        whole.update(_said(chunk, OWN))
        for part in chunk["choices"] or ():
            choice = whole["choices"].setdefault(part.get("index") or 0, {"delta": {}, "calls": []})
            choice["logprobs"] = choice.get("logprobs", []) + ((part.get("logprobs") or {}).get("content") or [])
            choice.update(_said(part, {"delta", "index", "logprobs"}))
            _delta(choice, part.get("delta") or {})
    return whole


def _delta(choice: Members, delta: Members) -> None:
    held = choice["delta"]
    for name, value in _said(delta, {"tool_calls"}).items():
        appends = isinstance(value, str | list) and name != "role" and type(held.get(name)) is type(value)
        held[name] = held[name] + value if appends else value
    for place, fragment in enumerate(delta.get("tool_calls") or ()):
        _fragment(choice["calls"], fragment, place)


def _fragment(calls: list[Members], fragment: Members, place: int) -> None:
    call_id, index = fragment.get("id"), fragment.get("index")
    index = place if index is None else index
    same = [call for call in calls if (call["id"] == call_id if call_id else call["index"] == index)]
    if same:
        call = same[-1]
    else:
        call = {"id": call_id, "index": index, "arguments": ""}
        calls.append(call)
    function = fragment.get("function") or {}
    call["arguments"] += function.get("arguments") or ""
    call.update(_said(function, {"arguments"}))
    call.update(_said(fragment, {"id", "index", "function", "type"}))


def _said(members: Members, apart: frozenset[str] | set[str]) -> Members:
    return {name: value for name, value in members.items() if name not in apart and value not in (None, "")}


def comparable(whole: Members) -> Members:
    """Without the numbers of the tool calls, which vendors leave out or repeat."""
    for choice in whole["choices"].values():
        for call in choice["calls"]:
            del call["index"]
    return whole
