"""The contract between a provider adapter and everything above it.

An adapter speaks one vendor API. It knows nothing of routes, retries, budgets or HTTP clients' exceptions, and it holds
no state between calls but its transport.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast, runtime_checkable

from gateway.core.chat import ChatRequest
from gateway.core.events import SourceEvent

Batch: TypeAlias = list[SourceEvent]
"""What one read of the upstream gave. An empty batch means: alive, but no progress (a ping)."""


Accept: TypeAlias = Callable[[Batch], bool]
"""Takes a batch at once; False: no more for now."""


class Pumped(Protocol):
    """An iterator of batches that can also hand them on from where they arrive, without waking a task for each."""

    async def pump(self, accept: Accept) -> bool:
        """Give every batch to `accept`. Returns True once that returned False, False at the end of the answer."""
        ...


async def pump(batches: AsyncIterator[Batch], accept: Accept) -> bool:
    """Give every batch to `accept`, by the shortest way there is; see `Pumped`."""
    if hasattr(batches, "pump"):  # isinstance with a protocol costs 10 us
        return await cast("Pumped", batches).pump(accept)
    async for batch in batches:
        if not accept(batch):
            return True
    return False


def skipped(batches: object) -> int:
    """Payloads that this iterator of batches could not read and skipped: its `malformed`, if it has that."""
    count: int = getattr(batches, "malformed", 0)
    return count


class Provider(Protocol):
    """One configured account of one vendor API.

    Contract, judged by `tests/conformance/providers`:
    - `stream` is an async context manager; entering it sends the request and waits for the answer's head. Leaving it,
      in whatever way, closes the socket or returns it to the pool within one turn of the loop when cancelled.
    - The iterator yields batches: work is done per read, not per event. The events of one upstream chunk are in one
    batch.
    - It ends normally only if the upstream's terminal marker was seen. Everything else raises `ProviderError`, and
      nothing but `ProviderError` is raised.
    - A batch belongs to who received it: the adapter does not keep it.
    - Per choice: content before its one `Finish`. Usage is reported at most once per change, cumulative.
    - What the request asks for and this wire cannot say raises `ProviderError(bad_request)` before a byte is sent.
    - Calls are independent: any number may run side by side.
    """

    kind: str

    def stream(self, request: ChatRequest, model: str) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Ask for one answer of the provider's own `model`."""
        ...

    async def aclose(self) -> None:
        """Close idle connections; running streams were left before."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A provider that can say how many tokens a prompt has without answering it; others are estimated."""

    async def count_tokens(self, request: ChatRequest, model: str) -> int:
        """The whole prompt's tokens for the provider's own `model`, tools and system prompts included.

        Raises:
            ProviderError: as `Provider.stream` on entering, and `timeout_total` after a few seconds.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Deadlines of one endpoint, in seconds.

    `progress_s`: pings are not progress. `total_s` does not run while paused.
    """

    connect_s: float = 5.0
    first_token_s: float = 60.0
    idle_s: float = 60.0
    progress_s: float = 180.0
    total_s: float = 900.0
