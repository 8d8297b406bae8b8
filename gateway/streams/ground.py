"""What every session of a process stands on, and the bounds of one stream."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """Bounds of one stream, bytes and events.

    `unacked_bytes` may wait for an acknowledgement, `unacked_total_bytes` of all streams; then their upstreams are not
    read. `degrade`: who reads here is served on without the journal when it does not answer. An end that could not be
    written is tried again for `give_up_s` seconds, which is how long a live log lasts, every `retry_s`, growing to
    `retry_max_s`.
    """

    max_stream_bytes: int = 8_388_608
    max_stream_events: int = 100_000
    pause_hold_bytes: int = 1_048_576
    unacked_bytes: int = 1_048_576
    unacked_total_bytes: int = 67_108_864
    degrade: bool = False
    retry_s: float = 0.5
    retry_max_s: float = 15.0
    give_up_s: float = 1800.0


@dataclass(slots=True)
class Unacked:
    """Bytes that wait for an acknowledgement, of all streams of a process, as far as they were measured."""

    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every session of a process stands on.

    `on_end(session, end)` bills a stream that is over, a `streams.session.Session`, and returns what its status shows
    from then on; it does not touch the journal. `spawn` begins a task that the app owns. `on_control(sid, op, reason)`
    is told when the owner learns of a pause, a resume or a cancel.
    """

    hub: Hub
    journal: Journal
    policy: Policy
    clock: Clock
    on_end: Callable[[Any, End], Awaitable[dict[str, Any] | None]]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    on_control: Callable[[str, str, str | None], None] = lambda _sid, _op, _reason: None
    unacked: Unacked = field(default_factory=Unacked)
