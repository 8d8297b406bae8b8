"""A route: what clients name as `model`, and the endpoints that may answer it, tried in order before the first content.

The commit point is the first semantic delta. Before it every failure is an invisible switch to the next attempt; after
it the failure goes up as it is. When all fail, the first error is the one reported, with every attempt listed; that an
endpoint speaks another dialect than the caller's own members need is reported only when nothing else went wrong.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, Leg, is_content
from gateway.pool.retry import MAX_ATTEMPTS, repeat_after_s
from gateway.upstream.contract import pump, skipped

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from gateway.core.chat import ChatRequest
    from gateway.core.errors import Failure
    from gateway.pool.endpoint import Endpoint
    from gateway.upstream.contract import Accept, Batch, Timeouts

STRATEGY = "priority"
_UNCOUNTED = {Category.STALE_CONNECTION, Category.UNTRANSLATABLE}  # no request went out, or none arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderGroup:
    """The endpoints of one route. `model` may end in `*`: then it serves every model with that prefix.

    `on_attempt(endpoint, outcome, seconds)` is told how each attempt went: `ok` at its first content, else the
    category. `on_unmapped(endpoint, status)` is told of errors that nothing but the class of their status explains,
    `on_malformed(endpoint, count)` of payloads that an attempt could not read.
    """

    model: str
    endpoints: tuple[Endpoint, ...]
    rng: random.Random
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_attempt: Callable[[str, str, float], None] = field(default=lambda _endpoint, _outcome, _seconds: None)
    on_unmapped: Callable[[str, int], None] = field(default=lambda _endpoint, _status: None)
    on_malformed: Callable[[str, int], None] = field(default=lambda _endpoint, _count: None)

    @property
    def wildcard(self) -> bool:
        """Whether this route serves a whole prefix."""
        return self.model.endswith("*")

    def wanted(self, named: str) -> str:
        """The part of the client's model name that wildcard endpoints are asked for."""
        return named[len(self.model) - 1 :] if self.wildcard else named

    def attempt(self, request: ChatRequest, *, fallback: bool = True) -> Attempts:
        """An event source that answers `request`; without `fallback` only the first endpoint is asked."""
        return Attempts(self, request, self.endpoints if fallback else self.endpoints[:1])


