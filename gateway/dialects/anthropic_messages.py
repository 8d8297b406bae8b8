"""Anthropic's messages as a client dialect: body -> `ChatRequest`, checked and canonical.

Content blocks are in `anthropic_blocks`, rendering in `anthropic_messages_render`, errors in `anthropic_errors`. The
caller's body stays whole beside the canonical fields: a provider of the same dialect gets every member, known to us or
not. What would change the answer and has no canonical field is listed in `own`, so that a provider of another dialect
refuses it. Paths are Anthropic's own: `messages.0.content.1.text`.

Members as of the API version 2026-10-21, whose sampling parameters are gone; older versions have them still.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast, get_args

from gateway.core.chat import CHOICES, ChatRequest, Effort, Message, Tool
from gateway.core.errors import RequestError
from gateway.dialects.anthropic_blocks import messages, system
from gateway.dialects.members import Body, array, bad, beyond, kind_of, model_name, number, optional, required, whole
from gateway.dialects.strict_json import decode_object

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECT = "anthropic_messages"
VERSION, BETA = "anthropic-version", "anthropic-beta"
HEADERS = (VERSION, BETA)
HIDES_THOUGHTS = "hides_thoughts"
"""The flag of a stream whose caller wants no thoughts to be shown."""
UNSAMPLED = "2026-10-21"
"""From this version on, asking with a sampling parameter is an error."""
_SAMPLING = ("temperature", "top_p", "top_k")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_EFFORTS = frozenset(get_args(Effort))
_CANONICAL = frozenset(
    {
        "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "tools", "tool_choice", "thinking",
        "output_config", "output_format", "context_management", *_SAMPLING,
    }
)  # fmt: skip
# Accounting, tracing, caching and speed: no answer differs for them.
_HINTS = frozenset(
    {
        "cache_control", "diagnostics", "inference_geo", "metadata", "service_tier", "speed", "user_profile_id",
    }
)  # fmt: skip
_KNOWN = _CANONICAL | _HINTS
_TOOL = frozenset(
    {"type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming"}
)  # fmt: skip
_TOOL_DEFAULTS: dict[str, Any] = {"allowed_callers": ["direct"], "defer_loading": False, "input_examples": []}
_CHOICE = frozenset({"type", "name", "disable_parallel_tool_use"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_THINKING = frozenset({"type", "budget_tokens", "display"})
_CLEARS_THOUGHTS = "clear_thinking"
_OUTPUT = frozenset({"effort", "format"})


def parse(raw: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> ChatRequest:
    """The canonical request of a messages body, sent with these of the dialect's headers.

    Raises:
        RequestError: 400, naming the member at fault.
    """
    body = decode_object(raw)
    if whole(body, "max_tokens", 0) is None:
        raise bad("max_tokens is required", "max_tokens")
    return _request(body, headers)


def parse_counting(raw: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> ChatRequest:
    """The canonical request of a body whose tokens are to be counted: nothing is said there about the answer.

    Raises:
        RequestError: 400, naming the member at fault.
    """
    return _request(decode_object(raw), headers)


def _request(body: Body, headers: Mapping[str, str]) -> ChatRequest:
    _refuse_sampling(body, headers)
    own = beyond(body, _KNOWN)
    if body.get("max_tokens") == 0:
        own.append("max_tokens")  # fill the cache and say nothing: no other dialect has that
    thinking_tokens, thinking_effort = _thinking(body, own)
    effort, schema = _output(body, own)
    _edits(body, own)
    choice, parallel = _tool_choice(body, own)
    turns: tuple[Message, ...] = system(body, own) + messages(required(body, "messages", list), own)
    return ChatRequest(
        dialect=DIALECT,
        model=model_name(body),
        messages=turns,
        stream=bool(optional(body, "stream", bool)),
        max_output_tokens=whole(body, "max_tokens", 0),
        temperature=number(body, "temperature"),
        top_p=number(body, "top_p"),
        top_k=whole(body, "top_k", 0),
        effort=thinking_effort if thinking_effort == "none" else effort or thinking_effort,
        thinking_tokens=thinking_tokens,
        stop=_stop(body),
        tools=_tools(body, own),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        schema=schema,
        flags={HIDES_THOUGHTS: True} if _hides_thoughts(body) else {},
        own=tuple(own),
        body=body,
        headers=dict(headers),
    )


def _refuse_sampling(body: Body, headers: Mapping[str, str]) -> None:
    """Versions are dates, so they compare as words."""
    version = headers.get(VERSION, "")
    if version < UNSAMPLED:
        return
    for name in _SAMPLING:
        if body.get(name) is not None:
            msg = f"{name} is not supported in {VERSION} {version:.32}; leave it out"
            raise RequestError(msg, param=name, code="unsupported_parameter")


def _thinking(body: Body, own: list[str]) -> tuple[int | None, Effort | None]:
    """The most tokens to think for, and how hard: `adaptive` leaves both to the model."""
    thinking = optional(body, "thinking", dict)
    match thinking:
        case None | {"type": "adaptive"}:
            found: tuple[int | None, Effort | None] = (None, None)
        case {"type": "disabled"}:
            found = (None, "none")
        case {"type": "enabled"}:
            found = (whole(thinking, "budget_tokens", 1, where="thinking"), None)
            if found[0] is None:
                raise bad("thinking.budget_tokens is required", "thinking.budget_tokens")
        case {"type": str()}:
            own.append("thinking.type")
            return None, None
        case _:
            raise bad("thinking.type must be enabled, disabled or adaptive", "thinking.type")
    own += beyond(thinking or {}, _THINKING, "thinking")
    if optional(thinking or {}, "display", str, "thinking") not in {None, "summarized", "omitted"}:
        own.append("thinking.display")
    return found


def _hides_thoughts(body: Body) -> bool:
    thinking = optional(body, "thinking", dict) or {}
    return thinking.get("display") == "omitted"


def _edits(body: Body, own: list[str]) -> None:
    """What to leave out of a long conversation. Other dialects are not sent earlier thoughts in any case."""
    management: Body = optional(body, "context_management", dict) or {}
    own += beyond(management, frozenset({"edits"}), "context_management")
    for index, edit in enumerate(array(management.get("edits"), "context_management.edits")):
        where = f"context_management.edits.{index}"
        if not isinstance(edit, dict):
            raise bad(f"{where} must be an object, got {kind_of(edit)}", where)
        kind: str = required(cast("Body", edit), "type", str, where)
        if not kind.startswith(_CLEARS_THOUGHTS):
            own.append(where)


def _output(body: Body, own: list[str]) -> tuple[Effort | None, dict[str, Any] | None]:
    """How hard to think, and the schema of the answer."""
    config: Body = optional(body, "output_config", dict) or {}
    own += beyond(config, _OUTPUT, "output_config")
    effort = optional(config, "effort", str, "output_config")
    if effort is not None and effort not in _EFFORTS:
        own.append("output_config.effort")
        effort = None
    older = optional(body, "output_format", dict)  # where the format was in the beta
    where = "output_config.format" if older is None else "output_format"
    match older or optional(config, "format", dict, "output_config"):
        case None:
            return effort, None
        case {"type": "json_schema", "schema": dict(schema)}:
            return effort, cast("dict[str, Any]", schema)
        case {"type": "json_schema"}:
            raise bad(f"{where}.schema must be an object", f"{where}.schema")
        case _:
            own.append(where)
            return effort, None


def _tools(body: Body, own: list[str]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for index, tool in enumerate(array(body.get("tools"), "tools")):
        where = f"tools.{index}"
        if not isinstance(tool, dict):
            raise bad(f"{where} must be an object, got {kind_of(tool)}", where)
        members = cast("Body", tool)
        if members.get("type") not in {None, "custom"}:
            optional(members, "type", str, where)
            own.append(where)  # a tool of Anthropic's own
        else:
            own += beyond(members, _TOOL, where, defaults=_TOOL_DEFAULTS)
            tools.append(_tool(members, where))
    return tuple(tools)


def _tool(members: Body, where: str) -> Tool:
    name = required(members, "name", str, where)
    if not name:
        raise bad(f"{where}.name must not be empty", f"{where}.name")
    return Tool(
        name=name,
        description=optional(members, "description", str, where),
        parameters=required(members, "input_schema", dict, where),
        strict=optional(members, "strict", bool, where),
    )


def _tool_choice(body: Body, own: list[str]) -> tuple[str, bool | None]:
    """Which tool, and whether several calls may be made at once."""
    choice = optional(body, "tool_choice", dict)
    if choice is None:
        return "auto", None
    own += beyond(choice, _CHOICE, "tool_choice")
    single = optional(choice, "disable_parallel_tool_use", bool, "tool_choice")
    parallel = None if single is None else not single
    match choice:
        case {"type": "tool"}:
            name: str = required(choice, "name", str, "tool_choice")
            if name in CHOICES:
                own.append("tool_choice.name")
            return name, parallel
        case {"type": str(kind)} if kind in _CHOICES:
            return _CHOICES[kind], parallel
        case _:
            raise bad("tool_choice.type must be auto, any, tool or none", "tool_choice.type")


def _stop(body: Body) -> tuple[str, ...]:
    stops = array(body.get("stop_sequences"), "stop_sequences")
    for index, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise bad(f"stop_sequences.{index} must be a string, got {kind_of(stop)}", f"stop_sequences.{index}")
    return tuple(stops)
