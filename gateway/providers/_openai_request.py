"""What is sent to an OpenAI-compatible host. Pure.

A request of the same dialect goes out as it came, with the endpoint's model and stream options. A request of any
other dialect is built from the canonical fields:
- An effort goes out as `reasoning_effort`; a budget of thinking tokens alone becomes the nearest effort, as this wire
  has no budgets (`_EFFORTS`).
- Earlier thoughts are left out, unless the host wants them in the history (`Quirks.reasoning`): vendors ignore those
  of finished turns.
- A tool message takes text only. Images of tool results go into a user's turn behind the results, beside the call's id.
- A schema of the answer goes out with `strict: true` where the host is known to hold answers to it then and takes the
  schema so (`_openai_schema`); other hosts hold to it as well as they do. Other dialects' vendors guarantee it.
- That a tool failed is said by its text alone: there is no member for it.
- How many stop strings are too many, or which effort a model knows, is for the host to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.chat import ImagePart, OpaquePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart, joined
from gateway.core.errors import Category, ProviderError
from gateway.providers._openai_chunks import DIALECT
from gateway.providers._openai_schema import fits_strict
from gateway.providers._translate import refuse_own, untranslatable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.chat import ChatRequest, Message, Part, Role

# The least budget for each effort, largest first; between the usual budgets of coding agents: 4,000, 10,000 and 31,999.
_EFFORTS = ((16_384, "high"), (4_096, "medium"), (1, "low"), (0, "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """How a host differs from the rest.

    `usage`: whether it understands `stream_options.include_usage`; hosts that do not, report usage unasked. `members`:
    its names for members of a translated request, None for one that it does not have. `reasoning`: the member of an
    assistant's turn that takes earlier thoughts, None if there is none. `strict`: whether it knows strict schemas of
    answers with every model.

    For a turn of the assistant that the host shall go on with: `open_turn` are members of that turn, `open_body` of the
    body; hosts that need neither go on with any last turn of the assistant. `echoes`: it says that turn again.
    """

    usage: bool = True
    members: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    reasoning: str | None = None
    strict: bool = False
    open_turn: Mapping[str, Any] = field(default_factory=dict[str, Any])
    open_body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    echoes: bool = False

    def name_of(self, member: str) -> str | None:
        """The host's name for a member; `top_k` is no member of OpenAI's."""
        return self.members.get(member, None if member == "top_k" else member)


PLAIN = Quirks()


LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
"""What callers name the longest answer."""


def request_body(request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> dict[str, Any]:
    """The body to send.

    Raises:
        ProviderError: `untranslatable`, for what this wire cannot say.
    """
    body = dict(request.body) if request.dialect == DIALECT else _translated(request, quirks)
    body["model"] = model
    body["stream"] = True
    options = {**(body.pop("stream_options", None) or {}), "include_usage": True}
    if not quirks.usage:
        del options["include_usage"]
    if options:
        body["stream_options"] = options
    limit = quirks.name_of("max_tokens")
    if request.max_output_tokens is not None and limit is not None and LIMITS.isdisjoint(body):
        body.setdefault(limit, request.max_output_tokens)  # Atlas's own, as its caller named none
    return _with_tail(body, request, quirks) if request.tail else body


def _with_tail(body: dict[str, Any], request: ChatRequest, quirks: Quirks) -> dict[str, Any]:
    """The body with the turns that Atlas puts behind the caller's, and what is left of the limit of tokens."""
    turns = _turns(request.tail, quirks)
    if request.tail[-1].role == "assistant":
        turns[-1].update(quirks.open_turn)
        body.update(quirks.open_body)
    body["messages"] = [*body["messages"], *turns]
    own_name = quirks.name_of("max_tokens") or "max_tokens"
    for name in (LIMITS | {own_name}) & body.keys():
        body[name] = request.max_output_tokens
    return body