class Attempts:
    """The attempts of one request, as an event source: see `streams.source.Source`.

    `endpoint` is the one that answers, `trying` the one that was asked and has neither failed nor given content.
    `malformed` counts the payloads that the attempts left so far could not read.
    """

    def __init__(self, group: ProviderGroup, request: ChatRequest, endpoints: tuple[Endpoint, ...]) -> None:
        self._group, self._request, self._endpoints = group, request, endpoints
        self.attempts: list[str] = []
        self.endpoint: Endpoint | None = None
        self.trying: Endpoint | None = None
        self.malformed = 0
        self._reading: AsyncIterator[Batch] | None = None
        self._answering: AbstractAsyncContextManager[AsyncIterator[Batch]] | None = None
        self._failures: list[Failure] = []
        self._uncounted: set[str] = set()

    @property
    def timeouts(self) -> Timeouts:
        """Deadlines of the endpoint that answers, or of the first one before that."""
        return (self.endpoint or self._endpoints[0]).timeouts

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """The attempts as a context manager: entering waits for the first content, leaving closes the socket.

        Raises:
            ProviderError: on entering, the first failure, when no attempt came to content.
        """
        return self

    async def __aenter__(self) -> AsyncIterator[Batch]:
        """Try the endpoints in order until one gives content."""
        endpoints = self._endpoints
        for position, endpoint in enumerate(endpoints):
            others = position + 1 < len(endpoints)
            repeated: set[bool] = set()  # at most one repeat, and one more for a stale connection
            while True:
                batches = await self._first_content(endpoint)
                if batches is not None:
                    return batches
                failure = self._failures[-1]
                stale = failure.category is Category.STALE_CONNECTION
                wait = None if stale in repeated else repeat_after_s(failure, others=others, rng=self._group.rng)
                if wait is None or self._exhausted:
                    break
                repeated.add(stale)
                await self._group.sleep(wait)
            if self._exhausted or not failure.consequence.elsewhere:
                break
        raise self._first_failure()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the attempt that answers."""
        if self.endpoint is not None:
            self._count_malformed(self.endpoint)
            if isinstance(error, ProviderError):
                self._count_unmapped(self.endpoint, error)
        answering, self._answering = self._answering, None
        if answering is not None:
            await answering.__aexit__(kind, error, traceback)

    @property
    def _exhausted(self) -> bool:
        return len(self._failures) - len(self._uncounted) >= MAX_ATTEMPTS

    async def _first_content(self, endpoint: Endpoint) -> AsyncIterator[Batch] | None:
        """Ask one endpoint; its batches once the first content is there, None (and a failure noted) if it fails."""
        begun, self.trying = self._group.clock(), endpoint
        try:
            model = endpoint.model_for(self._group.wanted(self._request.model))
            async with asyncio.timeout(endpoint.timeouts.first_token_s):
                attempt = endpoint.provider.stream(self._request, model)
                batches = self._reading = await attempt.__aenter__()
                try:
                    head = await _read_to_content(batches)
                except BaseException:
                    self._count_malformed(endpoint)
                    await attempt.__aexit__(*sys.exc_info())
                    raise
        except TimeoutError:
            limit = endpoint.timeouts.first_token_s
            self._note(
                endpoint, ProviderError(Category.TIMEOUT_FIRST_TOKEN, f"no first token within {limit:g} s"), begun
            )
        except ProviderError as error:
            self._note(endpoint, error, begun)
        else:
            self.endpoint, self.trying, self._answering = endpoint, None, attempt
            self.attempts.append(f"{endpoint.name}: ok")
            self._group.on_attempt(endpoint.name, "ok", self._group.clock() - begun)
            leg = Leg(1, endpoint.name, endpoint.provider.kind, STRATEGY, self._why(endpoint))
            return _Answering([leg, *head], batches)
        return None

    def _why(self, endpoint: Endpoint) -> str:
        if not self._failures:
            return "first in order"
        return f"{endpoint.name} after {', '.join(self.attempts[:-1])}"

    def _count_malformed(self, endpoint: Endpoint) -> None:
        """Called when an attempt is left: what it skipped is known then."""
        count = skipped(self._reading)
        self._reading = None
        if count:
            self.malformed += count
            self._group.on_malformed(endpoint.name, count)

    def _count_unmapped(self, endpoint: Endpoint, error: ProviderError) -> None:
        if error.unmapped is not None:
            self._group.on_unmapped(endpoint.name, error.unmapped)

    def _note(self, endpoint: Endpoint, error: ProviderError, begun: float) -> None:
        self._count_unmapped(endpoint, error)
        failure, self.trying = error.failure, None
        if failure.category is Category.MODEL_NOT_FOUND and endpoint.model == "*":
            failure = msgspec.structs.replace(failure, status=404)  # the client named it
        if failure.category in _UNCOUNTED:
            self._uncounted.add(endpoint.name)  # the first of an endpoint; a second one was no stale connection
        self._failures.append(failure)
        self.attempts.append(f"{endpoint.name}: {failure.category}")
        self._group.on_attempt(endpoint.name, failure.category, self._group.clock() - begun)

    def _first_failure(self) -> ProviderError:
        first = next(
            (each for each in self._failures if each.category is not Category.UNTRANSLATABLE), self._failures[0]
        )
        error = ProviderError(first.category, first.message)
        waits = [failure.retry_after_s for failure in self._failures if failure.retry_after_s is not None]
        soonest = min(waits, default=None)
        error.failure = msgspec.structs.replace(first, attempts=tuple(self.attempts), retry_after_s=soonest)
        return error


class _Answering:
    """The batches of the endpoint that answers: what was read so far, then the rest."""

    __slots__ = ("_batches", "_head")

    def __init__(self, head: Batch, batches: AsyncIterator[Batch]) -> None:
        self._head: Batch | None = head
        self._batches = batches

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    def __anext__(self) -> Awaitable[Batch]:
        # No coroutine of its own: the reader awaits the provider's directly.
        return self._batches.__anext__() if self._head is None else self._take_head(self._head)

    async def pump(self, accept: Accept) -> bool:
        """Give every batch to `accept`; see `upstream.contract.Pumped`."""
        if self._head is not None and not accept(await self._take_head(self._head)):
            return True
        return await pump(self._batches, accept)

    async def _take_head(self, head: Batch) -> Batch:
        self._head = None
        return head


async def _read_to_content(batches: AsyncIterator[Batch]) -> Batch:
    """Everything up to and with the first batch that holds content, or a whole answer that rightly has none.

    Raises:
        ProviderError: `empty`, for an answer that ends without content although nothing cut it short.
    """
    head: Batch = []
    async for batch in batches:
        head += batch
        if any(map(is_content, batch)):
            return head
    if any(isinstance(event, Finish) and event.reason != "stop" for event in head):
        return head  # filtered, or all tokens went into reasoning that is not shown
    raise ProviderError(Category.EMPTY, "the provider's answer had no content")
