"""OpenAI's chat completions as a client dialect: body -> `ChatRequest`, checked and canonical.

Turns are in `openai_messages`, rendering in `openai_chat_render`, errors in `openai_errors`. The caller's body stays
whole beside the canonical fields: a provider of the same dialect gets every member, known to us or not. Only what Atlas
itself relies on is checked here; the rest is the provider's to judge. What would change the answer and has no canonical
field is listed in `own`, so that a provider of another dialect refuses it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec

from gateway.core.chat import CHOICES, ChatRequest, Effort, Tool
from gateway.dialects.members import Body, array, bad, beyond, kind_of, model_name, number, optional, required, whole
from gateway.dialects.openai_messages import messages
from gateway.dialects.strict_json import decode_object

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECT = "openai_chat"
MAX_CHOICES = 128
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_EFFORTS = frozenset(get_args(Effort))
_CANONICAL = frozenset(
    {
        "model", "messages", "stream", "n", "max_completion_tokens", "max_tokens", "temperature", "top_p", "top_k",
        "frequency_penalty", "presence_penalty", "seed", "reasoning_effort", "stop", "tools", "tool_choice",
        "parallel_tool_calls", "response_format",
    }
)  # fmt: skip
# Accounting, tracing and tuning: no answer differs for them.
_HINTS = frozenset(
    {
        "stream_options", "user", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention",
        "safety_identifier", "cache_control",
    }
)  # fmt: skip
_KNOWN = _CANONICAL | _HINTS
_DEFAULTS: dict[str, Any] = {
    "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"], "verbosity": "medium",
}  # fmt: skip
"""Members without a canonical field that say only what holds without them."""
_TOOL = frozenset({"type", "function", "cache_control"})
_FUNCTION = frozenset({"name", "description", "parameters", "strict"})


def parse(raw: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> ChatRequest:
    """The canonical request of a chat completions body.

    Raises:
        RequestError: 400, naming the parameter at fault.
    """
    del headers  # none of this dialect's change an answer
    body = decode_object(raw)
    turns: list[str] = []
    stream = bool(optional(body, "stream", bool))
    return ChatRequest(
        dialect=DIALECT,
        messages=messages(required(body, "messages", list), turns),
        model=model_name(body),
        stream=stream,
        n=whole(body, "n", 1, MAX_CHOICES) or 1,
        max_output_tokens=whole(body, "max_completion_tokens", 1) or whole(body, "max_tokens", 1),
        temperature=number(body, "temperature"),
        top_p=number(body, "top_p"),
        top_k=_given_whole(body, "top_k"),
        frequency_penalty=number(body, "frequency_penalty"),
        presence_penalty=number(body, "presence_penalty"),
        seed=_given_whole(body, "seed"),
        effort=_effort(body),
        stop=_stop(body),
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=optional(body, "parallel_tool_calls", bool),
        schema=_schema(body),
        own=(*_own(body), *turns),
        flags={"include_usage": True} if _include_usage(body) and stream else {},
        body=body,
    )


def _own(body: Body) -> list[str]:
    """Members with an effect that the canonical fields do not say; those of the turns are apart."""
    own = beyond(body, _KNOWN, defaults=_DEFAULTS)
    if body.get("reasoning_effort") is not None and _effort(body) is None:
        own.append("reasoning_effort")
    for index, tool in enumerate(array(body.get("tools"), "tools")):
        where = f"tools[{index}]"
        if tool.get("type") != "function":
            own.append(where)
        else:
            own += beyond(tool, _TOOL, where) + beyond(tool["function"], _FUNCTION, f"{where}.function")
    match body.get("tool_choice"):
        case {"type": str(kind)} if kind != "function":
            own.append("tool_choice")
        case {"function": {"name": str(name)}} if name in CHOICES:
            own.append("tool_choice")
        case _:
            pass
    match body.get("response_format"):
        case {"type": "text" | "json_object" | "json_schema"} | None:
            pass
        case _:
            own.append("response_format")
    return own


def _given_whole(body: Body, name: str) -> int | None:
    return whole(body, name, -(2**63), 2**63 - 1)


def _effort(body: Body) -> Effort | None:
    effort = optional(body, "reasoning_effort", str)
    return cast("Effort", effort) if effort in _EFFORTS else None


def _tools(body: Body) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for index, tool in enumerate(array(body.get("tools"), "tools")):
        match tool:
            case {"type": "function", "function": {"name": str()}}:
                tools.append(_tool(tool["function"], f"tools[{index}].function"))
            case {"type": str(kind)} if kind != "function":
                continue
            case _:
                raise bad(f"tools[{index}] must be a function with a name", f"tools[{index}]")
    return tuple(tools)


def _tool(function: Body, where: str) -> Tool:
    try:
        return msgspec.convert(function, Tool)
    except msgspec.ValidationError as error:
        raise bad(f"{where}: {error}", where) from error


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
            raise bad(f"tool_choice must be a string or name a function, got {kind_of(other)}", "tool_choice")


def _schema(body: Body) -> dict[str, Any] | None:
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return cast("dict[str, Any]", schema)
        case {"type": "json_schema"}:
            raise bad("response_format.json_schema.schema must be an object", "response_format.json_schema.schema")
        case dict():
            return None
        case other:
            raise bad(f"response_format must be an object, got {kind_of(other)}", "response_format")


def _stop(body: Body) -> tuple[str, ...]:
    match body.get("stop"):
        case None:
            return ()
        case str(stop):
            return (stop,)
        case list(stops) if all(isinstance(stop, str) for stop in stops):
            return tuple(cast("list[str]", stops))
        case _:
            raise bad("stop must be a string or an array of strings", "stop")


def _include_usage(body: Body) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise bad(f"stream_options must be an object, got {kind_of(options)}", "stream_options")
    return bool(optional(cast("Body", options), "include_usage", bool, "stream_options"))
