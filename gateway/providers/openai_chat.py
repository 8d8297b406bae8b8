"""OpenAI's chat completions, and every compatible host by `base_url`.

What is sent is decided in `_openai_request`, what an answer says in `_openai_chunks`, what an error means in
`_openai_errors`. Hosts differ in small things: those are `Quirks`, rows of a data file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.core.errors import Category, ProviderError
from gateway.providers import _openai_errors as errors
from gateway.providers._account import request_headers, secrets_of, url_below
from gateway.providers._openai_chunks import ChunkDecoder
from gateway.providers._openai_request import PLAIN, Quirks, request_body
from gateway.providers._reading import Asking, Wire
from gateway.upstream.sse import SSEDecoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.upstream.answer import Answer
    from gateway.upstream.contract import Batch
    from gateway.upstream.transport import Transport

__all__ = ["PROVIDER", "OpenAIProvider", "Quirks", "request_body"]

WIRE = Wire(framing=SSEDecoder, decoder=ChunkDecoder, from_stream=errors.from_stream)


class OpenAIProvider:
    """One account of one OpenAI-compatible host."""

    kind = "openai_chat"

    def __init__(
        self,
        *,
        base_url: str,
        key: str | None,
        transport: Transport,
        clock: Clock,
        auth: str = "bearer",
        quirks: Quirks = PLAIN,
    ) -> None:
        self._url = url_below(base_url, "/chat/completions")
        self._transport, self._clock, self._quirks = transport, clock, quirks
        self._secrets = secrets_of(key, transport)
        self._headers = request_headers("text/event-stream", key, auth)

    def stream(self, request: ChatRequest, model: str) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask for one answer; see `upstream.contract.Provider`."""
        content = msgspec.json.encode(request_body(request, model, self._quirks))
        return Asking(self._transport.post(self._url, self._headers, content), self._check, WIRE, self._secrets)

    async def _check(self, answer: Answer) -> None:
        """An error status, or a head that is none of a stream, ends the attempt."""
        if answer.status != 200:
            raise errors.from_answer(answer.status, answer.headers, await answer.error_body(), self._clock.now())
        await _check_head(answer)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


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


PROVIDER = OpenAIProvider
