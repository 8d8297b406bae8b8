"""OpenAI's chat completions as a client dialect: body -> `ChatRequest`, checked and canonical.

Rendering is in `openai_chat_render`, errors in `openai_errors`. The caller's body stays whole beside the canonical
fields: a provider of the same dialect gets every member, known to us or not. Only what Atlas itself relies on is
checked here; the rest is the provider's to judge.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from gateway.core.errors import RequestError
from gateway.dialects.strict_json import decode_object

DIALECT = "openai_chat"
MAX_CHOICES = 128
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
Body = dict[str, Any]


def parse(raw: bytes) -> ChatRequest:
    """The canonical request of a chat completions body.

    Raises:
        RequestError: 400, naming the parameter at fault.
    """
    body = decode_object(raw)
    messages = _messages(_required(body, "messages", list))
    stream = bool(_optional(body, "stream", bool))
    return ChatRequest(
        dialect=DIALECT,
        model=_model(body),
        messages=messages,
        stream=stream,
        n=_whole(body, "n", 1, MAX_CHOICES) or 1,
        max_output_tokens=_whole(body, "max_completion_tokens", 1) or _whole(body, "max_tokens", 1),
        temperature=_number(body, "temperature"),
        top_p=_number(body, "top_p"),
        stop=_stop(body),
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        schema=_schema(body),
        flags={"include_usage": True} if _include_usage(body) and stream else {},
        body=body,
    )


def _model(body: Body) -> str:
    model: str = _required(body, "model", str)
    if not model or len(model) > 256:
        raise _bad("model must be a name of 1 to 256 characters", "model")
    return model


def _messages(given: list[Any]) -> tuple[Message, ...]:
    if not given:
        raise _bad("messages must not be empty", "messages")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(given))


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise _bad(f"{where} must be an object, got {_type(message)}", where)
    members = cast("Body", message)
    named = members.get("role")
    role = _ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise _bad(f"{where}.role must be one of {', '.join(_ROLES)}, got {named!r:.64}", f"{where}.role")
    parts = _parts(members.get("content"), f"{where}.content")
    if role == "tool":
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        return Message(role=role, parts=(ToolResultPart(id=str(members.get("tool_call_id") or ""), text=text),))
    calls = _calls(members.get("tool_calls"), f"{where}.tool_calls")
    return Message(role=role, parts=parts + calls, name=members.get("name"))


def _parts(content: Any, where: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise _bad(f"{where} must be a string or an array of parts, got {_type(content)}", where)
    return tuple(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> Part:
    if not isinstance(part, dict) or not isinstance(cast("Body", part).get("type"), str):
        raise _bad(f"{where} must be an object with a type", where)
    members = cast("Body", part)
    match members:
        case {"type": "text", "text": str(text)}:
            return TextPart(text=text)
        case {"type": "text"}:
            raise _bad(f"{where}.text must be a string", f"{where}.text")
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return ImagePart(url=url, detail=members["image_url"].get("detail"))
        case {"type": "image_url"}:
            raise _bad(f"{where}.image_url.url must be a string", f"{where}.image_url.url")
        case _:
            return OpaquePart(kind=members["type"], data=members)


def _calls(calls: Any, where: str) -> tuple[ToolCallPart, ...]:
    if calls is None:
        return ()
    found: list[ToolCallPart] = []
    for index, call in enumerate(_list(calls, where)):
        match call:
            case {"id": str(call_id), "function": {"name": str(name), "arguments": str(arguments)}}:
                found.append(ToolCallPart(id=call_id, name=name, arguments=arguments))
            case {"type": str(kind)} if kind != "function":
                continue  # a kind that only its own dialect understands; it stays in the body
            case _:
                at = f"{where}[{index}]"
                raise _bad(f"{at} must have an id and a function with name and arguments (a JSON string)", at)
    return tuple(found)


def _tools(body: Body) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for index, tool in enumerate(_list(body.get("tools"), "tools")):
        match tool:
            case {"type": "function", "function": {"name": str()}}:
                tools.append(_tool(tool["function"], f"tools[{index}].function"))
            case {"type": str(kind)} if kind != "function":
                continue
            case _:
                raise _bad(f"tools[{index}] must be a function with a name", f"tools[{index}]")
    return tuple(tools)


def _tool(function: Body, where: str) -> Tool:
    try:
        return msgspec.convert(function, Tool)
    except msgspec.ValidationError as error:
        raise _bad(f"{where}: {error}", where) from error


def _tool_choice(body: Body) -> str:
    match body.get("tool_choice"):
        case None:
            return "auto"
        case str(choice):
            return choice
        case {"function": {"name": str(name)}}:
            return name
        case {"type": str(kind)} if kind != "function":
            return "auto"
        case other:
            raise _bad(f"tool_choice must be a string or name a function, got {_type(other)}", "tool_choice")


def _schema(body: Body) -> dict[str, Any] | None:
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return cast("dict[str, Any]", schema)
        case {"type": "json_schema"}:
            raise _bad("response_format.json_schema.schema must be an object", "response_format.json_schema.schema")
        case dict():
            return None
        case other:
            raise _bad(f"response_format must be an object, got {_type(other)}", "response_format")


def _stop(body: Body) -> tuple[str, ...]:
    match body.get("stop"):
        case None:
            return ()
        case str(stop):
            return (stop,)
        case list(stops) if all(isinstance(stop, str) for stop in stops):
            return tuple(cast("list[str]", stops))
        case _:
            raise _bad("stop must be a string or an array of strings", "stop")


def _include_usage(body: Body) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise _bad(f"stream_options must be an object, got {_type(options)}", "stream_options")
    return bool(_optional(cast("Body", options), "include_usage", bool))


def _required(body: Body, name: str, kind: type[Any]) -> Any:
    if body.get(name) is None:
        raise _bad(f"{name} is required", name)
    return _optional(body, name, kind)


def _optional(body: Body, name: str, kind: type[Any]) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise _bad(f"{name} must be {_KINDS[kind]}, got {_type(value)}", name)
    return value


def _whole(body: Body, name: str, low: int, high: int = 2**31) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _bad(f"{name} must be a whole number from {low} to {high}, got {value!r:.64}", name)
    return value


def _number(body: Body, name: str) -> float | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise _bad(f"{name} must be a number, got {_type(value)}", name)
    return value


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad(f"{where} must be an array, got {_type(value)}", where)
    return value


_KINDS: dict[type[Any], str] = {str: "a string", bool: "true or false", list: "an array", dict: "an object"}


def _type(value: Any) -> str:
    return _KINDS.get(type(value), "null" if value is None else "a number")


def _bad(message: str, param: str) -> RequestError:
    return RequestError(message, param=param, code="invalid_value")
