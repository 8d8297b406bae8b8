"""What the chaos provider knows of one request: all that came, all that went, and how it ended."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.plan import Plan
from tests.support.signals import PATIENCE_S, Signal

Outcome = Literal["open", "complete", "cut", "reset", "ended", "left", "stopped"]


@dataclass(slots=True, kw_only=True, eq=False)
class Received:
    """One request, filled in while it is answered.

    `json` is None for a body that is none. `events`, `tokens`, `body_sent` and `wire_sent` count what was handed to the
    kernel or its buffer. `outcome`: `complete` all of the answer went out; `cut`, `reset`, `ended` as planned; `left`
    the peer closed before that; `stopped` the provider was shut down. `closed` is set when the connection is gone,
    whoever closed it (`closed_by`), which for a kept-alive connection is later than the answer's end; `closed_at` is
    loop time. `paused_writing` is true while the peer does not read fast enough.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str]
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes
    json: Any
    connection: int
    reused: bool
    signal: Signal
    query: str = ""
    plan: Plan = field(default_factory=Plan)
    events: int = 0
    tokens: int = 0
    body_sent: bytearray = field(default_factory=bytearray)
    wire_sent: int = 0
    paused_writing: bool = False
    outcome: Outcome = "open"
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_by: Literal["peer", "provider"] | None = None
    closed_at: float | None = None

    async def wrote(self, events: int, timeout: float = PATIENCE_S) -> None:
        """Returns when that many events went out in all."""
        await self.signal.until(lambda: self.events >= events, timeout, f"event {events} to be written")

    async def answered(self, timeout: float = PATIENCE_S) -> Outcome:
        """Returns how it ended, once it did."""
        await self.signal.until(lambda: self.outcome != "open", timeout, "the answer's end")
        return self.outcome

    async def gone(self, timeout: float = PATIENCE_S) -> None:
        """Returns when the connection is closed: the provider saw it."""
        await self.signal.until(self.closed.is_set, timeout, "the connection to be closed")
