"""What is sent to Anthropic's messages API. Pure.

A request of the same dialect goes out as it came, with the endpoint's model. A request of any other dialect is built
from the canonical fields; what this wire cannot say is refused by the name of the caller's field:
- All system turns become the top-level `system`, in order, with a line break between them, wherever they stood: so does
  Anthropic's own endpoint for OpenAI's SDK. Turns of one role that follow each other become one; in a user's turn the
  results of tools come first, because the API wants them right behind their calls.
- The limit of tokens is required: see `_anthropic_models`. A temperature or top_p of 1 is the API's own default and is
  left out, since newer models refuse the members whatever their value; so are empty texts, which are an error.
- An effort becomes adaptive thinking with the nearest level that the model has, or a budget where it knows no levels.
- Thoughts without a signature are left out. So is an image's `detail`: it is about what an image costs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gateway.core.chat import ImagePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from gateway.providers._anthropic_events import DIALECT
from gateway.providers._anthropic_models import family_of
from gateway.providers._translate import arguments_object, refuse_own, untranslatable

if TYPE_CHECKING:
    from gateway.core.chat import ChatRequest, Effort, Message, Part, Tool
    from gateway.providers._anthropic_models import Family

VERSION = "2023-06-01"
"""The version that translated requests are written for; it takes temperature and its kin."""

MIN_BUDGET = 1_024
"""The smallest thinking budget that the API takes."""

ROOM_BEHIND_THINKING = 4_096
_MIN_TOP_P_THINKING = 0.95

# Budgets for models without levels, as agent libraries choose them (pydantic-ai 2.68); the API says the minimum only.
_BUDGETS: dict[Effort, int] = {
    "minimal": 1_024, "low": 2_048, "medium": 10_000, "high": 16_384, "xhigh": 32_768, "max": 32_768,
}  # fmt: skip
_NEAREST: dict[Effort, str] = {"minimal": "low", "xhigh": "max"}
_BASE64_URL = re.compile(r"data:(?P<type>image/(?:jpeg|png|gif|webp))(?:;[^,]*)?;base64,(?P<data>.*)", re.DOTALL)
_NOT_COUNTED = ("max_tokens", "stream", "stop_sequences", "temperature", "top_p", "top_k")


def request_headers_of(request: ChatRequest) -> list[tuple[str, str]]:
    """The caller's version and betas, if the caller speaks this dialect; else the version of translated requests."""
    given = request.headers if request.dialect == DIALECT else {}
    headers = [("anthropic-version", given.get("anthropic-version") or VERSION)]
    return [*headers, ("anthropic-beta", given["anthropic-beta"])] if given.get("anthropic-beta") else headers


def request_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body to send for an answer.

    Raises:
        ProviderError: `untranslatable`, for what this wire cannot say.
    """
    body = dict(request.body) if request.dialect == DIALECT else _translated(request, model)
    body["model"] = model
    body["stream"] = True
    return _with_tail(body, request, model) if request.tail else body


def _with_tail(body: dict[str, Any], request: ChatRequest, model: str) -> dict[str, Any]:
    """The body with the turns that Atlas puts behind the caller's, and what is left of the limit of tokens."""
    if request.tail[-1].role == "assistant" and not family_of(model).prefills:
        raise untranslatable("a last turn of the assistant", DIALECT)
    body["messages"] = [*body["messages"], *_turns(request.tail)]
    if request.max_output_tokens is not None:
        body["max_tokens"] = request.max_output_tokens
    return body


def count_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body to send for a count of the prompt's tokens.

    Raises:
        ProviderError: `untranslatable`, for what this wire cannot say.
    """
    if request.dialect == DIALECT:
        return {**request.body, "model": model}
    translated = _translated(request, model)
    return {"model": model, **{name: value for name, value in translated.items() if name not in _NOT_COUNTED}}


def _translated(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body of a request that came in another dialect."""
    refuse_own(request, DIALECT)
    family = family_of(model)
    thinking = _thinking(request, family)
    thinks = thinking.get("type") in {"adaptive", "enabled"}
    _refuse(request, family, thinks=thinks)
    body: dict[str, Any] = {
        "max_tokens": _limit(request, family, thinking),
        "messages": _turns(request.messages),
    }
    given = {
        "system": _system(request.messages),
        "temperature": request.temperature if request.temperature != 1 else None,
        "top_p": request.top_p if request.top_p != 1 else None,
        "top_k": request.top_k,
        "stop_sequences": list(request.stop) or None,
        "thinking": thinking or None,
        "output_config": _output_config(request, family) or None,
    }
    body.update({name: value for name, value in given.items() if value is not None})
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request)
    return body


