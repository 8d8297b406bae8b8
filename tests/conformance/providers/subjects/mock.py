"""The mock: its upstream is its injected sleep, and a script is a model's name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.providers.mock import MockProvider
from tests.conformance.providers.subject import (
    CallsTools,
    CutAfter,
    Garbage,
    Healthy,
    NoEnd,
    Refuses,
    Script,
    StallAfter,
    Subject,
    Upstream,
)

if TYPE_CHECKING:
    from gateway.upstream.contract import Provider

UNSUPPORTED = {
    "text_arrives_whole": "the mock makes its own text",
    "any_split_of_the_bytes_gives_the_same_events": "there are no bytes",
    "parallel_tool_calls_stay_apart": "the mock calls one tool",
    "nobody_listening_is_a_failed_connect": "there is nothing to connect to",
    "waiting_for_the_head_can_be_cancelled": "the mock answers at once",
    "failures_keep_the_secret": "there is no key",
}


class MockSubject:
    """Counts the sleeps that began and those that still go on; only the long one of a stall never ends."""

    secret: str | None = None

    def __init__(self) -> None:
        self.provider: Provider = MockProvider(sleep=self._sleep)
        self._began = self._running = 0

    async def _sleep(self, seconds: float) -> None:
        self._began += 1
        self._running += 1
        try:
            await (asyncio.Event().wait() if seconds > 60 else asyncio.sleep(0))
        finally:
            self._running -= 1

    def asked(self) -> int:
        return self._began

    def busy(self) -> int:
        return self._running

    def script(self, upstream: Upstream) -> Script:
        match upstream:
            case Healthy(tokens=tokens):
                return Script(model=f"mock-fast-{tokens}")
            case CallsTools():
                return Script(model="mock-tools")
            case CutAfter(tokens=tokens):
                return Script(model=f"mock-cut-{tokens}")
            case StallAfter(tokens=tokens):
                return Script(model=f"mock-stall-{tokens}")
            case NoEnd():
                return Script(model="mock-no-end")
            case Garbage():
                return Script(model="mock-garbage")
            case Refuses(status=status):
                return Script(model=f"mock-{status}")
            case _:
                raise NotImplementedError(upstream)


@asynccontextmanager
async def opened() -> AsyncIterator[Subject]:
    """A mock without time."""
    yield MockSubject()
