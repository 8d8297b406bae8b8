"""OpenAI's chat completions, and every compatible host by `base_url`.

A request of the same dialect goes out as it came, with the endpoint's model and `stream_options.include_usage`, so that
unknown members survive. A request of any other dialect is built from the canonical fields; what this wire cannot say is
refused before a byte is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway import __version__
from gateway.core.chat import ImagePart, Message, OpaquePart, TextPart, ToolCallPart, ToolResultPart
from gateway.core.errors import Category, ProviderError
from gateway.providers import _openai_errors as errors
from gateway.providers._openai_chunks import DIALECT, ChunkDecoder
from gateway.providers._reading import Asking, Wire
from gateway.providers._translate import refuse_own, untranslatable
from gateway.upstream.sse import SSEDecoder
from gateway.upstream.transport import Transport, parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.core.chat import ChatRequest, Part
    from gateway.core.clock import Clock
    from gateway.upstream.answer import Answer
    from gateway.upstream.contract import Batch

WIRE = Wire(framing=SSEDecoder, decoder=ChunkDecoder, from_stream=errors.from_stream)


class OpenAIProvider:
    """One account of one OpenAI-compatible host."""

    kind = "openai_chat"

    def __init__(self, *, base_url: str, key: str | None, transport: Transport, clock: Clock) -> None:
        self._url = parse_url(base_url.rstrip("/") + "/chat/completions")
        self._transport, self._clock = transport, clock
        self._key = (key or "").encode()
        self._headers = [
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", f"atlas/{__version__}"),
        ]
        if key:
            self._headers.append(("authorization", f"Bearer {key}"))

    def stream(self, request: ChatRequest, model: str) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask for one answer; see `upstream.contract.Provider`."""
        content = msgspec.json.encode(request_body(request, model))
        return Asking(self._transport.post(self._url, self._headers, content), self._check, WIRE)

    async def _check(self, answer: Answer) -> None:
        """An error status, or a head that is none of a stream, ends the attempt."""
        if answer.status != 200:
            body = self._without_key(await answer.error_body())
            raise errors.from_answer(answer.status, answer.headers, body, self._clock.now())
        await _check_head(answer)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()

    def _without_key(self, body: bytes) -> bytes:
        """Some hosts repeat the key that they refuse; their words are shown to clients who must not learn it."""
        return body.replace(self._key, b"[key]") if self._key else body


async def _check_head(answer: Answer) -> None:
    """A stream is what was asked for; anything else is an error body, or not this protocol."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise ProviderError(Category.PROTOCOL, "the provider compressed a stream that was asked for uncompressed")
    content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "text/event-stream":
        return
    if content_type == "application/json" and (error := errors.in_success(await answer.error_body())) is not None:
        raise error
    raise ProviderError(Category.PROTOCOL, f"the provider answered {content_type!r} instead of text/event-stream")


def request_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body to send.

    Raises:
        ProviderError: `bad_request`, for what this wire cannot say.
    """
    body = dict(request.body) if request.dialect == DIALECT else _translated(request)
    body["model"] = model
    body["stream"] = True
    body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def _translated(request: ChatRequest) -> dict[str, Any]:
    """The body of a request that came in another dialect."""
    refuse_own(request, DIALECT)
    body: dict[str, Any] = {"messages": [turn for message in request.messages for turn in _turns(message)]}
    given = {
        "n": request.n if request.n != 1 else None,
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
    }
    body.update({name: value for name, value in given.items() if value is not None})
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": {k: v for k, v in msgspec.structs.asdict(tool).items() if v is not None}}
            for tool in request.tools
        ]
        choice = request.tool_choice
        plain = choice in {"auto", "none", "required"}
        body["tool_choice"] = choice if plain else {"type": "function", "function": {"name": choice}}
    if request.schema is not None:
        body["response_format"] = (
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": request.schema}}
            if request.schema
            else {"type": "json_object"}
        )
    return body


def _turns(message: Message) -> list[dict[str, Any]]:
    """One canonical turn as OpenAI's: every tool result is a turn of its own, what stands beside it comes after."""
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    turns = [{"role": "tool", "tool_call_id": part.id, "content": part.text} for part in results]
    rest = tuple(part for part in message.parts if not isinstance(part, ToolResultPart))
    if rest or not turns:
        role = "user" if message.role == "tool" else message.role
        turns.append(_turn(Message(role=role, parts=rest, name=message.name)))
    return turns


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role}
    if message.name:
        turn["name"] = message.name
    content = [_content(part) for part in message.parts if not isinstance(part, ToolCallPart)]
    calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
    turn["content"] = message.text if all(part["type"] == "text" for part in content) else content
    if calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return turn


def _content(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, detail=detail):
            return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}
        case OpaquePart(kind=kind):
            raise untranslatable(f"a part of type {kind!r}", DIALECT)
        case _:
            raise ProviderError(Category.BAD_REQUEST, f"{type(part).__name__} cannot stand in a turn's content")


PROVIDER = OpenAIProvider
