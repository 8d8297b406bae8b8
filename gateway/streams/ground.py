"""What every session of a process stands on, and the bounds of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

    from gateway.core.clock import Clock
    from gateway.core.events import End
    from gateway.streams.hub import Hub
    from gateway.streams.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Bounds of one stream."""

    max_stream_bytes: int = 8_388_608
    max_stream_events: int = 100_000
    pause_hold_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every session of a process stands on.

    `on_end(session, end)` settles a stream that is over, a `streams.session.Session`. `spawn` begins a task that the
    app owns.
    """

    hub: Hub
    journal: Journal
    policy: Policy
    clock: Clock
    on_end: Callable[[Any, End], Awaitable[None]]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
