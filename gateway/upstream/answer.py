"""What a provider's answer is to an adapter, whichever client it came by."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.core.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_ERROR_BODY = 65_536
ERROR_BODY_DEADLINE_S = 5.0
DRAIN_DEADLINE_S = 0.25


class Answer(ABC):
    """The head of an upstream answer, and its body read by read. `headers` has lower-case names."""

    __slots__ = ()

    status: int
    headers: Mapping[str, str]

    @abstractmethod
    async def read(self) -> bytes:
        """What has arrived since the last read, at least one byte; empty at the clean end of the body.

        Raises:
            ProviderError: `stream_broken` when the body ended before its announced end.
        """

    def push_to(self, sink: Callable[[], bool] | None) -> bool:
        """Call `sink` when `take` may give something, as long as it returns True; None: no more.

        Returns whether this answer can do that.
        """
        del sink
        return False

    def take(self) -> bytes | None:
        """What has arrived since the last read, without waiting; None: nothing, empty: the clean end of the body.

        Raises:
            ProviderError: as `read`.
        """
        return None

    async def error_body(self) -> bytes:
        """The body of an error answer: at most 64 KiB, within 5 s, whatever came if it breaks."""
        body = bytearray()
        with suppress(TimeoutError, ProviderError):
            async with asyncio.timeout(ERROR_BODY_DEADLINE_S):
                while len(body) < MAX_ERROR_BODY and (chunk := await self.read()):
                    body += chunk
        return bytes(body[:MAX_ERROR_BODY])

    async def drain(self) -> None:
        """After the terminal marker: wait a moment for the end of the body, so that the connection can be kept."""
        with suppress(TimeoutError, ProviderError):
            while data := self.take():
                pass
            if data is None:  # usually it came with the marker
                async with asyncio.timeout(DRAIN_DEADLINE_S):
                    while await self.read():
                        pass
