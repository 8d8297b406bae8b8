"""How an adapter reads its answer, whatever the wire: bytes -> framing -> decoder -> batches of events.

An adapter gives three things: a `Framing` (server-sent events, lines), a `Decoder` of its vendor's payloads, and the
function that tells what an in-stream error means. Everything that has to do with sockets, ends and failures is here.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.errors import Category, ProviderError
from gateway.providers._account import hiding, without_secrets
from gateway.providers._mending import mended
from gateway.upstream.sse import OversizeEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from gateway.upstream.answer import Answer
    from gateway.upstream.contract import Accept, Batch

MALFORMED_IN_A_ROW = 3
"""So many malformed payloads in a row are no accident: the host speaks another protocol."""


class Malformed(ValueError):
    """Not what this wire sends: bad JSON or UTF-8, or of another shape."""


class InStreamError(Exception):
    """The provider reported an error inside the stream; `body` is its error member."""

    def __init__(self, body: Any) -> None:
        super().__init__("error in stream")
        self.body = body


class Framing(Protocol):
    """Bytes in any pieces -> whole payloads. See `upstream.sse.SSEDecoder`."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads that `chunk` completes.

        Raises:
            OversizeEvent: no end of a payload within the bound.
        """
        ...

    def flush(self) -> list[bytes]:
        """The payload that the end of the body left without its end."""
        ...


class Decoder(Protocol):
    """One stream's payloads -> events.

    `done`: the terminal marker was seen. `complete`: the body may end here. `malformed`: payloads that were skipped.
    `failure`: set when good payloads stood before a failure in the same read; the next `feed` raises it.
    """

    done: bool
    malformed: int

    @property
    def failure(self) -> Malformed | InStreamError | None:
        """What the next `feed` raises."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the body may end here."""
        ...

    def feed(self, payloads: list[bytes]) -> Batch:
        """The events of whole payloads, in order.

        Raises:
            Malformed: too many malformed payloads in a row.
            InStreamError: the provider says that it failed.
        """
        ...


