"""One endpoint, asked once: from its request to its first content, or to its failure."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from gateway.core.errors import Category, ProviderError
from gateway.pool.answering import read_to_content
from gateway.pool.hold_back import AtomicTools
from gateway.upstream.contract import skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.core.chat import ChatRequest
    from gateway.pool.candidate import Trial
    from gateway.pool.endpoint import Endpoint
    from gateway.upstream.contract import Batch


class Asked:
    """`trial` is what the endpoint's candidate knows of it, `begun` when it was asked, monotonic seconds.

    Once it came to content, `head` is what was read so far, `batches` the rest, and `attempt` is to be left.
    """

    __slots__ = ("_reading", "attempt", "batches", "begun", "endpoint", "head", "trial")

    attempt: AbstractAsyncContextManager[AsyncIterator[Batch]]
    batches: AsyncIterator[Batch]

    def __init__(self, endpoint: Endpoint, trial: Trial, begun: float) -> None:
        self.endpoint, self.trial, self.begun = endpoint, trial, begun
        self.head: Batch = []
        self._reading: AsyncIterator[Batch] | None = None

    async def to_content(self, request: ChatRequest, model: str, *, atomic: bool) -> None:
        """Send the request and read up to the first content; `atomic` holds tool calls until they are whole.

        Raises:
            ProviderError: it failed. Then, and when this is cancelled, it has been left.
        """
        timeouts = self.endpoint.timeouts
        try:
            async with asyncio.timeout(timeouts.first_token_s) as deadline:
                self.attempt = self.endpoint.using(self.trial.key).stream(request, model)
                batches = self._reading = await self.attempt.__aenter__()
                self.batches = AtomicTools(batches) if atomic else batches
                try:
                    self.head = await read_to_content(self.batches, deadline, timeouts, goes_on=bool(request.tail))
                except BaseException:
                    await self.attempt.__aexit__(*sys.exc_info())
                    raise
        except TimeoutError:
            late = f"no first token within {timeouts.first_token_s:g} s"
            raise ProviderError(Category.TIMEOUT_FIRST_TOKEN, late) from None

    def malformed(self) -> int:
        """Payloads that it could not read and skipped, since this was asked last: known when it is left."""
        reading, self._reading = self._reading, None
        return skipped(reading)
