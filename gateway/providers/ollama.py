"""Ollama's own chat API: `POST /api/chat`, one JSON object a line.

What goes out (docs.ollama.com/api/chat; `ChatRequest` and `Message` in the server's api/types.go, August 2026):
- `truncate: false` and `shift: false`, because the defaults drop old messages or the middle of the prompt in silence:
  a prompt that does not fit is an error, an answer that fills the window ends with `length`.
- `think`: an effort as the server's levels, else whether a budget allows any thought; there is no member for its size.
- Images in base64 only, after the text of their turn. Atlas fetches none.
- Tool results with the tool's name, looked up by the call's id, and the id. Their images go into a user's turn behind.
- `keep_alive` and the size of the window are the operator's, on the server: nothing is said about them.
What changes no answer here is left out: an image's `detail`, a tool's `strict` (who runs a call validates it).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.chat import (
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    joined,
)
from gateway.core.errors import Category, ProviderError
from gateway.providers import _ollama_errors as errors
from gateway.providers._account import request_headers, secrets_of, url_below
from gateway.providers._ollama_lines import WIRE_NAME, OllamaDecoder
from gateway.providers._reading import Asking, Wire
from gateway.providers._translate import arguments_object, refuse_own, untranslatable
from gateway.upstream.lines import LineDecoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    from gateway.core.chat import ChatRequest, Effort, Tool
    from gateway.core.clock import Clock
    from gateway.upstream.answer import Answer
    from gateway.upstream.contract import Batch
    from gateway.upstream.transport import Transport

WIRE = Wire(framing=LineDecoder, decoder=OllamaDecoder, from_stream=errors.from_stream)
NDJSON = "application/x-ndjson"

# The server knows low, medium, high and max; models without levels refuse them and say so.
_LEVELS: dict[Effort, bool | str] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max",
}  # fmt: skip
_BASE64_URL = re.compile(r"data:[^,]*;base64,(?P<data>.*)", re.DOTALL | re.IGNORECASE)


class OllamaProvider:
    """One Ollama server; a key is for ollama.com."""

    kind = "ollama"

    def __init__(
        self, *, base_url: str, key: str | None, transport: Transport, clock: Clock, auth: str = "bearer"
    ) -> None:
        self._url = url_below(base_url, "/api/chat")
        self._transport, self._clock, self._secrets = transport, clock, secrets_of(key, transport)
        self._headers = request_headers(NDJSON, key, auth)

    def stream(self, request: ChatRequest, model: str) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask for one answer; see `upstream.contract.Provider`."""
        content = msgspec.json.encode(request_body(request, model))
        return Asking(self._transport.post(self._url, self._headers, content), self._check, WIRE, self._secrets)

    async def _check(self, answer: Answer) -> None:
        """An error status, or a head that is none of a stream, ends the attempt."""
        if answer.status != 200:
            raise errors.from_answer(answer.status, answer.headers, await answer.error_body(), self._clock.now())
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ProviderError(Category.PROTOCOL, "the provider compressed a stream that was asked for uncompressed")
        content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type == NDJSON:
            return
        if content_type == "application/json" and (error := errors.in_success(await answer.error_body())) is not None:
            raise error
        raise ProviderError(Category.PROTOCOL, f"the provider answered {content_type!r} instead of {NDJSON}")

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def request_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body to send.

    Raises:
        ProviderError: `untranslatable`, for what this wire cannot say.
    """
    _refuse(request)
    body: dict[str, Any] = {
        "model": model,
        "messages": _turns((*request.messages, *request.tail)),
        "stream": True,
        "truncate": False,
        "shift": False,
    }
    options = _options(request)
    if options:
        body["options"] = options
    if request.tools and request.tool_choice != "none":
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.schema is not None:
        body["format"] = request.schema or "json"
    think = _think(request)
    if think is not None:
        body["think"] = think
    return body


def _refuse(request: ChatRequest) -> None:
    """Refuse what would be dropped in silence."""
    refuse_own(request, WIRE_NAME)
    if request.n != 1:
        raise untranslatable("n", WIRE_NAME)
    if request.tools and request.tool_choice not in {"auto", "none"}:
        raise untranslatable("tool_choice", WIRE_NAME)
    if request.tools and request.parallel_tool_calls is False:
        raise untranslatable("parallel_tool_calls", WIRE_NAME)


def _options(request: ChatRequest) -> dict[str, Any]:
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "num_predict": request.max_output_tokens,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    return {name: value for name, value in given.items() if value is not None}


def _think(request: ChatRequest) -> bool | str | None:
    if request.effort is not None:
        return _LEVELS[request.effort]
    return None if request.thinking_tokens is None else request.thinking_tokens > 0


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters or _NO_PARAMETERS}
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The history. A tool's result is a turn of its own; what stands beside results comes after them."""
    names: dict[str, str] = {}
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        names.update({part.id: part.name for part in message.parts if isinstance(part, ToolCallPart)})
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        turns += [_result(part, names.get(part.id) or message.name) for part in results]
        shown = [image for part in results for image in part.images]
        rest = tuple(part for part in message.parts if not isinstance(part, ToolResultPart))
        if shown or rest or not results:
            turns.append(_turn(message, (*shown, *rest), f"messages[{index}]"))
    return turns


def _result(part: ToolResultPart, name: str | None) -> dict[str, Any]:
    """What a tool answered. Whether it failed is said by its text alone: there is no member for it."""
    turn = {"role": "tool", "content": part.text, "tool_call_id": part.id}
    return {**turn, "tool_name": name} if name else turn


def _turn(message: Message, parts: tuple[Any, ...], where: str) -> dict[str, Any]:
    if message.name and message.role != "tool":
        raise untranslatable(f"{where}.name", WIRE_NAME)
    turn: dict[str, Any] = {"role": "user" if message.role == "tool" else message.role}
    members: dict[str, list[Any]] = {"thinking": [], "images": [], "tool_calls": []}
    for part in parts:
        match part:
            case TextPart():
                pass
            case ReasoningPart(text=text):
                members["thinking"].append(text)
            case ImagePart(url=url):
                members["images"].append(_base64(url, where))
            case ToolCallPart():
                members["tool_calls"].append(_call(part, where))
            case OpaquePart(kind=kind):
                raise untranslatable(f"{where}.content of type {kind!r}", WIRE_NAME)
            case _:
                raise ProviderError(Category.BAD_REQUEST, f"{type(part).__name__} cannot stand in a turn's content")
    turn["content"] = joined(parts, message.role)
    turn.update({name: value for name, value in members.items() if value})
    if "thinking" in turn:
        turn["thinking"] = "".join(turn["thinking"])
    return turn


def _base64(url: str, where: str) -> str:
    found = _BASE64_URL.fullmatch(url)
    if found is None:
        raise untranslatable(f"{where}.content (an image that is not in base64)", WIRE_NAME)
    return found["data"]


def _call(part: ToolCallPart, where: str) -> dict[str, Any]:
    """A call of an earlier turn."""
    arguments = arguments_object(part, f"{where}.tool_calls (arguments that are no JSON object)", WIRE_NAME)
    function = {"name": part.name, "arguments": arguments}
    return {"id": part.id, "function": function}


PROVIDER = OllamaProvider
