"""One endpoint, asked once: from its request to its first content, or to its failure."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from gateway.core.errors import Category, ProviderError
from gateway.pool.answering import read_to_content
from gateway.pool.hold_back import AtomicTools
from gateway.pool.usage_drain import NOTHING_LEARNT
from gateway.upstream.contract import skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from gateway.core.chat import ChatRequest
    from gateway.pool.candidate import Trial
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.usage_drain import Reader
    from gateway.upstream.contract import Batch


class Asked:
    """`trial` is what the endpoint's candidate knows of it, `begun` when it was asked, monotonic seconds.

    Once it came to content, `head` is what was read so far, `batches` the rest, and it is to be left. With `reads_on`
    that takes until the endpoint's usage drain has learnt what the answer took: `drained`.
    """

    __slots__ = (
        "_attempt", "_reader", "_reading", "batches", "begun", "drained", "endpoint", "head", "reads_on", "trial",
    )  # fmt: skip

    _attempt: AbstractAsyncContextManager[AsyncIterator[Batch]]
    batches: AsyncIterator[Batch]

    def __init__(self, endpoint: Endpoint, trial: Trial, begun: float) -> None:
        self.endpoint, self.trial, self.begun = endpoint, trial, begun
        self.head: Batch = []
        self._reading: AsyncIterator[Batch] | None = None
        self._reader: Reader | None = None
        self.reads_on = False
        self.drained = NOTHING_LEARNT

    async def to_content(self, request: ChatRequest, model: str, *, atomic: bool) -> None:
        """Send the request and read up to the first content; `atomic` holds tool calls until they are whole.

        Raises:
            ProviderError: it failed. Then, and when this is cancelled, it has been left.
        """
        timeouts = self.endpoint.timeouts
        try:
            async with asyncio.timeout(timeouts.first_token_s) as deadline:
                self._attempt = self.endpoint.using(self.trial.key).stream(request, model)
                batches = self._reading = await self._attempt.__aenter__()
                self.batches = AtomicTools(batches) if atomic else batches
                try:
                    self.head = await read_to_content(self.batches, deadline, timeouts, goes_on=bool(request.tail))
                except BaseException:
                    await self._attempt.__aexit__(*sys.exc_info())
                    raise
        except TimeoutError:
            late = f"no first token within {timeouts.first_token_s:g} s"
            raise ProviderError(Category.TIMEOUT_FIRST_TOKEN, late) from None

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the socket, or give it back after a whole answer."""
        try:
            if self.reads_on and self.endpoint.usage_drain is not None:
                self._reader = self.endpoint.usage_drain.begin()
                if self._reader is not None:
                    self.drained = await self._reader.read(self.batches)
        finally:
            await self._attempt.__aexit__(kind, error, traceback)

    def hurry(self) -> None:
        """The process ends: what is read only for its usage is read no further."""
        if self._reader is not None:
            self._reader.hurry()

    def malformed(self) -> int:
        """Payloads that it could not read and skipped, since this was asked last: known when it is left."""
        reading, self._reading = self._reading, None
        return skipped(reading)
