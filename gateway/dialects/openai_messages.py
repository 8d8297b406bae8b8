"""The turns of a chat completions body: roles, parts, tool calls, and what of them only this dialect can say."""

from __future__ import annotations

from typing import Any, cast

from gateway.core.chat import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    joined,
)
from gateway.dialects.members import Body, array, bad, beyond, kind_of, optional

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_REASONING = ("reasoning_content", "reasoning")
_TURN = frozenset({"role", "content", "refusal", "name", "tool_calls", "tool_call_id", *_REASONING})
# What vendors add to their answers and clients send back: nothing follows from it.
_ECHOED = frozenset({"reasoning_details", "annotations", "index", "channel"})
_TEXT = frozenset({"type", "text", "cache_control"})
_IMAGE = frozenset({"type", "image_url", "cache_control"})
_IMAGE_URL = frozenset({"url", "detail"})
_CALL = frozenset({"id", "type", "function", "index"})
_FUNCTION = frozenset({"name", "arguments"})


def messages(given: list[Any], own: list[str]) -> tuple[Message, ...]:
    """All turns; paths of what the canonical ones do not say are added to `own`.

    Raises:
        RequestError: 400, naming the member at fault.
    """
    if not given:
        raise bad("messages must not be empty", "messages")
    return tuple(_message(message, f"messages[{index}]", own) for index, message in enumerate(given))


def _message(message: Any, where: str, own: list[str]) -> Message:
    if not isinstance(message, dict):
        raise bad(f"{where} must be an object, got {kind_of(message)}", where)
    members = cast("Body", message)
    named = members.get("role")
    role = _ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise bad(f"{where}.role must be one of {', '.join(_ROLES)}, got {named!r:.64}", f"{where}.role")
    own += beyond(members, _TURN | _ECHOED, where)
    parts = _parts(members.get("content"), f"{where}.content", own) + _refused(members, where)
    if role == "tool":
        if named == "function":
            own.append(f"{where}.role")
        return Message(role=role, parts=(_result(members, parts),))
    calls = _calls(members.get("tool_calls"), f"{where}.tool_calls", own)
    return Message(role=role, parts=_thoughts(members) + parts + calls, name=optional(members, "name", str, where))


def _result(members: Body, parts: tuple[Part, ...]) -> ToolResultPart:
    """What a tool answered, as one part."""
    images = tuple(part for part in parts if isinstance(part, ImagePart))
    return ToolResultPart(id=str(members.get("tool_call_id") or ""), text=joined(parts), images=images)


def _thoughts(members: Body) -> tuple[Part, ...]:
    """What vendors of reasoning models call what they thought; clients send it back."""
    found = next((members[key] for key in _REASONING if members.get(key)), None)
    return (ReasoningPart(text=found),) if isinstance(found, str) else ()


def _refused(members: Body, where: str) -> tuple[Part, ...]:
    """What the assistant said when it refused: to every other dialect a text like any other."""
    refusal = optional(members, "refusal", str, where)
    return (TextPart(text=refusal),) if refusal else ()


def _parts(content: Any, where: str, own: list[str]) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise bad(f"{where} must be a string or an array of parts, got {kind_of(content)}", where)
    return tuple(_part(part, f"{where}[{index}]", own) for index, part in enumerate(content))


def _part(part: Any, where: str, own: list[str]) -> Part:
    if not isinstance(part, dict) or not isinstance(cast("Body", part).get("type"), str):
        raise bad(f"{where} must be an object with a type", where)
    members = cast("Body", part)
    match members:
        case {"type": "text", "text": str(text)}:
            own += beyond(members, _TEXT, where)
            return TextPart(text=text)
        case {"type": "refusal", "refusal": str(text)}:
            return TextPart(text=text)
        case {"type": "text"}:
            raise bad(f"{where}.text must be a string", f"{where}.text")
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            own += beyond(members, _IMAGE, where) + beyond(members["image_url"], _IMAGE_URL, f"{where}.image_url")
            return ImagePart(url=url, detail=optional(members["image_url"], "detail", str, f"{where}.image_url"))
        case {"type": "image_url"}:
            raise bad(f"{where}.image_url.url must be a string", f"{where}.image_url.url")
        case _:
            own.append(where)
            return OpaquePart(kind=members["type"], data=members)


def _calls(calls: Any, where: str, own: list[str]) -> tuple[ToolCallPart, ...]:
    found: list[ToolCallPart] = []
    for index, call in enumerate(array(calls, where)):
        at = f"{where}[{index}]"
        match call:
            case {"id": str(call_id), "function": {"name": str(name), "arguments": str(arguments)}}:
                own += beyond(call, _CALL, at) + beyond(call["function"], _FUNCTION, f"{at}.function")
                found.append(ToolCallPart(id=call_id, name=name, arguments=arguments))
            case {"type": str(kind)} if kind != "function":
                own.append(at)
            case _:
                raise bad(f"{at} must have an id and a function with name and arguments (a JSON string)", at)
    return tuple(found)
