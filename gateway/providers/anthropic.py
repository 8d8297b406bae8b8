"""Anthropic's messages, and every host that speaks the same by `base_url`.

What is sent is decided in `_anthropic_request`, what an answer says in `_anthropic_events`, what an error means in
`_anthropic_errors`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.errors import Category, ProviderError
from gateway.providers import _anthropic_errors as errors
from gateway.providers._account import hiding, request_headers, secrets_of, url_below
from gateway.providers._anthropic_events import EventDecoder
from gateway.providers._anthropic_request import count_body, request_body, request_headers_of
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

WIRE = Wire(framing=SSEDecoder, decoder=EventDecoder, from_stream=errors.from_stream)
STREAM, JSON = "text/event-stream", "application/json"
COUNT_DEADLINE_S = 10.0


class AnthropicProvider:
    """One account of Anthropic; `base_url` may end in `/v1` or leave it out, `auth` is one of `_account`'s."""

    kind = "anthropic"

    def __init__(
        self, *, base_url: str, key: str | None, transport: Transport, clock: Clock, auth: str = "x-api-key"
    ) -> None:
        version = "" if url_below(base_url, "").path.endswith("/v1") else "/v1"
        self._url = url_below(base_url, f"{version}/messages")
        self._count_url = url_below(base_url, f"{version}/messages/count_tokens")
        self._transport, self._clock, self._secrets = transport, clock, secrets_of(key, transport)
        self._headers = request_headers(STREAM, key, auth)
        self._count_headers = request_headers(JSON, key, auth)

    def stream(self, request: ChatRequest, model: str) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask for one answer; see `upstream.contract.Provider`."""
        content = msgspec.json.encode(request_body(request, model))
        headers = [*self._headers, *request_headers_of(request)]
        return Asking(self._transport.post(self._url, headers, content), self._check, WIRE, self._secrets)

    async def count_tokens(self, request: ChatRequest, model: str) -> int:
        """Count a prompt; see `upstream.contract.CountsTokens`."""
        content = msgspec.json.encode(count_body(request, model))
        headers = [*self._count_headers, *request_headers_of(request)]
        try:
            async with (
                asyncio.timeout(COUNT_DEADLINE_S),
                self._transport.post(self._count_url, headers, content) as answer,
            ):
                with hiding(self._secrets):
                    await self._check_status(answer)
                    return _counted(await answer.error_body())
        except TimeoutError as error:
            message = f"the provider did not count within {COUNT_DEADLINE_S:g} s"
            raise ProviderError(Category.TIMEOUT_TOTAL, message) from error

    async def _check(self, answer: Answer) -> None:
        """An error status, or a head that is none of a stream, ends the attempt."""
        await self._check_status(answer)
        content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type == STREAM:
            return
        if content_type == JSON and (error := errors.in_success(await answer.error_body())) is not None:
            raise error
        raise ProviderError(Category.PROTOCOL, f"the provider answered {content_type!r} instead of {STREAM}")

    async def _check_status(self, answer: Answer) -> None:
        if answer.status != 200:
            raise errors.from_answer(answer.status, answer.headers, await answer.error_body(), self._clock.now())
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ProviderError(Category.PROTOCOL, "the provider compressed what was asked for uncompressed")

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def _counted(body: bytes) -> int:
    """The number in an answer to a count."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = None
    count = cast("dict[str, Any]", found).get("input_tokens") if isinstance(found, dict) else None
    if type(count) is not int or count < 0:
        raise errors.in_success(body) or ProviderError(Category.PROTOCOL, "the provider counted no tokens")
    return count


PROVIDER = AnthropicProvider
