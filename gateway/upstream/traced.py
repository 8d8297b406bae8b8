"""A provider whose calls are told to the trace of the request that they are made for, if it has one.

It wraps an adapter, so untraced gateways have nothing of it. What passes is not looked at: the call's span learns what
was generated when the stream is settled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import ProviderError
from gateway.telemetry.tracing import ASKED, CURRENT
from gateway.upstream.fixed_headers import FixedHeaders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from gateway.core.chat import ChatRequest
    from gateway.telemetry.tracing import Attempt
    from gateway.upstream.contract import Batch, Provider
    from gateway.upstream.transport import Headers


class TracedProvider:
    """`inner`, as the endpoint of this name; see `upstream.contract.Provider`."""

    def __init__(self, inner: Provider, endpoint: str) -> None:
        self._inner, self._endpoint = inner, endpoint
        self.kind = inner.kind

    def stream(self, request: ChatRequest, model: str) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask for one answer, as part of the current trace."""
        trace = CURRENT.get()
        attempt = None if trace is None else trace.attempt(self._endpoint, self.kind, model)
        ASKED.set(attempt)
        if attempt is None:
            return self._inner.stream(request, model)
        try:
            return _Traced(self._inner.stream(request, model), attempt)
        except ProviderError as error:
            attempt.left(error.category)
            raise

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._inner.aclose()


class _Traced:
    """A call's own context, around it."""

    __slots__ = ("_attempt", "_inner")

    def __init__(self, inner: AbstractAsyncContextManager[AsyncIterator[Batch]], attempt: Attempt) -> None:
        self._inner, self._attempt = inner, attempt

    async def __aenter__(self) -> AsyncIterator[Batch]:
        try:
            return await self._inner.__aenter__()
        except BaseException as error:
            self._attempt.left(_why(error))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(kind, error, traceback)
        finally:
            self._attempt.left(None if error is None else _why(error))


class Propagating(FixedHeaders):
    """A transport that also sends `traceparent`: to hosts whose operator may know of our traces."""

    def _with_fixed(self, headers: Headers) -> Headers:
        attempt = ASKED.get()
        own = super()._with_fixed(headers)
        return own if attempt is None else [*own, *attempt.headers()]


def _why(error: BaseException) -> str:
    return error.category if isinstance(error, ProviderError) else "cancelled"
