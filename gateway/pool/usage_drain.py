"""Reading on for the bill: a stream is over for its readers, but closing its socket does not stop the vendor's meter.

What comes is counted as long as it is read and delivered to nobody; only the provider's own word on the usage is kept.
Bounded for a replica: so many at once, and each for so many seconds and bytes of content. Beyond that the socket is
closed, and the bill stays a lower bound.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.core.errors import ProviderError
from gateway.core.events import Reasoning, Refusal, Text, ToolCall, UsageReport
from gateway.core.tokens import utf8_length
from gateway.upstream.contract import pump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.usage import Usage
    from gateway.upstream.contract import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """At most `max_streams` at once, each for at most `max_s` and `max_bytes` of content."""

    max_streams: int = 32
    max_bytes: int = 1 << 20
    max_s: float = 30.0


class Drained(msgspec.Struct, frozen=True):
    """What was learnt: the last usage that was reported, and whether the answer came to its end."""

    usage: Usage | None
    whole: bool


NOTHING_LEARNT = Drained(None, whole=False)


class UsageDrain:
    """One a replica."""

    def __init__(self, policy: DrainPolicy) -> None:
        self.policy, self.running = policy, 0

    def begin(self) -> Reader | None:
        """A place for one more; None: there is none."""
        return Reader(self) if self.running < self.policy.max_streams else None


class Reader:
    """Reads one answer to its end or its bounds; `hurry` makes an end of it at once."""

    def __init__(self, drain: UsageDrain) -> None:
        self._drain = drain
        self._left = drain.policy.max_bytes
        self._usage: Usage | None = None
        self._task: asyncio.Task[bool] | None = None

    def hurry(self) -> None:
        """Read no further."""
        if self._task is not None:
            self._task.cancel()

    async def read(self, batches: AsyncIterator[Batch]) -> Drained:
        """What the rest of these batches says of usage."""
        self._drain.running += 1
        self._task = task = asyncio.get_running_loop().create_task(self._to_the_end(batches), name="usage drain")
        try:
            # No timeout block: this task may have been cancelled before, and would take the deadline for that.
            await asyncio.wait((task,), timeout=self._drain.policy.max_s)
        finally:
            task.cancel()
            await asyncio.wait((task,))
            self._drain.running -= 1
        return Drained(self._usage, whole=not task.cancelled() and task.result())

    async def _to_the_end(self, batches: AsyncIterator[Batch]) -> bool:
        """Whether the answer's end was read."""
        try:
            return not await pump(batches, self._count)
        except ProviderError:
            return False

    def _count(self, batch: Batch) -> bool:
        for event in batch:
            match event:
                case UsageReport(usage=usage):
                    self._usage = usage
                case Text(text=text) | Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments=text):
                    self._left -= utf8_length(text)
                case _:
                    pass
        return self._left > 0