class Skipping(ABC):
    """What decoders have in common: the order of payloads, and what becomes of malformed ones and failures."""

    def __init__(self) -> None:
        self.done = False
        self.malformed = 0
        self.failure: Malformed | InStreamError | None = None
        self._in_a_row = 0

    def feed(self, payloads: list[bytes]) -> Batch:
        """The events of whole payloads, in order. A malformed one among good ones is skipped and counted.

        What stands before a failure is returned first: then `failure` is set, and the next call raises it.

        Raises:
            Malformed: three in a row.
            InStreamError: the provider says that it failed.
        """
        if self.failure is not None:
            raise self.failure
        events: Batch = []
        at, count = 0, len(payloads)
        while (at := self._take_plain(payloads, at, events)) < count:
            try:
                if payloads[at]:  # an event without data is none
                    self._feed_slowly(payloads[at], events)
            except (Malformed, InStreamError) as failure:
                if not events:
                    raise
                self.failure = failure
                break
            if self.done:
                break
            at += 1
        return events

    def _take_plain(self, payloads: list[bytes], at: int, events: Batch) -> int:
        """Take payloads from `at` on as far as a short way leads; returns the place of the first one left."""
        del payloads, events
        return at

    @abstractmethod
    def _feed_slowly(self, payload: bytes, events: Batch) -> None:
        """Append what any payload says; `_skip` what is malformed, before anything of it was appended.

        Raises:
            Malformed: from `_skip`.
            InStreamError: the provider says that it failed.
        """

    def _skip(self, payload: bytes, events: Batch, error: Exception) -> None:
        """Take a payload in that can be mended, or count it as one that says nothing.

        Raises:
            Malformed: one too many in a row.
            InStreamError: as `_feed_slowly`.
        """
        if (whole := mended(payload)) is not None:
            self._feed_slowly(whole, events)
            return
        self.malformed += 1
        self._in_a_row += 1
        if self._in_a_row >= MALFORMED_IN_A_ROW:
            msg = f"{MALFORMED_IN_A_ROW} malformed events in a row"
            raise Malformed(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What is special about one vendor's answers."""

    framing: Callable[[], Framing]
    decoder: Callable[[], Decoder]
    from_stream: Callable[[Any], ProviderError]


class Asking:
    """One exchange, as the context manager that an adapter's `stream` returns.

    `check(answer)` raises when the head is an error, or none of a stream. No failure that leaves here, at the head or
    within the stream, repeats one of the account's `secrets`.
    """

    __slots__ = ("_check", "_posting", "_reading", "_secrets", "_wire")

    def __init__(
        self,
        posting: AbstractAsyncContextManager[Answer],
        check: Callable[[Answer], Awaitable[None]],
        wire: Wire,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._posting, self._check, self._wire, self._secrets = posting, check, wire, secrets
        self._reading: Reading | None = None

    async def __aenter__(self) -> AsyncIterator[Batch]:
        answer = await self._posting.__aenter__()
        try:
            with hiding(self._secrets):
                await self._check(answer)
        except BaseException:
            await self._posting.__aexit__(*sys.exc_info())
            raise
        self._reading = Reading(answer, self._wire, self._secrets)
        return self._reading

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._reading is not None and self._reading.done:
                await self._reading.answer.drain()
        finally:
            await self._posting.__aexit__(kind, error, traceback)


class Reading:
    """The iterator of one answer: one batch a read."""

    __slots__ = ("_accept", "_decoder", "_framing", "_from_stream", "_over", "_secrets", "answer", "done")

    _accept: Accept
    _over: asyncio.Future[bool]

    def __init__(self, answer: Answer, wire: Wire, secrets: tuple[str, ...] = ()) -> None:
        self.answer, self._secrets = answer, secrets
        self._framing, self._decoder, self._from_stream = wire.framing(), wire.decoder(), wire.from_stream
        self.done = False

    @property
    def malformed(self) -> int:
        """Payloads that were skipped so far."""
        return self._decoder.malformed

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        if self.done:
            raise StopAsyncIteration
        return self._digest(await self.answer.read() if self._decoder.failure is None else b"")

    async def pump(self, accept: Accept) -> bool:
        """Give every batch to `accept` from where it arrives; see `upstream.contract.Pumped`."""
        if self.done:
            return False
        self._accept, self._over = accept, asyncio.get_running_loop().create_future()
        if not self.answer.push_to(self._arrived):
            return await self._pump_by_reading(accept)
        try:
            while self._arrived():
                pass
            return await self._over
        finally:
            self.answer.push_to(None)
            del self._accept, self._over  # an error in there would lead back here, and keep all of it in memory

    def _arrived(self) -> bool:
        """Digest what one read gave. Returns whether more is wanted."""
        over, decoder = self._over, self._decoder
        if over.done():
            return False
        try:
            data = self.answer.take() if decoder.failure is None else b""
            if data is None:
                return False
            wanted = self._accept(self._digest(data))
        except ProviderError as error:
            over.set_exception(error)
            del over  # the error's traceback has this frame: see `pump`
            return False
        if not wanted or self.done:
            over.set_result(not wanted)
            return False
        return decoder.failure is None or self._arrived()  # a failure comes behind what was good before it

    async def _pump_by_reading(self, accept: Accept) -> bool:
        async for batch in self:
            if not accept(batch):
                return True
        return False

    def _digest(self, data: bytes) -> Batch:
        """The events of what one read gave; empty data is the end of the body."""
        try:
            batch = self._decoder.feed(self._framing.feed(data) if data else self._framing.flush())
        except (Malformed, OversizeEvent) as error:
            raise ProviderError(Category.PROTOCOL, str(error)) from error
        except InStreamError as error:
            raise without_secrets(self._from_stream(error.body), self._secrets) from error
        if self._decoder.done:
            self.done = True
        elif not data:
            if not self._decoder.complete:
                raise ProviderError(Category.STREAM_BROKEN, "the provider's answer broke off before its end")
            self.done = True
        return batch
