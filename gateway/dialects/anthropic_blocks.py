"""The turns of a messages body: system prompt, roles, content blocks, and what of them only this dialect can say.

A block that only Anthropic understands becomes an `OpaquePart`, and its path is added to `own`: every other adapter
refuses it by the name that its caller knows it by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.chat import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    joined,
)
from gateway.dialects.members import Body, bad, beyond, kind_of, optional, required

if TYPE_CHECKING:
    from collections.abc import Callable

_ROLES = frozenset({"user", "assistant", "system"})
_TURN = frozenset({"role", "content"})
_TEXT = frozenset({"type", "text", "cache_control"})
_IMAGE = frozenset({"type", "source", "cache_control"})
_TOOL_USE = frozenset({"type", "id", "name", "input", "cache_control"})
_TOOL_RESULT = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})


def system(body: Body, own: list[str]) -> tuple[Message, ...]:
    """The system prompt as the first turn, if there is one.

    Raises:
        RequestError: 400, naming the member at fault.
    """
    given = body.get("system")
    if given is None or given == "":
        return ()
    if not isinstance(given, str | list):
        raise bad(f"system must be a string or an array of text blocks, got {kind_of(given)}", "system")
    parts = _content(given, "system", own)
    for index, part in enumerate(parts):
        if not isinstance(part, TextPart):
            raise bad(f"system.{index}.type must be text", f"system.{index}.type")
    return (Message(role="system", parts=parts),) if parts else ()


def messages(given: list[Any], own: list[str]) -> tuple[Message, ...]:
    """All turns; paths of what the canonical ones do not say are added to `own`.

    Raises:
        RequestError: 400, naming the member at fault.
    """
    if not given:
        raise bad("messages must not be empty", "messages")
    return tuple(_message(message, f"messages.{index}", own) for index, message in enumerate(given))


def _message(message: Any, where: str, own: list[str]) -> Message:
    if not isinstance(message, dict):
        raise bad(f"{where} must be an object, got {kind_of(message)}", where)
    members = cast("Body", message)
    role = members.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad(f"{where}.role must be user, assistant or system, got {role!r:.64}", f"{where}.role")
    own += beyond(members, _TURN, where)
    content = members.get("content")
    if content is None:
        raise bad(f"{where}.content is required", f"{where}.content")
    return Message(role=cast("Any", role), parts=_content(content, f"{where}.content", own))


def _content(content: Any, where: str, own: list[str]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise bad(f"{where} must be a string or an array of content blocks, got {kind_of(content)}", where)
    return tuple(_block(block, f"{where}.{index}", own) for index, block in enumerate(content))


def _block(block: Any, where: str, own: list[str]) -> Part:
    if not isinstance(block, dict):
        raise bad(f"{where} must be an object with a type, got {kind_of(block)}", where)
    members = cast("Body", block)
    kind: str = required(members, "type", str, where)
    reader = _READERS.get(kind)
    return _opaque(kind, members, where, own) if reader is None else reader(members, where, own)


def _opaque(kind: str, members: Body, where: str, own: list[str]) -> Part:
    own.append(where)
    return OpaquePart(kind=kind, data=members)


def _text(members: Body, where: str, own: list[str]) -> Part:
    own += beyond(members, _TEXT, where, defaults={"citations": []})
    text = members.get("text")
    if not isinstance(text, str):
        raise bad(f"{where}.text must be a string, got {kind_of(text)}", f"{where}.text")
    return TextPart(text=text)


def _image(members: Body, where: str, own: list[str]) -> Part:
    own += beyond(members, _IMAGE, where, defaults={"transformations": {}})
    source = required(members, "source", dict, where)
    at = f"{where}.source"
    match source:
        case {"type": "base64"}:
            media_type = required(source, "media_type", str, at)
            return ImagePart(url=f"data:{media_type};base64,{required(source, 'data', str, at)}")
        case {"type": "url"}:
            return ImagePart(url=required(source, "url", str, at))
        case {"type": str()}:
            return _opaque("image", members, where, own)  # a file that only Anthropic has
        case _:
            raise bad(f"{at}.type must be base64 or url", f"{at}.type")


def _tool_use(members: Body, where: str, own: list[str]) -> Part:
    own += beyond(members, _TOOL_USE, where, defaults={"caller": {"type": "direct"}})
    given = required(members, "input", dict, where)
    return ToolCallPart(
        id=required(members, "id", str, where),
        name=required(members, "name", str, where),
        arguments=msgspec.json.encode(given).decode(),
    )


def _tool_result(members: Body, where: str, own: list[str]) -> Part:
    own += beyond(members, _TOOL_RESULT, where)
    content = members.get("content")
    parts = () if content is None else _content(content, f"{where}.content", own)
    own += [
        f"{where}.content.{index}"
        for index, part in enumerate(parts)
        if not isinstance(part, TextPart | ImagePart | OpaquePart)
    ]
    return ToolResultPart(
        id=required(members, "tool_use_id", str, where),
        text=joined(parts),
        images=tuple(part for part in parts if isinstance(part, ImagePart)),
        is_error=bool(optional(members, "is_error", bool, where)),
    )


def _thinking(members: Body, where: str, own: list[str]) -> Part:
    del own  # nothing follows from what is left out of a thought
    text = members.get("thinking")
    if not isinstance(text, str):
        raise bad(f"{where}.thinking must be a string, got {kind_of(text)}", f"{where}.thinking")
    return ReasoningPart(text=text, signature=optional(members, "signature", str, where))


def _redacted(members: Body, where: str, own: list[str]) -> Part:
    """A thought that nobody can read: its place stays, for who only counts."""
    del own
    required(members, "data", str, where)
    return ReasoningPart(text="")


_READERS: dict[str, Callable[[Body, str, list[str]], Part]] = {
    "text": _text,
    "image": _image,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}