def _refuse(request: ChatRequest, family: Family, *, thinks: bool) -> None:
    """Refuse what would be dropped in silence, or what the model is known to refuse."""
    forced = bool(request.tools) and request.tool_choice not in {"auto", "none"}
    sampled = family.samples and not thinks
    top_p = 1 if request.top_p is None else request.top_p
    refused = {
        "n": request.n != 1,
        "seed": request.seed is not None,
        "frequency_penalty": bool(request.frequency_penalty),
        "presence_penalty": bool(request.presence_penalty),
        "stop": not all(map(str.strip, request.stop)),
        "response_format": request.schema == {},
        "temperature": request.temperature not in {None, 1} and (not sampled or (request.temperature or 0) > 1),
        "top_p": top_p != 1 and not (sampled or (family.samples and top_p >= _MIN_TOP_P_THINKING)),
        "top_k": request.top_k is not None and not sampled,
        "tool_choice": forced and not (family.forces and (not thinks or family.efforts)),
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise untranslatable(name, DIALECT)


# Thinking.


def _thinking(request: ChatRequest, family: Family) -> dict[str, Any]:
    """The member `thinking`; {} leaves it to the model."""
    if request.effort == "none" or request.thinking_tokens == 0:
        if family.unthinking is None:
            raise untranslatable("reasoning_effort", DIALECT)
        return dict(family.unthinking)
    if request.effort is not None and family.efforts:
        return {"type": "adaptive"}
    budget = request.thinking_tokens
    if budget is None:
        return {} if request.effort is None else _budget(_BUDGETS[request.effort], request, "reasoning_effort")
    if not family.budgets:
        raise untranslatable("thinking", DIALECT)
    return _budget(budget, request, "thinking")


def _budget(budget: int, request: ChatRequest, param: str) -> dict[str, Any]:
    """A budget within the limit of tokens, of which thinking is a part: at least half of it is left for the answer."""
    if request.max_output_tokens is not None:
        budget = min(budget, request.max_output_tokens // 2)
    if budget < MIN_BUDGET:
        raise untranslatable(param, DIALECT)
    return {"type": "enabled", "budget_tokens": budget}


def _limit(request: ChatRequest, family: Family, thinking: dict[str, Any]) -> int:
    if request.max_output_tokens is not None:
        return request.max_output_tokens
    budget: int = thinking.get("budget_tokens", 0)
    return max(family.max_tokens, budget + ROOM_BEHIND_THINKING)


def _output_config(request: ChatRequest, family: Family) -> dict[str, Any]:
    config: dict[str, Any] = {}
    effort = request.effort
    if effort is not None and effort != "none" and family.efforts:
        config["effort"] = effort if effort in family.efforts else _NEAREST[effort]
    if request.schema:
        config["format"] = {"type": "json_schema", "schema": request.schema}
    return config


# Tools.


def _tool(tool: Tool) -> dict[str, Any]:
    given = {"description": tool.description, "strict": tool.strict or None}
    shown = {name: value for name, value in given.items() if value is not None}
    return {"name": tool.name, **shown, "input_schema": {"type": "object", **(tool.parameters or {})}}


def _tool_choice(request: ChatRequest) -> dict[str, Any]:
    plain = {"auto": "auto", "none": "none", "required": "any"}.get(request.tool_choice)
    choice: dict[str, Any] = {"type": plain} if plain else {"type": "tool", "name": request.tool_choice}
    if request.parallel_tool_calls is False and plain != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


# Turns.


def _system(messages: tuple[Message, ...]) -> str | None:
    """The text of all system turns."""
    texts: list[str] = []
    for index, message in enumerate(messages):
        if message.role != "system":
            continue
        if message.name or not all(isinstance(part, TextPart) for part in message.parts):
            raise untranslatable(f"messages[{index}].{'name' if message.name else 'content'}", DIALECT)
        texts.append(message.text)
    return "\n".join(text for text in texts if text) or None


def _turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The conversation; roles alternate."""
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.name and message.role != "tool":  # a tool's name is that of its call
            raise untranslatable(f"messages[{index}].name", DIALECT)
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for where, part in _placed(message, index) for block in _blocks(part, role, where)]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=_stands_behind_results)
    return turns


def _stands_behind_results(block: dict[str, Any]) -> bool:
    return bool(block["type"] != "tool_result")


def _placed(message: Message, index: int) -> list[tuple[str, Part]]:
    """The parts with their paths in the caller's words; calls stand in a list of their own there."""
    parts = message.parts
    content = [part for part in parts if not isinstance(part, ToolCallPart)]
    calls = [part for part in parts if isinstance(part, ToolCallPart)]
    return [
        *((f"messages[{index}].content[{at}]", part) for at, part in enumerate(content)),
        *((f"messages[{index}].tool_calls[{at}]", part) for at, part in enumerate(calls)),
    ]


def _blocks(part: Part, role: str, where: str) -> list[dict[str, Any]]:
    """A part as content blocks: one, or none if it says nothing here."""
    match part, role:
        case TextPart(text=text), _:
            return [{"type": "text", "text": text}] if text else []
        case ImagePart(), "user":
            return [_image(part, where)]
        case ToolResultPart(), "user":
            return [_result(part, where)]
        case ToolCallPart(), "assistant":
            return [_call(part, where)]
        case ReasoningPart(text=text, signature=signature), "assistant":
            return [{"type": "thinking", "thinking": text, "signature": signature}] if signature else []
        case _:
            raise untranslatable(where, DIALECT)


def _image(part: ImagePart, where: str) -> dict[str, Any]:
    if part.url.lower().startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    found = _BASE64_URL.fullmatch(part.url)
    if found is None:
        raise untranslatable(f"{where}.image_url", DIALECT)
    return {"type": "image", "source": {"type": "base64", "media_type": found["type"], "data": found["data"]}}


def _result(part: ToolResultPart, where: str) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.id}
    if part.images:
        text = [{"type": "text", "text": part.text}] if part.text else []
        result["content"] = [*text, *(_image(image, where) for image in part.images)]
    elif part.text:
        result["content"] = part.text
    return {**result, "is_error": True} if part.is_error else result


def _call(part: ToolCallPart, where: str) -> dict[str, Any]:
    """A call of an earlier turn."""
    arguments = arguments_object(part, f"{where}.function.arguments", DIALECT)
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