def _translated(request: ChatRequest, quirks: Quirks) -> dict[str, Any]:
    """The body of a request that came in another dialect."""
    refuse_own(request, DIALECT)
    body: dict[str, Any] = {"messages": _turns(request.messages, quirks)}
    for member, value in _settings(request, quirks).items():
        if value is None:
            continue
        name = quirks.name_of(member)
        if name is None:
            raise untranslatable(member, DIALECT)
        body[name] = value
    return body


def _settings(request: ChatRequest, quirks: Quirks) -> dict[str, Any]:
    """All members beside the messages, by OpenAI's names; None for what is not asked for."""
    return {
        "n": request.n if request.n != 1 else None,
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "reasoning_effort": _effort(request),
        **(_tools(request) if request.tools else {}),
        "response_format": None if request.schema is None else _format(request.schema, quirks),
    }


def _effort(request: ChatRequest) -> str | None:
    if request.effort is not None or request.thinking_tokens is None:
        return request.effort
    return next((effort for least, effort in _EFFORTS if request.thinking_tokens >= least), "none")


def _tools(request: ChatRequest) -> dict[str, Any]:
    choice = request.tool_choice
    plain = choice in {"auto", "none", "required"}
    functions = [
        {name: value for name, value in msgspec.structs.asdict(tool).items() if value is not None}
        for tool in request.tools
    ]
    return {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": choice if plain else {"type": "function", "function": {"name": choice}},
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _format(schema: Mapping[str, Any], quirks: Quirks) -> dict[str, Any]:
    if not schema:
        return {"type": "json_object"}
    strict = {"strict": True} if quirks.strict and fits_strict(schema) else {}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **strict}}


def _turns(messages: Iterable[Message], quirks: Quirks) -> list[dict[str, Any]]:
    """The history. Every tool result is a turn of its own, directly behind the calls; the rest comes after them."""
    turns: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}].content"
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        rest = tuple(part for part in message.parts if not isinstance(part, ToolResultPart))
        if shown and not results:
            turns.append({"role": "user", "content": shown})
            shown = []
        for part in results:
            turns.append({"role": "tool", "tool_call_id": part.id, "content": part.text})
            shown += _images(part, where)
        if rest or not results:
            turn = _turn(message, rest, quirks, where)
            if shown:
                turn["content"] = [*shown, *_listed(turn["content"])]
                shown = []
            turns.append(turn)
    return [*turns, {"role": "user", "content": shown}] if shown else turns


def _images(result: ToolResultPart, where: str) -> list[dict[str, Any]]:
    """What a user shows of a tool's result."""
    if not result.images:
        return []
    said = {"type": "text", "text": f"Images of the result of tool call {result.id}:"}
    return [said, *(_content(image, where) for image in result.images)]


def _listed(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _turn(message: Message, parts: tuple[Part, ...], quirks: Quirks, where: str) -> dict[str, Any]:
    """A turn without tool results; beside them it is the user who speaks."""
    role: Role = "user" if message.role == "tool" else message.role
    turn: dict[str, Any] = {"role": role}
    if message.name:
        turn["name"] = message.name
    content = [_content(part, where) for part in parts if not isinstance(part, ToolCallPart | ReasoningPart)]
    plain = all(part["type"] == "text" for part in content)
    turn["content"] = joined(parts, role) if plain else content
    thought = "".join(part.text for part in parts if isinstance(part, ReasoningPart))
    if thought and quirks.reasoning is not None:
        turn[quirks.reasoning] = thought
    calls = [_call(part) for part in parts if isinstance(part, ToolCallPart)]
    if calls:
        turn["tool_calls"] = calls
    return turn


def _call(part: ToolCallPart) -> dict[str, Any]:
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}


def _content(part: Part, where: str) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, detail=detail):
            return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}
        case OpaquePart(kind=kind):
            raise untranslatable(f"{where} of type {kind!r}", DIALECT)
        case _:
            raise ProviderError(Category.BAD_REQUEST, f"{type(part).__name__} cannot stand in a turn's content")
